//! What `export` and `bundle` answer, and what `import` says of bundles.

use agent_trace_sync::bundle::BundleInfo;
use serde::Serialize;

use super::Counts;

pub(crate) const EXPORT: &str = "agent-trace/export/1";
pub(crate) const BUNDLE: &str = "agent-trace/bundle/1";
pub(crate) const BUNDLE_VERIFY: &str = "agent-trace/bundle-verify/1";

/// `export`
#[derive(Serialize)]
pub(crate) struct Export {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) path: String,
    pub(crate) form: &'static str,
    pub(crate) id: Option<String>,
    pub(crate) counts: Counts,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) elsewhere: u64,
    pub(crate) skipped: u64,
    pub(crate) base: Option<String>,
    pub(crate) cursor: Option<String>,
}

/// `bundle show`
#[derive(Serialize)]
pub(crate) struct BundleShow<'a> {
    pub(crate) schema: &'static str,
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) heads: Vec<String>,
    pub(crate) manifest: Option<&'a BundleInfo>,
}

/// `bundle verify`
#[derive(Serialize)]
pub(crate) struct BundleVerify {
    pub(crate) schema: &'static str,
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) ok: bool,
    pub(crate) counts: Counts,
    pub(crate) objects: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) forks: Vec<String>,
}

/// A bundle that `import` has taken in.
#[derive(Serialize)]
pub(crate) struct ImportedBundle {
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) taken: Counts,
    pub(crate) known: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) forks: Vec<String>,
    pub(crate) conflicts: Vec<KeyConflict>,
    pub(crate) conflicts_count: u64,
    pub(crate) new_writer: bool,
}

/// Two records under one key.
#[derive(Serialize)]
pub(crate) struct KeyConflict {
    pub(crate) kind: &'static str,
    pub(crate) key: String,
    pub(crate) here: Vec<String>,
    pub(crate) came: Vec<String>,
}
