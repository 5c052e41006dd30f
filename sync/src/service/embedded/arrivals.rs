//! `arrivals.redb`: in which order the events of a project arrived, and what answers for each key by protocol 1.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | `version`, `epoch` (16), `writer` (32), `last_time` (8), `pending` |
//! | `runs` | position of the first event (8) | writer (32), first seq (8), count (8), id before (32), last id (32), flags (1), mark (8, 16, 8) |
//! | `tips` | writer (32) | tip |
//! | `answers` | batch (16) | when (8), answer to a commit |
//! | `taken` | segment (32) | bytes (8), when (8) |
//! | `keys` | resource (1), hash of the key (16) | what answers, see `winners` |
//! | `rows` | resource (1), time of arrival (8, big-endian) | record (32), hash of the key (16) |
//! | `contents` | SHA-256 (32) | object (32), bytes (8), whether the SHA-256 was computed here (1) |
//! | `states` | hash of a conversation and a SHA-256 (16) | nothing: that transcript is here |
//!
//! Positions are dense: a run starts where the one before ended. It is the truth about order and not an index; what it
//! says stands in no segment. A run is written once the events in it are durable in the store.

use std::collections::BTreeMap;
use std::path::Path;

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::env::Env;
use agent_trace_store::segment::Run;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::{Tip, decode_tips, encode_tips};
use agent_trace_store::{Error, ErrorKind, EventId, ObjectId, Result, SegmentId, Seq, Timestamp, WriterId};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::database::Opened;
use crate::limits::{ARRIVALS_CACHE_BYTES, COMMIT_SEGMENTS_MAX};
use crate::service::archive::Committed;

pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const RUNS: TableDefinition<u64, &[u8]> = TableDefinition::new("runs");
const TIPS: Table = TableDefinition::new("tips");
const ANSWERS: Table = TableDefinition::new("answers");
const TAKEN: Table = TableDefinition::new("taken");
const CONTENTS: Table = TableDefinition::new("contents");
pub(super) const KEYS: Table = TableDefinition::new("keys");
pub(super) const ROWS: Table = TableDefinition::new("rows");
pub(super) const STATES: Table = TableDefinition::new("states");

const VERSION: &[u8] = b"1";
const UNIT_END: u8 = 1;
const APART: u8 = 2;

/// A place in the store from which on something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// When its segment was started.
    pub created: Timestamp,
    /// The segment.
    pub nonce: [u8; 16],
    /// The offset in it.
    pub offset: u64,
}

/// Events that arrived together, neighbours in one log and in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArrivedRun {
    /// The position of the first.
    pub position: u64,
    /// Which they are; their numbers in a segment are not kept.
    pub run: Run,
    /// Whether all that these and the events before need has arrived with them.
    pub unit_end: bool,
    /// Where objects of these events start, where they went ahead of the batch of the events.
    pub apart: Option<Mark>,
}

impl ArrivedRun {
    /// The position of the last event.
    pub(super) fn last(&self) -> u64 {
        self.position + u64::from(self.run.count) - 1
    }

    fn encode(&self) -> Vec<u8> {
        let run = &self.run;
        let mut encoder = Encoder::new();
        encoder.put(run.writer.as_bytes()).u64(run.seq_first.get()).u64(u64::from(run.count));
        encoder.put(run.previous.as_bytes()).put(run.last.as_bytes());
        encoder.u8(if self.unit_end { UNIT_END } else { 0 } | if self.apart.is_some() { APART } else { 0 });
        if let Some(mark) = &self.apart {
            encoder.i64(mark.created.micros()).put(&mark.nonce).u64(mark.offset);
        }
        encoder.finish()
    }

