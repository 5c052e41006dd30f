//! `hooks` on the command line.

use clap::{Args, Subcommand};

/// `hooks`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Hooks {
    /// Let agents and git tell agent-trace what they do
    Install(HooksInstall),
    /// Say which hooks are in place, and when each last fired
    Status(HooksStatus),
    /// Take out what agent-trace has put in, and nothing else
    Remove(HooksRemove),
    /// `hooks install --global`, as agent-trace-cli calls it
    #[command(hide = true)]
    SetupGlobal(HooksGlobal),
    /// `hooks remove --global`, as agent-trace-cli calls it
    #[command(hide = true)]
    RemoveGlobal(HooksGlobal),
}

/// Whose hooks are meant.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HooksOf {
    /// Only this one: claude-code, codex, cursor, gemini-cli, copilot-cli, opencode, windsurf, or git; may be repeated
    #[arg(long = "agent", short_alias = 't', alias = "tool", value_name = "NAME")]
    pub(crate) agents: Vec<String>,
}

/// `hooks install`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HooksInstall {
    #[command(flatten)]
    pub(crate) of: HooksOf,
    /// In your own settings of the agents, for all repositories (the default)
    #[arg(long)]
    pub(crate) global: bool,
    /// In this repository's files for the agents, which can be committed and shared
    #[arg(long, conflicts_with = "global")]
    pub(crate) project: bool,
    /// Add the lines for git to the files of husky, lefthook, pre-commit or another owner of the hooks
    #[arg(long)]
    pub(crate) write: bool,
    /// Show what would change, as a diff; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `hooks status`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HooksStatus {
    #[command(flatten)]
    pub(crate) of: HooksOf,
}

/// `hooks remove`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HooksRemove {
    #[command(flatten)]
    pub(crate) of: HooksOf,
    /// Only from your own settings of the agents
    #[arg(long)]
    pub(crate) global: bool,
    /// Only from this repository: its files for the agents, and git
    #[arg(long, conflicts_with = "global")]
    pub(crate) project: bool,
    /// Show what would change, as a diff; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `hooks setup-global`, `hooks remove-global`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HooksGlobal {
    #[command(flatten)]
    pub(crate) of: HooksOf,
}
