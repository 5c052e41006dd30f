//! `hooks`: installs, removes and shows the hooks of agents and of git.

use std::path::{Path, PathBuf};

use agent_trace_store::{Error, ErrorKind};

use super::Context;
use super::survey::Survey;
use crate::args;
use crate::git::{self, ask};
use crate::hooks::agents::{Agent, Scope};
use crate::hooks::command::Program;
use crate::hooks::files::Notes;
use crate::hooks::git::{GIT, Repository};
use crate::hooks::install::{self, Place, Plan};
use crate::hooks::{Change, Kind};
use crate::json;
use crate::project;
use crate::report::{Done, Failure};
use crate::sanitize;

/// Said where hooks run a program from a temporary place.
pub(super) const VANISHES: &str =
    "put `agent-trace` on PATH: it runs from a temporary place now, and hooks stop once that is cleared";

pub(super) fn run(context: &Context, args: &args::Hooks) -> Result<Done, Failure> {
    match args {
        args::Hooks::Install(args) => install(context, args),
        args::Hooks::Status(args) => status(context, args),
        args::Hooks::Remove(args) => remove(context, args),
        args::Hooks::SetupGlobal(given) => {
            let args = args::HooksInstall { of: given.of.clone(), global: true, ..Default::default() };
            install(context, &args)
        }
        args::Hooks::RemoveGlobal(given) => {
            let args = args::HooksRemove { of: given.of.clone(), global: true, ..Default::default() };
            remove(context, &args)
        }
    }
}

/// Whose hooks are meant.
struct Of {
    /// None named: those that are there.
    agents: Vec<Agent>,
    git: bool,
    is_all: bool,
}

impl Of {
    fn read(args: &args::HooksOf) -> Result<Of, Failure> {
        let mut of = Of { agents: Vec::new(), git: args.agents.is_empty(), is_all: args.agents.is_empty() };
        for name in &args.agents {
            match Agent::parse(name) {
                Some(agent) if of.agents.contains(&agent) => {}
                Some(agent) => of.agents.push(agent),
                None if name == GIT => of.git = true,
                None => {
                    let names = Agent::ALL.map(Agent::name).join(", ");
                    let message = format!("cannot read agent `{name}`: expected one of {names}, {GIT}");
                    return Err(Error::invalid(message).into());
                }
            }
        }
        Ok(of)
    }
}

/// The repository around, where it has a store; a repository that never ran `init` is left alone.
fn repository(context: &Context) -> Result<Option<Repository>, Failure> {
    if context.settings.store.is_some() {
        return Ok(None);
    }
    let directory = &context.settings.directory;
    let Ok(common) = git::common_dir(directory) else { return Ok(None) };
    if project::find(&context.env, &context.settings)
        .is_err_and(|failure| failure.error.kind() == ErrorKind::NotFound)
    {
        return Ok(None);
    }
    Ok(Some(Repository::find(&context.env, directory, &common)?))
}

fn root(context: &Context) -> Option<PathBuf> {
    ask::place(&context.settings.directory, ask::Part::WorkTree)
}

// ---- install

fn install(context: &Context, args: &args::HooksInstall) -> Result<Done, Failure> {
    let of = Of::read(&args.of)?;
    let (env, settings) = (&context.env, &context.settings);
    let scope = if args.project { Scope::Project } else { Scope::Global };
    let root = root(context);
    if args.project && root.is_none() {
        let message = format!("no working tree at `{}`", settings.directory.display());
        return Err(Failure::new(ErrorKind::Invalid, message, "run it inside one, or use --global"));
    }
    let repository = if of.git && !(args.global && of.is_all) { repository(context)? } else { None };
    if of.git && !of.is_all && repository.is_none() {
        let message = format!("no repository with a store at `{}`", settings.directory.display());
        return Err(Failure::new(ErrorKind::NotFound, message, "agent-trace init"));
    }
    let found = Program::find(settings);
    let program = if scope == Scope::Project { Program::named() } else { found.clone() };
    let mut notes = notes(context, args.dry_run)?;
    let mut plans = Vec::new();
    for agent in wanted(&of, context, root.as_deref()) {
        let Some(place) = Place::of(agent, scope, settings, root.as_deref()) else { continue };
        plans.push(install::plan_install(env, &notes, place, &program)?);
    }
    let has_agents = !plans.is_empty();
    let mut changes = if args.dry_run { told(&plans) } else { Vec::new() };
    if !args.dry_run {
        for plan in &plans {
            changes.push(plan.install(env, &mut notes)?);
        }
    }
    if let Some(repository) = &repository {
        changes.extend(repository.install(env, &mut notes, &found, args.write, args.dry_run)?);
    }
    drop(notes);
    let done = print(context, "install", args.dry_run, &changes)?;
    if of.is_all && !has_agents {
        context.ui.hint("no agent has been found; name one: agent-trace hooks install --agent claude-code");
    }
    if repository.is_none() && of.git && !args.global && git::common_dir(&settings.directory).is_ok() {
        context.ui.hint("agent-trace init (this repository has no store: what agents do in it is not kept)");
    }
    if changes.iter().any(Change::is_change) && found.may_vanish(env) {
        context.ui.hint(VANISHES);
    }
    if scope == Scope::Project
        && changes.iter().any(|change| change.of != GIT && change.kind == Kind::Created)
    {
        context.ui.hint("the new files are part of the working tree: commit them to share them");
    }
    Ok(done)
}

