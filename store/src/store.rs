//! The store: what the modules above do, behind one value.
//!
//! When [`Store::append`] returns, what it was given survives power loss. Reading needs no lock and verifies every
//! hash. The index follows: [`Store::catch_up`] brings it up to the segments. Knows nothing of agents, git or remotes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;

use crate::cache::FrameCache;
use crate::env::{Env, File, Lock, LockMode};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, decode_events};
use crate::frame::{FrameKey, FrameKind, Unpacker};
use crate::id::{EventId, ObjectId, SegmentId, Seq, WriterId};
use crate::index::{Feed, Index, OpenFeed, SegmentRow};
use crate::layout::{self, StoreId, Writer};
use crate::limits::{
    OBJECT_BYTES_MAX, RECIPE_DEPTH_MAX, RECIPE_PARTS_MAX, SEAL_EVENTS_MIN, UNINDEXED_EVENTS_MAX,
};
use crate::log::{Log, Prepared};
use crate::object::{Objects, Part, Stored};
use crate::open_ids::{self, Published};
use crate::scan::{Batch, Digest, ScanStart, digest, scan, scan_open};
use crate::segment::{Contents, EventsPlace, HEADER_BYTES, LogTail, Run, read_frame};
use crate::segments::{OpenFile, Sealed, SegmentSet};
use crate::seqs::EventSet;
use crate::writer::WriterKey;

mod erased;
mod indexing;
mod presence;
mod reading;

/// Batches that are taken apart at once.
const DIGEST_BATCHES: usize = 8;
/// The same in bytes before compression.
const DIGEST_BYTES: u64 = 48 << 20;

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
    /// Which index it was.
    pub born: Vec<u8>,
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

/// The open segment at one moment.
#[derive(Clone)]
pub struct OpenPart {
    /// The file.
    pub file: Arc<OpenFile>,
    /// Its events frames.
    pub frames: Vec<EventsPlace>,
    /// Its events.
    pub runs: Vec<Run>,
    /// How many events it has.
    pub events: u32,
    /// Up to where it goes.
    pub end: u64,
}

/// A store, opened.
pub struct Store {
    env: Env,
    dir: PathBuf,
    id: StoreId,
    key: RwLock<Arc<WriterKey>>,
    index: Index,
    log: Mutex<Log>,
    published: Published,
    /// The own tail when this process last sealed a segment.
    sealed_tail: Mutex<Option<LogTail>>,
    segments: RwLock<Arc<SegmentSet>>,
    cache: FrameCache,
    /// Whether filters are read as segments come.
    bulk: AtomicBool,
    /// Whether sealed segments are left for a later catch-up.
    deferred: AtomicBool,
    open_tables: Mutex<Option<Arc<OpenTables>>>,
    events: Mutex<VecDeque<EventsFrame>>,
    erased: RwLock<erased::Known>,
}

/// What the index says of the open segment, read once: what it says of a place stays true, since segments only grow.
struct OpenTables {
    nonce: [u8; 16],
    ids: HashMap<ObjectId, (u32, u32)>,
    frames: Vec<EventsPlace>,
    row: SegmentRow,
}

/// A decoded events frame: the segment's nonce, the offset, the events.
type EventsFrame = ([u8; 16], u32, Arc<Vec<(Event, EventId)>>);

/// Decoded events frames that are kept while reading.
const EVENTS_FRAMES_KEPT: usize = 8;

impl Store {
    /// Makes a store in a directory, or finishes making it, and opens it.
    pub fn init(env: &Env, dir: &Path) -> Result<Store> {
        layout::init(env, dir)?;
        crate::erase::keep_back_in(env, dir);
        Store::open(env, dir)
    }

    /// Opens the store in a directory. What a dead process left is recovered when something is next appended;
    /// until then it is passed over.
    pub fn open(env: &Env, dir: &Path) -> Result<Store> {
        let store = Store::open_as_it_is(env, dir)?;
        crate::erase::finish_interrupted(&store)?;
        Ok(store)
    }

    /// The same, where an erase that was cut is left as it is.
    pub(crate) fn open_as_it_is(env: &Env, dir: &Path) -> Result<Store> {
        let id = layout::read_format(env, dir)?;
        let (key, leave) = match layout::read_writer(env, dir)? {
            Writer::Here(key) => (key, false),
            Writer::Elsewhere(key) => (key, true),
            Writer::Lost => (layout::mint_writer(env, dir)?, false),
        };
        let key = Arc::new(key);
        let published = Published::default();
        let store = Store {
            env: env.clone(),
            dir: dir.to_owned(),
            id,
            index: Index::new(env, dir),
            log: Mutex::new(Log::new(env, dir, Arc::clone(&key), Published::clone(&published))),
            published,
            sealed_tail: Mutex::new(None),
            key: RwLock::new(key),
            segments: RwLock::new(Arc::default()),
            cache: FrameCache::default(),
            bulk: AtomicBool::new(false),
            deferred: AtomicBool::new(false),
            open_tables: Mutex::new(None),
            events: Mutex::new(VecDeque::new()),
            erased: RwLock::default(),
        };
        crate::replace::finish_interrupted(&store)?;
        crate::adoption::finish_interrupted(&store)?;
        store.refresh()?;
        if leave {
            // Where the tip cannot be kept, the copy that this one came from still signs its log.
            let _ = store.sign_off();
            store.replace_writer()?;
        }
        Ok(store)
    }

