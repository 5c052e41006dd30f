//! Claude Code. Its tools tell what a file held before (`originalFile`) and what became of it (`structuredPatch`).

use super::{Event, ToolCall};
use crate::capture::payload::Object;
use crate::edit::{Change, PatchHunk, PatchSide, ToolEdit};

/// Nothing but Claude Code writes below these.
pub(super) fn is_known_by(object: &Object<'_>) -> bool {
    object.has("hookeventname")
        && super::transcript_has(object, &["/.claude/projects/", "/.config/claude/projects/"])
}

pub(super) fn read(object: &Object<'_>, event: &mut Event) {
    let Some(call) = ToolCall::done(object, event) else { return };
    event.edits = call.edits();
    let response = object.nested("toolresponse");
    let Some(response) = response.as_deref().map(Object::read) else { return };
    if let [edit] = event.edits.as_mut_slice() {
        complete(edit, &response);
    }
}

/// Adds what the tool says of the file.
fn complete(edit: &mut ToolEdit, response: &Object<'_>) {
    edit.before = match response.content(&["originalfile"]) {
        Some(original) => Some(original.into_bytes()),
        None if response.text("type").as_deref() == Some("create") => Some(Vec::new()),
        None => None,
    };
    // A user may have changed the proposal; then the input is not what was written.
    let is_other = response.flag("usermodified");
    if edit.before.is_none() || is_other {
        let hunks = structured_patch(response);
        if !hunks.is_empty() {
            edit.change = Change::Patch(hunks);
        }
    }
}

fn structured_patch(response: &Object<'_>) -> Vec<PatchHunk> {
    let hunks = response.items("structuredpatch").into_iter();
    hunks
        .filter_map(|hunk| {
            let hunk = Object::read(hunk.get());
            let start: usize = hunk.number("oldstart")?.parse().ok()?;
            let lines = hunk.items("lines").into_iter().filter_map(super::super::payload::text);
            let lines = lines.filter_map(|line| {
                let side = match line.as_bytes().first()? {
                    b' ' => PatchSide::Context,
                    b'-' => PatchSide::Removed,
                    b'+' => PatchSide::Added,
                    // `\ No newline at end of file`
                    _ => return None,
                };
                Some((side, line.as_bytes()[1..].to_vec()))
            });
            Some(PatchHunk { old_start: Some(start.saturating_sub(1)), lines: lines.collect() })
        })
        .collect()
}
