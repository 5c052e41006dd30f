//! Gemini CLI: a session is one value with its messages, or, in newer versions, one message on each line. A call stands
//! with its result.

use super::{Done, Told, edits, text, time};
use crate::capture::adapters::Agent;
use crate::capture::payload::{self, Object};

/// Reads a session.
#[derive(Default)]
pub(in super::super) struct Reader {
    session: Option<String>,
}

impl Reader {
    /// Takes a session, or a line of one.
    pub(super) fn line(&mut self, line: &[u8], told: &mut Told) {
        let Some(text) = text(line) else {
            told.broken += 1;
            return;
        };
        let object = Object::read(&text);
        if !object.is_complete {
            told.broken += 1;
        }
        self.session = object.text("sessionid").or(self.session.take());
        let messages = object.items("messages");
        if messages.is_empty() {
            self.message(&object, told);
        }
        for message in messages {
            self.message(&Object::read(message.get()), told);
        }
    }

    fn message(&self, message: &Object<'_>, told: &mut Told) {
        for call in message.items("toolcalls") {
            let call = Object::read(call.get());
            let (Some(tool), Some(input)) = (call.text("name"), call.raw("args")) else { continue };
            if !payload::is_writing(&tool) {
                continue;
            }
            if call.text("status").is_some_and(|status| status != "success") {
                told.failed += 1;
                continue;
            }
            let mut edits = edits(Agent::Gemini, &tool, input.get(), None);
            // What is shown to the user has the file before and after.
            let shown = call.nested("resultdisplay");
            if let ([edit], Some(shown)) = (edits.as_mut_slice(), shown.as_deref().map(Object::read)) {
                edit.before = shown.content(&["originalcontent"]).map(String::into_bytes);
                edit.after = shown.content(&["newcontent"]).map(String::into_bytes);
                // A new file is shown with nothing before.
                if edit.before.is_none() && edit.after.is_some() && shown.flag("isnewfile") {
                    edit.before = Some(Vec::new());
                }
            }
            told.done.push(Done {
                edits,
                tool,
                tool_use: call.text("id"),
                payload: if call.has("id") { Vec::new() } else { input.get().as_bytes().to_vec() },
                session: self.session.clone(),
                model: message.text("model"),
                time: time(&call, "timestamp").or_else(|| time(message, "timestamp")),
                ..Done::default()
            });
        }
    }
}
