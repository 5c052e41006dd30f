//! `reset`: the settings of a project and its git hooks as `init` leaves them; only when it is asked for by name, all of
//! the project's data goes too.
//!
//! Shows what it would do and asks. Never touches other projects, the user's settings, agents' hooks or what stands in
//! git. Cut short anywhere it can be run again: the anchor, by which the project is found, goes last.

use std::path::{Path, PathBuf};

use agent_trace_store::env::LockMode;
use agent_trace_store::id::encode_hex;
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Store};
use serde_json::Value;

use super::{Context, config, hooks as hook_commands, projects, status};
use crate::args;
use crate::capture::absorb;
use crate::capture::spool::Spool;
use crate::git;
use crate::hooks::Change;
use crate::hooks::command::Program;
use crate::hooks::files::Notes;
use crate::hooks::git::Repository;
use crate::json;
use crate::project::{self, Place};
use crate::remotes::{Remotes, Tokens};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::ui;

/// How long to wait for whoever absorbs what hooks have told.
const ABSORB_WAIT_MICROS_MAX: u64 = 10_000_000;

/// What would be done.
struct Plan {
    /// What the project's settings say by themselves.
    settings: Vec<(&'static str, Value)>,
    /// Git's hooks that would be put in place or taken out.
    hooks: Vec<Change>,
    /// What would go for good.
    data: Option<Data>,
}

/// All that was recorded in a project.
struct Data {
    dir: PathBuf,
    records: u64,
    bytes: u64,
    remotes: Vec<String>,
    /// Other places that share the data.
    shared_with: Vec<String>,
}

pub(super) fn run(context: &Context, args: &args::Reset) -> Result<Done, Failure> {
    let place = if args.remove_store {
        project::named(&context.env, &context.settings)?
    } else {
        project::find(&context.env, &context.settings)?
    };
    if args.remove_store && place.project.is_none() {
        let message = format!("`{}` is a store outside git", place.store.display());
        return Err(Failure::new(
            ErrorKind::Invalid,
            message,
            "it is all in that directory: remove it yourself",
        ));
    }
    let plan = plan(context, &place, args.remove_store)?;
    if !context.ui.is_json() {
        show(context, &place, &plan)?;
    }
    let is_nothing = plan.settings.is_empty() && plan.hooks.is_empty() && plan.data.is_none();
    if args.dry_run || is_nothing {
        return answer(context, &place, &plan, args.dry_run, None);
    }
    if !args.yes {
        let question = match &plan.data {
            Some(data) => format!("Remove {} record(s) for good?", ui::number(data.records)),
            None => "Reset it?".to_owned(),
        };
        match context.ui.confirm(&question)? {
            Some(true) => {}
            Some(false) => {
                context.ui.note("nothing was changed");
                return Ok(Done::Well);
            }
            None => {
                let message = "cannot ask whether to reset: there is no terminal";
                let hint = if args.remove_store { "reset --remove-store --yes" } else { "reset --yes" };
                return Err(Failure::new(ErrorKind::Invalid, message, format!("agent-trace {hint}")));
            }
        }
    }
    let changes = hooks(context, args.remove_store, false)?;
    match &plan.data {
        Some(data) => remove(context, &place, &data.dir)?,
        None => config::reset_all(context)?,
    }
    answer(context, &place, &plan, false, Some(&changes))
}

fn plan(context: &Context, place: &Place, remove_store: bool) -> Result<Plan, Failure> {
    let settings = if remove_store { Vec::new() } else { config::own(context, place)? };
    let hooks = hooks(context, remove_store, true)?;
    let data = if remove_store { Some(data(context, place)?) } else { None };
    Ok(Plan { settings, hooks, data })
}

/// Puts git's hooks in place where some of them are, or takes them out; what has changed.
fn hooks(context: &Context, is_removal: bool, dry: bool) -> Result<Vec<Change>, Failure> {
    let (env, settings) = (&context.env, &context.settings);
    if settings.store.is_some() {
        return Ok(Vec::new());
    }
    let common = git::common_dir(&settings.directory)?;
    let repository = Repository::find(env, &settings.directory, &common)?;
    let mut notes = if dry { Notes::look(env, settings)? } else { Notes::open(env, settings)? };
    let changes = if is_removal {
        repository.remove(env, &mut notes, dry)?
    } else if repository.states(env).iter().any(|state| state.mechanism.is_some() || state.problem.is_some())
    {
        // Whoever wanted none (`init --no-hooks`) gets none.
        repository.install(env, &mut notes, &Program::find(settings), false, dry)?
    } else {
        Vec::new()
    };
    Ok(changes.into_iter().filter(Change::is_change).collect())
}

fn data(context: &Context, place: &Place) -> Result<Data, Failure> {
    let env = &context.env;
    let (mut records, mut remotes) = (0, Vec::new());
    // A store that cannot be opened can be removed all the same.
    if let Ok(store) = Store::open(env, &place.store) {
        records = status::records(&store).unwrap_or_default();
        let named = Remotes::read(&context.files(place, &store)).map(|remotes| remotes.list());
        remotes = named.unwrap_or_default().into_iter().map(|remote| remote.name).collect();
    }
    let here = git::common_dir(&context.settings.directory)?;
    let shared_with = projects::roots(context, place)?
        .into_iter()
        .filter(|root| git::common_dir(Path::new(root)).is_ok_and(|common| common != here))
        .filter(|root| {
            let settings = crate::settings::Settings { directory: root.into(), ..context.settings.clone() };
            project::named(env, &settings).is_ok_and(|other| other.data == place.data)
        })
        .collect();
    Ok(Data {
        dir: place.data.clone(),
        records,
        bytes: bytes_below(context, &place.data),
        remotes,
        shared_with,
    })
}

fn bytes_below(context: &Context, dir: &Path) -> u64 {
    let entries = context.env.fs.list(dir).unwrap_or_default().into_iter();
    let bytes = entries.map(|entry| {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            bytes_below(context, &path)
        } else {
            context.env.fs.metadata(&path).map_or(0, |metadata| metadata.bytes)
        }
    });
    bytes.sum()
}

