//! The redb index: which segments there are, and which events a question is about, newest first.
//!
//! Everything here can be computed from the segments; the file may be deleted at any time. Ids and names of *sealed*
//! segments stand in their footers, so this file holds neither; it holds those of the open segment. No process keeps
//! it open between operations: it is opened under a lock, worked on briefly and closed. What it says is checked
//! against the segment it names, since redb does not check its pages when it reads them.
//!
//! Each *posting* row covers up to a fixed number of events of one segment that share a term; its key ends in the
//! newest time it covers, so the newest events of a term are found without reading the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError, WriteTransaction,
};

use crate::codec::{Decoder, Encoder, length_u32};
use crate::env::{Env, File, LockMode};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectId, SegmentId, WriterId};
use crate::kind::Kind;
use crate::limits::{INDEX_CACHE_BYTES, LOCK_WAIT_MICROS_MAX, POSTING_EVENTS_MAX};
use crate::lock::lock;
use crate::scan::{Row, Term};
use crate::segment::{EventsPlace, LogTail, Run, decode_run, encode_run};
use crate::table::{IdEntry, NameEntry};
use crate::time::Timestamp;
use crate::writer::{Tip, decode_tips, encode_tips};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const SEGMENTS: TableDefinition<u32, &[u8]> = TableDefinition::new("segments");
const POSTINGS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("postings");
const RUNS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("runs");
const TIPS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tips");
const OPEN_IDS: TableDefinition<&[u8], u64> = TableDefinition::new("open_ids");
const OPEN_NAMES: TableDefinition<&[u8], ()> = TableDefinition::new("open_names");
const OPEN_FRAMES: TableDefinition<u32, u32> = TableDefinition::new("open_frames");
const SIDE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("side");
const VERSION: &[u8] = b"1";

/// What the index knows of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// The segment's nonce, by which it is known open and sealed.
    pub nonce: [u8; 16],
    /// Its id once it is sealed.
    pub id: Option<SegmentId>,
    /// Up to where it is indexed.
    pub end: u64,
    /// The last batch that is indexed.
    pub batch: u64,
    /// Events that are indexed.
    pub events: u32,
    /// Objects that are indexed.
    pub objects: u32,
    /// Raw bytes of the objects that are indexed.
    pub raw_bytes: u64,
    /// The own log after the last batch that is indexed.
    pub tail: LogTail,
    /// Events by kind.
    pub kinds: BTreeMap<Kind, u32>,
}

impl SegmentRow {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(&self.nonce).u8(u8::from(self.id.is_some()));
        encoder.put(self.id.as_ref().map_or(&[0; 32], |id| id.as_bytes()));
        encoder.u64(self.end).u64(self.batch).u32(self.events).u32(self.objects).u64(self.raw_bytes);
        encoder.put(self.tail.writer.as_bytes()).u64(self.tail.seq).put(self.tail.event.as_bytes());
        encoder.u32(length_u32(self.kinds.len()));
        for (kind, events) in &self.kinds {
            encoder.u8(kind.number()).u32(*events);
        }
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Result<SegmentRow> {
        let mut decoder = Decoder::new("index row of a segment", bytes);
        let nonce = decoder.array()?;
        let sealed = decoder.u8()? == 1;
        let id = SegmentId::from_bytes(decoder.array()?);
        let mut row = SegmentRow {
            nonce,
            id: sealed.then_some(id),
            end: decoder.u64()?,
            batch: decoder.u64()?,
            events: decoder.u32()?,
            objects: decoder.u32()?,
            raw_bytes: decoder.u64()?,
            tail: LogTail {
                writer: WriterId::from_bytes(decoder.array()?),
                seq: decoder.u64()?,
                event: crate::id::EventId::from_bytes(decoder.array()?),
            },
            kinds: BTreeMap::new(),
        };
        for _ in 0..decoder.count(5, 256)? {
            let kind = Kind::from_number(decoder.u8()?);
            row.kinds.insert(kind, decoder.u32()?);
        }
        decoder.finish()?;
        Ok(row)
    }
}

/// What is added to the index for one segment.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The segment as it stands after this feed.
    pub row: SegmentRow,
    /// The events' rows.
    pub rows: Vec<Row>,
    /// The runs; all of the segment's where it is sealed, else the new ones.
    pub runs: Vec<Run>,
    /// Tips that came with it.
    pub tips: Vec<Tip>,
    /// What only an open segment keeps here.
    pub open: Option<OpenFeed>,
}

