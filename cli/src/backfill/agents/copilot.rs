//! Copilot CLI: one event on each line; the beginning of a call has its arguments, the end how it went.

use memchr::memmem;

use super::{Done, Pending, Told, edits, text, time};
use crate::capture::adapters::Agent;
use crate::capture::payload::{self, Object};

struct Begun {
    tool: String,
    input: String,
}

/// Reads a session.
#[derive(Default)]
pub(in super::super) struct Reader {
    pending: Pending<Begun>,
    session: Option<String>,
    version: Option<String>,
    model: Option<String>,
    branch: Option<String>,
    folder: Option<String>,
}

impl Reader {
    pub(super) fn line(&mut self, line: &[u8], bytes: u64, told: &mut Told) {
        let has = |name: &[u8]| memmem::find(line, name).is_some();
        if !has(b"\"tool.execution_") && !has(b"\"session.") {
            return;
        }
        let Some(text) = text(line) else {
            told.broken += 1;
            return;
        };
        let object = Object::read(&text);
        let Some(nested) = object.nested("data") else { return };
        let data = Object::read(&nested);
        match object.text("type").as_deref() {
            Some("tool.execution_start") => self.call(&data),
            Some("tool.execution_complete") => self.end(&object, &data, bytes, told),
            Some(kind) if kind.starts_with("session.") => self.head(&data),
            _ => {}
        }
    }

    fn head(&mut self, data: &Object<'_>) {
        self.session = data.text("sessionid").or(self.session.take());
        self.version = data.text("copilotversion").or(self.version.take());
        self.model = data.first(&["newmodel", "selectedmodel", "model"]).or(self.model.take());
        if let Some(context) = data.nested("context") {
            let context = Object::read(&context);
            self.folder = context.text("cwd").or(self.folder.take());
            self.branch = context.text("branch").or(self.branch.take());
        }
    }

    fn call(&mut self, data: &Object<'_>) {
        let (Some(id), Some(tool)) = (data.text("toolcallid"), data.text("toolname")) else { return };
        if !payload::is_writing(&tool) {
            return;
        }
        // A patch may be given as a text that is no object.
        let input = data.nested("arguments").map(|input| input.into_owned());
        let Some(input) = input.or_else(|| data.raw("arguments").map(|input| input.get().to_owned())) else {
            return;
        };
        self.pending.begin(id, Begun { tool, input });
    }

    fn end(&mut self, object: &Object<'_>, data: &Object<'_>, bytes: u64, told: &mut Told) {
        let Some(id) = data.text("toolcallid") else { return };
        let Some(pending) = self.pending.end(&id) else { return };
        if !data.flag("success") {
            told.failed += 1;
            return;
        }
        told.done.push(Done {
            edits: edits(Agent::Copilot, &pending.tool, &pending.input, None),
            tool: pending.tool,
            tool_use: Some(id),
            session: self.session.clone(),
            model: data.text("model").or_else(|| self.model.clone()),
            version: self.version.clone(),
            time: time(object, "timestamp"),
            branch: self.branch.clone(),
            folder: self.folder.clone().map(Into::into),
            bytes: Some(bytes),
            ..Done::default()
        });
    }
}
