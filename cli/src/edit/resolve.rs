//! Which lines a change removed and which it brought, from what is known of the file.
//!
//! Best is the file before and the change itself; else the file after, with the change taken back; else the hunks of a
//! patch, which are whole lines. Fragments of which nothing else is known are taken as the lines that they look like.

use std::ops::Range;

use super::hunk::{Hunk, Lines, between};
use super::line::Line;
use super::{Change, PatchHunk, PatchSide, Replacement, ToolEdit};

/// What an edit came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The places that changed, in order.
    pub(crate) hunks: Vec<Hunk>,
    /// Whether all of a file was written and nothing is known of it before. There is one hunk then, of all its lines.
    pub(crate) is_whole: bool,
    /// Whether the file was made by it.
    pub(crate) is_creation: bool,
}

/// Works out what an edit changed.
pub(crate) fn resolve(edit: &ToolEdit) -> Resolved {
    let before = edit.before.as_deref();
    let (before, after) = match (before, &edit.change) {
        (Some(before), change) => {
            (Some(before.to_vec()), apply(before, change).or_else(|| edit.after.clone()))
        }
        (None, Change::Write(content)) => return written(edit.after.as_deref().unwrap_or(content)),
        (None, change) => match &edit.after {
            Some(after) => (take_back(after, change), Some(after.clone())),
            None => (None, None),
        },
    };
    match (before, after) {
        (Some(before), Some(after)) => {
            let hunks = between(&Lines::of(&before), &Lines::of(&after));
            Resolved { hunks, is_whole: false, is_creation: before.is_empty() && !after.is_empty() }
        }
        (_, after) => Resolved { hunks: loose_hunks(&edit.change, after.as_deref()), ..Resolved::default() },
    }
}

fn written(content: &[u8]) -> Resolved {
    let hunks = between(&Lines::of(b""), &Lines::of(content));
    Resolved { hunks, is_whole: true, ..Resolved::default() }
}

/// The file after a change, if the change fits the file.
pub(crate) fn apply(before: &[u8], change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Write(content) => Some(content.clone()),
        Change::Replace(replacements) => {
            let mut file = before.to_vec();
            for replacement in replacements {
                file = replaced(&file, replacement)?;
            }
            Some(file)
        }
        Change::Patch(hunks) => patched(before, hunks, PatchSide::Removed),
        Change::Cell { .. } => None,
        Change::Delete => Some(Vec::new()),
    }
}

/// The file before a change, if the file after it shows where it was.
fn take_back(after: &[u8], change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Replace(replacements) => {
            let mut file = after.to_vec();
            for Replacement { old, new, all } in replacements.iter().rev() {
                // What was deleted cannot be found again.
                if new.is_empty() {
                    return None;
                }
                file = replaced(&file, &Replacement { old: new.clone(), new: old.clone(), all: *all })?;
            }
            Some(file)
        }
        Change::Patch(hunks) => patched(after, hunks, PatchSide::Added),
        Change::Write(_) | Change::Cell { .. } | Change::Delete => None,
    }
}

fn replaced(file: &[u8], replacement: &Replacement) -> Option<Vec<u8>> {
    let Replacement { old, new, all } = replacement;
    if old.is_empty() {
        // A new file is written so by some agents.
        return file.is_empty().then(|| new.clone());
    }
    // Agents see line feeds where a file has Windows line ends.
    let is_windows = memchr::memmem::find(file, b"\r\n").is_some() && !old.contains(&b'\r');
    let (old, new) =
        if is_windows { (with_returns(old), with_returns(new)) } else { (old.clone(), new.clone()) };
    let finder = memchr::memmem::Finder::new(&old);
    let mut result = Vec::with_capacity(file.len() + new.len());
    let mut at = 0;
    for place in finder.find_iter(file).take(if *all { usize::MAX } else { 1 }) {
        result.extend_from_slice(&file[at..place]);
        result.extend_from_slice(&new);
        at = place + old.len();
    }
    result.extend_from_slice(&file[at..]);
    (at > 0).then_some(result)
}

fn with_returns(text: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len() + text.len() / 16);
    for byte in text {
        if *byte == b'\n' {
            result.push(b'\r');
        }
        result.push(*byte);
    }
    result
}

