//! Cursor: one message on each line, with calls but neither their ids, nor results, nor times. An edit counts by its
//! text; one that failed brings lines that are nowhere, and so harms nobody.

use memchr::memmem;

use super::{Done, Told, edits, text};
use crate::capture::adapters::Agent;
use crate::capture::payload::{self, Object};

/// Reads a session.
#[derive(Default)]
pub(in super::super) struct Reader {
    calls: u64,
}

impl Reader {
    pub(super) fn line(&mut self, line: &[u8], told: &mut Told) {
        if memmem::find(line, b"\"tool_use\"").is_none() {
            return;
        }
        let Some(text) = text(line) else {
            told.broken += 1;
            return;
        };
        let object = Object::read(&text);
        let Some(message) = object.nested("message") else { return };
        for item in Object::read(&message).items("content") {
            let item = Object::read(item.get());
            if item.text("type").as_deref() != Some("tool_use") {
                continue;
            }
            let (Some(tool), Some(input)) = (item.text("name"), item.raw("input")) else { continue };
            if !payload::is_writing(&tool) {
                continue;
            }
            self.calls += 1;
            // The same words may be said twice, so their number is part of what a call is known by.
            let mut payload = self.calls.to_le_bytes().to_vec();
            payload.extend_from_slice(input.get().as_bytes());
            told.done.push(Done {
                edits: edits(Agent::Cursor, &tool, input.get(), None),
                tool_use: item.text("id"),
                tool,
                payload,
                ..Done::default()
            });
        }
    }
}