    fn decode(position: u64, bytes: &[u8]) -> Result<ArrivedRun> {
        let mut decoder = Decoder::new("row of arrivals", bytes);
        let writer = WriterId::from_bytes(decoder.array()?);
        let seq_first = Seq::new(decoder.u64()?).ok_or_else(|| decoder.error("seq is zero"))?;
        let count = u32::try_from(decoder.u64()?).map_err(|_| decoder.error("a run is too long"))?;
        let previous = EventId::from_bytes(decoder.array()?);
        let last = EventId::from_bytes(decoder.array()?);
        let flags = decoder.u8()?;
        if count == 0 || position == 0 || flags & !(UNIT_END | APART) != 0 {
            return Err(decoder.error("a field is out of range"));
        }
        let apart = match flags & APART {
            0 => None,
            _ => Some(Mark {
                created: Timestamp::from_micros(decoder.i64()?),
                nonce: decoder.array()?,
                offset: decoder.u64()?,
            }),
        };
        decoder.finish()?;
        let run = Run { writer, seq_first, count, previous, last, first_event: 0 };
        Ok(ArrivedRun { position, run, unit_end: flags & UNIT_END != 0, apart })
    }
}

/// A commit that has been begun: it is finished before anything else is taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    /// The client's name for it.
    pub batch: [u8; 16],
    /// Where the uploads of its token lie.
    pub uploads: String,
    /// Its segments, in the order in which they are taken in.
    pub segments: Vec<SegmentId>,
    /// The tips that came with it.
    pub tips: Vec<Tip>,
    /// Forks that were found.
    pub forks: Vec<String>,
}

impl Pending {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(&self.batch).prefixed(self.uploads.as_bytes()).u32(length_u32(self.segments.len()));
        for segment in &self.segments {
            encoder.put(segment.as_bytes());
        }
        encoder.prefixed(&encode_tips(&self.tips)).u32(length_u32(self.forks.len()));
        for fork in &self.forks {
            encoder.prefixed(fork.as_bytes());
        }
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Pending> {
        let mut decoder = Decoder::new("row of a commit in progress", bytes);
        let batch = decoder.array()?;
        let uploads = text(&mut decoder)?;
        let mut pending = Pending { batch, uploads, ..Pending::default() };
        for _ in 0..decoder.count(32, COMMIT_SEGMENTS_MAX)? {
            pending.segments.push(SegmentId::from_bytes(decoder.array()?));
        }
        let tips = decoder.prefixed(usize::MAX)?;
        pending.tips = decode_tips(&mut Decoder::new("tips of a commit in progress", tips))?;
        for _ in 0..decoder.count(4, usize::MAX)? {
            pending.forks.push(text(&mut decoder)?);
        }
        decoder.finish()?;
        Ok(pending)
    }
}

fn text(decoder: &mut Decoder<'_>) -> Result<String> {
    let bytes = decoder.prefixed(usize::MAX)?.to_vec();
    String::from_utf8(bytes).map_err(|_| decoder.error("a text is not UTF-8"))
}

fn encode_answer(at: Timestamp, answer: &Committed) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.i64(at.micros()).u64(answer.position).u64(answer.taken).u32(length_u32(answer.forks.len()));
    for fork in &answer.forks {
        encoder.prefixed(fork.as_bytes());
    }
    encoder.finish()
}

fn decode_answer(bytes: &[u8]) -> Result<(Timestamp, Committed)> {
    let mut decoder = Decoder::new("row of an answer", bytes);
    let at = Timestamp::from_micros(decoder.i64()?);
    let (position, taken) = (decoder.u64()?, decoder.u64()?);
    let mut answer = Committed { position, taken, ..Committed::default() };
    for _ in 0..decoder.count(4, usize::MAX)? {
        answer.forks.push(text(&mut decoder)?);
    }
    decoder.finish()?;
    Ok((at, answer))
}

/// An error of redb about these tables.
pub(super) fn failed(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. } => ErrorKind::Corrupt,
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => ErrorKind::Full,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, "cannot use the arrivals of the project").with_source(error)
}

