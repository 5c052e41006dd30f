//! Hooks as files of our own in a hooks directory; a file that was there is kept beside ours and runs first.
//!
//! The old file gets its second name before ours takes its first, in one step, so it is never without a name and git
//! never without it. `remove` renames it back: the same inode, with its rights, or the same link.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::{ErrorKind, Result};

use super::script::{is_ours, program as named_program, script};
use super::{Event, FILE, GIT, State};
use crate::hooks::command::{self, Program};
use crate::hooks::files::{self, Note, Notes};
use crate::hooks::{Change, Kind, diff};
use crate::report::Failure;

/// Everybody may read and run it, as with git's own samples.
const MODE: u32 = 0o755;
const BYTES_MAX: u64 = 4 << 20;
/// Where pre-commit puts a hook that it finds, and runs it from.
const LEGACY: &str = ".legacy";

/// What has the name of a hook.
enum Hook {
    None,
    Ours(Vec<u8>),
    Other,
}

pub(super) fn is_installed(env: &Env, hooks: &Path, event: Event) -> bool {
    [hooks.join(event.name()), legacy(hooks, event)]
        .iter()
        .any(|path| matches!(look(env, path), Ok(Hook::Ours(_))))
}

pub(super) fn install(
    env: &Env,
    notes: &mut Notes,
    hooks: &Path,
    event: Event,
    program: &Program,
    dry: bool,
) -> Result<Change, Failure> {
    let path = hooks.join(event.name());
    let before = files::before(&path);
    let wanted = script(event, program).into_bytes();
    let mut change = change(&path, event);
    if let Hook::Ours(_) = look(env, &legacy(hooks, event))? {
        change.place = legacy(hooks, event);
        return Ok(change);
    }
    let hook = look(env, &path)?;
    change.kind = match &hook {
        Hook::Ours(bytes) if *bytes == wanted => Kind::Unchanged,
        Hook::Ours(_) => Kind::Changed,
        Hook::None | Hook::Other => Kind::Created,
    };
    if matches!(hook, Hook::Other) && exists(&before) && !is_same_file(env, &path, &before) {
        let message =
            format!("cannot keep `{}`: `{}` is there from an earlier hook", path.display(), before.display());
        return Err(Failure::new(ErrorKind::Invalid, message, "move one of the two away, and run it again"));
    }
    if exists(&before) || matches!(hook, Hook::Other) {
        change.backup = Some(before.clone());
    }
    if !change.is_change() {
        return Ok(change);
    }
    let had = match &hook {
        Hook::Ours(bytes) => Some(bytes.clone()),
        Hook::None | Hook::Other => None,
    };
    change.diff = Some(diff(&path, had.as_deref(), Some(&wanted)));
    if dry {
        return Ok(change);
    }
    let made = files::make_directories(env, &path)?;
    if !made.is_empty() {
        let note = Note { after: files::digest(&wanted), created: true, directories: made };
        notes.set(&path, &note)?;
        notes.write(env)?;
    }
    files::remove_leftovers(env, hooks);
    if matches!(hook, Hook::Other) && !exists(&before) {
        keep(env, &path, &before)?;
    }
    files::put_program(env, &path, &wanted, MODE).map_err(super::io("cannot write", &path))?;
    Ok(change)
}

pub(super) fn remove(
    env: &Env,
    notes: &mut Notes,
    hooks: &Path,
    event: Event,
    dry: bool,
) -> Result<Option<Change>, Failure> {
    let path = hooks.join(event.name());
    let before = files::before(&path);
    let mut change = change(&path, event);
    let legacy = legacy(hooks, event);
    if let Hook::Ours(bytes) = look(env, &legacy)? {
        return Ok(Some(remove_legacy(env, change, &legacy, &before, &bytes, dry)?));
    }
    let Hook::Ours(bytes) = look(env, &path)? else {
        // One that died between the two steps has left a second name.
        if !dry && exists(&before) && is_same_file(env, &path, &before) {
            env.fs.remove(&before).map_err(super::io("cannot remove", &before))?;
        }
        return Ok(None);
    };
    change.diff = Some(diff(&path, Some(&bytes), None));
    change.kind = if exists(&before) { Kind::Restored } else { Kind::Removed };
    if dry {
        return Ok(Some(change));
    }
    match change.kind {
        Kind::Restored => env.fs.rename(&before, &path).map_err(super::io("cannot write", &path))?,
        _ => env.fs.remove(&path).map_err(super::io("cannot remove", &path))?,
    }
    env.fs.sync_dir(hooks).map_err(super::io("cannot write", hooks))?;
    if let Some(note) = notes.get(&path) {
        notes.forget(&path)?;
        notes.write(env)?;
        keep_note_of_directories(env, notes, hooks, &path, note)?;
    }
    Ok(Some(change))
}

