//! Notes of commits that have just been linked: what goes into them by the project's settings, made and put on.
//!
//! By themselves notes are made only where the project says so (`notes.enabled`, as agent-trace-cli writes it into its
//! settings), and then a note that is there is joined with what is new, never replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use agent_trace_store::{Result, Store};
use serde_json::{Map, Value};

use super::NOTES;
use super::payload::{self, Include, Told};
use super::tree::{self, Notes};
use crate::blame::prompts::Conversations;
use crate::blame::traces;
use crate::git::process::Git;
use crate::link::Linked;
use crate::link::known::Known;
use crate::link::ledger::Ledger;
use crate::transcript::short;

/// The project's settings, below its data.
const CONFIG: &str = "project-config.json";
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Prompts in one note, and how much of each.
const PROMPTS_MAX: usize = 32;
const PROMPT_CHARS: usize = 500;

/// What the settings of a project say of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoteSettings {
    /// Whether a commit gets its note when it is linked.
    pub(crate) enabled: bool,
    /// Whether notes are sent after a push of the user's.
    pub(crate) push: bool,
    /// What notes say.
    pub(crate) include: Include,
}

impl NoteSettings {
    /// Reads the section `notes`; what is not set is off, but for summaries.
    pub(crate) fn of(section: Option<&Map<String, Value>>) -> NoteSettings {
        let set = |name: &str, default: bool| {
            section.and_then(|section| section.get(name)).and_then(Value::as_bool).unwrap_or(default)
        };
        NoteSettings {
            enabled: set("enabled", false),
            push: set("push", false),
            include: Include {
                ledger: set("include_ledger", false),
                summary: set("include_summary", true),
                prompts: set("include_prompts", false),
                conversations: set("all_session_conversations", false),
            },
        }
    }

    /// The same for the data of a project; settings that cannot be read say nothing.
    pub(crate) fn read(env: &Env, data: &Path) -> NoteSettings {
        let bytes = read_small(env, &data.join(CONFIG), CONFIG_BYTES_MAX).unwrap_or_default();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        NoteSettings::of(value.get("notes").and_then(Value::as_object))
    }
}

/// What becomes of a note that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// It gives way.
    Replace,
    /// It is joined with the new one.
    Join,
}

/// Makes the notes of commits that hold lines of an agent, and puts them on; how many have changed.
///
/// The ledgers must be in the store and its index.
pub(crate) fn attach<'l>(
    store: &Store,
    git: &Git,
    linked: impl IntoIterator<Item = &'l Linked>,
    include: Include,
    present: Present,
) -> Result<u64> {
    let mut made: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut known = Known::of(store)?;
    let snapshot = known.snapshot().clone();
    let mut conversations = Conversations::new(store, &snapshot);
    for one in linked.into_iter().filter(|one| one.lines > 0) {
        let Some(ledger) = known.ledger(&one.commit)? else { continue };
        let told = told(store, &mut conversations, &ledger, include)?;
        let note = payload::encode(&ledger, &ledger.encode()?, one.added, &told, include);
        made.insert(one.commit.clone(), note);
    }
    if made.is_empty() {
        return Ok(0);
    }
    let mut changed = 0;
    tree::update(store.env(), git, NOTES, None, "Notes of agent-trace", &mut |notes, objects| {
        let mut changes = BTreeMap::new();
        for (commit, note) in &made {
            let there = notes.note(objects, commit)?;
            let new = match (&there, present) {
                (Some(there), Present::Join) => payload::merge(there, note),
                _ => note.clone(),
            };
            if there.as_ref() != Some(&new) {
                changes.insert(commit.clone(), new);
            }
        }
        changed = changes.len() as u64;
        Ok(changes)
    })?;
    Ok(changed)
}

/// The commits that have no note yet.
pub(crate) fn without_note(git: &Git, ids: &mut Vec<String>) -> Result<()> {
    let notes = Notes::read(git, NOTES)?;
    ids.retain(|id| !notes.entries.contains_key(id));
    Ok(())
}

/// What is known of the conversations that a ledger names.
fn told(
    store: &Store,
    conversations: &mut Conversations<'_>,
    ledger: &Ledger,
    include: Include,
) -> Result<BTreeMap<String, Told>> {
    let runs = || ledger.files.values().flat_map(|file| &file.line_attributions);
    let mut all: BTreeMap<String, Told> =
        runs().filter_map(|run| run.conversation_id.clone()).map(|id| (id, Told::default())).collect();
    for (id, told) in &mut all {
        told.summary = conversations.summary(id)?;
    }
    if !include.prompts {
        return Ok(all);
    }
    let calls: BTreeSet<(&str, &str)> =
        runs().filter_map(|run| Some((run.trace_id.as_deref()?, run.conversation_id.as_deref()?))).collect();
    let ids: Vec<&str> = calls.iter().map(|(trace, _)| *trace).collect();
    let facts = traces::read(store, conversations.snapshot(), &ids)?;
    let mut calls: Vec<_> =
        calls.iter().filter_map(|(trace, id)| Some((facts.get(*trace)?, *trace, *id))).collect();
    calls.sort_by_key(|(facts, trace, _)| (facts.time, *trace));
    let mut count = 0;
    for (facts, _, id) in calls {
        let Some(said) = conversations.said(facts, Some(id))? else { continue };
        let Some(prompt) = said.prompt().map(|prompt| short(prompt, PROMPT_CHARS)) else { continue };
        let prompts = &mut all.entry(id.to_owned()).or_default().prompts;
        if count < PROMPTS_MAX && !prompts.contains(&prompt) {
            prompts.push(prompt);
            count += 1;
        }
    }
    Ok(all)
}
