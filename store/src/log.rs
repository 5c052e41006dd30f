//! Appending: one batch, one sync, one commit point (I2); sealing; recovery of the open segment.
//!
//! Every append takes the store's lock for one short batch, so any number of processes may append; each finds out
//! under the lock what the others added. After a failed write or sync the log refuses until the store is opened
//! anew (I9). Knows nothing of the index beyond what it hands over for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::codec::length_u32;
use crate::env::{Env, File, Lock, LockMode};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Fact, encode_events};
use crate::frame::{Effort, Frame, FrameKey, FrameKind, Packer, Unpacker};
use crate::id::{EventId, IdSet, ObjectId, SegmentId, Seq};
use crate::index::{Feed, OpenFeed, SegmentRow};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, FRAME_EVENTS_MAX, LOCK_WAIT_MICROS_MAX, SEGMENT_BYTES_TARGET,
    SEGMENT_EVENTS_TARGET, SEGMENT_NAMES_TARGET,
};
use crate::lock::lock;
use crate::object::{Objects, ObjectsFrame, Stored};
use crate::open_ids::{OpenIds, Published};
use crate::scan::{Ending, Marks, Row, ScanStart, digest, offset_u32, scan_open};
use crate::segment::{Commit, Contents, EventsPlace, HEADER_BYTES, LogTail, Run, SegmentHeader, read_frame};
use crate::segments::{SegmentSet, open_path, sealed_path, segments_dir};
use crate::table::{IdEntry, NameEntry};
use crate::writer::{Tip, WriterKey, encode_tips};

/// A record that is to become an event of the own log.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What the event says; the time of appending is set when it is appended.
    pub fact: Fact,
    /// Under what it is to be found.
    pub marks: Marks,
}

/// An event of any log that came from elsewhere, checked.
#[derive(Clone, Debug)]
pub struct Received {
    /// The event.
    pub event: Event,
    /// Its id.
    pub id: EventId,
    /// Under what it is to be found.
    pub marks: Marks,
}

/// What is appended in one batch.
#[derive(Clone, Default)]
pub struct Prepared {
    /// Objects, compressed.
    pub frames: Vec<ObjectsFrame>,
    /// New events of the own log.
    pub drafts: Vec<Draft>,
    /// Events of the own log about records that are here already, under a writer that must not go on.
    pub reissued: Vec<Draft>,
    /// Events of any log from elsewhere.
    pub received: Vec<Received>,
    /// Tips that came with them.
    pub tips: Vec<Tip>,
    /// The segments that were asked whether they hold the drafts' records, before the store's lock was taken.
    pub asked: Option<Arc<SegmentSet>>,
}

impl Prepared {
    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
            && self.drafts.is_empty()
            && self.reissued.is_empty()
            && self.received.is_empty()
            && self.tips.is_empty()
    }

    /// Bytes that the objects take.
    pub fn file_bytes(&self) -> u64 {
        self.frames.iter().map(|objects| objects.frame.file_bytes()).sum()
    }
}

/// Whether records are in segments that have been sealed since they were asked for, or, where that is said, in the
/// open segment before the part that a log has read.
pub type EarlierIds<'a> = dyn Fn(&[ObjectId], bool) -> Result<Vec<bool>> + 'a;

/// Finds a record that stands before the part of the open segment that a log has read.
pub type Fetch<'a> = dyn Fn(&ObjectId) -> Result<Vec<u8>> + 'a;

/// The open segment as the writing process knows it.
struct OpenSegment {
    path: PathBuf,
    file: Box<dyn File>,
    header: SegmentHeader,
    key: FrameKey,
    /// Where this process started to read it; what lies before is in the index.
    base: ScanStart,
    contents: Contents,
    /// Objects before the base, which `contents` does not list.
    objects_before: u32,
    ids: Arc<OpenIds>,
    end: u64,
    batch: u64,
    tail: LogTail,
    /// Up to where the index has been handed what is here.
    fed: FedMark,
    rows: Vec<Row>,
    tips: Vec<Tip>,
    /// Whether all up to `end` is known to be durable.
    durable: bool,
    /// Where the last batch starts that another process wrote and may not have made durable.
    doubtful: Option<u64>,
    /// The hash of all up to `end`, where this process has written all of it: the file need not be read to name it.
    hasher: Option<blake3::Hasher>,
    packer: Packer,
    /// What a large batch was put together in.
    out: Vec<u8>,
}

