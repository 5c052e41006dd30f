//! The format as it was: a small store that is checked in must open for ever, and today's code must write the same bytes.
//!
//! `golden/v1/` was made by `generate` below, in a simulated world with a fixed clock and fixed chance. With
//! `AGENT_TRACE_BLESS=1` the files and the hex example of `docs/format.md` are written anew; a change of them is a change
//! of the format. The bytes of compressed frames also change with the zstd library, which the lock file pins: if only
//! that was updated, the old files must still pass `the_golden_store_reads_back` before they are blessed.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "golden files are real files")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::env::{Clock, Entropy, Env};
use agent_trace_store::event::{Event, Fact};
use agent_trace_store::frame::{
    Effort, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKey, FrameKind, Packer, Unpacker,
};
use agent_trace_store::intake::Intake;
use agent_trace_store::log::{Draft, Prepared};
use agent_trace_store::object::ObjectsBuilder;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::scan::marks;
use agent_trace_store::segment::{Commit, HEADER_BYTES, SegmentHeader, read_footer, read_frame};
use agent_trace_store::{
    ErrorKind, EventId, Kind, ObjectId, Seq, Store, Timestamp, WriterId, elsewhere, layout, verify,
};

const NOW: i64 = 1_767_225_600_000_000;
const STORE: &str = "/golden";

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(NOW)
    }

    fn monotonic_micros(&self) -> u64 {
        0
    }

    fn sleep(&self, _micros: u64) {}
}

/// Bytes that depend on how many are asked for and how often that was, so that a name drawn more or less moves nothing.
#[derive(Default)]
struct FixedEntropy(Mutex<std::collections::BTreeMap<usize, u8>>);

impl Entropy for FixedEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut drawn = self.0.lock().unwrap();
        let count = drawn.entry(buffer.len()).or_default();
        *count += 1;
        for (byte, place) in buffer.iter_mut().zip(0u8..) {
            *byte = count.wrapping_mul(16).wrapping_add(place);
        }
    }
}

fn fixed_env(disk: &SimDisk) -> Env {
    Env { fs: disk.env().fs, clock: Arc::new(FixedClock), entropy: Arc::new(FixedEntropy::default()) }
}

/// The hex of the example of a note in `docs/format.md`.
fn documented_note() -> Vec<u8> {
    let text = include_str!("../../docs/format.md");
    let (_, after) = text.split_once("whose id is 16 times `03`:").unwrap();
    let (_, after) = after.split_once("```text\n").unwrap();
    let (hex, _) = after.split_once("```").unwrap();
    let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap());
    bytes.collect()
}

#[test]
fn a_note_of_what_is_elsewhere_has_the_documented_bytes() {
    let ids = [ObjectId::from_bytes([1; 32]), ObjectId::from_bytes([2; 32])];
    let note = elsewhere::encode(&[3; 16], &ids);
    assert_eq!(note, documented_note());
    assert_eq!(elsewhere::decode(&note).unwrap(), ([3; 16], ids.to_vec()));
    // A store finds it under the name that is the hash of these bytes, and under no other.
    let disk = SimDisk::new(1);
    let store = Store::init(&fixed_env(&disk), Path::new(STORE)).unwrap();
    let name = blake3::hash(&note).to_hex();
    assert_eq!(name.as_str(), "5c86d2ab658e75bcd68953618746eee98d9ffc26269ac2f814c07b0a6144868d");
    disk.write_file(&Path::new(STORE).join("elsewhere").join(name.as_str()), &note);
    assert_eq!(store.elsewhere().unwrap().remotes(&ids[1]), [[3; 16]]);
    store.note_elsewhere(&[3; 16], &[ids[1], ids[0]]).unwrap();
    assert_eq!(disk.files().iter().filter(|path| path.starts_with("/golden/elsewhere")).count(), 1);
    disk.write_file(&Path::new(STORE).join("elsewhere/0123"), &note);
    assert_eq!(store.elsewhere().unwrap_err().kind(), ErrorKind::Corrupt);
}

