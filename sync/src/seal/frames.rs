//! Sealed bytes: a header, then frames of one size, each encrypted and authenticated by itself, so that any part of a
//! file can be read alone and none can be cut off, moved, doubled or taken from elsewhere.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `ATSEALED` |
//! | 4 | version, 1 |
//! | 4 | epoch of the key |
//! | 16 | nonce of the file, random |
//! | 65,576 each | frames: nonce (24, random), ciphertext (65,536), tag (16) |
//! | 24, 40 + r, 16 | the last frame: nonce, ciphertext of the trailer and the last `r` bytes, tag; `r` is 1 to 65,536 |
//!
//! The content is followed by zeroes up to the padded length. The trailer is the file's plain name (32) and the content's
//! true length (8). Knows nothing of remotes; never reads or writes by itself.

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::head::RemoteId;
use crate::limits::PADDED_BYTES_LEAST;

const MAGIC: &[u8; 8] = b"ATSEALED";
const VERSION: u32 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const AAD_BYTES: usize = HEADER_BYTES + 16 + 1 + 32 + 8 + 1;

/// The header of a sealed file.
pub const HEADER_BYTES: usize = 32;
/// Content of a frame.
pub const FRAME_BYTES: usize = 64 << 10;
/// What a frame needs beside its content.
pub const FRAME_OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;
/// A frame as it lies there.
pub const SEALED_FRAME_BYTES: usize = FRAME_BYTES + FRAME_OVERHEAD;
/// What stands before the content of the last frame: plain name and length.
pub const TRAILER_BYTES: usize = 40;

/// What a sealed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A head.
    Head = 1,
    /// A manifest.
    Manifest = 2,
    /// A segment.
    Segment = 3,
}

/// Where a sealed file belongs; bound into each of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The remote.
    pub remote: RemoteId,
    /// What it is.
    pub kind: FileKind,
    /// Its name there; zero for a segment, whose name is the hash of all these bytes.
    pub name: [u8; 32],
}

/// The key under which the files of an epoch are sealed. Wiped when dropped, and never shown.
pub struct DataKey(pub(super) Zeroizing<[u8; 32]>);

impl DataKey {
    /// Takes 32 bytes as a key, for tests of the format.
    pub fn from_bytes(bytes: [u8; 32]) -> DataKey {
        DataKey(Zeroizing::new(bytes))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

/// The header of a sealed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of which epoch the key is.
    pub epoch: u32,
    /// What tells this file from all others.
    pub nonce: [u8; 16],
}

impl Header {
    /// A header for a new file.
    pub fn draw(env: &Env, epoch: u32) -> Header {
        let mut nonce = [0; 16];
        env.entropy.fill(&mut nonce);
        Header { epoch, nonce }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..].copy_from_slice(&self.nonce);
        bytes
    }

    /// Reads a header. Bytes that nobody has sealed are refused as locked: nothing of them is believed.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header> {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if &bytes[..8] != MAGIC {
            let plain: [&[u8]; 3] = [b"ATHEAD\0\0", b"ATMANIF\0", b"ATSEGMNT"];
            return Err(if plain.contains(&&bytes[..8]) {
                Error::new(ErrorKind::Locked, "it is not encrypted, on a remote that is")
            } else {
                Error::corrupt("it is no sealed file")
            });
        }
        if number(8) != VERSION {
            let message =
                format!("cannot read a sealed file: version {} is newer than this program", number(8));
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Header { epoch: number(12), nonce: bytes[16..].try_into().expect("sixteen bytes") })
    }
}

/// The length to which a content is padded, so that its own shows only roughly (Padmé): at most 6 % more, and the larger
/// the less.
pub fn padded(bytes: u64) -> u64 {
    let bytes = bytes.max(PADDED_BYTES_LEAST);
    let exponent = bytes.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1_u64 << (exponent - kept)) - 1;
    bytes.saturating_add(mask) & !mask
}

/// How a padded content lies in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Frames, the last one too.
    pub frames: u64,
    /// Content of the last frame, padding too.
    pub last: usize,
}

impl Shape {
    /// That of a content of so many bytes.
    pub fn of_content(bytes: u64) -> Shape {
        let padded = padded(bytes);
        let frames = padded.div_ceil(FRAME_BYTES as u64);
        let last = padded - (frames - 1) * FRAME_BYTES as u64;
        Shape { frames, last: usize::try_from(last).expect("a frame is small") }
    }

