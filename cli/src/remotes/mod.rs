//! The remotes of a store, by name, and the files in which they are kept.
//!
//! | file | what |
//! |---|---|
//! | `projects/<id>/remotes.json` | services, as agent-trace-cli keeps them: an object by name, see `entry` |
//! | `projects/<id>/project-config.json` | `remote.default`, beside settings that are not ours |
//! | `projects/<id>/store/remotes.json` | what that format cannot say, and all remotes of a store outside git: see below |
//! | `config.json` | the tokens, see `tokens` |
//!
//! ```json
//! {"version":1,"default":"team","remotes":{"team":{"url":"file:///srv/team"}}}
//! ```
//!
//! Each is replaced as a whole under a lock, so no change is lost. Where a name stands in both `remotes.json`, the first
//! file counts. A change of two files that is cut in between leaves a token that nothing refers to, never a remote whose
//! token is gone, but for one that was about to be removed.

mod bucket;
mod entry;
mod given;
mod secrets;
mod tokens;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use agent_trace_store::env::{Env, LockMode};
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Store};
use agent_trace_sync::address::{RemoteUrl, shown};
use agent_trace_sync::remote::Remote;
use agent_trace_sync::seal::Access;
use serde_json::{Map, Value, json};

use crate::document::Document;
use crate::project::Place;
use crate::report::Failure;

pub(crate) use bucket::{BucketEntry, rate};
pub(crate) use entry::{Named, read_url};
pub(crate) use given::Given;
pub(crate) use secrets::SecretRef;
pub(crate) use tokens::{TokenRef, Tokens};

const VERSION: u64 = 1;
const HINT_ADD: &str = "agent-trace remote add NAME URL";

/// Where the remotes of a store and their tokens are kept.
#[derive(Clone, Copy)]
pub(crate) struct Files<'a> {
    /// The store.
    pub(crate) store: &'a Store,
    /// Whose it is.
    pub(crate) place: &'a Place,
    /// Where the settings of all projects are.
    pub(crate) home: Option<&'a Path>,
}

impl<'a> Files<'a> {
    /// The tokens of the remotes.
    pub(crate) fn tokens(&self) -> Tokens<'a> {
        let scope = match &self.place.project {
            Some(project) => project.to_string(),
            None => format!("store-{}", self.store.id()),
        };
        Tokens::new(self.store.env(), self.home, scope)
    }

    /// Adds a remote.
    pub(crate) fn add(
        &self,
        name: &str,
        address: &RemoteUrl,
        written: &str,
        given: Option<&Given>,
        bucket: Option<&BucketEntry>,
        secret: Option<&SecretRef>,
    ) -> Result<(), Failure> {
        self.change(|remotes| {
            remotes.check_new(name, written)?;
            let mut entry = Map::new();
            entry::set_url(&mut entry, address, written, bucket);
            if let Some(secret) = secret {
                secret.write(&mut entry);
            }
            self.keep_token(name, given, &mut entry)?;
            remotes.insert(name, entry, address)
        })
    }

    /// Changes where a remote lies; only a service has a token.
    pub(crate) fn set_url(
        &self,
        name: &str,
        address: &RemoteUrl,
        written: &str,
        bucket: Option<&BucketEntry>,
    ) -> Result<(), Failure> {
        let mut had_token = false;
        self.change(|remotes| {
            had_token = may_have_token(&remotes.get(name)?);
            remotes.move_to(name, address, written, bucket)
        })?;
        match address {
            RemoteUrl::Service(_) => Ok(()),
            _ if had_token => self.tokens().remove(name),
            _ => Ok(()),
        }
    }

    /// Changes the token of a remote.
    pub(crate) fn set_token(&self, name: &str, given: &Given) -> Result<(), Failure> {
        self.change(|remotes| {
            remotes.get(name)?;
            let entry = remotes.entry_mut(name)?;
            self.keep_token(name, Some(given), entry)
        })?;
        match given {
            Given::Token(_) => Ok(()),
            Given::Variable(_) => self.tokens().remove(name),
        }
    }

    /// Removes a remote and its token; the token first, since nobody looks for one without a remote.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        self.change(|remotes| {
            if may_have_token(&remotes.get(name)?) {
                self.tokens().remove(name)?;
            }
            remotes.remove(name)
        })
    }

    /// Renames a remote; its token goes with it.
    pub(crate) fn rename(&self, old: &str, new: &str) -> Result<(), Failure> {
        let mut moved = false;
        self.change(|remotes| {
            let tokens = self.tokens();
            let remote = remotes.get(old)?;
            if old == new {
                return Ok(());
            }
            entry::check_name(new)?;
            remotes.check_free(new)?;
            moved = matches!(&remote.token, Some(TokenRef::Stored(key)) if *key == tokens.key(old));
            if moved {
                tokens.copy(old, new)?;
                TokenRef::Stored(tokens.key(new)).write(remotes.entry_mut(old)?);
            }
            remotes.rename(old, new)
        })?;
        if moved { self.tokens().remove(old) } else { Ok(()) }
    }

    /// Makes a remote the default.
    pub(crate) fn set_default(&self, name: &str) -> Result<(), Failure> {
        self.change(|remotes| {
            remotes.get(name)?;
            remotes.set_default(Some(name))
        })
    }

    /// Keeps the token, and says in the entry where it is.
    fn keep_token(
        &self,
        name: &str,
        given: Option<&Given>,
        entry: &mut Map<String, Value>,
    ) -> Result<(), Failure> {
        let tokens = self.tokens();
        match given {
            None => Ok(()),
            Some(Given::Variable(variable)) => {
                TokenRef::Variable(variable.clone()).write(entry);
                Ok(())
            }
            Some(Given::Token(token)) => {
                tokens.set(name, token)?;
                TokenRef::Stored(tokens.key(name)).write(entry);
                Ok(())
            }
        }
    }

    /// Changes the remotes, one process at a time.
    fn change(&self, work: impl FnOnce(&mut Remotes) -> Result<(), Failure>) -> Result<(), Failure> {
        let env = self.store.env();
        let path = self.store.dir().join("remotes.lock");
        let _alone = lock(env, &path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        let mut remotes = Remotes::read(self)?;
        work(&mut remotes)?;
        remotes.write(env)
    }
}

