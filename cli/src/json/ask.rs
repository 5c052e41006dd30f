//! What `blame`, `context`, `search` and those that go with them print. The members of agent-trace-cli 0.1.3 keep their names; ours stand after.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) const BLAME: &str = "agent-trace/blame/1";
pub(crate) const CONTEXT: &str = "agent-trace/context/1";
pub(crate) const SEARCH: &str = "agent-trace/search/1";
pub(crate) const CONFIG: &str = "agent-trace/config/1";
pub(crate) const RESET: &str = "agent-trace/reset/1";
pub(crate) const PROJECTS: &str = "agent-trace/projects/1";
pub(crate) const RULE: &str = "agent-trace/rule/1";
pub(crate) const SUMMARY: &str = "agent-trace/summary/1";

/// `blame`
#[derive(Serialize)]
pub(crate) struct Blame<'a> {
    pub(crate) schema: &'static str,
    pub(crate) file: &'a str,
    pub(crate) revision: Option<&'a str>,
    pub(crate) attributions: Vec<BlameRun<'a>>,
    /// Lines that were looked at, and how many of them are an agent's.
    pub(crate) lines: u64,
    pub(crate) lines_ai: u64,
}

/// Lines of one trace and one commit.
#[derive(Default, Serialize)]
pub(crate) struct BlameRun<'a> {
    pub(crate) start_line: u64,
    pub(crate) end_line: u64,
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contributor_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<BlameTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit_sha: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation_summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation_preview: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) signals: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<&'static str>,
    pub(crate) attribution_label: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) evidence: Vec<BlameEvidence<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_use_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) how: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
    pub(crate) author: &'a str,
    /// Where the lines stand in their commit.
    pub(crate) original_path: String,
    pub(crate) original_line: u64,
}

/// The agent of a trace.
#[derive(Serialize)]
pub(crate) struct BlameTool<'a> {
    pub(crate) name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<&'a str>,
}

/// A line as it was attributed.
#[derive(Serialize)]
pub(crate) struct BlameEvidence<'a> {
    pub(crate) line: u64,
    pub(crate) hash: &'a str,
    pub(crate) content: String,
}

/// `context`
#[derive(Serialize)]
pub(crate) struct Context<'a> {
    pub(crate) schema: &'static str,
    pub(crate) file: &'a str,
    pub(crate) segments: Vec<Segment<'a>>,
}

/// Lines with one conversation behind them.
#[derive(Default, Serialize)]
pub(crate) struct Segment<'a> {
    pub(crate) start_line: u64,
    pub(crate) end_line: u64,
    pub(crate) attribution: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<&'a str>,
    /// What agent-trace-cli has there; it never said more.
    pub(crate) confidence: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<String>,
    pub(crate) conversation_size: Option<ConversationSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preview: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit_sha: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) how: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
    /// What was said around the edit, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) turns: Vec<SaidTurn>,
    /// Whether more was said than is here.
    pub(crate) cut: bool,
}

/// How long a conversation is.
#[derive(Serialize)]
pub(crate) struct ConversationSize {
    pub(crate) characters: u64,
    pub(crate) lines: u64,
    pub(crate) turns: u64,
}

/// Something that was said.
#[derive(Serialize)]
pub(crate) struct SaidTurn {
    pub(crate) role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_use_id: Option<String>,
    pub(crate) text: String,
    /// Whether the turn made the edit.
    pub(crate) edit: bool,
}

/// What a commit holds of agents' work.
#[derive(Serialize)]
pub(crate) struct CommitSummary {
    pub(crate) commit_sha: String,
    pub(crate) lines: u64,
    pub(crate) files: Vec<CommitFile>,
    pub(crate) agents: BTreeMap<String, u64>,
    pub(crate) traces: Vec<CommitTrace>,
}

/// A file of a commit.
#[derive(Serialize)]
pub(crate) struct CommitFile {
    pub(crate) path: String,
    pub(crate) lines: u64,
}

