//! `backfill`: what agents did before anybody listened, read from the sessions that they left on disk.
//!
//! ```text
//! places ─► sessions ─► import: transcripts ─► store
//!               └─────► lines ─► agents: calls ─► edits ─► traces ─► store ─► link: ledgers
//! ```
//!
//! A call has the same id here as when a hook tells of it, so what was captured is not told twice. Sessions are read
//! in parallel, line by line; what was read completely is remembered and passed over the next time. What could not be
//! taken is listed. Writes nothing into a repository and nothing into an agent's folder.

mod agents;
mod done;
mod files;
mod lines;
mod places;
mod sessions;
mod tree;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use agent_trace_store::{Store, Timestamp};

use crate::capture::adapters::Agent;
use crate::privacy::redact::Redaction;

pub(crate) use done::{pending, set_pending};
pub(crate) use places::Homes;
pub(crate) use work::run;

/// What to bring in, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Transcripts and folders; where the agents keep theirs, if there are none.
    pub(crate) paths: Vec<PathBuf>,
    /// Leaves out what is older.
    pub(crate) since: Option<Timestamp>,
    /// Only these agents; all, if there are none.
    pub(crate) agents: Vec<Agent>,
    /// Takes sessions of other checkouts too.
    pub(crate) project: bool,
    /// Writes nothing.
    pub(crate) dry_run: bool,
    /// The project's id, for the records.
    pub(crate) project_id: Option<String>,
    /// What replaces secrets before anything is stored, where the user wants that.
    pub(crate) redaction: Option<Arc<Redaction>>,
}

/// What was found and done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Files that were looked at.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Files that had been read before and have not changed.
    pub(crate) unchanged: u64,
    /// Files of sessions elsewhere.
    pub(crate) elsewhere: u64,
    /// Files left out as too old.
    pub(crate) skipped_since: u64,
    /// Sessions that were read.
    pub(crate) sessions: u64,
    /// The same by agent.
    pub(crate) by_agent: BTreeMap<&'static str, u64>,
    /// What became of the calls of tools that write.
    pub(crate) calls: Calls,
    /// Transcripts that the store did not hold.
    pub(crate) transcripts: u64,
    /// The oldest edit that was found.
    pub(crate) first: Option<Timestamp>,
    /// What could not be taken.
    pub(crate) skipped: Vec<Skipped>,
}

/// What became of the calls of tools that write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Those that did what they should.
    pub(crate) found: u64,
    /// Traces that the store did not hold.
    pub(crate) added: u64,
    /// Those that the store held, or that another session repeats.
    pub(crate) known: u64,
    /// Those that failed or were refused.
    pub(crate) failed: u64,
    /// Those of files outside the repository.
    pub(crate) outside: u64,
    /// Those older than asked for.
    pub(crate) old: u64,
    /// Added, but which lines they changed is not known.
    pub(crate) without_lines: u64,
}

impl Calls {
    /// Adds others.
    fn add(&mut self, other: Calls) {
        self.found += other.found;
        self.added += other.added;
        self.known += other.known;
        self.failed += other.failed;
        self.outside += other.outside;
        self.old += other.old;
        self.without_lines += other.without_lines;
    }
}

/// Something that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skipped {
    /// The file.
    pub(crate) file: PathBuf,
    /// The line in it, from 1.
    pub(crate) line: Option<u64>,
    /// Why.
    pub(crate) reason: String,
}

/// What a run works with.
pub(crate) struct Place<'a> {
    /// The store.
    pub(crate) store: &'a Store,
    /// The repository; a store outside git has none.
    pub(crate) git: Option<&'a crate::git::process::Git>,
    /// Where agents keep their sessions.
    pub(crate) homes: &'a Homes,
}
