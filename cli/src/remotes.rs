//! The remotes of a store, by name: the file `remotes.json` in the store.
//!
//! ```json
//! {"version":1,"default":"team","remotes":{"team":{"url":"file:///srv/team"}}}
//! ```
//!
//! Members that this version does not know are kept. Replaced as a whole under a lock, so no change is lost.

use std::io;
use std::path::PathBuf;

use agent_trace_store::env::{Env, LockMode};
use agent_trace_store::layout::{read_small, write_durably};
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Store};
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::remote::Remote;
use serde_json::{Map, Value, json};

use crate::report::Failure;

const FILE_BYTES_MAX: u64 = 1 << 20;
const VERSION: u64 = 1;

/// The remotes, as the file has them.
pub(crate) struct Remotes {
    document: Map<String, Value>,
}

/// One remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
    /// Where it lies, as the user wrote it.
    pub(crate) url: String,
    /// Whether it is used where none is named.
    pub(crate) is_default: bool,
}

impl Named {
    /// Where it lies.
    pub(crate) fn address(&self) -> Result<RemoteUrl, Failure> {
        Ok(RemoteUrl::parse(&self.url, Plaintext::Loopback)?)
    }
}

impl Remotes {
    /// Reads the remotes of a store.
    pub(crate) fn read(store: &Store) -> Result<Remotes, Failure> {
        let path = path(store);
        let bytes = match read_small(store.env(), &path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Remotes { document: Map::new() });
            }
            Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error).into()),
        };
        let refused = |why: &str| {
            let message = format!("cannot read `{}`: {why}", path.display());
            Failure::new(
                ErrorKind::Invalid,
                message,
                "correct the file, or remove it and add the remotes again",
            )
        };
        let document: Value = serde_json::from_slice(&bytes).map_err(|error| {
            let mut failure = refused("expected JSON");
            failure.error = failure.error.with_source(error);
            failure
        })?;
        let Value::Object(document) = document else { return Err(refused("expected a JSON object")) };
        if document.get("version").and_then(Value::as_u64).is_some_and(|version| version > VERSION) {
            let message = format!("cannot read `{}`: it is of a newer version", path.display());
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        }
        if document.get("remotes").is_some_and(|remotes| !remotes.is_object()) {
            return Err(refused("expected `remotes` to be an object"));
        }
        Ok(Remotes { document })
    }

    /// Changes the remotes of a store, one process at a time.
    pub(crate) fn change(
        store: &Store,
        work: impl FnOnce(&mut Remotes) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let lock_path = store.dir().join("remotes.lock");
        let _alone = lock(store.env(), &lock_path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        let mut remotes = Remotes::read(store)?;
        work(&mut remotes)?;
        remotes.document.insert("version".into(), json!(VERSION));
        let mut bytes = serde_json::to_vec_pretty(&remotes.document)
            .map_err(|error| Error::invalid("cannot write the remotes as JSON").with_source(error))?;
        bytes.push(b'\n');
        // A URL may come to hold a secret.
        Ok(write_durably(store.env(), &path(store), &bytes, true)?)
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<Named> {
        let default = self.document.get("default").and_then(Value::as_str);
        let remotes = self.document.get("remotes").and_then(Value::as_object);
        let named = remotes.into_iter().flatten().filter_map(|(name, remote)| {
            let url = remote.get("url")?.as_str()?.to_owned();
            Some(Named { name: name.clone(), url, is_default: default == Some(name) })
        });
        named.collect()
    }

    /// The one with this name.
    pub(crate) fn get(&self, name: &str) -> Result<Named, Failure> {
        self.list().into_iter().find(|remote| remote.name == name).ok_or_else(|| {
            let names: Vec<String> = self.list().into_iter().map(|remote| remote.name).collect();
            let hint = if names.is_empty() {
                "agent-trace remote add NAME file:///path".to_owned()
            } else {
                format!("use one of: {}", names.join(", "))
            };
            Failure::new(ErrorKind::NotFound, format!("there is no remote `{name}`"), hint)
        })
    }

    /// The one with this name; without a name the only one, else the default one, else `origin`.
    pub(crate) fn pick(&self, name: Option<&str>) -> Result<Named, Failure> {
        if let Some(name) = name {
            return self.get(name);
        }
        let all = self.list();
        let chosen = match &all[..] {
            [only] => Some(only),
            _ => all
                .iter()
                .find(|remote| remote.is_default)
                .or_else(|| all.iter().find(|remote| remote.name == "origin")),
        };
        if let Some(remote) = chosen {
            return Ok(remote.clone());
        }
        if all.is_empty() {
            let hint = "agent-trace remote add NAME file:///path";
            return Err(Failure::new(ErrorKind::NotFound, "this store has no remote", hint));
        }
        let names: Vec<String> = all.into_iter().map(|remote| remote.name).collect();
        let message = format!("there is no default among the remotes {}", names.join(", "));
        Err(Failure::new(
            ErrorKind::NotFound,
            message,
            "give --remote NAME, or choose: agent-trace remote default NAME",
        ))
    }

    /// Adds one.
    pub(crate) fn add(&mut self, name: &str, url: &str) -> Result<(), Failure> {
        check_name(name)?;
        let entries = self.entries();
        if entries.contains_key(name) {
            let message = format!("there is a remote `{name}` already");
            return Err(Failure::new(
                ErrorKind::Invalid,
                message,
                format!("agent-trace remote set-url {name} {url}"),
            ));
        }
        entries.insert(name.to_owned(), json!({ "url": url }));
        Ok(())
    }

    /// Changes where one lies.
    pub(crate) fn set_url(&mut self, name: &str, url: &str) -> Result<(), Failure> {
        self.get(name)?;
        if let Some(remote) = self.entries().get_mut(name).and_then(Value::as_object_mut) {
            remote.insert("url".into(), json!(url));
        }
        Ok(())
    }

    /// Removes one.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let remote = self.get(name)?;
        self.entries().remove(name);
        if remote.is_default {
            self.document.remove("default");
        }
        Ok(())
    }

    /// Renames one.
    pub(crate) fn rename(&mut self, old: &str, new: &str) -> Result<(), Failure> {
        check_name(new)?;
        let remote = self.get(old)?;
        if old == new {
            return Ok(());
        }
        if self.get(new).is_ok() {
            return Err(Error::invalid(format!("there is a remote `{new}` already")).into());
        }
        if let Some(value) = self.entries().remove(old) {
            self.entries().insert(new.to_owned(), value);
        }
        if remote.is_default {
            self.document.insert("default".into(), json!(new));
        }
        Ok(())
    }

    /// Makes one the default.
    pub(crate) fn set_default(&mut self, name: &str) -> Result<(), Failure> {
        self.get(name)?;
        self.document.insert("default".into(), json!(name));
        Ok(())
    }

    fn entries(&mut self) -> &mut Map<String, Value> {
        let remotes = self.document.entry("remotes").or_insert_with(|| json!({}));
        remotes.as_object_mut().expect("`read` takes nothing but an object, and so does the line above")
    }
}

