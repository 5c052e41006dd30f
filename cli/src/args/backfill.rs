//! The arguments of `backfill`.

use std::path::PathBuf;

use clap::Args;

/// `backfill`
#[derive(Args, Clone, Debug)]
pub(crate) struct Backfill {
    /// Transcripts, or folders of them [default: where the agents keep theirs]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Only edits that are not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only sessions of this agent: claude-code, codex, cursor, gemini-cli, copilot-cli, opencode; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Vec<String>,
    /// Take sessions of another checkout too, told by the files that they edit: one that was moved, renamed or is somebody else's
    #[arg(long)]
    pub(crate) project: bool,
    /// Say what would be brought in, and bring in nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