    /// States for the last time how far the own log goes, so that it can be passed on when its writer is given up.
    fn sign_off(&self) -> Result<()> {
        let tail = self.tail()?;
        let Some(seq) = Seq::new(tail.seq) else { return Ok(()) };
        let tips = vec![self.key().tip(seq, tail.event)];
        self.append(Prepared { tips, ..Prepared::default() }).map(|_| ())
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
        self.replace_writer()
    }

    /// The same without sealing, for whoever holds the store's lock.
    pub(crate) fn replace_writer(&self) -> Result<WriterId> {
        let mut log = self.log();
        let key = Arc::new(layout::mint_writer(&self.env, &self.dir)?);
        *log = Log::new(&self.env, &self.dir, Arc::clone(&key), Published::clone(&self.published));
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

    /// The same for a segment of which is known already what the index would learn by reading it.
    pub fn adopt_indexed(&self, path: &Path, id: &SegmentId, feed: Feed) -> Result<()> {
        self.adopt(path, id)?;
        self.apply(vec![(feed.row.nonce, HEADER_BYTES as u64, feed)])
    }

    /// Tells the index of segments that have just become part of the store, of which is known already what it would learn by
    /// reading them.
    pub fn index_known(&self, feeds: Vec<Feed>) -> Result<()> {
        self.apply(feeds.into_iter().map(|feed| (feed.row.nonce, HEADER_BYTES as u64, feed)).collect())
    }

    /// Where the own log stands, durably or not.
    pub fn tail(&self) -> Result<LogTail> {
        let writer = self.writer();
        // Looked at once: an open segment that could not be read now, and could be later, must not go unseen.
        let set = self.refresh()?;
        let sealed = self.tail_before(&set)?;
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
        if self.bulk.load(Ordering::Relaxed) {
            set.sealed.iter().try_for_each(|sealed| sealed.load_filter())?;
        }
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set.clone());
        self.reload_erased()?;
        Ok(set)
    }

