//! Targets for what a store reads of a remote, and for what it notes of one.

use std::path::PathBuf;

use agent_trace_store::elsewhere;
use agent_trace_store::limits::ELSEWHERE_IDS_MAX;
use agent_trace_store::segment::SegmentHeader;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::{Tip, WriterKey};
use agent_trace_store::{EventId, Kind, ObjectId, SegmentId, Seq, Timestamp, WriterId};
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::bundle;
use agent_trace_sync::head::Head;
use agent_trace_sync::limits::{MANIFEST_DEPTH_MAX, MANIFEST_SEGMENTS_MAX};
use agent_trace_sync::manifest::{Manifest, NO_MANIFEST};
use agent_trace_sync::publish::OwnHead;
use agent_trace_sync::remote::{decode_format, encode_format};
use agent_trace_sync::state::{SeenHead, State};
use agent_trace_sync::tables::{decode_table, encode_table};

use super::{MemoryFile, Random, SCRIPT_BYTES_MAX, build_segment, seed_event_set, seed_segment};

const SIGNATURE_BYTES: usize = 64;
/// Where a head has its writer.
const HEAD_WRITER_AT: usize = 28;

fn key() -> WriterKey {
    WriterKey::from_secret(&[9; 32])
}

/// A head: as it is, then signed by a key that is known, as by somebody who may write and means harm.
pub fn head(bytes: &[u8]) {
    if let Ok(head) = Head::decode(bytes) {
        assert!(bytes.len() >= SIGNATURE_BYTES + 136 * head.tips.len(), "no tip is made up");
        head.tips.iter().for_each(|tip| tip.verify().expect("tips are verified with their head"));
        if head.writer == key().id() {
            assert_eq!(head.encode(&key()), bytes, "what is accepted has one encoding");
        }
    }
    let Some(end) = bytes.len().checked_sub(SIGNATURE_BYTES) else { return };
    let mut forged = bytes[..end].to_vec();
    let Some(writer) = forged.get_mut(HEAD_WRITER_AT..HEAD_WRITER_AT + 32) else { return };
    writer.copy_from_slice(key().id().as_bytes());
    let signature = key().sign(&forged);
    forged.extend_from_slice(&signature);
    if let Ok(head) = Head::decode(&forged) {
        assert_eq!(head.encode(&key()), forged, "what is accepted has one encoding");
    }
}

/// A manifest under its true name; under another it is none.
pub fn manifest(bytes: &[u8]) {
    assert!(Manifest::decode(&[1; 32], bytes).is_err());
    if let Ok(manifest) = Manifest::decode(&Manifest::id(bytes), bytes) {
        assert_eq!(manifest.encode(), bytes, "what is accepted has one encoding");
        assert!(manifest.depth <= MANIFEST_DEPTH_MAX);
        assert_eq!(manifest.depth == 0, manifest.previous == NO_MANIFEST);
        assert!(manifest.added.len().max(manifest.replaces.len()) <= MANIFEST_SEGMENTS_MAX);
    }
}

/// A bundle in one file: as it is; then with a head, a directory's hash and a trailer that fit, as by somebody who means harm.
pub fn bundle(bytes: &[u8]) {
    let check = |bytes: &[u8]| {
        let Ok(entries) = bundle::read_places(&MemoryFile(bytes.to_vec())) else { return };
        let mut at = bundle::HEADER_BYTES as u64;
        for entry in &entries {
            assert!(bundle::is_key(&entry.key) && entry.offset > at, "entries follow each other");
            at = entry.offset + entry.bytes;
        }
        assert!(at < bytes.len() as u64, "no entry is longer than the file");
        let _ = bundle::Bundle::of_file(std::sync::Arc::new(MemoryFile(bytes.to_vec())), "bundle");
    };
    check(bytes);
    // Where the first two bytes point, the directory starts.
    let Some((number, rest)) = bytes.split_first_chunk::<2>() else { return };
    let at = usize::from(u16::from_le_bytes(*number)).min(rest.len());
    let mut forged = bundle::encode_header();
    forged.extend_from_slice(rest);
    let start = bundle::HEADER_BYTES + at;
    let trailer = bundle::encode_trailer(start as u64, &forged[start..]);
    forged.extend(trailer);
    check(&forged);
}

/// A bundle with a few files in it.
pub(super) fn seed_bundle(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let (mut bytes, mut entries) = (bundle::encode_header(), Vec::new());
    for number in 0..seed % 4 {
        let key =
            ["format", "bundle.json", "heads/ab", "segments/cd"][usize::try_from(number).expect("small")];
        let length = random.index(40);
        let content = random.bytes(length);
        bytes.extend(bundle::encode_entry(key, content.len() as u64));
        let (offset, hash) = (bytes.len() as u64, *blake3::hash(&content).as_bytes());
        entries.push(bundle::Entry { key: key.to_owned(), offset, bytes: content.len() as u64, hash });
        bytes.extend(content);
    }
    let (at, directory) = (bytes.len() as u64, bundle::encode_directory(&entries));
    bytes.extend_from_slice(&directory);
    bytes.extend(bundle::encode_trailer(at, &directory));
    bytes
}

