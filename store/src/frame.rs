//! The frame: the unit of writing, checking and compressing in a segment.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `ATFR` |
//! | 4 | 1 | kind |
//! | 5 | 1 | codec: 0 as it is, 1 zstd |
//! | 6 | 2 | zero |
//! | 8 | 4 | stored bytes that follow the header |
//! | 12 | 4 | raw bytes after decompression |
//! | 16 | 16 | checksum |
//! | 32 | | stored bytes |
//!
//! The checksum is the first half of BLAKE3, keyed by the segment's nonce, over the frame's offset, the first 16
//! header bytes and the stored bytes: a frame at another place, or from another segment, does not pass. It is over
//! the stored bytes because a flipped bit in a zstd frame may decode to the same content. A compressed frame is exactly
//! one zstd frame whose window is within the limit. Only objects, events, tips and the directory may be compressed.

use crate::codec::{Decoder, Encoder, length_u32};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{FRAME_RAW_BYTES_MAX, FRAME_STORED_BYTES_MAX, WINDOW_LOG_MAX};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// The first four bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"ATFR";
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// Objects, compressed together.
    Objects,
    /// Events, compressed together.
    Events,
    /// Signed statements of writers about the newest event of their logs.
    Tips,
    /// The end of a batch.
    Commit,
    /// One page of the sorted id table of a sealed segment.
    Ids,
    /// One page of the sorted name table of a sealed segment.
    Names,
    /// Where everything stands in a sealed segment.
    Directory,
    /// The last frame of a sealed segment.
    Trailer,
    /// A filter over the ids of a sealed segment.
    Filter,
}

impl FrameKind {
    const ALL: [FrameKind; 9] = [
        FrameKind::Objects,
        FrameKind::Events,
        FrameKind::Tips,
        FrameKind::Commit,
        FrameKind::Ids,
        FrameKind::Names,
        FrameKind::Directory,
        FrameKind::Trailer,
        FrameKind::Filter,
    ];

    /// The number in the header.
    pub fn number(self) -> u8 {
        match self {
            FrameKind::Objects => 1,
            FrameKind::Events => 2,
            FrameKind::Tips => 3,
            FrameKind::Commit => 4,
            FrameKind::Ids => 5,
            FrameKind::Names => 6,
            FrameKind::Directory => 7,
            FrameKind::Trailer => 8,
            FrameKind::Filter => 9,
        }
    }

