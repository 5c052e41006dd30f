//! The arguments of `config` and `projects`.

use clap::Subcommand;

/// `config`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Config {
    /// Show all settings, and where each comes from; secrets are masked
    Show,
    /// Set one setting
    Set {
        /// notes.enabled, notes.include-ledger, notes.include-summary, notes.include-prompts,
        /// notes.all-session-conversations, notes.push, hooks.fsync, privacy.mode, privacy.strict, privacy.rules,
        /// privacy.allow, summary.enabled, summary.command, summary.timeout-seconds, retention.age, retention.bytes,
        /// remote.default, global.auth-token, global.capture-detached-edits
        field: String,
        /// Its value; for yes and no: true, 1, yes, on, enable, and their opposites
        value: String,
    },
    /// Give a setting its default again, or all of `notes`, `hooks`, `privacy`, `summary` or `retention`
    Reset {
        /// A setting as for `set`, or notes, hooks, privacy, summary, retention
        field: String,
        /// Accepted as agent-trace-cli has it; nothing is asked
        #[arg(short, long)]
        yes: bool,
    },
}

/// `projects`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Projects {
    /// Show one project
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
}
