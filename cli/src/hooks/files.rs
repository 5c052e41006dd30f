//! Files of other programs: read whole, replaced in one step, with their rights, their owner and the links to them kept.
//!
//! Before the first change of a file, what it holds without us is put beside it; where nothing else has changed
//! since, that comes back byte for byte. What was made, and what it looked like when we left it, is noted in
//! `hooks.json` in the home of agent-trace; without the note, only our own entries are taken out.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, Lock, LockMode, Metadata};
use agent_trace_store::id::encode_hex;
use agent_trace_store::layout::read_small;
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::document::Document;
use crate::report::Failure;
use crate::settings::Settings;

/// A settings file of an agent, or a hook.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Ends the name of what was there before.
pub(crate) const BEFORE: &str = ".pre-agent-trace";
/// What is written aside begins and ends so.
const ASIDE: (&str, &str) = (".agent-trace.", ".new");
const NOTES: &str = "hooks.json";
const NOTES_LOCK: &str = ".hooks.lock";

/// A file as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The file itself, where the path is a link.
    pub(crate) target: PathBuf,
    /// What it holds; `None` where there is none.
    pub(crate) bytes: Option<Vec<u8>>,
    seen: Option<Metadata>,
}

/// Reads a file, following links.
pub(crate) fn read(env: &Env, path: &Path) -> Result<Found> {
    let doing = |error| Error::io(format!("cannot read `{}`", path.display()), error);
    let is_there = match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) if is_absent(&error) => false,
        Err(error) => return Err(doing(error)),
    };
    if !is_there {
        return Ok(Found { target: path.to_owned(), bytes: None, seen: None });
    }
    let target = std::fs::canonicalize(path).map_err(doing)?;
    let seen = env.fs.metadata(&target).map_err(doing)?;
    let bytes = read_small(env, &target, FILE_BYTES_MAX).map_err(doing)?;
    Ok(Found { target, bytes: Some(bytes), seen: Some(seen) })
}

/// The text of a file; empty where there is none.
pub(crate) fn text<'a>(path: &Path, found: &'a Found) -> Result<&'a str> {
    let bytes = found.bytes.as_deref().unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|error| {
        Error::invalid(format!("cannot read `{}` as text", path.display())).with_source(error)
    })
}

/// Replaces a file in one step, unless somebody has changed it since it was read. Durable when it returns.
pub(crate) fn replace(env: &Env, found: &Found, bytes: &[u8]) -> Result<()> {
    let path = &found.target;
    let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
    let dir = parent(path)?;
    let (aside, file) = create_aside(env, dir, found.seen.is_some()).map_err(doing)?;
    let written = file
        .write_all_at(bytes, 0)
        .and_then(|()| if found.seen.is_some() { copy_rights(path, &aside) } else { Ok(()) })
        .and_then(|()| file.sync());
    let checked = written.map_err(doing).and_then(|()| check_unchanged(env, found));
    if let Err(error) = checked.and_then(|()| env.fs.rename(&aside, path).map_err(doing)) {
        // The name is our own; a failure to remove it leaves a file that nobody reads.
        let _ = env.fs.remove(&aside);
        return Err(error);
    }
    env.fs.sync_dir(dir).map_err(doing)
}

/// Removes a file, unless somebody has changed it since it was read.
pub(crate) fn remove(env: &Env, found: &Found) -> Result<()> {
    let doing = |error| Error::io(format!("cannot remove `{}`", found.target.display()), error);
    check_unchanged(env, found)?;
    env.fs.remove(&found.target).map_err(doing)?;
    env.fs.sync_dir(parent(&found.target)?).map_err(doing)
}

/// Makes an executable file in place of whatever has that name.
pub(crate) fn put_program(env: &Env, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let (aside, file) = create_aside(env, dir, false)?;
    let made = file
        .write_all_at(bytes, 0)
        .and_then(|()| std::fs::set_permissions(&aside, std::os::unix::fs::PermissionsExt::from_mode(mode)))
        .and_then(|()| file.sync())
        .and_then(|()| env.fs.rename(&aside, path));
    if made.is_err() {
        let _ = env.fs.remove(&aside);
    }
    made.and_then(|()| env.fs.sync_dir(dir))
}

