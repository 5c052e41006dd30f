//! `init`: gives the repository, or a directory, a store, and git its hooks.
//!
//! A hook that cannot be put in place is a warning: the store is there, and a later `init` tries again.

use agent_trace_store::Store;

use super::{Context, hooks as hook_commands};
use crate::args;
use crate::git;
use crate::hooks::Change;
use crate::hooks::command::Program;
use crate::hooks::files::Notes;
use crate::hooks::git::Repository;
use crate::json;
use crate::project;
use crate::report::{Done, Failure};
use crate::sanitize;

pub(super) fn run(context: &Context, args: &args::Init) -> Result<Done, Failure> {
    let ui = &context.ui;
    let (place, was_there) = project::init(&context.env, &context.settings)?;
    let store = Store::open(&context.env, &place.store)?;
    let peer_data = project::peer_data(&context.env, &place);
    let hooks = match place.project.is_some() && !args.no_hooks {
        true => install_hooks(context),
        false => Vec::new(),
    };
    let show = |path: &std::path::Path| path.display().to_string();
    if ui.is_json() {
        ui.json(&json::Init {
            schema: json::INIT,
            project: place.project.as_ref().map(ToString::to_string),
            data: show(&place.data),
            store: show(&place.store),
            writer: store.writer().to_string(),
            created: !was_there,
            peer_data: peer_data.as_deref().map(show),
            hooks: hooks.iter().map(json::HookChange::of).collect(),
        })?;
        return Ok(Done::Well);
    }
    let said = if was_there { "Already initialised" } else { "Initialised" };
    let data = show(&place.data);
    match &place.project {
        Some(project) => {
            ui.line(format_args!("{said} project {}", ui.name(project)))?;
            ui.line(format_args!("  data  {}", sanitize::line(&data)))?;
        }
        None => ui.line(format_args!("{said} store {}", ui.name(sanitize::line(&data))))?,
    }
    let new: Vec<&str> =
        hooks.iter().filter(|hook| hook.is_change()).flat_map(|hook| hook.events.iter().copied()).collect();
    if !new.is_empty() {
        ui.line(format_args!("  hooks {}", new.join(", ")))?;
    }
    hook_commands::told_besides(context, &hooks);
    if let Some(peer) = peer_data {
        ui.hint(&format!("agent-trace import {}", peer.display()));
    } else if !was_there {
        ui.hint("agent-trace import DIR brings in transcripts; agent-trace hooks install lets agents tell what they do");
    }
    Ok(Done::Well)
}

/// Installs git's hooks. What fails here is told, and fails nothing.
fn install_hooks(context: &Context) -> Vec<Change> {
    let (env, settings) = (&context.env, &context.settings);
    let program = Program::find(settings);
    let installed = git::common_dir(&settings.directory).and_then(|common| {
        let repository = Repository::find(env, &settings.directory, &common)?;
        let mut notes = Notes::open(env, settings)?;
        repository.install(env, &mut notes, &program, false, false)
    });
    match installed {
        Ok(changes) => {
            if changes.iter().any(Change::is_change) && program.may_vanish(env) {
                context.ui.hint(hook_commands::VANISHES);
            }
            changes
        }
        Err(failure) => {
            context.ui.warn(&format!("git's hooks were not installed: {}", failure.error.message()));
            Vec::new()
        }
    }
}