/// Applies a patch to a file, or takes it back: `goes` is the side whose lines the file has.
fn patched(file: &[u8], hunks: &[PatchHunk], goes: PatchSide) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = super::line::split(file).collect();
    let mut result: Vec<&[u8]> = Vec::with_capacity(lines.len());
    let mut at = 0;
    for hunk in hunks {
        let here = |side: PatchSide| side == PatchSide::Context || side == goes;
        let wanted: Vec<&[u8]> =
            hunk.lines.iter().filter(|(side, _)| here(*side)).map(|(_, line)| line.as_slice()).collect();
        let place = find(&lines, at, &wanted, hunk.old_start.filter(|_| goes == PatchSide::Removed))?;
        result.extend_from_slice(&lines[at..place]);
        let comes = hunk.lines.iter().filter(|(side, _)| *side != goes);
        result.extend(comes.map(|(_, line)| line.as_slice()));
        at = place + wanted.len();
    }
    result.extend_from_slice(&lines[at..]);
    let mut joined = result.join(&b'\n');
    if !result.is_empty() {
        joined.push(b'\n');
    }
    Some(joined)
}

/// Where these lines stand from a place on: nearest to where they are said to be, else first.
fn find(lines: &[&[u8]], from: usize, wanted: &[&[u8]], stated: Option<usize>) -> Option<usize> {
    if wanted.is_empty() {
        return Some(stated.unwrap_or(lines.len()).clamp(from, lines.len()));
    }
    let fits = |place: &usize| lines[*place..*place + wanted.len()] == *wanted;
    let last = lines.len().checked_sub(wanted.len())?;
    let mut places = (from..=last).filter(fits);
    match stated {
        Some(stated) => places.min_by_key(|place| place.abs_diff(stated)),
        None => places.next(),
    }
}

/// Hunks without a place in the file: what a patch or a replacement shows of itself.
fn loose_hunks(change: &Change, after: Option<&[u8]>) -> Vec<Hunk> {
    let unplaced = |mut hunk: Hunk| {
        hunk.old_start = None;
        hunk
    };
    match change {
        Change::Replace(replacements) => replacements
            .iter()
            .flat_map(|Replacement { old, new, .. }| between(&Lines::of(old), &Lines::of(new)))
            .map(unplaced)
            .collect(),
        Change::Patch(hunks) => hunks
            .iter()
            .flat_map(|hunk| {
                let (old, new) = (side(hunk, PatchSide::Removed), side(hunk, PatchSide::Added));
                between(&Lines::of(&old), &Lines::of(&new))
            })
            .map(unplaced)
            .collect(),
        Change::Cell { new, .. } => after.map(|after| cell(after, new)).unwrap_or_default(),
        Change::Write(_) | Change::Delete => Vec::new(),
    }
}

/// One side of a hunk as a text.
fn side(hunk: &PatchHunk, only: PatchSide) -> Vec<u8> {
    let mut text = Vec::new();
    for (_, line) in hunk.lines.iter().filter(|(side, _)| *side == PatchSide::Context || *side == only) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text
}