/// Room for what a batch holds beside its objects: grown only by unusually many events.
const OUT_RESERVE_BYTES: usize = 2 << 20;

#[derive(Clone, Copy, Default)]
struct FedMark {
    end: u64,
    events: u32,
    ids: usize,
    names: usize,
    runs: usize,
    events_frames: usize,
}

/// The appending side of one store in one process.
pub struct Log {
    env: Env,
    store: PathBuf,
    key: Arc<WriterKey>,
    open: Option<OpenSegment>,
    /// Feeds of segments that have been sealed and are still to be indexed.
    sealed: Vec<([u8; 16], u64, Feed)>,
    failed: bool,
    /// Whether an open segment is read from its start even where the index knows most of it.
    from_start: bool,
    published: Published,
}

/// What an open segment holds.
pub(crate) struct OpenContents {
    pub(crate) nonce: [u8; 16],
    pub(crate) frames: Vec<EventsPlace>,
    pub(crate) runs: Vec<Run>,
    pub(crate) events: u32,
    pub(crate) end: u64,
}

/// Asks what the index knows of the open segment, so that reading starts there; asked only where it is read.
pub type Checkpoint<'a> = &'a dyn Fn() -> Result<Option<SegmentRow>>;

impl Log {
    /// Starts with nothing read.
    pub fn new(env: &Env, store: &Path, key: Arc<WriterKey>, published: Published) -> Log {
        Log {
            env: env.clone(),
            store: store.to_owned(),
            key,
            open: None,
            sealed: Vec::new(),
            failed: false,
            from_start: false,
            published,
        }
    }

