//! The arguments of `erase` and `retention`.

use clap::{Args, Subcommand};

/// `erase`
#[derive(Args, Clone, Debug)]
#[group(id = "erased", required = true, multiple = true)]
pub(crate) struct Erase {
    /// A session, a conversation, or a record or object by its id or a beginning of it
    #[arg(value_name = "ID", group = "erased")]
    pub(crate) ids: Vec<String>,
    /// Traces that touched files whose path fits: `*` and `?` within a name, `**` across folders
    #[arg(long, value_name = "GLOB", group = "erased")]
    pub(crate) path: Vec<String>,
    /// Traces, transcripts and summaries older than this: 90d, 52w, or a time
    #[arg(long, value_name = "AGE", group = "erased")]
    pub(crate) older_than: Option<String>,
    /// Show the plan only
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Why; kept with the erase, and seen by everybody who has it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// `retention`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Retention {
    /// Show what is kept, and what a run would find
    Show,
    /// Set how long, and how much, is kept here; this project's alone
    Set(RetentionSet),
    /// Drop the bytes of transcripts that a remote holds, as far as they are not to be kept
    Run(RetentionRun),
}

/// `retention set`
#[derive(Args, Clone, Debug)]
#[group(id = "kept", required = true, multiple = true)]
pub(crate) struct RetentionSet {
    /// Keep transcripts this long: 90d, 52w; `off` keeps them for ever
    #[arg(long, value_name = "AGE", group = "kept")]
    pub(crate) age: Option<String>,
    /// Keep at most so many bytes of transcripts, the newest; `off` keeps all
    #[arg(long, value_name = "BYTES", group = "kept")]
    pub(crate) bytes: Option<String>,
}

/// `retention run`
#[derive(Args, Clone, Debug)]
pub(crate) struct RetentionRun {
    /// The remote that must hold what goes [default: the default remote]
    #[arg(long, value_name = "NAME")]
    pub(crate) remote: Option<String>,
    /// Erase instead: for everybody and for good, whoever holds it
    #[arg(long, conflicts_with = "remote")]
    pub(crate) erase: bool,
    /// Show what would go, and drop nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
