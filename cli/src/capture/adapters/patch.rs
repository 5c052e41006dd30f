//! The patch format of `apply_patch`: files that are added, updated, moved and deleted, by lines and without numbers.
//!
//! Takes any text; what is no patch has no edits. Does not look at files.

use super::path;
use crate::edit::{Change, PatchHunk, PatchSide, ToolEdit};

/// The edits of a patch.
pub(crate) fn parse(text: &str) -> Vec<ToolEdit> {
    let mut edits = Vec::new();
    let mut lines = text.lines().skip_while(|line| line.trim() != "*** Begin Patch").skip(1).peekable();
    while let Some(line) = lines.next() {
        let line = line.trim_end();
        if line == "*** End Patch" {
            break;
        }
        if let Some(file) = line.strip_prefix("*** Delete File: ") {
            edits.push(edit(file, Change::Delete));
        } else if let Some(file) = line.strip_prefix("*** Add File: ") {
            let mut content = Vec::new();
            while let Some(added) = lines.next_if(|line| line.starts_with('+')) {
                content.extend_from_slice(&added.as_bytes()[1..]);
                content.push(b'\n');
            }
            edits.push(ToolEdit { before: Some(Vec::new()), ..edit(file, Change::Write(content)) });
        } else if let Some(file) = line.strip_prefix("*** Update File: ") {
            let moved = lines.next_if(|line| line.starts_with("*** Move to: "));
            let target = moved.and_then(|line| line.strip_prefix("*** Move to: ")).unwrap_or(file);
            let mut hunks: Vec<PatchHunk> = Vec::new();
            while let Some(line) = lines.next_if(|line| !is_mark(line)) {
                add_line(&mut hunks, line);
            }
            hunks.retain(|hunk| !hunk.lines.is_empty());
            if target != file {
                edits.push(edit(file, Change::Delete));
            }
            edits.push(edit(target, Change::Patch(hunks)));
        }
    }
    edits
}

fn edit(file: &str, change: Change) -> ToolEdit {
    ToolEdit { path: path(file.trim()), change, before: None, after: None }
}

fn is_mark(line: &str) -> bool {
    line.starts_with("*** ") && line.trim_end() != "*** End of File"
}

fn add_line(hunks: &mut Vec<PatchHunk>, line: &str) {
    if line.starts_with("@@") {
        // What stands behind it is only where to look, and not next to the lines.
        hunks.push(PatchHunk { old_start: None, lines: Vec::new() });
        return;
    }
    let (side, rest) = match line.as_bytes().first() {
        Some(b'+') => (PatchSide::Added, &line[1..]),
        Some(b'-') => (PatchSide::Removed, &line[1..]),
        Some(b' ') => (PatchSide::Context, &line[1..]),
        // An empty line of the file, whose blank was lost on the way.
        None => (PatchSide::Context, ""),
        Some(_) => return,
    };
    if hunks.is_empty() {
        hunks.push(PatchHunk { old_start: None, lines: Vec::new() });
    }
    if let Some(hunk) = hunks.last_mut() {
        hunk.lines.push((side, rest.as_bytes().to_vec()));
    }
}