/// Tables of an open segment that have no footer yet.
#[derive(Clone, Debug, Default)]
pub struct OpenFeed {
    /// New objects.
    pub ids: Vec<IdEntry>,
    /// New names.
    pub names: Vec<NameEntry>,
    /// New events frames.
    pub frames: Vec<EventsPlace>,
}

/// Where an event stands: the index's number of the segment, and the event's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The index's number of the segment.
    pub segment: u32,
    /// The event's number in it.
    pub event: u32,
}

/// Takes the events of one posting, newest first, and the newest time that a later posting can have; says whether to
/// go on.
pub type TakePostings<'a> = dyn FnMut(&[(Timestamp, Place)], Timestamp) -> bool + 'a;

/// The index of one store, closed.
#[derive(Clone)]
pub struct Index {
    env: Env,
    path: PathBuf,
    lock_path: PathBuf,
}

/// A file of the environment, as redb wants it: also for databases that are no index.
pub struct Backend {
    file: Box<dyn File>,
}

impl Backend {
    /// Takes a file, open for reading and writing.
    pub fn new(file: Box<dyn File>) -> Backend {
        Backend { file }
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, bytes: u64) -> std::io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

/// Reads the file and keeps writes to itself: redb notes in the file that it is open, which a reader need not wait for.
#[derive(Debug)]
struct ReadBackend {
    backend: Backend,
    written: Mutex<Overlay>,
}

/// What a reading redb wrote: whole blocks by number, and the length.
#[derive(Debug)]
struct Overlay {
    bytes: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

const BLOCK_BYTES: u64 = 4096;

impl ReadBackend {
    fn new(file: Box<dyn File>) -> std::io::Result<ReadBackend> {
        let bytes = file.len()?;
        let written = Mutex::new(Overlay { bytes, blocks: BTreeMap::new() });
        Ok(ReadBackend { backend: Backend { file }, written })
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block as the file has it, zeroes where it has none.
    fn stored(&self, block: u64) -> std::io::Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(BLOCK_BYTES).expect("a block is small")];
        let mut filled = 0;
        while filled < content.len() {
            match self.backend.file.read_at(&mut content[filled..], block * BLOCK_BYTES + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(content)
    }
}

impl StorageBackend for ReadBackend {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.overlay().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let overlay = self.overlay();
        let end = offset + out.len() as u64;
        if end > overlay.bytes {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let touched = overlay.blocks.range(offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)).next().is_some();
        if !touched {
            return self.backend.file.read_exact_at(out, offset);
        }
        for block in offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            let content = match overlay.blocks.get(&block) {
                Some(content) => content.clone(),
                None => self.stored(block)?,
            };
            let from = offset.max(block * BLOCK_BYTES);
            let to = end.min((block + 1) * BLOCK_BYTES);
            let within =
                |at: u64, start: u64| usize::try_from(at - start).expect("within what was asked for");
            out[within(from, offset)..within(to, offset)].copy_from_slice(
                &content[within(from, block * BLOCK_BYTES)..within(to, block * BLOCK_BYTES)],
            );
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> std::io::Result<()> {
        self.overlay().bytes = bytes;
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut overlay = self.overlay();
        let end = offset + data.len() as u64;
        for block in offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            let content = match overlay.blocks.entry(block) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(free) => free.insert(self.stored(block)?),
            };
            let from = offset.max(block * BLOCK_BYTES);
            let to = end.min((block + 1) * BLOCK_BYTES);
            let within = |at: u64, start: u64| usize::try_from(at - start).expect("within what was given");
            content[within(from, block * BLOCK_BYTES)..within(to, block * BLOCK_BYTES)]
                .copy_from_slice(&data[within(from, offset)..within(to, offset)]);
        }
        Ok(())
    }
}

fn damaged(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Corrupted(_) => ErrorKind::Corrupt,
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => ErrorKind::Full,
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        redb::Error::Io(_) | redb::Error::PreviousIo => ErrorKind::Failed,
        redb::Error::TableTypeMismatch { .. } | redb::Error::UpgradeRequired(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, "cannot use the index").with_source(error)
}

impl Index {
    /// Names the index of a store directory; nothing is opened.
    pub fn new(env: &Env, store: &Path) -> Index {
        Index { env: env.clone(), path: store.join("index.redb"), lock_path: store.join("index.lock") }
    }

