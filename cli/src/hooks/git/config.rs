//! Hooks in git's configuration, for git 2.54 and later: a section for each event, in the repository only.
//!
//! Git appends the hook's arguments to the command, so the command takes them where it needs them and ends in one that
//! ignores them. They run besides, and before, whatever stands in a hooks directory.

use std::ffi::OsStr;
use std::path::Path;

use agent_trace_store::Result;
use agent_trace_store::env::Env;

use super::{CONFIG, Event, GIT, State};
use crate::git::ask::{self, Part};
use crate::hooks::command::{self, Program};
use crate::hooks::{Change, Kind};

fn section(event: Event) -> String {
    format!("hook.agent-trace-{}", event.name())
}

fn line(event: Event, program: &Program) -> String {
    program.hook(event.name(), " \"$@\"")
}

pub(super) fn install(directory: &Path, event: Event, program: &Program, dry: bool) -> Result<Change> {
    let mut change = change(directory, event);
    let section = section(event);
    let wanted = [("command", line(event, program)), ("event", event.name().to_owned())];
    let had = wanted.each_ref().map(|(key, _)| ask::local_values(directory, &format!("{section}.{key}")));
    let same = had.iter().zip(&wanted).all(|(had, (_, value))| *had == [OsStr::new(value)]);
    if same {
        return Ok(change);
    }
    change.kind = if had.iter().all(Vec::is_empty) { Kind::Created } else { Kind::Changed };
    let lines = wanted.each_ref().map(|(key, value)| format!("+\t{key} = {value}\n")).concat();
    change.diff = Some(format!("+[{}]\n{lines}", section.replacen('.', " \"", 1) + "\""));
    if !dry {
        // The event last: a command without an event is run by nobody.
        for (key, value) in &wanted {
            ask::set_local(directory, &format!("{section}.{key}"), OsStr::new(value))?;
        }
    }
    Ok(change)
}

pub(super) fn remove(directory: &Path, event: Event, dry: bool) -> Result<Option<Change>> {
    let section = section(event);
    let had = ["command", "event"].map(|key| ask::local_values(directory, &format!("{section}.{key}")));
    if had.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    if !dry {
        ask::remove_local_section(directory, &section)?;
    }
    let mut change = change(directory, event);
    change.kind = Kind::Removed;
    change.diff = Some(format!("-[{}]\n", section.replacen('.', " \"", 1) + "\""));
    Ok(Some(change))
}

pub(super) fn state(env: &Env, directory: &Path, event: Event) -> Option<State> {
    let section = section(event);
    let line = ask::local_values(directory, &format!("{section}.command")).pop()?;
    let events = ask::local_values(directory, &format!("{section}.event"));
    let problem = match events.iter().any(|value| value.as_os_str() == event.name()) {
        true => None,
        false => Some(format!("`{section}.event` does not name it")),
    };
    Some(State {
        event,
        mechanism: Some(CONFIG),
        place: Some(place(directory)),
        runs: command::runs(env, &line.to_string_lossy()),
        command: Some(line.to_string_lossy().into_owned()),
        chained: false,
        problem,
    })
}

fn change(directory: &Path, event: Event) -> Change {
    let mut change = Change::of(GIT, "project", &place(directory), CONFIG);
    change.events = vec![event.name()];
    change
}

fn place(directory: &Path) -> std::path::PathBuf {
    let common = crate::git::common_dir(directory).ok().or_else(|| ask::place(directory, Part::GitDir));
    common.unwrap_or_else(|| directory.to_owned()).join("config")
}
