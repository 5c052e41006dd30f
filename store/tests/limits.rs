//! Each limit of `limits.rs` at the border that enforces it: the limit is taken, one more is refused.
//!
//! Also: hostile lengths are refused at once, and the table of limits in `docs/format.md` is that of the code. Limits
//! that only tune (cache sizes, targets of compression) have no border and no test here.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use agent_trace_store::codec::{Decoder, Encoder};
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::env::{DirEntry, Env, File, Fs, Lock, LockMode, Metadata};
use agent_trace_store::event::{Event, Fact, decode_events, encode_events};
use agent_trace_store::frame::{
    Effort, FRAME_HEADER_BYTES, FRAME_MAGIC, Frame, FrameHeader, FrameKey, FrameKind, Packer, Unpacker,
};
use agent_trace_store::intake::Intake;
use agent_trace_store::json::canonicalize;
use agent_trace_store::limits::*;
use agent_trace_store::log::{Draft, Prepared};
use agent_trace_store::object::{Objects, ObjectsBuilder, ObjectsFrame, Part, Recipe};
use agent_trace_store::record::{Facts, facts};
use agent_trace_store::scan::{Marks, next_frame};
use agent_trace_store::segment::{Commit, HEADER_BYTES, LogTail, read_footer};
use agent_trace_store::segments::SegmentSet;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::{TIP_BYTES, decode_tips};
use agent_trace_store::{
    ErrorKind, EventId, Kind, ObjectId, Result, Seq, Store, Timestamp, WriterId, elsewhere, lock,
};

/// The limit is taken, one more is refused as `kind`.
#[track_caller]
fn check<T>(what: &str, limit: usize, kind: ErrorKind, take: impl Fn(usize) -> Result<T>) {
    if let Err(error) = take(limit) {
        panic!("{what}: expected {limit} to be taken, found: {error}");
    }
    match take(limit + 1) {
        Ok(_) => panic!("{what}: expected {} to be refused", limit + 1),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
    }
}

const CORRUPT: ErrorKind = ErrorKind::Corrupt;

fn frame_header(kind: u8, codec: u8, stored: u32, raw: u32) -> [u8; FRAME_HEADER_BYTES] {
    let mut encoder = Encoder::new();
    encoder.put(&FRAME_MAGIC).u8(kind).u8(codec).u16(0).u32(stored).u32(raw).put(&[0; 16]);
    encoder.finish().try_into().unwrap()
}

#[test]
fn frame_lengths() {
    check("raw bytes", FRAME_RAW_BYTES_MAX, CORRUPT, |n| {
        FrameHeader::decode(&frame_header(1, 1, 10, n as u32))
    });
    check("raw bytes as stored", FRAME_RAW_BYTES_MAX, CORRUPT, |n| {
        FrameHeader::decode(&frame_header(1, 0, n as u32, n as u32))
    });
    check("stored bytes", FRAME_STORED_BYTES_MAX, CORRUPT, |n| {
        FrameHeader::decode(&frame_header(1, 1, n as u32, 10))
    });
}

fn zstd_frame(raw: &[u8], window_log: u32) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    compressor.set_parameter(zstd::zstd_safe::CParameter::WindowLog(window_log)).unwrap();
    compressor.compress(raw).unwrap()
}

#[test]
fn window_of_a_zstd_frame() {
    let raw = vec![7; CHUNK_BYTES_MAX + 1];
    check("window", WINDOW_LOG_MAX as usize, CORRUPT, |log| {
        Unpacker::new().unpack(&zstd_frame(&raw, log as u32), raw.len())
    });
    // A window descriptor by hand: exponent and mantissa, then an empty last block.
    let by_hand = |window: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, window][..], &[1, 0, 0]].concat();
    assert_eq!(Unpacker::new().unpack(&by_hand(13 << 3), 0).unwrap(), []);
    assert_eq!(Unpacker::new().unpack(&by_hand(13 << 3 | 1), 0).unwrap_err().kind(), CORRUPT);
    assert_eq!(Unpacker::new().unpack(&by_hand(14 << 3), 0).unwrap_err().kind(), CORRUPT);
    assert_eq!(Unpacker::new().unpack(&by_hand(31 << 3 | 7), 0).unwrap_err().kind(), CORRUPT);
}

