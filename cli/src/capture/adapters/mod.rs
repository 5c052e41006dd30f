//! What each agent means by its payloads: whose it is, which session and call, and what was done to which files.
//!
//! An agent is recognised by its payload, not by the hook through which it came: Cursor and VS Code run the hooks of
//! Claude Code too. What the hook's installer said decides only where the payload leaves it open. Events and members
//! that are not known here are passed over; the entry keeps them until it is absorbed. Reads no files.

mod claude;
mod codex;
mod copilot;
mod cursor;
mod gemini;
mod opencode;
mod patch;
mod tools;
mod windsurf;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::payload::{self, INPUTS, Moment, Object};
use crate::edit::ToolEdit;

pub(crate) use patch::parse as parse_patch;

/// The agents whose payloads are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Agent {
    Claude,
    Codex,
    Cursor,
    Gemini,
    Copilot,
    OpenCode,
    Windsurf,
}

impl Agent {
    /// All of them; those that are told by what only they send stand first.
    pub(crate) const ALL: [Agent; 7] = [
        Agent::Cursor,
        Agent::Windsurf,
        Agent::OpenCode,
        Agent::Gemini,
        Agent::Copilot,
        Agent::Codex,
        Agent::Claude,
    ];

    /// Its name in records and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Agent::Claude => "claude-code",
            Agent::Codex => "codex",
            Agent::Cursor => "cursor",
            Agent::Gemini => "gemini-cli",
            Agent::Copilot => "copilot-cli",
            Agent::OpenCode => "opencode",
            Agent::Windsurf => "windsurf",
        }
    }

    /// Its name with transcripts, the same as `import` gives them.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Agent::Claude => "Claude Code",
            Agent::Codex => "Codex",
            Agent::Cursor => "Cursor",
            Agent::Gemini => "Gemini CLI",
            Agent::Copilot => "Copilot CLI",
            Agent::OpenCode => "OpenCode",
            Agent::Windsurf => "Windsurf",
        }
    }

    /// The agent of a name, or of its beginning: `claude`, `gemini`, `copilot`.
    pub(crate) fn named(name: &str) -> Option<Agent> {
        let name = payload::plain(name);
        let found = Agent::ALL.into_iter().find(|agent| payload::plain(agent.name()) == name);
        found.or_else(|| {
            let mut fitting = Agent::ALL.into_iter();
            fitting.find(|agent| !name.is_empty() && payload::plain(agent.name()).starts_with(&name))
        })
    }

    /// The agent of a label.
    pub(crate) fn labelled(label: &str) -> Option<Agent> {
        Agent::ALL.into_iter().find(|agent| agent.label() == label)
    }

    /// Whether only this agent sends such a payload.
    fn is_known_by(self, object: &Object<'_>) -> bool {
        match self {
            Agent::Claude => claude::is_known_by(object),
            Agent::Codex => codex::is_known_by(object),
            Agent::Cursor => cursor::is_known_by(object),
            Agent::Gemini => gemini::is_known_by(object),
            Agent::Copilot => copilot::is_known_by(object),
            Agent::OpenCode => opencode::is_known_by(object),
            Agent::Windsurf => windsurf::is_known_by(object),
        }
    }

    /// Whose payload this is.
    pub(crate) fn of(object: &Object<'_>, said: &str) -> Option<Agent> {
        let known = Agent::ALL.into_iter().find(|agent| agent.is_known_by(object));
        known.or_else(|| Agent::named(said)).or_else(|| {
            // The form that others have copied.
            (object.has("hookeventname") && object.has("sessionid")).then_some(Agent::Claude)
        })
    }
}

/// An event of an agent, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) agent: Agent,
    pub(crate) agent_version: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) session: Option<String>,
    /// The event's name as the agent gives it.
    pub(crate) name: String,
    pub(crate) moment: Moment,
    pub(crate) tool: Option<String>,
    pub(crate) tool_use: Option<String>,
    /// The sub-agent.
    pub(crate) agent_id: Option<String>,
    /// What was done, as the payload tells it; paths as given.
    pub(crate) edits: Vec<ToolEdit>,
    /// Whether another event of the agent tells of the same edits, and better.
    pub(crate) is_second_telling: bool,
}

/// Reads an event; nothing where nobody knows whose it is.
pub(crate) fn read(object: &Object<'_>, said: &str, event: &str) -> Option<Event> {
    let agent = Agent::of(object, said)?;
    let name = payload::event_name(object, event);
    let moment = payload::moment(&name);
    let mut read = Event {
        agent,
        agent_version: None,
        model: object.first(&["model", "modelname"]).filter(|model| model != "default"),
        session: object.first(&["sessionid", "threadid", "conversationid"]),
        moment,
        tool: payload::tool_name(object),
        tool_use: object.first(&["tooluseid", "toolcallid", "callid"]),
        agent_id: object.text("agentid"),
        edits: Vec::new(),
        is_second_telling: false,
        name,
    };
    match agent {
        Agent::Claude => claude::read(object, &mut read),
        Agent::Codex => codex::read(object, &mut read),
        Agent::Cursor => cursor::read(object, &mut read),
        Agent::Gemini => gemini::read(object, &mut read),
        Agent::Copilot => copilot::read(object, &mut read),
        Agent::OpenCode => opencode::read(object, &mut read),
        Agent::Windsurf => windsurf::read(object, &mut read),
    }
    // A call without a path is about no file.
    read.edits.retain(|edit| !edit.path.as_os_str().is_empty());
    Some(read)
}

/// What a tool was given, and what it did by its own account.
struct ToolCall<'o, 'a> {
    object: &'o Object<'a>,
    tool: String,
}

impl<'o, 'a> ToolCall<'o, 'a> {
    /// The call of an event after which files may have changed.
    fn done(object: &'o Object<'a>, event: &Event) -> Option<ToolCall<'o, 'a>> {
        let tool = event.tool.clone().filter(|tool| payload::is_writing(tool))?;
        (event.moment == Moment::After).then_some(ToolCall { object, tool })
    }

    /// The edits that its input describes.
    fn edits(&self) -> Vec<ToolEdit> {
        for name in INPUTS {
            if let Some(nested) = self.object.nested(name) {
                return tools::edits(&self.tool, &Object::read(&nested));
            }
            if let Some(patch) = self.object.text(name).filter(|text| text.contains("*** Begin Patch")) {
                return parse_patch(&patch);
            }
        }
        Vec::new()
    }
}

/// Whether a path of the payload lies below one of these directories.
fn transcript_has(object: &Object<'_>, parts: &[&str]) -> bool {
    let path = object.text("transcriptpath").unwrap_or_default();
    parts.iter().any(|part| path.contains(part))
}

/// A path as a payload gives it.
fn path(text: &str) -> PathBuf {
    PathBuf::from(text.strip_prefix("file://").unwrap_or(text))
}
