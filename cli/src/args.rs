//! What can be written on the command line, as plain data; reading it does nothing else.

mod admin;
mod ask;
mod key;
mod backfill;
mod bucket;
mod bundle;
mod erase;
mod config;
mod hooks;
mod link;
mod notes;
mod privacy;
mod serve;
mod words;

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use admin::{
    Admin, AdminOrg, AdminProject, AdminProjectCreate, AdminToken, OrgCreate, OrgSet, ProjectRemove, Quota,
    Service, TokenCreate,
};
pub(crate) use ask::{Blame, Context, LinesBy, Search, Stats};
pub(crate) use backfill::Backfill;
pub(crate) use bucket::BucketSource;
pub(crate) use bundle::{Bundle, Export};
pub(crate) use config::{Config, Projects};
pub(crate) use erase::{Erase, Retention, RetentionRun, RetentionSet};
pub(crate) use hooks::{Hooks, HooksInstall, HooksOf, HooksRemove, HooksStatus};
pub(crate) use key::{Key, KeyRemote, KeyRotate, SecretSource};
pub(crate) use link::{CommitLink, Link};
pub(crate) use notes::{Include, Notes};
pub(crate) use privacy::{Privacy, PrivacyScan};
pub(crate) use serve::Serve;
pub(crate) use words::{Rule, RuleName, RuleTool, Summary, SummaryGenerate};

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "agent-trace",
    version,
    about = "Keeps which agent wrote a line, in which conversation, and why",
    after_help = "Start with `agent-trace tour`, which shows all of it on sample data.",
    disable_help_subcommand = false,
    propagate_version = false,
    infer_subcommands = false,
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// A store outside git; also given by the variable AGENT_TRACE_STORE
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Answer in JSON, as described in docs/json.md
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colour; NO_COLOR is respected too
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Show no progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Print the answer only: no hints, no notes, no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print long answers at once, without a pager
    #[arg(long, global = true)]
    pub(crate) no_pager: bool,
    /// Run as if started in this directory
    #[arg(short = 'C', global = true, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, made once")]
pub(crate) enum Command {
    /// Give the git repository (or the directory given by --store) a store, and git its hooks
    Init(Init),
    /// Bring in transcripts, agent-trace-cli data, Agent Trace records and bundles
    Import(Import),
    /// Say whose the lines of a file are: which agent wrote them, when, in which session, asked for what
    Blame(Blame),
    /// Show the conversations behind the lines of a file
    Context(Context),
    /// Look for words in prompts, answers and tool calls of all transcripts, newest first
    Search(Search),
    /// Take an event of an agent from stdin, for its hooks: `record --agent NAME [--event NAME]`
    Record(Words),
    /// Note that git has run a hook: `hook post-commit`, `hook post-rewrite`, `hook pre-push`
    Hook(Words),
    /// Bring in the edits of sessions that agents have left on disk, and link them to commits
    Backfill(Backfill),
    /// List records, newest first
    Log(Log),
    /// Show a record
    Show(Show),
    /// Write the bytes of a transcript, a record or an object to stdout
    Cat(Cat),
    /// Say what the store holds and what has not been pushed
    Status,
    /// Count records by kind, agent and month, and lines of agents that commits brought
    Stats(Stats),
    /// Work out whose lines a commit holds, and write it down
    CommitLink(CommitLink),
    /// Carry ledgers over to rewritten commits, given as pairs on stdin
    RewriteLedger,
    /// The same as commit-link for many commits, by what they hold, whatever hooks have run
    Link(Link),
    /// Tell readers of the repository by git notes, under refs/notes/agent-trace
    #[command(subcommand)]
    Notes(Notes),
    /// Tell agents, by a rule in the repository, to ask why a line is there
    #[command(subcommand)]
    Rule(Rule),
    /// Prose about conversations, by a command of yours or as an extract
    #[command(subcommand)]
    Summary(Summary),
    /// Show and change settings
    #[command(subcommand)]
    Config(Config),
    /// Give the project its default settings again and its git hooks as `init` puts them; asks first
    Reset(Reset),
    /// List the projects that have data on this machine
    Projects {
        /// What to do instead
        #[command(subcommand)]
        command: Option<Projects>,
    },
    /// Give a repository a store, note its place for `--project ID`, and print its id
    Adopt {
        /// A directory in the repository [default: here]
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Manage remotes
    #[command(subcommand)]
    Remote(Remote),
    /// Manage the keys of encrypted remotes
    #[command(subcommand)]
    Key(Key),
    /// Manage projects of a service
    #[command(subcommand)]
    Project(Project),
    /// Send what a remote has not got
    Push(Push),
    /// Take what a remote has and this store has not
    Pull(Pull),
    /// Push, then pull
    Sync(Sync),
    /// Write a bundle, for stores that never meet, or the layout of others, or pages to read
    Export(Export),
    /// Look at a bundle before anything of it is taken in
    #[command(subcommand)]
    Bundle(Bundle),
    /// Find secrets before they leave, and say what is none
    #[command(subcommand)]
    Privacy(Privacy),
    /// Install, remove and look at the hooks of agents and of git
    #[command(subcommand)]
    Hooks(Hooks),
    /// Look for what keeps remotes and hooks from working
    Doctor(Doctor),
    /// Manage the orgs, projects and tokens of a service, in its data folder
    #[command(subcommand)]
    Admin(Admin),
    /// Answer clients over HTTP, from a data folder of its own
    Serve(Serve),
    /// Check every stored byte, here or on a remote
    Verify(Verify),
    /// Compute the index again from the segments
    Reindex,
    /// Rewrite segments to be small
    Compact(Compact),
    /// Clear up a folder or bucket: merge small segments, remove what nothing refers to
    Gc(Gc),
    /// Remove the bytes of records, conversations or sessions for good, everywhere
    Erase(Erase),
    /// Keep transcripts for a time, or up to a size: what is over that goes to where a remote holds it
    #[command(subcommand)]
    Retention(Retention),
    /// Show what agent-trace does, on sample data in a temporary directory
    Tour(Tour),
    /// Write a completion script for a shell to stdout
    Completions(Completions),
    /// Write the manual page to stdout, or all manual pages into a directory
    Man(Man),
    /// Write docs/cli.md to stdout
    #[command(hide = true)]
    HelpPage,
}

/// `init`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Init {
    /// Install no git hooks
    #[arg(long)]
    pub(crate) no_hooks: bool,
}