/// Removes what was written aside in a directory by one that has died. For holders of the lock.
pub(crate) fn remove_leftovers(env: &Env, dir: &Path) {
    for entry in env.fs.list(dir).unwrap_or_default() {
        let name = entry.name.as_bytes();
        if name.starts_with(ASIDE.0.as_bytes()) && name.ends_with(ASIDE.1.as_bytes()) {
            // Left-overs harm nobody.
            let _ = env.fs.remove(&dir.join(&entry.name));
        }
    }
}

/// What was there before, beside the file.
pub(crate) fn before(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BEFORE);
    PathBuf::from(name)
}

/// Whether an error says that there is nothing of that name.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn parent(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| Error::invalid(format!("`{}` has no directory", path.display())))
}

fn create_aside(
    env: &Env,
    dir: &Path,
    private: bool,
) -> io::Result<(PathBuf, Box<dyn agent_trace_store::env::File>)> {
    let mut random = [0; 8];
    env.entropy.fill(&mut random);
    let aside = dir.join(format!("{}{}{}", ASIDE.0, encode_hex(&random), ASIDE.1));
    let file = env.fs.create(&aside, private)?;
    Ok((aside, file))
}

fn copy_rights(from: &Path, to: &Path) -> io::Result<()> {
    let (theirs, ours) = (std::fs::metadata(from)?, std::fs::metadata(to)?);
    if (theirs.uid(), theirs.gid()) != (ours.uid(), ours.gid()) {
        chown(to, Some(theirs.uid()), Some(theirs.gid()))?;
    }
    std::fs::set_permissions(to, theirs.permissions())
}

fn check_unchanged(env: &Env, found: &Found) -> Result<()> {
    let now = match env.fs.metadata(&found.target) {
        Ok(metadata) => Some(metadata),
        Err(error) if is_absent(&error) => None,
        Err(error) => {
            return Err(Error::io(format!("cannot look at `{}`", found.target.display()), error));
        }
    };
    let same = match (&found.seen, &now) {
        (None, None) => true,
        (Some(seen), Some(now)) => {
            (seen.bytes, seen.modified, seen.device, seen.inode)
                == (now.bytes, now.modified, now.device, now.inode)
        }
        _ => false,
    };
    if same {
        return Ok(());
    }
    let message = format!("`{}` has changed meanwhile; it was left alone", found.target.display());
    Err(Error::new(ErrorKind::Unavailable, message))
}

// ---- notes

/// What is noted of files that we have changed. Holds the lock under which they are changed.
pub(crate) struct Notes {
    document: Document,
    /// `None` for those who only look.
    _alone: Option<Box<dyn Lock>>,
}

/// What is noted of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// The SHA-256 of what we left there.
    pub(crate) after: String,
    /// Whether there was no file before.
    pub(crate) created: bool,
    /// Directories that were made for it, the innermost last.
    pub(crate) directories: Vec<PathBuf>,
}

const FILES: &str = "files";

