//! Bodies of protocol 2: what clients and the service say to each other, byte by byte as `docs/protocol.md` has it.
//!
//! A binary body is a magic, a version byte, fields, and the first 16 bytes of BLAKE3 over all before, so that bytes
//! that changed on the way are found before they mean something. Decoding takes any bytes: counts are compared with
//! `limits` and with what is there before anything is allocated, nothing may follow, and what is accepted has one
//! encoding. A body that cannot be read is `Corrupt` (the service answers 400 to it), a newer one `Unsupported`.
//! Signatures of tips are not compared here. Knows neither HTTP nor what the bodies are for.

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::limits::WRITERS_MAX;
use agent_trace_store::writer::{TIP_BYTES, Tip, decode_tips, encode_tips};
use agent_trace_store::{Error, ErrorKind, EventId, ObjectId, Result, SegmentId, WriterId};
use serde::{Deserialize, Serialize};

use crate::limits::{
    COMMIT_SEGMENTS_MAX, JSON_ANSWER_BYTES_MAX, QUESTION_IDS_MAX, RUNS_MAX, SYMBOLS_MAX,
    UPLOAD_CHUNK_BYTES_MAX,
};

mod parts;

pub use parts::{PART_HEADER_BYTES, Part, PartHeader, PartKind, PartReader, PartWriter, SegmentBytes};

const VERSION: u8 = 1;
/// Bytes of the check at the end of a body.
const CHECK_BYTES: usize = 16;
/// Magic, version and check.
const FRAME_BYTES: usize = 8 + 1 + CHECK_BYTES;
const RUN_BYTES: usize = 48;
const SYMBOL_BYTES: usize = 48;

/// Names one history of arrivals of a project.
pub type Epoch = [u8; 16];
/// Names a commit, so that it can be repeated.
pub type BatchId = [u8; 16];

/// A place in one history of arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The history.
    pub epoch: Epoch,
    /// The newest arrival that is known.
    pub position: u64,
}

impl Cursor {
    /// The query that asks for what came after it.
    pub fn query(&self) -> String {
        format!("epoch={}&after={}", encode_hex(&self.epoch), self.position)
    }

    /// Reads an epoch as it stands in a query: 32 hex digits.
    pub fn parse_epoch(text: &str) -> Result<Epoch> {
        let mut epoch = [0; 16];
        match decode_hex(text, &mut epoch) {
            true => Ok(epoch),
            false => Err(Error::invalid("cannot read the epoch: expected 32 hex digits")),
        }
    }
}

/// Events that arrived together, neighbours in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalRun {
    /// Whose log they are in.
    pub writer: WriterId,
    /// The first of them.
    pub seq_first: u64,
    /// How many.
    pub count: u64,
}

/// Answer of `arrivals`: what came after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivalsBody {
    /// Up to where the runs go; less than the newest where there is more than fits one answer.
    pub reached: Cursor,
    /// The newest position.
    pub newest: u64,
    /// The events, in order of arrival.
    pub runs: Vec<ArrivalRun>,
    /// How far the logs go that are named here.
    pub tips: Vec<Tip>,
}

/// Request of `reconcile`: which symbols of which set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconcileRequest {
    /// The first symbol.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// The position that the set is to be taken at; zero for the newest.
    pub position: u64,
}

/// One coded symbol: sums over all ids that take part in it, see `reconcile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Exclusive or of the ids.
    pub sum: [u8; 32],
    /// Exclusive or of their check values.
    pub checks: u64,
    /// How many; less than zero in a difference.
    pub count: i64,
}

/// Answer of `reconcile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolsBody {
    /// The history and the position that the set was taken at.
    pub taken_at: Cursor,
    /// How many ids the set has.
    pub size: u64,
    /// Which symbol the first one is.
    pub first: u64,
    /// The symbols.
    pub symbols: Vec<Symbol>,
}

/// Request of `fetch`: events by place, and events of which only the id is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    /// Events by place.
    pub runs: Vec<ArrivalRun>,
    /// Events by id, as reconciliation finds them.
    pub ids: Vec<EventId>,
}

/// Request of `holds`: objects by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldsRequest {
    /// The objects.
    pub ids: Vec<ObjectId>,
}

/// Answer of `holds`: one bit for each object of the request, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldsBody {
    /// Whether the project holds it.
    pub held: Vec<bool>,
}

