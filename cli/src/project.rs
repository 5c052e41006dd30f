//! Which store a command works on: the one of `--store`, else the one of the git repository around.
//!
//! A repository is known by its *anchor*, the file `agent-trace-id` in the directory that all its worktrees share; its
//! data lies under the home of agent-trace. Making them may be cut short anywhere and run again, and two that make
//! them at once agree. Nothing of the user's is touched.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, LockMode};
use agent_trace_store::id::encode_hex;
use agent_trace_store::layout::{self, read_small};
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Result, Store};

use crate::git;
use crate::report::Failure;
use crate::settings::Settings;

const ANCHOR: &str = "agent-trace-id";
const ANCHOR_BYTES_MAX: u64 = 4096;
const ID_PREFIX: &str = "at-";
const INIT: &str = "agent-trace init";
/// What agent-trace-cli keeps beside our store.
const PEER_FILES: [&str; 4] =
    ["traces.jsonl", "ledgers.jsonl", "commit-links.jsonl", "session-summaries.jsonl"];

/// Names a project: `at-` and 32 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectId(String);

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ProjectId {
    fn generate(env: &Env) -> ProjectId {
        let mut random = [0; 16];
        env.entropy.fill(&mut random);
        ProjectId(format!("{ID_PREFIX}{}", encode_hex(&random)))
    }

    fn parse(text: &str) -> Option<ProjectId> {
        let digits = text.strip_prefix(ID_PREFIX)?;
        let hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (digits.len() == 32 && hex).then(|| ProjectId(text.to_owned()))
    }
}

/// Where a store lies, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The project; a store outside git has none.
    pub(crate) project: Option<ProjectId>,
    /// The project's data; the store itself where there is no project.
    pub(crate) data: PathBuf,
    /// The store.
    pub(crate) store: PathBuf,
}

impl Place {
    fn outside_git(store: &Path) -> Place {
        Place { project: None, data: store.to_owned(), store: store.to_owned() }
    }

    fn of(project: ProjectId, settings: &Settings) -> Result<Place, Failure> {
        let home = settings.home.as_ref().ok_or_else(|| {
            let message = "cannot find the home of agent-trace: neither AGENT_TRACE_HOME nor HOME is set";
            Failure::new(ErrorKind::Invalid, message, "set AGENT_TRACE_HOME, or give --store DIR")
        })?;
        let data = home.join("projects").join(&project.0);
        Ok(Place { store: data.join("store"), data, project: Some(project) })
    }

    fn is_initialised(&self, env: &Env) -> bool {
        env.fs.metadata(&self.store.join("format")).is_ok()
    }
}

/// Finds the store that there is.
pub(crate) fn find(env: &Env, settings: &Settings) -> Result<Place, Failure> {
    let place = named(env, settings)?;
    if !place.is_initialised(env) {
        let hint = match &settings.store {
            Some(store) => format!("agent-trace --store {} init", store.display()),
            None => INIT.to_owned(),
        };
        let message = format!("there is no store at `{}`", place.store.display());
        return Err(Failure::new(ErrorKind::NotFound, message, hint));
    }
    Ok(place)
}

/// The place that is meant, whether there is a store or not.
pub(crate) fn named(env: &Env, settings: &Settings) -> Result<Place, Failure> {
    if let Some(store) = &settings.store {
        return Ok(Place::outside_git(store));
    }
    let common = git::common_dir(&settings.directory)?;
    let Some(project) = read_anchor(env, &common)? else {
        let message = format!("the repository at `{}` has no store", common.display());
        return Err(Failure::new(ErrorKind::NotFound, message, INIT));
    };
    Place::of(project, settings)
}

/// Removes the anchor: from here on the repository has no project.
pub(crate) fn remove_anchor(env: &Env, settings: &Settings) -> Result<(), Failure> {
    let common = git::common_dir(&settings.directory)?;
    let path = common.join(ANCHOR);
    let doing = |error| Error::io(format!("cannot remove `{}`", path.display()), error);
    env.fs.remove(&path).map_err(doing)?;
    Ok(env.fs.sync_dir(&common).map_err(doing)?)
}

