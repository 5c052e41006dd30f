//! A bundle that is being written: a remote whose files go in order into one file or a pipe.
//!
//! Each file is written once. A segment whose length is known at its end only is kept aside until then, one at a time.
//! A file gets its name when all of it is durable, so a run that is cut leaves none.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_trace_store::env::{Env, File, Lock, LockMode};
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, Timestamp};

use crate::bundle::container::{
    Entry, encode_directory, encode_entry, encode_header, encode_trailer, is_key,
};
use crate::manifest::segment_key;
use crate::transport::{Listed, Outlet, Standing, Transport, Upload};

const COPY_BYTES: usize = 1 << 20;
/// Files up to this length can be read again while a bundle is written.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Where the bytes of a bundle go, in order.
pub trait Flow: Send {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes all of it last.
    fn finish(&mut self) -> Result<()>;
}

/// A file that gets its name at the end.
pub struct NewFile {
    env: Env,
    file: Box<dyn File>,
    aside: PathBuf,
    path: PathBuf,
    written: u64,
    named: bool,
    _mark: Option<Box<dyn Lock>>,
}

impl NewFile {
    /// Starts a file that replaces what is at `path` when it is finished. What earlier runs that were cut have left beside it is
    /// removed.
    pub fn create(env: &Env, path: &Path) -> Result<NewFile> {
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        // A device or a pipe must not be replaced by a file, and what a link leads to is not what would be.
        if matches!(env.fs.is_plain(path), Ok(false)) {
            return Err(Error::invalid(format!("`{}` is a link, a pipe or a device", path.display())));
        }
        let aside = aside(env, path)?;
        let file = env.fs.create(&aside, true).map_err(doing)?;
        // Says to others that somebody is at work here; the system forgets it when the process dies.
        let mark = env.fs.try_lock(&aside, LockMode::Exclusive).map_err(doing)?;
        Ok(NewFile {
            env: env.clone(),
            file,
            aside,
            path: path.to_owned(),
            written: 0,
            named: false,
            _mark: mark,
        })
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("cannot write `{}`", self.path.display()), error)
    }
}

/// A name beside `path` that nobody has, and nothing that a dead run has left there.
pub(crate) fn aside(env: &Env, path: &Path) -> Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::invalid(format!("cannot write a bundle to `{}`: expected the name of a file", path.display()))
    })?;
    let dir = parent(path);
    let start = format!(".{name}.new-");
    let doing = |error| Error::io(format!("cannot look into `{}`", dir.display()), error);
    for entry in env.fs.list(dir).map_err(doing)? {
        if !entry.name.to_str().is_some_and(|name| name.starts_with(&start)) {
            continue;
        }
        let left = dir.join(&entry.name);
        let mark = if entry.is_dir { left.join(MARK) } else { left.clone() };
        if let Ok(Some(_held)) = env.fs.try_lock(&mark, LockMode::Exclusive) {
            // What cannot be removed harms nobody.
            let _ = if entry.is_dir { env.fs.remove_dir_all(&left) } else { env.fs.remove(&left) };
        }
    }
    let mut random = [0; 8];
    env.entropy.fill(&mut random);
    Ok(dir.join(format!("{start}{}", encode_hex(&random))))
}

/// In a folder that is being written: held by who writes it.
pub(crate) const MARK: &str = ".writing";

/// The folder that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Flow for NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.written).map_err(|error| self.failed(error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.file.sync().map_err(|error| self.failed(error))?;
        self.env.fs.rename(&self.aside, &self.path).map_err(|error| self.failed(error))?;
        self.named = true;
        self.env.fs.sync_dir(parent(&self.path)).map_err(|error| self.failed(error))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.named {
            // A file without a name that counts; the next run removes it.
            let _ = self.env.fs.remove(&self.aside);
        }
    }
}

/// A pipe.
pub struct Pipe<W>(pub W);

impl<W: Write + Send> Flow for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|error| Error::io("cannot write the bundle to the pipe", error))
    }

    fn finish(&mut self) -> Result<()> {
        self.0.flush().map_err(|error| Error::io("cannot write the bundle to the pipe", error))
    }
}

/// What takes the bytes of an entry.
type Put<'p> = &'p mut dyn FnMut(&[u8]) -> Result<()>;