fn blessing() -> bool {
    std::env::var_os("AGENT_TRACE_BLESS").is_some()
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn record(store: &Store, kind: Kind, text: &str) {
    let facts = facts(kind, text.as_bytes()).unwrap();
    let mut intake = Intake::new(store);
    intake.record(kind, text.as_bytes(), &facts, facts.time.unwrap(), &[]).unwrap();
    intake.finish().unwrap();
}

fn trace(number: u32) -> String {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"c1"}}],"path":"src/f{number}.rs"}}],"id":"0000000{number}-0000-4000-8000-000000000000","metadata":{{"session_id":"s1"}},"timestamp":"2026-01-01T00:00:0{number}Z","version":"2.0"}}"#
    )
}

const LEDGER: &str = r#"{"commit_sha":"da39a3ee5e6b4b0d3255bfef95601890afd80709","created_at":"2026-01-01T00:01:00Z","files":{"src/f1.rs":{"ranges":[[1,2]]}},"trace_ids":["00000001-0000-4000-8000-000000000000"]}"#;
const LINK: &str = r#"{"commit_sha":"da39a3ee5e6b4b0d3255bfef95601890afd80709","created_at":"2026-01-01T00:02:00Z","files_changed":["src/f1.rs"],"trace_ids":["00000001-0000-4000-8000-000000000000"]}"#;
const SUMMARY: &str = r#"{"conversation_id":"c1","created_at":"2026-01-01T00:05:00Z","session_id":"s1","summary":"what was done, é"}"#;
const UNKNOWN: &[u8] = b"bytes of a kind of record that this version does not know";

/// A transcript that is cut into several chunks; the longer one starts with the shorter.
fn transcript(lines: u32) -> Vec<u8> {
    let mut content = Vec::new();
    for line in 0..lines {
        let text = "all work and no play makes jack a dull boy ".repeat(20);
        content.extend_from_slice(format!("{{\"line\":{line},\"text\":\"{text}\"}}\n").as_bytes());
    }
    content
}

/// Writes the golden store: a sealed segment with one record of each kind, and an open one.
fn generate() -> SimDisk {
    let disk = SimDisk::new(1);
    let env = fixed_env(&disk);
    let store = Store::init(&env, Path::new(STORE)).unwrap();
    for number in 1..=3 {
        record(&store, Kind::TRACE, &trace(number));
    }
    record(&store, Kind::LEDGER, LEDGER);
    record(&store, Kind::COMMIT_LINK, LINK);
    let mut intake = Intake::new(&store);
    let mut base = None;
    for lines in [400, 600] {
        let content = transcript(lines);
        disk.write_file(Path::new("/t.jsonl"), &content);
        let file = env.fs.open(Path::new("/t.jsonl")).unwrap();
        let body = intake.body(file.as_ref(), content.len() as u64, base.as_ref()).unwrap();
        let record = TranscriptRecord {
            conversation_id: "c1".into(),
            session_id: Some("s1".into()),
            agent: Some("an-agent".into()),
            content_sha256: body.sha256.clone(),
            size: body.bytes,
            created_at: Timestamp::from_micros(NOW + i64::from(lines) * 1_000_000),
            source: None,
        };
        let bytes = record.encode();
        let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap();
        intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
        base = Some(body.base);
    }
    intake.finish().unwrap();
    record(&store, Kind::SUMMARY, SUMMARY);
    let last = append_unknown(&store);
    let tip = store.key().tip(Seq::new(9).unwrap(), last);
    store.append(Prepared { tips: vec![tip], ..Prepared::default() }).unwrap();
    store.seal().unwrap();
    record(&store, Kind::TRACE, &trace(4));
    record(&store, Kind::TRACE, &trace(5));
    disk
}

fn append_unknown(store: &Store) -> EventId {
    let id = ObjectId::of(UNKNOWN);
    let mut builder = ObjectsBuilder::new();
    builder.add(id, UNKNOWN);
    let time = Timestamp::from_micros(NOW);
    let fact =
        Fact { kind: Kind::from_number(200), key: "k".into(), time, appended: time, objects: vec![id] };
    let marks = marks(&fact, UNKNOWN);
    let frames = vec![builder.finish(&mut Packer::new(Effort::FAST))];
    let drafts = vec![Draft { fact, marks }];
    store.append(Prepared { frames, drafts, ..Prepared::default() }).unwrap()[0]
}

/// The files of a store that are its format; the others are computed or belong to one machine.
fn files(disk: &SimDisk, dir: &str) -> Vec<(String, Vec<u8>)> {
    disk.files()
        .into_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(dir).ok()?.to_str()?.to_owned();
            let kept =
                name.starts_with("segments/") || ["format", "writer.key", "instance"].contains(&&*name);
            kept.then(|| (name, disk.read_file(&path).unwrap()))
        })
        .collect()
}

