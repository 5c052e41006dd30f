//! Codex: one item on each line. Patches are calls of `apply_patch`, or of a shell that runs it; how they ended is said
//! by the event of the patch, or by the output of the call.

use memchr::memmem;
use serde_json::value::RawValue;

use super::{Done, Pending, Told, text, time};
use crate::capture::adapters;
use crate::capture::payload::{self, Object};

const PATCH: &[u8] = b"*** Begin Patch";

struct Begun {
    tool: String,
    patch: String,
}

/// Reads a session.
#[derive(Default)]
pub(in super::super) struct Reader {
    pending: Pending<Begun>,
    session: Option<String>,
    version: Option<String>,
    model: Option<String>,
    branch: Option<String>,
    revision: Option<String>,
    folder: Option<String>,
}

impl Reader {
    pub(super) fn line(&mut self, line: &[u8], bytes: u64, told: &mut Told) {
        let has = |name: &[u8]| memmem::find(line, name).is_some();
        let is_head = has(b"\"session_meta\"") || has(b"\"turn_context\"");
        let is_end = !self.pending.is_empty() && has(b"\"call_id\"");
        if !is_head && !is_end && !has(PATCH) {
            return;
        }
        let Some(text) = text(line) else {
            told.broken += 1;
            return;
        };
        let object = Object::read(&text);
        let Some(nested) = object.nested("payload") else { return };
        let item = Object::read(&nested);
        match (object.text("type").as_deref(), item.text("type").as_deref()) {
            (Some("session_meta"), _) => self.head(&item),
            (Some("turn_context"), _) => {
                self.model = item.text("model").or(self.model.take());
                self.folder = item.text("cwd").or(self.folder.take());
            }
            (_, Some("function_call" | "custom_tool_call" | "local_shell_call")) => self.call(&item),
            (_, Some("function_call_output" | "custom_tool_call_output" | "patch_apply_end")) => {
                self.end(&object, &item, bytes, told);
            }
            _ => {}
        }
    }

    fn head(&mut self, item: &Object<'_>) {
        // What a forked session repeats of another comes after its own.
        if self.session.is_some() {
            return;
        }
        self.session = item.first(&["id", "sessionid"]);
        self.version = item.text("cliversion");
        self.folder = item.text("cwd");
        if let Some(git) = item.nested("git") {
            let git = Object::read(&git);
            (self.branch, self.revision) = (git.text("branch"), git.text("commithash"));
        }
    }

    fn call(&mut self, item: &Object<'_>) {
        let (Some(id), Some(tool)) = (item.text("callid"), item.text("name")) else { return };
        let patch = item.text("input").filter(|input| input.contains("*** Begin Patch")).or_else(|| {
            let arguments = item.nested("arguments").or_else(|| item.nested("action"))?;
            payload::patch_text(&Object::read(&arguments))
        });
        let Some(patch) = patch else { return };
        self.pending.begin(id, Begun { tool, patch });
    }

    fn end(&mut self, object: &Object<'_>, item: &Object<'_>, bytes: u64, told: &mut Told) {
        let Some(id) = item.text("callid") else { return };
        let Some(pending) = self.pending.end(&id) else { return };
        if !is_well(item) {
            told.failed += 1;
            return;
        }
        told.done.push(Done {
            edits: adapters::parse_patch(&pending.patch),
            tool: pending.tool,
            tool_use: Some(id),
            session: self.session.clone(),
            model: self.model.clone(),
            version: self.version.clone(),
            time: time(object, "timestamp"),
            branch: self.branch.clone(),
            revision: self.revision.clone(),
            folder: self.folder.clone().map(Into::into),
            bytes: Some(bytes),
            ..Done::default()
        });
    }
}

/// Whether a call has ended well: an event says so itself, an output by its status or its first words.
fn is_well(item: &Object<'_>) -> bool {
    if let Some(success) = item.raw("success").map(RawValue::get) {
        return success == "true";
    }
    if item.text("status").is_some_and(|status| matches!(status.as_str(), "failed" | "declined")) {
        return false;
    }
    let nested = item.nested("output");
    if let Some(output) = nested.as_deref().map(Object::read) {
        if let Some(success) = output.raw("success").map(RawValue::get) {
            return success == "true";
        }
        let metadata = output.nested("metadata");
        if let Some(code) =
            metadata.as_deref().map(Object::read).and_then(|it| it.number("exitcode").map(str::to_owned))
        {
            return code == "0";
        }
    }
    let output = item.text("output").unwrap_or_default();
    match output.split_once("Exit code: ").or_else(|| output.split_once("exited with code ")) {
        Some((_, code)) => code.starts_with('0'),
        None => output.contains("Success"),
    }
}
