//! The bytes of a bundle in one file: entries in order, a directory that repeats what they say, and a trailer.
//!
//! | bytes | field |
//! |---|---|
//! | 8, 4, 4 | magic `ATBUNDLE`; version, 1; the first bytes of the BLAKE3 of what stands before |
//! | 2, 8, then key and content | each entry: bytes of the key, bytes of the content |
//! | 4, then 2, key, 8, 8, 32 each | directory: key, offset of the content, its bytes, its BLAKE3 |
//! | 8, 8, 32, 8, 8 | trailer: offset and bytes of the directory, its BLAKE3; zero; magic `ATBUNEND` |
//!
//! Everything is written once, in order, so it may go into a pipe. The trailer's hash covers the directory, and the
//! directory covers all else: no byte of the file can change unseen. Knows nothing of what the entries are.

use std::collections::HashSet;

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::env::File;
use agent_trace_store::{Error, ErrorKind, Result};

use crate::limits::{BUNDLE_BYTES_MAX, BUNDLE_DIRECTORY_BYTES_MAX, BUNDLE_ENTRIES_MAX, BUNDLE_KEY_BYTES_MAX};

/// The first bytes of a bundle in one file.
pub const MAGIC: &[u8; 8] = b"ATBUNDLE";
const MAGIC_END: &[u8; 8] = b"ATBUNEND";
const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;
const CHECK_BYTES: usize = 4;
/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = 64;
/// Bytes of an entry before its key.
pub(crate) const ENTRY_BYTES: usize = 10;
/// The folders that keys may name.
const FOLDERS: [&str; 4] = ["heads/", "manifests/", "segments/", "keys/"];

/// Where an entry of a bundle stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Where its content starts.
    pub offset: u64,
    /// Bytes of its content.
    pub bytes: u64,
    /// The BLAKE3 of its content.
    pub hash: [u8; 32],
}

impl Entry {
    /// Where the entry starts.
    fn start(&self) -> Option<u64> {
        self.offset.checked_sub((ENTRY_BYTES + self.key.len()) as u64)
    }

    /// Where the next one does.
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.bytes)
    }
}

/// Whether this may be the key of an entry: a name, or one of the folders of a remote and a name. A name is made of lower-case
/// letters, digits, `.`, `-` and `_`, and does not start with a dot, so it stays where it is put on any file system.
pub fn is_key(key: &str) -> bool {
    let name = FOLDERS.iter().find_map(|folder| key.strip_prefix(folder)).unwrap_or(key);
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    key.len() <= BUNDLE_KEY_BYTES_MAX
        && !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(is_good)
}

/// The bytes before the first entry.
pub fn encode_header() -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.put(MAGIC).u32(VERSION);
    let mut bytes = encoder.finish();
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    bytes
}

/// Reads the bytes before the first entry.
pub fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Result<()> {
    let (said, check) = bytes.split_at(HEADER_BYTES - CHECK_BYTES);
    let mut decoder = Decoder::new("bundle", said);
    // First, so that a flipped bit is damage and never taken for a newer version.
    if &blake3::hash(said).as_bytes()[..CHECK_BYTES] != check {
        return Err(decoder.error("its first bytes do not have their checksum"));
    }
    decoder.format(MAGIC, VERSION)?;
    decoder.finish()
}

/// The bytes before the content of an entry.
pub fn encode_entry(key: &str, bytes: u64) -> Vec<u8> {
    assert!(is_key(key), "keys are our own, or have been checked");
    let mut encoder = Encoder::new();
    let length = u16::try_from(key.len()).expect("a key is short");
    encoder.u16(length).u64(bytes).put(key.as_bytes());
    encoder.finish()
}

/// The bytes of a directory.
pub fn encode_directory(entries: &[Entry]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.u32(length_u32(entries.len()));
    for entry in entries {
        let length = u16::try_from(entry.key.len()).expect("a key is short");
        encoder.u16(length).put(entry.key.as_bytes()).u64(entry.offset).u64(entry.bytes).put(&entry.hash);
    }
    encoder.finish()
}