/// The remotes, as the files have them.
pub(crate) struct Remotes {
    own: Document,
    project: Option<Project>,
}

/// The files of a project that agent-trace-cli reads and writes too.
struct Project {
    remotes: Document,
    config: Document,
}

impl Remotes {
    /// Reads the remotes of a store.
    pub(crate) fn read(files: &Files<'_>) -> Result<Remotes, Failure> {
        let env = files.store.env();
        let own = Document::read(env, &files.store.dir().join("remotes.json"))?;
        if own.members().get("version").and_then(Value::as_u64).is_some_and(|version| version > VERSION) {
            let mut failure = own.refused("it is of a newer version");
            failure = Error::new(ErrorKind::Unsupported, failure.error.message()).into();
            return Err(failure);
        }
        own.section("remotes")?;
        let project = match &files.place.project {
            None => None,
            Some(_) => {
                let data = &files.place.data;
                let config = Document::read(env, &data.join("project-config.json"))?;
                config.section("remote")?;
                Some(Project { remotes: Document::read(env, &data.join("remotes.json"))?, config })
            }
        };
        Ok(Remotes { own, project })
    }

    /// Replaces the files that have changed; what a remote moves into before what it moves out of.
    fn write(&self, env: &Env) -> Result<(), Failure> {
        let Some(project) = &self.project else { return self.own.write(env) };
        if project.remotes.loses_members() {
            self.own.write(env)?;
            project.remotes.write(env)?;
        } else {
            project.remotes.write(env)?;
            self.own.write(env)?;
        }
        project.config.write(env)
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<Named> {
        let default = self.default_name();
        // The project's go over the store's own.
        let entries = self.own_entries().chain(self.project_entries());
        let named = entries.filter_map(|(name, entry)| Named::read(name, entry, default == Some(name)));
        let by_name: BTreeMap<String, Named> = named.map(|remote| (remote.name.clone(), remote)).collect();
        by_name.into_values().collect()
    }

    /// Folders that are passed over, since a service goes by the same name.
    pub(crate) fn hidden(&self) -> Vec<&str> {
        let own = self.own_entries().map(|(name, _)| name.as_str());
        own.filter(|own| self.project_entries().any(|(name, _)| name == own)).collect()
    }

    fn own_entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.own.members().get("remotes").and_then(Value::as_object).into_iter().flatten()
    }