struct State {
    flow: Box<dyn Flow>,
    at: u64,
    entries: Vec<Entry>,
    keys: HashSet<String>,
    /// Small files, which may be asked for again.
    kept: BTreeMap<String, Vec<u8>>,
}

impl State {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.flow.write(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// Writes an entry of so many bytes, which `fill` hands over in order.
    fn entry(
        &mut self,
        key: &str,
        bytes: u64,
        fill: &mut dyn FnMut(Put<'_>) -> Result<()>,
    ) -> Result<[u8; 32]> {
        if !is_key(key) || self.has(key) {
            return Err(Error::invalid(format!("`{key}` cannot be written to a bundle, or has been")));
        }
        self.put(&encode_entry(key, bytes))?;
        let offset = self.at;
        let mut hasher = blake3::Hasher::new();
        fill(&mut |part| {
            hasher.update(part);
            self.put(part)
        })?;
        assert_eq!(self.at - offset, bytes, "an entry is as long as it says");
        let hash = *hasher.finalize().as_bytes();
        self.keys.insert(key.to_owned());
        self.entries.push(Entry { key: key.to_owned(), offset, bytes, hash });
        Ok(hash)
    }

    /// Copies a file into an entry.
    fn copy(&mut self, key: &str, file: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<[u8; 32]> {
        let mut buffer = vec![0; COPY_BYTES];
        self.entry(key, bytes, &mut |put| {
            let mut at = 0;
            while at < bytes {
                let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(COPY_BYTES);
                file.read_exact_at(&mut buffer[..length], at).map_err(|error| {
                    Error::io(format!("cannot read what is to be written as `{key}`"), error)
                })?;
                put(&buffer[..length])?;
                sent(length as u64);
                at += length as u64;
            }
            Ok(())
        })
    }
}

/// A bundle that is being written. Copies write the same one, so that what wraps a transport may own one of them.
#[derive(Clone)]
pub struct BundleWriter {
    env: Env,
    /// Where a segment waits for its length and name.
    spool: PathBuf,
    place: String,
    state: std::sync::Arc<Mutex<State>>,
}

fn hold(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BundleWriter {
    /// Starts a bundle; `spool` is a directory for what waits, `place` where it goes, for people.
    pub fn start(env: &Env, flow: Box<dyn Flow>, spool: &Path, place: &str) -> Result<BundleWriter> {
        let mut state =
            State { flow, at: 0, entries: Vec::new(), keys: HashSet::new(), kept: BTreeMap::new() };
        state.put(&encode_header())?;
        sweep(env, spool)?;
        Ok(BundleWriter {
            env: env.clone(),
            spool: spool.to_owned(),
            place: place.to_owned(),
            state: std::sync::Arc::new(Mutex::new(state)),
        })
    }

    /// Ends the bundle; durable when this returns. Returns its length.
    pub fn finish(self) -> Result<u64> {
        let mut state = hold(&self.state);
        let directory = encode_directory(&state.entries);
        let trailer = encode_trailer(state.at, &directory);
        state.put(&directory)?;
        state.put(&trailer)?;
        state.flow.finish()?;
        Ok(state.at)
    }
}

/// What files start with in which a segment waits.
const SPOOLED: &str = "bundle-part-";

/// Removes the file of a process that was killed right after it had made it.
fn sweep(env: &Env, spool: &Path) -> Result<()> {
    let doing = |error| Error::io(format!("cannot look into `{}`", spool.display()), error);
    for entry in env.fs.list(spool).map_err(doing)? {
        if entry.name.to_string_lossy().starts_with(SPOOLED) {
            // A live process does not need the name.
            let _ = env.fs.remove(&spool.join(&entry.name));
        }
    }
    Ok(())
}

impl Outlet for BundleWriter {
    fn send(&self, id: &SegmentId, file: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<()> {
        let hash = hold(&self.state).copy(&segment_key(id), file, bytes, sent)?;
        if &hash != id.as_bytes() {
            let short = id.short();
            return Err(Error::corrupt(format!(
                "segment `{short}` is damaged here: run `agent-trace verify`"
            )));
        }
        Ok(())
    }

    fn create(&self) -> Result<Box<dyn Upload>> {
        let mut random = [0; 8];
        self.env.entropy.fill(&mut random);
        let path = self.spool.join(format!("{SPOOLED}{}", encode_hex(&random)));
        let doing = |error| Error::io(format!("cannot create `{}`", path.display()), error);
        let file = self.env.fs.create(&path, true).map_err(doing)?;
        let state = std::sync::Arc::clone(&self.state);
        // Its name is not needed any more: so nothing is left of it however this process ends.
        let _ = self.env.fs.remove(&path);
        Ok(Box::new(Spooled { path, file, written: 0, state }))
    }

    fn keep_segment(&self, id: &SegmentId, bytes: u64) -> Result<bool> {
        let key = segment_key(id);
        Ok(hold(&self.state).entries.iter().any(|entry| entry.key == key && entry.bytes == bytes))
    }
}

/// A segment that waits aside for its end.
struct Spooled {
    path: PathBuf,
    file: Box<dyn File>,
    written: u64,
    state: std::sync::Arc<Mutex<State>>,
}

impl Upload for Spooled {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, self.written)
            .map_err(|error| Error::io(format!("cannot write `{}`", self.path.display()), error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        // What counts is the bundle's file, which is synced at its end.
        Ok(())
    }

    fn name(self: Box<Self>, id: &SegmentId) -> Result<()> {
        let hash = hold(&self.state).copy(&segment_key(id), self.file.as_ref(), self.written, &|_| {})?;
        if &hash != id.as_bytes() {
            return Err(Error::corrupt(format!("segment `{}` has changed while it was written", id.short())));
        }
        Ok(())
    }
}

impl Transport for BundleWriter {
    fn read(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let state = hold(&self.state);
        let kept = state.kept.get(key).filter(|content| content.len() as u64 <= bytes_max).cloned();
        if kept.is_none() && state.has(key) {
            return Err(Error::invalid(format!("`{key}` of a bundle that is being written cannot be read")));
        }
        Ok(kept)
    }

    fn open(&self, key: &str) -> Result<Option<Box<dyn File>>> {
        if hold(&self.state).has(key) {
            return Err(Error::invalid(format!("`{key}` of a bundle that is being written cannot be read")));
        }
        Ok(None)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        Ok(names_below(hold(&self.state).entries.iter(), prefix))
    }

    fn survey(&self, prefix: &str) -> Result<Vec<Standing>> {
        Ok(files_below(hold(&self.state).entries.iter(), prefix))
    }

    fn write(&self, key: &str, content: &[u8]) -> Result<()> {
        let mut state = hold(&self.state);
        state.entry(key, content.len() as u64, &mut |put| put(content))?;
        if content.len() <= KEPT_BYTES_MAX {
            state.kept.insert(key.to_owned(), content.to_vec());
        }
        Ok(())
    }

    fn write_once(&self, key: &str, content: &[u8]) -> Result<()> {
        if hold(&self.state).has(key) { Ok(()) } else { self.write(key, content) }
    }

    fn keep(&self, key: &str) -> Result<()> {
        if hold(&self.state).has(key) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("`{key}` is not in the bundle")))
    }

    fn remove(&self, key: &str) -> Result<()> {
        Err(Error::invalid(format!("`{key}` cannot be removed from a bundle: it is written once")))
    }

    fn claim(&self, _owner: &str) {}

    fn sweep(&self) -> Result<()> {
        Ok(())
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn requests(&self) -> u64 {
        0
    }
}

/// The names below a folder of a remote, or, for an empty prefix, at its top, folders among them.
pub(crate) fn names_below<'e>(entries: impl Iterator<Item = &'e Entry>, prefix: &str) -> Vec<Listed> {
    let prefix = prefix.trim_end_matches('/');
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let rest = match prefix {
                "" => entry.key.as_str(),
                _ => entry.key.strip_prefix(prefix)?.strip_prefix('/')?,
            };
            rest.split('/').next().map(str::to_owned)
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| Listed { name, version: None }).collect()
}

/// The files below a folder of a remote. A bundle keeps no times.
pub(crate) fn files_below<'e>(entries: impl Iterator<Item = &'e Entry>, prefix: &str) -> Vec<Standing> {
    let start = format!("{}/", prefix.trim_end_matches('/'));
    let below = entries.filter_map(|entry| Some((entry.key.strip_prefix(&start)?, entry.bytes)));
    below
        .map(|(name, bytes)| Standing { name: name.to_owned(), bytes, modified: Timestamp::from_micros(0) })
        .collect()
}