/// `import`
#[derive(Args, Clone, Debug)]
pub(crate) struct Import {
    /// Files, directories and bundles; what they hold is found by content. `-` is a bundle on stdin
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Only what is not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Erase here what a bundle erases; without this, such a bundle is refused
    #[arg(long)]
    pub(crate) accept_erase: bool,
    /// Count, bring in nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave the index to the next command
    #[arg(long)]
    pub(crate) no_index: bool,
}

/// The arguments of a hook. Nothing in them is refused: whoever calls cannot do anything about it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Words {
    /// What the hook was given
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<OsString>,
}

/// `log`
#[derive(Args, Clone, Debug)]
pub(crate) struct Log {
    /// Only this kind: trace, ledger, commit-link, transcript, summary, unknown
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only what is not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what is not newer; a date includes that day
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only this session, as its agent names it
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
    /// Only what concerns this file, as named from the root of its repository
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Only the ledger and the commit-link of this commit, and traces made on top of it
    #[arg(long, value_name = "COMMIT")]
    pub(crate) commit: Option<String>,
    /// At most so many [default: 50, without a limit where --since or --commit is given]
    #[arg(short = 'n', long = "limit", value_name = "N")]
    pub(crate) limit: Option<usize>,
}

/// `show`
#[derive(Args, Clone, Debug)]
pub(crate) struct Show {
    /// An object id or its beginning, a trace, a conversation, a commit (also as git names it: HEAD~2), or the SHA-256 of a
    /// transcript
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Show all versions, not only the one that answers
    #[arg(long)]
    pub(crate) all: bool,
}

/// `cat`
#[derive(Args, Clone, Debug)]
pub(crate) struct Cat {
    /// An object id or its beginning, a trace, a conversation, a commit, or the SHA-256 of a transcript
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Fail where the bytes are elsewhere, rather than fetch them from the remote that holds them
    #[arg(long)]
    pub(crate) offline: bool,
}

/// `remote`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Remote {
    /// Add a remote
    Add(RemoteAdd),
    /// List the remotes
    List,
    /// Show one remote, its token masked
    Show {
        /// The remote
        name: String,
    },
    /// Change where a remote lies
    SetUrl(RemoteSetUrl),
    /// Change the token of a remote
    SetToken(RemoteSetToken),
    /// Forget a remote and its token; what it holds stays as it is
    Remove {
        /// The remote
        name: String,
    },
    /// Rename a remote; its token goes with it
    Rename {
        /// The name it has
        old: String,
        /// The name it gets
        new: String,
    },
    /// Choose the remote that push, pull and sync use where none is named
    Default {
        /// The remote
        name: String,
    },
}