#[test]
fn a_compressed_frame_is_exactly_one_zstd_frame_of_the_stated_length() {
    let one = zstd_frame(&[7; 1000], 20);
    let unpack = |stored: &[u8], raw: usize| Unpacker::new().unpack(stored, raw);
    assert_eq!(unpack(&one, 1000).unwrap(), vec![7; 1000]);
    assert!(unpack(&one, 999).is_err());
    assert!(unpack(&one, 1001).is_err());
    assert!(unpack(&[&one[..], &one].concat(), 2000).is_err(), "two frames");
    assert!(unpack(&[&one[..], &[0]].concat(), 1000).is_err(), "a byte after the frame");
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"skip"].concat();
    assert!(unpack(&[&skippable[..], &one].concat(), 1000).is_err(), "a skippable frame");
    assert!(unpack(&skippable, 0).is_err());
    assert!(unpack(&one[..one.len() - 1], 1000).is_err());
    assert!(unpack(&[], 0).is_err());
}

#[test]
fn objects_of_a_frame() {
    check("objects", FRAME_OBJECTS_MAX, CORRUPT, |n| {
        let mut raw = (n as u32).to_le_bytes().to_vec();
        raw.resize(4 + n * 5, 0);
        Objects::decode(raw)
    });
    check("bytes of a plain object", CHUNK_BYTES_MAX, CORRUPT, |n| {
        let mut encoder = Encoder::new();
        encoder.u32(1).u32(n as u32).u8(0).put(&vec![0; n]);
        Objects::decode(encoder.finish())
    });
}

#[test]
fn notes_of_what_is_elsewhere() {
    check("objects of a note", ELSEWHERE_IDS_MAX, CORRUPT, |n| {
        let mut encoder = Encoder::new();
        encoder.put(b"ATELSEW\0").u32(1).put(&[0; 16]).u32(n as u32);
        for id in 0..n as u64 {
            encoder.put(&[0; 24]).u64(id.swap_bytes());
        }
        elsewhere::decode(&encoder.finish())
    });
    let disk = SimDisk::new(1);
    let store = Store::init(&disk.env(), Path::new("/s")).unwrap();
    for number in 0..3 * ELSEWHERE_FILES_TARGET {
        store.note_elsewhere(&[0; 16], &[ObjectId::of(&number.to_le_bytes())]).unwrap();
    }
    let noted = store.elsewhere().unwrap();
    assert_eq!(noted.len(), 3 * ELSEWHERE_FILES_TARGET);
    store.tidy_elsewhere().unwrap();
    assert_eq!(disk.files().iter().filter(|path| path.starts_with("/s/elsewhere")).count(), 1);
    assert_eq!(store.elsewhere().unwrap(), noted);
    // One is there, the others have gone since they were listed.
    check("notes", ELSEWHERE_FILES_MAX - 1, ErrorKind::Invalid, |n| {
        let env = disk.env();
        let fs = std::sync::Arc::new(Crowded { inner: env.fs.clone(), files: n, dir: "elsewhere" });
        Store::open(&Env { fs, ..env }, Path::new("/s"))?.elsewhere()
    });
}

#[test]
fn recipes() {
    let recipe = |parts: usize, total: u64| {
        let mut encoder = Encoder::new();
        encoder.put(&[1; 32]).u64(total).u32(parts as u32);
        for part in 0..parts {
            let rest = total - (parts as u64 - 1);
            encoder.put(&[2; 32]).u64(if part == 0 { rest } else { 1 });
        }
        Recipe::decode(&encoder.finish())
    };
    check("parts", RECIPE_PARTS_MAX, CORRUPT, |n| recipe(n, n as u64));
    check("bytes of an object", OBJECT_BYTES_MAX as usize, CORRUPT, |n| recipe(3, n as u64));
    assert_eq!(recipe(1, 0).unwrap_err().kind(), CORRUPT, "a part of no bytes");
}