/// Request of `commit`: uploaded segments that are to be taken in together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRequest {
    /// Names the commit.
    pub batch: BatchId,
    /// The segments, in the order in which they are to be taken in.
    pub segments: Vec<SegmentId>,
    /// How far the logs go.
    pub tips: Vec<Tip>,
}

impl ArrivalsBody {
    const MAGIC: &[u8; 8] = b"ATARRIV\0";
    /// The most bytes that it can have.
    pub const BYTES_MAX: usize = FRAME_BYTES + 32 + 4 + RUNS_MAX * RUN_BYTES + 4 + WRITERS_MAX * TIP_BYTES;

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = begin(Self::MAGIC);
        encoder.put(&self.reached.epoch).u64(self.reached.position).u64(self.newest);
        put_runs(&mut encoder, &self.runs);
        encoder.put(&encode_tips(&self.tips));
        end(encoder)
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<ArrivalsBody> {
        let mut decoder = open("arrivals", bytes, Self::MAGIC)?;
        let reached = take_cursor(&mut decoder)?;
        let newest = decoder.u64()?;
        if reached.position > newest {
            return Err(decoder.error("it goes beyond its newest position"));
        }
        let body = ArrivalsBody {
            reached,
            newest,
            runs: take_runs(&mut decoder)?,
            tips: decode_tips(&mut decoder)?,
        };
        decoder.finish()?;
        Ok(body)
    }
}

impl ReconcileRequest {
    const MAGIC: &[u8; 8] = b"ATRECON\0";
    /// The most bytes that it can have.
    pub const BYTES_MAX: usize = FRAME_BYTES + 20;

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = begin(Self::MAGIC);
        encoder.u64(self.first).u32(self.count).u64(self.position);
        end(encoder)
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<ReconcileRequest> {
        let mut decoder = open("reconcile request", bytes, Self::MAGIC)?;
        let request =
            ReconcileRequest { first: decoder.u64()?, count: decoder.u32()?, position: decoder.u64()? };
        check_symbols(&decoder, request.first, request.count as usize)?;
        decoder.finish()?;
        Ok(request)
    }
}

impl SymbolsBody {
    const MAGIC: &[u8; 8] = b"ATSYMBO\0";
    /// The most bytes that it can have.
    pub const BYTES_MAX: usize = FRAME_BYTES + 24 + 16 + 4 + SYMBOLS_MAX * SYMBOL_BYTES;

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.symbols.len() <= SYMBOLS_MAX, "I10: symbols are counted before");
        let mut encoder = begin(Self::MAGIC);
        encoder.put(&self.taken_at.epoch).u64(self.taken_at.position);
        encoder.u64(self.size).u64(self.first).u32(length_u32(self.symbols.len()));
        for symbol in &self.symbols {
            encoder.put(&symbol.sum).u64(symbol.checks).i64(symbol.count);
        }
        end(encoder)
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<SymbolsBody> {
        let mut decoder = open("symbols", bytes, Self::MAGIC)?;
        let taken_at = take_cursor(&mut decoder)?;
        let (size, first) = (decoder.u64()?, decoder.u64()?);
        let count = decoder.count(SYMBOL_BYTES, SYMBOLS_MAX)?;
        check_symbols(&decoder, first, count)?;
        let mut symbols = Vec::with_capacity(count);
        for _ in 0..count {
            symbols.push(Symbol { sum: decoder.array()?, checks: decoder.u64()?, count: decoder.i64()? });
        }
        decoder.finish()?;
        Ok(SymbolsBody { taken_at, size, first, symbols })
    }
}

impl FetchRequest {
    const MAGIC: &[u8; 8] = b"ATFETCH\0";
    /// The most bytes that it can have.
    pub const BYTES_MAX: usize = FRAME_BYTES + 4 + RUNS_MAX * RUN_BYTES + 4 + RUNS_MAX * 32;

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = begin(Self::MAGIC);
        put_runs(&mut encoder, &self.runs);
        assert!(self.ids.len() <= RUNS_MAX, "I10: ids are counted before");
        encoder.u32(length_u32(self.ids.len()));
        for id in &self.ids {
            encoder.put(id.as_bytes());
        }
        end(encoder)
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<FetchRequest> {
        let mut decoder = open("fetch request", bytes, Self::MAGIC)?;
        let runs = take_runs(&mut decoder)?;
        let count = decoder.count(32, RUNS_MAX)?;
        let ids = (0..count).map(|_| Ok(EventId::from_bytes(decoder.array()?))).collect::<Result<_>>()?;
        decoder.finish()?;
        Ok(FetchRequest { runs, ids })
    }
}