/// The lines of a notebook's file that hold a cell's source: each line of it is a JSON string there.
fn cell(after: &[u8], source: &[u8]) -> Vec<Hunk> {
    let Ok(source) = std::str::from_utf8(source) else { return Vec::new() };
    let count = source.split_inclusive('\n').count();
    let spelled = source.split_inclusive('\n').enumerate().map(|(at, line)| {
        let text = serde_json::to_string(line).unwrap_or_default();
        let comma = if at + 1 < count { "," } else { "" };
        super::line::loose(format!("{text}{comma}").as_bytes())
    });
    let spelled: Vec<u64> = spelled.collect();
    let lines = Lines::of(after);
    let found: Vec<Line> = super::line::lines(after);
    let fits = |place: &usize| {
        found[*place..*place + count].iter().map(|line| line.loose).eq(spelled.iter().copied())
    };
    let last = found.len().checked_sub(count);
    let Some(place) = last.filter(|_| count > 0).and_then(|last| (0..=last).find(fits)) else {
        return Vec::new();
    };
    let range: Range<usize> = place..place + count;
    let content = Some(lines.content(range.clone()));
    vec![Hunk { new_start: place, new: lines.new_lines(range), content, ..Hunk::default() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(change: Change, before: Option<&str>, after: Option<&str>) -> ToolEdit {
        let bytes = |text: &str| text.as_bytes().to_vec();
        ToolEdit { path: "f".into(), change, before: before.map(bytes), after: after.map(bytes) }
    }

    fn replace(old: &str, new: &str) -> Change {
        Change::Replace(vec![Replacement { old: old.into(), new: new.into(), all: false }])
    }

    /// The 0-based places of new lines in the file after.
    fn new_places(resolved: &Resolved) -> Vec<usize> {
        resolved.hunks.iter().flat_map(|hunk| hunk.new_start..hunk.new_start + hunk.new.len()).collect()
    }

    #[test]
    fn an_edit_within_a_line_is_the_line_s() {
        let file = "one\nlet x = a + b;\nthree\n";
        let changed = "one\nlet x = a * b;\nthree\n";
        for (before, after) in [(Some(file), None), (None, Some(changed)), (Some(file), Some(changed))] {
            let resolved = resolve(&edit(replace("a + b", "a * b"), before, after));
            assert_eq!(new_places(&resolved), [1], "{before:?} {after:?}");
            assert_eq!(resolved.hunks[0].new[0].hash, super::super::line::LineHash::of(b"let x = a * b;"));
            assert_eq!(resolved.hunks[0].old, [Line::of(b"let x = a + b;").strict]);
            assert_eq!(resolved.hunks[0].above, [Line::of(b"one").strict]);
        }
    }

    #[test]
    fn lines_that_an_edit_only_repeats_are_not_its_own() {
        let resolved = resolve(&edit(replace("a\nb\nc", "a\nx\nb\nc"), Some("a\nb\nc\n"), None));
        assert_eq!(new_places(&resolved), [1]);
        assert!(resolved.hunks[0].old.is_empty());
    }

    #[test]
    fn windows_line_ends_are_no_difference() {
        let resolved = resolve(&edit(replace("a\nb", "a\nx\nb"), Some("a\r\nb\r\n"), None));
        assert_eq!(new_places(&resolved), [1]);
        assert_eq!(resolved.hunks[0].new[0].hash, super::super::line::LineHash::of(b"x"));
    }

    #[test]
    fn a_file_written_anew_changes_where_it_differs() {
        let resolved = resolve(&edit(Change::Write(b"a\nB\nc\n".to_vec()), Some("a\nb\nc\n"), None));
        assert_eq!(new_places(&resolved), [1]);
        let resolved = resolve(&edit(Change::Write(b"a\nb\n".to_vec()), Some(""), None));
        assert!(resolved.is_creation);
        assert_eq!(new_places(&resolved), [0, 1]);
        let resolved = resolve(&edit(Change::Write(b"a\nb\n".to_vec()), None, None));
        assert!(resolved.is_whole && !resolved.is_creation);
        assert_eq!(new_places(&resolved), [0, 1]);
    }

    #[test]
    fn a_patch_is_applied_and_taken_back() {
        let line = |side, text: &str| (side, text.as_bytes().to_vec());
        use PatchSide::{Added, Context, Removed};
        let lines = vec![
            line(Context, "b"),
            line(Removed, "c"),
            line(Added, "C"),
            line(Added, "D"),
            line(Context, "e"),
        ];
        let change = Change::Patch(vec![PatchHunk { old_start: None, lines }]);
        let (before, after) = ("a\nb\nc\ne\n", "a\nb\nC\nD\ne\n");
        for (before, after) in [(Some(before), None), (None, Some(after))] {
            let resolved = resolve(&edit(change.clone(), before, after));
            assert_eq!(new_places(&resolved), [2, 3]);
            assert_eq!(resolved.hunks[0].old_start, Some(2));
        }
        let resolved = resolve(&edit(change, None, None));
        assert_eq!((resolved.hunks.len(), resolved.hunks[0].old_start), (1, None));
        assert_eq!(resolved.hunks[0].new.len(), 2);
        assert_eq!(resolved.hunks[0].above, [Line::of(b"b").strict]);
    }

    #[test]
    fn a_change_that_does_not_fit_is_kept_as_it_looks() {
        let resolved = resolve(&edit(replace("nowhere", "new line"), Some("a\n"), None));
        assert_eq!((resolved.hunks.len(), resolved.hunks[0].old_start), (1, None));
        let resolved = resolve(&edit(replace("gone", ""), None, Some("a\n")));
        assert!(resolved.hunks[0].new.is_empty());
    }

    #[test]
    fn a_cell_is_found_in_its_notebook() {
        let notebook = "{\n \"source\": [\n  \"x = 1\\n\",\n  \"print(x)\"\n ]\n}\n";
        let change = Change::Cell { cell: None, new: b"x = 1\nprint(x)".to_vec() };
        assert_eq!(new_places(&resolve(&edit(change, None, Some(notebook)))), [2, 3]);
    }
}
