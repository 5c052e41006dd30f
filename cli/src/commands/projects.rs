//! `projects`: the projects that have data on this machine, as their folders and agent-trace-cli's registry say.

use std::collections::BTreeMap;

use agent_trace_store::ErrorKind;
use serde_json::{Value, json};

use super::Context;
use crate::args;
use crate::document::Document;
use crate::json as shapes;
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

fn projects(context: &Context) -> Result<Vec<shapes::KnownProject>, Failure> {
    let Some(home) = &context.settings.home else { return Ok(Vec::new()) };
    let registry = Document::read(&context.env, &home.join("projects.json"))?;
    let mut by_id: BTreeMap<String, Value> = registry
        .section("projects")?
        .map(|projects| projects.iter().map(|(id, known)| (id.clone(), known.clone())).collect())
        .unwrap_or_default();
    let data = home.join("projects");
    for entry in context.env.fs.list(&data).unwrap_or_default().into_iter().filter(|entry| entry.is_dir) {
        by_id.entry(entry.name.to_string_lossy().into_owned()).or_insert_with(|| json!({}));
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
