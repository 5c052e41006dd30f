//! Notes to and from a remote of git, merged without loss, never forced.

use std::collections::BTreeMap;

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result};

use super::tree::{self, Notes, pause, swap};
use super::{NOTES, payload};
use crate::git::process::{Git, not_started};

/// How often a push that others were faster than is tried again.
const TRIES_MAX: u32 = 100;

/// How a push ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The remote has all notes now.
    Done,
    /// There was nothing to send.
    Nothing,
    /// The remote does not take notes; what it said.
    Refused(String),
}

/// Fetches the notes of a remote beside the own ones and joins them; how many notes are new or other than before.
pub(crate) fn pull(env: &Env, git: &Git, remote: &str) -> Result<u64> {
    check_name(remote)?;
    let beside = format!("refs/agent-trace/remotes/{remote}/notes");
    // The name ends in a pattern, for which a ref that is not there is no error.
    let spec = format!("+{NOTES}*:{beside}/agent-trace*");
    let output = git
        .command([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--refmap=",
            remote,
            &spec,
        ])
        .output()
        .map_err(|error| not_started(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::new(ErrorKind::Unavailable, format!("cannot fetch notes from `{remote}`"))
            .with_source(said));
    }
    match tree::tip(git, &format!("{beside}/agent-trace"))? {
        Some(theirs) => join(env, git, &theirs),
        None => Ok(0),
    }
}

/// Joins notes that were fetched to the own ones.
fn join(env: &Env, git: &Git, theirs: &str) -> Result<u64> {
    let other = Notes::read(git, theirs)?;
    loop {
        let Some(ours) = tree::tip(git, NOTES)? else {
            if swap(git, NOTES, theirs, None)? {
                return Ok(other.entries.len() as u64);
            }
            pause(env, 0);
            continue;
        };
        if ours == theirs || is_ancestor(git, theirs, &ours)? {
            return Ok(0);
        }
        if is_ancestor(git, &ours, theirs)? {
            let own = Notes::read(git, &ours)?;
            if swap(git, NOTES, theirs, Some(&ours))? {
                let same = |(commit, (_, blob)): &(&String, &(String, String))| {
                    own.entries.get(*commit).is_none_or(|(_, own)| own != blob)
                };
                return Ok(other.entries.iter().filter(same).count() as u64);
            }
            pause(env, 0);
            continue;
        }
        break;
    }
    let mut changed = 0;
    tree::update(env, git, NOTES, Some(theirs), "Join notes", &mut |own, objects| {
        let mut changes = BTreeMap::new();
        for (commit, (_, blob)) in &other.entries {
            if own.entries.get(commit).is_some_and(|(_, own)| own == blob) {
                continue;
            }
            let Some(theirs) = other.note(objects, commit)? else { continue };
            let note = match own.note(objects, commit)? {
                Some(ours) => payload::merge(&ours, &theirs),
                None => theirs,
            };
            changes.insert(commit.clone(), note);
        }
        changed = changes.len() as u64;
        Ok(changes)
    })?;
    Ok(changed)
}

fn is_ancestor(git: &Git, one: &str, two: &str) -> Result<bool> {
    let status = git
        .command(["merge-base", "--is-ancestor", one, two])
        .status()
        .map_err(|error| not_started(&error))?;
    Ok(status.success())
}

/// Sends the own notes to a remote, joined with what it has.
pub(crate) fn push(env: &Env, git: &Git, remote: &str) -> Result<Pushed> {
    check_name(remote)?;
    if tree::tip(git, NOTES)?.is_none() {
        return Ok(Pushed::Nothing);
    }
    for tries in 0..TRIES_MAX {
        let output = git
            .command(["push", "--porcelain", "--no-verify", remote, &format!("{NOTES}:{NOTES}")])
            .output()
            .map_err(|error| not_started(&error))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = printed.lines().find(|line| line.contains(NOTES)).unwrap_or_default();
        if output.status.success() {
            return Ok(if line.starts_with('=') { Pushed::Nothing } else { Pushed::Done });
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let was_late = [
            "non-fast-forward",
            "fetch first",
            "stale info",
            "cannot lock ref",
            "failed to update ref",
            "failed to lock",
        ];
        let is_late = line.starts_with('!') && was_late.iter().any(|reason| line.contains(reason));
        if !is_late {
            return if line.starts_with('!')
                || said.contains("ermission")
                || said.contains("denied")
                || said.contains("403")
            {
                Ok(Pushed::Refused(if line.is_empty() { said } else { line.to_owned() }))
            } else {
                let message = format!("cannot push notes to `{remote}`");
                Err(Error::new(ErrorKind::Unavailable, message).with_source(said))
            };
        }
        // Waiting first leaves less time for others to be faster again.
        pause(env, tries);
        pull(env, git, remote)?;
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        format!("others push notes to `{remote}` faster than they can be joined"),
    ))
}

/// Refuses what git would take for an option or a part of a ref.
fn check_name(remote: &str) -> Result<()> {
    let is_good = !remote.is_empty()
        && !remote.starts_with(['-', '.', '/'])
        && !remote.contains("..")
        && remote.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && !remote.ends_with(['/', '.']);
    if is_good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "cannot take `{remote}` for a remote of git: expected a name as `git remote` lists it"
    )))
}