    /// Whether the file is there.
    pub fn exists(&self) -> Result<bool> {
        match self.env.fs.metadata(&self.path) {
            Ok(_) => Ok(true),
            // Any other failure does not say that it is not there; to read on without it would answer too little.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("cannot look at index `{}`", self.path.display()), error)),
        }
    }

    /// Opens the index, runs `work` on one read transaction, and closes it. `None` if there is no index.
    pub fn read<T>(&self, work: impl FnOnce(&View) -> Result<T>) -> Result<Option<T>> {
        if !self.exists()? {
            return Ok(None);
        }
        let _lock = lock(&self.env, &self.lock_path, LockMode::Shared, LOCK_WAIT_MICROS_MAX)?;
        let doing = |error| Error::io(format!("cannot open index `{}`", self.path.display()), error);
        let file = match self.env.fs.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(doing(error)),
        };
        let backend = ReadBackend::new(file).map_err(doing)?;
        guarded(|| {
            let database = open(backend)?;
            let view = View { transaction: database.begin_read().map_err(damaged)? };
            if view.version()?.as_deref() != Some(VERSION) {
                return Ok(None);
            }
            work(&view).map(Some)
        })
    }

    /// Opens the index (making it where there is none), runs `work` in one write transaction, commits and closes.
    pub fn write<T>(&self, work: impl FnOnce(&Change) -> Result<T>) -> Result<T> {
        let _lock = lock(&self.env, &self.lock_path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        if !self.exists()? {
            self.create()?;
        }
        let file = self
            .env
            .fs
            .open_write(&self.path)
            .map_err(|error| Error::io(format!("cannot open index `{}`", self.path.display()), error))?;
        guarded(|| {
            let database = open(Backend { file })?;
            let change = Change { transaction: begin(&database)? };
            let result = work(&change)?;
            change.transaction.commit().map_err(damaged)?;
            Ok(result)
        })
    }

    /// Makes an empty index under another name and renames it, so that a half-made one is never opened.
    fn create(&self) -> Result<()> {
        let fs = &self.env.fs;
        let aside = self.path.with_extension("redb.new");
        let doing = |error| Error::io(format!("cannot create index `{}`", self.path.display()), error);
        if fs.metadata(&aside).is_ok() {
            fs.remove(&aside).map_err(doing)?;
        }
        let file = fs.create(&aside, true).map_err(doing)?;
        guarded(|| {
            let database = open(Backend { file })?;
            let transaction = begin(&database)?;
            {
                let mut meta = transaction.open_table(META).map_err(damaged)?;
                meta.insert("version", VERSION).map_err(damaged)?;
                let mut born = [0; 16];
                self.env.entropy.fill(&mut born);
                meta.insert("born", born.as_slice()).map_err(damaged)?;
                for table in [RUNS, TIPS, SIDE, POSTINGS] {
                    transaction.open_table(table).map_err(damaged)?;
                }
                transaction.open_table(SEGMENTS).map_err(damaged)?;
            }
            transaction.commit().map_err(damaged)
        })?;
        fs.rename(&aside, &self.path).map_err(doing)?;
        fs.sync_dir(self.path.parent().expect("the index is in the store's directory")).map_err(doing)
    }

    /// Removes the file; the next use builds it anew.
    pub fn delete(&self) -> Result<()> {
        let _lock = lock(&self.env, &self.lock_path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        if self.exists()? {
            self.env.fs.remove(&self.path).map_err(|error| Error::io("cannot remove the index", error))?;
        }
        Ok(())
    }

    /// Gives room back that redb keeps for itself; the file is written anew for the most part.
    pub fn shrink(&self) -> Result<()> {
        let _lock = lock(&self.env, &self.lock_path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        let file = match self.env.fs.open_write(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(Error::io(format!("cannot open index `{}`", self.path.display()), error));
            }
        };
        guarded(|| {
            let mut database = open(Backend { file })?;
            database.compact().map(|_| ()).map_err(damaged)
        })
    }

    /// Removes all that is computed from segments and keeps what other modules noted, as far as it can be read.
    pub fn renew(&self) -> Result<()> {
        let notes = self.read(|view| view.sides()).ok().flatten().unwrap_or_default();
        self.delete()?;
        self.write(|change| notes.iter().try_for_each(|(key, value)| change.set_side(key, Some(value))))
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.env.fs.metadata(&self.path).map_or(0, |metadata| metadata.bytes)
    }

    /// Lets redb check its own pages; false or an error means that the index must be rebuilt.
    pub fn check(&self) -> Result<bool> {
        let _lock = lock(&self.env, &self.lock_path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        let Ok(file) = self.env.fs.open_write(&self.path) else { return Ok(true) };
        guarded(|| {
            let mut database = open(Backend { file })?;
            database.check_integrity().map_err(damaged)
        })
    }
}

fn open(backend: impl StorageBackend) -> Result<Database> {
    Database::builder().set_cache_size(INDEX_CACHE_BYTES).create_with_backend(backend).map_err(damaged)
}

fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut transaction = database.begin_write().map_err(damaged)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// redb asserts what it reads, so damage may show as a panic; it must not take the program with it.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::corrupt("the index is damaged: run `agent-trace reindex`")))
}

/// One read transaction.
pub struct View {
    transaction: redb::ReadTransaction,
}

macro_rules! table {
    ($view:expr, $definition:expr, $empty:expr) => {
        match $view.transaction.open_table($definition) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok($empty),
            Err(error) => return Err(damaged(error)),
        }
    };
}

impl View {
    fn version(&self) -> Result<Option<Vec<u8>>> {
        let table = table!(self, META, None);
        Ok(table.get("version").map_err(damaged)?.map(|value| value.value().to_vec()))
    }

