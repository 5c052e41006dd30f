//! The bytes of spool entries and marks: golden, in both directions, and refused where they are not whole.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use agent_trace_store::env::File;
use agent_trace_store::id::encode_hex;
use agent_trace_store::{ErrorKind, Timestamp};
use proptest::prelude::*;

use super::entry::{Entry, EntryKind, EntryWriter, Facts, FileState, SeenFile, Tail};
use super::limits::{FILE_BYTES_MAX, FILES_MAX, NAME_BYTES_MAX, TAIL_BYTES_MAX};
use super::tail::Mark;

/// A file in memory.
#[derive(Default)]
struct Memory(Mutex<Vec<u8>>);

impl File for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut content = self.0.lock().unwrap();
        assert_eq!(content.len() as u64, offset, "an entry is written from front to back");
        content.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    let memory = Memory::default();
    let mut writer = EntryWriter::start(&memory, &entry.facts, &entry.payload).unwrap();
    for file in &entry.files {
        writer.file(&file.path, &file.state).unwrap();
    }
    for tail in &entry.tails {
        writer.tail(tail).unwrap();
    }
    writer.finish().unwrap();
    memory.0.into_inner().unwrap()
}

fn facts() -> Facts {
    Facts {
        kind: EntryKind::Agent,
        is_cut: false,
        arrived: Timestamp::from_micros(1_767_225_600_000_000),
        name: "claude-code".into(),
        argument: String::new(),
        directory: "/w".into(),
        root: "/w".into(),
        git_dir: "/w/.git".into(),
        revision: Some("ab".repeat(20)),
        branch: Some("main".into()),
    }
}

fn sample() -> Entry {
    let file = |path: &str, state| SeenFile { path: path.into(), state };
    Entry {
        facts: facts(),
        payload: b"{}".to_vec(),
        files: vec![
            file("/w/a", FileState::Whole(b"x\n".to_vec())),
            file("/w/b", FileState::Absent),
            file("/w/c", FileState::Hashed(2_000_000, [7; 32])),
        ],
        tails: vec![Tail {
            path: "/t.jsonl".into(),
            device: 1,
            inode: 2,
            size: 30,
            offset: 27,
            check: [9; 32],
            content: b"{}\n".to_vec(),
        }],
    }
}

#[test]
fn an_entry_is_written_as_it_always_was() {
    let expected = concat!(
        // what, when, where
        "415453504f4f4c00010000000100000000402046484706000b000000636c617564652d636f646500000000020000002f",
        "77020000002f77070000002f772f2e676974280000006162616261626162616261626162616261626162616261626162",
        "6162616261626162616261626162040000006d61696e020000007b7d",
        // files
        "01040000002f772f61010200000000000000000000000000000000000000000000000000000000000000000000000000",
        "000002000000780a01040000002f772f6200000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000000001040000002f772f630280841e000000000007070707070707070707070707070707",
        "070707070707070707070707070707070000000000",
        // tails
        "01080000002f742e6a736f6e6c010000000000000002000000000000001e000000000000001b00000000000000090909",
        "0909090909090909090909090909090909090909090909090909090909030000007b7d0a00",
    );
    let bytes = encode(&sample());
    let (said, checksum) = bytes.split_at(bytes.len() - 32);
    assert_eq!(encode_hex(said), expected, "a change of these bytes is a change of the format");
    assert_eq!(blake3::hash(said).as_bytes(), checksum);
    assert_eq!(Entry::decode(&bytes).unwrap(), sample());
}

#[test]
fn a_mark_is_written_as_it_always_was() {
    let mark = Mark { device: 1, inode: 2, offset: 3, check: [4; 32] };
    let expected = format!(
        "41545441494c0000{}{}{}{}{}",
        "01000000",
        "0100000000000000",
        "0200000000000000",
        "0300000000000000",
        "04".repeat(32)
    );
    assert_eq!(encode_hex(&mark.encode()), expected);
    assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
    for length in 0..mark.encode().len() {
        Mark::decode(&mark.encode()[..length]).unwrap_err();
    }
}

#[test]
fn an_entry_that_is_not_whole_is_refused_at_every_byte() {
    let bytes = encode(&sample());
    for length in 0..bytes.len() {
        Entry::decode(&bytes[..length]).unwrap_err();
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        Entry::decode(&changed).unwrap_err();
    }
    let mut longer = bytes;
    longer.push(0);
    Entry::decode(&longer).unwrap_err();
}