    /// The segments as they were last looked at.
    pub fn segments(&self) -> Arc<SegmentSet> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
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
        let known = self.erased();
        let objects: Vec<ObjectId> = prepared.frames.iter().flat_map(|frame| &frame.ids).copied().collect();
        let mut log = self.log();
        let asked = prepared.asked.clone();
        let earlier = |ids: &[ObjectId], indexed: bool| {
            let mut held = if indexed { self.indexed_open(ids)? } else { vec![false; ids.len()] };
            if let Some(asked) = &asked {
                for sealed in self.refresh()?.sealed.iter().filter(|sealed| asked.get(&sealed.id).is_none()) {
                    for (id, held) in ids.iter().zip(&mut held) {
                        *held = *held || sealed.find(id)?.is_some();
                    }
                }
            }
            Ok(held)
        };
        let tail = || self.tail_of_sealed();
        let ids = log.append(prepared, &|| self.open_row(), &earlier, &tail, &|id| self.record_before(id))?;
        if log.sealed_waiting() > 0 {
            let feeds = log.take_sealed_feeds();
            let deferred = self.deferred.load(Ordering::Relaxed);
            let tail = feeds.last().map(|(_, _, feed)| feed.row.tail);
            *self.sealed_tail.lock().unwrap_or_else(PoisonError::into_inner) = tail;
            drop(log);
            self.refresh()?;
            if !deferred {
                self.apply(feeds)?;
            }
        } else {
            drop(log);
        }
        // What has been erased since it was looked at may just have been put back.
        let now = self.reload_erased()?;
        if !Arc::ptr_eq(&known, &now) && objects.iter().any(|id| now.contains(id)) {
            self.unsweep()?;
        }
        Ok(ids)
    }

    /// Leaves the index behind from now on: what is appended is durable, and indexed by the next catch-up.
    pub fn defer_index(&self) {
        self.deferred.store(true, Ordering::Relaxed);
    }

    /// Seals the open segment, if it holds anything.
    pub fn seal(&self) -> Result<()> {
        let mut log = self.log();
        // What is open is handed over first, so that the index has all of it once when the segment is sealed.
        log.seal(&|| self.open_row(), &|id| self.record_before(id))?;
        let feeds = log.take_feeds();
        drop(log);
        self.refresh()?;
        self.apply(feeds)
    }

    /// The same, where the index is left behind.
    pub(crate) fn seal_unindexed(&self) -> Result<SegmentSet> {
        let mut log = self.log();
        log.seal(&|| self.open_row(), &|id| self.record_before(id))?;
        drop(log.take_feeds());
        drop(log);
        self.refresh()
    }

    /// Makes sure that all that is readable is durable, so that it may leave (I6).
    pub fn settle(&self) -> Result<()> {
        #[cfg(feature = "sim")]
        if crate::switches::planted(crate::switches::Fault::SkipSettle) {
            return Ok(());
        }
        self.log().settle(&|| self.open_row(), &|id| self.record_before(id))
    }

    /// What the index knows of the open segment.
    fn open_row(&self) -> Result<Option<SegmentRow>> {
        if !self.index.exists()? {
            return Ok(None);
        }
        let rows = self.index.read(|view| view.segments());
        // A damaged index costs time here, not data: the segment is read from its start.
        Ok(rows.ok().flatten().and_then(|rows| rows.into_values().find(|row| row.id.is_none())))
    }

    /// Reads a record in a sealed segment, or in the indexed part of the open one; does not ask the log.
    fn record_before(&self, id: &ObjectId) -> Result<Vec<u8>> {
        let set = self.refresh()?;
        let mut place = set.find(id)?.map(|(sealed, entry)| (Handle::Sealed(sealed), entry));
        if let (None, Some(open)) = (&place, &set.open) {
            let indexed = self.index.read(|view| match view.is_open(&open.header.nonce)? {
                true => view.open_ids(id.as_bytes(), id.as_bytes()),
                false => Ok(Vec::new()),
            })?;
            let entry = indexed.unwrap_or_default().into_iter().next();
            place = entry.map(|entry| (Handle::Open(Arc::clone(open)), entry));
        }
        let (handle, entry) = place.ok_or_else(|| missing(id))?;
        match self.objects(&handle, entry.frame)?.get(entry.slot as usize)? {
            Stored::Plain(bytes) if ObjectId::of(bytes) == *id => Ok(bytes.to_vec()),
            _ => Err(mismatch(id)),
        }
    }

    fn indexed_open(&self, ids: &[ObjectId]) -> Result<Vec<bool>> {
        let found = self.index.read(|view| {
            ids.iter().map(|id| Ok(!view.open_ids(id.as_bytes(), id.as_bytes())?.is_empty())).collect()
        })?;
        Ok(found.unwrap_or_else(|| vec![false; ids.len()]))
    }

    /// Where the own log stands according to the sealed segments.
    fn tail_before(&self, set: &SegmentSet) -> Result<LogTail> {
        let writer = self.writer();
        if let Some(unreadable) = set.unreadable.first() {
            // A seq that was used must not be used again; which are used is not known.
            let message = format!("cannot append: segment `{}` cannot be read", unreadable.path.display());
            let hint = if unreadable.error.kind() == ErrorKind::Corrupt {
                ", run `agent-trace reindex`"
            } else {
                ""
            };
            return Err(Error::new(unreadable.error.kind(), message + hint));
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

    /// The same where there is no open segment: what the index has seen of the own log must stand in the others.
    fn tail_of_sealed(&self) -> Result<LogTail> {
        let tail = self.tail_before(&self.refresh()?)?;
        let known = *self.sealed_tail.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|known| known.writer == tail.writer && known.seq <= tail.seq) {
            // This process sealed it: no need to wait for the index, which it may be feeding just now.
            return Ok(tail);
        }
        let rows = self.index.read(|view| view.segments()).ok().flatten().unwrap_or_default();
        let seen = rows.values().filter(|row| row.tail.writer == tail.writer).map(|row| row.tail.seq).max();
        if seen.is_some_and(|seen| seen > tail.seq) {
            let message =
                "cannot append: a segment with the newest own events is gone, run `agent-trace reindex`";
            return Err(Error::corrupt(message));
        }
        Ok(tail)
    }

    /// Takes batches apart in parallel.
    pub fn digest_all(&self, batches: &[Batch]) -> Result<Vec<Digest>> {
        self.digest_all_with(&[], batches, false)
    }

    /// The same for batches of segments that are not in the store yet; where `prove` is set, recipes whose parts are at
    /// hand are put together.
    pub fn digest_all_with(
        &self,
        extra: &[Arc<Sealed>],
        batches: &[Batch],
        prove: bool,
    ) -> Result<Vec<Digest>> {
        let fetch = |id: &ObjectId| {
            let mut bytes = Vec::new();
            self.copy_with(extra, id, &mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
            Ok(bytes)
        };
        batches
            .par_iter()
            .map_init(Unpacker::new, |unpacker, batch| digest(batch, unpacker, &fetch, prove))
            .collect()
    }
}

/// Reads the events of one frame.
pub fn read_events(handle: &Handle, offset: u32) -> Result<Vec<(Event, EventId)>> {
    decode_events(&read_events_raw(handle, offset, &mut Unpacker::new())?)
}

/// The content of the events frame of a segment at an offset.
pub fn read_events_raw(handle: &Handle, offset: u32, unpacker: &mut Unpacker) -> Result<Vec<u8>> {
    let frame = read_frame(handle.file(), handle.key(), u64::from(offset))?;
    if frame.kind != FrameKind::Events {
        return Err(Error::corrupt(format!("frame at byte {offset}: expected events")));
    }
    frame.into_raw(unpacker)
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
    let scanned = scan_open(open.file.as_ref(), &open.key, start, &mut |batch| {
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
