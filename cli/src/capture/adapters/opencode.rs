//! OpenCode, by way of its plug-in. `edit` and `write` tell the file before and after where the version does so.

use super::{Event, ToolCall};
use crate::capture::payload::Object;

pub(super) fn is_known_by(object: &Object<'_>) -> bool {
    let session = object.text("sessionid").unwrap_or_default();
    session.starts_with("ses_") || (object.has("callid") && object.has("tool"))
}

pub(super) fn read(object: &Object<'_>, event: &mut Event) {
    let Some(call) = ToolCall::done(object, event) else { return };
    event.edits = call.edits();
    let outer = ["output", "result"].into_iter().find_map(|name| object.nested(name));
    let metadata = match outer.as_deref().map(Object::read) {
        Some(output) => output.nested("metadata").map(|text| text.into_owned()),
        None => object.nested("metadata").map(|text| text.into_owned()),
    };
    let change = metadata.as_deref().map(Object::read).and_then(|metadata| {
        let text = metadata.nested("filediff")?.into_owned();
        Some(text)
    });
    let Some(change) = change else { return };
    let change = Object::read(&change);
    if let [edit] = event.edits.as_mut_slice() {
        edit.before = change.content(&["before"]).map(String::into_bytes);
        edit.after = change.content(&["after"]).map(String::into_bytes);
    }
}