    /// Whether frames of this kind are always stored as they are, so that one is read without decompressing.
    pub fn is_plain(self) -> bool {
        match self {
            FrameKind::Commit
            | FrameKind::Ids
            | FrameKind::Names
            | FrameKind::Filter
            | FrameKind::Trailer => true,
            FrameKind::Objects | FrameKind::Events | FrameKind::Tips | FrameKind::Directory => false,
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<FrameKind> {
        FrameKind::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A frame that is not at its place yet: all but the checksum, which depends on the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// Whether `stored` is a zstd frame.
    pub compressed: bool,
    /// Length after decompression.
    pub raw_bytes: u32,
    /// The bytes as they lie in the file.
    pub stored: Vec<u8>,
}

/// The key of the checksums of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameKey([u8; 32]);

impl FrameKey {
    /// Derives the key from the segment's nonce.
    pub fn new(nonce: &[u8; 16]) -> FrameKey {
        FrameKey(blake3::derive_key("agent-trace segment frame checksum v1", nonce))
    }

    fn checksum(&self, offset: u64, header: &[u8], stored: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&offset.to_le_bytes());
        hasher.update(header);
        hasher.update(stored);
        hasher.finalize().as_bytes()[..16].try_into().expect("a hash has 32 bytes")
    }
}

impl Frame {
    /// Makes a frame that is stored as it is.
    pub fn plain(kind: FrameKind, raw: Vec<u8>) -> Frame {
        assert!(raw.len() <= FRAME_RAW_BYTES_MAX, "I10: a frame is bounded before it is made");
        Frame { kind, compressed: false, raw_bytes: length_u32(raw.len()), stored: raw }
    }

    /// Bytes that the frame takes in a file.
    pub fn file_bytes(&self) -> u64 {
        (FRAME_HEADER_BYTES + self.stored.len()) as u64
    }

    /// Appends the frame as it stands at `offset` of the segment with that key.
    pub fn place(&self, key: &FrameKey, offset: u64, out: &mut Vec<u8>) {
        let mut header = Encoder::new();
        header.put(&FRAME_MAGIC).u8(self.kind.number()).u8(u8::from(self.compressed)).u16(0);
        header.u32(length_u32(self.stored.len())).u32(self.raw_bytes);
        let header = header.finish();
        out.extend_from_slice(&header);
        out.extend_from_slice(&key.checksum(offset, &header, &self.stored));
        out.extend_from_slice(&self.stored);
    }

    /// The content, decompressed; allocates no more than the header promised, which is bounded.
    pub fn into_raw(self, unpacker: &mut Unpacker) -> Result<Vec<u8>> {
        if !self.compressed {
            return Ok(self.stored);
        }
        unpacker.unpack(&self.stored, self.raw_bytes as usize)
    }
}

/// A frame header that has been read and is within its limits; the checksum is still to be compared.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    /// The number of the kind, which may be of a newer format.
    pub number: u8,
    /// Whether it is compressed.
    pub compressed: bool,
    /// Bytes that follow the header.
    pub stored_bytes: u32,
    /// Bytes after decompression.
    pub raw_bytes: u32,
    checked: [u8; 16],
    checksum: [u8; 16],
}

impl FrameHeader {
    /// Reads a header and checks every field against its limit.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader> {
        let mut decoder = Decoder::new("frame header", bytes);
        if decoder.array::<4>()? != FRAME_MAGIC {
            return Err(decoder.error("expected magic `ATFR`"));
        }
        let kind = decoder.u8()?;
        let codec = decoder.u8()?;
        let zero = decoder.u16()?;
        let stored_bytes = decoder.u32()?;
        let raw_bytes = decoder.u32()?;
        if codec > 1 || zero != 0 {
            return Err(decoder.error("reserved bits are set"));
        }
        if stored_bytes as usize > FRAME_STORED_BYTES_MAX || raw_bytes as usize > FRAME_RAW_BYTES_MAX {
            return Err(decoder.error("a length is over its limit"));
        }
        if codec == 0 && stored_bytes != raw_bytes {
            return Err(decoder.error("an uncompressed frame has two lengths"));
        }
        if codec == 1 && FrameKind::from_number(kind).is_some_and(FrameKind::is_plain) {
            return Err(decoder.error("a frame of this kind cannot be compressed"));
        }
        Ok(FrameHeader {
            number: kind,
            compressed: codec == 1,
            stored_bytes,
            raw_bytes,
            checked: bytes[..16].try_into().expect("a header has 32 bytes"),
            checksum: bytes[16..].try_into().expect("a header has 32 bytes"),
        })
    }

    /// Bytes that the frame takes in a file.
    pub fn file_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.stored_bytes)
    }

    /// Compares the checksum and returns the frame. Only then is an unknown kind believed to be of a newer format: before,
    /// it may be a flipped bit.
    pub fn check(&self, key: &FrameKey, offset: u64, stored: Vec<u8>) -> Result<Frame> {
        if !skip_checks() && key.checksum(offset, &self.checked, &stored) != self.checksum {
            return Err(Error::corrupt(format!(
                "frame at byte {offset}: the checksum does not fit its bytes"
            )));
        }
        let Some(kind) = FrameKind::from_number(self.number) else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "frame at byte {offset}: its kind {} is of a newer format than this program reads",
                    self.number
                ),
            ));
        };
        Ok(Frame { kind, compressed: self.compressed, raw_bytes: self.raw_bytes, stored })
    }
}

#[cfg(feature = "sim")]
fn skip_checks() -> bool {
    crate::switches::frame_check_skipped()
}

#[cfg(not(feature = "sim"))]
fn skip_checks() -> bool {
    false
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// The zstd level.
    pub level: i32,
    /// The window as a power of two; zero leaves it to the level.
    pub window_log: u32,
    /// The shortest match that is looked for; zero leaves it to the level.
    pub match_min: u32,
    /// The table of places as a power of two; zero leaves it to the level.
    pub hash_log: u32,
}