fn notes(context: &Context, dry_run: bool) -> Result<Notes, Failure> {
    let (env, settings) = (&context.env, &context.settings);
    if dry_run { Notes::look(env, settings) } else { Notes::open(env, settings) }
}

/// The agents that are named, else those that have been used here.
fn wanted(of: &Of, context: &Context, root: Option<&Path>) -> Vec<Agent> {
    if !of.is_all {
        return of.agents.clone();
    }
    let is_there = |path: &Path| context.env.fs.metadata(path).is_ok_and(|found| found.is_dir);
    // `.github` says nothing of Copilot.
    let in_tree = |agent: Agent| {
        root.is_some_and(|root| agent != Agent::CopilotCli && is_there(&agent.project_folder(root)))
    };
    let in_home = |agent: Agent| agent.folder(&context.settings).is_some_and(|folder| is_there(&folder));
    Agent::ALL.into_iter().filter(|agent| in_home(*agent) || in_tree(*agent)).collect()
}

fn told(plans: &[Plan]) -> Vec<Change> {
    plans.iter().map(Plan::change).collect()
}

// ---- remove

fn remove(context: &Context, args: &args::HooksRemove) -> Result<Done, Failure> {
    let of = Of::read(&args.of)?;
    let (env, settings) = (&context.env, &context.settings);
    let root = root(context);
    let scopes: &[Scope] = match (args.global, args.project) {
        (true, _) => &[Scope::Global],
        (_, true) => &[Scope::Project],
        _ => &[Scope::Global, Scope::Project],
    };
    let agents = if of.is_all { Agent::ALL.to_vec() } else { of.agents.clone() };
    let repository = match of.git && !(args.global && of.is_all) {
        true => git_repository(context)?,
        false => None,
    };
    let mut notes = notes(context, args.dry_run)?;
    let mut plans = Vec::new();
    for (agent, scope) in agents.iter().flat_map(|agent| scopes.iter().map(move |scope| (*agent, *scope))) {
        let Some(place) = Place::of(agent, scope, settings, root.as_deref()) else { continue };
        plans.push(install::plan_remove(env, &notes, place)?);
    }
    let mut changes = if args.dry_run { told(&plans) } else { Vec::new() };
    if !args.dry_run {
        for plan in &plans {
            changes.push(plan.remove(env, &mut notes)?);
        }
    }
    changes.retain(Change::is_change);
    if let Some(repository) = &repository {
        changes.extend(repository.remove(env, &mut notes, args.dry_run)?);
    }
    drop(notes);
    print(context, "remove", args.dry_run, &changes)
}

/// The repository around, whether it has a store or not: hooks may outlive their store.
fn git_repository(context: &Context) -> Result<Option<Repository>, Failure> {
    let directory = &context.settings.directory;
    match git::common_dir(directory) {
        Ok(common) if context.settings.store.is_none() => {
            Ok(Some(Repository::find(&context.env, directory, &common)?))
        }
        _ => Ok(None),
    }
}

// ---- output of both

fn print(
    context: &Context,
    action: &'static str,
    dry_run: bool,
    changes: &[Change],
) -> Result<Done, Failure> {
    let ui = &context.ui;
    let is_partial = changes.iter().any(|change| change.kind == Kind::Skipped);
    let done = if is_partial { Done::Partial } else { Done::Well };
    if ui.is_json() {
        let changes = changes.iter().map(json::HookChange::of).collect();
        ui.json(&json::Hooks { schema: json::HOOKS, action, dry_run, changes })?;
        return Ok(done);
    }
    if dry_run {
        for diff in changes.iter().filter_map(|change| change.diff.as_deref()) {
            ui.bytes(sanitize::block(diff).as_bytes())?;
        }
    }
    for change in changes.iter().filter(|_| !dry_run) {
        line(context, change)?;
    }
    if changes.is_empty() || (dry_run && !changes.iter().any(Change::is_change)) {
        ui.note(if action == "remove" { "nothing of agent-trace was found" } else { "nothing to change" });
    }
    told_besides(context, changes);
    Ok(done)
}

