//! Rewrites segments to be small: bodies of one conversation side by side, records of one kind together, compressed
//! harder, each object once.
//!
//! Nothing is lost at any moment: the new segments are whole and durable before a journal names them, and from then on
//! whoever opens the store finishes what the journal says. Event and object ids do not depend on where they stand, so
//! a remote sees no change. Objects that nothing lists are kept too: another process may be about to list them.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use crate::build::{Builder, Built};
use crate::codec::length_u32;
use crate::env::LockMode;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Effort, FrameKind, Packer, Unpacker};
use crate::id::{ObjectId, SegmentId};
use crate::kind::Kind;
use crate::limits::{CHUNK_FRAME_BYTES_TARGET, COMPACT_FRAME_BYTES_TARGET, SEGMENT_EVENTS_TARGET};
use crate::lock::lock;
use crate::log::Received;
use crate::object::{Objects, ObjectsBuilder, ObjectsFrame, Recipe, Stored};
use crate::progress::Progress;
use crate::replace::{Why, sweep, switch};
use crate::scan::Marks;
use crate::segment::{all_ids, all_names, read_frame};
use crate::segments::Sealed;
use crate::store::{Handle, Store, read_events};
use crate::time::Timestamp;

pub(crate) const DONE_KEY: &[u8] = b"compacted";
/// Frames that are compressed at once.
const PACK_FRAMES: usize = 4;

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

/// Says what a compaction would do: segments that no compaction has written yet are rewritten.
pub fn plan(store: &Store) -> Result<CompactPlan> {
    let set = store.refresh()?;
    let mut plan = CompactPlan::default();
    for sealed in sources(store)? {
        plan.segments += 1;
        plan.bytes += sealed.bytes;
        plan.objects += u64::from(sealed.directory.objects);
        plan.events += u64::from(sealed.directory.events);
    }
    if let Some(open) = &set.open {
        let bytes = open.file.len().unwrap_or_default();
        if bytes > crate::segment::HEADER_BYTES as u64 {
            plan.segments += 1;
            plan.bytes += bytes;
            let rows = store.snapshot()?.rows;
            let row = rows.values().find(|row| row.nonce == open.header.nonce);
            plan.objects += row.map_or(0, |row| u64::from(row.objects));
            plan.events += row.map_or(0, |row| u64::from(row.events));
        }
    }
    Ok(plan)
}

/// Sealed segments that no compaction has written.
fn sources(store: &Store) -> Result<Vec<Arc<Sealed>>> {
    let done = store.index().read(|view| view.side(DONE_KEY))?.flatten().unwrap_or_default();
    let done: HashSet<&[u8]> = done.chunks_exact(32).collect();
    let set = store.refresh()?;
    if let Some(unreadable) = set.unreadable.first() {
        let path = unreadable.path.display();
        return Err(Error::corrupt(format!(
            "cannot compact: segment `{path}` cannot be read, run `agent-trace verify`"
        )));
    }
    Ok(set.sealed.into_iter().filter(|sealed| !done.contains(sealed.id.as_bytes().as_slice())).collect())
}

/// Rewrites what the plan names, and what has been added since.
pub fn execute(store: &Store, _plan: &CompactPlan, progress: &dyn Progress) -> Result<CompactReport> {
    // Erased bytes are not carried on.
    crate::erase::complete(store, progress)?;
    let _lock =
        lock(store.env(), &store.dir().join("compact.lock"), LockMode::Exclusive, 0).map_err(|error| {
            if error.kind() == ErrorKind::Unavailable {
                error.context("another compaction is at work")
            } else {
                error
            }
        })?;
    let _busy = store.busy()?;
    sweep(store)?;
    let bytes_before = store_bytes(store)?;
    store.seal()?;
    store.catch_up()?;
    let old = sources(store)?;
    if !old.is_empty() {
        progress.start("compacting", Some(old.iter().map(|sealed| sealed.bytes).sum()));
        let built = rewrite(store, &old, progress)?;
        progress.finish();
        switch(store, Why::Compact, &built, &old)?;
    }
    let segments = store.refresh()?.sealed.len() as u64;
    Ok(CompactReport { bytes_before, bytes_after: store_bytes(store)?, segments })
}

fn store_bytes(store: &Store) -> Result<u64> {
    let set = store.refresh()?;
    let open = set.open.as_ref().map_or(0, |open| open.file.len().unwrap_or_default());
    Ok(set.sealed.iter().map(|sealed| sealed.bytes).sum::<u64>() + open + store.index().bytes())
}

/// Everything that is being written.
struct Rewriter<'a> {
    store: &'a Store,
    dir: PathBuf,
    builder: Option<Builder>,
    built: Vec<Built>,
    written: HashSet<ObjectId>,
    waiting: Vec<ObjectsBuilder>,
}

