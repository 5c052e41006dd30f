//! Claude Code: one message on each line; the result of a tool says what the file held before.
//!
//! Most lines are passed over without being parsed. What a sub-agent does may stand in the session itself too, as
//! progress, without what the tool says of the file.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

use super::{Done, Pending, Told, edits, text, time};
use crate::capture::adapters::Agent;
use crate::capture::payload::{self, Object};

static TOOL_USE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"tool_use\""));
static RESULT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"tool_use_id\""));
/// Names of tools that write end so, and few others do.
static WRITES: [LazyLock<Finder<'static>>; 2] =
    [LazyLock::new(|| Finder::new(b"Edit\"")), LazyLock::new(|| Finder::new(b"Write\""))];

/// A call that waits for its result.
struct Begun {
    tool: String,
    input: String,
    model: Option<String>,
}

/// Reads a session.
#[derive(Default)]
pub(in super::super) struct Reader {
    pending: Pending<Begun>,
}

impl Reader {
    pub(super) fn line(&mut self, line: &[u8], bytes: u64, told: &mut Told) {
        let is_result = !self.pending.is_empty() && self.is_awaited(line);
        if !is_result && !is_call(line) {
            return;
        }
        let Some(text) = text(line) else {
            told.broken += 1;
            return;
        };
        let object = Object::read(&text);
        if !object.is_complete {
            told.broken += 1;
        }
        match object.nested("data").filter(|_| object.text("type").as_deref() == Some("progress")) {
            Some(data) => {
                let data = Object::read(&data);
                let Some(inner) = data.nested("message") else { return };
                let agent_id = data.text("agentid");
                self.message(&object, &Object::read(&inner), agent_id, bytes, told);
            }
            None => self.message(&object, &object, object.text("agentid"), bytes, told),
        }
    }

    /// Whether a line holds the result of a call that waits.
    fn is_awaited(&self, line: &[u8]) -> bool {
        RESULT.find_iter(line).any(|at| {
            let rest = line[at + 13..].trim_ascii_start();
            let Some(rest) = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start) else { return false };
            let Some(rest) = rest.strip_prefix(b"\"") else { return false };
            let end = memchr::memchr(b'"', rest).unwrap_or(0);
            std::str::from_utf8(&rest[..end]).is_ok_and(|id| self.pending.has(id))
        })
    }

    /// A message: calls, or results of calls. `outer` is the line in which it stands.
    fn message(
        &mut self,
        outer: &Object<'_>,
        line: &Object<'_>,
        agent_id: Option<String>,
        bytes: u64,
        told: &mut Told,
    ) {
        let Some(message) = line.nested("message") else { return };
        let message = Object::read(&message);
        for item in message.items("content") {
            let item = Object::read(item.get());
            match item.text("type").as_deref() {
                Some("tool_use") => self.call(&message, &item),
                Some("tool_result") => {
                    let Some(id) = item.text("tooluseid") else { continue };
                    let Some(pending) = self.pending.end(&id) else { continue };
                    let response = line.raw("tooluseresult").map(|value| value.get());
                    // A failure is told as text.
                    if item.flag("iserror") || response.is_some_and(|response| response.starts_with('"')) {
                        told.failed += 1;
                        continue;
                    }
                    told.done.push(Done {
                        edits: edits(Agent::Claude, &pending.tool, &pending.input, response),
                        tool: pending.tool,
                        tool_use: Some(id),
                        payload: Vec::new(),
                        session: outer.text("sessionid"),
                        model: pending.model,
                        version: outer.text("version"),
                        time: time(line, "timestamp").or_else(|| time(outer, "timestamp")),
                        branch: outer.text("gitbranch").filter(|branch| branch != "HEAD"),
                        revision: None,
                        folder: outer.text("cwd").map(Into::into),
                        agent_id: agent_id.clone(),
                        bytes: Some(bytes),
                    });
                }
                _ => {}
            }
        }
    }

    fn call(&mut self, message: &Object<'_>, item: &Object<'_>) {
        let (Some(id), Some(tool)) = (item.text("id"), item.text("name")) else { return };
        let Some(input) = item.raw("input").filter(|_| payload::is_writing(&tool)) else { return };
        let model = message.text("model").filter(|model| model != "<synthetic>");
        self.pending.begin(id, Begun { tool, input: input.get().to_owned(), model });
    }
}

/// Whether a line holds a call of a tool that writes, as far as its letters show.
fn is_call(line: &[u8]) -> bool {
    // The beginning of a long result is no call, and it need not be searched to its end.
    if memmem::find(&line[..line.len().min(2048)], b"\"tool_result\"").is_some() {
        return false;
    }
    TOOL_USE.find(line).is_some() && WRITES.iter().any(|finder| finder.find(line).is_some())
}