/// A disk with a copy of the golden store; opening a store may write, and never into what is checked in.
fn golden_disk() -> SimDisk {
    let disk = SimDisk::new(2);
    let mut count = 0;
    for dir in ["", "segments"] {
        for entry in std::fs::read_dir(golden_dir().join("store").join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap();
                disk.write_file(&Path::new(STORE).join(dir).join(name), &std::fs::read(&path).unwrap());
                count += 1;
            }
        }
    }
    assert_eq!(count, 5, "format, writer.key, instance, two segments");
    disk
}

/// All events of a store with what they list, as text.
fn listing(store: &Store) -> String {
    let mut text = String::new();
    let found = question::list(store, &store.snapshot().unwrap(), &Query::default()).unwrap();
    for found in found.iter().rev() {
        let fact = &found.event.fact;
        write!(text, "{} {} {} {}", found.event.seq, fact.kind.number(), fact.time, fact.key).unwrap();
        for id in &fact.objects {
            let bytes = store.read(id).unwrap();
            assert_eq!(ObjectId::of(&bytes), *id);
            write!(text, " {id}:{}", bytes.len()).unwrap();
        }
        writeln!(text).unwrap();
    }
    text
}

#[test]
fn todays_code_writes_the_golden_bytes() {
    let disk = generate();
    let written = files(&disk, STORE);
    if blessing() {
        let _ = std::fs::remove_dir_all(golden_dir());
        std::fs::create_dir_all(golden_dir().join("store/segments")).unwrap();
        for (name, bytes) in &written {
            std::fs::write(golden_dir().join("store").join(name), bytes).unwrap();
        }
        let store = Store::open(&disk.env(), Path::new(STORE)).unwrap();
        std::fs::write(golden_dir().join("records.txt"), listing(&store)).unwrap();
    }
    // Where a copy lies is not format: the mark is checked in, and not compared.
    let compared = |files: Vec<(String, Vec<u8>)>| -> Vec<_> {
        files.into_iter().filter(|(name, _)| name != "instance").collect()
    };
    let (golden, written) = (compared(files(&golden_disk(), STORE)), compared(written));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&written), names(&golden), "another name of a sealed segment means other bytes");
    for ((name, written), (_, golden)) in written.iter().zip(&golden) {
        let differs = written.iter().zip(golden).position(|(a, b)| a != b);
        assert!(written == golden, "`{name}` differs from byte {differs:?} on");
    }
}

#[test]
fn the_golden_store_reads_back() {
    let disk = golden_disk();
    let store = Store::open(&disk.env(), Path::new(STORE)).unwrap();
    let expected = std::fs::read_to_string(golden_dir().join("records.txt")).unwrap();
    assert_eq!(listing(&store), expected);
    let mut records: Vec<Vec<u8>> = (1..=5).map(|number| trace(number).into_bytes()).collect();
    records.extend([LEDGER, LINK, SUMMARY].map(|text| text.as_bytes().to_vec()));
    records.extend([400, 600].map(transcript));
    records.push(UNKNOWN.to_vec());
    for bytes in records {
        assert!(store.read(&ObjectId::of(&bytes)).unwrap() == bytes);
    }
    assert!(store.leaves(&ObjectId::of(&transcript(600))).unwrap().0.len() > 2, "it has a recipe");
    let problems = verify::verify(&store, &Silent).unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
    let tips = store.index().read(|view| view.tips()).unwrap().unwrap();
    assert_eq!(tips.iter().map(|tip| tip.seq.get()).collect::<Vec<_>>(), [9]);
    tips[0].verify().unwrap();
}

#[test]
fn the_golden_store_can_be_added_to() {
    let disk = golden_disk();
    let env = disk.env();
    layout::init(&env, Path::new(STORE)).unwrap();
    let store = Store::open(&env, Path::new(STORE)).unwrap();
    assert_eq!(listing(&store).lines().count(), 11);
    assert!(
        !listing(&store).is_empty() && !disk.read_file(Path::new("/golden/writer.key")).unwrap().is_empty()
    );
    record(&store, Kind::TRACE, &trace(6));
    store.seal().unwrap();
    record(&store, Kind::TRACE, &trace(7));
    assert_eq!(listing(&store).lines().count(), 13);
}

