//! Hooks of git: post-commit, post-rewrite, pre-push, beside whatever is there.
//!
//! | where | how |
//! |---|---|
//! | git 2.54 and later | `hook.agent-trace-<event>` in the repository's configuration |
//! | before, hooks in the repository's own directory | a file; the one before is kept beside it and runs first |
//! | `core.hooksPath` leads elsewhere | lines for whoever owns that directory, printed, or added on request |
//!
//! `core.hooksPath` is never set, a refspec is never added, and nothing is replaced.

mod script;
mod chain;
mod config;
mod manager;

use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::{Error, Result};

use super::command::Program;
use super::files::Notes;
use super::{Change, Kind};
use crate::git::ask::{self, Part};
use crate::report::Failure;
use manager::Manager;

/// The first version that takes hooks from its configuration.
const CONFIG_SINCE: (u32, u32) = (2, 54);
/// Whose hooks these are.
pub(crate) const GIT: &str = "git";
const FILE: &str = "file";
const CONFIG: &str = "config";

/// An event of git that we want to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    PostCommit,
    PostRewrite,
    PrePush,
}

impl Event {
    /// All of them.
    pub(crate) const ALL: [Event; 3] = [Event::PostCommit, Event::PostRewrite, Event::PrePush];

    /// As git names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Event::PostCommit => "post-commit",
            Event::PostRewrite => "post-rewrite",
            Event::PrePush => "pre-push",
        }
    }

    fn reads_stdin(self) -> bool {
        self != Event::PostCommit
    }
}

/// A repository, as far as its hooks are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    directory: PathBuf,
    /// What its worktrees share.
    common: PathBuf,
    /// Hooks of ours in its configuration.
    configured: Vec<(String, String)>,
    /// Where git looks for hooks.
    hooks: PathBuf,
    pub(crate) version: Option<(u32, u32)>,
    /// Who has been given the hooks by `core.hooksPath`.
    pub(crate) owner: Option<Owner>,
}

/// Where `core.hooksPath` leads, if not to the repository's own directory.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) path: PathBuf,
    /// The scope of the configuration that says so.
    pub(crate) scope: String,
    manager: Manager,
    /// Whether it lies in this repository, so that others are not concerned.
    is_here: bool,
}

/// How an event is told of, if it is.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) event: Event,
    pub(crate) mechanism: Option<&'static str>,
    pub(crate) place: Option<PathBuf>,
    /// What is run: a line, or the program that a script of ours names.
    pub(crate) command: Option<String>,
    /// Whether the program would be found.
    pub(crate) runs: bool,
    /// Whether a hook that was there before is run first.
    pub(crate) chained: bool,
    /// What is wrong.
    pub(crate) problem: Option<String>,
}

impl Repository {
    /// Looks at the repository around a directory, whose common directory is known.
    pub(crate) fn find(env: &Env, directory: &Path, common: &Path) -> Result<Repository> {
        let own = common.join("hooks");
        let hooks = ask::place(directory, Part::Hooks).unwrap_or_else(|| own.clone());
        let owner = match ask::setting(directory, "core.hooksPath") {
            Some((scope, value)) if !value.is_empty() && !is_same(&hooks, &own) => {
                let root = ask::place(directory, Part::WorkTree);
                let is_here =
                    lies_in(&hooks, common) || root.as_deref().is_some_and(|root| lies_in(&hooks, root));
                let manager = Manager::of(env, &hooks, root.as_deref().filter(|_| is_here));
                Some(Owner { path: hooks.clone(), scope, manager, is_here })
            }
            _ => None,
        };
        Ok(Repository {
            directory: directory.to_owned(),
            common: common.to_owned(),
            configured: ask::local_matching(directory, config::PATTERN),
            hooks,
            version: ask::version(directory),
            owner,
        })
    }

    fn takes_config(&self) -> bool {
        self.version.is_some_and(|version| version >= CONFIG_SINCE)
    }

