//! Copilot: the CLI in its own form, with the arguments as an object or as text that holds one; VS Code in the form of
//! Claude Code, told by where the transcript lies.

use super::{Event, ToolCall};
use crate::capture::payload::Object;

pub(super) fn is_known_by(object: &Object<'_>) -> bool {
    let own_form = object.names().any(|name| matches!(name, "toolargs" | "toolresult"));
    let other_time = object.number("timestamp").is_some();
    own_form
        || (other_time && object.has("cwd") && !object.has("cursorversion"))
        || super::transcript_has(object, &["/.copilot/", "GitHub.copilot-chat", "github.copilot-chat"])
}

pub(super) fn read(object: &Object<'_>, event: &mut Event) {
    let result = object.nested("toolresult").or_else(|| object.nested("toolresponse"));
    let kind = result.as_deref().and_then(|result| Object::read(result).text("resulttype"));
    if kind.is_some_and(|kind| kind != "success") {
        return;
    }
    if let Some(call) = ToolCall::done(object, event) {
        event.edits = call.edits();
    }
}
