//! What each agent writes into its sessions: which calls of tools have changed files, and what they changed.
//!
//! A call counts where its result is there and is no failure. It is told to the adapters of capture in the form of a
//! hook's payload, so that one call comes to one trace, however it became known.

mod claude;
mod codex;
mod copilot;
mod cursor;
mod gemini;
pub(super) mod opencode;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use agent_trace_store::Timestamp;

use crate::capture::adapters::{self, Agent};
use crate::capture::payload::Object;
use crate::edit::ToolEdit;

/// Calls that wait for their results; with more of them all are forgotten.
const PENDING_MAX: usize = 4096;

/// A call that has done what it should.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub(super) tool: String,
    pub(super) tool_use: Option<String>,
    /// What stands for the call where it has no id.
    pub(super) payload: Vec<u8>,
    pub(super) session: Option<String>,
    pub(super) model: Option<String>,
    pub(super) version: Option<String>,
    pub(super) time: Option<Timestamp>,
    pub(super) branch: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) folder: Option<PathBuf>,
    pub(super) agent_id: Option<String>,
    pub(super) edits: Vec<ToolEdit>,
    /// How long the transcript was with the result.
    pub(super) bytes: Option<u64>,
}

/// What a line says.
#[derive(Default)]
pub(super) struct Told {
    pub(super) done: Vec<Done>,
    /// Calls that have failed or were refused.
    pub(super) failed: u64,
    /// Lines that looked like calls and could not be read.
    pub(super) broken: u64,
}

/// Calls that wait for their results, by their ids.
struct Pending<T>(HashMap<String, T>);

impl<T> Default for Pending<T> {
    fn default() -> Pending<T> {
        Pending(HashMap::new())
    }
}

impl<T> Pending<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    fn begin(&mut self, id: String, call: T) {
        if self.0.len() >= PENDING_MAX {
            self.0.clear();
        }
        self.0.insert(id, call);
    }

    fn end(&mut self, id: &str) -> Option<T> {
        self.0.remove(id)
    }
}

/// Reads a session from front to back.
pub(super) enum Reader {
    Claude(claude::Reader),
    Codex(codex::Reader),
    Copilot(copilot::Reader),
    Cursor(cursor::Reader),
    /// Its file is one value, or has one on each line.
    Gemini(gemini::Reader),
    /// There is nothing to be read from lines.
    None,
}

impl Reader {
    /// The reader for an agent.
    pub(super) fn of(agent: Agent) -> Reader {
        match agent {
            Agent::Claude => Reader::Claude(claude::Reader::default()),
            Agent::Codex => Reader::Codex(codex::Reader::default()),
            Agent::Copilot => Reader::Copilot(copilot::Reader::default()),
            Agent::Cursor => Reader::Cursor(cursor::Reader::default()),
            Agent::Gemini => Reader::Gemini(gemini::Reader::default()),
            Agent::OpenCode | Agent::Windsurf => Reader::None,
        }
    }

    /// Whether the file is one value over many lines.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Reader::Gemini(_))
    }

    /// Takes a line; `bytes` is how far the file is read with it.
    pub(super) fn line(&mut self, line: &[u8], bytes: u64, told: &mut Told) {
        match self {
            Reader::Claude(reader) => reader.line(line, bytes, told),
            Reader::Codex(reader) => reader.line(line, bytes, told),
            Reader::Copilot(reader) => reader.line(line, bytes, told),
            Reader::Cursor(reader) => reader.line(line, told),
            Reader::Gemini(reader) => reader.line(line, told),
            Reader::None => {}
        }
    }
}

/// A line as text, if it is one.
fn text(line: &[u8]) -> Option<Cow<'_, str>> {
    std::str::from_utf8(line).ok().map(Cow::Borrowed)
}

/// The edits of a call, as its adapter reads them: `input` and `response` are JSON.
fn edits(agent: Agent, tool: &str, input: &str, response: Option<&str>) -> Vec<ToolEdit> {
    let tool = serde_json::to_string(tool).unwrap_or_default();
    let event = if agent == Agent::Gemini { "AfterTool" } else { "PostToolUse" };
    let name = if agent == Agent::OpenCode { "output" } else { "tool_response" };
    let mut payload = String::with_capacity(input.len() + response.map_or(0, str::len) + tool.len() + 128);
    payload.push_str("{\"hook_event_name\":\"");
    payload.push_str(event);
    payload.push_str("\",\"session_id\":\"s\",\"tool_name\":");
    payload.push_str(&tool);
    payload.push_str(",\"tool_input\":");
    payload.push_str(input);
    if let Some(response) = response {
        payload.push_str(",\"");
        payload.push_str(name);
        payload.push_str("\":");
        payload.push_str(response);
    }
    payload.push('}');
    let object = Object::read(&payload);
    adapters::read(&object, agent.name(), event).map(|event| event.edits).unwrap_or_default()
}

/// A time under a name.
fn time(object: &Object<'_>, name: &str) -> Option<Timestamp> {
    object.text(name).and_then(|text| Timestamp::parse(&text)).or_else(|| {
        let millis: i64 = object.number(name)?.parse().ok()?;
        Some(Timestamp::from_micros(millis.saturating_mul(1_000)))
    })
}
