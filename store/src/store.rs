//! The store: what the modules above do, behind one value.
//!
//! When [`Store::append`] returns, what it was given survives power loss. Reading needs no lock and verifies every
//! hash. The index follows: [`Store::catch_up`] brings it up to the segments. Knows nothing of agents, git or remotes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;

use crate::cache::FrameCache;
use crate::env::{Env, File, Lock, LockMode};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, decode_events};
use crate::frame::{FrameKey, FrameKind, Unpacker};
use crate::id::{EventId, ObjectId, SegmentId, WriterId};
use crate::index::{Feed, Index, OpenFeed, SegmentRow};
use crate::layout::{self, StoreId};
use crate::limits::{OBJECT_BYTES_MAX, RECIPE_DEPTH_MAX, RECIPE_PARTS_MAX, UNINDEXED_EVENTS_MAX};
use crate::log::{Log, Prepared};
use crate::object::{Objects, Part, Stored};
use crate::scan::{Batch, Digest, ScanStart, digest, scan};
use crate::segment::{Contents, HEADER_BYTES, LogTail, read_frame};
use crate::segments::{OpenFile, Sealed, SegmentSet};
use crate::seqs::EventSet;
use crate::writer::WriterKey;

/// Batches that are taken apart at once.
const DIGEST_BATCHES: usize = 8;

/// A segment, sealed or open.
#[derive(Clone)]
pub enum Handle {
    /// A sealed one.
    Sealed(Arc<Sealed>),
    /// The open one.
    Open(Arc<OpenFile>),
}

impl Handle {
    /// The file.
    pub fn file(&self) -> &dyn File {
        match self {
            Handle::Sealed(sealed) => sealed.file.as_ref(),
            Handle::Open(open) => open.file.as_ref(),
        }
    }

    /// The key of its checksums.
    pub fn key(&self) -> &FrameKey {
        match self {
            Handle::Sealed(sealed) => &sealed.key,
            Handle::Open(open) => &open.key,
        }
    }

    /// Its nonce.
    pub fn nonce(&self) -> &[u8; 16] {
        match self {
            Handle::Sealed(sealed) => &sealed.header.nonce,
            Handle::Open(open) => &open.header.nonce,
        }
    }

    /// The path of its file in a store.
    pub fn path(&self, store: &Path) -> PathBuf {
        match self {
            Handle::Sealed(sealed) => crate::segments::sealed_path(store, &sealed.id),
            Handle::Open(open) => open.path.clone(),
        }
    }
}

/// Where an object stands.
#[derive(Clone)]
pub struct Location {
    /// The segment.
    pub handle: Handle,
    /// The offset of the frame.
    pub frame: u32,
    /// The slot in the frame.
    pub slot: u32,
}

/// What a reader sees of a store at one moment.
#[derive(Clone)]
pub struct Snapshot {
    /// The segment files.
    pub segments: SegmentSet,
    /// What the index knows, by its segment numbers.
    pub rows: BTreeMap<u32, SegmentRow>,
    /// Events that the index has not seen.
    pub unindexed: Arc<Vec<Unindexed>>,
}

/// Events of one segment that the index has not seen.
pub struct Unindexed {
    /// The segment.
    pub handle: Handle,
    /// Event, id, number in the segment.
    pub events: Vec<(Event, EventId, u32)>,
    /// Objects frames in which their objects may stand.
    pub objects_frames: Vec<u32>,
}

/// A store, opened.
pub struct Store {
    env: Env,
    dir: PathBuf,
    id: StoreId,
    key: RwLock<Arc<WriterKey>>,
    index: Index,
    log: Mutex<Log>,
    segments: RwLock<SegmentSet>,
    cache: FrameCache,
}

impl Store {
    /// Makes a store in a directory, or finishes making it, and opens it.
    pub fn init(env: &Env, dir: &Path) -> Result<Store> {
        layout::init(env, dir)?;
        Store::open(env, dir)
    }

