//! How long work tells that it goes on; what is shown of it is the caller's business.

/// Hears of work in bytes. Calls come from any thread.
pub trait Progress: Sync {
    /// A stage begins; `bytes` is how much it has to do, if that is known.
    fn start(&self, stage: &str, bytes: Option<u64>);
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
    /// The stage is over.
    fn finish(&self);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self) {}
}
