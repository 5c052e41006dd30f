//! What a commit holds of agents' work, for `show`: files, lines by agent, traces and what they were asked for.

use std::collections::{BTreeMap, BTreeSet};

use agent_trace_store::Store;
use agent_trace_store::store::Snapshot;

use super::{Context, zone};
use crate::blame::prompts::Conversations;
use crate::blame::traces;
use crate::json;
use crate::link::ledger::{Attribution, Ledger};
use crate::report::Failure;
use crate::sanitize;
use crate::time;
use crate::transcript::short;
use crate::ui;

/// Traces whose prompts are looked up.
const PROMPTS_MAX: usize = 32;
const PROMPT_CHARS: usize = 200;

/// Sums a ledger up.
pub(super) fn describe(
    store: &Store,
    snapshot: &Snapshot,
    ledger: &Ledger,
) -> Result<json::CommitSummary, Failure> {
    let runs = ledger.files.values().flat_map(|file| &file.line_attributions);
    let ids: BTreeSet<&str> = runs.filter_map(|run| run.trace_id.as_deref()).collect();
    let facts = traces::read(store, snapshot, &ids.iter().copied().collect::<Vec<_>>())?;
    let agent_of = |run: &Attribution| {
        let facts = run.trace_id.as_ref().and_then(|trace| facts.get(trace));
        facts.map_or_else(|| "unknown".to_owned(), |facts| facts.agent.clone())
    };
    let (mut agents, mut files) = (BTreeMap::new(), Vec::new());
    let mut by_trace: BTreeMap<&str, (u64, &Attribution)> = BTreeMap::new();
    for (path, file) in &ledger.files {
        let mut lines = 0;
        for run in &file.line_attributions {
            let count = run.lines();
            lines += count;
            *agents.entry(agent_of(run)).or_default() += count;
            if let Some(trace) = run.trace_id.as_deref() {
                by_trace.entry(trace).or_insert((0, run)).0 += count;
            }
        }
        files.push(json::CommitFile { path: path.clone(), lines });
    }
    let mut conversations = Conversations::new(store, snapshot);
    let mut told = Vec::new();
    for (number, (trace, (lines, run))) in by_trace.into_iter().enumerate() {
        let facts = facts.get(trace);
        let said = match facts.filter(|_| number < PROMPTS_MAX) {
            Some(facts) => conversations.said(facts, run.conversation_id.as_deref())?,
            None => None,
        };
        told.push(json::CommitTrace {
            trace_id: trace.to_owned(),
            lines,
            agent: facts.map(|facts| facts.agent.clone()),
            model_id: run.model_id.clone(),
            session_id: facts.and_then(|facts| facts.session.clone()),
            timestamp: facts.map(|facts| facts.timestamp.clone()),
            prompt: said.and_then(|said| said.prompt().map(|prompt| short(prompt, PROMPT_CHARS))),
        });
    }
    told.sort_by(|one, two| (&one.timestamp, &one.trace_id).cmp(&(&two.timestamp, &two.trace_id)));
    Ok(json::CommitSummary {
        commit_sha: ledger.commit_sha.clone(),
        lines: ledger.lines(),
        files,
        agents,
        traces: told,
    })
}

/// Prints it for people.
pub(super) fn print(context: &Context, commit: &json::CommitSummary) -> Result<(), Failure> {
    let ui = &context.ui;
    ui.line(format_args!("{} {}", ui.strong("commit"), ui.name(sanitize::line(&commit.commit_sha))))?;
    let agents: Vec<String> = commit
        .agents
        .iter()
        .map(|(agent, lines)| format!("{} of {}", ui::number(*lines), sanitize::line(agent)))
        .collect();
    ui.line(format_args!("lines    {} of agents: {}", ui::number(commit.lines), agents.join(", ")))?;
    for file in &commit.files {
        ui.line(format_args!("  {:>7}  {}", ui::number(file.lines), sanitize::line(&file.path)))?;
    }
    for trace in &commit.traces {
        let who = [&trace.agent, &trace.model_id, &trace.session_id];
        let who: Vec<&str> = who.into_iter().flatten().map(String::as_str).collect();
        let when = trace.timestamp.as_deref().and_then(agent_trace_store::Timestamp::parse);
        let when = when.map(|when| time::show(when, &zone())).unwrap_or_default();
        ui.line(format_args!(
            "trace    {}  {}  {} lines  {}",
            ui.name(sanitize::line(&trace.trace_id)),
            ui.faint(when),
            ui::number(trace.lines),
            ui.agent(sanitize::line(&who.join(", ")))
        ))?;
        if let Some(prompt) = &trace.prompt {
            ui.line(format_args!("         {} {}", ui.faint("asked:"), sanitize::line(prompt)))?;
        }
    }
    ui.line("")?;
    Ok(())
}
