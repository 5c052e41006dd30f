//! A file line by line, in a bounded buffer.

use std::io;

use agent_trace_store::env::File;

/// What is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// The longest line that is looked at; what is longer is passed over.
pub(super) const LINE_BYTES_MAX: usize = 64 << 20;

/// How reading went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Lines that were too long.
    pub(super) too_long: u64,
}

/// Hands over each line with its number, from 1, and the offset behind it; the last may lack its end.
pub(super) fn each(
    file: &dyn File,
    bytes: u64,
    buffer: &mut Vec<u8>,
    take: &mut dyn FnMut(u64, u64, &[u8]),
) -> io::Result<Read> {
    let mut read = Read::default();
    // The beginning of a line that does not end in this piece stands at the beginning of the buffer.
    let (mut at, mut kept, mut number, mut is_passed_over) = (0u64, 0usize, 1u64, false);
    while at < bytes {
        let wanted = usize::try_from(bytes - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        if buffer.len() < kept + wanted {
            buffer.resize(kept + wanted, 0);
        }
        let count = match file.read_at(&mut buffer[kept..kept + wanted], at) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it became shorter while it was read",
                ));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = kept + count;
        let (mut start, mut looked) = (0, kept);
        while let Some(feed) = memchr::memchr(b'\n', &buffer[looked..end]) {
            let stop = looked + feed;
            let behind = at + (stop + 1 - kept) as u64;
            if !std::mem::take(&mut is_passed_over) {
                take(number, behind, &buffer[start..stop]);
            }
            number += 1;
            (start, looked) = (stop + 1, stop + 1);
        }
        at += count as u64;
        buffer.copy_within(start..end, 0);
        kept = end - start;
        if kept > LINE_BYTES_MAX || is_passed_over {
            read.too_long += u64::from(!is_passed_over);
            (kept, is_passed_over) = (0, true);
        }
    }
    if kept > 0 && !is_passed_over {
        take(number, at, &buffer[..kept]);
    }
    Ok(read)
}