    /// What distinguishes this index from one that was made anew.
    pub fn born(&self) -> Result<Vec<u8>> {
        let meta = table!(self, META, Vec::new());
        Ok(meta.get("born").map_err(damaged)?.map(|value| value.value().to_vec()).unwrap_or_default())
    }

    /// All segments by number.
    pub fn segments(&self) -> Result<BTreeMap<u32, SegmentRow>> {
        read_segments(&table!(self, SEGMENTS, BTreeMap::new()))
    }

    /// All runs, by writer; those of one log are not in order.
    pub fn runs(&self) -> Result<Vec<(u32, Run)>> {
        let table = table!(self, RUNS, Vec::new());
        let mut runs = Vec::new();
        for row in table.iter().map_err(damaged)? {
            let (key, value) = row.map_err(damaged)?;
            let segment = key.value().get(..4).ok_or_else(|| Error::corrupt("an index key ends early"))?;
            let segment = u32::from_be_bytes(segment.try_into().expect("four bytes"));
            let mut decoder = Decoder::new("index row of a run", value.value());
            runs.push((segment, decode_run(&mut decoder)?));
        }
        Ok(runs)
    }

    /// The newest tip of each writer.
    pub fn tips(&self) -> Result<Vec<Tip>> {
        let table = table!(self, TIPS, Vec::new());
        let mut tips = Vec::new();
        for row in table.iter().map_err(damaged)? {
            let (_, value) = row.map_err(damaged)?;
            tips.extend(decode_tips(&mut Decoder::new("index row of a tip", value.value()))?);
        }
        Ok(tips)
    }

    /// Objects of the open segment whose ids are from `low` to `high`.
    pub fn open_ids(&self, low: &[u8; 32], high: &[u8; 32]) -> Result<Vec<IdEntry>> {
        let table = table!(self, OPEN_IDS, Vec::new());
        let mut found = Vec::new();
        for row in table.range::<&[u8]>(low.as_slice()..=high.as_slice()).map_err(damaged)? {
            let (key, value) = row.map_err(damaged)?;
            let id: [u8; 32] =
                key.value().try_into().map_err(|_| Error::corrupt("an index key has a wrong length"))?;
            let place = value.value().to_be_bytes();
            found.push(IdEntry {
                id: ObjectId::from_bytes(id),
                frame: u32::from_be_bytes(place[..4].try_into().expect("four bytes")),
                slot: u32::from_be_bytes(place[4..].try_into().expect("four bytes")),
            });
        }
        Ok(found)
    }

