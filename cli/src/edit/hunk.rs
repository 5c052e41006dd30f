//! What an edit changes: lines that go and lines that come, and what stands around them.
//!
//! A hunk has hashes only, no text. It can be found again in a file that has changed since by what it removes and by
//! what stands above and below.

use super::diff::{self, Manner};
use super::line::{self, Line, LineHash};

/// How many lines around a hunk are remembered, on each side.
pub(crate) const CONTEXT_LINES: usize = 3;

/// A line that an edit brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewLine {
    /// The SHA-256 of its bytes.
    pub(crate) hash: LineHash,
    /// See [`Line::loose`]; where a record does not say, the first bytes of `hash`, which match nothing.
    pub(crate) loose: u64,
}

impl NewLine {
    /// The line as attribution compares it.
    pub(crate) fn line(&self) -> Line {
        Line::of_hashes(self.hash.short(), self.loose)
    }
}

/// One place that an edit changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// The place of the first line removed, in the file before; 0-based. Nothing where the place is not known.
    pub(crate) old_start: Option<usize>,
    /// The place of the first new line, in the file after; 0-based.
    pub(crate) new_start: usize,
    /// What it removes, as [`Line::strict`].
    pub(crate) old: Vec<u64>,
    /// What it brings.
    pub(crate) new: Vec<NewLine>,
    /// The SHA-256 of what it brings as one text, without line feeds at its end; only where the text is known.
    pub(crate) content: Option<LineHash>,
    /// What stands above, nearest last.
    pub(crate) above: Vec<u64>,
    /// What stands below, nearest first.
    pub(crate) below: Vec<u64>,
}

/// A file's lines, ready to be compared.
pub(crate) struct Lines<'a> {
    bytes: Vec<&'a [u8]>,
    lines: Vec<Line>,
}

impl<'a> Lines<'a> {
    /// Looks at a file.
    pub(crate) fn of(file: &'a [u8]) -> Lines<'a> {
        let bytes: Vec<&[u8]> = line::split(file).collect();
        Lines { lines: bytes.iter().copied().map(Line::of).collect(), bytes }
    }

    /// The new lines that these are.
    pub(crate) fn new_lines(&self, range: std::ops::Range<usize>) -> Vec<NewLine> {
        range.map(|at| NewLine { hash: LineHash::of(self.bytes[at]), loose: self.lines[at].loose }).collect()
    }

    /// The hash of these as one text.
    pub(crate) fn content(&self, range: std::ops::Range<usize>) -> LineHash {
        let text = self.bytes[range].join(&b'\n');
        let end = text.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
        LineHash::of(&text[..end])
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }
}

/// What changes from one content of a file to another.
pub(crate) fn between(before: &Lines<'_>, after: &Lines<'_>) -> Vec<Hunk> {
    let strict = |lines: &[Line]| lines.iter().map(|line| line.strict).collect::<Vec<u64>>();
    let changes = diff::changes(&before.lines, &after.lines, Manner::Rare);
    changes
        .into_iter()
        .map(|change| {
            let above = change.before.start.saturating_sub(CONTEXT_LINES)..change.before.start;
            let below = change.before.end..(change.before.end + CONTEXT_LINES).min(before.len());
            Hunk {
                old_start: Some(change.before.start),
                new_start: change.after.start,
                old: strict(&before.lines[change.before]),
                content: Some(after.content(change.after.clone())),
                new: after.new_lines(change.after),
                above: strict(&before.lines[above]),
                below: strict(&before.lines[below]),
            }
        })
        .collect()
}
