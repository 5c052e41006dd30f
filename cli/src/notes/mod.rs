//! Git notes under `refs/notes/agent-trace`: for commits with lines of an agent, what a reader of the repository may know.
//!
//! ```text
//! ledger ─► attach: payload ─► tree: one commit on the notes' ref ─► exchange: fetch beside, merge, push
//! ```
//!
//! Written by compare-and-swap on the ref, merged member by member, so that no note is lost whoever writes at once. What
//! comes from a remote is fetched into `refs/agent-trace/`, never over the user's refs; no refspec is left behind, nothing
//! is ever forced or pruned.

pub(crate) mod attach;
pub(crate) mod exchange;
pub(crate) mod payload;
pub(crate) mod tree;

/// The ref of the notes.
pub(crate) const NOTES: &str = "refs/notes/agent-trace";

#[cfg(test)]
mod tests;
