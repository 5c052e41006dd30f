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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are read a few at a time.
    struct Drops(Vec<u8>);

    impl File for Drops {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = &self.0[usize::try_from(offset).unwrap()..];
            let count = rest.len().min(buffer.len()).min(if self.0.len() > 4096 { PIECE_BYTES } else { 3 });
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn set_len(&self, _bytes: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn read(bytes: &[u8]) -> (Vec<(u64, u64, Vec<u8>)>, Read) {
        let mut lines = Vec::new();
        let mut take = |number, behind, line: &[u8]| lines.push((number, behind, line.to_vec()));
        let read = each(&Drops(bytes.to_vec()), bytes.len() as u64, &mut Vec::new(), &mut take).unwrap();
        (lines, read)
    }

    #[test]
    fn lines_come_whole_however_they_are_read() {
        let line = |number, behind, text: &str| (number, behind, text.as_bytes().to_vec());
        assert_eq!(read(b"").0, []);
        assert_eq!(read(b"\n").0, [line(1, 1, "")]);
        assert_eq!(read(b"abcdefgh\n\nij").0, [line(1, 9, "abcdefgh"), line(2, 10, ""), line(3, 12, "ij")]);
        assert_eq!(read(b"abcdef\nghijkl\n").0, [line(1, 7, "abcdef"), line(2, 14, "ghijkl")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_counted() {
        let mut bytes = b"one\n".to_vec();
        bytes.resize(LINE_BYTES_MAX + 2 * PIECE_BYTES, b'x');
        bytes.extend_from_slice(b"\nthree\n");
        let (lines, read) = read(&bytes);
        let numbers: Vec<(u64, usize)> =
            lines.iter().map(|(number, _, line)| (*number, line.len())).collect();
        assert_eq!((numbers, read.too_long), (vec![(1, 3), (3, 5)], 1));
    }

    #[test]
    fn a_file_that_becomes_shorter_is_an_error() {
        let result = each(&Drops(b"abc".to_vec()), 5, &mut Vec::new(), &mut |_, _, _| ());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
