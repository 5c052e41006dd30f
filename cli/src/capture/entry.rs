//! A spool entry: what one hook saw, in one file, complete or not there.
//!
//! | field | bytes | |
//! |---|---|---|
//! | magic | 8 | `ATSPOOL\0` |
//! | version | u32 | 1 |
//! | kind | u8 | 1: an event of an agent, 2: a git hook |
//! | flags | u8 | bit 0: the payload was longer and is cut off; others are zero |
//! | reserved | u16 | zero |
//! | arrived | i64 | microseconds since 1970 |
//! | name | u32 + n | of the git hook; what `--agent` said |
//! | argument | u32 + n | of the git hook: `amend` or `rebase`, the name of the remote |
//! | directory | u32 + n | the working directory of the hook |
//! | root | u32 + n | the top of the work tree; empty in a bare repository |
//! | git directory | u32 + n | of the work tree, not the common one |
//! | revision | u32 + n | what HEAD was, in hex; empty where it is not known |
//! | branch | u32 + n | without `refs/heads/`; empty where it is not known |
//! | payload | u32 + n | stdin as it came, less addresses of people |
//! | files | 1 + ... each, then a zero byte | see below |
//! | tails | 1 + ... each, then a zero byte | see below |
//! | checksum | 32 | BLAKE3 of everything before |
//!
//! A file: u8 1, path (u32 + n), state (u8: 0 absent, 1 its bytes, 2 size and hash, 3 size only, 4 unreadable), size
//! (u64), hash (32 bytes, zero unless the state is 2), content (u32 + n, empty unless the state is 1).
//! A tail: u8 1, path (u32 + n), device, inode, size, offset (u64 each), check (32 bytes: BLAKE3 of up to 4096 bytes
//! before the offset), content (u32 + n).
//!
//! Integers are little-endian. A reader refuses what is newer, what breaks a bound and what fails its checksum, before
//! it allocates. Knows no agent and no JSON; whether a payload can be understood is another's business.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use agent_trace_store::codec::{Decoder, Encoder};
use agent_trace_store::env::File;
use agent_trace_store::{Error, Result, Timestamp};

use super::limits::{
    ENTRY_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, PAYLOAD_BYTES_MAX,
    TAIL_BYTES_MAX, TAILS_MAX,
};

const MAGIC: &[u8; 8] = b"ATSPOOL\0";
const VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 32;
const FLAG_CUT: u8 = 1;
/// What is gathered before it is written.
const WRITE_BYTES: usize = 256 << 10;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// An event of an agent.
    Agent,
    /// A git hook.
    Git,
}

/// What a hook saw beside files and transcripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) kind: EntryKind,
    /// Whether the payload was longer than its bound.
    pub(crate) is_cut: bool,
    pub(crate) arrived: Timestamp,
    /// The git hook, or the agent by the word of whoever installed the hook.
    pub(crate) name: String,
    pub(crate) argument: String,
    pub(crate) directory: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) git_dir: PathBuf,
    pub(crate) revision: Option<String>,
    pub(crate) branch: Option<String>,
}

/// What a file was when the hook looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    Absent,
    /// Its bytes.
    Whole(Vec<u8>),
    /// Too many bytes: their number and hash.
    Hashed(u64, [u8; 32]),
    /// Far too many bytes: their number.
    Sized(u64),
    /// It is there and could not be read.
    Unreadable,
}

/// An edited file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenFile {
    pub(crate) path: PathBuf,
    pub(crate) state: FileState,
}

/// A transcript and what was new in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The length of the file.
    pub(crate) size: u64,
    /// Where the content begins in it.
    pub(crate) offset: u64,
    /// The hash of what stands before it.
    pub(crate) check: [u8; 32],
    pub(crate) content: Vec<u8>,
}

/// A whole entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) facts: Facts,
    pub(crate) payload: Vec<u8>,
    pub(crate) files: Vec<SeenFile>,
    pub(crate) tails: Vec<Tail>,
}

