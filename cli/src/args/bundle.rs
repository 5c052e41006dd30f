//! Arguments of `export` and `bundle`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

/// `export`
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("target").args(["path", "jsonl", "agent_trace", "markdown", "html"]).required(true))]
pub(crate) struct Export {
    /// The bundle: a file, which is replaced, or `-` for a pipe
    #[arg(value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
    /// Write the bundle as a folder, which must be absent or empty
    #[arg(long, requires = "path")]
    pub(crate) folder: bool,
    /// Only this session, as its agent names it, or this conversation, with all that it reaches; may be repeated
    #[arg(long = "session", value_name = "ID")]
    pub(crate) sessions: Vec<String>,
    /// Only what belongs to this commit, or to a range of them such as main..topic; may be repeated
    #[arg(long = "commit", value_name = "RANGE")]
    pub(crate) commits: Vec<String>,
    /// Only what is not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Leave out what the reader has: an earlier bundle, a file with the answer of `bundle show --json`, or a cursor
    #[arg(long, value_name = "CURSOR_OR_BUNDLE", requires = "path")]
    pub(crate) base: Option<String>,
    /// Write no bundle but the layout of agent-trace-cli
    #[arg(long, value_name = "DIR")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Write no bundle but traces as Agent Trace 0.1 records, one to a line
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_trace: Option<PathBuf>,
    /// Write no bundle but conversations to read, as Markdown
    #[arg(long, value_name = "DIR")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write no bundle but conversations to read, as HTML
    #[arg(long, value_name = "DIR")]
    pub(crate) html: Option<PathBuf>,
    /// Write it although it holds secrets, and look for none
    #[arg(long)]
    pub(crate) allow_sensitive: bool,
    /// Count, write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `bundle`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Say what a bundle says of itself: what is inside, who made it, when, what it builds on
    Show {
        /// The file, or the folder
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Check every byte of a bundle as `import` does, and take nothing in
    Verify {
        /// The file, or the folder
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
}
