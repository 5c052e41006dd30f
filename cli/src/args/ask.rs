//! The arguments of `blame`, `context`, `search` and `stats`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `blame`
#[derive(Args, Clone, Debug)]
pub(crate) struct Blame {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The commit at which to look [default: the file as it is now]
    #[arg(value_name = "REV")]
    pub(crate) revision: Option<String>,
    /// Only this line
    #[arg(short, long, value_name = "N", conflicts_with = "range")]
    pub(crate) line: Option<String>,
    /// Only these lines: A-B, or A alone
    #[arg(short, long, value_name = "A[-B]")]
    pub(crate) range: Option<String>,
    /// The project: the directory of its repository, or its id; FILE is from there
    #[arg(short, long, value_name = "PATH|ID")]
    pub(crate) project: Option<String>,
    /// With --json, list lines that nobody is known of too
    #[arg(long)]
    pub(crate) show_no_attribution: bool,
    /// Exit with status 1 if one of the lines is not attributed
    #[arg(long)]
    pub(crate) require_attribution: bool,
    /// Look up what was asked for in transcripts, however many there are [default: for up to 16 conversations]
    #[arg(long)]
    pub(crate) prompts: bool,
    /// The form of `git blame --porcelain`, with members `agent-trace-...` for lines of an agent
    #[arg(long)]
    pub(crate) porcelain: bool,
    /// The same with all members for every line
    #[arg(long, conflicts_with = "porcelain")]
    pub(crate) line_porcelain: bool,
}

/// `context`
#[derive(Args, Clone, Debug)]
pub(crate) struct Context {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only these lines: A-B, or A alone
    #[arg(short, long, value_name = "A[-B]")]
    pub(crate) lines: Option<String>,
    /// The project: the directory of its repository, or its id; FILE is from there
    #[arg(short, long, value_name = "PATH|ID")]
    pub(crate) project: Option<String>,
    /// Show the conversations whole
    #[arg(long)]
    pub(crate) full: bool,
    /// Only conversations in which all of these words occur, and what was said with them; `-q` after `context` is the same
    #[arg(long, value_name = "TEXT")]
    pub(crate) query: Option<String>,
}

/// `search`
#[derive(Args, Clone, Debug)]
pub(crate) struct Search {
    /// Words, all of which must occur in what was said, whatever their case
    #[arg(value_name = "WORD", required = true)]
    pub(crate) words: Vec<String>,
    /// Only what is not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only this agent: a part of its name
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Only where a tool was used on a file with this in its path
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// At most so many [default: 20]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

/// `stats`
#[derive(Args, Clone, Debug)]
pub(crate) struct Stats {
    /// Lines of agents by this; may be repeated [default: agent and model]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) by: Vec<LinesBy>,
}

/// By what lines are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum LinesBy {
    /// The agent that wrote them
    Agent,
    /// Its model
    Model,
    /// Who committed them
    Person,
    /// The first folder of their path
    Folder,
    /// The local month of the commit
    Month,
}

impl LinesBy {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LinesBy::Agent => "agent",
            LinesBy::Model => "model",
            LinesBy::Person => "person",
            LinesBy::Folder => "folder",
            LinesBy::Month => "month",
        }
    }
}
