//! Erasing: the event that says so goes first, then the bytes.
//!
//! `plan` says what goes, what stays and why. From the moment the event is durable it is decided, and whoever opens the
//! store carries it out: segment by segment, the smallest first, each put in place with a journal, so a cut anywhere
//! leaves a whole store. What comes down to the same parts as something live stays. `docs/erase.md` has all of it.

mod evict;
mod live;
mod plan;
mod rewrite;
mod room;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

pub use evict::evict;
pub use live::{Locate, Named, Removal, removal};
pub use plan::{ErasePlan, Stays, Wanted, plan};
pub use rewrite::rewrite;
pub(crate) use room::keep_back_in;

use crate::build::{Builder, Built};
use crate::compact::DONE_KEY;
use crate::env::LockMode;
use crate::erased::{EraseRecord, Erased};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EventId, IdSet, ObjectId, SegmentId};
use crate::intake::Intake;
use crate::kind::Kind;
use crate::limits::LOCK_WAIT_MICROS_MAX;
use crate::lock::lock;
use crate::progress::{Progress, Silent};
use crate::replace::{Why, sweep, switch};
use crate::segments::Sealed;
use crate::store::Store;
use crate::time::Timestamp;

/// Rounds until nothing new turns up: each names parts that were not named before.
const ROUNDS_MAX: usize = 8;

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects whose bytes are gone from here.
    pub objects: u64,
    /// Segments that were written anew.
    pub segments: u64,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes after.
    pub bytes_after: u64,
}

/// Erases what a plan names: appends the event, then removes the bytes. When this returns, both are durable.
pub fn execute(
    store: &Store,
    plan: &ErasePlan,
    reason: Option<&str>,
    progress: &dyn Progress,
) -> Result<(Vec<EventId>, Swept)> {
    let now = store.env().clock.now();
    let name = |store: &Store| append(store, &plan.objects, &plan.conversations, now, reason);
    let events = match name(store) {
        Err(error) if error.kind() == ErrorKind::Full => {
            room::make(store)?;
            // After a failed write the store refuses.
            let again = Store::open_as_it_is(store.env(), store.dir())?;
            return Ok((name(&again)?, complete(&again, progress)?));
        }
        named => named?,
    };
    Ok((events, complete(store, progress)?))
}

/// Appends erase events, durably; what other events named already is not named again.
pub fn append(
    store: &Store,
    objects: &BTreeSet<ObjectId>,
    conversations: &BTreeSet<String>,
    now: Timestamp,
    reason: Option<&str>,
) -> Result<Vec<EventId>> {
    let mut drafts = crate::log::Prepared::default();
    for record in EraseRecord::split(objects, conversations, now, reason) {
        let bytes = record.encode();
        let facts = record.facts(&bytes);
        let mut intake = Intake::new(store);
        intake.record(Kind::ERASE, &bytes, &facts, now, &[])?;
        let prepared = intake.take()?;
        drafts.frames.extend(prepared.frames);
        drafts.drafts.extend(prepared.drafts);
    }
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    store.append(drafts)
}

/// Carries out what has been decided and not been finished, where nobody else is at it. That there is no room for it is
/// no reason not to open the store.
pub(crate) fn finish_interrupted(store: &Store) -> Result<()> {
    let erased = store.reload_erased()?;
    if erased.is_empty() || erased.swept {
        return Ok(());
    }
    let path = store.dir().join("compact.lock");
    let taken = store.env().fs.try_lock(&path, LockMode::Exclusive);
    match taken.map_err(|error| Error::io("cannot lock `compact.lock`", error))? {
        Some(_lock) => match carry_out(store, &Silent) {
            Err(error)
                if matches!(error.kind(), ErrorKind::Full | ErrorKind::Unavailable | ErrorKind::Corrupt) =>
            {
                Ok(())
            }
            done => done.map(|_| ()),
        },
        None => Ok(()),
    }
}

