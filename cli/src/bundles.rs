//! Bundles where they lie: told from other files by their content, opened, read from a pipe, and named as a base.

use std::path::Path;
use std::sync::Arc;

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::layout::read_small;
use agent_trace_store::{Error, ErrorKind, Result, Store};
use agent_trace_sync::bundle::{Base, Bundle, MAGIC, is_cursor};
use agent_trace_sync::limits::{BUNDLE_BYTES_MAX, BUNDLE_INFO_BYTES_MAX, FORMAT_BYTES_MAX};

use crate::ui::Ui;

/// What a path that stands for stdin or stdout is written as.
pub(crate) const PIPE: &str = "-";
/// What files in `tmp` start with that are read from a pipe.
const SPOOLED: &str = "pipe-";

/// What lies at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    File,
    Folder,
    Other,
}

fn form(env: &Env, path: &Path) -> Result<Form> {
    let doing = |error| Error::io(format!("cannot look at `{}`", path.display()), error);
    if env.fs.metadata(path).map_err(doing)?.is_dir {
        let format = read_small(env, &path.join("format"), FORMAT_BYTES_MAX).unwrap_or_default();
        return Ok(if format.starts_with(b"agent-trace remote ") { Form::Folder } else { Form::Other });
    }
    let file = env.fs.open(path).map_err(doing)?;
    let mut magic = [0; MAGIC.len()];
    let is_bundle = file.read_exact_at(&mut magic, 0).is_ok() && &magic == MAGIC;
    Ok(if is_bundle { Form::File } else { Form::Other })
}

/// Opens what lies at a path if it is a bundle.
pub(crate) fn find(env: &Env, path: &Path) -> Result<Option<Bundle>> {
    match form(env, path)? {
        Form::Other => Ok(None),
        Form::File => open_file(env, path).map(Some),
        Form::Folder => Bundle::of_folder(env, path).map(Some),
    }
}

/// Opens a bundle.
pub(crate) fn open(env: &Env, path: &Path) -> Result<Bundle> {
    match form(env, path)? {
        Form::Folder => Bundle::of_folder(env, path),
        Form::File => open_file(env, path),
        Form::Other => Err(Error::invalid(format!(
            "`{}` is no bundle: it has neither the first bytes of one nor a `format` file",
            path.display()
        ))),
    }
}

fn open_file(env: &Env, path: &Path) -> Result<Bundle> {
    let doing = |error| Error::io(format!("cannot open `{}`", path.display()), error);
    Bundle::of_file(Arc::from(env.fs.open(path).map_err(doing)?), &path.display().to_string())
}

/// Reads a bundle from stdin into a file of the store that has no name, and opens it.
pub(crate) fn from_pipe(ui: &Ui, store: &Store) -> Result<Bundle> {
    let file = nameless(store)?;
    let mut written = 0u64;
    ui.input_into(&mut |bytes| {
        written += bytes.len() as u64;
        if written > BUNDLE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "cannot read stdin: expected at most {BUNDLE_BYTES_MAX} bytes"
            )));
        }
        let doing = |error| Error::io("cannot write what comes from stdin to the store's `tmp`", error);
        file.write_all_at(bytes, written - bytes.len() as u64).map_err(doing)
    })?;
    let mut magic = [0; MAGIC.len()];
    if file.read_exact_at(&mut magic, 0).is_err() || &magic != MAGIC {
        return Err(Error::invalid("what comes from stdin is no bundle"));
    }
    Bundle::of_file(Arc::from(file), "stdin")
}

/// A file that is gone when this process is, however it ends.
fn nameless(store: &Store) -> Result<Box<dyn File>> {
    let (env, dir) = (store.env(), store.dir().join("tmp"));
    let doing = |error| Error::io(format!("cannot create a file in `{}`", dir.display()), error);
    // One that was killed right after it had made its file.
    for entry in env.fs.list(&dir).map_err(doing)? {
        let path = dir.join(&entry.name);
        if entry.name.to_string_lossy().starts_with(SPOOLED) {
            // Another process may do the same.
            let _ = env.fs.remove(&path);
        }
    }
    let mut random = [0; 8];
    env.entropy.fill(&mut random);
    let path = dir.join(format!("{SPOOLED}{}", encode_hex(&random)));
    let file = env.fs.create(&path, true).map_err(doing)?;
    let _ = env.fs.remove(&path);
    Ok(file)
}

/// Reads what `--base` names: a bundle, a saved answer of `bundle show --json` or `export --json`, or a cursor.
pub(crate) fn base(env: &Env, text: &str) -> Result<Base> {
    if is_cursor(text) {
        return Base::of_cursor(text);
    }
    let path = Path::new(text);
    if let Some(bundle) = find(env, path)? {
        return Base::of_bundle(bundle.transport());
    }
    let wrong = || {
        Error::new(
            ErrorKind::Invalid,
            format!(
                "`{text}` is no base: expected a bundle, the answer of `bundle show --json`, or a cursor"
            ),
        )
    };
    // A little more than a manifest, since the answer has it inside.
    let bytes = read_small(env, path, 2 * BUNDLE_INFO_BYTES_MAX)
        .map_err(|error| Error::io(format!("cannot read `{text}`"), error))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?.trim();
    if is_cursor(text) {
        return Base::of_cursor(text);
    }
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let from = value.get("manifest").unwrap_or(&value);
    let cursor = from.get("cursor").and_then(serde_json::Value::as_str).ok_or_else(wrong)?;
    let id = from.get("id").and_then(serde_json::Value::as_str).map(str::to_owned);
    Ok(Base { id, ..Base::of_cursor(cursor)? })
}
