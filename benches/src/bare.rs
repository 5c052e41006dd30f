//! The bare loop: the floor for an import of records, as a process of its own.
//!
//! Threads take turns at reading whole lines in big pieces, and each parses and canonicalises every line, hashes the
//! canonical bytes with BLAKE3 and compresses blocks of them with zstd, at the settings of the store. Ids are kept;
//! nothing is written, nothing indexed, nothing synced.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::canonical::Canonical;
use crate::report::Result;

const FILES: [&str; 3] = ["traces.jsonl", "ledgers.jsonl", "commit-links.jsonl"];
const PIECE_BYTES: usize = 4 << 20;
const BLOCK_BYTES: usize = 256 << 10;
const LEVEL: i32 = 3;

/// What the loop made.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) records: u64,
    pub(crate) canonical_bytes: u64,
    pub(crate) stored_bytes: u64,
    ids: Vec<blake3::Hash>,
}

/// Runs the loop over the record files of `dir` on `threads` threads.
pub(crate) fn run(dir: &Path, threads: usize) -> Result<Done> {
    let source = Mutex::new(Source::open(dir)?);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work(&source).map_err(|error| error.to_string()))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| "a worker panicked".to_string())?)
            .collect::<std::result::Result<Vec<_>, _>>()
    })?;
    let mut total = Done::default();
    for part in parts {
        total.records += part.records;
        total.canonical_bytes += part.canonical_bytes;
        total.stored_bytes += part.stored_bytes;
        total.ids.extend(part.ids);
    }
    Ok(total)
}

fn work(source: &Mutex<Source>) -> Result<Done> {
    let mut done = Done::default();
    let mut canonical = Canonical::default();
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut block = Vec::with_capacity(2 * BLOCK_BYTES);
    let mut packed = Vec::with_capacity(4 * BLOCK_BYTES);
    let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
    loop {
        // A poisoned lock means that the other worker panicked: that is reported where it is joined.
        let more = source.lock().unwrap_or_else(PoisonError::into_inner).piece(&mut piece)?;
        if !more {
            break;
        }
        for line in piece.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let from = block.len();
            canonical.append(line, &mut block)?;
            done.ids.push(blake3::hash(&block[from..]));
            done.records += 1;
            if block.len() >= BLOCK_BYTES {
                done.pack(&mut compressor, &mut block, &mut packed)?;
            }
        }
    }
    done.pack(&mut compressor, &mut block, &mut packed)?;
    Ok(done)
}

impl Done {
    fn pack(
        &mut self,
        compressor: &mut zstd::bulk::Compressor<'_>,
        block: &mut Vec<u8>,
        packed: &mut Vec<u8>,
    ) -> Result<()> {
        packed.clear();
        packed.reserve(zstd::zstd_safe::compress_bound(block.len()));
        let bytes = compressor.compress_to_buffer(block.as_slice(), packed)?;
        self.canonical_bytes += block.len() as u64;
        self.stored_bytes += bytes as u64;
        block.clear();
        Ok(())
    }
}

/// The files, one after the other, in pieces of whole lines.
struct Source {
    files: Vec<File>,
    rest: Vec<u8>,
}

impl Source {
    fn open(dir: &Path) -> Result<Source> {
        let mut files = Vec::new();
        for name in FILES.iter().rev() {
            let path = dir.join(name);
            files
                .push(File::open(&path).map_err(|error| format!("cannot open {}: {error}", path.display()))?);
        }
        Ok(Source { files, rest: Vec::with_capacity(PIECE_BYTES) })
    }

    /// Fills `piece`; false at the end of the last file. Every file ends in a line feed.
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<bool> {
        piece.clear();
        piece.append(&mut self.rest);
        while let Some(file) = self.files.last_mut() {
            let from = piece.len();
            piece.resize(from + PIECE_BYTES, 0);
            let read = file.read(&mut piece[from..])?;
            piece.truncate(from + read);
            if read == 0 {
                self.files.pop();
            } else if let Some(end) = piece.iter().rposition(|&byte| byte == b'\n') {
                self.rest.extend_from_slice(&piece[end + 1..]);
                piece.truncate(end + 1);
                return Ok(true);
            }
        }
        Ok(!piece.is_empty())
    }
}