    /// That of a sealed file of so many bytes; `None` where no sealed file is that long.
    pub fn of_sealed(bytes: u64) -> Option<Shape> {
        let rest = bytes.checked_sub((HEADER_BYTES + FRAME_OVERHEAD + TRAILER_BYTES) as u64)?;
        let (before, last) = (rest / SEALED_FRAME_BYTES as u64, rest % SEALED_FRAME_BYTES as u64);
        let last = usize::try_from(last).ok().filter(|last| (1..=FRAME_BYTES).contains(last))?;
        Some(Shape { frames: before + 1, last })
    }

    /// How long the sealed file is.
    pub fn sealed_bytes(&self) -> u64 {
        self.last_at() + (FRAME_OVERHEAD + TRAILER_BYTES + self.last) as u64
    }

    /// The padded length.
    pub fn padded(&self) -> u64 {
        (self.frames - 1) * FRAME_BYTES as u64 + self.last as u64
    }

    /// Where the last frame lies.
    pub fn last_at(&self) -> u64 {
        frame_at(self.frames - 1)
    }
}

/// Where a frame lies.
pub fn frame_at(number: u64) -> u64 {
    HEADER_BYTES as u64 + number * SEALED_FRAME_BYTES as u64
}

/// How long a content of so many bytes is when it is sealed.
pub fn sealed_bytes(content: u64) -> u64 {
    Shape::of_content(content).sealed_bytes()
}

/// The frames of one file: its key, and what is bound into each of them.
pub struct Frames {
    cipher: XChaCha20Poly1305,
    bound: [u8; AAD_BYTES],
}

impl Frames {
    /// Those of a file.
    pub fn new(key: &DataKey, header: &Header, place: &Place) -> Frames {
        let mut bound = [0; AAD_BYTES];
        bound[..HEADER_BYTES].copy_from_slice(&header.encode());
        bound[32..48].copy_from_slice(&place.remote);
        bound[48] = place.kind as u8;
        bound[49..81].copy_from_slice(&place.name);
        Frames { cipher: key.cipher(), bound }
    }

    fn bound(&self, number: u64, is_last: bool) -> [u8; AAD_BYTES] {
        let mut bound = self.bound;
        bound[81..89].copy_from_slice(&number.to_le_bytes());
        bound[89] = u8::from(is_last);
        bound
    }

    /// Appends a sealed frame.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        number: u64,
        is_last: bool,
        parts: [&[u8]; 2],
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        out.resize(start + FRAME_OVERHEAD + parts[0].len() + parts[1].len(), 0);
        self.seal_into(nonce, number, is_last, parts, &mut out[start..]);
    }

    /// Seals a frame into exactly its place.
    fn seal_into(
        &self,
        nonce: &[u8; NONCE_BYTES],
        number: u64,
        is_last: bool,
        [first, second]: [&[u8]; 2],
        out: &mut [u8],
    ) {
        let (at_nonce, rest) = out.split_at_mut(NONCE_BYTES);
        let (content, at_tag) = rest.split_at_mut(first.len() + second.len());
        at_nonce.copy_from_slice(nonce);
        content[..first.len()].copy_from_slice(first);
        content[first.len()..].copy_from_slice(second);
        let bound = self.bound(number, is_last);
        let tag = self
            .cipher
            .encrypt_inout_detached(&XNonce::from(*nonce), &bound, content.into())
            .expect("frames are far below the limit of the cipher");
        at_tag.copy_from_slice(&tag);
    }

    /// Opens a frame where it lies, and returns what is in it.
    pub fn open<'f>(&self, number: u64, is_last: bool, frame: &'f mut [u8]) -> Result<&'f mut [u8]> {
        let refused =
            || Error::corrupt(format!("frame {number} of a sealed file is not what was sealed there"));
        let (nonce, rest) = frame.split_first_chunk_mut::<NONCE_BYTES>().ok_or_else(refused)?;
        let (content, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(refused)?;
        let bound = self.bound(number, is_last);
        self.cipher
            .decrypt_inout_detached(&XNonce::from(*nonce), &bound, (&mut *content).into(), &Tag::from(*tag))
            .map_err(|_| refused())?;
        Ok(content)
    }

    /// Opens the last frame: the plain name, the content's length, and the end of the padded content.
    pub fn open_last(&self, shape: &Shape, frame: &mut [u8]) -> Result<(Trailer, Vec<u8>)> {
        let content = self.open(shape.frames - 1, true, frame)?;
        let (trailer, rest) = content
            .split_first_chunk::<TRAILER_BYTES>()
            .ok_or_else(|| Error::corrupt("a sealed file has no trailer"))?;
        let trailer = Trailer {
            name: trailer[..32].try_into().expect("32 bytes"),
            bytes: u64::from_le_bytes(trailer[32..].try_into().expect("eight bytes")),
        };
        if trailer.bytes > shape.padded() || Shape::of_content(trailer.bytes) != *shape {
            return Err(Error::corrupt("a sealed file is not as long as it says"));
        }
        Ok((trailer, rest.to_vec()))
    }
}

