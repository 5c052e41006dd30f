//! A document from front to back in pieces: each line of JSON for itself, lines of text together.
//!
//! It may come in parts of any size. Memory is bounded: of a line that has no end the beginning is looked through and
//! dropped, but for an overlap.

use std::ops::Range;

use super::limits::{OVERLAP_BYTES, PIECE_BYTES, STREAM_BYTES, STREAM_LINE_BYTES};
use super::scan::{Hit, Scanner};

/// A document that comes in parts.
pub(crate) struct Stream<'s, 'r> {
    scanner: &'s mut Scanner<'r>,
    name: Option<String>,
    pending: Vec<u8>,
    /// Where the pending bytes begin.
    offset: u64,
    /// What the pending bytes begin within: a line, of JSON or not.
    within: Option<bool>,
    /// Where what was told last ends.
    told: u64,
}

impl<'s, 'r> Stream<'s, 'r> {
    /// Begins at an offset, at the start of a line.
    pub(crate) fn new(scanner: &'s mut Scanner<'r>, name: Option<&str>, offset: u64) -> Stream<'s, 'r> {
        let name = name.map(str::to_owned);
        Stream { scanner, name, pending: Vec::new(), offset, within: None, told: 0 }
    }

    /// Takes the next part; each secret is told with its place.
    pub(crate) fn feed(&mut self, part: &[u8], tell: &mut dyn FnMut(u64, &Hit)) {
        for part in part.chunks(STREAM_BYTES) {
            self.pending.extend_from_slice(part);
            if self.pending.len() < STREAM_BYTES {
                continue;
            }
            if let Some(end) = memchr::memrchr(b'\n', &self.pending) {
                self.look(end + 1, tell);
                self.drop_first(end + 1, None);
            } else if self.pending.len() >= STREAM_LINE_BYTES {
                let is_json = self.within.unwrap_or_else(|| is_json(&self.pending));
                self.look(self.pending.len(), tell);
                let end = self.pending.len() - OVERLAP_BYTES;
                let end = if is_json { not_in_escape(&self.pending, end - 64, end) } else { end };
                self.drop_first(end, Some(is_json));
            }
        }
    }

    /// Looks through the rest.
    pub(crate) fn finish(mut self, tell: &mut dyn FnMut(u64, &Hit)) {
        self.look(self.pending.len(), tell);
    }

    fn look(&mut self, end: usize, tell: &mut dyn FnMut(u64, &Hit)) {
        let (offset, mut told) = (self.offset, self.told);
        let mut once = |at: usize, hit: &Hit| {
            let at = offset + at as u64;
            if at >= told {
                told = offset + hit.parts.last().map_or(0, |part| part.end) as u64;
                tell(at, hit);
            }
        };
        scan_from(self.scanner, &self.pending[..end], self.within, self.name.as_deref(), &mut once);
        self.told = told;
    }

    fn drop_first(&mut self, end: usize, within: Option<bool>) {
        self.pending.drain(..end);
        self.offset += end as u64;
        self.within = within;
    }
}

/// Looks through a whole document.
pub(crate) fn scan(
    scanner: &mut Scanner<'_>,
    bytes: &[u8],
    name: Option<&str>,
    tell: &mut dyn FnMut(usize, &Hit),
) {
    scan_from(scanner, bytes, None, name, tell);
}

fn scan_from(
    scanner: &mut Scanner<'_>,
    bytes: &[u8],
    within: Option<bool>,
    name: Option<&str>,
    tell: &mut dyn FnMut(usize, &Hit),
) {
    let mut at = 0;
    if let Some(is_json) = within {
        at = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |found| found + 1);
        scan_part(scanner, bytes, 0..at, is_json, name, tell);
    }
    while at < bytes.len() {
        let part = next(bytes, at);
        at = part.end;
        let is_json = is_json(&bytes[part.clone()]);
        scan_part(scanner, bytes, part, is_json, name, tell);
    }
}

/// The next line of JSON, or all lines up to one.
pub(super) fn next(bytes: &[u8], at: usize) -> Range<usize> {
    let line_end =
        |at: usize| memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found + 1);
    let mut end = line_end(at);
    if is_json(&bytes[at..end]) {
        return at..end;
    }
    while end < bytes.len() {
        let next = line_end(end);
        if is_json(&bytes[end..next]) {
            break;
        }
        end = next;
    }
    at..end
}

/// Whether a line is JSON of the kind that transcripts have; only its beginning says so.
pub(super) fn is_json(line: &[u8]) -> bool {
    let behind = |bytes: &[u8], wanted: &[u8]| {
        bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| wanted.contains(byte))
    };
    let start = line.iter().position(|byte| !byte.is_ascii_whitespace());
    match start.map(|start| &line[start..]) {
        Some([b'{', rest @ ..]) => behind(rest, b"\"}"),
        Some([b'[', rest @ ..]) => behind(rest, b"\"{[]"),
        _ => false,
    }
}

fn scan_part(
    scanner: &mut Scanner<'_>,
    bytes: &[u8],
    part: Range<usize>,
    is_json: bool,
    name: Option<&str>,
    tell: &mut dyn FnMut(usize, &Hit),
) {
    let mut start = part.start;
    // What was told already ends here.
    let mut told = 0;
    loop {
        let mut end = (start + PIECE_BYTES).min(part.end);
        if end < part.end && is_json {
            end = not_in_escape(bytes, start, end);
        }
        let piece = &bytes[start..end];
        let hits = if is_json { scanner.json(piece, name) } else { scanner.text(piece, name) };
        for mut hit in hits {
            hit.parts.iter_mut().for_each(|part| *part = part.start + start..part.end + start);
            let first = hit.parts.first().map_or(0, |part| part.start);
            let last = hit.parts.last().map_or(0, |part| part.end);
            // What ends with the piece is whole in the next, or was not whole.
            if first < told || (end < part.end && last == end) {
                continue;
            }
            told = told.max(last);
            tell(first, &hit);
        }
        if end == part.end {
            return;
        }
        start = end - OVERLAP_BYTES;
        if is_json {
            start = not_in_escape(bytes, start.saturating_sub(64), start);
        }
    }
}

/// A place near the end, not before the start, that no escape goes across.
fn not_in_escape(bytes: &[u8], start: usize, end: usize) -> usize {
    let low = end.saturating_sub(32).max(start + 1);
    let is_free = |at: usize| !bytes[at.saturating_sub(12)..at].contains(&b'\\');
    if let Some(free) = (low..=end).rev().find(|at| is_free(*at)) {
        return free;
    }
    // Nothing but escapes: an even number of backslashes ends with a whole one.
    let slashes = bytes[start..end].iter().rev().take_while(|byte| **byte == b'\\').count();
    if slashes % 2 == 1 { end - 1 } else { end }
}
