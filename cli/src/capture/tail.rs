//! What is new in a transcript since the last event, in a bounded number of reads whatever its length.
//!
//! How far a transcript has been taken is kept in a small file beside the spool, one for each path. It is a promise
//! about bytes: everything before the offset is in an entry or in the store. Where the file has become another one
//! (device, inode, a shorter length, other bytes before the offset), taking begins again at its start.
//!
//! | field | bytes | |
//! |---|---|---|
//! | magic | 8 | `ATTAIL\0\0` |
//! | version | u32 | 1 |
//! | device, inode, offset | u64 each | |
//! | check | 32 | BLAKE3 of up to 4096 bytes before the offset |

use std::io;
use std::path::Path;

use agent_trace_store::codec::{Decoder, Encoder};
use agent_trace_store::env::Env;
use agent_trace_store::id::encode_hex;

use super::entry::Tail;
use super::limits::{CHECK_BYTES, TAIL_BYTES_MAX};
use super::repository::{read, read_start};
use super::spool::Spool;

const MAGIC: &[u8; 8] = b"ATTAIL\0\0";
const VERSION: u32 = 1;
const BYTES: u64 = 8 + 4 + 3 * 8 + 32;

/// How far a transcript has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) offset: u64,
    pub(crate) check: [u8; 32],
}

impl Mark {
    /// Writes it as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(MAGIC).u32(VERSION).u64(self.device).u64(self.inode).u64(self.offset).put(&self.check);
        encoder.finish()
    }

    /// Reads it back.
    pub(crate) fn decode(bytes: &[u8]) -> agent_trace_store::Result<Mark> {
        let mut decoder = Decoder::new("mark of a transcript", bytes);
        decoder.format(MAGIC, VERSION)?;
        let mark = Mark {
            device: decoder.u64()?,
            inode: decoder.u64()?,
            offset: decoder.u64()?,
            check: decoder.array()?,
        };
        decoder.finish()?;
        Ok(mark)
    }

    /// Reads what was kept for a transcript; what cannot be read counts as nothing.
    pub(crate) fn read(env: &Env, spool: &Spool, transcript: &Path) -> Option<Mark> {
        let bytes = read_start(env.fs.as_ref(), &spool.tail_path(transcript), BYTES + 1).ok()?;
        Mark::decode(&bytes).ok()
    }

    /// Keeps it, in one step.
    pub(crate) fn write(&self, env: &Env, spool: &Spool, transcript: &Path) -> io::Result<()> {
        let path = spool.tail_path(transcript);
        let mut random = [0; 8];
        env.entropy.fill(&mut random);
        let aside = spool.path(&format!(".tail-{}.new", encode_hex(&random)));
        let file = env.fs.create(&aside, true)?;
        let written = file.write_all_at(&self.encode(), 0).and_then(|()| env.fs.rename(&aside, &path));
        if written.is_err() {
            let _ = env.fs.remove(&aside);
        }
        written
    }
}

/// Reads what is new in a transcript; nothing if there is no such file.
pub(crate) fn take(env: &Env, spool: &Spool, transcript: &Path) -> io::Result<Option<Tail>> {
    let metadata = match env.fs.metadata(transcript) {
        Ok(metadata) if !metadata.is_dir => metadata,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (device, inode, size) = (metadata.device, metadata.inode, metadata.bytes);
    let mut tail = Tail {
        path: transcript.to_owned(),
        device,
        inode,
        size,
        offset: 0,
        check: hash(&[]),
        content: Vec::new(),
    };
    // Pipes and devices have no length, and opening one may wait for ever.
    if size == 0 {
        return Ok(Some(tail));
    }
    let file = env.fs.open(transcript)?;
    let mark = Mark::read(env, spool, transcript)
        .filter(|mark| mark.device == device && mark.inode == inode && mark.offset <= size);
    let Some(mark) = mark else {
        tail.content = read(&*file, 0, size.min(TAIL_BYTES_MAX))?;
        return Ok(Some(tail));
    };
    let before = mark.offset.min(CHECK_BYTES);
    let wanted = before + (size - mark.offset).min(TAIL_BYTES_MAX);
    let mut bytes = read(&*file, mark.offset - before, wanted)?;
    let before = usize::try_from(before).unwrap_or_default();
    if bytes.len() < before || hash(&bytes[..before]) != mark.check {
        tail.content = read(&*file, 0, size.min(TAIL_BYTES_MAX))?;
        return Ok(Some(tail));
    }
    tail.offset = mark.offset;
    tail.check = mark.check;
    // What stands before is needed once more, for the next mark; it is cut off when the entry is written.
    tail.content = bytes.split_off(before);
    Ok(Some(tail))
}

/// The mark after a tail; the few bytes before it are read again where the tail is shorter than the check.
pub(crate) fn mark_after(env: &Env, tail: &Tail) -> io::Result<Mark> {
    let offset = tail.offset + tail.content.len() as u64;
    let check = if tail.content.len() as u64 >= CHECK_BYTES || tail.offset == 0 {
        let from = tail.content.len().saturating_sub(usize::try_from(CHECK_BYTES).unwrap_or_default());
        hash(&tail.content[from..])
    } else {
        check_at(&*env.fs.open(&tail.path)?, offset)?
    };
    Ok(Mark { device: tail.device, inode: tail.inode, offset, check })
}

/// The hash of what stands before an offset.
pub(crate) fn check_at(file: &dyn agent_trace_store::env::File, offset: u64) -> io::Result<[u8; 32]> {
    let before = offset.min(CHECK_BYTES);
    Ok(hash(&read(file, offset - before, before)?))
}

/// The hash of a check.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
