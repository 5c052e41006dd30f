//! Gemini CLI. Its events have names of their own; what begins and ends a session is told by its transcript.

use super::{Event, ToolCall};
use crate::capture::payload::{self, Object};

pub(super) fn is_known_by(object: &Object<'_>) -> bool {
    let event = payload::plain(&object.text("hookeventname").unwrap_or_default());
    let own = [
        "beforetool",
        "aftertool",
        "beforeagent",
        "afteragent",
        "beforemodel",
        "aftermodel",
        "precompress",
        "beforetoolselection",
    ];
    own.contains(&event.as_str()) || super::transcript_has(object, &["/.gemini/"])
}

pub(super) fn read(object: &Object<'_>, event: &mut Event) {
    let response = object.nested("toolresponse");
    // A tool that failed has changed nothing.
    if response.as_deref().is_some_and(|response| Object::read(response).has("error")) {
        return;
    }
    if let Some(call) = ToolCall::done(object, event) {
        event.edits = call.edits();
    }
}
