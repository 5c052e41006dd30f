//! The JSON shapes of what is erased.

use agent_trace_store::erased::Act;
use serde::Serialize;

use super::Counts;

/// When something was erased, and by whom.
#[derive(Serialize)]
pub(crate) struct Erased {
    pub(crate) time: String,
    pub(crate) writer: String,
    pub(crate) event: String,
}

impl Erased {
    /// What an erase event says.
    pub(crate) fn of(act: &Act) -> Erased {
        Erased { time: act.time.to_string(), writer: act.writer.to_string(), event: act.event.to_string() }
    }
}

/// The name of the shape of `erase`.
pub(crate) const ERASE: &str = "agent-trace/erase/1";

/// `erase`
#[derive(Serialize)]
pub(crate) struct Erase {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) plan: ErasePlan,
    /// What was done; nothing where only the plan was asked for, or there was nothing to do.
    pub(crate) done: Option<EraseDone>,
}

/// What an erase would do.
#[derive(Serialize)]
pub(crate) struct ErasePlan {
    pub(crate) records: Counts,
    pub(crate) conversations: Vec<String>,
    pub(crate) objects: u64,
    pub(crate) present: u64,
    pub(crate) bytes: u64,
    pub(crate) others: u64,
    pub(crate) stay_listed: u64,
    pub(crate) stay_parts: u64,
    pub(crate) segments: u64,
    pub(crate) segment_bytes: u64,
}

/// What an erase has done.
#[derive(Serialize)]
pub(crate) struct EraseDone {
    pub(crate) events: Vec<String>,
    pub(crate) objects: u64,
    pub(crate) segments: u64,
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
}

/// The name of the shape of `retention`.
pub(crate) const RETENTION: &str = "agent-trace/retention/1";

/// `retention`
#[derive(Serialize)]
pub(crate) struct Retention {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) age: Option<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) found: Found,
    /// Transcripts that stay, since the remote does not hold them.
    pub(crate) not_held: u64,
    pub(crate) done: Option<RetentionDone>,
}

/// What goes.
#[derive(Serialize)]
pub(crate) struct Found {
    pub(crate) transcripts: u64,
    pub(crate) bytes: u64,
}

/// What has gone.
#[derive(Serialize)]
pub(crate) struct RetentionDone {
    pub(crate) objects: u64,
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
}
