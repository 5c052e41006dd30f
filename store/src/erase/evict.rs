//! Evicting: the bytes of transcripts that a remote holds go from here; they are elsewhere from then on.
//!
//! Nothing is erased: the note that says where they are is durable first, and then all segments that hold some are
//! replaced at once, so that nothing is ever here in part.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::live::{Named, removal};
use super::{Swept, build, compacted, finish};
use crate::elsewhere::RemoteId;
use crate::env::LockMode;
use crate::error::{Error, Result};
use crate::id::{IdSet, ObjectId, SegmentId};
use crate::limits::LOCK_WAIT_MICROS_MAX;
use crate::lock::lock;
use crate::progress::Progress;
use crate::replace::{Why, sweep, switch};
use crate::segments::Sealed;
use crate::store::Store;

/// Drops the bytes of these bodies, and the parts that only they need. The caller knows that the remote holds them.
pub fn evict(
    store: &Store,
    remote: &RemoteId,
    bodies: &BTreeSet<ObjectId>,
    progress: &dyn Progress,
) -> Result<Swept> {
    let path = store.dir().join("compact.lock");
    let _lock = lock(store.env(), &path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    let _busy = store.busy()?;
    crate::replace::roll_on(store)?;
    sweep(store)?;
    let done = compacted(store)?;
    let set = store.seal_unindexed()?;
    if let Some(unreadable) = set.unreadable.first() {
        let path = unreadable.path.display();
        return Err(Error::corrupt(format!(
            "cannot evict: segment `{path}` cannot be read, run `agent-trace reindex`"
        )));
    }
    let erased = store.reload_erased()?;
    // Those that are elsewhere already need nothing of what is here.
    let away = store.elsewhere()?;
    let ids: IdSet = bodies.iter().chain(away.ids()).chain(erased.ids()).copied().collect();
    let removal = removal(store, &|id| store.locate(id), &set.sealed, &[], &Named { ids: &ids })?;
    let mut swept = Swept { objects: removal.gone.len() as u64, ..Swept::default() };
    let mut concerned: Vec<Arc<Sealed>> = Vec::new();
    for sealed in &set.sealed {
        if removal.concerns(sealed)? {
            concerned.push(Arc::clone(sealed));
        }
    }
    if concerned.is_empty() {
        return Ok(swept);
    }
    store.note_elsewhere(remote, &bodies.iter().copied().collect::<Vec<_>>())?;
    progress.start("evicting", Some(concerned.iter().map(|sealed| sealed.bytes).sum()));
    let (mut built, mut is_done) = (Vec::new(), BTreeSet::<SegmentId>::new());
    for sealed in &concerned {
        let one = build(store, sealed, &removal)?;
        swept.bytes_before += sealed.bytes;
        swept.bytes_after += one.bytes;
        if done.contains(&sealed.id) {
            is_done.insert(one.id);
        }
        built.push(one);
        progress.advance(sealed.bytes);
    }
    swept.segments = built.len() as u64;
    switch(store, Why::Erase, &built, &concerned)?;
    progress.finish();
    store.refresh()?;
    finish(store, None, &is_done, true)?;
    Ok(swept)
}