/// A trace of a commit.
#[derive(Serialize)]
pub(crate) struct CommitTrace {
    pub(crate) trace_id: String,
    pub(crate) lines: u64,
    pub(crate) agent: Option<String>,
    pub(crate) model_id: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) timestamp: Option<String>,
    pub(crate) prompt: Option<String>,
}

/// `search`: one line for each place.
#[derive(Serialize)]
pub(crate) struct SearchHit<'a> {
    pub(crate) schema: &'static str,
    pub(crate) conversation_id: &'a str,
    pub(crate) session_id: Option<&'a str>,
    pub(crate) agent: Option<&'a str>,
    pub(crate) time: Option<String>,
    pub(crate) role: &'static str,
    pub(crate) tool: Option<&'a str>,
    pub(crate) tool_use_id: Option<&'a str>,
    pub(crate) text: String,
    /// The prompt that it answers to.
    pub(crate) prompt: Option<String>,
    /// Where its line starts in the transcript.
    pub(crate) offset: u64,
}

/// `rule`
#[derive(Serialize)]
pub(crate) struct Rule {
    pub(crate) schema: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) text: &'static str,
    pub(crate) tools: Vec<RuleFile>,
}

/// Where a rule lies for one agent.
#[derive(Serialize)]
pub(crate) struct RuleFile {
    pub(crate) tool: &'static str,
    pub(crate) path: String,
    pub(crate) written: bool,
}

/// `summary`
#[derive(Serialize)]
pub(crate) struct Summary {
    pub(crate) schema: &'static str,
    /// The command that makes summaries; none where they are extracts.
    pub(crate) command: Option<String>,
    pub(crate) timeout_seconds: u64,
    pub(crate) summaries: Vec<SummaryOf>,
}

/// The summary of one conversation.
#[derive(Serialize)]
pub(crate) struct SummaryOf {
    pub(crate) conversation_id: String,
    pub(crate) summary: Option<String>,
}

/// `config`
#[derive(Serialize)]
pub(crate) struct Config {
    pub(crate) schema: &'static str,
    pub(crate) global: ConfigGlobal,
    pub(crate) project: Option<ConfigProject>,
    pub(crate) settings: Vec<Setting>,
}

/// The user's file.
#[derive(Serialize)]
pub(crate) struct ConfigGlobal {
    pub(crate) config: Map<String, Value>,
}

/// The project's files.
#[derive(Serialize)]
pub(crate) struct ConfigProject {
    pub(crate) id: Option<String>,
    pub(crate) data_dir: String,
    pub(crate) config: Map<String, Value>,
    pub(crate) remotes: Map<String, Value>,
}

/// One setting.
#[derive(Serialize)]
pub(crate) struct Setting {
    pub(crate) field: &'static str,
    pub(crate) value: Value,
    /// `default`, `project` or `global`.
    pub(crate) origin: &'static str,
    pub(crate) default: Value,
}

/// `projects`: one line for each project.
#[derive(Serialize)]
pub(crate) struct KnownProject {
    pub(crate) schema: &'static str,
    pub(crate) id: String,
    pub(crate) data_dir: String,
    pub(crate) has_store: bool,
    pub(crate) canonical_root: Option<String>,
    pub(crate) known_roots: Vec<String>,
    pub(crate) origin_url: Option<String>,
    pub(crate) first_commit_sha: Option<String>,
    pub(crate) created_at: Option<String>,
}

/// `reset`
#[derive(Serialize)]
pub(crate) struct Reset<'a> {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) project: Option<String>,
    /// What the project's settings said by themselves.
    pub(crate) settings: BTreeMap<String, Value>,
    pub(crate) hooks: Vec<super::HookChange<'a>>,
    /// What goes for good; null unless that was asked for.
    pub(crate) data: Option<ResetData>,
}

/// All that was recorded in a project.
#[derive(Serialize)]
pub(crate) struct ResetData {
    pub(crate) dir: String,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) remotes: Vec<String>,
    /// Other places that use the same data.
    pub(crate) shared_with: Vec<String>,
}