#[test]
fn an_unknown_kind_of_record_is_carried() {
    let disk = golden_disk();
    let store = Store::open(&disk.env(), Path::new(STORE)).unwrap();
    for kind in [Kind::from_number(200), Kind::UNKNOWN] {
        let query = Query { kind: Some(kind), ..Query::default() };
        let found = question::list(&store, &store.snapshot().unwrap(), &query).unwrap();
        assert_eq!(found.len(), 1, "{kind:?}");
        assert_eq!(store.read(&found[0].record()).unwrap(), UNKNOWN);
    }
    let other = Query { kind: Some(Kind::from_number(201)), ..Query::default() };
    assert!(question::list(&store, &store.snapshot().unwrap(), &other).unwrap().is_empty());
}

#[test]
fn a_newer_store_is_refused() {
    let disk = golden_disk();
    let path = Path::new("/golden/format");
    let text = String::from_utf8(disk.read_file(path).unwrap()).unwrap();
    disk.write_file(path, text.replace("store 1", "store 2").as_bytes());
    let error = Store::open(&disk.env(), Path::new(STORE)).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 2 is newer than this program"), "{error}");
}

fn segment_path(disk: &SimDisk, open: bool) -> PathBuf {
    let is_open = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("open-");
    disk.files()
        .into_iter()
        .find(|path| path.starts_with("/golden/segments") && is_open(path) == open)
        .unwrap()
}

#[test]
fn a_newer_segment_is_refused() {
    for open in [true, false] {
        let disk = golden_disk();
        let path = segment_path(&disk, open);
        let mut bytes = disk.read_file(&path).unwrap();
        bytes[8] = 2;
        let checksum = blake3::hash(&bytes[..112]);
        bytes[112..128].copy_from_slice(&checksum.as_bytes()[..16]);
        disk.write_file(&path, &bytes);
        let store = Store::open(&disk.env(), Path::new(STORE)).unwrap();
        let set = store.refresh().unwrap();
        let error = &set.unreadable[0].error;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let cause = std::error::Error::source(error).unwrap().to_string();
        assert!(cause.contains("version 2 is newer than this program"), "{cause}");
        assert_eq!(disk.read_file(&path).unwrap(), bytes, "nothing is cut");
    }
}

/// A frame of kind 99 with a checksum that fits, then a commit that ends its batch.
fn with_newer_frame(bytes: &[u8]) -> (Vec<u8>, u64) {
    let header = SegmentHeader::decode(bytes.first_chunk::<HEADER_BYTES>().unwrap()).unwrap();
    let derived = blake3::derive_key("agent-trace segment frame checksum v1", &header.nonce);
    let key = FrameKey::new(&header.nonce);
    let at = bytes.len() as u64;
    let mut placed = Vec::new();
    Frame::plain(FrameKind::Objects, b"what a newer version keeps here".to_vec()).place(
        &key,
        at,
        &mut placed,
    );
    placed[4] = 99;
    let mut hasher = blake3::Hasher::new_keyed(&derived);
    hasher.update(&at.to_le_bytes()).update(&placed[..16]).update(&placed[FRAME_HEADER_BYTES..]);
    placed[16..32].copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    let mut out = [bytes, &placed].concat();
    let last = bytes.len() - usize::try_from(Commit::FILE_BYTES).unwrap() + FRAME_HEADER_BYTES;
    let commit = Commit::decode(&bytes[last..]).unwrap();
    let commit_at = out.len() as u64;
    Commit { batch: commit.batch + 1, ..commit }.frame().place(&key, commit_at, &mut out);
    (out, at)
}