fn event(key: usize, objects: usize) -> Event {
    let time = Timestamp::from_micros(0);
    let objects = vec![ObjectId::of(b""); objects];
    let fact = Fact { kind: Kind::TRACE, key: "k".repeat(key), time, appended: time, objects };
    Event { writer: WriterId::from_bytes([1; 32]), seq: Seq::FIRST, previous: EventId::NONE, fact }
}

/// An event's encoding with lengths that our own encoder refuses.
fn encoded_event(key: usize, objects: usize) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.u8(1).u8(1).u16(key as u16).put(&[1; 32]).u64(1).put(&[0; 32]).i64(0).i64(0);
    encoder.u16(objects as u16).put(&vec![b'k'; key]).put(&vec![0; objects * 32]);
    encoder.finish()
}

/// An events frame of one run, written by hand.
fn events_frame(events: usize, key: usize, objects: usize) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.u32(1).put(&[1; 32]).u64(1).put(&[0; 32]).u32(events as u32);
    for _ in 0..events {
        encoder.u8(1).u8(objects as u8).u16(key as u16).i64(0).i64(0);
        encoder.put(&vec![b'k'; key]).put(&vec![0; objects * 32]);
    }
    encoder.finish()
}

#[test]
fn events() {
    assert_eq!(encoded_event(5, 1).len(), event(5, 1).encode().len());
    check("key", KEY_BYTES_MAX, CORRUPT, |n| Event::decode(&encoded_event(n, 1)));
    check("key in a frame", KEY_BYTES_MAX, CORRUPT, |n| decode_events(&events_frame(1, n, 1)));
    check("objects", EVENT_OBJECTS_MAX, CORRUPT, |n| Event::decode(&encoded_event(1, n)));
    check("objects in a frame", EVENT_OBJECTS_MAX, CORRUPT, |n| decode_events(&events_frame(1, 1, n)));
    check("events in a frame", FRAME_EVENTS_MAX, CORRUPT, |n| decode_events(&events_frame(n, 0, 1)));
    assert!(Event::decode(&encoded_event(1, 0)).is_err(), "an event without a record");
    assert!(event(KEY_BYTES_MAX, EVENT_OBJECTS_MAX).encode().len() <= EVENT_BYTES_MAX);
    // A frame of single runs is as full as a frame of one.
    let apart: Vec<Event> = (0..FRAME_EVENTS_MAX)
        .map(|number| Event { writer: WriterId::from_bytes([number as u8; 32]), ..event(0, 1) })
        .collect();
    let raw = encode_events(apart.iter().map(|event| (event, event.id())));
    assert_eq!(decode_events(&raw).unwrap().len(), FRAME_EVENTS_MAX);
}

#[test]
fn json() {
    let canonical = |text: &[u8]| {
        canonicalize(text, &mut Vec::new())
            .map_err(|error| agent_trace_store::Error::invalid("refused").with_source(error))
    };
    check("depth", JSON_DEPTH_MAX, ErrorKind::Invalid, |n| {
        canonical(format!("{}{}", "[".repeat(n), "]".repeat(n)).as_bytes())
    });
    check("depth of objects", JSON_DEPTH_MAX, ErrorKind::Invalid, |n| {
        canonical(format!("{}{{}}{}", "{\"\":".repeat(n - 1), "}".repeat(n - 1)).as_bytes())
    });
    check("record", RECORD_BYTES_MAX, ErrorKind::Invalid, |n| {
        canonical(format!("\"{}\"", "x".repeat(n - 2)).as_bytes())
    });
    check("key", KEY_BYTES_MAX, ErrorKind::Invalid, |n| {
        facts(Kind::TRACE, format!("{{\"id\":\"{}\"}}", "k".repeat(n)).as_bytes()).map(Facts::into_owned)
    });
    check("facts", RECORD_FACTS_MAX, ErrorKind::Invalid, |n| {
        let ids: Vec<String> = (0..n).map(|id| format!("\"{id}\"")).collect();
        facts(
            Kind::COMMIT_LINK,
            format!("{{\"commit_sha\":\"x\",\"trace_ids\":[{}]}}", ids.join(",")).as_bytes(),
        )
        .map(Facts::into_owned)
    });
}