/// Reads a directory: the entries follow each other from the header to `end` without gap or overlap, each key once.
pub fn decode_directory(bytes: &[u8], end: u64) -> Result<Vec<Entry>> {
    let mut decoder = Decoder::new("directory of a bundle", bytes);
    let count = decoder.count(2 + 1 + 8 + 8 + 32, BUNDLE_ENTRIES_MAX)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut keys = HashSet::with_capacity(count);
    let mut at = HEADER_BYTES as u64;
    for _ in 0..count {
        let length = usize::from(decoder.u16()?);
        let key = std::str::from_utf8(decoder.take(length)?).ok().filter(|key| is_key(key));
        let key = key.ok_or_else(|| decoder.error("a key names no place in a remote"))?.to_owned();
        let entry = Entry { key, offset: decoder.u64()?, bytes: decoder.u64()?, hash: decoder.array()? };
        if entry.start() != Some(at) {
            return Err(decoder.error("entries do not follow each other"));
        }
        at = entry.end().filter(|next| *next <= end).ok_or_else(|| decoder.error("an entry is too long"))?;
        if !keys.insert(entry.key.clone()) {
            return Err(decoder.error("a key stands there twice"));
        }
        entries.push(entry);
    }
    decoder.finish()?;
    if at != end {
        return Err(Error::corrupt(
            "cannot read directory of a bundle: bytes stand between entries and directory",
        ));
    }
    Ok(entries)
}

/// The bytes behind the directory.
pub fn encode_trailer(offset: u64, directory: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .u64(offset)
        .u64(directory.len() as u64)
        .put(blake3::hash(directory).as_bytes())
        .u64(0)
        .put(MAGIC_END);
    encoder.finish()
}

/// Reads what is at both ends of a bundle, and the places of its entries; their contents are not looked at.
pub fn read_places(file: &dyn File) -> Result<Vec<Entry>> {
    let bytes = file.len().map_err(unread)?;
    let least = (HEADER_BYTES + TRAILER_BYTES) as u64;
    if bytes > BUNDLE_BYTES_MAX {
        return Err(Error::invalid(format!("the bundle has {bytes} bytes, more than {BUNDLE_BYTES_MAX}")));
    }
    if bytes < HEADER_BYTES as u64 {
        return Err(cut_short());
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(unread)?;
    decode_header(&header)?;
    if bytes < least {
        return Err(cut_short());
    }
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, bytes - TRAILER_BYTES as u64).map_err(unread)?;
    let mut decoder = Decoder::new("trailer of a bundle", &trailer);
    let (offset, length) = (decoder.u64()?, decoder.u64()?);
    let hash: [u8; 32] = decoder.array()?;
    let zero = decoder.u64()?;
    if decoder.take(8)? != MAGIC_END {
        return Err(cut_short());
    }
    let end = offset.checked_add(length).and_then(|end| end.checked_add(TRAILER_BYTES as u64));
    if zero != 0 || end != Some(bytes) || offset < HEADER_BYTES as u64 || length > BUNDLE_DIRECTORY_BYTES_MAX
    {
        return Err(decoder.error("the directory does not stand where it says"));
    }
    let length = usize::try_from(length).map_err(|_| decoder.error("the directory is too long"))?;
    let mut directory = vec![0; length];
    file.read_exact_at(&mut directory, offset).map_err(unread)?;
    if blake3::hash(&directory).as_bytes() != &hash {
        return Err(Error::corrupt("the directory of the bundle is damaged: it does not have its hash"));
    }
    decode_directory(&directory, offset)
}

/// Compares what an entry says of itself with what the directory says of it.
pub(crate) fn check_entry(file: &dyn File, entry: &Entry) -> Result<()> {
    let expected = encode_entry(&entry.key, entry.bytes);
    let mut found = vec![0; expected.len()];
    let start = entry.offset - expected.len() as u64;
    file.read_exact_at(&mut found, start).map_err(unread)?;
    if found != expected {
        return Err(Error::corrupt(format!(
            "entry `{}` of the bundle does not say what the directory says",
            entry.key
        )));
    }
    Ok(())
}

/// Reads the content of an entry from front to back, and compares its hash at the end.
pub(crate) fn copy_entry(
    file: &dyn File,
    entry: &Entry,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < entry.bytes {
        let length = usize::try_from(entry.bytes - at).unwrap_or(usize::MAX).min(COPY_BYTES);
        file.read_exact_at(&mut buffer[..length], entry.offset + at).map_err(unread)?;
        hasher.update(&buffer[..length]);
        sink(&buffer[..length])?;
        at += length as u64;
    }
    if hasher.finalize().as_bytes() != &entry.hash {
        return Err(Error::corrupt(format!(
            "entry `{}` of the bundle is damaged: it does not have its hash",
            entry.key
        )));
    }
    Ok(())
}

const COPY_BYTES: usize = 1 << 20;

fn cut_short() -> Error {
    Error::corrupt("the bundle is cut short: it does not end as a bundle does")
}

/// An error of reading a bundle's file.
pub(crate) fn unread(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return cut_short().with_source(error);
    }
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, "cannot read the bundle").with_source(error)
}
