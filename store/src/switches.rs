//! Test-only switches that plant a fault in the store, to show that the simulation finds it, and one that makes limits
//! small, so that small worlds come near them.
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
    /// Events go without the bodies that they list, and are taken in without them.
    SkipClosure,
    /// What is erased is taken in all the same.
    TakeErased,
    /// Recovery cuts a batch more than the one that is torn.
    CutMore,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    static SMALL: Cell<bool> = const { Cell::new(false) };
}

/// Makes limits small in this thread, or as they are.
pub fn make_small(small: bool) {
    SMALL.set(small);
}

/// Whether limits are small.
pub fn is_small() -> bool {
    SMALL.get()
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
