//! From an agent's tool call to what it changed, line by line, and to the trace record that says so.
//!
//! ```text
//! ToolEdit ─► resolve: the file before and after, as far as known ─► hunks ─► trace record ─► hunks again, for attribution
//! ```
//!
//! Whole lines of the file count, not the fragments that a tool was given, so that an edit within a line is the line's.
//! What cannot be known is left out: a trace without ranges says that a file was touched, and no more. Knows no agent's
//! payloads, no spool, no git.

pub(crate) mod diff;
pub(crate) mod gist;
pub(crate) mod hunk;
pub(crate) mod line;
mod resolve;
pub(crate) mod trace;

use std::path::PathBuf;

use agent_trace_store::Timestamp;

pub(crate) use resolve::{apply, resolve};

/// What a tool call did to one file, as its agent tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolEdit {
    /// The file as given: absolute, or relative to the working directory of the agent.
    pub(crate) path: PathBuf,
    /// What was done.
    pub(crate) change: Change,
    /// The whole file before, where known.
    pub(crate) before: Option<Vec<u8>>,
    /// The whole file after, where known.
    pub(crate) after: Option<Vec<u8>>,
}

/// What was done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// All of it was written.
    Write(Vec<u8>),
    /// Texts gave way to others, in this order.
    Replace(Vec<Replacement>),
    /// Hunks of a patch were applied.
    Patch(Vec<PatchHunk>),
    /// The source of a notebook's cell was written.
    Cell {
        /// The cell's id.
        cell: Option<String>,
        /// Its new source.
        new: Vec<u8>,
    },
    /// The file was removed.
    Delete,
}

/// One text that gives way to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replacement {
    /// What goes.
    pub(crate) old: Vec<u8>,
    /// What comes.
    pub(crate) new: Vec<u8>,
    /// Whether it goes wherever it stands, or only where it stands first.
    pub(crate) all: bool,
}

/// One hunk of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PatchHunk {
    /// The first line that it speaks of, 0-based, where it says so.
    pub(crate) old_start: Option<usize>,
    /// Its lines, without line ends.
    pub(crate) lines: Vec<(PatchSide, Vec<u8>)>,
}

/// On which side of a patch a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchSide {
    /// On both.
    Context,
    /// Only before.
    Removed,
    /// Only after.
    Added,
}

/// Who made an edit, when, and in which conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// The agent: `claude-code`, `codex`, `cursor`, `gemini-cli`, `copilot-cli`, `opencode`, `windsurf`.
    pub(crate) agent: String,
    /// Its version, where it says so.
    pub(crate) agent_version: Option<String>,
    /// The model as the agent names it.
    pub(crate) model: Option<String>,
    /// The agent's id of the session.
    pub(crate) session: String,
    /// Our key for the transcripts of the session.
    pub(crate) conversation: String,
    /// The tool's name.
    pub(crate) tool: String,
    /// The agent's id of the call.
    pub(crate) tool_use: Option<String>,
    /// What it was told to do, where it has no id.
    pub(crate) gist: Option<String>,
    /// The event that told of it.
    pub(crate) event: String,
    /// When it was.
    pub(crate) time: Timestamp,
    /// Its number among the edits of the session.
    pub(crate) sequence: u64,
    /// The commit that was checked out.
    pub(crate) revision: Option<String>,
    /// The branch that was checked out.
    pub(crate) branch: Option<String>,
    /// How long the transcript was by then.
    pub(crate) transcript_bytes: Option<u64>,
    /// The sub-agent that made it.
    pub(crate) agent_id: Option<String>,
    /// The project.
    pub(crate) project: Option<String>,
}
