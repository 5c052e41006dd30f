//! The arguments of `commit-link` and `link`.

use clap::Args;

/// `commit-link`
#[derive(Args, Clone, Debug)]
pub(crate) struct CommitLink {
    /// The commit [default: HEAD]
    #[arg(value_name = "REV")]
    pub(crate) revision: Option<String>,
}

/// `link`
#[derive(Args, Clone, Debug)]
#[group(id = "what", required = true, multiple = true)]
pub(crate) struct Link {
    /// Commits as `git rev-list` takes them: main..topic, a branch, a commit and what is before it [default: all branches]
    #[arg(value_name = "RANGE", group = "what")]
    pub(crate) range: Option<String>,
    /// Only commits that are not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME", group = "what")]
    pub(crate) since: Option<String>,
    /// All commits of all branches
    #[arg(long, group = "what", conflicts_with = "range")]
    pub(crate) all: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
