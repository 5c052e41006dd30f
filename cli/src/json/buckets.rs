//! What is printed of buckets, and by the commands that care for remotes.

use serde::Serialize;

pub(crate) const VERIFY_REMOTE: &str = "agent-trace/verify-remote/1";
pub(crate) const GC: &str = "agent-trace/gc/1";

/// How a bucket is reached; of credentials where they are.
#[derive(Serialize)]
pub(crate) struct Bucket {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) virtual_host: bool,
    pub(crate) credentials: String,
    pub(crate) limit_rate: Option<u64>,
}

/// `verify --remote`
#[derive(Serialize)]
pub(crate) struct VerifyRemote {
    pub(crate) schema: &'static str,
    pub(crate) remote: String,
    pub(crate) url: String,
    pub(crate) ok: bool,
    pub(crate) heads: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) events: u64,
    pub(crate) requests: u64,
    pub(crate) problems: Vec<String>,
}

/// `gc`
#[derive(Serialize)]
pub(crate) struct Gc {
    pub(crate) schema: &'static str,
    pub(crate) remote: String,
    pub(crate) url: String,
    pub(crate) dry_run: bool,
    pub(crate) segments: u64,
    pub(crate) merged: u64,
    pub(crate) merged_bytes: u64,
    pub(crate) made: u64,
    pub(crate) made_bytes: u64,
    pub(crate) not_held: u64,
    pub(crate) removed: u64,
    pub(crate) removed_bytes: u64,
    pub(crate) waiting: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) requests: u64,
    pub(crate) new_writer: bool,
    pub(crate) refused: Vec<String>,
}