    fn set_open(&mut self, open: Option<OpenSegment>) {
        let ids = open.as_ref().map(|open| Arc::clone(&open.ids));
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = ids;
        self.open = open;
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        lock(&self.env, &self.store.join("lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)
    }

    /// Appends a batch and makes it durable; returns the ids of the own events that it made. Drafts whose record is
    /// already in the open segment are dropped. `tail_before` gives the own tail where there is no open segment.
    pub fn append(
        &mut self,
        prepared: Prepared,
        checkpoint: Checkpoint<'_>,
        earlier: &EarlierIds<'_>,
        tail_before: &dyn Fn() -> Result<LogTail>,
        fetch: &Fetch<'_>,
    ) -> Result<Vec<EventId>> {
        self.refuse_after_failure()?;
        let _lock = self.lock()?;
        self.refuse_old_key()?;
        self.refresh(checkpoint, tail_before, fetch)?;
        let result = self.append_locked(prepared, earlier);
        if result.is_err() {
            self.failed = true;
            self.set_open(None);
        }
        let ids = result?;
        let open = self.open.as_ref().expect("appending leaves the segment open");
        let many = open.contents.names.len() >= SEGMENT_NAMES_TARGET;
        if many || open.end >= SEGMENT_BYTES_TARGET || open.contents.events >= SEGMENT_EVENTS_TARGET {
            self.seal_locked(fetch).inspect_err(|_| self.failed = true)?;
        }
        Ok(ids)
    }

    fn refuse_after_failure(&self) -> Result<()> {
        if self.failed {
            return Err(Error::new(
                ErrorKind::Failed,
                "cannot append: an earlier write to this store failed; open it anew",
            ));
        }
        Ok(())
    }

    /// Another process may have given the store a new writer; then the old log must not grow (I3).
    fn refuse_old_key(&self) -> Result<()> {
        let path = self.store.join("writer.key");
        let secret = crate::layout::read_small(&self.env, &path, 32)
            .map_err(|error| Error::io(format!("cannot read `{}`", path.display()), error))?;
        if secret != self.key.secret() {
            let message = "another process has given this store a new writer: open it anew";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    fn append_locked(&mut self, prepared: Prepared, earlier: &EarlierIds<'_>) -> Result<Vec<EventId>> {
        let now = self.env.clock.now();
        let writer = self.key.id();
        let open = self.open.as_mut().expect("refreshed under the lock");
        if !open.durable {
            open.sync()?;
        }
        if open.tail.writer != writer {
            open.tail = LogTail::empty(writer);
        }
        let mut tail = open.tail;
        let mut drafts = fresh(prepared.drafts, open, earlier)?;
        drafts.extend(prepared.reissued);
        assert!(drafts.len() + prepared.received.len() <= BATCH_EVENTS_MAX, "I10: batches are bounded");
        let mut events: Vec<Received> = Vec::with_capacity(drafts.len() + prepared.received.len());
        let mut buffer = Vec::new();
        for draft in drafts {
            let seq = Seq::new(tail.seq + 1).expect("one more than a count is not zero");
            let fact = Fact { appended: now, ..draft.fact };
            let event = Event { writer, seq, previous: tail.event, fact };
            let id = event.id_with(&mut buffer);
            tail = LogTail { writer, seq: seq.get(), event: id };
            events.push(Received { event, id, marks: draft.marks });
        }
        let own = events.iter().map(|event| event.id).collect();
        // Whoever receives own events from beyond the tail takes a new writer first.
        let beyond =
            |received: &Received| received.event.writer == writer && received.event.seq.get() > tail.seq;
        assert!(!prepared.received.iter().any(beyond), "I3: one log is written in one place");
        events.extend(prepared.received);
        if prepared.frames.is_empty() && events.is_empty() && prepared.tips.is_empty() {
            return Ok(own);
        }
        open.write_batch(prepared.frames, events, prepared.tips, tail, now)?;
        Ok(own)
    }

    /// Finds out what other processes did, recovers what a dead one left, and makes a segment where there is none.
    fn refresh(
        &mut self,
        checkpoint: Checkpoint<'_>,
        tail_before: &dyn Fn() -> Result<LogTail>,
        fetch: &Fetch<'_>,
    ) -> Result<()> {
        if let Some(open) = &mut self.open {
            let length = match self.env.fs.metadata(&open.path) {
                Ok(metadata) => metadata.bytes,
                // Sealed by another process.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                Err(error) => return Err(Error::io("cannot look at the open segment", error)),
            };
            if length == open.end {
                return Ok(());
            }
            self.set_open(None);
        }
        let dir = segments_dir(&self.store);
        let doing = |error| Error::io(format!("cannot list segments in `{}`", dir.display()), error);
        let found = self.env.fs.list(&dir).map_err(doing)?.into_iter().find(|entry| {
            entry.name.to_str().is_some_and(|name| name.starts_with("open-") && name.ends_with(".seg"))
        });
        match found {
            Some(entry) => {
                let from_start = self.from_start;
                let open = self.recover(&dir.join(entry.name), checkpoint, from_start, fetch)?;
                self.set_open(Some(open));
                Ok(())
            }
            None => {
                let tail = tail_before()?;
                let open = self.create(tail)?;
                self.set_open(Some(open));
                Ok(())
            }
        }
    }

    /// Reads an open segment and cuts what was never acknowledged: also the footer of a sealing that was cut short,
    /// which may be torn.
    fn recover(
        &self,
        path: &Path,
        checkpoint: Checkpoint<'_>,
        from_start: bool,
        fetch: &Fetch<'_>,
    ) -> Result<OpenSegment> {
        let doing = || format!("cannot recover segment `{}`", path.display());
        let file = self.env.fs.open_write(path).map_err(|error| Error::io(doing(), error))?;
        let header = SegmentHeader::read(file.as_ref()).map_err(|error| error.context(doing()))?;
        let key = FrameKey::new(&header.nonce);
        let whole = ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail: header.tail, events: 0 };
        #[cfg(feature = "sim")]
        if crate::switches::planted(crate::switches::Fault::CutMore) {
            cut_more(file.as_ref(), &key, whole)?;
        }
        let start_of = |row: &SegmentRow| ScanStart {
            offset: row.end,
            batch: row.batch,
            tail: row.tail,
            events: row.events,
        };
        let row = checkpoint()?.filter(|row| row.nonce == header.nonce);
        // What the index has seen was acknowledged: it must not be taken for a torn tail and cut.
        let acknowledged = row.as_ref().map_or(0, |row| row.end);
        let checkpoint = row.as_ref().filter(|row| {
            !from_start && row.batch > 0 && checkpoint_holds(file.as_ref(), &key, &start_of(row))
        });
        let base = checkpoint.map_or(whole, start_of);
        let mut open = OpenSegment {
            path: path.to_owned(),
            file,
            header,
            key,
            base,
            contents: Contents {
                events: base.events,
                raw_bytes: checkpoint.map_or(0, |row| row.raw_bytes),
                kinds: checkpoint.map_or_else(Default::default, |row| row.kinds.clone()),
                ..Contents::default()
            },
            objects_before: checkpoint.map_or(0, |row| row.objects),
            ids: OpenIds::new(path.to_owned(), header.nonce, base.batch == 0),
            end: base.offset,
            batch: base.batch,
            tail: base.tail,
            fed: FedMark { end: base.offset, events: base.events, ..FedMark::default() },
            rows: Vec::new(),
            tips: Vec::new(),
            durable: false,
            doubtful: None,
            hasher: None,
            packer: Packer::new(Effort::FAST),
            out: Vec::new(),
        };
        open.read(doing, acknowledged, fetch)?;
        // Whoever made it may have died before its name was durable.
        self.sync_names()?;
        Ok(open)
    }

    fn create(&self, tail: LogTail) -> Result<OpenSegment> {
        let mut nonce = [0; 16];
        self.env.entropy.fill(&mut nonce);
        let header = SegmentHeader { nonce, created: self.env.clock.now(), tail };
        let path = open_path(&self.store, &nonce);
        let aside = self.store.join("tmp").join(format!("segment-{}", crate::id::encode_hex(&nonce)));
        let doing = |error| Error::io(format!("cannot create segment `{}`", path.display()), error);
        let fs = &self.env.fs;
        // Left by processes that died while they held the lock that is held now.
        for entry in fs.list(&self.store.join("tmp")).map_err(doing)? {
            if entry.name.to_str().is_some_and(|name| name.starts_with("segment-")) {
                fs.remove(&self.store.join("tmp").join(entry.name)).map_err(doing)?;
            }
        }
        let file = fs.create(&aside, true).map_err(doing)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header.encode());
        file.write_all_at(&header.encode(), 0).map_err(doing)?;
        file.sync().map_err(doing)?;
        fs.rename(&aside, &path).map_err(doing)?;
        self.sync_names()?;
        let base = ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail, events: 0 };
        Ok(OpenSegment {
            path: path.clone(),
            file,
            key: FrameKey::new(&nonce),
            header,
            base,
            contents: Contents::default(),
            objects_before: 0,
            ids: OpenIds::new(path, nonce, true),
            end: base.offset,
            batch: 0,
            tail,
            fed: FedMark { end: base.offset, ..FedMark::default() },
            rows: Vec::new(),
            tips: Vec::new(),
            durable: true,
            doubtful: None,
            hasher: Some(hasher),
            packer: Packer::new(Effort::FAST),
            out: Vec::new(),
        })
    }

    /// Makes the names in the segments' directory durable, and those of the files beside it.
    fn sync_names(&self) -> Result<()> {
        self.sync_segments_dir()?;
        self.env
            .fs
            .sync_dir(&self.store)
            .map_err(|error| Error::io(format!("cannot sync `{}`", self.store.display()), error))
    }

    fn sync_segments_dir(&self) -> Result<()> {
        #[cfg(feature = "sim")]
        if crate::switches::planted(crate::switches::Fault::SkipDirSync) {
            return Ok(());
        }
        let dir = segments_dir(&self.store);
        self.env
            .fs
            .sync_dir(&dir)
            .map_err(|error| Error::io(format!("cannot sync `{}`", dir.display()), error))
    }

    /// Seals the open segment, if it holds anything.
    pub fn seal(&mut self, checkpoint: Checkpoint<'_>, fetch: &Fetch<'_>) -> Result<()> {
        self.refuse_after_failure()?;
        let _lock = self.lock()?;
        let none = || Err(Error::new(ErrorKind::NotFound, "there is no open segment"));
        match self.refresh(checkpoint, &none, fetch) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.open.as_ref().is_some_and(|open| open.batch > 0) {
            self.seal_locked(fetch).inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }

    fn seal_locked(&mut self, fetch: &Fetch<'_>) -> Result<()> {
        let mut open = self.open.take().expect("there is an open segment to seal");
        if !open.durable {
            open.sync()?;
        }
        if open.base.offset != HEADER_BYTES as u64 {
            // What lies before was taken on the index's word; the footer must not be.
            let (fed, end) = (open.fed, open.end);
            open = self.recover(&open.path, &|| Ok(None), true, fetch)?;
            if open.end != end {
                let path = open.path.display();
                return Err(Error::corrupt(format!(
                    "cannot seal segment `{path}`: what was read before has changed"
                )));
            }
            open.sync()?;
            open.rows.retain(|row| row.event >= fed.events);
            open.fed.end = fed.end;
        }
        let doing = |error| Error::io(format!("cannot seal segment `{}`", open.path.display()), error);
        let footer = open.contents.footer(&open.key, open.end);
        open.file.write_all_at(&footer, open.end).map_err(doing)?;
        open.file.sync().map_err(doing)?;
        let bytes = open.end + footer.len() as u64;
        let id = match open.hasher.take() {
            Some(mut hasher) => SegmentId::from_bytes(*hasher.update(&footer).finalize().as_bytes()),
            None => hash_file(open.file.as_ref(), bytes)?,
        };
        self.name_sealed(&open.path, &id)?;
        let from = open.fed.end;
        self.sealed.push((open.header.nonce, from, open.feed(Some(id))));
        self.set_open(None);
        Ok(())
    }

    /// Gives a file that ends in a footer its name.
    fn name_sealed(&self, path: &Path, id: &SegmentId) -> Result<()> {
        let sealed = sealed_path(&self.store, id);
        let doing = |error| Error::io(format!("cannot name segment `{}`", sealed.display()), error);
        self.env.fs.rename(path, &sealed).map_err(doing)?;
        self.sync_segments_dir()
    }

    /// Makes sure that all that can be read of the open segment is durable, so that it may leave (I6).
    pub fn settle(&mut self, checkpoint: Checkpoint<'_>, fetch: &Fetch<'_>) -> Result<()> {
        self.refuse_after_failure()?;
        let _lock = self.lock()?;
        let none = || Err(Error::new(ErrorKind::NotFound, "there is no open segment"));
        match self.refresh(checkpoint, &none, fetch) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let open = self.open.as_mut().expect("refreshed under the lock");
        if !open.durable {
            open.sync().inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }

    /// Reads the open segment from its start, unless this process has done so.
    pub fn read_whole(&mut self, checkpoint: Checkpoint<'_>, fetch: &Fetch<'_>) -> Result<()> {
        self.refuse_after_failure()?;
        let _lock = self.lock()?;
        if self.open.as_ref().is_some_and(|open| open.base.batch > 0) {
            self.set_open(None);
        }
        let none = || Err(Error::new(ErrorKind::NotFound, "there is no open segment"));
        self.from_start = true;
        let read = self.refresh(checkpoint, &none, fetch);
        self.from_start = false;
        match read {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What the open segment holds, where this process knows all of it.
    pub(crate) fn open_contents(&self) -> Option<OpenContents> {
        let open = self.open.as_ref().filter(|open| open.base.batch == 0)?;
        Some(OpenContents {
            nonce: open.header.nonce,
            frames: open.contents.events_frames.clone(),
            runs: open.contents.runs.clone(),
            events: open.contents.events,
            end: open.end,
        })
    }

    /// How many events of the open segment wait to be indexed.
    pub fn events_waiting(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.rows.len())
    }

    /// How many sealed segments wait to be indexed.
    pub fn sealed_waiting(&self) -> usize {
        self.sealed.len()
    }

    /// Takes what the index has not been handed yet: each with the nonce of its segment and where it starts.
    pub fn take_feeds(&mut self) -> Vec<([u8; 16], u64, Feed)> {
        let mut feeds = std::mem::take(&mut self.sealed);
        if let Some(open) = self.open.as_mut().filter(|open| open.fed.end < open.end) {
            let from = open.fed.end;
            feeds.push((open.header.nonce, from, open.feed(None)));
        }
        feeds
    }

    /// Takes only the feeds of segments that have been sealed.
    pub fn take_sealed_feeds(&mut self) -> Vec<([u8; 16], u64, Feed)> {
        std::mem::take(&mut self.sealed)
    }
}

/// Whether the commit that a checkpoint stands on is really there.
fn checkpoint_holds(file: &dyn File, key: &FrameKey, start: &ScanStart) -> bool {
    let Some(at) = start.offset.checked_sub(Commit::FILE_BYTES) else { return false };
    let Ok(frame) = read_frame(file, key, at) else { return false };
    frame.kind == FrameKind::Commit
        && Commit::decode(&frame.stored).is_ok_and(|commit| {
            commit.batch == start.batch && commit.tail == start.tail && commit.events == start.events
        })
}

/// The BLAKE3 of a file, which names a sealed segment.
pub fn hash_file(file: &dyn File, bytes: u64) -> Result<SegmentId> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..length], at)
            .map_err(|error| Error::io("cannot hash a segment", error))?;
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(SegmentId::from_bytes(*hasher.finalize().as_bytes()))
}

/// Cuts the batch before a torn one: the fault that I8 keeps out.
#[cfg(feature = "sim")]
fn cut_more(file: &dyn File, key: &FrameKey, whole: ScanStart) -> Result<()> {
    let (mut start, mut end) = (whole.offset, whole.offset);
    let scanned = scan_open(file, key, whole, &mut |batch| {
        start = std::mem::replace(&mut end, batch.end);
        Ok(())
    })?;
    let doing = |error| Error::io("cannot cut too much", error);
    if scanned.ending == Ending::Torn && scanned.damage.is_empty() {
        file.set_len(start).map_err(doing)?;
        file.sync().map_err(doing)?;
    }
    Ok(())
}

/// The drafts whose records the open segment does not hold, each record once.
fn fresh(drafts: Vec<Draft>, open: &OpenSegment, earlier: &EarlierIds<'_>) -> Result<Vec<Draft>> {
    let mut seen = IdSet::with_capacity_and_hasher(drafts.len(), Default::default());
    let mut fresh: Vec<Draft> = drafts
        .into_iter()
        .filter(|draft| open.ids.get(&draft.fact.objects[0]).is_none() && seen.insert(draft.fact.objects[0]))
        .collect();
    if !fresh.is_empty() {
        let records: Vec<ObjectId> = fresh.iter().map(|draft| draft.fact.objects[0]).collect();
        let mut held = earlier(&records, open.base.batch > 0)?.into_iter();
        fresh.retain(|_| !held.next().expect("one answer for each question"));
    }
    Ok(fresh)
}

fn plain_object(file: &dyn File, key: &FrameKey, frame: u32, slot: u32) -> Result<Vec<u8>> {
    let raw = read_frame(file, key, u64::from(frame))?.into_raw(&mut Unpacker::new())?;
    match Objects::decode(raw)?.get(slot as usize)? {
        Stored::Plain(bytes) => Ok(bytes.to_vec()),
        Stored::Recipe(_) => Err(Error::corrupt("a record is in parts")),
    }
}

impl OpenSegment {
    fn sync(&mut self) -> Result<()> {
        #[cfg(feature = "sim")]
        if crate::switches::planted(crate::switches::Fault::EarlyAck) {
            self.durable = true;
            return Ok(());
        }
        let doing = |error| Error::io(format!("cannot sync segment `{}`", self.path.display()), error);
        if let Some(from) = self.doubtful {
            // If its sync failed, the system may have forgotten that it is still to be written: a sync alone would
            // succeed and save nothing.
            let bytes = usize::try_from(self.end - from).expect("batches are bounded");
            let mut batch = vec![0; bytes];
            self.file.read_exact_at(&mut batch, from).map_err(doing)?;
            self.file.write_all_at(&batch, from).map_err(doing)?;
        }
        self.file.sync().map_err(doing)?;
        self.doubtful = None;
        self.durable = true;
        Ok(())
    }