/// The readable manifest of a bundle, and a cursor.
pub fn bundle_info(bytes: &[u8]) {
    if let Ok(info) = bundle::BundleInfo::decode(bytes) {
        let again = info.encode().expect("what was read can be written");
        assert_eq!(bundle::BundleInfo::decode(&again).expect("it was just written"), info);
        info.remote().expect("it was compared");
    }
    if let Ok(events) = bundle::decode_cursor(&String::from_utf8_lossy(bytes)) {
        let text = bundle::encode_cursor(&events);
        assert_eq!(bundle::decode_cursor(&text).expect("it was just written"), events);
    }
}

/// What a bundle says of itself, or a cursor.
pub(super) fn seed_bundle_info(seed: u64) -> Vec<u8> {
    let events = EventSet::decode(&seed_event_set(seed)).expect("a seed is valid");
    let cursor = bundle::encode_cursor(&events);
    if seed.is_multiple_of(3) {
        return cursor.into_bytes();
    }
    let base = bundle::BundleBase { id: None, events: events.len(), cursor: cursor.clone() };
    let info = bundle::BundleInfo {
        schema: "agent-trace/bundle-manifest/1".to_owned(),
        id: format!("{seed:032x}"),
        writer: String::new(),
        program: "a program".to_owned(),
        created: String::new(),
        counts: [("trace".to_owned(), seed)].into(),
        objects: seed,
        raw_bytes: 1,
        segment_bytes: 2,
        segments: 3,
        writers: vec!["w".to_owned()],
        first: None,
        last: Some(String::new()),
        sessions: 1,
        session_ids: vec!["s".to_owned()],
        selection: Vec::new(),
        base: seed.is_multiple_of(2).then_some(base),
        cursor,
    };
    info.encode().expect("it is small")
}

/// A note of objects that are elsewhere.
pub fn elsewhere_note(bytes: &[u8]) {
    if let Ok((remote, ids)) = elsewhere::decode(bytes) {
        assert_eq!(elsewhere::encode(&remote, &ids), bytes, "what is accepted has one encoding");
        assert!(!ids.is_empty() && ids.len() <= ELSEWHERE_IDS_MAX);
    }
}

/// A note of some objects.
pub(super) fn seed_elsewhere_note(seed: u64) -> Vec<u8> {
    let mut ids: Vec<ObjectId> = (0..=seed % 5)
        .map(|number| ObjectId::of(&[seed.to_le_bytes(), number.to_le_bytes()].concat()))
        .collect();
    ids.sort_unstable();
    elsewhere::encode(&[u8::try_from(seed % 251).expect("it is small"); 16], &ids)
}

/// The `format` file of a remote.
pub fn remote_format(bytes: &[u8]) {
    if let Ok(id) = decode_format(bytes, "/remote") {
        let text = encode_format(&id);
        assert_eq!(decode_format(text.as_bytes(), "/remote").expect("it was just written"), id);
        assert!(text.len() <= bytes.len() + 1, "at most the last line end may be missing");
    }
}

/// The address of a remote.
pub fn address(bytes: &[u8]) {
    let Ok(url) = RemoteUrl::parse(&String::from_utf8_lossy(bytes), Plaintext::Loopback) else { return };
    let path = match url {
        RemoteUrl::Folder(path) => path,
        RemoteUrl::Service(service) => {
            let again = RemoteUrl::parse(&service.to_string(), Plaintext::Loopback);
            let again = again.expect("the canonical form is taken again");
            assert_eq!(again, RemoteUrl::Service(service));
            return;
        }
        RemoteUrl::Bucket(bucket) => {
            let again = RemoteUrl::parse(&bucket.to_string(), Plaintext::Loopback);
            assert_eq!(again.expect("the canonical form is taken again"), RemoteUrl::Bucket(bucket));
            return;
        }
    };
    assert!(path.is_absolute());
    let text = path.to_str().expect("an address is text");
    assert!(!text.contains('\0'));
    let digits: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let again = RemoteUrl::parse(&format!("file://{digits}"), Plaintext::Loopback)
        .expect("every byte may be written in digits");
    assert_eq!(again, RemoteUrl::Folder(PathBuf::from(text)));
    assert_eq!(again.name(), format!("file://{text}"));
}

/// What a store remembers of a remote.
pub fn remote_state(bytes: &[u8]) {
    let Ok(mut state) = State::decode(bytes) else { return };
    let encoded = state.encode();
    assert!(encoded.len() <= bytes.len(), "nothing is made up");
    assert_eq!(State::decode(&encoded).expect("a state comes back"), state);
    let live = state.live_segments().count();
    assert!(live <= state.segments.len() && live + state.replaced.len() >= state.segments.len());
    for tip in state.tips.clone().values() {
        state.note_tip(tip);
    }
    assert_eq!(state.encode(), encoded, "what is known already changes nothing");
}

/// The note of the own head: what it counts can be counted on.
pub fn own_head(bytes: &[u8]) {
    if let Ok(note) = OwnHead::decode(bytes) {
        assert_eq!(note.encode(), bytes, "what is accepted has one encoding");
        assert!(note.generation < u64::MAX && note.seq < u64::MAX && note.depth <= MANIFEST_DEPTH_MAX);
    }
}