#[test]
fn tips_and_event_sets() {
    check("tips", WRITERS_MAX, CORRUPT, |n| {
        let mut raw = (n as u32).to_le_bytes().to_vec();
        raw.resize(4 + n * TIP_BYTES, 1);
        decode_tips(&mut Decoder::new("tips", &raw))
    });
    check("logs of a set", WRITERS_MAX, CORRUPT, |n| {
        let mut encoder = Encoder::new();
        encoder.u32(n as u32);
        for writer in 0..n as u64 {
            encoder.u64(writer).put(&[0; 24]).u32(1).u64(1).u64(u64::MAX);
        }
        EventSet::decode(&encoder.finish()).inspect(|set| assert_eq!(set.len(), u64::MAX))
    });
}

#[test]
fn events_of_a_commit() {
    let tail = LogTail::empty(WriterId::from_bytes([1; 32]));
    check("events", SEGMENT_EVENTS_MAX as usize, CORRUPT, |n| {
        let commit = Commit { batch: 1, tail, events: n as u32, appended: Timestamp::from_micros(0) };
        Commit::decode(&commit.frame().stored)
    });
}

/// A file that is zero but for a few places.
#[derive(Default)]
struct SparseFile {
    bytes: u64,
    places: BTreeMap<u64, Vec<u8>>,
}

impl File for SparseFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        for (start, bytes) in &self.places {
            let from = offset.max(*start);
            let to = (offset + count as u64).min(start + bytes.len() as u64);
            if from < to {
                let piece = &bytes[(from - start) as usize..(to - start) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(piece);
            }
        }
        Ok(count)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Copy, Default)]
struct DirectoryShape {
    events: u32,
    kinds: u32,
    objects_frames: usize,
    events_frames: usize,
    tips_frames: usize,
    file_bytes: u64,
}

/// Reads a footer whose directory is written by hand: no pages, a filter, a directory, a trailer.
fn footer(shape: DirectoryShape) -> Result<bool> {
    let mut encoder = Encoder::new();
    encoder.u64(0).u32(0).u32(shape.events).u32(shape.kinds);
    for kind in 0..shape.kinds {
        encoder.u8(kind as u8).u32(0);
    }
    for (frames, fields) in [(shape.objects_frames, 1), (shape.events_frames, 2), (shape.tips_frames, 1)] {
        encoder.u32(frames as u32).put(&vec![0; frames * fields * 4]);
    }
    encoder.u32(u32::from(shape.events > 0));
    if shape.events > 0 {
        encoder.put(&[1; 32]).u64(1).u32(shape.events).put(&[0; 32]).put(&[2; 32]).u32(0);
    }
    let start = HEADER_BYTES as u64;
    encoder.u64(start).u32(0).u64(start).u32(0).u64(start);
    let key = FrameKey::new(&[7; 16]);
    let mut before = Vec::new();
    Frame::plain(FrameKind::Filter, vec![0; 8]).place(&key, start, &mut before);
    let directory_at = start + before.len() as u64;
    Packer::new(Effort::FAST).frame(FrameKind::Directory, &encoder.finish()).place(
        &key,
        directory_at,
        &mut before,
    );
    let trailer_bytes = FRAME_HEADER_BYTES as u64 + 16;
    let bytes = shape.file_bytes.max(start + before.len() as u64 + trailer_bytes);
    let mut trailer = Encoder::new();
    trailer.u64(directory_at).u64(0);
    let mut after = Vec::new();
    Frame::plain(FrameKind::Trailer, trailer.finish()).place(&key, bytes - trailer_bytes, &mut after);
    let places = BTreeMap::from([(start, before), (bytes - trailer_bytes, after)]);
    read_footer(&SparseFile { bytes, places }, &key, bytes).map(|footer| footer.is_some())
}