impl Effort {
    /// For records that have just arrived.
    pub const FAST: Effort = Effort { level: 3, window_log: 0, match_min: 0, hash_log: 0 };
    /// For transcripts that have just arrived: their repetitions are long and lie far apart, so that the fastest level
    /// finds nearly as many as the next once its table is large enough for the window.
    pub const FAST_LONG: Effort = Effort { level: 1, window_log: WINDOW_LOG_MAX, match_min: 0, hash_log: 17 };
    /// For records that are cut out of frames on the way elsewhere, where time counts more than a few bytes.
    pub const QUICK: Effort = Effort { level: 1, window_log: 0, match_min: 0, hash_log: 13 };
    /// For what is rewritten to be small.
    pub const SMALL: Effort = Effort { level: 9, window_log: WINDOW_LOG_MAX, match_min: 6, hash_log: 0 };
}

/// A compressor that is used again and again by one thread.
pub struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
}

impl Packer {
    /// Makes a compressor.
    pub fn new(effort: Effort) -> Packer {
        let mut compressor =
            zstd::bulk::Compressor::new(effort.level).expect("the level is one that zstd knows");
        if effort.window_log != 0 {
            compressor
                .set_parameter(zstd::zstd_safe::CParameter::WindowLog(effort.window_log))
                .expect("the window is within what zstd allows");
        }
        if effort.match_min != 0 {
            compressor
                .set_parameter(zstd::zstd_safe::CParameter::MinMatch(effort.match_min))
                .expect("the match length is within what zstd allows");
        }
        if effort.hash_log != 0 {
            compressor
                .set_parameter(zstd::zstd_safe::CParameter::HashLog(effort.hash_log))
                .expect("the table is within what zstd allows");
        }
        Packer { compressor }
    }

    /// Compresses into a frame, or stores as it is where that is shorter.
    pub fn frame(&mut self, kind: FrameKind, raw: &[u8]) -> Frame {
        assert!(raw.len() <= FRAME_RAW_BYTES_MAX, "I10: a frame is bounded before it is made");
        match self.compressor.compress(raw) {
            Ok(stored) if stored.len() < raw.len() => {
                Frame { kind, compressed: true, raw_bytes: length_u32(raw.len()), stored }
            }
            _ => Frame::plain(kind, raw.to_vec()),
        }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

/// A decompressor that is used again and again by one thread.
pub struct Unpacker {
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Unpacker {
    /// Makes a decompressor that grants no window above the limit.
    pub fn new() -> Unpacker {
        let mut decompressor = zstd::bulk::Decompressor::new().expect("zstd has memory for a decoder");
        decompressor
            .set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .expect("the window is within what zstd allows");
        Unpacker { decompressor }
    }

    /// Decompresses to exactly `raw_bytes`, which the caller has checked against its limit.
    pub fn unpack(&mut self, stored: &[u8], raw_bytes: usize) -> Result<Vec<u8>> {
        assert!(raw_bytes <= FRAME_RAW_BYTES_MAX, "I10: checked when the header was read");
        // zstd keeps to its window limit only where it streams, and takes several frames for one.
        let window = window_bytes(stored, raw_bytes)
            .ok_or_else(|| Error::corrupt("cannot decompress a frame: expected exactly one zstd frame"))?;
        if window > 1 << WINDOW_LOG_MAX {
            return Err(Error::corrupt(format!(
                "cannot decompress a frame: expected a window of at most {} bytes, found {window}",
                1u64 << WINDOW_LOG_MAX
            )));
        }
        let raw = self
            .decompressor
            .decompress(stored, raw_bytes)
            .map_err(|error| Error::corrupt("cannot decompress a frame").with_source(error))?;
        if raw.len() != raw_bytes {
            return Err(Error::corrupt(format!(
                "cannot decompress a frame: expected {raw_bytes} bytes, found {}",
                raw.len()
            )));
        }
        Ok(raw)
    }
}

/// The window that a zstd frame asks its decoder for (RFC 8878, 3.1.1.1), if the frame is all there is.
fn window_bytes(stored: &[u8], raw_bytes: usize) -> Option<u64> {
    let whole = zstd::zstd_safe::find_frame_compressed_size(stored).ok()?;
    if whole != stored.len() || !stored.starts_with(&ZSTD_MAGIC) {
        return None;
    }
    if stored.get(4)? & 0x20 != 0 {
        // In a single segment the window is the content.
        return Some(raw_bytes as u64);
    }
    let window = *stored.get(5)?;
    let base = 1u64 << (10 + (window >> 3));
    Some(base + base / 8 * u64::from(window & 7))
}

impl Default for Unpacker {
    fn default() -> Self {
        Unpacker::new()
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unpacker")
    }
}
