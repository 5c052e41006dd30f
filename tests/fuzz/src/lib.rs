//! The bodies of the fuzz targets: one plain function for each decoder, and valid inputs to start from.
//!
//! `fuzz_targets/` runs them under libFuzzer, `short.rs` in the normal suite on seeded inputs. Each takes
//! any bytes, must return, and asserts what holds of whatever the decoder accepts. Frame checksums are keyed by a
//! public nonce, so hostile bytes have valid ones: targets above the frame place their frames themselves.

use agent_trace_store::codec::Decoder;
use agent_trace_store::env::File;
use agent_trace_store::event::{Event, Fact, decode_events, encode_events};
use agent_trace_store::frame::{
    Effort, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKey, FrameKind, Packer, Unpacker,
};
use agent_trace_store::json::{Reader, canonicalize, decode_string, is_lenient_object};
use agent_trace_store::limits::{KEY_BYTES_MAX, RECORD_BYTES_MAX, RECORD_FACTS_MAX};
use agent_trace_store::object::{Objects, ObjectsBuilder, Part, Recipe, Stored};
use agent_trace_store::record::{self, TranscriptRecord};
use agent_trace_store::scan::{ScanStart, digest, scan};
use agent_trace_store::segment::{
    Commit, Contents, Filter, HEADER_BYTES, LogTail, SegmentHeader, all_ids, all_names, read_footer,
};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::{Tip, WriterKey, decode_tips, encode_tips};
use agent_trace_store::{Error, ErrorKind, EventId, Kind, ObjectId, Seq, Timestamp, WriterId};
pub use agent_trace_tests::{MemoryFile, Random};

mod capture;
pub mod remotes;
pub mod seal;
pub mod spool;
pub mod wire;

/// One decoder under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of the target and of its corpus.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Makes a valid input of a seed.
    pub seed: fn(u64) -> Vec<u8>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame, seed: seed_frame },
    Target { name: "objects", run: objects, seed: seed_objects },
    Target { name: "recipe", run: recipe, seed: seed_recipe },
    Target { name: "events", run: events, seed: seed_events },
    Target { name: "event", run: event, seed: seed_event },
    Target { name: "header", run: header, seed: seed_header },
    Target { name: "commit", run: commit, seed: seed_commit },
    Target { name: "tips", run: tips, seed: seed_tips },
    Target { name: "segment", run: segment, seed: seed_segment },
    Target { name: "event_set", run: event_set, seed: seed_event_set },
    Target { name: "canonical_json", run: canonical_json, seed: seed_json },
    Target { name: "reader", run: reader, seed: seed_json },
    Target { name: "facts", run: facts, seed: seed_json },
    Target { name: "timestamp", run: timestamp, seed: seed_timestamp },
    Target { name: "names", run: names, seed: seed_name },
    Target { name: "head", run: remotes::head, seed: remotes::seed_head },
    Target { name: "elsewhere", run: remotes::elsewhere_note, seed: remotes::seed_elsewhere_note },
    Target { name: "manifest", run: remotes::manifest, seed: remotes::seed_manifest },
    Target { name: "bundle", run: remotes::bundle, seed: remotes::seed_bundle },
    Target { name: "bundle_info", run: remotes::bundle_info, seed: remotes::seed_bundle_info },
    Target { name: "remote_format", run: remotes::remote_format, seed: remotes::seed_format },
    Target { name: "address", run: remotes::address, seed: remotes::seed_address },
    Target { name: "remote_state", run: remotes::remote_state, seed: remotes::seed_state },
    Target { name: "own_head", run: remotes::own_head, seed: remotes::seed_own_head },
    Target { name: "footer_copy", run: remotes::footer_copy, seed: remotes::seed_footer_copy },
    Target { name: "sealed_file", run: seal::sealed_file, seed: seal::seed_file },
    Target { name: "key_ring", run: seal::key_ring, seed: seal::seed_ring },
    Target { name: "keys_file", run: seal::keys_file, seed: seal::seed_keys },
    Target { name: "sealed_manifest", run: seal::sealed_manifest, seed: seal::seed_manifest },
    Target { name: "sealed_names", run: seal::sealed_names, seed: seal::seed_names },
    Target { name: "key_note", run: seal::key_note, seed: seal::seed_note },
    Target { name: "arrivals", run: wire::arrivals, seed: wire::seed_arrivals },
    Target { name: "reconcile_request", run: wire::reconcile_request, seed: wire::seed_reconcile_request },
    Target { name: "symbols", run: wire::symbols, seed: wire::seed_symbols },
    Target { name: "reconcile", run: wire::reconcile, seed: wire::seed_reconcile },
    Target { name: "fetch", run: wire::fetch, seed: wire::seed_fetch },
    Target { name: "holds", run: wire::holds, seed: wire::seed_holds },
    Target { name: "commit_request", run: wire::commit_request, seed: wire::seed_commit_request },
    Target { name: "parts", run: wire::parts, seed: wire::seed_parts },
    Target { name: "spool_entry", run: spool::entry, seed: spool::seed_entry },
];

