//! Hooks in git's configuration, for git 2.54 and later: a section for each event, in the repository only.
//!
//! Git appends the hook's arguments to the command, so the command takes them where it needs them and ends in one that
//! ignores them. They run besides, and before, whatever stands in a hooks directory.

use std::ffi::OsStr;

use agent_trace_store::Result;
use agent_trace_store::env::Env;

use super::{CONFIG, Event, GIT, Repository, State};
use crate::git::ask;
use crate::hooks::command::{self, Program};
use crate::hooks::{Change, Kind};

/// Our keys.
pub(super) const PATTERN: &str = r"^hook\.agent-trace-";

fn section(event: Event) -> String {
    format!("hook.agent-trace-{}", event.name())
}

fn line(event: Event, program: &Program) -> String {
    program.hook(event.name(), " \"$@\"")
}

/// The values of a key of an event's section.
fn values<'a>(repository: &'a Repository, event: Event, key: &str) -> Vec<&'a str> {
    let key = format!("{}.{key}", section(event));
    repository.configured.iter().filter(|(name, _)| *name == key).map(|(_, value)| value.as_str()).collect()
}

pub(super) fn install(repository: &Repository, event: Event, program: &Program, dry: bool) -> Result<Change> {
    let mut change = change(repository, event);
    let section = section(event);
    let wanted = [("command", line(event, program)), ("event", event.name().to_owned())];
    let had = wanted.each_ref().map(|(key, _)| values(repository, event, key));
    if had.iter().zip(&wanted).all(|(had, (_, value))| *had == [value]) {
        return Ok(change);
    }
    change.kind = if had.iter().all(Vec::is_empty) { Kind::Created } else { Kind::Changed };
    let lines = wanted.each_ref().map(|(key, value)| format!("+\t{key} = {value}\n")).concat();
    change.diff = Some(format!("+{}\n{lines}", header(event)));
    if !dry {
        // The event last: a command without an event is run by nobody.
        for (key, value) in &wanted {
            ask::set_local(&repository.directory, &format!("{section}.{key}"), OsStr::new(value))?;
        }
    }
    Ok(change)
}

pub(super) fn remove(repository: &Repository, event: Event, dry: bool) -> Result<Option<Change>> {
    if ["command", "event"].iter().all(|key| values(repository, event, key).is_empty()) {
        return Ok(None);
    }
    if !dry {
        ask::remove_local_section(&repository.directory, &section(event))?;
    }
    let mut change = change(repository, event);
    change.kind = Kind::Removed;
    change.diff = Some(format!("-{}\n", header(event)));
    Ok(Some(change))
}

pub(super) fn state(env: &Env, repository: &Repository, event: Event) -> Option<State> {
    let line = values(repository, event, "command").pop()?;
    let problem = match values(repository, event, "event").contains(&event.name()) {
        true => None,
        false => Some(format!("`{}.event` does not name it", section(event))),
    };
    Some(State {
        event,
        mechanism: Some(CONFIG),
        place: Some(repository.common.join("config")),
        command: Some(line.to_owned()),
        runs: command::runs(env, line),
        chained: false,
        problem,
    })
}

fn header(event: Event) -> String {
    format!("[hook \"agent-trace-{}\"]", event.name())
}

fn change(repository: &Repository, event: Event) -> Change {
    let mut change = Change::of(GIT, "project", &repository.common.join("config"), CONFIG);
    change.events = vec![event.name()];
    change
}