impl HoldsRequest {
    const MAGIC: &[u8; 8] = b"ATHOLDS\0";
    /// The most bytes that it can have.
    pub const BYTES_MAX: usize = FRAME_BYTES + 4 + QUESTION_IDS_MAX * 32;

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.ids.len() <= QUESTION_IDS_MAX, "I10: ids are counted before");
        let mut encoder = begin(Self::MAGIC);
        encoder.u32(length_u32(self.ids.len()));
        for id in &self.ids {
            encoder.put(id.as_bytes());
        }
        end(encoder)
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<HoldsRequest> {
        let mut decoder = open("holds request", bytes, Self::MAGIC)?;
        let count = decoder.count(32, QUESTION_IDS_MAX)?;
        let ids = (0..count).map(|_| Ok(ObjectId::from_bytes(decoder.array()?))).collect::<Result<_>>()?;
        decoder.finish()?;
        Ok(HoldsRequest { ids })
    }
}

impl HoldsBody {
    const MAGIC: &[u8; 8] = b"ATHOLDB\0";
    /// The most bytes that it can have.
    pub const BYTES_MAX: usize = FRAME_BYTES + 4 + QUESTION_IDS_MAX.div_ceil(8);

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.held.len() <= QUESTION_IDS_MAX, "I10: ids are counted before");
        let mut encoder = begin(Self::MAGIC);
        encoder.u32(length_u32(self.held.len()));
        for eight in self.held.chunks(8) {
            encoder.u8(eight.iter().rev().fold(0, |byte, held| byte << 1 | u8::from(*held)));
        }
        end(encoder)
    }

    /// Reads it; a question of another length has another answer.
    pub fn decode(bytes: &[u8], asked: usize) -> Result<HoldsBody> {
        let mut decoder = open("holds", bytes, Self::MAGIC)?;
        let count = decoder.u32()? as usize;
        if count != asked || count > QUESTION_IDS_MAX {
            return Err(decoder.error(&format!("expected {asked} answers, found {count}")));
        }
        let bits = decoder.take(count.div_ceil(8))?;
        let bit = |at: usize| bits[at / 8] >> (at % 8) & 1 == 1;
        if (count..bits.len() * 8).any(bit) {
            return Err(decoder.error("bits are set that answer nothing"));
        }
        decoder.finish()?;
        Ok(HoldsBody { held: (0..count).map(bit).collect() })
    }
}

impl CommitRequest {
    const MAGIC: &[u8; 8] = b"ATCOMIT\0";
    /// The most bytes that it can have.
    pub const BYTES_MAX: usize =
        FRAME_BYTES + 16 + 4 + COMMIT_SEGMENTS_MAX * 32 + 4 + WRITERS_MAX * TIP_BYTES;

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.segments.len() <= COMMIT_SEGMENTS_MAX, "I10: segments are counted before");
        let mut encoder = begin(Self::MAGIC);
        encoder.put(&self.batch).u32(length_u32(self.segments.len()));
        for id in &self.segments {
            encoder.put(id.as_bytes());
        }
        encoder.put(&encode_tips(&self.tips));
        end(encoder)
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<CommitRequest> {
        let mut decoder = open("commit request", bytes, Self::MAGIC)?;
        let batch = decoder.array()?;
        let count = decoder.count(32, COMMIT_SEGMENTS_MAX)?;
        let segments =
            (0..count).map(|_| Ok(SegmentId::from_bytes(decoder.array()?))).collect::<Result<_>>()?;
        let tips = decode_tips(&mut decoder)?;
        decoder.finish()?;
        Ok(CommitRequest { batch, segments, tips })
    }
}

fn begin(magic: &[u8; 8]) -> Encoder {
    let mut encoder = Encoder::new();
    encoder.put(magic).u8(VERSION);
    encoder
}

fn end(encoder: Encoder) -> Vec<u8> {
    let mut bytes = encoder.finish();
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    bytes
}