const KEY_NONCE: [u8; 16] = [7; 16];
/// Longer scripts of segments only take time.
const SCRIPT_BYTES_MAX: usize = 16 << 10;

/// Header and frame: as they are, then with the checksum made to fit.
pub fn frame(bytes: &[u8]) {
    let Some((head, stored)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else { return };
    let key = FrameKey::new(&KEY_NONCE);
    let Ok(header) = FrameHeader::decode(head) else { return };
    if let Ok(frame) = header.check(&key, 0, stored.to_vec()) {
        let mut again = Vec::new();
        frame.place(&key, 0, &mut again);
        assert_eq!(again, bytes, "what is accepted has one encoding");
    }
    let Some(kind) = FrameKind::from_number(header.number) else { return };
    let (compressed, raw_bytes) = (header.compressed, header.raw_bytes);
    let frame = Frame { kind, compressed, raw_bytes, stored: stored.to_vec() };
    let mut placed = Vec::new();
    frame.place(&key, 99, &mut placed);
    let head = placed.first_chunk::<FRAME_HEADER_BYTES>().expect("a placed frame has a header");
    // The length of what is stored is now true, which may put it over a limit or beside the raw length.
    let Ok(header) = FrameHeader::decode(head) else { return };
    let frame = header.check(&key, 99, stored.to_vec()).expect("the checksum was just computed");
    assert!(header.check(&key, 98, stored.to_vec()).is_err(), "a frame at another place does not pass");
    if let Ok(raw) = frame.into_raw(&mut Unpacker::new()) {
        assert_eq!(raw.len(), raw_bytes as usize, "a frame has the length that its header says");
        match kind {
            FrameKind::Objects => objects(&raw),
            FrameKind::Events => events(&raw),
            FrameKind::Tips => tips(&raw),
            FrameKind::Commit => commit(&raw),
            _ => {}
        }
    }
}

/// The content of an objects frame.
pub fn objects(bytes: &[u8]) {
    let Ok(objects) = Objects::decode(bytes.to_vec()) else { return };
    let mut payload = 0;
    for slot in 0..objects.len() {
        match objects.get_with_id(slot) {
            Ok((id, Stored::Plain(plain))) => {
                assert_eq!(id, ObjectId::of(plain));
                payload += plain.len();
            }
            Ok((id, Stored::Recipe(recipe))) => {
                assert_eq!(id, recipe.id);
                payload += recipe.encode().len();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
        }
    }
    assert!(payload <= bytes.len(), "no byte is in two objects");
    assert!(objects.get(objects.len()).is_err());
}

/// The payload of a recipe.
pub fn recipe(bytes: &[u8]) {
    if let Ok(recipe) = Recipe::decode(bytes) {
        assert_eq!(recipe.encode(), bytes, "what is accepted has one encoding");
        assert_eq!(recipe.parts.iter().map(|part| part.bytes).sum::<u64>(), recipe.bytes);
    }
}

/// The content of an events frame.
pub fn events(bytes: &[u8]) {
    let Ok(decoded) = decode_events(bytes) else { return };
    for (event, id) in &decoded {
        assert_eq!(event.id(), *id);
        assert_eq!(&Event::decode(&event.encode()).expect("an event of a frame is an event"), event);
    }
    // Two runs that fit become one, so the bytes may differ; the events do not.
    let again = encode_events(decoded.iter().map(|(event, id)| (event, *id)));
    let again = decode_events(&again).expect("what was decoded can be encoded");
    assert_eq!(again, decoded);
}

/// One event's encoding.
pub fn event(bytes: &[u8]) {
    if let Ok(event) = Event::decode(bytes) {
        assert_eq!(event.encode(), bytes, "an event has one encoding, or its id would be another");
        assert_eq!(event.id(), EventId::of(bytes));
    }
}

/// A segment's header; also with its checksum made to fit.
pub fn header(bytes: &[u8]) {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return };
    if let Ok(header) = SegmentHeader::decode(head) {
        assert_eq!(&header.encode(), head, "what is accepted has one encoding");
    }
}

/// The content of a commit frame.
pub fn commit(bytes: &[u8]) {
    if let Ok(commit) = Commit::decode(bytes) {
        assert_eq!(commit.frame().stored, bytes, "what is accepted has one encoding");
    }
}

/// The content of a tips frame.
pub fn tips(bytes: &[u8]) {
    let mut decoder = Decoder::new("tips", bytes);
    if let Ok(tips) = decode_tips(&mut decoder) {
        let used = bytes.len() - decoder.remaining();
        assert_eq!(encode_tips(&tips), bytes[..used], "what is accepted has one encoding");
        for tip in tips.iter().take(4) {
            let _ = tip.verify();
        }
    }
}

/// A segment file: the bytes as they are, and the file that they are a script for.
pub fn segment(bytes: &[u8]) {
    if bytes.len() > SCRIPT_BYTES_MAX {
        return;
    }
    read_segment(&MemoryFile(bytes.to_vec()));
    read_segment(&MemoryFile(build_segment(bytes)));
}

/// A set of events, and what is done with one.
pub fn event_set(bytes: &[u8]) {
    let Ok(set) = EventSet::decode(bytes) else { return };
    assert_eq!(EventSet::decode(&set.encode()).expect("a set comes back"), set);
    assert!(set.minus(&set).is_empty());
    assert_eq!(set.union(&set), set);
    assert_eq!(set.is_empty(), set.logs().next().is_none());
    for (writer, seqs) in set.logs() {
        let last = seqs.last().expect("no log of a set is empty");
        assert!(set.contains(writer, last));
        assert!(seqs.meets(1, u64::MAX));
    }
}

/// Canonical JSON: never longer, its own canonical form, and nothing where the input is refused; the lenient reading
/// differs only where it says.
pub fn canonical_json(bytes: &[u8]) {
    let mut once = b"before".to_vec();
    match canonicalize(bytes, &mut once) {
        Ok(()) => {
            let once = &once[6..];
            assert!(once.len() <= bytes.len() && once.len() <= RECORD_BYTES_MAX);
            let mut twice = Vec::new();
            canonicalize(once, &mut twice).expect("canonical JSON is JSON");
            assert_eq!(once, twice, "canonical JSON is its own canonical form");
            let mut reader = Reader::new(once);
            assert_eq!(reader.skip().expect("canonical JSON can be passed over"), once);
            reader.finish().expect("nothing follows");
            assert_eq!(is_lenient_object(bytes.trim_ascii()), once.starts_with(b"{"));
        }
        Err(error) => {
            let bounds = ["duplicate key", "invalid UTF-8", "nested too deeply"];
            assert!(bounds.contains(&error.reason) || !is_lenient_object(bytes), "{error}");
            assert!(error.offset <= bytes.len().min(RECORD_BYTES_MAX));
            assert_eq!(once, b"before");
        }
    }
}

/// The reader of canonical JSON, on any bytes; the first bytes say what is asked for.
pub fn reader(bytes: &[u8]) {
    let (steps, text) = bytes.split_at(bytes.len() / 3);
    for text in [bytes, text] {
        let mut reader = Reader::new(text);
        for step in steps {
            match step % 8 {
                0 => drop(reader.enter_object()),
                1 => drop(reader.enter_array()),
                2 => drop(reader.next_key()),
                3 => drop(reader.next_item()),
                4 => drop(reader.string()),
                5 => drop(reader.token()),
                6 => drop(reader.skip()),
                _ => drop(reader.finish()),
            }
        }
        let _ = decode_string(text);
    }
}

/// What is read of a record, on any bytes and on their canonical form.
pub fn facts(bytes: &[u8]) {
    let mut canonical = Vec::new();
    let _ = canonicalize(bytes, &mut canonical);
    for text in [bytes, &canonical] {
        for kind in Kind::KNOWN {
            if let Ok(facts) = record::facts(kind, text) {
                assert!(!facts.key.is_empty() && facts.key.len() <= KEY_BYTES_MAX);
                assert!(facts.paths.len() + facts.names.len() <= RECORD_FACTS_MAX);
            }
        }
        let _ = record::detect(text);
        if let Ok(record) = TranscriptRecord::decode(text) {
            assert_eq!(TranscriptRecord::decode(&record.encode()).expect("a record comes back"), record);
        }
    }
}

/// The text of a time.
pub fn timestamp(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(time) = Timestamp::parse(&text) {
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
    }
    if let Some(number) = bytes.first_chunk::<8>() {
        let time = Timestamp::from_micros(i64::from_le_bytes(*number));
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
    }
}

/// Names and the beginnings by which they are found.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let prefix = record::name_prefix(&text);
    if let Some((first, last)) = record::prefix_range(&text) {
        assert!(first <= last);
        if text.bytes().filter(|byte| *byte != b'-').count() >= 16 {
            assert!((first..=last).contains(&prefix), "a hex name is found by itself");
        }
    }
    let _ = (ObjectId::parse(&text), WriterId::parse(&text));
}

