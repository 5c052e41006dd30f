//! Cursor. Tells of an edit as the use of a tool, as an edit of a file, or, by its compatibility, through the hooks of
//! Claude Code; the edit of a file is passed over where the use of the tool has been told of.

use super::{Event, ToolCall, tools};
use crate::capture::payload::{self, Object};

pub(super) fn is_known_by(object: &Object<'_>) -> bool {
    object.has("cursorversion") || (object.has("generationid") && object.has("workspaceroots"))
}

pub(super) fn read(object: &Object<'_>, event: &mut Event) {
    event.agent_version = object.text("cursorversion");
    event.session = object.first(&["conversationid", "sessionid"]);
    let name = payload::plain(&event.name);
    if matches!(name.as_str(), "afterfileedit" | "aftertabfileedit") {
        event.tool.get_or_insert_with(|| event.name.clone());
        event.edits = tools::replacements(object).into_iter().collect();
        // What the user completes with the tab key is no call of a tool.
        event.is_second_telling = name == "afterfileedit";
    } else if let Some(call) = ToolCall::done(object, event) {
        event.edits = call.edits();
    }
}