    /// Reads from the base to the end, and cuts what was never acknowledged.
    fn read(&mut self, doing: impl Fn() -> String, acknowledged: u64, fetch: &Fetch<'_>) -> Result<()> {
        let mut unpacker = Unpacker::new();
        let mut digests = Vec::new();
        let mut end = self.base.offset;
        let scanned = scan_open(self.file.as_ref(), &self.key, self.base, &mut |batch| {
            self.doubtful = Some(std::mem::replace(&mut end, batch.end));
            // An event may be about a record of an earlier batch.
            let earlier = |id: &ObjectId| match self.ids.get(id) {
                Some((frame, slot)) => plain_object(self.file.as_ref(), &self.key, frame, slot),
                None => fetch(id),
            };
            let digest = digest(&batch, &mut unpacker, &earlier, false)?;
            self.ids.add(digest.ids.iter().map(|entry| (entry.id, (entry.frame, entry.slot))));
            digests.push(digest);
            Ok(())
        })
        .map_err(|error| error.context(doing()))?;
        if let Some(damage) = scanned.damage.into_iter().next() {
            return Err(damage.error.context(doing()));
        }
        if scanned.end < acknowledged {
            let message = format!(
                "batches up to byte {acknowledged} were whole once, now the last ends at {}",
                scanned.end
            );
            return Err(Error::corrupt(message).context(doing()));
        }
        for digest in digests {
            self.tips.extend(digest.tips.iter().copied());
            let rows = self.contents.absorb(digest)?;
            self.rows.extend(rows);
        }
        self.end = scanned.end;
        self.batch = scanned.batch;
        self.tail = scanned.tail;
        if scanned.ending != Ending::Clean {
            self.file.set_len(self.end).map_err(|error| Error::io(doing(), error))?;
            self.file.sync().map_err(|error| Error::io(doing(), error))?;
        }
        Ok(())
    }