impl Entry {
    /// Reads an entry back.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Entry> {
        let mut decoder = Decoder::new("spool entry", bytes);
        // A newer one is told as such, whatever its checksum is made of.
        decoder.format(MAGIC, VERSION)?;
        let length = bytes.len().saturating_sub(CHECKSUM_BYTES);
        if bytes.len() as u64 > ENTRY_BYTES_MAX
            || blake3::hash(&bytes[..length]).as_bytes() != &bytes[length..]
        {
            return Err(Error::corrupt("cannot read spool entry: its checksum does not fit"));
        }
        let kind = match decoder.u8()? {
            1 => EntryKind::Agent,
            2 => EntryKind::Git,
            other => return Err(invalid(&format!("kind {other} is not known"))),
        };
        let flags = decoder.u8()?;
        if flags & !FLAG_CUT != 0 || decoder.u16()? != 0 {
            return Err(invalid("reserved bits are set"));
        }
        let arrived = decoder.i64()?;
        if Timestamp::from_micros(arrived).micros() != arrived {
            return Err(invalid("its time has no form"));
        }
        let facts = Facts {
            kind,
            is_cut: flags & FLAG_CUT != 0,
            arrived: Timestamp::from_micros(arrived),
            name: text(&mut decoder)?,
            argument: text(&mut decoder)?,
            directory: path(&mut decoder)?,
            root: path(&mut decoder)?,
            git_dir: path(&mut decoder)?,
            revision: Some(text(&mut decoder)?).filter(|text| !text.is_empty()),
            branch: Some(text(&mut decoder)?).filter(|text| !text.is_empty()),
        };
        let payload = decoder.prefixed(PAYLOAD_BYTES_MAX)?.to_vec();
        let files = items(&mut decoder, FILES_MAX, read_file)?;
        let tails = items(&mut decoder, TAILS_MAX, read_tail)?;
        decoder.take(CHECKSUM_BYTES)?;
        decoder.finish()?;
        Ok(Entry { facts, payload, files, tails })
    }
}

fn invalid(what: &str) -> Error {
    Error::invalid(format!("cannot read spool entry: {what}"))
}

fn text(decoder: &mut Decoder<'_>) -> Result<String> {
    let bytes = decoder.prefixed(NAME_BYTES_MAX)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| invalid("a name is no text"))
}

fn path(decoder: &mut Decoder<'_>) -> Result<PathBuf> {
    let bytes = decoder.prefixed(PATH_BYTES_MAX)?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec())))
}

fn items<T>(
    decoder: &mut Decoder<'_>,
    count_max: usize,
    read: fn(&mut Decoder<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut items = Vec::new();
    loop {
        match decoder.u8()? {
            0 => return Ok(items),
            1 if items.len() < count_max => items.push(read(decoder)?),
            _ => return Err(invalid("too many items, or none where one is announced")),
        }
    }
}

fn read_file(decoder: &mut Decoder<'_>) -> Result<SeenFile> {
    let path = path(decoder)?;
    let state = decoder.u8()?;
    let size = decoder.u64()?;
    let hash: [u8; 32] = decoder.array()?;
    let content = decoder.prefixed(usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX))?;
    if (state != 2 && hash != [0; 32]) || (state != 1 && !content.is_empty()) {
        return Err(invalid("a file has what its state does not allow"));
    }
    let state = match state {
        0 if size == 0 => FileState::Absent,
        1 if size == content.len() as u64 => FileState::Whole(content.to_vec()),
        2 => FileState::Hashed(size, hash),
        3 => FileState::Sized(size),
        4 if size == 0 => FileState::Unreadable,
        _ => return Err(invalid("a file is in no known state")),
    };
    Ok(SeenFile { path, state })
}

fn read_tail(decoder: &mut Decoder<'_>) -> Result<Tail> {
    Ok(Tail {
        path: path(decoder)?,
        device: decoder.u64()?,
        inode: decoder.u64()?,
        size: decoder.u64()?,
        offset: decoder.u64()?,
        check: decoder.array()?,
        content: decoder.prefixed(usize::try_from(TAIL_BYTES_MAX).unwrap_or(usize::MAX))?.to_vec(),
    })
}

