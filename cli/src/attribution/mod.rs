//! Whose lines a commit brings: decided by content in context.
//!
//! ```text
//! parent's file ─► replay: the traces' hunks, one after another ─► text with an author for each line
//!                                                                    │ carry: pair it with the commit's file
//! lines that the commit adds ◄── what moved, what was re-indented ◄──┘
//! ```
//!
//! A line is an agent's where the agent's own hunk, put where it belongs, ends up as that line. An equal line elsewhere
//! is not: a brace or an empty line that a human typed stays the human's. What is not certain has no author.
//! `docs/attribution.md` explains the rules with an example. Works on hashes; knows no git, no store, no clock.

mod carry;
mod moved;
mod replay;

use crate::edit::diff::{self, Manner};
use crate::edit::line::Line;
use crate::edit::trace::FileEdit;

use carry::carry;
use moved::Pool;
use replay::Text;

/// How sure a line's author is, by what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    /// The line stands where the agent put it.
    Exact,
    /// It stands there with other white space.
    Reindented,
    /// It was moved, with lines around it.
    Moved,
    /// Where the agent put it is not known; it stands together with other lines of the same edit.
    Found,
}

impl How {
    /// The word in a ledger.
    pub(crate) fn name(self) -> &'static str {
        match self {
            How::Exact => "exact",
            How::Reindented => "reindented",
            How::Moved => "moved",
            How::Found => "found",
        }
    }
}

/// An author: a number in the caller's list of traces, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct By {
    /// The trace.
    pub(crate) source: usize,
    /// The evidence.
    pub(crate) how: How,
}

/// One file that a commit changes.
pub(crate) struct FileChange<'a> {
    /// Its lines in the commit.
    pub(crate) after: &'a [Line],
    /// Its lines in each parent, under the name that it had there; nothing where it was not there.
    pub(crate) parents: &'a [Vec<Line>],
    /// Which of its lines the commit adds, see [`added`].
    pub(crate) added: &'a [bool],
    /// The edits that may have made it, in order of time, each with its number in the caller's list.
    pub(crate) edits: Vec<(usize, &'a FileEdit)>,
}

/// A line of a file in the first parent: the number of the file in the list of changes, and the line from 0.
pub(crate) type PriorLine = (usize, usize);

/// Who wrote lines of the first parent that the commit removes; asked once, for lines that look as if they had moved.
pub(crate) type Priors<'a> = dyn FnMut(&[PriorLine]) -> Vec<Option<usize>> + 'a;

/// Finds the authors of the lines that a commit adds: for each file, for each line, if it is new and an agent's.
pub(crate) fn attribute(files: &[FileChange<'_>], priors: &mut Priors<'_>) -> Vec<Vec<Option<By>>> {
    let mut pool = Pool::default();
    let mut authors = Vec::with_capacity(files.len());
    let mut wanted = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        let base = file.parents.first().map(Vec::as_slice).unwrap_or_default();
        let mut text = Text::of(base);
        for (source, edit) in &file.edits {
            text.apply(*source, edit);
        }
        let carried = carry(&text, file.after, file.added);
        pool.add(number, &text, &carried);
        wanted.push(
            (0..file.after.len()).map(|at| file.added[at] && carried.by[at].is_none()).collect::<Vec<bool>>(),
        );
        authors.push(carried.by);
    }
    pool.place(files, &wanted, &mut authors, priors);
    authors
}

/// Which lines of a file a commit adds: those that no parent has, as git counts them.
pub(crate) fn added(after: &[Line], parents: &[Vec<Line>]) -> Vec<bool> {
    let mut added = vec![true; after.len()];
    for parent in parents {
        let changes = diff::changes(parent, after, Manner::Git);
        let pairs = diff::pairs(&changes, parent.len(), after.len());
        for (added, pair) in added.iter_mut().zip(pairs) {
            *added &= pair.is_none();
        }
    }
    added
}

#[cfg(test)]
mod tests;
