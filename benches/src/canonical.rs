//! The canonical form of one JSON record, for the bare loop: the store's own, behind one function.

use agent_trace_store::json::Canonicalizer;

use crate::report::Result;

/// Canonicalises records one after the other.
#[derive(Default)]
pub(crate) struct Canonical {
    canonicalizer: Canonicalizer,
}

impl Canonical {
    /// Appends the canonical form of one line to `out`.
    pub(crate) fn append(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<()> {
        Ok(self.canonicalizer.canonicalize(line, out)?)
    }
}
