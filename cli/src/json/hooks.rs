//! The JSON shapes of `hooks`.

use agent_trace_store::env::Env;
use serde::Serialize;

use crate::hooks::Change;
use crate::hooks::fired::Fired;
use crate::hooks::git::Repository;

/// `hooks install`, `hooks remove`
#[derive(Serialize)]
pub(crate) struct Hooks<'a> {
    pub(crate) schema: &'static str,
    pub(crate) action: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) changes: Vec<HookChange<'a>>,
}

/// One place of hooks, and what has happened to it.
#[derive(Serialize)]
pub(crate) struct HookChange<'a> {
    pub(crate) agent: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) mechanism: &'static str,
    pub(crate) place: String,
    pub(crate) events: &'a [&'static str],
    pub(crate) change: &'static str,
    pub(crate) backup: Option<String>,
    pub(crate) diff: Option<&'a str>,
    pub(crate) say: Option<&'a str>,
    pub(crate) lines: Option<&'a str>,
}

impl HookChange<'_> {
    /// A change as a program reads it.
    pub(crate) fn of(change: &Change) -> HookChange<'_> {
        HookChange {
            agent: change.of,
            scope: change.scope,
            mechanism: change.mechanism,
            place: change.place.display().to_string(),
            events: &change.events,
            change: change.kind.name(),
            backup: change.backup.as_ref().map(|path| path.display().to_string()),
            diff: change.diff.as_deref(),
            say: change.say.as_deref(),
            lines: change.lines.as_deref(),
        }
    }
}

/// `hooks status`
#[derive(Serialize)]
pub(crate) struct HooksStatus {
    pub(crate) schema: &'static str,
    pub(crate) agents: Vec<AgentHooks>,
    pub(crate) git: Option<GitHooks>,
}

/// The hooks of an agent.
#[derive(Serialize)]
pub(crate) struct AgentHooks {
    pub(crate) agent: &'static str,
    pub(crate) found: bool,
    pub(crate) places: Vec<AgentPlace>,
    pub(crate) last: Option<LastEvent>,
}

/// A file with hooks of an agent.
#[derive(Serialize)]
pub(crate) struct AgentPlace {
    pub(crate) scope: &'static str,
    pub(crate) place: String,
    pub(crate) events: Vec<String>,
    pub(crate) missing: Vec<&'static str>,
    pub(crate) commands: Vec<String>,
    pub(crate) runs: bool,
    pub(crate) trust: Option<&'static str>,
    pub(crate) problem: Option<String>,
}

/// The event that was heard of last.
#[derive(Serialize)]
pub(crate) struct LastEvent {
    pub(crate) event: String,
    pub(crate) time: String,
}

/// The hooks of git.
#[derive(Serialize)]
pub(crate) struct GitHooks {
    pub(crate) version: Option<String>,
    pub(crate) hooks_path: Option<String>,
    pub(crate) events: Vec<GitHook>,
}

/// A hook of git.
#[derive(Serialize)]
pub(crate) struct GitHook {
    pub(crate) event: &'static str,
    pub(crate) mechanism: Option<&'static str>,
    pub(crate) place: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) runs: bool,
    pub(crate) chained: bool,
    pub(crate) problem: Option<String>,
    pub(crate) last: Option<String>,
}

impl GitHooks {
    /// The hooks of a repository as a program reads them.
    pub(crate) fn of(env: &Env, repository: &Repository, fired: &Fired) -> GitHooks {
        let events = repository.states(env).into_iter().map(|state| GitHook {
            event: state.event.name(),
            mechanism: state.mechanism,
            place: state.place.map(|path| path.display().to_string()),
            command: state.command,
            runs: state.runs,
            chained: state.chained,
            problem: state.problem,
            last: fired.git(state.event.name()),
        });
        GitHooks {
            version: repository.version.map(|(major, minor)| format!("{major}.{minor}")),
            hooks_path: repository.owner.as_ref().map(|owner| owner.path.display().to_string()),
            events: events.collect(),
        }
    }
}