#[test]
fn directories() {
    let shape = DirectoryShape::default();
    assert!(footer(shape).unwrap());
    check("events", SEGMENT_EVENTS_MAX as usize, CORRUPT, |n| {
        footer(DirectoryShape { events: n as u32, ..shape })
    });
    check("kinds", 256, CORRUPT, |n| footer(DirectoryShape { kinds: n as u32, ..shape }));
    let frames = SEGMENT_FRAMES_MAX as usize;
    check("objects frames", frames, CORRUPT, |n| footer(DirectoryShape { objects_frames: n, ..shape }));
    check("events frames", frames, CORRUPT, |n| footer(DirectoryShape { events_frames: n, ..shape }));
    check("tips frames", frames, CORRUPT, |n| footer(DirectoryShape { tips_frames: n, ..shape }));
    assert!(footer(DirectoryShape { file_bytes: SEGMENT_BYTES_MAX, ..shape }).unwrap());
    assert!(!footer(DirectoryShape { file_bytes: SEGMENT_BYTES_MAX + 1, ..shape }).unwrap());
}

fn store(disk: &SimDisk) -> Store {
    Store::init(&disk.env(), Path::new("/s")).unwrap()
}

/// Objects, packed as they are given: bytes and whether they are a recipe.
fn packed(plain: &[&[u8]], recipes: &[Recipe]) -> Vec<ObjectsFrame> {
    let mut builder = ObjectsBuilder::new();
    for bytes in plain {
        builder.add(ObjectId::of(bytes), bytes);
    }
    for recipe in recipes {
        builder.add_recipe(recipe);
    }
    vec![builder.finish(&mut Packer::new(Effort::FAST))]
}

#[test]
fn depth_of_recipes() {
    let store = store(&SimDisk::new(1));
    let mut recipes = Vec::new();
    let one = Part { id: ObjectId::of(b"a"), bytes: 1 };
    let mut base = one;
    for depth in 1..=RECIPE_DEPTH_MAX + 1 {
        let whole = vec![b'a'; depth + 1];
        let recipe = Recipe { id: ObjectId::of(&whole), bytes: whole.len() as u64, parts: vec![base, one] };
        base = Part { id: recipe.id, bytes: recipe.bytes };
        recipes.push(recipe);
    }
    let frames = packed(&[b"a"], &recipes);
    store.append(Prepared { frames, ..Prepared::default() }).unwrap();
    check("depth", RECIPE_DEPTH_MAX, CORRUPT, |n| store.read(&recipes[n - 1].id));
}

#[test]
fn parts_of_an_object_over_all_its_recipes() {
    let store = store(&SimDisk::new(1));
    let one = Part { id: ObjectId::of(b"a"), bytes: 1 };
    let half = vec![b'a'; RECIPE_PARTS_MAX / 2];
    let half = Recipe { id: ObjectId::of(&half), bytes: half.len() as u64, parts: vec![one; half.len()] };
    let part = Part { id: half.id, bytes: half.bytes };
    let whole = |parts: Vec<Part>| {
        let bytes = parts.iter().map(|part| part.bytes).sum::<u64>();
        Recipe { id: ObjectId::of(&vec![b'a'; bytes as usize]), bytes, parts }
    };
    let (most, over) = (whole(vec![part, part]), whole(vec![part, part, one]));
    let ids = [most.id, over.id];
    store.append(Prepared { frames: packed(&[b"a"], &[half, most, over]), ..Prepared::default() }).unwrap();
    assert_eq!(store.leaves(&ids[0]).unwrap().0.len(), RECIPE_PARTS_MAX);
    assert_eq!(store.leaves(&ids[1]).unwrap_err().kind(), CORRUPT);
}