/// Checks what surrounds the fields and hands them over.
fn open<'a>(what: &'static str, bytes: &'a [u8], magic: &[u8; 8]) -> Result<Decoder<'a>> {
    let mut head = Decoder::new(what, bytes);
    if &head.array::<8>()? != magic {
        return Err(head.error(&format!("expected magic `{}`", String::from_utf8_lossy(&magic[..7]))));
    }
    let version = head.u8()?;
    if version != VERSION {
        let message = format!("cannot read {what}: version {version} is newer than this program");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let Some(fields) = head.remaining().checked_sub(CHECK_BYTES) else {
        return Err(head.error("it ends early"));
    };
    let end = bytes.len() - CHECK_BYTES;
    if blake3::hash(&bytes[..end]).as_bytes()[..CHECK_BYTES] != bytes[end..] {
        return Err(head.error("its check does not fit its bytes"));
    }
    Ok(Decoder::new(what, head.take(fields)?))
}

fn take_cursor(decoder: &mut Decoder<'_>) -> Result<Cursor> {
    Ok(Cursor { epoch: decoder.array()?, position: decoder.u64()? })
}

fn put_runs(encoder: &mut Encoder, runs: &[ArrivalRun]) {
    assert!(runs.len() <= RUNS_MAX, "I10: runs are counted before");
    encoder.u32(length_u32(runs.len()));
    for run in runs {
        encoder.put(run.writer.as_bytes()).u64(run.seq_first).u64(run.count);
    }
}

fn take_runs(decoder: &mut Decoder<'_>) -> Result<Vec<ArrivalRun>> {
    let count = decoder.count(RUN_BYTES, RUNS_MAX)?;
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let writer = WriterId::from_bytes(decoder.array()?);
        let run = ArrivalRun { writer, seq_first: decoder.u64()?, count: decoder.u64()? };
        if run.seq_first == 0 || run.count == 0 || run.seq_first.checked_add(run.count).is_none() {
            return Err(decoder.error("a run is out of range"));
        }
        runs.push(run);
    }
    Ok(runs)
}

fn check_symbols(decoder: &Decoder<'_>, first: u64, count: usize) -> Result<()> {
    match first.checked_add(count as u64) {
        Some(end) if end <= SYMBOLS_MAX as u64 => Ok(()),
        _ => Err(decoder.error(&format!("expected symbols below {SYMBOLS_MAX}"))),
    }
}

/// Answer of `caps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Versions of the protocol that are spoken.
    pub protocols: Vec<u32>,
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does beyond the first form of protocol 2.
    #[serde(default)]
    pub features: Vec<String>,
    /// What it takes.
    pub limits: CapsLimits,
}

/// The feature of a service that leaves bytes of transcripts out of a stream where it is asked to.
pub const NO_TRANSCRIPTS: &str = "no_transcripts";

/// What a service takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsLimits {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of one chunk of an upload.
    pub chunk_bytes: u64,
    /// Ids in one question.
    pub ids: u64,
    /// Segments in one commit.
    pub segments: u64,
}

impl Caps {
    /// What this program speaks.
    pub fn ours() -> Caps {
        Caps {
            protocols: vec![1, 2],
            name: "agent-trace".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: vec![NO_TRANSCRIPTS.to_owned()],
            limits: CapsLimits {
                segment_bytes: agent_trace_store::limits::SEGMENT_BYTES_MAX,
                chunk_bytes: UPLOAD_CHUNK_BYTES_MAX as u64,
                ids: QUESTION_IDS_MAX as u64,
                segments: COMMIT_SEGMENTS_MAX as u64,
            },
        }
    }
}

/// Answer of `uploads`: how much of a segment is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetBody {
    /// Bytes.
    pub offset: u64,
}

/// Answer of `commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedBody {
    /// The newest position after it.
    pub position: u64,
    /// Events that were new.
    pub taken: u64,
    /// Logs that have forked.
    #[serde(default)]
    pub forks: Vec<String>,
}

/// An error as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Text for people.
    pub error: String,
    /// A stable word for programs; services of version 1 often leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// Where an upload goes on, with the code `offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What of a commit does not check, with the code `refused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// The bytes of a JSON body.
pub fn encode_json<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("bodies of ours have keys that are text and numbers that JSON has")
}

/// Reads a JSON body; members that are not known are passed over.
pub fn decode_json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    if bytes.len() > JSON_ANSWER_BYTES_MAX {
        return Err(Error::corrupt(format!(
            "cannot decode {what}: it is over {JSON_ANSWER_BYTES_MAX} bytes"
        )));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(format!("cannot decode {what}")).with_source(error))
}
