//! A file on its way from a parent to a commit: its lines, and which edit brought each.
//!
//! A hunk goes where what it removes stands, or, if it only adds, between what stood above and below it. Where it was
//! is a hint only, since people edit between an agent's edits. A hunk whose lines stand there already has been
//! committed before and is passed over. One that fits nowhere is kept aside.

use crate::edit::diff::{self, Manner};
use crate::edit::hunk::Hunk;
use crate::edit::line::Line;
use crate::edit::trace::FileEdit;

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is a line of the parent, from 0.
    Prior(usize),
    /// An edit brought it: its number in the caller's list.
    Edit(usize),
}

/// A file's lines and where each comes from.
pub(crate) struct Text {
    pub(crate) lines: Vec<Line>,
    pub(crate) marks: Vec<Mark>,
    /// Hunks that fit nowhere.
    pub(crate) aside: Vec<(usize, Hunk)>,
    /// How far the hunks of this edit have moved what stands below.
    shift: isize,
}

impl Text {
    /// The file as the parent has it.
    pub(crate) fn of(lines: &[Line]) -> Text {
        let marks = (0..lines.len()).map(Mark::Prior).collect();
        Text { lines: lines.to_vec(), marks, aside: Vec::new(), shift: 0 }
    }

    /// Replays an edit.
    pub(crate) fn apply(&mut self, source: usize, edit: &FileEdit) {
        if edit.is_whole {
            for hunk in &edit.hunks {
                self.write(source, hunk);
            }
            return;
        }
        // Places are those of the file before the edit; what its own hunks add and remove shifts the next ones.
        self.shift = 0;
        for hunk in &edit.hunks {
            self.splice(source, hunk);
        }
    }

    /// All of the file was written: lines that were there stay whose they are.
    fn write(&mut self, source: usize, hunk: &Hunk) {
        let lines: Vec<Line> = hunk.new.iter().map(|line| line.line()).collect();
        let changes = diff::changes(&self.lines, &lines, Manner::Rare);
        let pairs = diff::pairs(&changes, self.lines.len(), lines.len());
        let marks = pairs.iter().map(|pair| pair.map_or(Mark::Edit(source), |at| self.marks[at]));
        let marks: Vec<Mark> = marks.collect();
        let known: Vec<Line> =
            pairs.iter().zip(&lines).map(|(pair, line)| pair.map_or(*line, |at| self.lines[at])).collect();
        (self.lines, self.marks) = (known, marks);
    }

    fn splice(&mut self, source: usize, hunk: &Hunk) {
        let Some(place) = self.find(hunk) else {
            let is_a_file = hunk.above.is_empty() && hunk.below.is_empty() && hunk.old.is_empty();
            let is_late = is_a_file && hunk.old_start.is_some();
            if !self.is_there(hunk) && !hunk.new.is_empty() && !is_late {
                self.aside.push((source, hunk.clone()));
            }
            return;
        };
        let lines = hunk.new.iter().map(|line| line.line());
        let marks = hunk.new.iter().map(|_| Mark::Edit(source));
        self.lines.splice(place..place + hunk.old.len(), lines);
        self.marks.splice(place..place + hunk.old.len(), marks);
        self.shift += hunk.new.len().cast_signed() - hunk.old.len().cast_signed();
    }

    /// Where a hunk goes.
    fn find(&self, hunk: &Hunk) -> Option<usize> {
        if self.is_there(hunk) && !hunk.new.is_empty() {
            return None;
        }
        let last = self.lines.len().checked_sub(hunk.old.len())?;
        let stated = hunk.old_start.map(|start| start.saturating_add_signed(self.shift));
        let mut best: Option<(usize, usize, usize)> = None;
        let mut fitting = 0_usize;
        for place in 0..=last {
            let fits = self.lines[place..place + hunk.old.len()]
                .iter()
                .map(|line| line.strict)
                .eq(hunk.old.iter().copied());
            if !fits {
                continue;
            }
            let around = self.around(hunk, place, hunk.old.len());
            // An empty place fits everywhere; it must be between what stood around.
            let sides = self.sides(hunk, place, hunk.old.len());
            if hunk.old.is_empty() && sides < 2 && around < 2 && !self.is_at_bound(hunk, place) {
                continue;
            }
            fitting += 1;
            let distance = stated.map_or(place, |stated| stated.abs_diff(place));
            if best.is_none_or(|(most, nearest, _)| {
                (around, std::cmp::Reverse(distance)) > (most, std::cmp::Reverse(nearest))
            }) {
                best = Some((around, distance, place));
            }
        }
        let (around, _, place) = best?;
        // What is removed may stand in many places; where nothing around it is as it was, only one place is certain.
        (around > 0 || fitting == 1).then_some(place)
    }

    /// How many of the lines around a hunk stand around a place, counted outwards from it.
    fn around(&self, hunk: &Hunk, place: usize, length: usize) -> usize {
        let above = hunk.above.iter().rev().zip(self.lines[..place].iter().rev());
        let below = hunk.below.iter().zip(&self.lines[place + length..]);
        let same = |(hash, line): &(&u64, &Line)| **hash == line.strict;
        above.take_while(same).count() + below.take_while(same).count()
    }

    /// Whether a hunk stood at the beginning or the end of the file, and this is that place. What was a whole file
    /// fits an empty one only.
    fn is_at_bound(&self, hunk: &Hunk, place: usize) -> bool {
        let Some(_) = hunk.old_start else { return false };
        match (hunk.above.is_empty(), hunk.below.is_empty()) {
            (true, true) => self.lines.is_empty(),
            (true, false) => place == 0 && self.sides(hunk, place, 0) == 1,
            (false, true) => place == self.lines.len() && self.sides(hunk, place, 0) == 1,
            (false, false) => false,
        }
    }

    /// Whether what a hunk brings stands already where it would go.
    fn is_there(&self, hunk: &Hunk) -> bool {
        let count = hunk.new.len();
        let Some(last) = self.lines.len().checked_sub(count) else { return false };
        if count == 0 {
            return false;
        }
        (0..=last).any(|place| {
            let same = self.lines[place..place + count]
                .iter()
                .map(|line| line.strict)
                .eq(hunk.new.iter().map(|line| line.hash.short()));
            let needed = hunk.above.len().min(1) + hunk.below.len().min(1);
            same && self.sides(hunk, place, count) >= needed.max(1)
        })
    }

    /// How many sides of a hunk are as they were around a place: 0 to 2.
    fn sides(&self, hunk: &Hunk, place: usize, length: usize) -> usize {
        let above = hunk.above.last().is_some_and(|hash| place > 0 && self.lines[place - 1].strict == *hash);
        let below = hunk
            .below
            .first()
            .is_some_and(|hash| self.lines.get(place + length).is_some_and(|line| line.strict == *hash));
        usize::from(above) + usize::from(below)
    }
}