/// Removes the bytes of all that is erased and has not been dealt with yet.
pub fn complete(store: &Store, progress: &dyn Progress) -> Result<Swept> {
    let is_full = |error: &Error| error.kind() == ErrorKind::Full;
    match store.catch_up() {
        Err(error) if is_full(&error) => {}
        done => {
            done?;
            let erased = store.reload_erased()?;
            if erased.is_empty() || erased.swept {
                return Ok(Swept::default());
            }
        }
    }
    let path = store.dir().join("compact.lock");
    let _lock = lock(store.env(), &path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    carry_out(store, progress)
}

/// The same for a store whose index is left behind: what is erased is read from the segments.
pub fn complete_unindexed(store: &Store, progress: &dyn Progress) -> Result<Swept> {
    let path = store.dir().join("compact.lock");
    let _lock = lock(store.env(), &path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    carry_out(store, progress)
}

/// The same whatever the file `erased` says: what is back is found.
pub fn complete_again(store: &Store, progress: &dyn Progress) -> Result<Swept> {
    store.catch_up()?;
    store.unsweep()?;
    complete(store, progress)
}

/// The caller holds `compact.lock`.
fn carry_out(store: &Store, progress: &dyn Progress) -> Result<Swept> {
    match carry_out_once(store, progress) {
        Err(error) if error.kind() == ErrorKind::Full => {
            room::make(store)?;
            let again = Store::open_as_it_is(store.env(), store.dir())?;
            let swept = carry_out_once(&again, progress);
            // The one that failed sees what the other did.
            store.forget_frames();
            swept
        }
        done => done,
    }
}

fn carry_out_once(store: &Store, progress: &dyn Progress) -> Result<Swept> {
    let _busy = store.busy()?;
    crate::replace::roll_on(store)?;
    sweep(store)?;
    let done: HashSet<SegmentId> = compacted(store)?;
    let mut swept = Swept::default();
    let mut is_done = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        // The index is not needed: there may be no room for it.
        let set = store.seal_unindexed()?;
        store.learn_erased_from(&set)?;
        if let Some(unreadable) = set.unreadable.first() {
            let path = unreadable.path.display();
            return Err(Error::corrupt(format!(
                "cannot erase: segment `{path}` cannot be read, run `agent-trace reindex`"
            )));
        }
        let erased = store.erased();
        let ids: IdSet = erased.ids().copied().collect();
        let removal = removal(store, &|id| store.locate(id), &set.sealed, &[], &Named { ids: &ids })?;
        if removal.is_empty() {
            finish(store, Some(&erased), &is_done, swept.segments > 0)?;
            return Ok(swept);
        }
        // Whoever has the same parts must know them too, before they are gone here.
        let unnamed: BTreeSet<ObjectId> =
            removal.gone.iter().filter(|id| !ids.contains(*id)).copied().collect();
        if !unnamed.is_empty() {
            append(store, &unnamed, &BTreeSet::new(), store.env().clock.now(), None)?;
            continue;
        }
        swept.objects += removal.gone.len() as u64;
        let mut concerned: Vec<Arc<Sealed>> = Vec::new();
        for sealed in &set.sealed {
            if removal.concerns(sealed)? {
                concerned.push(Arc::clone(sealed));
            }
        }
        concerned.sort_by_key(|sealed| (sealed.bytes, sealed.id));
        progress.start("erasing", Some(concerned.iter().map(|sealed| sealed.bytes).sum()));
        for sealed in &concerned {
            let built = replace(store, sealed, &removal)?;
            swept.segments += 1;
            swept.bytes_before += sealed.bytes;
            swept.bytes_after += built.bytes;
            if done.contains(&sealed.id) {
                is_done.insert(built.id);
            }
            progress.advance(sealed.bytes);
        }
        progress.finish();
        store.forget_frames();
    }
    Err(Error::new(ErrorKind::Unavailable, "cannot erase: others keep adding what is erased"))
}

/// Writes a segment anew without what goes, in `tmp/`.
fn build(store: &Store, sealed: &Arc<Sealed>, removal: &Removal) -> Result<Built> {
    let mut builder = Builder::new(store.env(), &store.dir().join("tmp"), store.tail()?)?;
    match rewrite(sealed, removal, &mut builder) {
        Ok(()) => builder.finish(),
        Err(error) => {
            builder.discard();
            Err(error)
        }
    }
}

/// Writes a segment anew without what goes, and puts it in the old one's place.
fn replace(store: &Store, sealed: &Arc<Sealed>, removal: &Removal) -> Result<Built> {
    let full = |error: Error| {
        match error.kind() {
        ErrorKind::Full => error.context(format!(
            "cannot erase: {} bytes are needed to write a segment anew; the erase is decided, and goes on by itself",
            sealed.bytes
        )),
        _ => error,
    }
    };
    let built = build(store, sealed, removal).map_err(full)?;
    switch(store, Why::Erase, std::slice::from_ref(&built), std::slice::from_ref(sealed)).map_err(full)?;
    store.refresh()?;
    Ok(built)
}

/// Segments that a compaction has written.
fn compacted(store: &Store) -> Result<HashSet<SegmentId>> {
    let done = store.index().read(|view| view.side(DONE_KEY)).ok().flatten().flatten().unwrap_or_default();
    let ids = done.chunks_exact(32).map(|id| SegmentId::from_bytes(id.try_into().expect("chunks of 32")));
    Ok(ids.collect())
}

/// Makes the index anew; after an erase, removes what may hold copies before and says that all is done.
fn finish(
    store: &Store,
    erased: Option<&Erased>,
    is_done: &BTreeSet<SegmentId>,
    changed: bool,
) -> Result<()> {
    if erased.is_some() {
        room::clear_copies(store)?;
        store.tidy_elsewhere()?;
    }
    if changed && store.index().exists()? {
        match renew_index(store, is_done) {
            // It is made when there is room for it.
            Err(error) if error.kind() == ErrorKind::Full => store.index().delete()?,
            renewed => renewed?,
        }
    }
    store.forget_frames();
    if let Some(erased) = erased {
        store.change_erased(|known| Ok(known.names_same(erased).then(|| known.with_swept(true))))?;
    }
    room::keep_back(store);
    Ok(())
}

fn renew_index(store: &Store, is_done: &BTreeSet<SegmentId>) -> Result<()> {
    let mut done =
        store.index().read(|view| view.side(DONE_KEY)).ok().flatten().flatten().unwrap_or_default();
    done.extend(is_done.iter().flat_map(|id| *id.as_bytes()));
    store.index().renew()?;
    store.index().write(|change| change.set_side(DONE_KEY, Some(&done)))?;
    store.catch_up()?;
    store.index().shrink()
}