/// Reads a segment in all ways there are.
fn read_segment(file: &dyn File) {
    let Ok(header) = SegmentHeader::read(file) else { return };
    let key = FrameKey::new(&header.nonce);
    let bytes = file.len().expect("memory has a length");
    let start = ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail: header.tail, events: 0 };
    let mut contents = Contents::default();
    let mut unpacker = Unpacker::new();
    let fetch = |_: &ObjectId| Err(Error::new(ErrorKind::NotFound, "not looked for here"));
    let scanned = scan(file, &key, start, &mut |batch| {
        if let Ok(digest) = digest(&batch, &mut unpacker, &fetch, true) {
            let rows = contents.absorb(digest)?;
            assert!(rows.len() as u64 <= u64::from(contents.events));
        }
        Ok(())
    });
    if let Ok(scanned) = scanned {
        assert!(scanned.end <= bytes);
    }
    let Ok(Some(footer)) = read_footer(file, &key, bytes) else { return };
    let directory = &footer.directory;
    assert!(footer.start <= bytes);
    assert_eq!(directory.locate_event(directory.events), None);
    for event in [0, directory.events / 2, directory.events.saturating_sub(1)] {
        let _ = directory.locate_event(event);
    }
    let _ = all_names(file, &key, directory);
    let ids = all_ids(file, &key, directory).unwrap_or_default();
    if let Ok(filter) = Filter::read(file, &key, directory) {
        let _ = ids.iter().filter(|entry| filter.admits(&entry.id)).count();
    }
}

