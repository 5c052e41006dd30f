//! The tools that change files: what their input says, whichever agent gives it.
//!
//! Names of tools and members differ by agent and version, and mean the same: a path and a whole content, a path and
//! texts that give way to others, a patch, a cell.

use std::path::PathBuf;

use super::path;
use crate::capture::payload::{self, Object, PATHS};
use crate::edit::{Change, PatchHunk, PatchSide, Replacement, ToolEdit};

const CONTENTS: [&str; 6] = ["content", "contents", "filetext", "text", "codecontent", "code"];
const OLD: [&str; 4] = ["oldstring", "oldstr", "oldtext", "old"];
const NEW: [&str; 5] = ["newstring", "newstr", "newtext", "new", "replacement"];

/// What a call of a tool did, by its input.
pub(super) fn edits(tool: &str, input: &Object<'_>) -> Vec<ToolEdit> {
    if let Some(patch) = payload::patch_text(input) {
        return super::parse_patch(&patch);
    }
    let tool = payload::plain(tool);
    // The editing tool of Anthropic has commands of its own.
    let command = input.text("command").map(|command| payload::plain(&command)).unwrap_or_default();
    match (tool.as_str(), command.as_str()) {
        ("notebookedit" | "editnotebook", _) => cell(input).into_iter().collect(),
        ("delete" | "deletefile", _) => on_path(input, Change::Delete).into_iter().collect(),
        (_, "view" | "undoedit") => Vec::new(),
        (_, "insert") | ("insert", _) => insertion(input).into_iter().collect(),
        _ => match input.content(&CONTENTS) {
            Some(content) if !has_replacement(input) => {
                on_path(input, Change::Write(content.into_bytes())).into_iter().collect()
            }
            _ => many(input).unwrap_or_else(|| replacements(input).into_iter().collect()),
        },
    }
}

fn has_replacement(input: &Object<'_>) -> bool {
    input.has("edits") || NEW.iter().any(|name| input.has(name))
}

fn on_path(input: &Object<'_>, change: Change) -> Option<ToolEdit> {
    Some(ToolEdit { path: path(&input.first(&PATHS)?), change, before: None, after: None })
}

/// Texts that give way to others in one file: `edits`, or the two texts themselves.
pub(super) fn replacements(input: &Object<'_>) -> Option<ToolEdit> {
    let listed: Vec<Replacement> =
        input.items("edits").into_iter().filter_map(|edit| replacement(&Object::read(edit.get()))).collect();
    let all = if listed.is_empty() { replacement(input).into_iter().collect() } else { listed };
    on_path(input, change_of(all)?)
}

/// The same where each edit names its own file.
fn many(input: &Object<'_>) -> Option<Vec<ToolEdit>> {
    let items = [input.items("replacements"), input.items("edits")].concat();
    let mut by_path: Vec<(PathBuf, Vec<Replacement>)> = Vec::new();
    for item in items {
        let item = Object::read(item.get());
        let (Some(file), Some(replacement)) = (item.first(&PATHS), replacement(&item)) else { continue };
        let file = path(&file);
        match by_path.iter_mut().find(|(known, _)| *known == file) {
            Some((_, replacements)) => replacements.push(replacement),
            None => by_path.push((file, vec![replacement])),
        }
    }
    let edits: Vec<ToolEdit> = by_path
        .into_iter()
        .filter_map(|(path, all)| Some(ToolEdit { path, change: change_of(all)?, before: None, after: None }))
        .collect();
    (!edits.is_empty()).then_some(edits)
}

/// A text in place of nothing is a whole new file.
fn change_of(mut all: Vec<Replacement>) -> Option<Change> {
    match all.as_mut_slice() {
        [] => None,
        [only] if only.old.is_empty() => Some(Change::Write(std::mem::take(&mut only.new))),
        _ => Some(Change::Replace(all)),
    }
}

fn replacement(edit: &Object<'_>) -> Option<Replacement> {
    let new = edit.content(&NEW)?;
    let old = edit.content(&OLD).unwrap_or_default();
    let count: u64 = edit.number("expectedreplacements").and_then(|count| count.parse().ok()).unwrap_or(1);
    let all = edit.flag("replaceall") || edit.flag("allowmultiple") || count > 1;
    Some(Replacement { old: old.into_bytes(), new: new.into_bytes(), all })
}

fn cell(input: &Object<'_>) -> Option<ToolEdit> {
    let is_removed = input.text("editmode").as_deref() == Some("delete");
    let new = if is_removed { String::new() } else { input.content(&["newsource", "newstring"])? };
    on_path(input, Change::Cell { cell: input.text("cellid"), new: new.into_bytes() })
}

/// Lines put in after a line.
fn insertion(input: &Object<'_>) -> Option<ToolEdit> {
    let after: usize = input.number("insertline")?.parse().ok()?;
    let text = input.content(&["inserttext", "newstr", "text"])?;
    let lines = text.lines().map(|line| (PatchSide::Added, line.as_bytes().to_vec())).collect();
    on_path(input, Change::Patch(vec![PatchHunk { old_start: Some(after), lines }]))
}
