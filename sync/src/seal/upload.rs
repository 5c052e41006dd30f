//! A segment that is sealed while it is sent. Its name there is known when all is sealed, and is kept here, durably,
//! before it is given: so whatever has a name there is known here under its plain one.

use std::sync::Arc;

use agent_trace_store::env::Env;
use agent_trace_store::{Result, SegmentId};

use super::book::Book;
use super::frames::{DataKey, Header, Place, Sealer};
use super::names::There;
use crate::transport::Upload;

/// A segment on its way.
pub(super) struct SealedUpload {
    inner: Box<dyn Upload>,
    sealer: Sealer,
    hasher: blake3::Hasher,
    bytes: u64,
    book: Arc<Book>,
}

impl SealedUpload {
    pub(super) fn new(
        env: &Env,
        inner: Box<dyn Upload>,
        (key, header, place): &(DataKey, Header, Place),
        book: Arc<Book>,
    ) -> SealedUpload {
        let sealer = Sealer::new(env, key, header, place);
        SealedUpload { inner, sealer, hasher: blake3::Hasher::new(), bytes: 0, book }
    }

    fn pass_on(&mut self, sealed: &[u8]) -> Result<()> {
        self.hasher.update(sealed);
        self.bytes += sealed.len() as u64;
        self.inner.write(sealed)
    }
}

impl Upload for SealedUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sealer.write(bytes);
        let mut sealed = std::mem::take(self.sealer.sealed());
        if !sealed.is_empty() {
            self.pass_on(&sealed)?;
            sealed.clear();
        }
        // Its memory is used again.
        *self.sealer.sealed() = sealed;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        // The last frame is sealed when the name is known; all is synced then.
        Ok(())
    }

    fn name(mut self: Box<Self>, id: &SegmentId) -> Result<()> {
        let sealed = self.sealer.finish(id.as_bytes());
        self.pass_on(&sealed)?;
        self.inner.sync()?;
        let there =
            There { name: SegmentId::from_bytes(*self.hasher.finalize().as_bytes()), bytes: self.bytes };
        let SealedUpload { inner, book, .. } = *self;
        book.note(id, there)?;
        inner.name(&there.name)
    }
}