/// Builds a segment file by a script: steps of an operation, a length (two bytes) and so many bytes.
fn build_segment(script: &[u8]) -> Vec<u8> {
    let tail = LogTail::empty(WriterId::from_bytes([1; 32]));
    let header = SegmentHeader { nonce: KEY_NONCE, created: Timestamp::from_micros(0), tail };
    let key = FrameKey::new(&KEY_NONCE);
    let mut out = header.encode().to_vec();
    let mut packer = Packer::new(Effort::FAST);
    let (mut batch, mut events) = (0u64, 0u32);
    let mut rest = script;
    while let Some((step, after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([step[1], step[2]])).min(after.len());
        let (payload, after) = after.split_at(length);
        rest = after;
        let at = out.len() as u64;
        match step[0] {
            operation @ (0..=9 | 0x80..=0x89) => {
                let Some(kind) = FrameKind::from_number(operation & 0x7f) else {
                    out.extend_from_slice(payload);
                    continue;
                };
                let frame = if operation & 0x80 != 0 {
                    packer.frame(kind, payload)
                } else {
                    Frame::plain(kind, payload.to_vec())
                };
                frame.place(&key, at, &mut out);
            }
            0x0a => {
                batch += 1;
                events = events.saturating_add(u32::from(payload.first().copied().unwrap_or(0)));
                let commit =
                    Commit { batch, tail, events: events.min(1024), appended: Timestamp::from_micros(0) };
                commit.frame().place(&key, at, &mut out);
            }
            0x0b => {
                packer.frame(FrameKind::Directory, payload).place(&key, at, &mut out);
                let mut trailer = at.to_le_bytes().to_vec();
                trailer.extend_from_slice(&[0; 8]);
                let at = out.len() as u64;
                Frame::plain(FrameKind::Trailer, trailer).place(&key, at, &mut out);
            }
            0x0c => out.extend_from_slice(&true_contents(&out, &key, tail).footer(&key, at)),
            0x0d => {
                let place =
                    payload.first_chunk::<2>().map_or(0, |place| usize::from(u16::from_le_bytes(*place)));
                let last = out.len() - 1;
                out[HEADER_BYTES.max(place.min(last)).min(last)] ^= 1;
            }
            _ => out.extend_from_slice(payload),
        }
    }
    out
}