/// Opens the arrivals of a project, or makes them for a new one.
pub(super) fn open(env: &Env, path: &Path, writer: WriterId) -> Result<Opened> {
    let there = match env.fs.metadata(path) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Error::io(format!("cannot look at `{}`", path.display()), error)),
    };
    if !there {
        let mut epoch = [0; 16];
        env.entropy.fill(&mut epoch);
        return Opened::create(env, path, ARRIVALS_CACHE_BYTES, |_, transaction| {
            let change = Change::new(transaction);
            change.set_meta("version", VERSION)?;
            change.set_meta("epoch", &epoch)?;
            change.set_meta("writer", writer.as_bytes())?;
            for table in [TIPS, ANSWERS, TAKEN, CONTENTS, KEYS, ROWS, STATES] {
                transaction.open_table(table).map_err(failed)?;
            }
            transaction.open_table(RUNS).map_err(failed)?;
            Ok(())
        });
    }
    let opened = Opened::open(env, path, ARRIVALS_CACHE_BYTES)?;
    opened.read(|transaction| match meta(transaction, "version")? {
        Some(version) if version == VERSION => Ok(()),
        _ => {
            let message = format!("cannot read `{}`: it is newer than this program", path.display());
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    })?;
    Ok(opened)
}

fn meta(transaction: &ReadTransaction, name: &str) -> Result<Option<Vec<u8>>> {
    let table = transaction.open_table(META).map_err(failed)?;
    Ok(table.get(name).map_err(failed)?.map(|value| value.value().to_vec()))
}

fn fixed<const N: usize>(transaction: &ReadTransaction, name: &str) -> Result<[u8; N]> {
    let value = meta(transaction, name)?.unwrap_or_default();
    value.try_into().map_err(|_| Error::corrupt(format!("arrivals have no `{name}`")))
}

/// Which history this is.
pub(super) fn epoch(transaction: &ReadTransaction) -> Result<[u8; 16]> {
    fixed(transaction, "epoch")
}

/// The store's writer, as it was when something was last taken in.
pub(super) fn writer(transaction: &ReadTransaction) -> Result<WriterId> {
    Ok(WriterId::from_bytes(fixed(transaction, "writer")?))
}

/// The commit that was begun and not finished.
pub(super) fn pending(transaction: &ReadTransaction) -> Result<Option<Pending>> {
    meta(transaction, "pending")?.map(|bytes| Pending::decode(&bytes)).transpose()
}

/// Hands runs over from the one that holds a position on, until told to stop.
pub(super) fn each_run(
    transaction: &ReadTransaction,
    from: u64,
    mut each: impl FnMut(ArrivedRun) -> Result<bool>,
) -> Result<()> {
    let table = transaction.open_table(RUNS).map_err(failed)?;
    let holds = table.range(..=from).map_err(failed)?.next_back().transpose().map_err(failed)?;
    let start = holds.map_or(from, |(key, _)| key.value());
    for row in table.range(start..).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let arrived = ArrivedRun::decode(key.value(), value.value())?;
        if arrived.last() >= from && !each(arrived)? {
            break;
        }
    }
    Ok(())
}

/// The newest run.
pub(super) fn last_run(transaction: &ReadTransaction) -> Result<Option<ArrivedRun>> {
    let table = transaction.open_table(RUNS).map_err(failed)?;
    let last = table.last().map_err(failed)?;
    last.map(|(key, value)| ArrivedRun::decode(key.value(), value.value())).transpose()
}

/// The position after the last unit that ends at a position or before.
pub(super) fn unit_start(transaction: &ReadTransaction, position: u64) -> Result<u64> {
    let table = transaction.open_table(RUNS).map_err(failed)?;
    for row in table.range(..=position).map_err(failed)?.rev() {
        let (key, value) = row.map_err(failed)?;
        let arrived = ArrivedRun::decode(key.value(), value.value())?;
        if arrived.unit_end && arrived.last() <= position {
            return Ok(arrived.last() + 1);
        }
    }
    Ok(1)
}