/// Reads where a remote lies, and refuses a folder that holds something else.
pub(crate) fn check_url(env: &Env, url: &str) -> Result<(), Failure> {
    let address = RemoteUrl::parse(url, Plaintext::Loopback)?;
    let RemoteUrl::Folder(folder) = &address else {
        // Says why.
        Remote::open(env, &address, false)?;
        return Ok(());
    };
    let entries = match env.fs.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look at `{}`", folder.display()), error).into()),
    };
    if entries.is_empty() {
        return Ok(());
    }
    if entries.iter().any(|entry| entry.name == "format") {
        Remote::open(env, &address, false)?;
        return Ok(());
    }
    let message = format!(
        "`{}` is no remote: expected an empty folder or one that was pushed to, found `{}`",
        folder.display(),
        entries[0].name.to_string_lossy()
    );
    Err(Failure::new(ErrorKind::Invalid, message, "give a folder that is empty or absent"))
}

fn path(store: &Store) -> PathBuf {
    store.dir().join("remotes.json")
}

fn check_name(name: &str) -> Result<(), Failure> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = |byte: u8| first(byte) || matches!(byte, b'.' | b'_' | b'-');
    let bytes = name.as_bytes();
    if (1..=64).contains(&bytes.len()) && first(bytes[0]) && bytes.iter().all(|byte| rest(*byte)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "cannot name a remote `{name}`: expected at most 64 lower-case letters, digits, `.`, `_` or `-`, a letter or digit first"
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["a", "team", "9", "a.b_c-d", &"a".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "A", "-a", ".a", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_default_is_found_in_order() {
        let mut remotes = Remotes { document: Map::new() };
        assert_eq!(remotes.pick(None).err().unwrap().error.kind(), ErrorKind::NotFound);
        remotes.add("b", "file:///b").unwrap();
        assert_eq!(remotes.pick(None).unwrap().name, "b");
        remotes.add("c", "file:///c").unwrap();
        assert!(remotes.pick(None).is_err());
        remotes.add("origin", "file:///o").unwrap();
        assert_eq!(remotes.pick(None).unwrap().name, "origin");
        remotes.set_default("c").unwrap();
        assert_eq!(remotes.pick(None).unwrap().name, "c");
        remotes.rename("c", "d").unwrap();
        assert_eq!(remotes.pick(None).unwrap().name, "d");
        remotes.remove("d").unwrap();
        assert_eq!(remotes.pick(None).unwrap().name, "origin");
        assert!(remotes.add("b", "file:///x").is_err());
    }
}