/// The directory goes with the last of our files in it; until then another of them remembers who made it.
fn keep_note_of_directories(
    env: &Env,
    notes: &mut Notes,
    hooks: &Path,
    path: &Path,
    note: Note,
) -> Result<(), Failure> {
    let others = Event::ALL.into_iter().map(|event| hooks.join(event.name()));
    let other =
        others.filter(|other| other != path).find(|other| matches!(look(env, other), Ok(Hook::Ours(_))));
    match other {
        Some(other) => {
            notes.set(&other, &note)?;
            notes.write(env)
        }
        None => {
            files::remove_directories(&note.directories);
            Ok(())
        }
    }
}

/// Ours has been taken over by pre-commit, which runs it; what it ran first takes its place.
fn remove_legacy(
    env: &Env,
    mut change: Change,
    legacy: &Path,
    before: &Path,
    bytes: &[u8],
    dry: bool,
) -> Result<Change> {
    change.place = legacy.to_owned();
    change.diff = Some(diff(legacy, Some(bytes), None));
    change.kind = if exists(before) { Kind::Restored } else { Kind::Removed };
    if dry {
        return Ok(change);
    }
    match change.kind {
        Kind::Restored => env.fs.rename(before, legacy).map_err(super::io("cannot write", legacy))?,
        _ => env.fs.remove(legacy).map_err(super::io("cannot remove", legacy))?,
    }
    Ok(change)
}

pub(super) fn state(env: &Env, hooks: &Path, event: Event) -> Option<State> {
    let path = hooks.join(event.name());
    let found = [path.clone(), legacy(hooks, event)].into_iter().find_map(|path| match look(env, &path) {
        Ok(Hook::Ours(bytes)) => Some((path, bytes)),
        _ => None,
    });
    let (place, bytes) = found?;
    let line = named_program(&bytes);
    let may_run = env.fs.mode(&place).is_ok_and(|mode| mode.is_none_or(|mode| mode & 0o111 != 0));
    Some(State {
        event,
        mechanism: Some(FILE),
        chained: exists(&files::before(&path)),
        runs: may_run && command::runs(env, line.as_deref().unwrap_or_default()),
        command: Some(line.unwrap_or_else(|| "agent-trace".to_owned())),
        problem: (!may_run).then(|| "the file is not executable".to_owned()),
        place: Some(place),
    })
}

fn change(path: &Path, event: Event) -> Change {
    let mut change = Change::of(GIT, "project", path, FILE);
    change.events = vec![event.name()];
    change
}

fn legacy(hooks: &Path, event: Event) -> PathBuf {
    hooks.join(format!("{}{LEGACY}", event.name()))
}

fn look(env: &Env, path: &Path) -> Result<Hook> {
    if !exists(path) {
        return Ok(Hook::None);
    }
    match agent_trace_store::layout::read_small(env, path, BYTES_MAX) {
        Ok(bytes) if is_ours(&bytes) => Ok(Hook::Ours(bytes)),
        // A link to nowhere, a large program, something unreadable: not ours in any case.
        Ok(_) => Ok(Hook::Other),
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && std::fs::symlink_metadata(path).is_err() =>
        {
            Err(super::io("cannot read", path)(error))
        }
        Err(_) => Ok(Hook::Other),
    }
}

/// Gives a file a second name, or, where a file system has no such thing, only that.
fn keep(env: &Env, path: &Path, before: &Path) -> Result<()> {
    let kept = std::fs::hard_link(path, before).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        _ => env.fs.rename(path, before),
    });
    kept.map_err(super::io("cannot keep", path))
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Whether two names are of one file, or of files that hold the same.
fn is_same_file(env: &Env, one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let bytes = |path: &Path| agent_trace_store::layout::read_small(env, path, BYTES_MAX).ok();
    (inode(one).is_some() && inode(one) == inode(other))
        || (bytes(one).is_some() && bytes(one) == bytes(other))
}
