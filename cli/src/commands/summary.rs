//! `summary`: how summaries of conversations are made, making one, and showing them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use agent_trace_store::env::LockMode;
use agent_trace_store::intake::Intake;
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Store, json as canonical, record};
use serde_json::{Map, Value, json};

use super::Context;
use crate::args;
use crate::blame::prompts::Conversations;
use crate::bodies::{self, Network};
use crate::document::Document;
use crate::git::commits;
use crate::git::process::Git;
use crate::json as shapes;
use crate::link::known::Known;
use crate::project::Place;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::summarize::{self, Maker, PRESETS};

pub(super) fn run(context: &Context, args: &args::Summary) -> Result<Done, Failure> {
    match args {
        args::Summary::Presets => {
            for preset in &PRESETS {
                context.ui.line(format_args!("{:<16} {}", preset.name, preset.command(None)?))?;
            }
            Ok(Done::Well)
        }
        args::Summary::Enable(args) => set(context, Some(&args.command), args.timeout),
        args::Summary::Use(args) => {
            let command = summarize::preset(&args.preset)?.command(args.model.as_deref())?;
            set(context, Some(&command), args.timeout)
        }
        args::Summary::Disable => set(context, None, None),
        args::Summary::Generate(args) => generate(context, args),
        args::Summary::Show { of } => show(context, of.as_deref()),
    }
}

/// The project's settings, which lie below the home of agent-trace.
fn settings(place: &Place) -> PathBuf {
    place.data.join("project-config.json")
}

/// Changes how summaries are made.
fn set(context: &Context, command: Option<&str>, timeout: Option<u64>) -> Result<Done, Failure> {
    if command.is_some_and(|command| command.trim().is_empty()) || timeout == Some(0) {
        return Err(Error::invalid("expected a command that is not empty, and a time limit above 0").into());
    }
    let (place, store) = context.open()?;
    let path = settings(&place);
    {
        let lock_path = store.dir().join("remotes.lock");
        let _alone = lock(&context.env, &lock_path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        let mut document = Document::read(&context.env, &path)?;
        change(document.section_mut("summary")?, command, timeout);
        document.write(&context.env)?;
    }
    let maker = Maker::read(&context.env, &path)?;
    if context.ui.is_json() {
        context.ui.json(&document(&maker, Vec::new()))?;
        return Ok(Done::Well);
    }
    match &maker.command {
        Some(command) => context.ui.line(format_args!(
            "summaries are made by `{}`, in at most {} s",
            sanitize::line(command),
            maker.timeout_seconds
        ))?,
        None => context.ui.line("summaries are extracts: the first prompt and the last answer")?,
    }
    Ok(Done::Well)
}

fn change(section: &mut Map<String, Value>, command: Option<&str>, timeout: Option<u64>) {
    section.insert("enabled".into(), json!(command.is_some()));
    if let Some(command) = command {
        section.insert("command".into(), json!(command));
    }
    if let Some(timeout) = timeout {
        section.insert("timeout_seconds".into(), json!(timeout));
    }
}

fn document(maker: &Maker, summaries: Vec<shapes::SummaryOf>) -> shapes::Summary {
    shapes::Summary {
        schema: shapes::SUMMARY,
        command: maker.command.clone(),
        timeout_seconds: maker.timeout_seconds,
        summaries,
    }
}

/// Makes a summary and stores it.
fn generate(context: &Context, args: &args::SummaryGenerate) -> Result<Done, Failure> {
    let (place, store) = context.open()?;
    let maker = Maker::read(&context.env, &settings(&place))?;
    let snapshot = store.snapshot()?;
    let fetch = |id: &ObjectId| {
        bodies::ensure(context, &place, &store, &[*id], Network::IfNeeded).map_err(|failure| failure.error)
    };
    let mut conversations = Conversations::new(&store, &snapshot).fetching(&fetch);
    let found = conversations.held(args.conversation.as_deref(), args.session_id.as_deref())?;
    let Some(held) = found.first() else {
        let name = args.conversation.as_ref().or(args.session_id.as_ref()).map_or("", String::as_str);
        let message = format!("there is no transcript of `{}`", sanitize::line(name));
        return Err(Failure::new(ErrorKind::NotFound, message, "agent-trace log --kind transcript"));
    };
    let transcript = conversations.read(held)?;
    let text = maker.make(store.read(&held.body)?, &transcript.turns)?;
    if text.is_empty() {
        let message = "there is nothing to summarise: no prompt and no answer was found in the transcript";
        return Err(Error::new(ErrorKind::Failed, message).into());
    }
    let conversation = held.record.conversation_id.clone();
    write(&store, &conversation, held.record.session_id.as_deref(), &text)?;
    if context.ui.is_json() {
        let summary = shapes::SummaryOf { conversation_id: conversation, summary: Some(text) };
        context.ui.json(&document(&maker, vec![summary]))?;
    } else {
        context.ui.line(sanitize::block(&text))?;
    }
    Ok(Done::Well)
}

fn write(store: &Store, conversation: &str, session: Option<&str>, text: &str) -> Result<(), Failure> {
    let now = store.env().clock.now();
    let mut summary =
        json!({"conversation_id": conversation, "created_at": now.to_string(), "summary": text});
    if let Some(session) = session {
        summary["session_id"] = json!(session);
    }
    let mut bytes = Vec::new();
    canonical::canonicalize(summary.to_string().as_bytes(), &mut bytes)
        .map_err(|error| Error::invalid("cannot write a summary").with_source(error.to_string()))?;
    let facts = record::facts(Kind::SUMMARY, &bytes)?;
    let mut intake = Intake::new(store);
    intake.record(Kind::SUMMARY, &bytes, &facts, now, &[])?;
    intake.append()?;
    store.catch_up()?;
    Ok(())
}

/// Shows the summaries of a commit's conversations, or of one.
fn show(context: &Context, of: Option<&str>) -> Result<Done, Failure> {
    let (place, store) = context.open()?;
    let maker = Maker::read(&context.env, &settings(&place))?;
    let mut known = Known::of(&store)?;
    let commit = commits::resolve(&Git::from(&context.settings.directory), of.unwrap_or("HEAD"));
    let ledger = match &commit {
        Ok(commit) => known.ledger(commit)?,
        Err(_) => None,
    };
    let ids: BTreeSet<String> = match (commit, of) {
        (Ok(_), _) => ledger
            .iter()
            .flat_map(|ledger| ledger.files.values())
            .flat_map(|file| &file.line_attributions)
            .filter_map(|run| run.conversation_id.clone())
            .collect(),
        (Err(_), Some(conversation)) => BTreeSet::from([conversation.to_owned()]),
        (Err(error), None) => return Err(error.into()),
    };
    let mut conversations = Conversations::new(&store, known.snapshot());
    let mut summaries = Vec::new();
    for id in ids {
        let summary = conversations.summary(&id)?;
        summaries.push(shapes::SummaryOf { conversation_id: id, summary });
    }
    if context.ui.is_json() {
        context.ui.json(&document(&maker, summaries))?;
        return Ok(Done::Well);
    }
    let mut is_any = false;
    for one in &summaries {
        let Some(summary) = &one.summary else { continue };
        is_any = true;
        context.ui.line(format_args!("{}", context.ui.name(sanitize::line(&one.conversation_id))))?;
        context.ui.line(sanitize::block(summary))?;
    }
    if !is_any {
        context.ui.note("there is no summary of it");
        context.ui.hint("agent-trace summary generate --conversation ID");
    }
    Ok(Done::Well)
}
