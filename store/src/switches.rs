//! Test-only switches that plant a fault in the store, to show that the simulation finds it.
//!
//! Compiled only with the `sim` feature; a thread's switches concern that thread alone.

use std::cell::Cell;

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Appending returns before the sync: an acknowledgement sent early.
    EarlyAck,
    /// Frame checksums and object hashes are not compared.
    SkipChecks,
    /// Received events are not checked against their log.
    SkipReceipt,
    /// The directory is not synced after a rename.
    SkipDirSync,
    /// What can be read is not made durable before it is indexed or leaves.
    SkipSettle,
    /// A push replaces its head before what it names has been sent.
    HeadFirst,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Plants a fault in this thread, or takes it out.
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether this fault is planted.
pub fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

pub(crate) fn frame_check_skipped() -> bool {
    planted(Fault::SkipChecks)
}