/// What has arrived up to a position.
pub(super) fn arrived_until(transaction: &ReadTransaction, position: u64) -> Result<EventSet> {
    let mut set = EventSet::default();
    let mut part = Vec::new();
    each_run(transaction, 1, |arrived| {
        if arrived.position > position {
            return Ok(false);
        }
        let first = arrived.run.seq_first.get();
        part.push((arrived.run.writer, first, first + arrived.last().min(position) - arrived.position));
        if part.len() >= 65_536 {
            set = set.union(&EventSet::from_ranges(part.drain(..)));
        }
        Ok(true)
    })?;
    Ok(set.union(&EventSet::from_ranges(part)))
}

/// The newest tip of every log.
pub(super) fn tips(transaction: &ReadTransaction) -> Result<BTreeMap<WriterId, Tip>> {
    let table = transaction.open_table(TIPS).map_err(failed)?;
    let mut tips = BTreeMap::new();
    for row in table.iter().map_err(failed)? {
        let (_, value) = row.map_err(failed)?;
        for tip in decode_tips(&mut Decoder::new("row of a tip", value.value()))? {
            tips.insert(tip.writer, tip);
        }
    }
    Ok(tips)
}

/// The answer that a commit got.
pub(super) fn answer(transaction: &ReadTransaction, batch: &[u8; 16]) -> Result<Option<Committed>> {
    let table = transaction.open_table(ANSWERS).map_err(failed)?;
    let found = table.get(batch.as_slice()).map_err(failed)?;
    found.map(|value| decode_answer(value.value()).map(|(_, answer)| answer)).transpose()
}

/// The length of a segment that was committed not long ago.
pub(super) fn taken(transaction: &ReadTransaction, segment: &SegmentId) -> Result<Option<u64>> {
    let table = transaction.open_table(TAKEN).map_err(failed)?;
    let found = table.get(segment.as_bytes().as_slice()).map_err(failed)?;
    found.map(|value| Decoder::new("row of a segment", value.value()).u64()).transpose()
}

/// A body that transcripts name by its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The object.
    pub object: ObjectId,
    /// Its length.
    pub bytes: u64,
    /// Whether the hash was computed here; else it is what a record says.
    pub computed: bool,
}

impl Content {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(self.object.as_bytes()).u64(self.bytes).u8(u8::from(self.computed));
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Content> {
        let mut decoder = Decoder::new("row of a content", bytes);
        let object = ObjectId::from_bytes(decoder.array()?);
        Ok(Content { object, bytes: decoder.u64()?, computed: decoder.u8()? == 1 })
    }
}

/// The body with a SHA-256.
pub(super) fn content(transaction: &ReadTransaction, sha256: &[u8; 32]) -> Result<Option<Content>> {
    let table = transaction.open_table(CONTENTS).map_err(failed)?;
    let found = table.get(sha256.as_slice()).map_err(failed)?;
    found.map(|value| Content::decode(value.value())).transpose()
}

/// What is written in one transaction.
pub(super) struct Change<'t> {
    pub(super) transaction: &'t WriteTransaction,
}