    /// Installs what is missing; `write` also into the files of a manager. Nothing is written in a dry run.
    pub(crate) fn install(
        &self,
        env: &Env,
        notes: &mut Notes,
        program: &Program,
        write: bool,
        dry: bool,
    ) -> Result<Vec<Change>, Failure> {
        let mut changes = Vec::new();
        for event in Event::ALL {
            // A file that is there would tell of each event a second time.
            let has_file = self.owner.is_none() && chain::is_installed(env, &self.hooks, event);
            if self.takes_config() && !has_file {
                changes.push(config::install(self, event, program, dry)?);
                continue;
            }
            if let Some(owner) = &self.owner {
                changes.push(manager::install(env, notes, owner, event, write, dry)?);
                continue;
            }
            changes.push(match chain::install(env, notes, &self.hooks, event, program, dry) {
                Ok(change) => change,
                Err(failure) => skipped(&self.hooks, event, &failure),
            });
            config::remove(self, event, dry)?;
        }
        Ok(changes)
    }

    /// Takes out what is ours, wherever it is.
    pub(crate) fn remove(&self, env: &Env, notes: &mut Notes, dry: bool) -> Result<Vec<Change>, Failure> {
        let mut changes = Vec::new();
        for event in Event::ALL {
            changes.extend(config::remove(self, event, dry)?);
            if let Some(owner) = &self.owner {
                changes.extend(manager::remove(env, notes, owner, event, dry)?);
            }
            match chain::remove(env, notes, &self.own_hooks(), event, dry) {
                Ok(change) => changes.extend(change),
                Err(failure) => changes.push(skipped(&self.own_hooks(), event, &failure)),
            }
        }
        Ok(changes)
    }

    /// The repository's own directory for hooks, wherever `core.hooksPath` leads now.
    fn own_hooks(&self) -> PathBuf {
        if self.owner.is_some() { self.common.join("hooks") } else { self.hooks.clone() }
    }

    /// How each event is told of.
    pub(crate) fn states(&self, env: &Env) -> Vec<State> {
        Event::ALL.into_iter().map(|event| self.state(env, event)).collect()
    }

    fn state(&self, env: &Env, event: Event) -> State {
        let configured = config::state(env, self, event);
        let in_files = match &self.owner {
            Some(owner) => manager::state(env, owner, event),
            None => chain::state(env, &self.hooks, event),
        };
        let none = || State {
            event,
            mechanism: None,
            place: None,
            command: None,
            runs: false,
            chained: false,
            problem: None,
        };
        match (configured, in_files) {
            (Some(state), None) if self.takes_config() => state,
            (Some(_), Some(mut state)) if self.takes_config() => {
                state.problem = Some("it is told of twice: by the configuration and by a file".to_owned());
                state
            }
            (Some(_), None) => State {
                problem: Some("this version of git does not read hooks from its configuration".to_owned()),
                ..none()
            },
            (_, Some(state)) => state,
            (None, None) => none(),
        }
    }
}

fn skipped(hooks: &Path, event: Event, failure: &Failure) -> Change {
    let mut change = Change::of(GIT, "project", &hooks.join(event.name()), FILE);
    let cause = std::error::Error::source(&failure.error).map(|cause| format!(": {cause}"));
    change.events = vec![event.name()];
    change.kind = Kind::Skipped;
    change.say = Some(format!("{}{}", failure.error.message(), cause.unwrap_or_default()));
    change
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

fn lies_in(path: &Path, directory: &Path) -> bool {
    // What is not there yet lies where its nearest ancestor does.
    let there = path.ancestors().find_map(|ancestor| std::fs::canonicalize(ancestor).ok());
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    there.is_some_and(|there| there.starts_with(directory))
}

fn io(doing: &str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let message = format!("{doing} `{}`", path.display());
    move |error| Error::io(message.clone(), error)
}