#[test]
fn a_newer_frame_is_refused() {
    let disk = golden_disk();
    let path = segment_path(&disk, true);
    let (bytes, at) = with_newer_frame(&disk.read_file(&path).unwrap());
    disk.write_file(&path, &bytes);
    let file = disk.env().fs.open(&path).unwrap();
    let header = SegmentHeader::read(file.as_ref()).unwrap();
    let error = read_frame(file.as_ref(), &FrameKey::new(&header.nonce), at).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("newer"), "{error}");
    // One flipped bit of the kind is damage, and not a newer format.
    assert!(disk.flip_bit(&path, usize::try_from(at).unwrap() + 4, 0));
    let error = read_frame(file.as_ref(), &FrameKey::new(&header.nonce), at).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_segment_with_a_newer_frame_is_refused_and_not_cut() {
    let disk = golden_disk();
    let path = segment_path(&disk, true);
    let (bytes, _) = with_newer_frame(&disk.read_file(&path).unwrap());
    disk.write_file(&path, &bytes);
    let store = Store::open(&disk.env(), Path::new(STORE)).unwrap();
    assert_eq!(store.seal().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(disk.read_file(&path).unwrap(), bytes, "I8, I11: nothing is cut");
}

#[test]
fn a_footer_that_was_torn_in_the_middle_is_written_again() {
    let disk = golden_disk();
    let sealed = segment_path(&disk, false);
    let file = disk.env().fs.open(&sealed).unwrap();
    let header = SegmentHeader::read(file.as_ref()).unwrap();
    let length = file.len().unwrap();
    let footer = read_footer(file.as_ref(), &FrameKey::new(&header.nonce), length).unwrap().unwrap();
    let mut bytes = disk.read_file(&sealed).unwrap();
    let start = usize::try_from(footer.start).unwrap();
    bytes[start..start + 64].fill(0);
    // As after a power cut while sealing: still under its open name, one sector of the footer never written.
    disk.remove_file(&segment_path(&disk, true));
    disk.remove_file(&sealed);
    let name = agent_trace_store::id::encode_hex(&header.nonce);
    disk.write_file(Path::new(&format!("/golden/segments/open-{name}.seg")), &bytes);
    let store = Store::open(&disk.env(), Path::new(STORE)).unwrap();
    store.seal().unwrap();
    assert!(store.contains(&ObjectId::of(LEDGER.as_bytes())).unwrap());
    assert_eq!(listing(&store).lines().count(), 9);
}

#[test]
fn a_newer_event_is_refused() {
    let time = Timestamp::from_micros(NOW);
    let objects = vec![ObjectId::of(b"x")];
    let fact = Fact { kind: Kind::from_number(200), key: "k".into(), time, appended: time, objects };
    let writer = WriterId::from_bytes([1; 32]);
    let event = Event { writer, seq: Seq::FIRST, previous: EventId::NONE, fact };
    let mut bytes = event.encode();
    assert_eq!(Event::decode(&bytes).unwrap(), event, "an unknown kind of record is carried");
    bytes[0] = 2;
    let error = Event::decode(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 2 is newer than this program"), "{error}");
}

const EXAMPLE: &str = r#"{"id":"t1","timestamp":"2026-01-01T00:00:00Z"}"#;

/// The sealed segment of a store with one trace.
fn example_segment() -> Vec<u8> {
    let disk = SimDisk::new(1);
    let store = Store::init(&fixed_env(&disk), Path::new(STORE)).unwrap();
    record(&store, Kind::TRACE, EXAMPLE);
    store.seal().unwrap();
    disk.read_file(&segment_path(&disk, false)).unwrap()
}

/// One line for each field, or for each 16 bytes of one.
struct Dump {
    text: String,
    at: usize,
}

impl Dump {
    fn field(&mut self, bytes: &mut &[u8], count: usize, name: &str) {
        let (field, rest) = bytes.split_at(count.min(bytes.len()));
        *bytes = rest;
        for (index, line) in field.chunks(16).enumerate() {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = if index == 0 { name } else { "" };
            let line = format!("{:04x}  {:<48}{name}", self.at, hex.join(" "));
            writeln!(self.text, "{}", line.trim_end()).unwrap();
            self.at += hex.len();
        }
    }

    fn fields(&mut self, bytes: &mut &[u8], fields: &[(usize, &str)]) {
        for (count, name) in fields {
            self.field(bytes, *count, name);
        }
    }
}

const HEADER_FIELDS: [(usize, &str); 9] = [
    (8, "magic"),
    (4, "version"),
    (4, "zero"),
    (16, "nonce"),
    (8, "started"),
    (32, "own log before: writer"),
    (8, "own log before: seq"),
    (32, "own log before: event"),
    (16, "checksum"),
];
const FRAME_FIELDS: [(usize, &str); 7] = [
    (4, "frame: magic"),
    (1, "kind"),
    (1, "codec"),
    (2, "zero"),
    (4, "stored bytes"),
    (4, "raw bytes"),
    (16, "checksum"),
];

/// The fields of a frame's raw content; lengths are those of the example.
fn content_fields(kind: FrameKind) -> &'static [(usize, &'static str)] {
    match kind {
        FrameKind::Objects => {
            &[(4, "objects"), (4, "bytes of the payload"), (1, "form: plain"), (46, "payload")]
        }
        FrameKind::Events => &[
            (4, "runs"),
            (32, "run: writer"),
            (8, "run: first seq"),
            (32, "run: id before"),
            (4, "run: events"),
            (1, "event: kind"),
            (1, "objects"),
            (2, "bytes of the key"),
            (8, "time"),
            (8, "appended"),
            (2, "key"),
            (32, "object: the record"),
        ],
        FrameKind::Commit => &[
            (8, "batch"),
            (32, "own log after: writer"),
            (8, "own log after: seq"),
            (32, "own log after: event"),
            (4, "events so far"),
            (4, "zero"),
            (8, "written"),
        ],
        FrameKind::Ids => &[(32, "object id"), (4, "offset of its frame"), (4, "slot")],
        FrameKind::Names => &[(8, "name prefix"), (4, "event"), (8, "name prefix"), (4, "event")],
        FrameKind::Filter => &[(8, "64 bits, six of them set for the one id")],
        FrameKind::Directory => &[
            (8, "raw bytes of objects frames"),
            (4, "objects"),
            (4, "events"),
            (4, "kinds"),
            (1, "kind"),
            (4, "events of it"),
            (4, "objects frames"),
            (4, "offset"),
            (4, "events frames"),
            (4, "first event"),
            (4, "offset"),
            (4, "tips frames"),
            (4, "runs"),
            (32, "run: writer"),
            (8, "run: first seq"),
            (4, "run: events"),
            (32, "run: id before"),
            (32, "run: last id"),
            (4, "run: first event"),
            (8, "id pages: offset of the first"),
            (4, "id pages"),
            (8, "fence"),
            (8, "name pages: offset of the first"),
            (4, "name pages"),
            (8, "fence"),
            (8, "offset of the filter"),
        ],
        FrameKind::Trailer => &[(8, "offset of the directory"), (8, "zero")],
        FrameKind::Tips => &[],
    }
}

