//! Push: the set-difference goes to the remote.
use std::collections::BTreeMap;

use agent_trace_store::progress::Progress;
use agent_trace_store::{Kind, Result, Store, Timestamp};

use crate::remote::Remote;

/// What a push sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Everything, whether a ledger names it or not.
    pub full: bool,
    /// Only these kinds; empty means all.
    pub only: Vec<Kind>,
    /// Only records not before this instant.
    pub since: Option<Timestamp>,
    /// Count, send nothing.
    pub dry_run: bool,
}

/// What a push has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// Events sent, by kind.
    pub sent: BTreeMap<Kind, u64>,
    /// Events held back, by kind.
    pub held_back: BTreeMap<Kind, u64>,
    /// Segments uploaded.
    pub segments: u64,
    /// Bytes uploaded.
    pub bytes: u64,
    /// Requests made of the remote (files read, written, listed).
    pub requests: u64,
    /// Whether the store had to take a new writer, because its head on the remote was not the one it wrote.
    pub new_writer: bool,
}

/// Pushes.
pub fn push(
    _store: &Store,
    _remote: &Remote,
    _options: &PushOptions,
    _progress: &dyn Progress,
) -> Result<PushReport> {
    Ok(PushReport::default())
}