#[test]
fn a_newer_entry_is_told_from_a_damaged_one() {
    let mut bytes = encode(&sample());
    bytes[8] = 2;
    assert_eq!(Entry::decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
    bytes[0] = 0;
    assert_ne!(Entry::decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// The bytes with a checksum that fits, whatever they say.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 32);
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&checksum);
    bytes
}

#[test]
fn bounds_hold_for_what_is_read_and_for_what_is_written() {
    let whole = |bytes: u64| {
        let content = vec![b'x'; usize::try_from(bytes).unwrap()];
        Entry {
            files: vec![SeenFile { path: "/w/a".into(), state: FileState::Whole(content) }],
            tails: Vec::new(),
            ..sample()
        }
    };
    for (bytes, good) in [(0, true), (1, true), (FILE_BYTES_MAX, true), (FILE_BYTES_MAX + 1, false)] {
        assert_eq!(Entry::decode(&encode(&whole(bytes))).is_ok(), good, "file of {bytes}");
    }
    let tail = |bytes: u64| {
        let content = vec![b'x'; usize::try_from(bytes).unwrap()];
        Entry { tails: vec![Tail { content, ..sample().tails.remove(0) }], ..sample() }
    };
    for (bytes, good) in [(TAIL_BYTES_MAX, true), (TAIL_BYTES_MAX + 1, false)] {
        assert_eq!(Entry::decode(&encode(&tail(bytes))).is_ok(), good, "tail of {bytes}");
    }
    for (count, good) in [(FILES_MAX, true), (FILES_MAX + 1, false)] {
        let file = SeenFile { path: "/w/a".into(), state: FileState::Absent };
        let entry = Entry { files: vec![file; count], ..sample() };
        assert_eq!(Entry::decode(&encode(&entry)).is_ok(), good, "{count} files");
    }
    // What is too long for its place is shortened when it is written, between two characters.
    let facts =
        Facts { branch: Some("é".repeat(NAME_BYTES_MAX)), root: PathBuf::from("/".repeat(5000)), ..facts() };
    let read = Entry::decode(&encode(&Entry { facts, ..sample() })).unwrap();
    assert_eq!(read.facts.branch, Some("é".repeat(NAME_BYTES_MAX / 2)));
    assert_eq!(read.facts.root, PathBuf::new());
    let mut bytes = encode(&sample());
    bytes[13] = 2;
    assert_eq!(
        Entry::decode(&sealed(bytes.clone())).unwrap_err().kind(),
        ErrorKind::Invalid,
        "a reserved flag"
    );
    bytes[13] = 0;
    bytes[12] = 3;
    assert_eq!(Entry::decode(&sealed(bytes)).unwrap_err().kind(), ErrorKind::Invalid, "an unknown kind");
}

proptest! {
    #[test]
    fn every_entry_comes_back(
        payload in prop::collection::vec(any::<u8>(), 0..300_000),
        micros in 0..200_000_000_000_000_000i64,
        name in "\\PC{0,40}",
        sizes in prop::collection::vec((0..600_000usize, 0..5u8), 0..4),
        is_git: bool,
        is_cut: bool,
    ) {
        let files = sizes.iter().map(|(size, state)| SeenFile {
            path: format!("/w/{size}").into(),
            state: match state {
                0 => FileState::Absent,
                1 => FileState::Whole(vec![3; *size]),
                2 => FileState::Hashed(*size as u64, [1; 32]),
                3 => FileState::Sized(*size as u64),
                _ => FileState::Unreadable,
            },
        });
        let entry = Entry {
            facts: Facts {
                kind: if is_git { EntryKind::Git } else { EntryKind::Agent },
                is_cut,
                arrived: Timestamp::from_micros(micros),
                name,
                ..facts()
            },
            payload,
            files: files.collect(),
            ..sample()
        };
        prop_assert_eq!(Entry::decode(&encode(&entry)).unwrap(), entry);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut entry = encode(&sample());
        for (at, byte) in bytes.chunks_exact(3).map(|part| (usize::from(part[0]) << 8 | usize::from(part[1]), part[2])) {
            let length = entry.len();
            entry[at % length] = byte;
        }
        let _ = Entry::decode(&entry);
        let _ = Entry::decode(&sealed(entry));
        let _ = Entry::decode(&bytes);
    }
}