impl<'t> Change<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Change<'t> {
        Change { transaction }
    }

    fn set_meta(&self, name: &str, value: &[u8]) -> Result<()> {
        let mut table = self.transaction.open_table(META).map_err(failed)?;
        table.insert(name, value).map_err(failed)?;
        Ok(())
    }

    /// Begins another history: cursors of this one do not count any more.
    pub(super) fn set_history(&self, epoch: &[u8; 16], writer: WriterId) -> Result<()> {
        self.set_meta("epoch", epoch)?;
        self.set_meta("writer", writer.as_bytes())
    }

    /// Notes the commit that is begun, or that there is none.
    pub(super) fn set_pending(&self, pending: Option<&Pending>) -> Result<()> {
        let mut table = self.transaction.open_table(META).map_err(failed)?;
        match pending {
            Some(pending) => drop(table.insert("pending", pending.encode().as_slice()).map_err(failed)?),
            None => drop(table.remove("pending").map_err(failed)?),
        }
        Ok(())
    }

    /// The time that the last row of protocol 1 got.
    pub(super) fn last_time(&self) -> Result<i64> {
        let table = self.transaction.open_table(META).map_err(failed)?;
        let value = table.get("last_time").map_err(failed)?;
        value.map_or(Ok(i64::MIN), |value| Decoder::new("last time", value.value()).i64())
    }

    /// Notes it.
    pub(super) fn set_last_time(&self, micros: i64) -> Result<()> {
        self.set_meta("last_time", &micros.to_le_bytes())
    }

    /// Adds a run behind the newest one.
    pub(super) fn add_run(&self, arrived: &ArrivedRun) -> Result<()> {
        let mut table = self.transaction.open_table(RUNS).map_err(failed)?;
        let before = match table.last().map_err(failed)? {
            Some((key, value)) => ArrivedRun::decode(key.value(), value.value())?.last(),
            None => 0,
        };
        assert_eq!(before + 1, arrived.position, "positions are dense and given once");
        table.insert(arrived.position, arrived.encode().as_slice()).map_err(failed)?;
        Ok(())
    }

    /// Notes a tip that goes farther than the one that is known.
    pub(super) fn set_tip(&self, tip: &Tip) -> Result<()> {
        let mut table = self.transaction.open_table(TIPS).map_err(failed)?;
        table
            .insert(tip.writer.as_bytes().as_slice(), encode_tips(std::slice::from_ref(tip)).as_slice())
            .map_err(failed)?;
        Ok(())
    }

    /// Keeps the answer to a commit.
    pub(super) fn set_answer(&self, batch: &[u8; 16], at: Timestamp, answer: &Committed) -> Result<()> {
        let mut table = self.transaction.open_table(ANSWERS).map_err(failed)?;
        table.insert(batch.as_slice(), encode_answer(at, answer).as_slice()).map_err(failed)?;
        Ok(())
    }

    /// Notes that a segment has been committed.
    pub(super) fn set_taken(&self, segment: &SegmentId, bytes: u64, at: Timestamp) -> Result<()> {
        let mut table = self.transaction.open_table(TAKEN).map_err(failed)?;
        let mut encoder = Encoder::new();
        encoder.u64(bytes).i64(at.micros());
        table.insert(segment.as_bytes().as_slice(), encoder.finish().as_slice()).map_err(failed)?;
        Ok(())
    }

    /// Notes which object has a SHA-256; what was computed here is not replaced by what a record says.
    pub(super) fn set_content(&self, sha256: &[u8; 32], content: Content) -> Result<()> {
        let mut table = self.transaction.open_table(CONTENTS).map_err(failed)?;
        let known = match table.get(sha256.as_slice()).map_err(failed)? {
            Some(value) => Some(Content::decode(value.value())?),
            None => None,
        };
        if content.computed && known.is_none_or(|known| !known.computed) || known.is_none() {
            table.insert(sha256.as_slice(), content.encode().as_slice()).map_err(failed)?;
        }
        Ok(())
    }

    /// Forgets answers and segments from before a time.
    pub(super) fn sweep(&self, before: Timestamp) -> Result<()> {
        let mut answers = self.transaction.open_table(ANSWERS).map_err(failed)?;
        answers
            .retain(|_, value| decode_answer(value).map_or(true, |(at, _)| at >= before))
            .map_err(failed)?;
        let mut taken = self.transaction.open_table(TAKEN).map_err(failed)?;
        let at = |value: &[u8]| {
            let mut decoder = Decoder::new("row of a segment", value);
            decoder.u64().and_then(|_| decoder.i64())
        };
        taken
            .retain(|_, value| at(value).map_or(true, |at| Timestamp::from_micros(at) >= before))
            .map_err(failed)
    }
}