/// `remote add`
#[derive(Args, Clone, Debug)]
pub(crate) struct RemoteAdd {
    /// Lower-case letters, digits, `.`, `_`, `-`; at most 64
    pub(crate) name: String,
    /// https://host/org/project, https://host/at/org/project, s3://bucket/prefix (gs://, az://), or file:///path of a folder,
    /// which may be absent or empty
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) token: TokenSource,
    /// Seal all that goes there, so that whoever keeps the remote cannot read it; needs --secret-env or --key-file
    #[arg(long)]
    pub(crate) encrypt: bool,
    #[command(flatten)]
    pub(crate) secret: SecretSource,
    /// Create the project on the service too, or the remote in the folder or bucket
    #[arg(long)]
    pub(crate) create: bool,
    /// With --create, what people call the project
    #[arg(long = "name", value_name = "TEXT", requires = "create", id = "title")]
    pub(crate) title: Option<String>,
    /// With --create, what the project is
    #[arg(long, value_name = "TEXT", requires = "create")]
    pub(crate) description: Option<String>,
    /// Allow http to another machine: the token and all records can be read and changed on the way
    #[arg(long)]
    pub(crate) insecure_http: bool,
    /// Store it without asking the service or the bucket
    #[arg(long)]
    pub(crate) no_check: bool,
    #[command(flatten)]
    pub(crate) bucket: BucketSource,
}

/// `remote set-url`
#[derive(Args, Clone, Debug)]
pub(crate) struct RemoteSetUrl {
    /// The remote
    pub(crate) name: String,
    /// https://host/org/project, https://host/at/org/project, s3://bucket/prefix (gs://, az://), or file:///path of a folder,
    /// which may be absent or empty
    pub(crate) url: String,
    /// Allow http to another machine: the token and all records can be read and changed on the way
    #[arg(long)]
    pub(crate) insecure_http: bool,
    /// Store it without asking the service or the bucket
    #[arg(long)]
    pub(crate) no_check: bool,
    #[command(flatten)]
    pub(crate) bucket: BucketSource,
}

/// `remote set-token`
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("source").args(["token", "token_stdin", "token_file", "token_command", "token_env"]).required(true))]
pub(crate) struct RemoteSetToken {
    /// The remote
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) token: TokenSource,
    /// Store it without asking the service
    #[arg(long)]
    pub(crate) no_check: bool,
}

/// Where a token comes from; at most one of them.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(crate) struct TokenSource {
    /// The token itself, which then stands in the shell's history and in the list of processes
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<Secret>,
    /// Read the token from stdin
    #[arg(long)]
    pub(crate) token_stdin: bool,
    /// Read the token from a file, once
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Take the token that a shell command prints, once
    #[arg(long, value_name = "COMMAND")]
    pub(crate) token_command: Option<String>,
    /// Look for the token in this variable each time; only its name is kept
    #[arg(long, value_name = "VAR")]
    pub(crate) token_env: Option<String>,
}

/// A secret on the command line, which is not printed with the other arguments.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

/// `project`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Project {
    /// Create a project, as the service's admin (AGENT_TRACE_ADMIN_SECRET) or by a token that may
    Create(ProjectCreate),
}

/// `project create`
#[derive(Args, Clone, Debug)]
pub(crate) struct ProjectCreate {
    /// https://host/org/project or https://host/at/org/project
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) token: TokenSource,
    /// What people call the project
    #[arg(long = "name", value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// What the project is about
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Allow http to another machine: the secret can be read on the way
    #[arg(long)]
    pub(crate) insecure_http: bool,
}

/// `doctor`
#[derive(Args, Clone, Debug)]
pub(crate) struct Doctor {
    /// Correct what can be corrected: the rights of files that hold secrets
    #[arg(long)]
    pub(crate) fix: bool,
}