/// What the last frame says of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The plain name: a writer, a manifest or a segment.
    pub name: [u8; 32],
    /// The content's length.
    pub bytes: u64,
}

/// Seals a content that comes in order, of a length that is known at its end.
pub struct Sealer {
    env: Env,
    frames: Frames,
    pending: Vec<u8>,
    number: u64,
    bytes: u64,
    out: Vec<u8>,
}

impl Sealer {
    /// Starts a file; its header is the first that comes out.
    pub fn new(env: &Env, key: &DataKey, header: &Header, place: &Place) -> Sealer {
        Sealer {
            env: env.clone(),
            frames: Frames::new(key, header, place),
            pending: Vec::with_capacity(FRAME_BYTES),
            number: 0,
            bytes: 0,
            out: header.encode().to_vec(),
        }
    }

    /// Takes the next bytes of the content.
    pub fn write(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            // A full frame waits for more, since the last one is sealed otherwise.
            if self.pending.len() == FRAME_BYTES {
                let pending = std::mem::take(&mut self.pending);
                self.whole(&pending);
                self.pending = pending;
                self.pending.clear();
            }
            if self.pending.is_empty() && bytes.len() > FRAME_BYTES {
                let (now, later) = bytes.split_at((bytes.len() - 1) / FRAME_BYTES * FRAME_BYTES);
                self.whole(now);
                bytes = later;
            }
            let (now, later) = bytes.split_at(bytes.len().min(FRAME_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Seals whole frames, on all threads where there are several.
    fn whole(&mut self, content: &[u8]) {
        let nonces: Vec<_> = content.chunks_exact(FRAME_BYTES).map(|_| self.nonce()).collect();
        let start = self.out.len();
        self.out.resize(start + nonces.len() * SEALED_FRAME_BYTES, 0);
        let (frames, first) = (&self.frames, self.number);
        self.out[start..]
            .par_chunks_exact_mut(SEALED_FRAME_BYTES)
            .zip(content.par_chunks_exact(FRAME_BYTES).zip(&nonces))
            .enumerate()
            .for_each(|(number, (out, (content, nonce)))| {
                frames.seal_into(nonce, first + number as u64, false, [content, &[]], out);
            });
        self.number += nonces.len() as u64;
    }

    fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        self.env.entropy.fill(&mut nonce);
        nonce
    }

    /// What has been sealed since this was last asked; empty the vector after use.
    pub fn sealed(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Ends the file with its plain name, and returns the rest of it.
    pub fn end(mut self, name: &[u8; 32]) -> Vec<u8> {
        self.finish(name)
    }

    /// The same for one that is part of something.
    pub(super) fn finish(&mut self, name: &[u8; 32]) -> Vec<u8> {
        let bytes = self.bytes;
        let zeroes = vec![0; FRAME_BYTES];
        let mut missing = padded(bytes) - bytes;
        while missing > 0 {
            let part = usize::try_from(missing).unwrap_or(FRAME_BYTES).min(FRAME_BYTES);
            self.write(&zeroes[..part]);
            missing -= part as u64;
        }
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..32].copy_from_slice(name);
        trailer[32..].copy_from_slice(&bytes.to_le_bytes());
        let nonce = self.nonce();
        self.frames.seal(&nonce, self.number, true, [&trailer, &self.pending], &mut self.out);
        std::mem::take(&mut self.out)
    }
}

/// Seals a small file.
pub fn seal(env: &Env, key: &DataKey, epoch: u32, place: &Place, name: &[u8; 32], content: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(env, key, &Header::draw(env, epoch), place);
    sealer.write(content);
    sealer.end(name)
}

/// The header of a file that is at hand.
pub fn header_of(sealed: &[u8]) -> Result<Header> {
    match sealed.first_chunk::<HEADER_BYTES>() {
        Some(header) => Header::decode(header),
        None => Err(Error::corrupt("a sealed file ends early")),
    }
}

/// Opens a small file: its plain name, and its content.
pub fn open(key: &DataKey, place: &Place, sealed: &[u8]) -> Result<([u8; 32], Vec<u8>)> {
    let header = header_of(sealed)?;
    let shape = Shape::of_sealed(sealed.len() as u64)
        .ok_or_else(|| Error::corrupt("a sealed file has been cut, or something stands behind it"))?;
    let frames = Frames::new(key, &header, place);
    let mut opener =
        Opener { frames, shape, content: Vec::with_capacity(sealed.len()), number: 0, pending: Vec::new() };
    opener.write(&sealed[HEADER_BYTES..])?;
    let trailer = opener.end()?;
    let mut content = opener.content;
    let bytes = usize::try_from(trailer.bytes).expect("it is in memory");
    if content[bytes..].iter().any(|byte| *byte != 0) {
        return Err(Error::corrupt("a sealed file is padded with something else than zeroes"));
    }
    content.truncate(bytes);
    Ok((trailer.name, content))
}

/// Opens a file that comes in order. What it gives out may end in padding; the trailer says where.
pub struct Opener {
    frames: Frames,
    shape: Shape,
    /// What has been opened and not taken.
    pub content: Vec<u8>,
    number: u64,
    pending: Vec<u8>,
}

impl Opener {
    /// Starts behind the header.
    pub fn new(frames: Frames, shape: Shape) -> Opener {
        Opener {
            frames,
            shape,
            content: Vec::new(),
            number: 0,
            pending: Vec::with_capacity(SEALED_FRAME_BYTES),
        }
    }

    /// Takes the next sealed bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let at_hand = bytes.len() / SEALED_FRAME_BYTES;
            if self.pending.is_empty() && at_hand > 0 && self.number + 1 < self.shape.frames {
                let before_last = usize::try_from(self.shape.frames - 1 - self.number).unwrap_or(usize::MAX);
                let (now, later) = bytes.split_at(at_hand.min(before_last) * SEALED_FRAME_BYTES);
                self.whole(now)?;
                bytes = later;
                continue;
            }
            let whole = if self.number + 1 == self.shape.frames {
                FRAME_OVERHEAD + TRAILER_BYTES + self.shape.last
            } else {
                SEALED_FRAME_BYTES
            };
            if self.number >= self.shape.frames || self.pending.len() == whole {
                return Err(Error::corrupt("something stands behind a sealed file"));
            }
            let (now, later) = bytes.split_at(bytes.len().min(whole - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == whole && self.number + 1 < self.shape.frames {
                let content = self.frames.open(self.number, false, &mut self.pending)?;
                self.content.extend_from_slice(content);
                self.pending.clear();
                self.number += 1;
            }
        }
        Ok(())
    }

    /// Opens whole frames, on all threads where there are several.
    fn whole(&mut self, sealed: &[u8]) -> Result<()> {
        let mut sealed = sealed.to_vec();
        let (frames, first) = (&self.frames, self.number);
        let opened: Vec<&mut [u8]> = sealed
            .par_chunks_exact_mut(SEALED_FRAME_BYTES)
            .enumerate()
            .map(|(number, frame)| frames.open(first + number as u64, false, frame))
            .collect::<Result<_>>()?;
        self.number += opened.len() as u64;
        opened.iter().for_each(|content| self.content.extend_from_slice(content));
        Ok(())
    }

    /// Ends: opens the last frame, and says what stands in the trailer.
    pub fn end(&mut self) -> Result<Trailer> {
        if self.number + 1 != self.shape.frames {
            return Err(Error::corrupt("a sealed file ends early"));
        }
        let mut last = std::mem::take(&mut self.pending);
        let (trailer, rest) = self.frames.open_last(&self.shape, &mut last)?;
        self.content.extend_from_slice(&rest);
        Ok(trailer)
    }
}