    fn write_batch(
        &mut self,
        frames: Vec<ObjectsFrame>,
        events: Vec<Received>,
        tips: Vec<Tip>,
        tail: LogTail,
        now: crate::time::Timestamp,
    ) -> Result<()> {
        let objects: u64 = frames.iter().map(|objects| objects.frame.file_bytes()).sum();
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        out.reserve(usize::try_from(objects).expect("batches are bounded") + OUT_RESERVE_BYTES);
        let start = self.end;
        let at = |out: &Vec<u8>| start + out.len() as u64;
        let mut added = Contents { events: self.contents.events, ..Contents::default() };
        for objects in &frames {
            let offset = offset_u32(at(&out));
            added.objects_frames.push(offset);
            added.raw_bytes += u64::from(objects.frame.raw_bytes);
            added.ids.extend(objects.ids.iter().enumerate().map(|(slot, id)| IdEntry {
                id: *id,
                frame: offset,
                slot: length_u32(slot),
            }));
            objects.frame.place(&self.key, u64::from(offset), &mut out);
        }
        for part in events.chunks(FRAME_EVENTS_MAX) {
            let raw = encode_events(part.iter().map(|received| (&received.event, received.id)));
            let frame = self.packer.frame(FrameKind::Events, &raw);
            let offset = offset_u32(at(&out));
            let first_event = added.events_frames.last().map_or(added.events, |_| {
                added.events + length_u32(added.events_frames.len() * FRAME_EVENTS_MAX)
            });
            added.events_frames.push(EventsPlace { first_event, offset });
            frame.place(&self.key, u64::from(offset), &mut out);
        }
        if !tips.is_empty() {
            let offset = offset_u32(at(&out));
            added.tips_frames.push(offset);
            Frame::plain(FrameKind::Tips, encode_tips(&tips)).place(&self.key, u64::from(offset), &mut out);
        }
        let total = self.contents.events + length_u32(events.len());
        let commit = Commit { batch: self.batch + 1, tail, events: total, appended: now };
        let commit_at = at(&out);
        commit.frame().place(&self.key, commit_at, &mut out);
        assert!(out.len() as u64 <= BATCH_BYTES_MAX, "I10: batches are bounded before they are written");
        self.durable = false;
        self.file.write_all_at(&out, start).map_err(|error| {
            Error::io(format!("cannot append to segment `{}`", self.path.display()), error)
        })?;
        self.sync()?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&out);
        }
        self.take_in(added, events, tips);
        self.end = start + out.len() as u64;
        if objects > OUT_RESERVE_BYTES as u64 {
            // Bulk work: the next batch is as large, and fresh megabytes cost page faults each time.
            self.out = out;
        }
        self.batch = commit.batch;
        self.tail = tail;
        Ok(())
    }

    /// Notes what a written batch holds.
    fn take_in(&mut self, added: Contents, events: Vec<Received>, tips: Vec<Tip>) {
        self.ids.add(added.ids.iter().map(|entry| (entry.id, (entry.frame, entry.slot))));
        let contents = &mut self.contents;
        contents.raw_bytes += added.raw_bytes;
        contents.ids.extend(added.ids);
        contents.objects_frames.extend(added.objects_frames);
        contents.events_frames.extend(added.events_frames);
        contents.tips_frames.extend(added.tips_frames);
        for received in events {
            let number = contents.events;
            let fact = &received.event.fact;
            contents.names.extend(received.marks.names.iter().map(|(prefix, cites)| NameEntry {
                prefix: *prefix,
                event: number,
                cites: *cites,
            }));
            self.rows.push(Row {
                time: fact.time,
                event: number,
                kind: fact.kind,
                terms: received.marks.terms,
            });
            contents.add_event(&received.event, received.id);
        }
        self.tips.extend(tips);
    }

    /// What the index has not been handed yet.
    fn feed(&mut self, sealed: Option<SegmentId>) -> Feed {
        let contents = &self.contents;
        let fed = self.fed;
        let open = sealed.is_none().then(|| OpenFeed {
            ids: contents.ids[fed.ids..].to_vec(),
            names: contents.names[fed.names..].to_vec(),
            frames: contents.events_frames[fed.events_frames..].to_vec(),
        });
        // The last run may have grown since it was handed over, so it is handed over again.
        let runs = match sealed {
            Some(_) => contents.runs.clone(),
            None => contents.runs[fed.runs.saturating_sub(1).min(contents.runs.len())..].to_vec(),
        };
        self.fed = FedMark {
            end: self.end,
            events: contents.events,
            ids: contents.ids.len(),
            names: contents.names.len(),
            runs: contents.runs.len(),
            events_frames: contents.events_frames.len(),
        };
        Feed {
            row: SegmentRow {
                nonce: self.header.nonce,
                id: sealed,
                end: self.end,
                batch: self.batch,
                events: contents.events,
                objects: self.objects_before + length_u32(contents.ids.len()),
                raw_bytes: contents.raw_bytes,
                tail: self.tail,
                kinds: contents.kinds.clone(),
            },
            rows: std::mem::take(&mut self.rows),
            runs,
            tips: std::mem::take(&mut self.tips),
            open,
        }
    }
}