/// `push`
#[derive(Args, Clone, Debug)]
pub(crate) struct Push {
    /// The remote; where it is not given: the only one, else the default one, else `origin`
    #[arg(long, value_name = "NAME")]
    pub(crate) remote: Option<String>,
    /// Send what no ledger names too
    #[arg(long)]
    pub(crate) full: bool,
    /// Send only this kind: traces, ledgers, commit-links, conversations, summaries; may be repeated
    #[arg(long, value_name = "KIND")]
    pub(crate) only: Vec<String>,
    /// Only what is not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Count, send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// At most so many bytes a second to or from a bucket: 500k, 2M
    #[arg(long, value_name = "BYTES")]
    pub(crate) limit_rate: Option<String>,
    /// Send it although it holds secrets, and look for none
    #[arg(long)]
    pub(crate) allow_sensitive: bool,
}

/// `pull`
#[derive(Args, Clone, Debug)]
pub(crate) struct Pull {
    /// The remote; where it is not given: the only one, else the default one, else `origin`
    #[arg(long, value_name = "NAME")]
    pub(crate) remote: Option<String>,
    /// Only what is not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Leave the bytes of transcripts where they are; `cat` fetches the one it needs
    #[arg(long)]
    pub(crate) no_transcripts: bool,
    /// Bring also the bytes that were left out before and that this remote holds
    #[arg(long, conflicts_with = "no_transcripts")]
    pub(crate) transcripts: bool,
    /// Count, take nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// At most so many bytes a second to or from a bucket: 500k, 2M
    #[arg(long, value_name = "BYTES")]
    pub(crate) limit_rate: Option<String>,
}

/// `sync`
#[derive(Args, Clone, Debug)]
pub(crate) struct Sync {
    /// The remote; where it is not given: the only one, else the default one, else `origin`
    #[arg(long, value_name = "NAME")]
    pub(crate) remote: Option<String>,
    /// At most so many bytes a second to or from a bucket: 500k, 2M
    #[arg(long, value_name = "BYTES")]
    pub(crate) limit_rate: Option<String>,
    /// Send it although it holds secrets, and look for none
    #[arg(long)]
    pub(crate) allow_sensitive: bool,
}

/// `verify`
#[derive(Args, Clone, Debug)]
pub(crate) struct Verify {
    /// Read and check all that this remote holds instead; nothing of it is taken in
    #[arg(long, value_name = "NAME")]
    pub(crate) remote: Option<String>,
}

/// `compact`
#[derive(Args, Clone, Debug)]
pub(crate) struct Compact {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Show the plan only
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `gc`
#[derive(Args, Clone, Debug)]
pub(crate) struct Gc {
    /// The remote
    #[arg(long, value_name = "NAME", required = true)]
    pub(crate) remote: Option<String>,
    /// Say what would be done, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `reset`
#[derive(Args, Clone, Debug)]
pub(crate) struct Reset {
    /// Remove all that was recorded in this project too, with its remotes and their tokens, and take its git hooks out
    #[arg(long)]
    pub(crate) remove_store: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Show the plan only
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `tour`
#[derive(Args, Clone, Debug)]
pub(crate) struct Tour {
    /// Keep the temporary directory
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `completions`
#[derive(Args, Clone, Debug)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`
#[derive(Args, Clone, Debug)]
pub(crate) struct Man {
    /// Where to write the pages
    #[arg(value_name = "DIR")]
    pub(crate) pages: Option<PathBuf>,
}

/// Reads the arguments, the program's name first.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Usage> {
    let args: Vec<OsString> = args.into_iter().collect();
    let args = as_known(args);
    let json = args.iter().any(|arg| arg == "--json");
    Cli::try_parse_from(args).map_err(|error| Usage { error, json })
}

/// Takes `-q` after `context` for `--query`, as users of agent-trace-cli know it; elsewhere it is `--quiet`.
fn as_known(mut args: Vec<OsString>) -> Vec<OsString> {
    let mut words = args.iter().skip(1).filter(|arg| !arg.as_encoded_bytes().starts_with(b"-"));
    if words.next().is_some_and(|word| word == "context") {
        let at = args.iter().position(|arg| arg == "context").unwrap_or(args.len());
        for arg in args[at..].iter_mut().take_while(|arg| *arg != "--").filter(|arg| *arg == "-q") {
            *arg = "--query".into();
        }
    }
    args
}

/// Arguments that cannot be read, or a wish for help.
pub(crate) struct Usage {
    /// What clap says.
    pub(crate) error: clap::Error,
    /// Whether JSON was asked for.
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definitions_fit_each_other() {
        super::Cli::command().debug_assert();
    }
}
