//! Pushes of which git told, where the project wants its notes sent too (`notes.push`): by the flusher, afterwards.
//!
//! The hook itself sends nothing and waits for nobody. Each push is answered once, with `notes push` to the remote that
//! was pushed to; whether that succeeds is no business of the user's push. What a remote refuses is noted once.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use rustix::process::{Pid, Signal, kill_process_group};

use super::absorb::Place;
use super::entry::Entry;
use super::limits::{ENTRY_BYTES_MAX, PUSH_MICROS_MAX};
use crate::notes::attach::NoteSettings;
use crate::settings;

/// Where pushes wait for the flusher.
pub(super) const PUSHES: &str = "pushes";
const LOOK_MICROS: u64 = 50_000;
const SAID_BYTES_MAX: u64 = 4096;

/// Sends notes after the pushes that wait, if the project still wants it.
pub(super) fn run(place: &Place<'_>) {
    let env = place.store.env();
    let mut pushes: BTreeSet<(PathBuf, String)> = BTreeSet::new();
    let dir = place.spool.path(PUSHES);
    for waiting in env.fs.list(&dir).unwrap_or_default() {
        let path = dir.join(waiting.name);
        let entry = read_small(env, &path, ENTRY_BYTES_MAX).ok().and_then(|bytes| Entry::decode(&bytes).ok());
        // It goes first: what cannot be sent is not tried for ever.
        let is_gone = env.fs.remove(&path).is_ok();
        let Some(entry) = entry.filter(|_| is_gone) else { continue };
        let has_tree = entry.facts.root.is_absolute() && env.fs.metadata(&entry.facts.root).is_ok();
        let at = if has_tree { entry.facts.root } else { entry.facts.git_dir };
        pushes.insert((at, entry.facts.argument));
    }
    if pushes.is_empty() || !NoteSettings::read(env, place.data).push {
        return;
    }
    for (at, remote) in pushes.iter().filter(|(_, remote)| !remote.is_empty()) {
        let Err(said) = push(env, at, remote) else { continue };
        let message = format!("notes are not sent to `{remote}`: {said}");
        // What is kept of a message may be its beginning only.
        if place.spool.failures(env).iter().all(|failed| !message.starts_with(&failed.message)) {
            place.spool.note(env, &message);
        }
    }
}

/// Sends the notes of a repository, and gives up after a while.
fn push(env: &Env, at: &Path, remote: &str) -> Result<(), String> {
    let program = settings::program().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["notes", "push", "--remote", remote]).current_dir(at);
    settings::git_variables().into_iter().for_each(|name| {
        command.env_remove(name);
    });
    // Nobody is there who could be asked for a password, not by a window either.
    command.env("GIT_ASKPASS", "").env("SSH_ASKPASS_REQUIRE", "never").env_remove("DISPLAY");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let until = env.clock.monotonic_micros() + PUSH_MICROS_MAX;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(_)) => return Err(said(&mut child)),
            Ok(None) if env.clock.monotonic_micros() < until => env.clock.sleep(LOOK_MICROS),
            Ok(None) | Err(_) => {
                stop(&mut child);
                return Err("it took too long".to_owned());
            }
        }
    }
}

/// The first line of what it said.
fn said(child: &mut Child) -> String {
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What cannot be read is not said.
        let _ = stderr.take(SAID_BYTES_MAX).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or("it did not say why");
    line.trim_start_matches("agent-trace: ").trim_start_matches("error: ").to_owned()
}

/// Ends it with all that it has started.
fn stop(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}
