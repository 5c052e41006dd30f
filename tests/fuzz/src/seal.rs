//! Targets for what stands on an encrypted remote, and for what a store notes of one. Whatever has to be sealed for a
//! decoder to see it is sealed here, as by a member who means harm.

use agent_trace_store::env::File;
use agent_trace_store::{SegmentId, WriterId};
use agent_trace_sync::limits::{KEY_EPOCHS_MAX, MANIFEST_SEGMENTS_MAX};
use agent_trace_sync::seal::encrypted::{decode_manifest, encode_manifest};
use agent_trace_sync::seal::file::SealedFile;
use agent_trace_sync::seal::frames::{
    FRAME_BYTES, FileKind, Frames, Header, Place, TRAILER_BYTES, header_of, open, sealed_bytes,
};
use agent_trace_sync::seal::keys::Seen;
use agent_trace_sync::seal::names::{Names, There};
use agent_trace_sync::seal::{KeyId, Ring, Secret};

use super::{MemoryFile, Random};

const REMOTE: [u8; 16] = [7; 16];
const PLACE: Place = Place { remote: REMOTE, kind: FileKind::Segment, name: [0; 32] };
const HEADER: Header = Header { epoch: 1, nonce: [3; 16] };
/// A file of keys, and the secret that opens it.
const KEYS: &[u8] = include_bytes!("../../../sync/tests/golden/keys");
const SECRET: &str = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZ9K4CN";

fn ring() -> Ring {
    Ring::from_keys(REMOTE, &[[1; 32]], Vec::new())
}

/// A sealed file: as it is, then the same bytes as trailer and content of a file of one frame.
pub fn sealed_file(bytes: &[u8]) {
    check_file(bytes);
    let Some((trailer, content)) = bytes.split_first_chunk::<TRAILER_BYTES>() else { return };
    let content = &content[..content.len().min(FRAME_BYTES)];
    let mut sealed = HEADER.encode().to_vec();
    let key = ring().data(1).expect("it is there");
    Frames::new(&key, &HEADER, &PLACE).seal(&[5; 24], 0, true, [trailer, content], &mut sealed);
    check_file(&sealed);
}

fn check_file(sealed: &[u8]) {
    let file = SealedFile::open(Box::new(MemoryFile(sealed.to_vec())), &ring(), &PLACE);
    let whole = header_of(sealed).and_then(|header| open(&ring().data(header.epoch)?, &PLACE, sealed));
    if let Ok((name, content)) = &whole {
        assert_eq!(sealed.len() as u64, sealed_bytes(content.len() as u64), "one length for one content");
        let file = file.as_ref().unwrap_or_else(|error| panic!("whole it opens, in parts: {error}"));
        assert_eq!((&file.trailer().name, file.trailer().bytes), (name, content.len() as u64));
    }
    if let Ok(file) = file {
        let file: &dyn File = &file;
        let bytes = file.len().expect("it is known");
        assert!(bytes <= sealed.len() as u64, "no content is made up");
        let mut content = vec![0; usize::try_from(bytes).expect("it is in memory")];
        if file.read_exact_at(&mut content, 0).is_ok()
            && let Ok((_, whole)) = whole
        {
            assert!(content == whole, "the same in parts");
        }
    }
}

/// The keys of a remote, opened.
pub fn key_ring(bytes: &[u8]) {
    if let Ok(ring) = Ring::decode(bytes) {
        assert_eq!(*ring.encode(), bytes, "what is accepted has one encoding");
        assert!((1..=KEY_EPOCHS_MAX).contains(&(ring.epoch() as usize)));
        assert!(
            ring.data(ring.epoch()).is_ok() && ring.data(0).is_err() && ring.data(ring.epoch() + 1).is_err()
        );
    }
}

/// A file of keys.
pub fn keys_file(bytes: &[u8]) {
    let secret = Secret::parse(SECRET).expect("it is one");
    if let Ok(ring) = secret.unwrap(bytes) {
        assert!(bytes == KEYS, "nobody else has sealed one: {}", ring.epoch());
    }
}

/// What is sealed of a manifest.
pub fn sealed_manifest(bytes: &[u8]) {
    if let Ok((manifest, names)) = decode_manifest(bytes) {
        assert_eq!(encode_manifest(manifest, &names), bytes, "what is accepted has one encoding");
        assert!(names.len() <= MANIFEST_SEGMENTS_MAX);
    }
}

/// The names that a store keeps: as they are, then with the hash made to fit.
pub fn sealed_names(bytes: &[u8]) {
    let fitting = [bytes, blake3::hash(bytes).as_bytes()].concat();
    for bytes in [bytes, &fitting] {
        if let Ok(names) = Names::decode(bytes) {
            let encoded = names.encode();
            assert!(encoded.len() <= bytes.len(), "nothing is made up");
            assert_eq!(Names::decode(&encoded).expect("it was just written"), names);
        }
    }
}

/// The note of keys that a store has seen.
pub fn key_note(bytes: &[u8]) {
    if let Ok(seen) = Seen::decode(bytes) {
        assert_eq!(seen.encode(), bytes, "what is accepted has one encoding");
    }
}

fn hash(random: &mut Random) -> [u8; 32] {
    random.bytes(32).try_into().expect("32 bytes")
}

pub(super) fn seed_file(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let length = random.index(900);
    let mut bytes = hash(random).to_vec();
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    bytes.extend(random.bytes(length));
    bytes.resize(TRAILER_BYTES + 1024, 0);
    bytes
}

pub(super) fn seed_ring(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let keys: Vec<[u8; 32]> = (0..=random.index(3)).map(|_| hash(random)).collect();
    let members = (0..random.index(3)).map(|number| format!("age1member{number}")).collect();
    Ring::from_keys(REMOTE, &keys, members).encode().to_vec()
}

pub(super) fn seed_keys(_seed: u64) -> Vec<u8> {
    KEYS.to_vec()
}

fn there(random: &mut Random) -> There {
    There { name: SegmentId::from_bytes(hash(random)), bytes: random.draw() % 99_999 }
}

pub(super) fn seed_manifest(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let names: Vec<There> = (0..random.index(4)).map(|_| there(random)).collect();
    let length = random.index(99);
    encode_manifest(&random.bytes(length), &names)
}

/// Without the hash, which the target adds.
pub(super) fn seed_names(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let mut names = Names::default();
    names.writers.extend((0..random.index(3)).map(|_| WriterId::from_bytes(hash(random))));
    for _ in 0..random.index(4) {
        let (id, name) = (SegmentId::from_bytes(hash(random)), there(random));
        names.learn(id, name);
        if random.percent(30) {
            names.learn(id, there(random));
        }
    }
    let mut bytes = names.encode();
    bytes.truncate(bytes.len() - 32);
    bytes
}

pub(super) fn seed_note(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    Seen((0..random.index(4)).map(|_| KeyId(random.bytes(16).try_into().expect("sixteen bytes"))).collect())
        .encode()
}
