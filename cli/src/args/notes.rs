//! The arguments of `notes`.

use clap::{Args, Subcommand};

/// `notes`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Notes {
    /// Show the note on a commit
    Show {
        /// The commit [default: HEAD]
        #[arg(value_name = "REV")]
        revision: Option<String>,
    },
    /// Put a note on a commit that holds lines of an agent
    Attach {
        /// The commit [default: HEAD]
        #[arg(value_name = "REV")]
        revision: Option<String>,
        #[command(flatten)]
        include: Include,
    },
    /// Make the notes on commits of a range anew
    Rebuild {
        /// Commits as `git rev-list` takes them
        #[arg(value_name = "RANGE")]
        range: String,
        #[command(flatten)]
        include: Include,
    },
    /// Put notes on commits that have none
    Backfill {
        /// Only commits that are not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        #[command(flatten)]
        include: Include,
    },
    /// Take parts of a note away
    Strip {
        /// The commit [default: HEAD]
        #[arg(value_name = "REV")]
        revision: Option<String>,
        /// The ledger
        #[arg(long)]
        ledger: bool,
        /// Summaries
        #[arg(long)]
        summary: bool,
        /// Prompts
        #[arg(long)]
        prompts: bool,
        /// The list of conversations
        #[arg(long)]
        all_session_conversations: bool,
    },
    /// Send the notes to a remote of git, joined with what it has
    Push {
        /// The remote of git
        #[arg(long, value_name = "NAME", default_value = "origin")]
        remote: String,
        /// Send them although they hold secrets, and look for none
        #[arg(long)]
        allow_sensitive: bool,
    },
    /// Fetch the notes of a remote of git and join them to the own ones
    Pull {
        /// The remote of git
        #[arg(long, value_name = "NAME", default_value = "origin")]
        remote: String,
    },
}

/// What a note says beside what it always says [default: as configured]
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Include {
    /// With the ledger: lines, traces and hashes of lines
    #[arg(long, overrides_with = "no_include_ledger")]
    pub(crate) include_ledger: bool,
    /// Without the ledger
    #[arg(long)]
    pub(crate) no_include_ledger: bool,
    /// With summaries of the conversations
    #[arg(long, overrides_with = "no_include_summary")]
    pub(crate) include_summary: bool,
    /// Without summaries
    #[arg(long)]
    pub(crate) no_include_summary: bool,
    /// With what people asked for
    #[arg(long, overrides_with = "no_include_prompts")]
    pub(crate) include_prompts: bool,
    /// Without prompts
    #[arg(long)]
    pub(crate) no_include_prompts: bool,
    /// With the list of conversations
    #[arg(long, overrides_with = "no_include_all_session_conversations")]
    pub(crate) include_all_session_conversations: bool,
    /// Without the list of conversations
    #[arg(long)]
    pub(crate) no_include_all_session_conversations: bool,
}