/// Removes the data of a project, what is known of it elsewhere, and its anchor last.
fn remove(context: &Context, place: &Place, dir: &Path) -> Result<(), Failure> {
    let (env, settings) = (&context.env, &context.settings);
    let (Some(project), Some(home)) = (&place.project, &settings.home) else {
        return Err(Error::invalid("only the data of a git repository can be removed").into());
    };
    let doing = |error| Error::io(format!("cannot remove `{}`", dir.display()), error);
    let parent = dir.parent().unwrap_or(home);
    let prefix = format!(".{project}.");
    if env.fs.metadata(dir).is_ok() {
        // Out of sight in one step, while nobody writes.
        let _absorbing = absorb::alone(env, &Spool::of(dir), ABSORB_WAIT_MICROS_MAX).ok();
        let _alone = match env.fs.metadata(&place.store) {
            Ok(_) => Some(lock(env, &place.store.join("lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?),
            Err(_) => None,
        };
        let mut random = [0; 8];
        env.entropy.fill(&mut random);
        env.fs.rename(dir, &parent.join(format!("{prefix}{}", encode_hex(&random)))).map_err(doing)?;
        env.fs.sync_dir(parent).map_err(doing)?;
    }
    // Those of an earlier run that was cut short too.
    for entry in env.fs.list(parent).map_err(doing)? {
        if entry.name.to_string_lossy().starts_with(&prefix) {
            env.fs.remove_dir_all(&parent.join(entry.name)).map_err(doing)?;
        }
    }
    Tokens::new(env, Some(home), project.to_string()).remove_all()?;
    projects::forget(context, home, &project.to_string())?;
    project::remove_anchor(env, settings)
}

fn show(context: &Context, place: &Place, plan: &Plan) -> Result<(), Failure> {
    let ui = &context.ui;
    let whose = place.project.as_ref().map_or_else(|| place.store.display().to_string(), ToString::to_string);
    if plan.settings.is_empty() && plan.hooks.is_empty() && plan.data.is_none() {
        ui.line(format_args!("Nothing to reset in {}", ui.name(sanitize::line(&whose))))?;
        return Ok(());
    }
    ui.line(format_args!("To reset in {}:", ui.name(sanitize::line(&whose))))?;
    for (field, value) in &plan.settings {
        ui.line(format_args!("  setting {field}, now {}", sanitize::line(&value.to_string())))?;
    }
    for change in &plan.hooks {
        let events = change.events.join(", ");
        let place = change.place.display().to_string();
        ui.line(format_args!("  hook    {events} {}   {}", change.kind.name(), sanitize::line(&place)))?;
    }
    if let Some(data) = &plan.data {
        let dir = data.dir.display().to_string();
        let (records, bytes) = (ui::number(data.records), ui::bytes(data.bytes));
        ui.line(format_args!("  data    {records} record(s), {bytes}   {}", sanitize::line(&dir)))?;
        let remotes = match data.remotes.as_slice() {
            [] => "there is no remote: nothing of it is anywhere else".to_owned(),
            names => format!("what was not pushed to {} is nowhere else", sanitize::line(&names.join(", "))),
        };
        ui.line(format_args!("          {remotes}"))?;
        for root in &data.shared_with {
            ui.line(format_args!("          `{}` uses it too", sanitize::line(root)))?;
        }
    }
    Ok(())
}

fn answer(
    context: &Context,
    place: &Place,
    plan: &Plan,
    dry_run: bool,
    done: Option<&[Change]>,
) -> Result<Done, Failure> {
    let ui = &context.ui;
    if ui.is_json() {
        let changes = done.unwrap_or(&plan.hooks);
        ui.json(&json::Reset {
            schema: json::RESET,
            dry_run,
            project: place.project.as_ref().map(ToString::to_string),
            settings: plan.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            hooks: changes.iter().map(json::HookChange::of).collect(),
            data: plan.data.as_ref().map(|data| json::ResetData {
                dir: data.dir.display().to_string(),
                records: data.records,
                bytes: data.bytes,
                remotes: data.remotes.clone(),
                shared_with: data.shared_with.clone(),
            }),
        })?;
        return Ok(Done::Well);
    }
    let Some(changes) = done else { return Ok(Done::Well) };
    hook_commands::told_besides(context, changes);
    match plan.data {
        Some(_) => {
            ui.line("Removed the project's data")?;
            ui.hint("git update-ref -d refs/notes/agent-trace removes the notes; agent-trace hooks remove the hooks of agents");
        }
        None => ui.line(format_args!(
            "Reset {} setting(s), {} hook(s)",
            ui::number(plan.settings.len() as u64),
            ui::number(changes.len() as u64)
        ))?,
    }
    Ok(Done::Well)
}