    fn project_entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.project
            .iter()
            .flat_map(|project| project.remotes.members())
            .filter(|(_, entry)| entry.is_object())
    }

    fn default_name(&self) -> Option<&str> {
        let config = self.project.as_ref().and_then(|project| project.config.members().get("remote"));
        let default = config.and_then(|remote| remote.get("default")).and_then(Value::as_str);
        default.or_else(|| self.own.members().get("default").and_then(Value::as_str))
    }

    /// The one with this name.
    pub(crate) fn get(&self, name: &str) -> Result<Named, Failure> {
        self.list().into_iter().find(|remote| remote.name == name).ok_or_else(|| {
            let names: Vec<String> = self.list().into_iter().map(|remote| remote.name).collect();
            let hint = if names.is_empty() {
                HINT_ADD.to_owned()
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
            return Err(Failure::new(ErrorKind::NotFound, "this store has no remote", HINT_ADD));
        }
        let names: Vec<String> = all.into_iter().map(|remote| remote.name).collect();
        let message = format!("there is no default among the remotes {}", names.join(", "));
        Err(Failure::new(
            ErrorKind::NotFound,
            message,
            "give --remote NAME, or choose: agent-trace remote default NAME",
        ))
    }

    /// Refuses a name that is taken, or that no remote may have.
    pub(crate) fn check_new(&self, name: &str, url: &str) -> Result<(), Failure> {
        entry::check_name(name)?;
        self.check_free(name)
            .map_err(|failure| failure.hint(format!("agent-trace remote set-url {name} {}", shown(url))))
    }

    fn check_free(&self, name: &str) -> Result<(), Failure> {
        // Also what is there and no remote: it is somebody's.
        let project =
            self.project.as_ref().is_some_and(|project| project.remotes.members().contains_key(name));
        if project || self.own_entries().any(|(taken, _)| taken == name) {
            return Err(Error::invalid(format!("there is a remote `{name}` already")).into());
        }
        Ok(())
    }

    /// Whether the remote of a name is in the project's file.
    fn is_in_project(&self, name: &str) -> bool {
        self.project_entries().any(|(taken, _)| taken == name)
    }

    /// The entries of the project's file, where there is one and it is wanted, or of the store's own.
    fn entries_mut(&mut self, in_project: bool) -> Result<&mut Map<String, Value>, Failure> {
        match &mut self.project {
            Some(project) if in_project => Ok(project.remotes.members_mut()),
            _ => own_entries_mut(&mut self.own),
        }
    }

    fn entry_mut(&mut self, name: &str) -> Result<&mut Map<String, Value>, Failure> {
        let in_project = self.is_in_project(name);
        let entry = self.entries_mut(in_project)?.get_mut(name).and_then(Value::as_object_mut);
        Ok(entry.expect("whoever asks has found the remote, and only objects are remotes"))
    }

    fn insert(&mut self, name: &str, entry: Map<String, Value>, address: &RemoteUrl) -> Result<(), Failure> {
        let is_service = matches!(address, RemoteUrl::Service(_));
        self.entries_mut(is_service)?.insert(name.to_owned(), Value::Object(entry));
        Ok(())
    }

    /// Gives a remote another address; what else its entry says stays, in the file where it then belongs.
    fn move_to(
        &mut self,
        name: &str,
        address: &RemoteUrl,
        written: &str,
        bucket: Option<&BucketEntry>,
    ) -> Result<(), Failure> {
        let mut entry = self.entry_mut(name)?.clone();
        entry::set_url(&mut entry, address, written, bucket);
        let in_project = self.is_in_project(name);
        if self.project.is_some() && in_project != matches!(address, RemoteUrl::Service(_)) {
            self.entries_mut(in_project)?.shift_remove(name);
        }
        self.insert(name, entry, address)
    }

    fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let was_default = self.default_name() == Some(name);
        let in_project = self.is_in_project(name);
        self.entries_mut(in_project)?.shift_remove(name);
        // A folder that went by the same name is seen again, and takes no role over.
        if was_default { self.set_default(None) } else { Ok(()) }
    }

    fn rename(&mut self, old: &str, new: &str) -> Result<(), Failure> {
        let was_default = self.default_name() == Some(old);
        let in_project = self.is_in_project(old);
        let entries = self.entries_mut(in_project)?;
        let place = entries.keys().position(|name| name == old);
        if let (Some(place), Some(entry)) = (place, entries.shift_remove(old)) {
            entries.shift_insert(place, new.to_owned(), entry);
        }
        if was_default { self.set_default(Some(new)) } else { Ok(()) }
    }

    fn set_default(&mut self, name: Option<&str>) -> Result<(), Failure> {
        let Some(project) = &mut self.project else {
            match name {
                Some(name) => self.own.members_mut().insert("default".into(), json!(name)),
                None => self.own.members_mut().shift_remove("default"),
            };
            return Ok(());
        };
        // One place for it; a store that was used without a project's settings may have it in the other.
        self.own.members_mut().shift_remove("default");
        match name {
            Some(name) => {
                project.config.section_mut("remote")?.insert("default".into(), json!(name));
                Ok(())
            }
            None => project.config.remove("remote", "default"),
        }
    }
}

/// Whether a token may be kept for a remote: for all that is not known to be a folder or a bucket.
fn may_have_token(remote: &Named) -> bool {
    !matches!(remote.address(), Ok(RemoteUrl::Folder(_) | RemoteUrl::Bucket(_)))
}

fn own_entries_mut(own: &mut Document) -> Result<&mut Map<String, Value>, Failure> {
    let members = own.members_mut();
    if !members.contains_key("version") {
        members.shift_insert(0, "version".into(), json!(VERSION));
    }
    own.section_mut("remotes")
}

