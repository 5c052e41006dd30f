//! `projects`: the projects that have data on this machine, as their folders and agent-trace-cli's registry say.

use std::collections::BTreeMap;
use std::path::Path;

use agent_trace_store::env::LockMode;
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind};
use serde_json::{Value, json};

use super::Context;
use crate::args;
use crate::document::Document;
use crate::git::process::Git;
use crate::json as shapes;
use crate::project::{self, Place};
use crate::report::{Done, Failure};
use crate::sanitize;

pub(super) fn run(context: &Context, args: Option<&args::Projects>) -> Result<Done, Failure> {
    let all = projects(context)?;
    let shown = match args {
        None => all,
        Some(args::Projects::Show { id }) => {
            let found: Vec<_> = all.into_iter().filter(|project| project.id.starts_with(id)).collect();
            if found.len() != 1 || id.len() < 4 {
                let message = format!("there is no project `{}`", sanitize::line(id));
                return Err(Failure::new(ErrorKind::NotFound, message, "agent-trace projects lists them"));
            }
            found
        }
    };
    for project in shown {
        print(context, args.is_some(), &project)?;
    }
    Ok(Done::Well)
}

/// `adopt`: gives a repository a store and notes where it lies.
pub(super) fn adopt(context: &Context, path: Option<&Path>) -> Result<Done, Failure> {
    let mut settings = context.settings.clone();
    if let Some(path) = path {
        settings.directory = settings.directory.join(path);
        let is_dir = context.env.fs.metadata(&settings.directory).is_ok_and(|metadata| metadata.is_dir);
        if !is_dir {
            let message = format!("there is no directory `{}`", path.display());
            return Err(Error::new(ErrorKind::NotFound, message).into());
        }
    }
    settings.store = None;
    let (place, _) = project::init(&context.env, &settings)?;
    let (Some(id), Some(home)) = (&place.project, &settings.home) else {
        return Err(Error::invalid("only a git repository can be adopted").into());
    };
    let id = id.to_string();
    register(context, home, &id, &settings.directory)?;
    let known = projects(context)?.into_iter().find(|project| project.id == id);
    match known.filter(|_| context.ui.is_json()) {
        Some(project) => context.ui.json(&project)?,
        None => context.ui.line(&id)?,
    }
    Ok(Done::Well)
}

/// Notes where a project lies, in the registry of agent-trace-cli.
fn register(context: &Context, home: &Path, id: &str, directory: &Path) -> Result<(), Failure> {
    let git = Git::from(directory);
    let asked = |args: &[&str]| {
        let printed = git.ask(args).ok()?;
        let text = String::from_utf8_lossy(&printed).trim_end_matches('\n').to_owned();
        (!text.is_empty()).then_some(text)
    };
    let root = asked(&["rev-parse", "--show-toplevel"]);
    let root = root.or_else(|| asked(&["rev-parse", "--path-format=absolute", "--git-common-dir"]));
    let first = asked(&["rev-list", "--max-parents=0", "HEAD"]);
    let first = first.and_then(|all| all.lines().last().map(str::to_owned));
    let origin = asked(&["config", "--get", "remote.origin.url"]).map(|url| without_secret(&url));
    let env = &context.env;
    let _alone = lock(env, &home.join(".registry.lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    let mut registry = Document::read(env, &home.join("projects.json"))?;
    registry.members_mut().entry("version").or_insert(json!(2));
    let projects = registry.section_mut("projects")?;
    let entry = projects.entry(id).or_insert_with(|| json!({"created_at": env.clock.now().to_string()}));
    let Some(entry) = entry.as_object_mut() else {
        return Err(registry.refused(&format!("expected `{id}` to be an object")));
    };
    let mut roots: Vec<Value> =
        entry.get("known_roots").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(root) = root {
        entry.entry("canonical_root").or_insert(json!(root));
        if !roots.contains(&json!(root)) {
            roots.push(json!(root));
        }
    }
    entry.insert("known_roots".into(), Value::Array(roots));
    entry.insert("first_commit_sha".into(), json!(first));
    entry.insert("origin_url".into(), json!(origin));
    registry.write(env)
}

/// Where a project lies, as the registry says.
pub(super) fn roots(context: &Context, place: &Place) -> Result<Vec<String>, Failure> {
    let id = place.project.as_ref().map(ToString::to_string);
    let known = projects(context)?.into_iter().find(|project| Some(&project.id) == id.as_ref());
    Ok(known.map(|project| project.known_roots).unwrap_or_default())
}

/// Takes a project out of the registry.
pub(super) fn forget(context: &Context, home: &Path, id: &str) -> Result<(), Failure> {
    let (env, path) = (&context.env, home.join("projects.json"));
    if env.fs.metadata(&path).is_err() {
        return Ok(());
    }
    let _alone = lock(env, &home.join(".registry.lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    let mut registry = Document::read(env, &path)?;
    if registry.section("projects")?.is_some_and(|projects| projects.contains_key(id)) {
        registry.section_mut("projects")?.shift_remove(id);
    }
    registry.write(env)
}

/// A URL without the name and password that may stand in it.
fn without_secret(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    match path {
        Some(path) => format!("{scheme}://{host}/{path}"),
        None => format!("{scheme}://{host}"),
    }
}

fn projects(context: &Context) -> Result<Vec<shapes::KnownProject>, Failure> {
    let Some(home) = &context.settings.home else { return Ok(Vec::new()) };
    let registry = Document::read(&context.env, &home.join("projects.json"))?;
    let mut by_id: BTreeMap<String, Value> = registry
        .section("projects")?
        .map(|projects| projects.iter().map(|(id, known)| (id.clone(), known.clone())).collect())
        .unwrap_or_default();
    let data = home.join("projects");
    for entry in context.env.fs.list(&data).unwrap_or_default().into_iter().filter(|entry| entry.is_dir) {
        // What `reset` has put out of sight is no project any more.
        let name = entry.name.to_string_lossy().into_owned();
        if !name.starts_with('.') {
            by_id.entry(name).or_insert_with(|| json!({}));
        }
    }
    let projects = by_id.into_iter().map(|(id, known)| {
        let text = |name: &str| known.get(name).and_then(Value::as_str).map(str::to_owned);
        let roots = known.get("known_roots").and_then(Value::as_array);
        let data_dir = data.join(&id);
        shapes::KnownProject {
            schema: shapes::PROJECTS,
            has_store: context.env.fs.metadata(&data_dir.join("store/format")).is_ok(),
            data_dir: data_dir.display().to_string(),
            canonical_root: text("canonical_root"),
            known_roots: roots.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
            origin_url: text("origin_url"),
            first_commit_sha: text("first_commit_sha"),
            created_at: text("created_at"),
            id,
        }
    });
    Ok(projects.collect())
}

fn print(context: &Context, is_whole: bool, project: &shapes::KnownProject) -> Result<(), Failure> {
    let ui = &context.ui;
    if ui.is_json() {
        ui.json(project)?;
        return Ok(());
    }
    let state = if project.has_store { "store" } else { "-" };
    let root = project.canonical_root.as_deref().unwrap_or("-");
    ui.line(format_args!("{}  {state:<5}  {}", ui.name(sanitize::line(&project.id)), sanitize::line(root)))?;
    if is_whole {
        ui.line(format_args!("data     {}", sanitize::line(&project.data_dir)))?;
        for root in &project.known_roots {
            ui.line(format_args!("root     {}", sanitize::line(root)))?;
        }
        if let Some(origin) = &project.origin_url {
            ui.line(format_args!("origin   {}", sanitize::line(origin)))?;
        }
    }
    Ok(())
}
