//! The arguments of `rule` and `summary`.

use clap::{Args, Subcommand, ValueEnum};

/// `rule`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Rule {
    /// Write a rule into the repository
    Add(RuleName),
    /// Remove a rule that was written
    Remove(RuleName),
    /// Show what a rule says
    Show,
    /// List rules, and for which agents they are written
    List,
}

/// `rule add`, `rule remove`
#[derive(Args, Clone, Debug)]
pub(crate) struct RuleName {
    /// The rule: context-for-agents
    pub(crate) name: String,
    /// The agent
    #[arg(short, long, value_name = "TOOL", value_enum)]
    pub(crate) tool: RuleTool,
}

/// Agents that read rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuleTool {
    /// .cursor/rules
    Cursor,
    /// .claude/rules
    Claude,
    /// .codex/rules
    Codex,
}

/// `summary`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Summary {
    /// Set the command that is given a transcript on stdin and prints a summary
    Enable(SummaryEnable),
    /// Set a command that is known to do
    Use(SummaryUse),
    /// List the commands that `use` knows
    Presets,
    /// Use no command: a summary is an extract then
    Disable,
    /// Make a summary of a conversation and store it
    Generate(SummaryGenerate),
    /// Show summaries: of the conversations of a commit, or of one conversation
    Show {
        /// A commit or a conversation [default: HEAD]
        #[arg(value_name = "REV|CONVERSATION")]
        of: Option<String>,
    },
}

/// `summary enable`
#[derive(Args, Clone, Debug)]
pub(crate) struct SummaryEnable {
    /// The command, run by `sh -c`
    #[arg(long, value_name = "COMMAND")]
    pub(crate) command: String,
    /// How long it may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// `summary use`
#[derive(Args, Clone, Debug)]
pub(crate) struct SummaryUse {
    /// claude-summary, cursor-summary or ollama-summary
    pub(crate) preset: String,
    /// The model [default: the preset's]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// How long it may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// `summary generate`
#[derive(Args, Clone, Debug)]
#[group(id = "which", required = true, multiple = false)]
pub(crate) struct SummaryGenerate {
    /// The conversation
    #[arg(long, value_name = "ID")]
    pub(crate) conversation: Option<String>,
    /// The session, as its agent names it
    #[arg(long, value_name = "ID")]
    pub(crate) session_id: Option<String>,
}