#[test]
fn bytes_of_an_object_that_is_taken_in() {
    let store = store(&SimDisk::new(1));
    let mut intake = Intake::new(&store);
    let file = |bytes| SparseFile { bytes, places: BTreeMap::new() };
    let over = intake.body(&file(OBJECT_BYTES_MAX + 1), OBJECT_BYTES_MAX + 1, None);
    assert_eq!(over.map(|body| body.id).unwrap_err().kind(), ErrorKind::Invalid);
    let body = intake.body(&file(OBJECT_BYTES_MAX), OBJECT_BYTES_MAX, None).unwrap();
    intake.finish().unwrap();
    let (parts, bytes) = store.leaves(&body.id).unwrap();
    assert_eq!(bytes, OBJECT_BYTES_MAX);
    assert!(parts.iter().all(|part| part.bytes <= CHUNK_BYTES_MOST as u64));
}

/// A file that does not compress.
struct NoiseFile(u64);

impl File for NoiseFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.0.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for (index, piece) in buffer[..count].chunks_mut(8).enumerate() {
            let place = (offset / 8 + index as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let noise = (place ^ place >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            piece.copy_from_slice(&(noise ^ noise >> 32).to_le_bytes()[..piece.len()]);
        }
        Ok(count)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_body_of_more_than_a_batch_is_taken_in() {
    let store = store(&SimDisk::new(1));
    let mut intake = Intake::new(&store);
    let bytes = BATCH_BYTES_MAX + (8 << 20);
    let body = intake.body(&NoiseFile(bytes), bytes, None).unwrap();
    assert!(intake.waiting_bytes() <= INTAKE_BYTES_MAX + 2 * CHUNK_FRAME_BYTES_TARGET as u64);
    intake.finish().unwrap();
    assert_eq!(store.leaves(&body.id).unwrap().1, bytes);
}

#[test]
fn a_record_that_is_taken_in() {
    let store = store(&SimDisk::new(1));
    let facts = facts(Kind::TRACE, br#"{"id":"x"}"#).unwrap();
    let record = |bytes: usize| {
        Intake::new(&store).record(Kind::TRACE, &vec![b' '; bytes], &facts, Timestamp::default(), &[])
    };
    check("record", RECORD_BYTES_MAX, ErrorKind::Invalid, record);
    let long = |n: usize| {
        let facts = Facts { key: "k".repeat(n).into(), ..facts.clone() };
        Intake::new(&store).record(Kind::TRACE, b"{}", &facts, Timestamp::default(), &[])
    };
    check("key", KEY_BYTES_MAX, ErrorKind::Invalid, long);
}

fn drafts(numbers: std::ops::Range<usize>) -> Prepared {
    let mut prepared = Prepared::default();
    let numbers: Vec<usize> = numbers.collect();
    for part in numbers.chunks(4096) {
        let mut builder = ObjectsBuilder::new();
        for number in part {
            let record = format!("{{\"id\":\"{number}\"}}").into_bytes();
            let id = ObjectId::of(&record);
            builder.add(id, &record);
            let time = Timestamp::default();
            let key = number.to_string();
            let fact = Fact { kind: Kind::TRACE, key, time, appended: time, objects: vec![id] };
            prepared.drafts.push(Draft { fact, marks: Marks::default() });
        }
        prepared.frames.push(builder.finish(&mut Packer::new(Effort::FAST)));
    }
    prepared
}

#[test]
fn events_of_a_batch_and_of_a_segment() {
    let store = store(&SimDisk::new(1));
    let sealed = || store.refresh().unwrap().sealed.len();
    let target = SEGMENT_EVENTS_TARGET as usize;
    let mut at = 0;
    while at + BATCH_EVENTS_MAX < target {
        store.append(drafts(at..at + BATCH_EVENTS_MAX)).unwrap();
        at += BATCH_EVENTS_MAX;
    }
    store.append(drafts(at..target - 1)).unwrap();
    assert_eq!(sealed(), 0);
    store.append(drafts(target - 1..target)).unwrap();
    assert_eq!(sealed(), 1, "a segment is sealed when it holds {target} events");
    let over = catch_unwind(AssertUnwindSafe(|| store.append(drafts(target..target + BATCH_EVENTS_MAX + 1))));
    assert!(over.is_err(), "a larger batch is a fault of ours, and asserted");
}

/// A file system whose directories hold so many files more.
struct Crowded {
    inner: std::sync::Arc<dyn Fs>,
    files: usize,
    dir: &'static str,
}

impl Fs for Crowded {
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        if !path.ends_with(self.dir) {
            return self.inner.list(path);
        }
        let entry = |number: usize| DirEntry { name: number.to_string().into(), is_dir: false };
        Ok(self.inner.list(path)?.into_iter().chain((0..self.files).map(entry)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.inner.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.inner.open_write(path)
    }

    fn create(&self, path: &Path, private: bool) -> io::Result<Box<dyn File>> {
        self.inner.create(path, private)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.inner.metadata(path)
    }

    fn try_lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn Lock>>> {
        self.inner.try_lock(path, mode)
    }
}

#[test]
fn files_in_the_directory_of_segments() {
    let disk = SimDisk::new(1);
    drop(store(&disk));
    check("files", SEGMENTS_MAX, ErrorKind::Invalid, |n| {
        let env = disk.env();
        let fs = std::sync::Arc::new(Crowded { inner: env.fs.clone(), files: n, dir: "segments" });
        SegmentSet::load(&Env { fs, ..env }, Path::new("/s"), &SegmentSet::default()).map(drop)
    });
}

#[test]
fn waiting_for_a_lock() {
    let disk = SimDisk::new(1);
    let (holder, other) = disk.process();
    let _held = other.fs.try_lock(Path::new("/l"), LockMode::Exclusive).unwrap();
    let env = disk.env();
    let start = env.clock.monotonic_micros();
    let wait = || lock::lock(&env, Path::new("/l"), LockMode::Shared, LOCK_WAIT_MICROS_MAX);
    assert_eq!(wait().map(drop).unwrap_err().kind(), ErrorKind::Unavailable);
    let waited = env.clock.monotonic_micros() - start;
    assert!((LOCK_WAIT_MICROS_MAX..LOCK_WAIT_MICROS_MAX + 100_000).contains(&waited), "{waited}");
    disk.kill(holder);
    assert!(wait().is_ok());
}

/// Nothing may be allocated for a length before it is compared with what is there; refusing must cost nothing.
#[test]
fn hostile_lengths_are_refused_at_once() {
    let lengths = [u32::MAX, u32::MAX - 1, 1 << 31, 1 << 30, 1 << 24, 1 << 20];
    for _ in 0..1_000 {
        for length in lengths {
            let mut bytes = [0; 256];
            for at in (0..64).step_by(4) {
                bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
            }
            assert!(Objects::decode(bytes.to_vec()).is_err());
            assert!(decode_events(&bytes).is_err());
            assert!(EventSet::decode(&bytes).is_err());
            assert!(decode_tips(&mut Decoder::new("tips", &bytes)).is_err());
            assert!(Recipe::decode(&[&[0; 40][..], &bytes].concat()).is_err());
            assert!(FrameHeader::decode(&frame_header(1, 1, length, length)).is_err() || length <= 1 << 24);
        }
    }
    // Lengths that are each possible, but not together: 65,536 recipes of all the bytes there are.
    let mut raw = (FRAME_OBJECTS_MAX as u32).to_le_bytes().to_vec();
    for _ in 0..FRAME_OBJECTS_MAX {
        raw.extend_from_slice(&(FRAME_RAW_BYTES_MAX as u32).to_le_bytes());
        raw.push(1);
    }
    raw.resize(FRAME_RAW_BYTES_MAX, 0);
    assert!(Objects::decode(raw).is_err());
}

#[test]
fn a_search_among_false_headers_gives_up() {
    let bytes = 1 << 20;
    let header = frame_header(1, 1, bytes / 2, 10);
    let file = SparseFile { bytes: u64::from(bytes), places: BTreeMap::from([(0, header.repeat(32 << 10))]) };
    // Each of them claims half of the file: hashing all that they claim would take the square of it.
    let found = next_frame(&file, &FrameKey::new(&[7; 16]), 1, u64::from(bytes));
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Evaluates the constant expressions of `limits.rs`: numbers, names, `<<`, `+`, `*` and parentheses.
struct Expression<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
    known: &'a BTreeMap<&'a str, u128>,
}

impl Expression<'_> {
    fn shift(&mut self) -> u128 {
        let mut value = self.sum();
        while self.tokens.next_if_eq(&"<<").is_some() {
            value <<= self.sum();
        }
        value
    }

    fn sum(&mut self) -> u128 {
        let mut value = self.product();
        while self.tokens.next_if_eq(&"+").is_some() {
            value += self.product();
        }
        value
    }

    fn product(&mut self) -> u128 {
        let mut value = self.atom();
        while self.tokens.next_if_eq(&"*").is_some() {
            value *= self.atom();
        }
        value
    }

    fn atom(&mut self) -> u128 {
        let token = self.tokens.next().expect("an expression goes on after an operator");
        if token == "(" {
            let value = self.shift();
            assert_eq!(self.tokens.next(), Some(")"));
            return value;
        }
        let number = token.replace('_', "").parse().ok();
        number.or_else(|| self.known.get(token).copied()).unwrap_or_else(|| panic!("unknown: `{token}`"))
    }
}

/// Every limit of the source with its value.
fn limits_of(source: &str) -> BTreeMap<&str, u128> {
    let mut limits = BTreeMap::new();
    for item in source.split("pub const ").skip(1) {
        let (name, rest) = item.split_once(':').unwrap();
        let (_, rest) = rest.split_once('=').unwrap();
        let (text, _) = rest.split_once(';').unwrap();
        let mut tokens = Vec::new();
        for word in text.split_whitespace() {
            let mut word = word;
            while let Some(rest) = word.strip_prefix('(') {
                tokens.push("(");
                word = rest;
            }
            let inner = word.trim_end_matches(')');
            tokens.push(inner);
            tokens.extend(std::iter::repeat_n(")", word.len() - inner.len()));
        }
        let mut expression = Expression { tokens: tokens.into_iter().peekable(), known: &limits };
        let value = expression.shift();
        assert_eq!(expression.tokens.next(), None, "`{name}` is read whole");
        limits.insert(name, value);
    }
    limits
}

/// Reads `2^20`, `2^20 x 16`, `16,777,216` and so on: a product of numbers and powers.
fn number(text: &str) -> Option<u128> {
    let factor = |factor: &str| -> Option<u128> {
        let plain = |text: &str| text.trim().replace(',', "").parse::<u128>().ok();
        match factor.split_once('^') {
            Some((base, exponent)) => Some(plain(base)?.pow(u32::try_from(plain(exponent)?).ok()?)),
            None => plain(factor),
        }
    };
    text.split('×').map(factor).product()
}

#[test]
fn the_table_in_the_documentation_is_that_of_the_code() {
    let expected = limits_of(include_str!("../src/limits.rs"));
    assert_eq!(expected["OBJECT_BYTES_MAX"], u128::from(OBJECT_BYTES_MAX));
    assert_eq!(expected["FRAME_STORED_BYTES_MAX"], FRAME_STORED_BYTES_MAX as u128);
    let text = include_str!("../../docs/format.md");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, value, ..] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        if let Some((name, _)) = expected.get_key_value(name) {
            let value = number(value).unwrap_or_else(|| panic!("`{name}` has no value in `{line}`"));
            assert_eq!(found.insert(*name, value), None, "`{name}` is there twice");
        }
    }
    assert_eq!(found, expected, "the table of limits in docs/format.md");
}
