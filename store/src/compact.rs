//! Rewrites segments to be small.

use crate::error::Result;
use crate::progress::Progress;
use crate::store::Store;

/// What a compaction would rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactPlan {
    /// Segments that would be rewritten.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects in them.
    pub objects: u64,
    /// Events in them.
    pub events: u64,
}

/// What a compaction has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Bytes of segments and index before.
    pub bytes_before: u64,
    /// Bytes of segments and index after.
    pub bytes_after: u64,
    /// Segments after.
    pub segments: u64,
}

/// Says what a compaction would do.
pub fn plan(_store: &Store) -> Result<CompactPlan> {
    Ok(CompactPlan::default())
}

/// Rewrites.
pub fn execute(_store: &Store, _plan: &CompactPlan, _progress: &dyn Progress) -> Result<CompactReport> {
    Ok(CompactReport::default())
}

pub(crate) fn finish_interrupted(_store: &Store) -> Result<()> {
    Ok(())
}