    /// Opens the store in a directory. What a dead process left is recovered when something is next appended;
    /// until then it is passed over.
    pub fn open(env: &Env, dir: &Path) -> Result<Store> {
        let id = layout::read_format(env, dir)?;
        let key = Arc::new(layout::read_writer(env, dir)?);
        let store = Store {
            env: env.clone(),
            dir: dir.to_owned(),
            id,
            index: Index::new(env, dir),
            log: Mutex::new(Log::new(env, dir, Arc::clone(&key))),
            key: RwLock::new(key),
            segments: RwLock::new(SegmentSet::default()),
            cache: FrameCache::default(),
        };
        crate::compact::finish_interrupted(&store)?;
        store.refresh()?;
        Ok(store)
    }

    /// The world that the store lives in.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which store this is, the same on all copies.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The own writer.
    pub fn writer(&self) -> WriterId {
        self.key().id()
    }

    /// The own writer's key.
    pub fn key(&self) -> Arc<WriterKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a new writer, because the log of the old one is written elsewhere too (I3). What is here of it stays.
    pub fn renew_writer(&self) -> Result<WriterId> {
        self.seal()?;
        let mut log = self.log();
        let key = Arc::new(layout::mint_writer(&self.env, &self.dir)?);
        *log = Log::new(&self.env, &self.dir, Arc::clone(&key));
        let id = key.id();
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(id)
    }

    /// Gives a segment that was built or received in this store's directory its name; durable when this returns.
    /// The caller has checked what is in it.
    pub fn adopt(&self, path: &Path, id: &SegmentId) -> Result<()> {
        let named = crate::segments::sealed_path(&self.dir, id);
        let doing = |error| Error::io(format!("cannot name segment `{}`", named.display()), error);
        self.env.fs.rename(path, &named).map_err(doing)?;
        self.env.fs.sync_dir(&crate::segments::segments_dir(&self.dir)).map_err(doing)?;
        self.refresh().map(|_| ())
    }

