//! A sealed file that is read where it lies: any part of it, by the frames that the part touches.

use std::io;
use std::sync::{Mutex, PoisonError};

use agent_trace_store::env::File;
use agent_trace_store::{Error, Result};

use super::frames::{
    FRAME_BYTES, Frames, HEADER_BYTES, Header, Place, SEALED_FRAME_BYTES, Shape, Trailer, frame_at,
};
use super::ring::Ring;
use crate::limits::SEALED_READ_FRAMES;

const FRAME: u64 = FRAME_BYTES as u64;

/// A sealed file as whoever wrote it saw it.
pub struct SealedFile {
    inner: Box<dyn File>,
    frames: Frames,
    shape: Shape,
    trailer: Trailer,
    last: Vec<u8>,
    /// The frame that was opened last: reads often go on where one ended.
    recent: Mutex<Option<(u64, Vec<u8>)>>,
}

impl SealedFile {
    /// Opens a file: header and last frame are read.
    pub fn open(inner: Box<dyn File>, ring: &Ring, place: &Place) -> Result<SealedFile> {
        let doing = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupt("a sealed file ends early"),
            _ => Error::io("cannot read a sealed file", error),
        };
        let bytes = inner.len().map_err(doing)?;
        let mut header = [0; HEADER_BYTES];
        inner.read_exact_at(&mut header, 0).map_err(doing)?;
        let header = Header::decode(&header)?;
        let shape = Shape::of_sealed(bytes)
            .ok_or_else(|| Error::corrupt("a sealed file has been cut, or something stands behind it"))?;
        let frames = Frames::new(&ring.data(header.epoch)?, &header, place);
        let at = shape.last_at();
        let mut last = vec![0; usize::try_from(bytes - at).expect("a frame is small")];
        inner.read_exact_at(&mut last, at).map_err(doing)?;
        let (trailer, last) = frames.open_last(&shape, &mut last)?;
        Ok(SealedFile { inner, frames, shape, trailer, last, recent: Mutex::new(None) })
    }

    /// What the last frame says of the file.
    pub fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// Copies from one frame, if it is at hand.
    fn at_hand(&self, number: u64, within: usize, buffer: &mut [u8]) -> Option<usize> {
        let mut copy = |content: &[u8]| {
            let count = buffer.len().min(content.len() - within);
            buffer[..count].copy_from_slice(&content[within..within + count]);
            count
        };
        if number + 1 == self.shape.frames {
            return Some(copy(&self.last));
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.as_ref().filter(|(at, _)| *at == number).map(|(_, content)| copy(content))
    }
}

impl File for SealedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.trailer.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.trailer.bytes.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..length];
        let number = offset / FRAME;
        let within = usize::try_from(offset % FRAME).expect("less than a frame");
        if let Some(count) = self.at_hand(number, within, buffer) {
            return Ok(count);
        }
        let wanted = ((within + length) as u64).div_ceil(FRAME);
        let count = wanted.min(SEALED_READ_FRAMES).min(self.shape.frames - 1 - number);
        let mut sealed = vec![0; usize::try_from(count).expect("few") * SEALED_FRAME_BYTES];
        self.inner.read_exact_at(&mut sealed, frame_at(number))?;
        let (mut filled, mut within) = (0, within);
        for (frame, number) in sealed.chunks_exact_mut(SEALED_FRAME_BYTES).zip(number..) {
            let content = self.frames.open(number, false, frame).map_err(io::Error::other)?;
            let part = (buffer.len() - filled).min(content.len() - within);
            buffer[filled..filled + part].copy_from_slice(&content[within..within + part]);
            filled += part;
            within = 0;
            if number + 1 == offset / FRAME + count {
                *self.recent.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((number, content.to_vec()));
            }
        }
        Ok(filled)
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