/// Makes the store, or finishes making it; says whether it was there before.
pub(crate) fn init(env: &Env, settings: &Settings) -> Result<(Place, bool), Failure> {
    let place = match &settings.store {
        Some(store) => {
            check_free(env, store)?;
            Place::outside_git(store)
        }
        None => {
            let common = git::common_dir(&settings.directory)?;
            let project = match read_anchor(env, &common)? {
                Some(project) => project,
                None => make_anchor(env, &common)?,
            };
            remove_leftovers(env, &common);
            Place::of(project, settings)?
        }
    };
    let doing = |error| Error::io(format!("cannot create `{}`", place.store.display()), error);
    env.fs.create_dir_all(&place.store).map_err(doing)?;
    let was_there = place.is_initialised(env);
    if !was_there {
        // Two that make one store at once would each mint a writer.
        let _alone = lock(env, &place.store.join("lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        layout::init(env, &place.store)?;
    }
    Store::open(env, &place.store)?;
    Ok((place, was_there))
}

/// The data of the project of a repository, as a hook finds it: nothing where there is no anchor or no store.
pub(crate) fn data_of(env: &Env, common: &Path, home: &Path) -> Option<PathBuf> {
    let project = read_anchor(env, common).ok()??;
    let data = home.join("projects").join(&project.0);
    env.fs.metadata(&data.join("store").join("format")).is_ok().then_some(data)
}

/// The peer's data of this project, if there is any.
pub(crate) fn peer_data(env: &Env, place: &Place) -> Option<PathBuf> {
    place.project.as_ref()?;
    let found = PEER_FILES.iter().any(|name| env.fs.metadata(&place.data.join(name)).is_ok());
    (found || env.fs.metadata(&place.data.join("conversations")).is_ok()).then(|| place.data.clone())
}

fn read_anchor(env: &Env, common: &Path) -> Result<Option<ProjectId>, Failure> {
    let path = common.join(ANCHOR);
    let bytes = match read_small(env, &path, ANCHOR_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error).into()),
    };
    let text = String::from_utf8_lossy(&bytes);
    ProjectId::parse(text.trim_end()).map(Some).ok_or_else(|| {
        let message = format!(
            "cannot read `{}`: expected `{ID_PREFIX}` and 32 hex digits, found `{}`",
            path.display(),
            text.trim_end()
        );
        Failure::new(ErrorKind::Invalid, message, "restore the file, or remove it and run: agent-trace init")
    })
}

/// Makes the anchor, or takes the one that somebody else has made meanwhile.
fn make_anchor(env: &Env, common: &Path) -> Result<ProjectId, Failure> {
    let id = ProjectId::generate(env);
    let mut random = [0; 8];
    env.entropy.fill(&mut random);
    let path = common.join(ANCHOR);
    let aside = common.join(format!(".{ANCHOR}.{}.new", encode_hex(&random)));
    let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
    let file = env.fs.create(&aside, false).map_err(doing)?;
    file.write_all_at(format!("{id}\n").as_bytes(), 0).and_then(|()| file.sync()).map_err(doing)?;
    // A link does not replace what is there, so one of two wins.
    if std::fs::hard_link(&aside, &path).is_err() && read_anchor(env, common)?.is_none() {
        // A file system without links.
        let _alone =
            lock(env, &common.join(format!("{ANCHOR}.lock")), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        if read_anchor(env, common)?.is_none() {
            env.fs.rename(&aside, &path).map_err(doing)?;
        }
    }
    env.fs.sync_dir(common).map_err(doing)?;
    read_anchor(env, common)?.ok_or_else(|| {
        Error::new(ErrorKind::Failed, format!("`{}` has gone while it was made", path.display())).into()
    })
}

/// Removes what was written aside by an `init` that has won, lost or died: with an anchor there, nobody needs it.
fn remove_leftovers(env: &Env, common: &Path) {
    let prefix = format!(".{ANCHOR}.");
    for entry in env.fs.list(common).unwrap_or_default() {
        let name = entry.name.to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".new") {
            // Left-overs harm nobody.
            let _ = env.fs.remove(&common.join(&entry.name));
        }
    }
}

/// Refuses a directory that holds something else.
fn check_free(env: &Env, store: &Path) -> Result<(), Failure> {
    const PARTS: [&str; 7] = ["format", "segments", "tmp", "remotes", "writer.key", "instance", "lock"];
    let entries = match env.fs.list(store) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look at `{}`", store.display()), error).into()),
    };
    if env.fs.metadata(&store.join("format")).is_ok() {
        return Ok(());
    }
    let is_ours = |name: &str| PARTS.contains(&name) || (name.starts_with('.') && name.ends_with(".new"));
    match entries.iter().find(|entry| !is_ours(&entry.name.to_string_lossy())) {
        None => Ok(()),
        Some(other) => {
            let message = format!(
                "cannot make a store at `{}`: expected an empty directory, found `{}`",
                store.display(),
                other.name.to_string_lossy()
            );
            Err(Failure::new(ErrorKind::Invalid, message, "give a directory that is empty or absent"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_as_written_are_read() {
        let good = format!("at-{}", "0f".repeat(16));
        assert_eq!(ProjectId::parse(&good).unwrap().to_string(), good);
        for text in
            ["", "at-", "0f", &good.to_uppercase(), &good[..34], &format!("{good}0"), &good.replace('0', "g")]
        {
            assert!(ProjectId::parse(text).is_none(), "{text}");
        }
    }
}
