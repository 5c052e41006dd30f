//! Builders and seeded data for the tests.
//!
//! One number gives one record, on every machine. Knows nothing of stores and remotes.

use std::io;

use agent_trace_store::env::File;

/// A seeded sequence of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of a seed.
    pub fn new(seed: u64) -> Random {
        Random(mix(seed ^ 0x5851_f42d_4c95_7f2d))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below a bound that is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// An index of something of this length, which is not zero.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw().to_le_bytes()[0]).collect()
    }

    /// True that many times in a hundred.
    pub fn percent(&mut self, odds: u64) -> bool {
        self.below(100) < odds
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The id of a trace.
pub fn trace_id(number: u64) -> String {
    let mixed = mix(number);
    format!("{:08x}-{:04x}-4000-8000-{number:012x}", mixed >> 32, mixed & 0xffff)
}

/// The name of a commit.
pub fn commit_sha(number: u64) -> String {
    format!("{:016x}{number:024x}", mix(number ^ 0x00c0_ffee))
}

fn second(number: u64) -> String {
    format!("2026-01-{:02}T{:02}:{:02}:{:02}Z", 1 + number % 28, number % 24, number % 60, mix(number) % 60)
}

/// A trace in canonical JSON.
pub fn trace(number: u64, conversation: &str) -> Vec<u8> {
    let padding = "x".repeat(usize::try_from(mix(number) % 700).expect("small"));
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"{conversation}"}}],"path":"src/f{}.rs"}}],"id":"{}","metadata":{{"session_id":"s{}"}},"padding":"{padding}","timestamp":"{}","version":"2.0"}}"#,
        number % 5,
        trace_id(number),
        number % 3,
        second(number),
    )
    .into_bytes()
}

/// A ledger in canonical JSON that names traces.
pub fn ledger(number: u64, traces: &[u64]) -> Vec<u8> {
    let ids: Vec<String> = traces.iter().map(|trace| format!("\"{}\"", trace_id(*trace))).collect();
    format!(
        r#"{{"commit_sha":"{}","created_at":"{}","files":{{}},"trace_ids":[{}]}}"#,
        commit_sha(number),
        second(number),
        ids.join(",")
    )
    .into_bytes()
}

/// A commit-link in canonical JSON.
pub fn commit_link(number: u64) -> Vec<u8> {
    format!(
        r#"{{"commit_sha":"{}","committed_at":"{}","created_at":"{}","files_changed":["src/f{}.rs"],"parent_sha":"{}","trace_ids":[]}}"#,
        commit_sha(number),
        second(number),
        second(number),
        number % 5,
        commit_sha(number + 1),
    )
    .into_bytes()
}

/// A summary of a conversation in canonical JSON.
pub fn summary(number: u64, conversation: &str) -> Vec<u8> {
    format!(
        r#"{{"conversation_id":"{conversation}","created_at":"{}","session_id":"s{}","summary":"number {number}"}}"#,
        second(number),
        number % 3,
    )
    .into_bytes()
}

/// Lines as agents write them, about as many bytes as asked for.
pub fn lines(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes + 200);
    while content.len() < bytes {
        let text = "word ".repeat(random.index(20));
        let line = format!("{{\"type\":\"user\",\"uuid\":\"{:016x}\",\"text\":\"{text}\"}}\n", random.draw());
        content.extend_from_slice(line.as_bytes());
    }
    content
}

/// Bytes in memory that read as a file.
#[derive(Clone, Debug)]
pub struct MemoryFile(pub Vec<u8>);

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let length = buffer.len().min(self.0.len() - start);
        buffer[..length].copy_from_slice(&self.0[start..start + length]);
        Ok(length)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