/// The cached footer of a segment: the bytes as they are, and the copy out of the file that they are a script for.
pub fn footer_copy(bytes: &[u8]) {
    if bytes.len() > SCRIPT_BYTES_MAX {
        return;
    }
    let id = SegmentId::from_bytes([1; 32]);
    if let Ok(sealed) = decode_table(Box::new(MemoryFile(bytes.to_vec())), &id) {
        let _ = (sealed.load_filter(), sealed.find(&ObjectId::of(b"a")));
    }
    let file = MemoryFile(build_segment(bytes));
    let Ok(table) = encode_table(&file, file.0.len() as u64) else { return };
    assert!(table.len() <= 2 * file.0.len() + 16, "a copy is no longer than the file and its head");
    let sealed =
        decode_table(Box::new(MemoryFile(table)), &id).expect("a footer that was read can be copied");
    assert_eq!(sealed.header, SegmentHeader::read(&file).expect("the script has a header"));
    assert_eq!(sealed.bytes, file.0.len() as u64);
    let _ = (sealed.load_filter(), sealed.find(&ObjectId::of(b"a")));
}

fn sample_tips(random: &mut Random) -> Vec<Tip> {
    (0..random.index(3))
        .map(|_| {
            let key = WriterKey::from_secret(&[random.draw().to_le_bytes()[0]; 32]);
            let seq = Seq::new(1 + random.draw() % 99).expect("not zero");
            key.tip(seq, EventId::of(&random.draw().to_le_bytes()))
        })
        .collect()
}

fn sample_hash(random: &mut Random) -> [u8; 32] {
    [random.draw().to_le_bytes()[0]; 32]
}

pub(super) fn seed_head(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let head = Head {
        remote: [4; 16],
        writer: key().id(),
        generation: 1 + random.draw() % 9,
        previous: sample_hash(random),
        manifest: sample_hash(random),
        time: Timestamp::from_micros(random.draw().cast_signed() >> 16),
        tips: sample_tips(random),
    };
    head.encode(&key())
}

pub(super) fn seed_manifest(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let depth = u32::try_from(random.index(3)).expect("small");
    let previous = if depth == 0 { NO_MANIFEST } else { [5; 32] };
    let added = (0..random.index(4))
        .map(|_| (SegmentId::from_bytes(sample_hash(random)), random.draw() % 9_999))
        .collect();
    let replaces = (0..random.index(3)).map(|_| SegmentId::from_bytes(sample_hash(random))).collect();
    Manifest { previous, depth, added, replaces }.encode()
}

pub(super) fn seed_format(seed: u64) -> Vec<u8> {
    let id = Random::new(seed).bytes(16).try_into().expect("sixteen bytes");
    encode_format(&id).into_bytes()
}

pub(super) fn seed_address(seed: u64) -> Vec<u8> {
    const TEXTS: [&str; 6] = [
        "file:///srv/team",
        "file:///with%20space",
        "file:///%C3%A9/\u{e9}",
        "file:///",
        "s3://bucket/pre/fix",
        "AZ://a.b-c/",
    ];
    TEXTS[Random::new(seed).index(TEXTS.len())].as_bytes().to_vec()
}

pub(super) fn seed_state(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let mut state = State::default();
    for _ in 0..random.index(4) {
        let seen = SeenHead {
            generation: random.draw() % 9,
            hash: sample_hash(random),
            manifest: sample_hash(random),
            version: random.draw().is_multiple_of(2).then(|| sample_hash(random)),
        };
        state.heads.insert(WriterId::from_bytes(sample_hash(random)), seen);
        state.segments.insert(SegmentId::from_bytes(sample_hash(random)), random.draw() % 9_999);
        state.replaced.insert(SegmentId::from_bytes(sample_hash(random)));
        state.held_kinds.insert(Kind::from_number(random.draw().to_le_bytes()[0]), random.draw() % 99);
    }
    for set in [&mut state.has, &mut state.held, &mut state.evaluated] {
        *set = EventSet::decode(&seed_event_set(random.draw())).expect("a seed is valid");
    }
    sample_tips(random).iter().for_each(|tip| state.note_tip(tip));
    state.encode()
}

pub(super) fn seed_own_head(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let note = OwnHead {
        writer: WriterId::from_bytes(sample_hash(random)),
        generation: random.draw() % 99,
        before: sample_hash(random),
        after: sample_hash(random),
        manifest: sample_hash(random),
        depth: u32::try_from(random.index(64)).expect("small"),
        seq: random.draw() % 9_999,
    };
    note.encode()
}

/// Now a script of a segment, now the copy of a footer itself.
pub(super) fn seed_footer_copy(seed: u64) -> Vec<u8> {
    let mut script = seed_segment(seed);
    script.extend_from_slice(&[0x0c, 0, 0]);
    let file = MemoryFile(build_segment(&script));
    match encode_table(&file, file.0.len() as u64) {
        Ok(table) if seed.is_multiple_of(2) => table,
        _ => script,
    }
}