fn line(context: &Context, change: &Change) -> Result<(), Failure> {
    let ui = &context.ui;
    let what = if change.of == GIT {
        format!("{} {}", change.of, change.events.join(", "))
    } else {
        change.of.to_owned()
    };
    let kind = match change.kind {
        Kind::ByHand => "by hand",
        kind => kind.name(),
    };
    let place = change.place.display().to_string();
    ui.line(format_args!("{:<17} {kind:<9} {}", ui.name(what), sanitize::line(&place)))?;
    Ok(())
}

/// What is left to do; each word once, though it may concern several events.
pub(super) fn told_besides(context: &Context, changes: &[Change]) {
    let ui = &context.ui;
    let mut told: Vec<&str> = Vec::new();
    for change in changes {
        if let Some(lines) = &change.lines {
            ui.note(&format!("to {}:", change.place.display()));
            for line in lines.lines() {
                ui.note(&format!("    {line}"));
            }
        }
        let Some(say) = change.say.as_deref().filter(|say| !told.contains(say)) else { continue };
        told.push(say);
        match change.kind {
            Kind::Skipped => ui.warn(say),
            _ => ui.hint(say),
        }
    }
}

// ---- status

fn status(context: &Context, args: &args::HooksStatus) -> Result<Done, Failure> {
    let of = Of::read(&args.of)?;
    let shown = if of.is_all { Agent::ALL.to_vec() } else { of.agents.clone() };
    let data = project::find(&context.env, &context.settings).ok().map(|place| place.data);
    let survey = Survey::make(&context.env, &context.settings, data.as_deref(), &shown, of.git);
    let (agents, git) = (survey.agents, survey.git);
    let document = json::HooksStatus { schema: json::HOOKS_STATUS, agents, git };
    if context.ui.is_json() {
        context.ui.json(&document)?;
    } else {
        print_status(context, &document, of.is_all)?;
    }
    Ok(Done::Well)
}

fn print_status(context: &Context, document: &json::HooksStatus, is_all: bool) -> Result<(), Failure> {
    let ui = &context.ui;
    let mut is_any = false;
    for agent in &document.agents {
        let last = agent.last.as_ref();
        let last = last
            .map_or_else(|| "never fired".to_owned(), |last| format!("last {} {}", last.event, last.time));
        let last = sanitize::line(&last).into_owned();
        is_any |= !agent.places.is_empty();
        if agent.places.is_empty() && (agent.found || !is_all) {
            ui.line(format_args!("{:<12} {}", ui.name(agent.agent), ui.faint("not installed")))?;
        }
        for place in &agent.places {
            let path = sanitize::line(&place.place).into_owned();
            let state = match &place.problem {
                Some(problem) => ui.bad(sanitize::line(problem).into_owned()).to_string(),
                None => format!("{} event(s), {last}", place.events.len()),
            };
            ui.line(format_args!("{:<12} {:<8} {path}: {state}", ui.name(agent.agent), place.scope))?;
            agent_problems(context, place)?;
        }
    }
    if let Some(git) = &document.git {
        for hook in &git.events {
            let last = hook.last.as_deref().map_or("never fired", |last| last);
            let state = match (&hook.mechanism, &hook.place) {
                (Some(mechanism), Some(place)) => {
                    let chained = if hook.chained { ", after what was there" } else { "" };
                    format!("{mechanism:<8} {}: {last}{chained}", sanitize::line(place))
                }
                _ => ui.faint("not installed").to_string(),
            };
            ui.line(format_args!("{:<12} {state}", ui.name(hook.event)))?;
            is_any |= hook.mechanism.is_some();
            if let Some(problem) = &hook.problem {
                ui.line(format_args!("             {}", ui.bad(sanitize::line(problem).into_owned())))?;
            } else if hook.mechanism.is_some() && !hook.runs {
                ui.line(format_args!("             {}", ui.bad("the program is not found")))?;
            }
        }
    }
    if !is_any {
        ui.hint("agent-trace hooks install");
    }
    Ok(())
}

fn agent_problems(context: &Context, place: &json::AgentPlace) -> Result<(), Failure> {
    let ui = &context.ui;
    let say = |text: String| ui.line(format_args!("             {}", ui.bad(text)));
    if !place.missing.is_empty() {
        say(format!("without {}; run: agent-trace hooks install", place.missing.join(", ")))?;
    }
    if place.problem.is_none() && !place.runs {
        say("the program is not found".to_owned())?;
    }
    match place.trust {
        Some("not-reviewed") => say("not reviewed: start codex and enter /hooks".to_owned())?,
        Some("off") => say("hooks are turned off in the agent's settings".to_owned())?,
        _ => {}
    }
    Ok(())
}