    /// Whether the tables of the open segment are those of this one, not of one before or after it.
    pub fn is_open(&self, nonce: &[u8; 16]) -> Result<bool> {
        let open = self.open_number()?;
        let rows = self.segments()?;
        Ok(rows.iter().any(|(number, row)| row.nonce == *nonce && open == Some(*number)))
    }

    /// The segment whose tables those of the open segment are.
    pub fn open_number(&self) -> Result<Option<u32>> {
        let meta = table!(self, META, None);
        let open = meta.get("open").map_err(damaged)?;
        Ok(open.and_then(|value| value.value().try_into().ok().map(u32::from_be_bytes)))
    }

    /// Names of the open segment whose prefixes are from `low` to `high`.
    pub fn open_names(&self, low: &[u8; 8], high: &[u8; 8]) -> Result<Vec<NameEntry>> {
        let table = table!(self, OPEN_NAMES, Vec::new());
        let mut end = high.to_vec();
        end.extend_from_slice(&[255; 8]);
        let mut found = Vec::new();
        for row in table.range::<&[u8]>(low.as_slice()..=end.as_slice()).map_err(damaged)? {
            let (key, ()) = row.map(|(key, value)| (key, value.value())).map_err(damaged)?;
            if key.value().len() != 12 {
                return Err(Error::corrupt("an index key has a wrong length"));
            }
            found.push(NameEntry::decode(key.value()));
        }
        Ok(found)
    }

    /// Events frames of the open segment.
    pub fn open_frames(&self) -> Result<Vec<EventsPlace>> {
        let table = table!(self, OPEN_FRAMES, Vec::new());
        let mut frames = Vec::new();
        for row in table.iter().map_err(damaged)? {
            let (key, value) = row.map_err(damaged)?;
            frames.push(EventsPlace { first_event: key.value(), offset: value.value() });
        }
        Ok(frames)
    }

    /// Hands events of a term over, newest first by rows, until `take` says that it has enough. Each call gets the
    /// events of one row and the newest time that any later row can have.
    pub fn postings(&self, term: Term, take: &mut TakePostings<'_>) -> Result<()> {
        let table = table!(self, POSTINGS, ());
        let (low, high) = posting_range(term);
        for row in table.range::<&[u8]>(low.as_slice()..=high.as_slice()).map_err(damaged)?.rev() {
            let (key, value) = row.map_err(damaged)?;
            let (newest, events) = decode_posting(key.value(), value.value())?;
            if !take(&events, newest) {
                break;
            }
        }
        Ok(())
    }

    /// All rows of other modules.
    pub fn sides(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let table = table!(self, SIDE, BTreeMap::new());
        let mut sides = BTreeMap::new();
        for row in table.iter().map_err(damaged)? {
            let (key, value) = row.map_err(damaged)?;
            sides.insert(key.value().to_vec(), value.value().to_vec());
        }
        Ok(sides)
    }