/// What the batches of a segment so far hold.
fn true_contents(bytes: &[u8], key: &FrameKey, tail: LogTail) -> Contents {
    let mut contents = Contents::default();
    let start = ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail, events: 0 };
    let fetch = |_: &ObjectId| Err(Error::new(ErrorKind::NotFound, "not looked for here"));
    let _ = scan(&MemoryFile(bytes.to_vec()), key, start, &mut |batch| {
        if let Ok(digest) = digest(&batch, &mut Unpacker::new(), &fetch, true) {
            contents.absorb(digest)?;
        }
        Ok(())
    });
    contents
}

/// Changes a few bytes: flips, boundary values, cuts, copies.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.index(4) {
        let at = random.index(bytes.len() + 1);
        match random.index(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.index(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.index(5)],
            2 => {
                let fill = if random.index(2) == 0 { 0 } else { 255 };
                let end = (at + [2, 4, 8][random.index(3)]).min(bytes.len());
                bytes[at..end].fill(fill);
            }
            3 => bytes.truncate(at),
            4 => {
                let count = random.index(8);
                let more = random.bytes(count);
                bytes.splice(at..at, more);
            }
            5 => {
                let end = (at + random.index(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let end = (at + random.index(40)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

fn sample_events(random: &mut Random) -> Vec<(Event, EventId)> {
    let mut events: Vec<(Event, EventId)> = Vec::new();
    for number in 0..=random.index(5) {
        let follows = number > 0 && random.index(3) > 0;
        let (writer, seq, previous) = match events.last() {
            Some((last, id)) if follows => (last.writer, last.seq.next(), *id),
            _ => (WriterId::from_bytes([number.to_le_bytes()[0]; 32]), Seq::FIRST, EventId::NONE),
        };
        let count = random.index(12);
        let key = random.bytes(count).iter().map(|byte| char::from(byte & 0x7f)).collect();
        let objects = (0..=random.index(2)).map(|_| ObjectId::of(&random.draw().to_le_bytes())).collect();
        let kind = Kind::from_number(random.draw().to_le_bytes()[0] % 7);
        let time = Timestamp::from_micros(random.draw().cast_signed() >> 16);
        let event = Event { writer, seq, previous, fact: Fact { kind, key, time, appended: time, objects } };
        let id = event.id();
        events.push((event, id));
    }
    events
}

fn seed_events(seed: u64) -> Vec<u8> {
    let events = sample_events(&mut Random::new(seed));
    encode_events(events.iter().map(|(event, id)| (event, *id)))
}

fn seed_event(seed: u64) -> Vec<u8> {
    sample_events(&mut Random::new(seed))[0].0.encode()
}

fn sample_recipe(random: &mut Random) -> Recipe {
    let parts: Vec<Part> = (0..=random.index(3))
        .map(|_| Part { id: ObjectId::of(&random.draw().to_le_bytes()), bytes: 1 + random.draw() % 9_999 })
        .collect();
    Recipe { id: ObjectId::of(b"whole"), bytes: parts.iter().map(|part| part.bytes).sum(), parts }
}

fn seed_recipe(seed: u64) -> Vec<u8> {
    sample_recipe(&mut Random::new(seed)).encode()
}

fn objects_frame(seed: u64) -> Frame {
    let mut random = Random::new(seed);
    let mut builder = ObjectsBuilder::new();
    for _ in 0..=random.index(4) {
        let length = random.index(60);
        let body = if random.index(2) == 0 { random.bytes(length) } else { seed_json(random.draw()) };
        builder.add(ObjectId::of(&body), &body);
    }
    if random.index(2) == 0 {
        builder.add_recipe(&sample_recipe(&mut random));
    }
    builder.finish(&mut Packer::new(Effort::FAST)).frame
}

fn seed_objects(seed: u64) -> Vec<u8> {
    objects_frame(seed).into_raw(&mut Unpacker::new()).expect("it was just packed")
}

fn seed_frame(seed: u64) -> Vec<u8> {
    let mut packer = Packer::new(Effort::FAST);
    let frame = match seed % 4 {
        0 => packer.frame(FrameKind::Events, &seed_events(seed)),
        1 => Frame::plain(FrameKind::Tips, seed_tips(seed)),
        2 => packer.frame(FrameKind::Objects, &[0; 4 + 900]),
        _ => objects_frame(seed),
    };
    let mut out = Vec::new();
    frame.place(&FrameKey::new(&KEY_NONCE), 0, &mut out);
    out
}

fn seed_header(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let nonce = random.bytes(16).try_into().expect("sixteen bytes");
    let tail = LogTail::empty(WriterId::from_bytes([seed.to_le_bytes()[0]; 32]));
    SegmentHeader { nonce, created: Timestamp::from_micros(1), tail }.encode().to_vec()
}

fn seed_commit(seed: u64) -> Vec<u8> {
    let tail = LogTail { writer: WriterId::from_bytes([3; 32]), seq: seed, event: EventId::of(b"e") };
    Commit { batch: seed.max(1), tail, events: 7, appended: Timestamp::from_micros(5) }.frame().stored
}

fn seed_tips(seed: u64) -> Vec<u8> {
    let key = WriterKey::from_secret(&[seed.to_le_bytes()[0]; 32]);
    let tips: Vec<Tip> = (1..=seed % 3)
        .map(|seq| key.tip(Seq::new(seq).expect("not zero"), EventId::of(&seq.to_le_bytes())))
        .collect();
    encode_tips(&tips)
}

fn seed_segment(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut script = Vec::new();
    let mut step = |operation: u8, payload: &[u8]| {
        script.push(operation);
        script.extend_from_slice(&u16::try_from(payload.len()).expect("seeds are small").to_le_bytes());
        script.extend_from_slice(payload);
    };
    for _ in 0..=random.index(3) {
        step(0x81, &seed_objects(random.draw()));
        let events = sample_events(&mut random);
        let count = u8::try_from(events.len()).expect("few");
        step(0x82, &encode_events(events.iter().map(|(event, id)| (event, *id))));
        if random.index(3) == 0 {
            step(3, &seed_tips(random.draw()));
        }
        step(0x0a, &[count]);
    }
    if random.index(3) > 0 {
        step(0x0c, &[]);
    }
    script
}

fn seed_event_set(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let ranges: Vec<_> = (0..random.index(6))
        .map(|_| {
            let first = 1 + random.draw() % 50;
            (WriterId::from_bytes([random.draw().to_le_bytes()[0] % 3; 32]), first, first + random.draw() % 9)
        })
        .collect();
    EventSet::from_ranges(ranges).encode()
}

fn seed_json(seed: u64) -> Vec<u8> {
    const TEXTS: [&str; 8] = [
        r#"{"files":[{"conversations":[{"id":"c1","url":"u"}],"path":"src/a.rs"}],"id":"7c9e6679-7425-40de","metadata":{"session_id":"s1"},"timestamp":"2026-01-01T00:00:00Z","tool":{"name":"t"},"vcs":{"revision":"ab"},"version":"2.0"}"#,
        r#"{"commit_sha":"da39a3ee5e6b4b0d3255bfef95601890afd80709","created_at":"2026-01-01T00:00:00Z","derived_from":{"source_sha":"x"},"files":{"a\"b.rs":{"ranges":[]}},"trace_ids":["a","b"]}"#,
        r#"{"commit_sha":"c","committed_at":"2026-01-01T00:00:00+01:00","files_changed":["a","b","a"],"trace_ids":[]}"#,
        r#"{"conversation_id":"c1","created_at":"2026-01-01T00:00:00Z","session_id":"s","summary":"text\n\u00e9\ud83d\ude00"}"#,
        r#"{"agent":"x","content_sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","conversation_id":"c","created_at":"2026-01-01T00:00:00Z","size":12}"#,
        r#" { "b" : [ 1 , -0.5e+3 , true , null ] , "a" : { "\u0061b" : "\/" , "aa" : "\ud800" } } "#,
        r#"[[[[[[]]]]],{"":{"":{}}},"\\\"",0]"#,
        "\"\u{e9}\u{1f600}\"",
    ];
    TEXTS[Random::new(seed).index(TEXTS.len())].as_bytes().to_vec()
}

fn seed_timestamp(seed: u64) -> Vec<u8> {
    Timestamp::from_micros(Random::new(seed).draw().cast_signed() >> 12).to_string().into_bytes()
}

fn seed_name(seed: u64) -> Vec<u8> {
    let mut text = ObjectId::of(&seed.to_le_bytes()).to_string();
    text.truncate(Random::new(seed).index(65));
    text.into_bytes()
}
