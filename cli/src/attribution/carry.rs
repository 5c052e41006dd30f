//! From the replayed text to the commit's file: which line became which.

use std::ops::Range;

use super::replay::{Mark, Text};
use super::{By, How};
use crate::edit::diff::{self, Change, Manner};
use crate::edit::line::Line;

/// A few lines that stand alone between changes must say at least so much to be the ones that they look like.
const LONE_WEIGHT_MIN: usize = 8;

/// What became of a text.
pub(crate) struct Carried {
    /// The authors of the file's lines; only added lines have one.
    pub(crate) by: Vec<Option<By>>,
    /// The lines of the text that are not in the file.
    pub(crate) gone: Vec<bool>,
    /// Lines of the file that are lines of the parent with other white space.
    pub(crate) reindented: Vec<(usize, usize)>,
}

/// Pairs a text with the file that it became.
pub(crate) fn carry(text: &Text, file: &[Line], added: &[bool]) -> Carried {
    let changes = diff::changes(&text.lines, file, Manner::Rare);
    let mut pairs: Vec<Option<(usize, How)>> = diff::pairs(&changes, text.lines.len(), file.len())
        .into_iter()
        .map(|pair| pair.map(|old| (old, How::Exact)))
        .collect();
    drop_lone(text, file, &changes, &mut pairs);
    for change in &changes {
        pair_reindented(text, file, change, &mut pairs);
    }
    let mut gone = vec![true; text.lines.len()];
    let mut marks: Vec<Option<(Mark, How)>> = vec![None; file.len()];
    let mut reindented = Vec::new();
    for (at, pair) in pairs.iter().enumerate() {
        let Some((old, how)) = *pair else { continue };
        gone[old] = false;
        marks[at] = Some((text.marks[old], how));
        if let (Mark::Prior(line), How::Reindented) = (text.marks[old], how) {
            reindented.push((at, line));
        }
    }
    slide(file, added, &mut marks);
    let by = marks.iter().zip(added).map(|(mark, added)| match mark {
        Some((Mark::Edit(source), how)) if *added => Some(By { source: *source, how: *how }),
        _ => None,
    });
    Carried { by: by.collect(), gone, reindented }
}

/// Undoes pairs of an edit's lines that stand alone where the lines around gave way to others, and say little: people
/// write such lines too.
fn drop_lone(text: &Text, file: &[Line], changes: &[Change], pairs: &mut [Option<(usize, How)>]) {
    let rewrites = |change: Option<&Change>| {
        change.is_some_and(|change| !change.before.is_empty() && !change.after.is_empty())
    };
    for (number, change) in changes.iter().enumerate() {
        let Some(next) = changes.get(number + 1) else { break };
        let run: Range<usize> = change.after.end..next.after.start;
        let old: Range<usize> = change.before.end..next.before.start;
        let is_edited = old.clone().all(|at| matches!(text.marks[at], Mark::Edit(_)));
        let weight: usize = file[run.clone()].iter().map(|line| usize::from(line.weight)).sum();
        if is_edited && weight < LONE_WEIGHT_MIN && rewrites(Some(change)) && rewrites(Some(next)) {
            pairs[run].fill(None);
        }
    }
}

/// Pairs lines of one change that differ in white space only.
fn pair_reindented(text: &Text, file: &[Line], change: &Change, pairs: &mut [Option<(usize, How)>]) {
    if change.before.is_empty() || change.after.is_empty() {
        return;
    }
    let by_loose =
        |lines: &[Line]| lines.iter().map(|line| Line { strict: line.loose, ..*line }).collect::<Vec<Line>>();
    let (old, new) = (by_loose(&text.lines[change.before.clone()]), by_loose(&file[change.after.clone()]));
    let changes = diff::changes(&old, &new, Manner::Rare);
    let loose = diff::pairs(&changes, old.len(), new.len());
    // Lines that say nothing go with a neighbour that says something.
    let says = |at: usize| loose[at].is_some() && new[at].weight > 0;
    for (at, pair) in loose.iter().enumerate() {
        let Some(old) = *pair else { continue };
        let near = says(at) || (at > 0 && says(at - 1)) || (at + 1 < loose.len() && says(at + 1));
        if near {
            pairs[change.after.start + at].get_or_insert((change.before.start + old, How::Reindented));
        }
    }
}

/// Brings marks into line with git's view of what was added, where equal lines at both ends of an addition leave open
/// which of them are new.
fn slide(file: &[Line], added: &[bool], marks: &mut [Option<(Mark, How)>]) {
    let is_edit = |mark: &Option<(Mark, How)>| matches!(mark, Some((Mark::Edit(_), _)));
    let mut start = 0;
    while start < file.len() {
        if !added[start] {
            start += 1;
            continue;
        }
        let end = (start..file.len()).find(|at| !added[*at]).unwrap_or(file.len());
        let same = |one: usize, two: usize| file[one].strict == file[two].strict;
        let length = end - start;
        let down = (0..length)
            .take_while(|k| end + k < file.len() && !added[end + k] && same(start + k, end + k))
            .count();
        let up = (0..length)
            .take_while(|k| start > *k && !added[start - 1 - k] && same(start - 1 - k, end - 1 - k))
            .count();
        let down_gain = (0..down).filter(|k| is_edit(&marks[end + k]) && !is_edit(&marks[start + k])).count();
        let up_gain =
            (0..up).filter(|k| is_edit(&marks[start - 1 - k]) && !is_edit(&marks[end - 1 - k])).count();
        let (gain, swaps): (usize, Vec<(usize, usize)>) = if down_gain >= up_gain {
            (down_gain, (0..down).map(|k| (start + k, end + k)).collect())
        } else {
            (up_gain, (0..up).map(|k| (end - 1 - k, start - 1 - k)).collect())
        };
        if gain > 0 {
            // The lines are equal, so whose they are may change places.
            let loss =
                swaps.iter().filter(|(new, old)| is_edit(&marks[*new]) && !is_edit(&marks[*old])).count();
            if gain > loss {
                swaps.into_iter().for_each(|(new, old)| marks.swap(new, old));
            }
        }
        start = end;
    }
}
