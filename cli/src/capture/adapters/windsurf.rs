//! Windsurf. An envelope around `tool_info`; a trajectory is a session, and calls have no id.

use super::{Event, tools};
use crate::capture::payload::{self, Object};

pub(super) fn is_known_by(object: &Object<'_>) -> bool {
    object.has("agentactionname") || object.has("trajectoryid")
}

pub(super) fn read(object: &Object<'_>, event: &mut Event) {
    event.session = object.text("trajectoryid").or_else(|| event.session.take());
    let nested = object.nested("toolinfo");
    let Some(info) = nested.as_deref().map(Object::read) else { return };
    if payload::plain(&event.name) == "postwritecode" {
        event.tool.get_or_insert_with(|| event.name.clone());
        event.edits = tools::replacements(&info).into_iter().collect();
    }
}