fn annotate(segment: &[u8]) -> String {
    let mut dump = Dump { text: String::new(), at: 0 };
    let mut rest = segment;
    dump.fields(&mut rest, &HEADER_FIELDS);
    while let Some(head) = rest.first_chunk::<FRAME_HEADER_BYTES>() {
        let header = FrameHeader::decode(head).unwrap();
        let kind = FrameKind::from_number(header.number).unwrap();
        writeln!(dump.text, "\n; {kind:?}").unwrap();
        dump.fields(&mut rest, &FRAME_FIELDS);
        let (mut stored, after) = rest.split_at(header.stored_bytes as usize);
        rest = after;
        if header.compressed {
            let raw = Unpacker::new().unpack(stored, header.raw_bytes as usize).unwrap();
            let length = stored.len();
            dump.field(&mut stored, length, "one zstd frame");
            writeln!(dump.text, "; which holds, at offsets of its own:").unwrap();
            let mut inner = Dump { text: String::new(), at: 0 };
            let mut raw = &raw[..];
            inner.fields(&mut raw, content_fields(kind));
            assert!(raw.is_empty(), "{kind:?}: {} bytes have no name", raw.len());
            inner.text.lines().for_each(|line| writeln!(dump.text, ";   {line}").unwrap());
        } else {
            dump.fields(&mut stored, content_fields(kind));
            assert!(stored.is_empty(), "{kind:?}: {} bytes have no name", stored.len());
        }
    }
    assert!(rest.is_empty());
    dump.text
}

#[test]
fn the_example_in_the_documentation_is_what_is_written() {
    let segment = example_segment();
    let expected = annotate(&segment);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find("```hex\n").expect("the document has a hex block") + 7;
    let end = start + text[start..].find("```").expect("the block has an end");
    if blessing() {
        std::fs::write(&path, format!("{}{expected}{}", &text[..start], &text[end..])).unwrap();
        return;
    }
    assert!(text[start..end] == expected, "the hex example differs; expected:\n{expected}");
    let bytes: Vec<u8> = text[start..end]
        .lines()
        .filter(|line| !line.starts_with(';') && line.len() > 6)
        .flat_map(|line| line[6..line.len().min(54)].split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    assert!(bytes == segment, "the hex digits alone are the segment");
}
