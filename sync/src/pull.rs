//! Pull: what the remote's changed heads name is replayed here.
use std::collections::BTreeMap;

use agent_trace_store::progress::Progress;
use agent_trace_store::{Kind, Result, Store, Timestamp};

use crate::remote::Remote;

/// What a pull takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// Only records not before this instant.
    pub since: Option<Timestamp>,
    /// Count, take nothing.
    pub dry_run: bool,
}

/// What a pull has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullReport {
    /// Events taken, by kind.
    pub taken: BTreeMap<Kind, u64>,
    /// Segments read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Requests made of the remote.
    pub requests: u64,
    /// Logs that have forked: both sides are kept.
    pub forks: Vec<String>,
    /// What was refused, with reasons; the rest was taken.
    pub refused: Vec<String>,
}

/// Pulls.
pub fn pull(
    _store: &Store,
    _remote: &Remote,
    _options: &PullOptions,
    _progress: &dyn Progress,
) -> Result<PullReport> {
    Ok(PullReport::default())
}