    /// Where the own log stands, durably or not.
    pub fn tail(&self) -> Result<LogTail> {
        let writer = self.writer();
        let set = self.refresh()?;
        let mut tail = LogTail::empty(writer);
        if let Some(open) = &set.open {
            let rows = self.index.read(|view| view.segments())?.unwrap_or_default();
            let row = rows.into_values().find(|row| row.nonce == open.header.nonce);
            let start = scan_start(open.header.tail, row.as_ref());
            let scanned = scan(open.file.as_ref(), &open.key, start, &mut |_| Ok(()))?;
            if scanned.tail.writer == writer {
                tail = scanned.tail;
            }
        }
        let sealed = self.tail_before()?;
        Ok(if sealed.seq > tail.seq { sealed } else { tail })
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the directory again, and returns the segments there are.
    pub fn refresh(&self) -> Result<SegmentSet> {
        let previous = self.segments();
        let set = SegmentSet::load(&self.env, &self.dir, &previous)?;
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = set.clone();
        Ok(set)
    }

    /// The segments as they were last looked at.
    pub fn segments(&self) -> SegmentSet {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Marks this process as busy with long work, so that readers do not do its indexing for it.
    pub fn busy(&self) -> Result<Option<Box<dyn Lock>>> {
        let path = self.dir.join("busy.lock");
        self.env
            .fs
            .try_lock(&path, LockMode::Shared)
            .map_err(|error| Error::io(format!("cannot lock `{}`", path.display()), error))
    }

    fn somebody_is_busy(&self) -> bool {
        let taken = self.env.fs.try_lock(&self.dir.join("busy.lock"), LockMode::Exclusive);
        matches!(taken, Ok(None))
    }

    // ---- appending

    /// Appends a batch; when this returns, it is durable. Returns the ids of the own events made of its drafts.
    pub fn append(&self, prepared: Prepared) -> Result<Vec<EventId>> {
        let mut log = self.log();
        let row = self.open_row()?;
        let earlier = |ids: &[ObjectId]| self.indexed_open(ids);
        let tail = || self.tail_before();
        let ids = log.append(prepared, row.as_ref(), &earlier, &tail)?;
        if log.sealed_waiting() > 0 {
            let feeds = log.take_sealed_feeds();
            drop(log);
            self.refresh()?;
            self.apply(feeds)?;
        }
        Ok(ids)
    }

    /// Seals the open segment, if it holds anything.
    pub fn seal(&self) -> Result<()> {
        let mut log = self.log();
        let row = self.open_row()?;
        // What is open is handed over first, so that the index has all of it once when the segment is sealed.
        log.seal(row.as_ref())?;
        let feeds = log.take_feeds();
        drop(log);
        self.refresh()?;
        self.apply(feeds)
    }

    /// Makes sure that all that is readable is durable, so that it may leave (I6).
    pub fn settle(&self) -> Result<()> {
        let row = self.open_row()?;
        self.log().settle(row.as_ref())
    }

    /// What the index knows of the open segment.
    fn open_row(&self) -> Result<Option<SegmentRow>> {
        if !self.index.exists() {
            return Ok(None);
        }
        let rows = self.index.read(|view| view.segments());
        // A damaged index costs time here, not data: the segment is read from its start.
        Ok(rows.ok().flatten().and_then(|rows| rows.into_values().find(|row| row.id.is_none())))
    }

    fn indexed_open(&self, ids: &[ObjectId]) -> Result<Vec<bool>> {
        let found = self.index.read(|view| {
            ids.iter().map(|id| Ok(!view.open_ids(id.as_bytes(), id.as_bytes())?.is_empty())).collect()
        })?;
        Ok(found.unwrap_or_else(|| vec![false; ids.len()]))
    }

    /// Where the own log stands according to the sealed segments.
    fn tail_before(&self) -> Result<LogTail> {
        let writer = self.writer();
        let set = self.refresh()?;
        if let Some(unreadable) = set.unreadable.first() {
            // A seq that was used must not be used again; which are used is not known.
            return Err(Error::corrupt(format!(
                "cannot append: segment `{}` cannot be read, run `agent-trace reindex`",
                unreadable.path.display()
            )));
        }
        let mut tail = LogTail::empty(writer);
        for sealed in &set.sealed {
            for run in sealed.directory.runs.iter().filter(|run| run.writer == writer) {
                if run.seq_last() > tail.seq {
                    tail = LogTail { writer, seq: run.seq_last(), event: run.last };
                }
            }
        }
        Ok(tail)
    }

    // ---- the index

    /// Brings the index up to the segments: first with what this process has in memory, then by reading.
    pub fn catch_up(&self) -> Result<()> {
        let feeds = self.log().take_feeds();
        self.apply(feeds)?;
        self.catch_up_from_files()
    }

    fn apply(&self, feeds: Vec<([u8; 16], u64, Feed)>) -> Result<()> {
        for (nonce, from, feed) in feeds {
            self.index.write(|change| {
                let rows = change.segments()?;
                let known = rows.iter().find(|(_, row)| row.nonce == nonce);
                let end = known.map_or(HEADER_BYTES as u64, |(_, row)| row.end);
                let sealed = known.is_some_and(|(_, row)| row.id.is_some());
                if end != from || sealed {
                    // Another process was faster; what is missing is read from the files.
                    return Ok(());
                }
                let number = known.map_or_else(|| next_number(&rows), |(number, _)| *number);
                if feed.open.is_some() {
                    change.set_open(number)?;
                }
                change.feed(number, &feed)
            })?;
        }
        Ok(())
    }

    fn catch_up_from_files(&self) -> Result<()> {
        let set = self.refresh()?;
        let rows = self.index.read(|view| view.segments())?.unwrap_or_default();
        let stale = rows.values().any(|row| match &row.id {
            Some(id) => set.get(id).is_none(),
            None => {
                set.open.as_ref().is_none_or(|open| open.header.nonce != row.nonce)
                    && set.sealed.iter().all(|sealed| sealed.header.nonce != row.nonce)
            }
        });
        if stale && set.unreadable.is_empty() {
            self.index.delete()?;
            return self.catch_up_from_files_of(&set, &BTreeMap::new());
        }
        self.catch_up_from_files_of(&set, &rows)
    }

    fn catch_up_from_files_of(&self, set: &SegmentSet, rows: &BTreeMap<u32, SegmentRow>) -> Result<()> {
        let by_nonce: HashMap<[u8; 16], &SegmentRow> = rows.values().map(|row| (row.nonce, row)).collect();
        for sealed in &set.sealed {
            let row = by_nonce.get(&sealed.header.nonce).copied();
            if row.is_none_or(|row| row.id.is_none()) {
                self.index_sealed(sealed, row)?;
            }
        }
        if let Some(open) = &set.open {
            let row = by_nonce.get(&open.header.nonce).copied();
            self.index_open(open, row)?;
        }
        Ok(())
    }

    /// Indexes what a sealed segment holds beyond what the index has seen of it.
    fn index_sealed(&self, sealed: &Arc<Sealed>, row: Option<&SegmentRow>) -> Result<()> {
        let start = scan_start(sealed.header.tail, row);
        let handle = Handle::Sealed(Arc::clone(sealed));
        let (contents, rows, tips, end) = self.take_apart(&handle, start)?;
        let directory = &sealed.directory;
        let feed = Feed {
            row: SegmentRow {
                nonce: sealed.header.nonce,
                id: Some(sealed.id),
                end: end.offset,
                batch: end.batch,
                events: directory.events,
                objects: directory.objects,
                raw_bytes: directory.raw_bytes,
                tail: end.tail,
                kinds: directory.kinds.clone(),
            },
            rows,
            runs: directory.runs.clone(),
            tips,
            open: None,
        };
        drop(contents);
        self.apply(vec![(sealed.header.nonce, start.offset, feed)])
    }

    fn index_open(&self, open: &Arc<OpenFile>, row: Option<&SegmentRow>) -> Result<()> {
        let start = scan_start(open.header.tail, row);
        let handle = Handle::Open(Arc::clone(open));
        let (contents, rows, tips, end) = self.take_apart(&handle, start)?;
        if end.offset == start.offset {
            return Ok(());
        }
        let mut kinds = row.map_or_else(BTreeMap::new, |row| row.kinds.clone());
        for (kind, events) in &contents.kinds {
            *kinds.entry(*kind).or_default() += events;
        }
        let added = crate::codec::length_u32(contents.ids.len());
        let feed = Feed {
            row: SegmentRow {
                nonce: open.header.nonce,
                id: None,
                end: end.offset,
                batch: end.batch,
                events: contents.events,
                objects: row.map_or(0, |row| row.objects) + added,
                raw_bytes: row.map_or(0, |row| row.raw_bytes) + contents.raw_bytes,
                tail: end.tail,
                kinds,
            },
            rows,
            runs: contents.runs.clone(),
            tips,
            open: Some(OpenFeed { ids: contents.ids, names: contents.names, frames: contents.events_frames }),
        };
        self.apply(vec![(open.header.nonce, start.offset, feed)])
    }

    /// Reads a segment from a place on and takes its batches apart, several at once.
    fn take_apart(
        &self,
        handle: &Handle,
        start: ScanStart,
    ) -> Result<(Contents, Vec<crate::scan::Row>, Vec<crate::writer::Tip>, ScanStart)> {

        let mut contents = Contents { events: start.events, ..Contents::default() };
        let (mut rows, mut tips, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut end = start;
        let mut flush = |waiting: &mut Vec<Batch>| -> Result<()> {
            for digest in self.digest_all(waiting)? {
                tips.extend(digest.tips.iter().copied());
                rows.extend(contents.absorb(digest));
            }
            waiting.clear();
            Ok(())
        };
        let scanned = scan(handle.file(), handle.key(), start, &mut |batch| {
            waiting.push(batch);
            if waiting.len() >= DIGEST_BATCHES { flush(&mut waiting) } else { Ok(()) }
        })?;
        flush(&mut waiting)?;
        if let Some(damage) = scanned.damage.into_iter().next() {
            let path = handle.path(&self.dir);
            return Err(damage.error.context(format!("segment `{}` is damaged", path.display())));
        }
        end.offset = scanned.end;
        end.batch = scanned.batch;
        end.tail = scanned.tail;
        end.events = scanned.events;
        Ok((contents, rows, tips, end))
    }

    /// Takes batches apart in parallel.
    pub fn digest_all(&self, batches: &[Batch]) -> Result<Vec<Digest>> {
        self.digest_all_with(None, batches)
    }

    /// The same for batches of a segment that is not in the store yet.
    pub fn digest_all_with(&self, extra: Option<&Arc<Sealed>>, batches: &[Batch]) -> Result<Vec<Digest>> {
        let fetch = |id: &ObjectId| {
            let mut bytes = Vec::new();
            self.copy_with(extra, id, &mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
            Ok(bytes)
        };
        batches.par_iter().map_init(Unpacker::new, |unpacker, batch| digest(batch, unpacker, &fetch)).collect()
    }

    // ---- reading

    /// What a reader sees now. The index is brought up to date first, unless little is missing and another process
    /// is at work that will do it.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut snapshot = self.look()?;
        let missing: usize = snapshot.unindexed.iter().map(|part| part.events.len()).sum();
        let many = missing > UNINDEXED_EVENTS_MAX as usize;
        if missing > 0 && (many || !self.somebody_is_busy()) {
            self.catch_up()?;
            snapshot = self.look()?;
        }
        Ok(snapshot)
    }

    fn look(&self) -> Result<Snapshot> {
        let segments = self.refresh()?;
        let rows = self.index.read(|view| view.segments())?.unwrap_or_default();
        let by_nonce: HashMap<[u8; 16], &SegmentRow> = rows.values().map(|row| (row.nonce, row)).collect();
        let mut unindexed = Vec::new();
        for sealed in &segments.sealed {
            let row = by_nonce.get(&sealed.header.nonce);
            if row.is_none_or(|row| row.id.is_none()) {
                let first = row.map_or(0, |row| row.events);
                unindexed.push(unindexed_sealed(sealed, first)?);
            }
        }
        if let Some(open) = &segments.open {
            let row = by_nonce.get(&open.header.nonce).copied();
            if let Some(part) = unindexed_open(open, row)? {
                unindexed.push(part);
            }
        }
        Ok(Snapshot { segments, rows, unindexed: Arc::new(unindexed) })
    }

    /// Whether the store holds an object. Look-ups of absent objects are cheap after [`Store::load_filters`].
    pub fn contains(&self, id: &ObjectId) -> Result<bool> {
        Ok(self.log().holds(id) || self.locate(id)?.is_some())
    }

    /// Whether the store holds each of these objects, asked together.
    pub fn contains_all(&self, ids: &[ObjectId]) -> Result<Vec<bool>> {
        let mut held: Vec<bool> = {
            let log = self.log();
            ids.iter().map(|id| log.holds(id)).collect()
        };
        let set = self.segments();
        let mut absent = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            if !held[index] {
                held[index] = set.find(id)?.is_some();
                if !held[index] {
                    absent.push(index);
                }
            }
        }
        if !absent.is_empty() && set.open.is_some() {
            let asked: Vec<ObjectId> = absent.iter().map(|index| ids[*index]).collect();
            for (index, found) in absent.into_iter().zip(self.indexed_open(&asked)?) {
                held[index] = found;
            }
        }
        Ok(held)
    }

    /// Reads the filters of all sealed segments, for bulk work.
    pub fn load_filters(&self) -> Result<()> {
        self.segments().sealed.iter().try_for_each(|sealed| sealed.load_filter())
    }

    /// Finds an object.
    pub fn locate(&self, id: &ObjectId) -> Result<Option<Location>> {
        let set = self.segments();
        if let Some((sealed, entry)) = set.find(id)? {
            return Ok(Some(Location {
                handle: Handle::Sealed(sealed),
                frame: entry.frame,
                slot: entry.slot,
            }));
        }
        if let Some(location) = self.locate_open(id, &set)? {
            return Ok(Some(location));
        }
        // Sealed, appended or compacted since the directory was last looked at.
        let set = self.refresh()?;
        if let Some((sealed, entry)) = set.find(id)? {
            return Ok(Some(Location {
                handle: Handle::Sealed(sealed),
                frame: entry.frame,
                slot: entry.slot,
            }));
        }
        self.locate_open(id, &set)
    }

    fn locate_open(&self, id: &ObjectId, set: &SegmentSet) -> Result<Option<Location>> {
        let Some(open) = &set.open else { return Ok(None) };
        let found = self.log().find_open(id);
        if let Some((path, entry)) = found {
            if *path == *open.path {
                let handle = Handle::Open(Arc::clone(open));
                return Ok(Some(Location { handle, frame: entry.frame, slot: entry.slot }));
            }
        }
        let indexed = self.index.read(|view| {
            let rows = view.segments()?;
            let row = rows.into_values().find(|row| row.nonce == open.header.nonce);
            let ids = view.open_ids(id.as_bytes(), id.as_bytes())?;
            Ok((row, ids.into_iter().next()))
        });
        let (row, entry) = indexed.ok().flatten().unwrap_or_default();
        let handle = Handle::Open(Arc::clone(open));
        if let (Some(_), Some(entry)) = (&row, entry) {
            return Ok(Some(Location { handle, frame: entry.frame, slot: entry.slot }));
        }
        let Some(part) = unindexed_open(open, row.as_ref())? else { return Ok(None) };
        for frame in part.objects_frames {
            let objects = self.objects(&handle, frame)?;
            for slot in 0..objects.len() {
                if objects.get_with_id(slot)?.0 == *id {
                    let slot = crate::codec::length_u32(slot);
                    return Ok(Some(Location { handle, frame, slot }));
                }
            }
        }
        Ok(None)
    }

    /// The decoded objects frame of a segment at an offset.
    pub fn objects(&self, handle: &Handle, offset: u32) -> Result<Arc<Objects>> {
        if let Some(objects) = self.cache.get(handle.nonce(), offset) {
            return Ok(objects);
        }
        let in_segment = |error: Error| {
            error.context(format!("cannot read segment `{}`", handle.path(&self.dir).display()))
        };
        let frame = read_frame(handle.file(), handle.key(), u64::from(offset)).map_err(in_segment)?;
        if frame.kind != FrameKind::Objects {
            return Err(in_segment(Error::corrupt(format!("frame at byte {offset}: expected objects"))));
        }
        let raw = frame.into_raw(&mut Unpacker::new()).map_err(in_segment)?;
        let objects = Arc::new(Objects::decode(raw).map_err(in_segment)?);
        self.cache.put(handle.nonce(), offset, Arc::clone(&objects));
        Ok(objects)
    }

    /// Reads an object whole and verifies its hash.
    pub fn read(&self, id: &ObjectId) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(id, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Hands an object over in parts, each verified before it is handed over; the whole is verified at the end.
    pub fn copy(&self, id: &ObjectId, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.copy_with(None, id, sink)
    }

    /// The same, where a segment that is not in the store yet is looked into first.
    pub fn copy_with(
        &self,
        extra: Option<&Arc<Sealed>>,
        id: &ObjectId,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (parts, bytes) = self.leaves_with(extra, id)?;
        let single = parts.len() == 1 && parts[0].id == *id;
        let mut whole = blake3::Hasher::new();
        let mut sum = 0u64;
        for part in parts {
            self.with_plain(extra, &part.id, &mut |bytes| {
                if bytes.len() as u64 != part.bytes {
                    return Err(mismatch(id));
                }
                sum += part.bytes;
                if !single {
                    whole.update(bytes);
                }
                sink(bytes)
            })?;
        }
        if !single && (sum != bytes || whole.finalize().as_bytes() != id.as_bytes()) && !checks_skipped() {
            return Err(mismatch(id));
        }
        Ok(())
    }

    /// The plain objects that an object is put together from, in order, and its length.
    pub fn leaves(&self, id: &ObjectId) -> Result<(Vec<Part>, u64)> {
        self.leaves_with(None, id)
    }

    fn leaves_with(&self, extra: Option<&Arc<Sealed>>, id: &ObjectId) -> Result<(Vec<Part>, u64)> {
        let mut leaves = Vec::new();
        let total = self.leaves_into(extra, id, None, 0, &mut leaves)?;
        Ok((leaves, total))
    }

    /// Finds an object, in a segment that is not in the store yet or in the store.
    pub fn locate_with(&self, extra: Option<&Arc<Sealed>>, id: &ObjectId) -> Result<Option<Location>> {
        if let Some(sealed) = extra {
            if let Some(entry) = sealed.find(id)? {
                let handle = Handle::Sealed(Arc::clone(sealed));
                return Ok(Some(Location { handle, frame: entry.frame, slot: entry.slot }));
            }
        }
        self.locate(id)
    }

    fn leaves_into(
        &self,
        extra: Option<&Arc<Sealed>>,
        id: &ObjectId,
        bytes: Option<u64>,
        depth: usize,
        leaves: &mut Vec<Part>,
    ) -> Result<u64> {
        if depth > RECIPE_DEPTH_MAX {
            return Err(Error::corrupt(format!("the recipe of object `{}` is too deep", id.short())));
        }
        let location = self.locate_with(extra, id)?.ok_or_else(|| missing(id))?;
        let objects = self.objects(&location.handle, location.frame)?;
        let total = match objects.get(location.slot as usize)? {
            Stored::Plain(plain) => {
                leaves.push(Part { id: *id, bytes: plain.len() as u64 });
                plain.len() as u64
            }
            Stored::Recipe(recipe) => {
                if recipe.id != *id {
                    return Err(mismatch(id));
                }
                for part in &recipe.parts {
                    self.leaves_into(extra, &part.id, Some(part.bytes), depth + 1, leaves)?;
                }
                recipe.bytes
            }
        };
        if bytes.is_some_and(|bytes| bytes != total)
            || total > OBJECT_BYTES_MAX
            || leaves.len() > RECIPE_PARTS_MAX
        {
            return Err(mismatch(id));
        }
        Ok(total)
    }

    /// Hands a plain object's bytes over after comparing their hash.
    fn with_plain(
        &self,
        extra: Option<&Arc<Sealed>>,
        id: &ObjectId,
        work: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let location = self.locate_with(extra, id)?.ok_or_else(|| missing(id))?;
        let objects = self.objects(&location.handle, location.frame)?;
        let Stored::Plain(bytes) = objects.get(location.slot as usize)? else { return Err(mismatch(id)) };
        if !checks_skipped() && ObjectId::of(bytes) != *id {
            return Err(mismatch(id));
        }
        work(bytes)
    }

    /// Reads an event by its place.
    pub fn event(&self, handle: &Handle, number: u32, row: Option<&SegmentRow>) -> Result<(Event, EventId)> {
        let place = match handle {
            Handle::Sealed(sealed) => sealed.directory.locate_event(number),
            Handle::Open(_) => {
                let frames = self.index.read(|view| view.open_frames())?.unwrap_or_default();
                crate::segment::locate_event(&frames, number)
                    .filter(|_| row.is_some_and(|row| number < row.events))
            }
        };
        let broken = || {
            let path = handle.path(&self.dir);
            Error::corrupt(format!("segment `{}` has no event number {number}", path.display()))
        };
        let (offset, slot) = place.ok_or_else(broken)?;
        let mut events = read_events(handle, offset)?;
        if slot >= events.len() {
            return Err(broken());
        }
        Ok(events.swap_remove(slot))
    }

    /// The events that the store holds.
    pub fn held(&self, snapshot: &Snapshot) -> Result<EventSet> {
        let runs = self.index.read(|view| view.runs())?.unwrap_or_default();
        let indexed = runs.iter().map(|(_, run)| (run.writer, run.seq_first.get(), run.seq_last()));
        let rest = snapshot.unindexed.iter().flat_map(|part| &part.events);
        let rest = rest.map(|(event, _, _)| (event.writer, event.seq.get(), event.seq.get()));
        Ok(EventSet::from_ranges(indexed.chain(rest)))
    }
}

/// Reads the events of one frame.
pub fn read_events(handle: &Handle, offset: u32) -> Result<Vec<(Event, EventId)>> {
    let frame = read_frame(handle.file(), handle.key(), u64::from(offset))?;
    if frame.kind != FrameKind::Events {
        return Err(Error::corrupt(format!("frame at byte {offset}: expected events")));
    }
    decode_events(&frame.into_raw(&mut Unpacker::new())?)
}

fn checks_skipped() -> bool {
    #[cfg(feature = "sim")]
    if crate::switches::planted(crate::switches::Fault::SkipChecks) {
        return true;
    }
    false
}

fn mismatch(id: &ObjectId) -> Error {
    Error::corrupt(format!("object `{id}` is damaged: its bytes do not have its hash"))
}

/// The error for an object that is not here.
pub fn missing(id: &ObjectId) -> Error {
    Error::new(ErrorKind::NotFound, format!("object `{id}` is not in this store"))
}

fn next_number(rows: &BTreeMap<u32, SegmentRow>) -> u32 {
    rows.last_key_value().map_or(0, |(number, _)| number + 1)
}

fn scan_start(tail: LogTail, row: Option<&SegmentRow>) -> ScanStart {
    match row {
        Some(row) => ScanStart { offset: row.end, batch: row.batch, tail: row.tail, events: row.events },
        None => ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail, events: 0 },
    }
}

fn unindexed_sealed(sealed: &Arc<Sealed>, first: u32) -> Result<Unindexed> {
    let handle = Handle::Sealed(Arc::clone(sealed));
    let mut events = Vec::new();
    for place in &sealed.directory.events_frames {
        let decoded = read_events(&handle, place.offset)?;
        let numbers = place.first_event..;
        events.extend(
            decoded
                .into_iter()
                .zip(numbers)
                .filter(|(_, number)| *number >= first)
                .map(|((event, id), number)| (event, id, number)),
        );
    }
    Ok(Unindexed { handle, events, objects_frames: Vec::new() })
}

fn unindexed_open(open: &Arc<OpenFile>, row: Option<&SegmentRow>) -> Result<Option<Unindexed>> {
    let start = scan_start(open.header.tail, row);
    let bytes = open.file.len().map_err(|error| Error::io("cannot look at the open segment", error))?;
    if bytes <= start.offset {
        return Ok(None);
    }
    let handle = Handle::Open(Arc::clone(open));
    let mut part = Unindexed { handle, events: Vec::new(), objects_frames: Vec::new() };
    let mut unpacker = Unpacker::new();
    let mut number = start.events;
    let scanned = scan(open.file.as_ref(), &open.key, start, &mut |batch| {
        for (offset, frame) in batch.frames {
            match frame.kind {
                FrameKind::Objects => part.objects_frames.push(crate::scan::offset_u32(offset)),
                FrameKind::Events => {
                    for (event, id) in decode_events(&frame.into_raw(&mut unpacker)?)? {
                        part.events.push((event, id, number));
                        number += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    if let Some(damage) = scanned.damage.into_iter().next() {
        return Err(damage.error.context(format!("segment `{}` is damaged", open.path.display())));
    }
    Ok((!part.events.is_empty() || !part.objects_frames.is_empty()).then_some(part))
}