/// Writes an entry piece by piece, so that a hook holds no second copy of it.
///
/// Facts and payload, then files, then tails, then the end; each may be left out but not put in another place.
pub(crate) struct EntryWriter<'a> {
    file: &'a dyn File,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    written: u64,
    files_ended: bool,
}

impl<'a> EntryWriter<'a> {
    /// Starts an entry in an empty file.
    pub(crate) fn start(file: &'a dyn File, facts: &Facts, payload: &[u8]) -> io::Result<EntryWriter<'a>> {
        let mut writer = EntryWriter {
            file,
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(16 << 10),
            written: 0,
            files_ended: false,
        };
        let mut encoder = Encoder::onto(std::mem::take(&mut writer.buffer));
        encoder.put(MAGIC).u32(VERSION);
        encoder.u8(if facts.kind == EntryKind::Agent { 1 } else { 2 });
        encoder.u8(if facts.is_cut { FLAG_CUT } else { 0 }).u16(0).i64(facts.arrived.micros());
        encoder.prefixed(shortened(&facts.name)).prefixed(shortened(&facts.argument));
        for path in [&facts.directory, &facts.root, &facts.git_dir] {
            encoder.prefixed(path_bytes(path));
        }
        for name in [&facts.revision, &facts.branch] {
            encoder.prefixed(shortened(name.as_deref().unwrap_or_default()));
        }
        encoder.u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        writer.buffer = encoder.finish();
        writer.put(payload)?;
        Ok(writer)
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &Path, state: &FileState) -> io::Result<()> {
        let (number, size, hash, content): (u8, u64, [u8; 32], &[u8]) = match state {
            FileState::Absent => (0, 0, [0; 32], &[]),
            FileState::Whole(content) => (1, content.len() as u64, [0; 32], content),
            FileState::Hashed(size, hash) => (2, *size, *hash, &[]),
            FileState::Sized(size) => (3, *size, [0; 32], &[]),
            FileState::Unreadable => (4, 0, [0; 32], &[]),
        };
        let mut encoder = Encoder::onto(std::mem::take(&mut self.buffer));
        encoder.u8(1).prefixed(path_bytes(path)).u8(number).u64(size).put(&hash);
        encoder.u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
        self.buffer = encoder.finish();
        self.put(content)
    }

    /// Adds a tail; no files come after it.
    pub(crate) fn tail(&mut self, tail: &Tail) -> io::Result<()> {
        self.end_files();
        let mut encoder = Encoder::onto(std::mem::take(&mut self.buffer));
        encoder.u8(1).prefixed(path_bytes(&tail.path));
        encoder.u64(tail.device).u64(tail.inode).u64(tail.size).u64(tail.offset).put(&tail.check);
        encoder.u32(u32::try_from(tail.content.len()).unwrap_or(u32::MAX));
        self.buffer = encoder.finish();
        self.put(&tail.content)
    }

    /// Ends the entry; it is durable only after a sync.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end_files();
        self.buffer.push(0);
        self.hasher.update(&self.buffer);
        let checksum = *self.hasher.finalize().as_bytes();
        self.buffer.extend_from_slice(&checksum);
        self.file.write_all_at(&self.buffer, self.written)
    }

    fn end_files(&mut self) {
        if !self.files_ended {
            self.buffer.push(0);
            self.files_ended = true;
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() > WRITE_BYTES {
            self.hasher.update(bytes);
            self.file.write_all_at(bytes, self.written)?;
            self.written += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write_all_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// The bytes of a path; one that no system would take is no path.
fn path_bytes(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > PATH_BYTES_MAX { &[] } else { bytes }
}

/// The beginning of a name, cut between two characters.
fn shortened(name: &str) -> &[u8] {
    &name.as_bytes()[..name.floor_char_boundary(NAME_BYTES_MAX)]
}
