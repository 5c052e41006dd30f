//! Codex. Edits come as patches, by `apply_patch` or by a shell that runs it.

use super::{Event, ToolCall, parse_patch};
use crate::capture::payload::{self, Moment, Object};

pub(super) fn is_known_by(object: &Object<'_>) -> bool {
    (object.has("turnid") && object.has("hookeventname") && !object.has("conversationid"))
        || object.has("threadid")
        || super::transcript_has(object, &["/.codex/", "/rollout-"])
}

pub(super) fn read(object: &Object<'_>, event: &mut Event) {
    // Tools may be named with their namespace.
    event.tool = event.tool.take().map(|tool| tool.trim_start_matches("functions.").to_owned());
    if let Some(call) = ToolCall::done(object, event) {
        event.edits = call.edits();
    } else if event.moment == Moment::After {
        // `exec_command` and `shell` with a patch on the command line report a change of files in just that form.
        let nested = object.nested("toolinput");
        let patch = nested.as_deref().and_then(|text| payload::patch_text(&Object::read(text)));
        event.edits = patch.map(|patch| parse_patch(&patch)).unwrap_or_default();
    }
}