/// Refuses a folder that holds something else.
pub(crate) fn check_folder(env: &Env, folder: &Path, access: Option<&Access>) -> Result<(), Failure> {
    let entries = match env.fs.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look at `{}`", folder.display()), error).into()),
    };
    if entries.is_empty() {
        return Ok(());
    }
    if entries.iter().any(|entry| entry.name == "format") {
        Remote::open_with(env, &RemoteUrl::Folder(folder.to_owned()), false, access).map_err(|error| {
            let is_locked = error.kind() == ErrorKind::Locked && access.is_none();
            let failure = Failure::from(error);
            if is_locked {
                failure.hint("agent-trace remote add NAME URL --encrypt --key-file FILE")
            } else {
                failure
            }
        })?;
        return Ok(());
    }
    let message = format!(
        "`{}` is no remote: expected an empty folder or one that was pushed to, found `{}`",
        folder.display(),
        entries[0].name.to_string_lossy()
    );
    Err(Failure::new(ErrorKind::Invalid, message, "give a folder that is empty or absent"))
}

#[cfg(test)]
mod tests {
    use agent_trace_store::env::os_env;
    use agent_trace_sync::address::Plaintext;

    use super::*;

    fn remotes(with_project: bool) -> Remotes {
        let read = || Document::read(&os_env(), Path::new("/absent/file")).unwrap();
        let project = with_project.then(|| Project { remotes: read(), config: read() });
        Remotes { own: read(), project }
    }

    fn add(remotes: &mut Remotes, name: &str, url: &str) {
        let address = RemoteUrl::parse(url, Plaintext::Loopback).unwrap();
        remotes.check_new(name, url).unwrap();
        let mut entry = Map::new();
        entry::set_url(&mut entry, &address, url, None);
        remotes.insert(name, entry, &address).unwrap();
    }

    #[test]
    fn the_default_is_found_in_order() {
        for with_project in [false, true] {
            let mut remotes = remotes(with_project);
            assert_eq!(remotes.pick(None).err().unwrap().error.kind(), ErrorKind::NotFound);
            add(&mut remotes, "b", "file:///b");
            assert_eq!(remotes.pick(None).unwrap().name, "b");
            add(&mut remotes, "c", "https://h/o/c");
            assert!(remotes.pick(None).is_err());
            add(&mut remotes, "origin", "https://h/o/p");
            assert_eq!(remotes.pick(None).unwrap().name, "origin");
            remotes.set_default(Some("c")).unwrap();
            assert_eq!(remotes.pick(None).unwrap().name, "c");
            remotes.rename("c", "d").unwrap();
            assert_eq!(remotes.pick(None).unwrap().name, "d");
            remotes.remove("d").unwrap();
            assert_eq!(remotes.pick(None).unwrap().name, "origin");
            remotes.set_default(Some("gone")).unwrap();
            assert_eq!(remotes.pick(None).unwrap().name, "origin");
            assert!(remotes.check_new("b", "file:///x").is_err());
        }
    }

    #[test]
    fn a_remote_is_kept_where_its_address_can_be_said() {
        let mut remotes = remotes(true);
        let address = |url: &str| RemoteUrl::parse(url, Plaintext::Loopback).unwrap();
        let names = |remotes: &Remotes| {
            let project = remotes.project_entries().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            (project, remotes.own_entries().map(|(name, _)| name.clone()).collect::<Vec<_>>())
        };
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        add(&mut remotes, "a", "file:///a");
        add(&mut remotes, "b", "https://h/o/p");
        add(&mut remotes, "c", "https://h/o/q");
        assert_eq!(names(&remotes), (of(&["b", "c"]), of(&["a"])));
        remotes.entry_mut("a").unwrap().insert("note".into(), json!(1));
        remotes.move_to("a", &address("https://h/o/r"), "", None).unwrap();
        remotes.move_to("b", &address("file:///b"), "file:///b", None).unwrap();
        assert_eq!(names(&remotes), (of(&["c", "a"]), of(&["b"])));
        assert_eq!(remotes.entry_mut("a").unwrap()["note"], json!(1));
        remotes.rename("c", "z").unwrap();
        assert_eq!(names(&remotes), (of(&["z", "a"]), of(&["b"])));
    }

    #[test]
    fn a_service_hides_a_folder_of_the_same_name() {
        let mut remotes = remotes(true);
        add(&mut remotes, "a", "file:///a");
        remotes
            .project
            .as_mut()
            .unwrap()
            .remotes
            .members_mut()
            .insert("a".into(), json!({"url": "https://h/o/p"}));
        assert_eq!(remotes.hidden(), ["a"]);
        assert_eq!(remotes.get("a").unwrap().url, "https://h/o/p");
        assert_eq!(remotes.list().len(), 1);
        remotes.remove("a").unwrap();
        assert_eq!(remotes.get("a").unwrap().url, "file:///a");
    }
}