impl Rewriter<'_> {
    fn builder(&mut self) -> Result<&mut Builder> {
        if self.builder.as_ref().is_some_and(Builder::is_full) {
            self.close()?;
        }
        if self.builder.is_none() {
            self.builder = Some(Builder::new(self.store.env(), &self.dir, self.store.tail()?)?);
        }
        Ok(self.builder.as_mut().expect("made above"))
    }

    fn close(&mut self) -> Result<()> {
        if let Some(builder) = self.builder.take() {
            self.built.push(builder.finish()?);
        }
        Ok(())
    }

    /// Puts a full frame in line; several are compressed at once.
    fn pack(&mut self, full: ObjectsBuilder, at_once: usize) -> Result<()> {
        if !full.is_empty() {
            self.waiting.push(full);
        }
        if self.waiting.len() < at_once {
            return Ok(());
        }
        let frames: Vec<ObjectsFrame> = std::mem::take(&mut self.waiting)
            .into_par_iter()
            .map_init(|| Packer::new(Effort::SMALL), |packer, mut waiting| waiting.finish(packer))
            .collect();
        for frame in frames {
            self.builder()?.objects(&frame)?;
        }
        Ok(())
    }
}

fn rewrite(store: &Store, old: &[Arc<Sealed>], progress: &dyn Progress) -> Result<Vec<Built>> {
    let mut rewriter = Rewriter {
        store,
        dir: store.dir().join("tmp"),
        builder: None,
        built: Vec::new(),
        written: HashSet::new(),
        waiting: Vec::new(),
    };
    let kept = store.segments().sealed.clone();
    let old_ids: HashSet<SegmentId> = old.iter().map(|sealed| sealed.id).collect();
    let kept: Vec<_> = kept.into_iter().filter(|sealed| !old_ids.contains(&sealed.id)).collect();
    let elsewhere = |id: &ObjectId| -> Result<bool> {
        for sealed in &kept {
            if sealed.find(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    rewrite_bodies(&mut rewriter, old, &elsewhere)?;
    let mut tips = store.index().read(|view| view.tips())?.unwrap_or_default();
    for sealed in old {
        rewrite_events(&mut rewriter, sealed, &elsewhere)?;
        rewriter.builder()?.tips(&std::mem::take(&mut tips))?;
        progress.advance(sealed.bytes);
    }
    rewriter.close()?;
    Ok(rewriter.built)
}

/// Writes the parts of bodies, those of one conversation side by side in order of time.
fn rewrite_bodies(
    rewriter: &mut Rewriter<'_>,
    old: &[Arc<Sealed>],
    elsewhere: &dyn Fn(&ObjectId) -> Result<bool>,
) -> Result<()> {
    let store = rewriter.store;
    let mut conversations: BTreeMap<String, Vec<(Timestamp, Vec<ObjectId>)>> = BTreeMap::new();
    for sealed in old {
        let handle = Handle::Sealed(Arc::clone(sealed));
        for place in &sealed.directory.events_frames {
            for (event, _) in read_events(&handle, place.offset)? {
                if event.fact.objects.len() > 1 {
                    let bodies = event.fact.objects[1..].to_vec();
                    conversations.entry(event.fact.key).or_default().push((event.fact.time, bodies));
                }
            }
        }
    }
    let mut groups: Vec<Vec<(Timestamp, Vec<ObjectId>)>> = conversations.into_values().collect();
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.sort_unstable();
    let (away, erased) = (store.elsewhere()?, store.erased());
    let mut frame = ObjectsBuilder::new();
    for body in groups.into_iter().flatten().flat_map(|(_, bodies)| bodies) {
        if away.contains(&body) || erased.contains(&body) {
            continue;
        }
        for part in store.leaves(&body)?.0 {
            if rewriter.written.contains(&part.id) || elsewhere(&part.id)? {
                continue;
            }
            let bytes = store.read(&part.id)?;
            if frame.raw_bytes() + bytes.len() > CHUNK_FRAME_BYTES_TARGET && !frame.is_empty() {
                rewriter.pack(std::mem::take(&mut frame), PACK_FRAMES)?;
            }
            frame.add(part.id, &bytes);
            rewriter.written.insert(part.id);
        }
    }
    rewriter.pack(frame, 1)
}

/// Writes the other objects of a segment, records of one kind together, and then its events.
fn rewrite_events(
    rewriter: &mut Rewriter<'_>,
    sealed: &Arc<Sealed>,
    elsewhere: &dyn Fn(&ObjectId) -> Result<bool>,
) -> Result<()> {
    let handle = Handle::Sealed(Arc::clone(sealed));
    let mut marks: Vec<Marks> = vec![Marks::default(); sealed.directory.events as usize];
    for entry in all_names(sealed.file.as_ref(), &sealed.key, &sealed.directory)? {
        let marks = marks.get_mut(entry.event as usize);
        marks
            .ok_or_else(|| Error::corrupt("a name stands for an event that is not there"))?
            .names
            .push((entry.prefix, entry.cites));
    }
    let mut events = Vec::with_capacity(marks.len());
    for place in &sealed.directory.events_frames {
        events.extend(read_events(&handle, place.offset)?);
    }
    let kinds = events.iter().map(|(event, _)| (event.fact.objects[0], event.fact.kind)).collect();
    rewrite_records(rewriter, sealed, &kinds, elsewhere)?;
    let received: Vec<Received> =
        events.into_iter().zip(marks).map(|((event, id), marks)| Received { event, id, marks }).collect();
    if rewriter.builder()?.events() + length_u32(received.len()) > SEGMENT_EVENTS_TARGET * 2 {
        rewriter.close()?;
    }
    rewriter.builder()?.received(&received)
}

fn rewrite_records(
    rewriter: &mut Rewriter<'_>,
    sealed: &Arc<Sealed>,
    kinds: &std::collections::HashMap<ObjectId, Kind>,
    elsewhere: &dyn Fn(&ObjectId) -> Result<bool>,
) -> Result<()> {
    let listed = all_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory)?;
    let mut wanted: BTreeMap<u32, BTreeMap<u32, ObjectId>> = BTreeMap::new();
    for entry in listed {
        if !rewriter.written.contains(&entry.id) && !elsewhere(&entry.id)? {
            wanted.entry(entry.frame).or_default().insert(entry.slot, entry.id);
        }
    }
    let mut by_kind: BTreeMap<Option<Kind>, ObjectsBuilder> = BTreeMap::new();
    let frames: Vec<(u32, BTreeMap<u32, ObjectId>)> = wanted.into_iter().collect();
    for part in frames.chunks(16) {
        let decoded: Vec<Vec<Found>> = part
            .par_iter()
            .map_init(Unpacker::new, |unpacker, (offset, slots)| read_slots(sealed, *offset, slots, unpacker))
            .collect::<Result<_>>()?;
        for (id, object) in decoded.into_iter().flatten() {
            if !rewriter.written.insert(id) {
                continue;
            }
            let kind = kinds.get(&id).copied();
            let frame = by_kind.entry(kind).or_default();
            let bytes = object.as_ref().map_or_else(|recipe| recipe.encode().len(), Vec::len);
            if frame.raw_bytes() + bytes > COMPACT_FRAME_BYTES_TARGET && !frame.is_empty() {
                rewriter.pack(std::mem::take(frame), PACK_FRAMES)?;
            }
            match &object {
                Ok(plain) => frame.add(id, plain),
                Err(recipe) => frame.add_recipe(recipe),
            }
        }
    }
    for frame in by_kind.into_values() {
        rewriter.pack(frame, PACK_FRAMES)?;
    }
    rewriter.pack(ObjectsBuilder::new(), 1)
}

type Found = (ObjectId, std::result::Result<Vec<u8>, Recipe>);

/// Reads objects of one frame and compares their hashes.
fn read_slots(
    sealed: &Sealed,
    offset: u32,
    slots: &BTreeMap<u32, ObjectId>,
    unpacker: &mut Unpacker,
) -> Result<Vec<Found>> {
    let frame = read_frame(sealed.file.as_ref(), &sealed.key, u64::from(offset))?;
    if frame.kind != FrameKind::Objects {
        return Err(Error::corrupt(format!("frame at byte {offset}: expected objects")));
    }
    let objects = Objects::decode(frame.into_raw(unpacker)?)?;
    let mut found = Vec::with_capacity(slots.len());
    for (slot, id) in slots {
        let (actual, stored) = objects.get_with_id(*slot as usize)?;
        if actual != *id {
            return Err(Error::corrupt(format!("object `{id}` is damaged: its bytes do not have its hash")));
        }
        found.push((
            *id,
            match stored {
                Stored::Plain(bytes) => Ok(bytes.to_vec()),
                Stored::Recipe(recipe) => Err(recipe),
            },
        ));
    }
    Ok(found)
}

/// Rebuilds the index small, and notes which segments need no compaction any more.
pub(crate) fn reindex_after(store: &Store, new: &[SegmentId]) -> Result<()> {
    let mut done =
        store.index().read(|view| view.side(DONE_KEY)).ok().flatten().flatten().unwrap_or_default();
    done.extend(new.iter().flat_map(|id| *id.as_bytes()));
    store.index().renew()?;
    store.index().write(|change| change.set_side(DONE_KEY, Some(&done)))?;
    store.catch_up()?;
    store.index().shrink()
}
