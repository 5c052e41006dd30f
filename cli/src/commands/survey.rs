//! Which hooks are in place, whether they would find the program, and when each last fired.
//!
//! No command, but what `hooks status` and `doctor` ask. Only looks; what cannot be read is told as a problem of its place.

use std::path::Path;

use agent_trace_store::env::Env;

use crate::git::{self, ask};
use crate::hooks::agents::{Agent, Scope};
use crate::hooks::fired::Fired;
use crate::hooks::git::Repository;
use crate::hooks::install::{self, Place};
use crate::hooks::{command, trust};
use crate::json;
use crate::settings::Settings;

/// What was found.
pub(super) struct Survey {
    pub(super) agents: Vec<json::AgentHooks>,
    /// `None` outside a repository, or where it was not asked for.
    pub(super) git: Option<json::GitHooks>,
}

impl Survey {
    /// Looks at the hooks of some agents, and of the repository around; `data` is that of its project.
    pub(super) fn make(
        env: &Env,
        settings: &Settings,
        data: Option<&Path>,
        agents: &[Agent],
        with_git: bool,
    ) -> Survey {
        let fired = data.map(|data| Fired::read(env, data)).unwrap_or_default();
        let root = ask::place(&settings.directory, ask::Part::WorkTree);
        let agents =
            agents.iter().map(|agent| look(env, settings, *agent, root.as_deref(), &fired)).collect();
        let common =
            git::common_dir(&settings.directory).ok().filter(|_| with_git && settings.store.is_none());
        let repository = common.and_then(|common| Repository::find(env, &settings.directory, &common).ok());
        Survey { agents, git: repository.map(|repository| json::GitHooks::of(env, &repository, &fired)) }
    }
}

fn look(
    env: &Env,
    settings: &Settings,
    agent: Agent,
    root: Option<&Path>,
    fired: &Fired,
) -> json::AgentHooks {
    let found = agent.folder(settings).is_some_and(|folder| env.fs.metadata(&folder).is_ok());
    let mut places = Vec::new();
    for scope in [Scope::Global, Scope::Project] {
        let Some(place) = Place::of(agent, scope, settings, root) else { continue };
        let mut told = json::AgentPlace {
            scope: scope.name(),
            place: place.path.display().to_string(),
            events: Vec::new(),
            missing: Vec::new(),
            commands: Vec::new(),
            runs: false,
            trust: None,
            problem: None,
        };
        match install::installed(env, &place) {
            Ok(None) => continue,
            Ok(Some(installed)) => {
                told.runs = installed.commands.iter().any(|line| command::runs(env, line));
                told.events = installed.events;
                told.missing = installed.missing;
                told.commands = installed.commands;
                told.trust = Some(trust::of(env, settings, agent, scope, &place.path).name());
            }
            Err(error) => told.problem = Some(error.message().to_owned()),
        }
        places.push(told);
    }
    let last = fired.agent(agent.name()).map(|last| json::LastEvent { event: last.event, time: last.time });
    json::AgentHooks { agent: agent.name(), found, places, last }
}
