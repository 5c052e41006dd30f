//! The target for what a hook leaves in the spool.

use std::io;
use std::sync::Mutex;

use agent_trace_store::Timestamp;
use agent_trace_store::env::File;

use super::Random;
use super::capture::entry::{Entry, EntryKind, EntryWriter, Facts, FileState, Tail};

const CHECKSUM_BYTES: usize = 32;

/// An entry: as it is, then with a checksum that fits, as of somebody who may write and means harm.
pub fn entry(bytes: &[u8]) {
    check(bytes);
    let Some(end) = bytes.len().checked_sub(CHECKSUM_BYTES) else { return };
    let mut forged = bytes[..end].to_vec();
    let checksum = *blake3::hash(&forged).as_bytes();
    forged.extend_from_slice(&checksum);
    check(&forged);
}

fn check(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(encode(&entry), bytes, "what is accepted has one encoding");
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    let file = Written(Mutex::default());
    let mut writer = EntryWriter::start(&file, &entry.facts, &entry.payload).expect("memory takes all");
    for seen in &entry.files {
        writer.file(&seen.path, &seen.state).expect("memory takes all");
    }
    for tail in &entry.tails {
        writer.tail(tail).expect("memory takes all");
    }
    writer.finish().expect("memory takes all");
    file.0.into_inner().expect("nobody has panicked")
}

/// A valid entry.
pub fn seed_entry(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let facts = Facts {
        kind: if random.percent(70) { EntryKind::Agent } else { EntryKind::Git },
        is_cut: random.percent(20),
        arrived: Timestamp::from_micros(i64::try_from(random.below(1 << 60)).expect("below the limit")),
        name: "codex".repeat(random.index(3)),
        argument: "amend".repeat(random.index(2)),
        directory: "/w".into(),
        root: "/w".into(),
        git_dir: "/w/.git".into(),
        revision: random.percent(50).then(|| "ab".repeat(20)),
        branch: random.percent(50).then(|| "main".to_owned()),
    };
    let length = random.index(200);
    let payload = random.bytes(length);
    let file = Written(Mutex::default());
    let mut writer = EntryWriter::start(&file, &facts, &payload).expect("memory takes all");
    for number in 0..random.index(4) {
        let length = random.index(40);
        let state = match random.below(5) {
            0 => FileState::Absent,
            1 => FileState::Hashed(random.draw(), [3; 32]),
            2 => FileState::Sized(random.draw()),
            3 => FileState::Unreadable,
            _ => FileState::Whole(random.bytes(length)),
        };
        writer.file(format!("/w/{number}").as_ref(), &state).expect("memory takes all");
    }
    for _ in 0..random.index(3) {
        let length = random.index(60);
        let tail = Tail {
            path: "/t.jsonl".into(),
            device: random.draw(),
            inode: random.draw(),
            size: random.draw(),
            offset: random.draw(),
            check: [random.bytes(1)[0]; 32],
            content: random.bytes(length),
        };
        writer.tail(&tail).expect("memory takes all");
    }
    writer.finish().expect("memory takes all");
    file.0.into_inner().expect("nobody has panicked")
}

/// A file that is only written, from front to back.
struct Written(Mutex<Vec<u8>>);

impl File for Written {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("nobody has panicked").len() as u64)
    }

    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, bytes: &[u8], _offset: u64) -> io::Result<usize> {
        self.0.lock().expect("nobody has panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