impl Notes {
    /// Takes the lock, and reads the notes.
    pub(crate) fn open(env: &Env, settings: &Settings) -> Result<Notes, Failure> {
        let home = home(settings)?;
        let doing = |error| Error::io(format!("cannot create `{}`", home.display()), error);
        env.fs.create_dir_all(home).map_err(doing)?;
        let alone = lock(env, &home.join(NOTES_LOCK), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        remove_leftovers(env, home);
        Ok(Notes { document: Document::read(env, &home.join(NOTES))?, _alone: Some(alone) })
    }

    /// Reads the notes for a dry run, which changes nothing.
    pub(crate) fn look(env: &Env, settings: &Settings) -> Result<Notes, Failure> {
        Ok(Notes { document: Document::read(env, &home(settings)?.join(NOTES))?, _alone: None })
    }

    /// Makes them durable.
    pub(crate) fn write(&self, env: &Env) -> Result<(), Failure> {
        self.document.write(env)
    }

    /// What is noted of a file.
    pub(crate) fn get(&self, path: &Path) -> Option<Note> {
        let note = self.document.section(FILES).ok()??.get(&key(path))?;
        Some(Note {
            after: note["after"].as_str()?.to_owned(),
            created: note["created"].as_bool().unwrap_or(false),
            directories: note["directories"]
                .as_array()
                .map(|all| all.iter().filter_map(Value::as_str).map(PathBuf::from).collect())
                .unwrap_or_default(),
        })
    }

    /// Notes something of a file.
    pub(crate) fn set(&mut self, path: &Path, note: &Note) -> Result<(), Failure> {
        let directories: Vec<_> = note.directories.iter().filter_map(|path| path.to_str()).collect();
        let value = json!({"after": note.after, "created": note.created, "directories": directories});
        self.document.section_mut(FILES)?.insert(key(path), value);
        Ok(())
    }

    /// Forgets a file.
    pub(crate) fn forget(&mut self, path: &Path) -> Result<(), Failure> {
        self.document.remove(FILES, &key(path))
    }
}

fn home(settings: &Settings) -> Result<&Path, Failure> {
    settings.home.as_deref().ok_or_else(|| {
        let message = "cannot find the home of agent-trace: neither AGENT_TRACE_HOME nor HOME is set";
        Failure::new(ErrorKind::Invalid, message, "set AGENT_TRACE_HOME")
    })
}

/// How a path is written in the notes; two that are no text may share a note, which then fits neither.
fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The SHA-256 of bytes, in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    encode_hex(&Sha256::digest(bytes))
}

/// Makes the directories of a file, and says which were not there.
pub(crate) fn make_directories(env: &Env, path: &Path) -> Result<Vec<PathBuf>> {
    let dir = parent(path)?;
    let absent: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|ancestor| env.fs.metadata(ancestor).is_err_and(|error| is_absent(&error)))
        .map(Path::to_owned)
        .collect();
    let doing = |error| Error::io(format!("cannot create `{}`", dir.display()), error);
    env.fs.create_shared_dir_all(dir).map_err(doing)?;
    Ok(absent.into_iter().rev().collect())
}

/// Removes directories that were made for a file and are empty now.
pub(crate) fn remove_directories(directories: &[PathBuf]) {
    for directory in directories.iter().rev() {
        if std::fs::remove_dir(directory).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use agent_trace_store::env::os_env;

    use super::*;

    fn put(path: &Path, content: &str) {
        agent_trace_store::layout::write_durably(&os_env(), path, content.as_bytes(), false).unwrap();
    }

    #[test]
    fn links_and_rights_outlive_a_replacement() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real.json"), directory.path().join("link.json"));
        put(&real, "{}");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        let env = os_env();
        let found = read(&env, &link).unwrap();
        replace(&env, &found, b"new").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&env, &link).unwrap().bytes.as_deref(), Some(&b"new"[..]));
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        // What has changed since it was read is left alone.
        assert_eq!(replace(&env, &found, b"newer").err().unwrap().kind(), ErrorKind::Unavailable);
        assert_eq!(remove(&env, &found).err().unwrap().kind(), ErrorKind::Unavailable);
        assert_eq!(env.fs.list(directory.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_link_to_nowhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link.json");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(read(&os_env(), &link).is_err());
        assert!(read(&os_env(), &directory.path().join("absent")).unwrap().bytes.is_none());
    }

    #[test]
    fn directories_that_were_made_go_again_while_they_are_empty() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a/b/c.json");
        let made = make_directories(&os_env(), &file).unwrap();
        assert_eq!(made, [directory.path().join("a"), directory.path().join("a/b")]);
        assert!(make_directories(&os_env(), &file).unwrap().is_empty());
        put(&directory.path().join("a/other"), "");
        remove_directories(&made);
        assert!(!directory.path().join("a/b").exists() && directory.path().join("a/other").exists());
    }
}