    /// A row of another module, by its key.
    pub fn side(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let table = table!(self, SIDE, None);
        Ok(table.get(key).map_err(damaged)?.map(|value| value.value().to_vec()))
    }
}

fn read_segments(table: &impl ReadableTable<u32, &'static [u8]>) -> Result<BTreeMap<u32, SegmentRow>> {
    let mut rows = BTreeMap::new();
    for row in table.iter().map_err(damaged)? {
        let (key, value) = row.map_err(damaged)?;
        rows.insert(key.value(), SegmentRow::decode(value.value())?);
    }
    Ok(rows)
}

fn posting_range(term: Term) -> ([u8; 24], [u8; 24]) {
    let (mut low, mut high) = ([0; 24], [255; 24]);
    low[..8].copy_from_slice(&term.0);
    high[..8].copy_from_slice(&term.0);
    (low, high)
}

/// Times sort as bytes once the sign is flipped.
fn sortable(time: Timestamp) -> [u8; 8] {
    (time.micros() ^ i64::MIN).to_be_bytes()
}

fn encode_posting(term: Term, segment: u32, events: &[(Timestamp, u32)]) -> ([u8; 24], Vec<u8>) {
    let newest = events.last().expect("a posting covers at least one event");
    let mut key = [0; 24];
    key[..8].copy_from_slice(&term.0);
    key[8..16].copy_from_slice(&sortable(newest.0));
    key[16..20].copy_from_slice(&segment.to_be_bytes());
    key[20..].copy_from_slice(&newest.1.to_be_bytes());
    let mut value = Vec::with_capacity(events.len() * 6);
    let (mut time, mut event) = (newest.0.micros(), i64::from(newest.1));
    for (next_time, next_event) in events.iter().rev().skip(1) {
        put_varint(&mut value, time.abs_diff(next_time.micros()));
        put_varint(&mut value, zigzag(event - i64::from(*next_event)));
        (time, event) = (next_time.micros(), i64::from(*next_event));
    }
    (key, value)
}

/// The events of a posting, newest first.
fn decode_posting(key: &[u8], value: &[u8]) -> Result<(Timestamp, Vec<(Timestamp, Place)>)> {
    let broken = || Error::corrupt("an index posting cannot be decoded");
    let key: &[u8; 24] = key.try_into().map_err(|_| broken())?;
    let micros = i64::from_be_bytes(key[8..16].try_into().expect("eight bytes")) ^ i64::MIN;
    let segment = u32::from_be_bytes(key[16..20].try_into().expect("four bytes"));
    let newest = Timestamp::from_micros(micros);
    let (mut time, mut event) =
        (micros, i64::from(u32::from_be_bytes(key[20..].try_into().expect("four bytes"))));
    let place = |event: i64| Ok(Place { segment, event: u32::try_from(event).map_err(|_| broken())? });
    let mut events = vec![(newest, place(event)?)];
    let mut rest = value;
    while !rest.is_empty() {
        let back = i64::try_from(take_varint(&mut rest).ok_or_else(broken)?).map_err(|_| broken())?;
        time = time.checked_sub(back).ok_or_else(broken)?;
        let step = unzigzag(take_varint(&mut rest).ok_or_else(broken)?);
        event = event.checked_sub(step).ok_or_else(broken)?;
        events.push((Timestamp::from_micros(time), place(event)?));
    }
    Ok((newest, events))
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// One write transaction.
pub struct Change {
    transaction: WriteTransaction,
}

impl Change {
    /// All segments by number.
    pub fn segments(&self) -> Result<BTreeMap<u32, SegmentRow>> {
        read_segments(&self.transaction.open_table(SEGMENTS).map_err(damaged)?)
    }

    /// Adds what a segment holds beyond what was indexed of it; the number is its own from then on.
    pub fn feed(&self, number: u32, feed: &Feed) -> Result<()> {
        let sealed = feed.row.id.is_some();
        let mut segments = self.transaction.open_table(SEGMENTS).map_err(damaged)?;
        segments.insert(number, feed.row.encode().as_slice()).map_err(damaged)?;
        self.feed_postings(number, &feed.rows)?;
        self.feed_runs(number, &feed.runs, sealed)?;
        self.feed_tips(&feed.tips)?;
        match &feed.open {
            Some(open) => self.feed_open(open),
            None if sealed => self.clear_open(number),
            None => Ok(()),
        }
    }

    fn feed_postings(&self, number: u32, rows: &[Row]) -> Result<()> {
        let mut listed: Vec<(Term, Timestamp, u32)> = Vec::with_capacity(rows.len() * 4);
        for row in rows {
            listed.push((Term::ALL, row.time, row.event));
            listed.push((Term::kind(row.kind), row.time, row.event));
            listed.extend(row.terms.iter().map(|term| (*term, row.time, row.event)));
        }
        listed.sort_unstable();
        listed.dedup();
        let mut postings = self.transaction.open_table(POSTINGS).map_err(damaged)?;
        for same in listed.chunk_by(|a, b| a.0 == b.0) {
            for part in same.chunks(POSTING_EVENTS_MAX) {
                let events: Vec<_> = part.iter().map(|(_, time, event)| (*time, *event)).collect();
                let (key, value) = encode_posting(part[0].0, number, &events);
                postings.insert(key.as_slice(), value.as_slice()).map_err(damaged)?;
            }
        }
        Ok(())
    }

    fn feed_runs(&self, number: u32, runs: &[Run], sealed: bool) -> Result<()> {
        let mut table = self.transaction.open_table(RUNS).map_err(damaged)?;
        let low = number.to_be_bytes();
        if sealed {
            let mut high = low.to_vec();
            high.extend_from_slice(&[255; 4]);
            table.retain_in::<&[u8], _>(low.as_slice()..=high.as_slice(), |_, _| false).map_err(damaged)?;
        }
        for run in runs {
            let mut key = low.to_vec();
            key.extend_from_slice(&run.first_event.to_be_bytes());
            let mut value = Encoder::new();
            encode_run(run, &mut value);
            table.insert(key.as_slice(), value.finish().as_slice()).map_err(damaged)?;
        }
        Ok(())
    }

    fn feed_tips(&self, tips: &[Tip]) -> Result<()> {
        let mut table = self.transaction.open_table(TIPS).map_err(damaged)?;
        for tip in tips {
            let known = match table.get(tip.writer.as_bytes().as_slice()).map_err(damaged)? {
                Some(value) => decode_tips(&mut Decoder::new("index row of a tip", value.value()))?,
                None => Vec::new(),
            };
            if known.iter().all(|known| known.seq < tip.seq) {
                let value = encode_tips(&[*tip]);
                table.insert(tip.writer.as_bytes().as_slice(), value.as_slice()).map_err(damaged)?;
            }
        }
        Ok(())
    }

    fn feed_open(&self, open: &OpenFeed) -> Result<()> {
        let mut ids = self.transaction.open_table(OPEN_IDS).map_err(damaged)?;
        let mut sorted: Vec<&IdEntry> = open.ids.iter().collect();
        sorted.sort_unstable();
        for entry in sorted {
            let place = u64::from(entry.frame) << 32 | u64::from(entry.slot);
            ids.insert(entry.id.as_bytes().as_slice(), place).map_err(damaged)?;
        }
        let mut names = self.transaction.open_table(OPEN_NAMES).map_err(damaged)?;
        let mut sorted: Vec<[u8; 12]> = open.names.iter().map(NameEntry::encode).collect();
        sorted.sort_unstable();
        for entry in sorted {
            names.insert(entry.as_slice(), ()).map_err(damaged)?;
        }
        let mut frames = self.transaction.open_table(OPEN_FRAMES).map_err(damaged)?;
        for place in &open.frames {
            frames.insert(place.first_event, place.offset).map_err(damaged)?;
        }
        Ok(())
    }

    /// Forgets the tables of the open segment, if it is the one that has just been sealed.
    fn clear_open(&self, number: u32) -> Result<()> {
        let mut meta = self.transaction.open_table(META).map_err(damaged)?;
        let open = meta.get("open").map_err(damaged)?.map(|value| value.value().to_vec());
        if open.as_deref() == Some(&number.to_be_bytes()) {
            self.transaction.delete_table(OPEN_IDS).map_err(damaged)?;
            self.transaction.delete_table(OPEN_NAMES).map_err(damaged)?;
            self.transaction.delete_table(OPEN_FRAMES).map_err(damaged)?;
            meta.remove("open").map_err(damaged)?;
        }
        Ok(())
    }

    /// Notes which segment the tables of the open segment belong to.
    /// What they hold of another one, which has been sealed meanwhile, is forgotten.
    pub fn set_open(&self, number: u32) -> Result<()> {
        let mut meta = self.transaction.open_table(META).map_err(damaged)?;
        let other =
            meta.get("open").map_err(damaged)?.is_some_and(|open| open.value() != number.to_be_bytes());
        if other {
            self.transaction.delete_table(OPEN_IDS).map_err(damaged)?;
            self.transaction.delete_table(OPEN_NAMES).map_err(damaged)?;
            self.transaction.delete_table(OPEN_FRAMES).map_err(damaged)?;
        }
        meta.insert("open", number.to_be_bytes().as_slice()).map_err(damaged)?;
        Ok(())
    }

    /// Writes or removes a row of another module.
    pub fn set_side(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut table = self.transaction.open_table(SIDE).map_err(damaged)?;
        match value {
            Some(value) => table.insert(key, value).map_err(damaged)?,
            None => table.remove(key).map_err(damaged)?,
        };
        Ok(())
    }

    /// A row of another module, as this transaction sees it.
    pub fn side(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let table = self.transaction.open_table(SIDE).map_err(damaged)?;
        Ok(table.get(key).map_err(damaged)?.map(|value| value.value().to_vec()))
    }
}
