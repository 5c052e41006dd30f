//! Capture: what agents and git tell through their hooks, from a payload on stdin to records in the store.
//!
//! ```text
//! hook ─► record: glance ─► entry ─► spool/            in milliseconds, then the agent goes on
//!                                      │
//!          next command or flusher ─► absorb ─► adapters ─► edit ─► traces ─┐
//!                                         ├──► transcripts ─► snapshots ────┼─► store; then the entry goes
//!                                         └──► commits ─► link ─► ledgers ──┘
//! ```
//!
//! The hot path (`record`, `entry`, `payload`, `repository`, `spool`, `tail`) starts no thread, opens no index and
//! reads a bounded number of bytes, whatever the store and the transcripts weigh. Nothing here knows how attribution
//! works, or how hooks are installed.

pub(crate) mod limits;
pub(crate) mod entry;
pub(crate) mod payload;
pub(crate) mod repository;
pub(crate) mod spool;
pub(crate) mod tail;
pub(crate) mod record;
pub(crate) mod adapters;
pub(crate) mod state;
pub(crate) mod transcripts;
pub(crate) mod calls;
mod rollouts;
pub(crate) mod absorb;
pub(crate) mod commits;
mod pushes;
pub(crate) mod flush;
pub(crate) mod shown;

#[cfg(test)]
mod tests;
