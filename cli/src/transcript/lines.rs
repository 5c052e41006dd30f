//! One line of a transcript, of whichever agent.

use std::borrow::Cow;
use std::collections::VecDeque;

use agent_trace_store::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::render::{arguments, blocks, text};
use super::{Role, Turn};

/// A whole file that is one JSON value is looked at up to this length.
const WHOLE_BYTES_MAX: usize = 256 << 20;
/// Records that run together in one line, at most.
const RECORDS_MAX: usize = 16;

/// The members of a line by which it is known and read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow, rename = "toolCalls")]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(rename = "isMeta")]
    is_meta: bool,
    #[serde(rename = "isSidechain")]
    is_sidechain: bool,
    #[serde(rename = "isCompactSummary")]
    is_summary: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// What Codex puts into a line.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payload<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

/// What Copilot CLI puts into a line.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(rename = "toolCallId", borrow)]
    tool_call: Option<Cow<'a, str>>,
    #[serde(rename = "toolName", borrow)]
    tool: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// A tool call of Gemini CLI.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GeminiCall<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

/// Whether a file looks like one JSON value: its first line opens it, or there is no other.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let first = &start[..memchr::memchr(b'\n', start).unwrap_or(start.len())];
    start.first() == Some(&b'{')
        && bytes.len() <= WHOLE_BYTES_MAX
        && (first.trim_ascii_end() == b"{" || first.len() + 1 >= start.len())
}

/// The turns of a file that is one JSON value with all messages in it.
pub(super) fn whole(bytes: &[u8]) -> Option<VecDeque<Turn>> {
    if !is_whole(bytes) {
        return None;
    }
    let line: Line<'_> = serde_json::from_slice(bytes).ok()?;
    let messages: Vec<&RawValue> = serde_json::from_str(line.messages?.get()).ok()?;
    let mut turns = VecDeque::new();
    for message in messages {
        if let Ok(line) = serde_json::from_str(message.get()) {
            read_line(&line, 0, &mut turns);
        }
    }
    Some(turns)
}

/// Reads the turns of one line; several records that run together are all read.
pub(super) fn read(line: &[u8], offset: usize, turns: &mut VecDeque<Turn>) {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return;
    }
    let records = serde_json::Deserializer::from_slice(line).into_iter::<Line<'_>>();
    for record in records.take(RECORDS_MAX) {
        let Ok(record) = record else { return };
        read_line(&record, offset, turns);
    }
}

fn read_line(line: &Line<'_>, offset: usize, turns: &mut VecDeque<Turn>) {
    let time = line.timestamp.and_then(instant);
    let mut out = Out { time, offset, turns };
    let kind = line.kind.as_deref().unwrap_or_default();
    match (kind, line.message, line.payload, line.data) {
        (_, _, Some(payload), _) => codex(kind, payload, &mut out),
        (_, None, _, Some(data)) => copilot(kind, data, &mut out),
        ("user" | "assistant" | "", Some(message), ..) => message_of(line, message, &mut out),
        ("user" | "gemini" | "model", None, ..) => gemini(kind, line, &mut out),
        _ => {}
    }
}

/// Where the turns of a line go.
struct Out<'a> {
    time: Option<Timestamp>,
    offset: usize,
    turns: &'a mut VecDeque<Turn>,
}

impl Out<'_> {
    fn say(&mut self, role: Role, text: String) {
        let text = text.trim().to_owned();
        self.push(role, text, None, None);
    }

    fn call(&mut self, tool: &str, tool_use: Option<&str>, arguments: String) {
        // A call without arguments is a call.
        let text = if arguments.is_empty() { "()".to_owned() } else { arguments };
        self.push(Role::Tool, text, Some(tool), tool_use);
    }

    fn push(&mut self, role: Role, text: String, tool: Option<&str>, tool_use: Option<&str>) {
        let own = |text: &str| text.to_owned();
        let (time, offset) = (self.time, self.offset);
        self.turns.push_back(Turn {
            time,
            role,
            text,
            tool: tool.map(own),
            tool_use: tool_use.map(own),
            offset,
        });
    }
}

/// Claude Code and Cursor.
fn message_of(line: &Line<'_>, message: &RawValue, out: &mut Out<'_>) {
    let Ok(message) = serde_json::from_str::<Message<'_>>(message.get()) else { return };
    let kind = line.kind.as_deref().filter(|kind| !kind.is_empty());
    let role = kind.or(line.role.as_deref()).or(message.role.as_deref()).unwrap_or_default();
    let is_user = role == "user";
    let Some(content) = message.content else { return };
    for block in blocks(content) {
        match block.kind.as_deref().unwrap_or("text") {
            "text" => {
                let text = unwrapped(&block.text.unwrap_or_default());
                let is_said = !(line.is_meta || line.is_sidechain || line.is_summary);
                let role = match is_user {
                    false => Role::Agent,
                    true if is_said && is_prompt(&text) => Role::User,
                    true => Role::Other,
                };
                out.say(role, text);
            }
            "tool_use" => {
                let input = block.input.map(|input| arguments(input.get())).unwrap_or_default();
                out.call(block.name.as_deref().unwrap_or("tool"), block.id.as_deref(), input);
            }
            "tool_result" => {
                let result = block.content.map(text).unwrap_or_default();
                out.push(Role::Tool, result, None, block.tool_use_id.as_deref());
            }
            _ => {}
        }
    }
}

fn codex(kind: &str, payload: &RawValue, out: &mut Out<'_>) {
    let Ok(payload) = serde_json::from_str::<Payload<'_>>(payload.get()) else { return };
    let call = payload.call_id.as_deref();
    let name = payload.name.as_deref();
    match (kind, payload.kind.as_deref().unwrap_or_default()) {
        ("event_msg", "user_message") => out.say(Role::User, payload.message.map(text).unwrap_or_default()),
        ("event_msg", "agent_message") => out.say(Role::Agent, payload.message.map(text).unwrap_or_default()),
        ("response_item", "message") => {
            let text = payload.content.map(text).unwrap_or_default();
            let role = match payload.role.as_deref() {
                Some("assistant") => Role::Agent,
                Some("user") if is_prompt(&text) => Role::User,
                _ => Role::Other,
            };
            out.say(role, text);
        }
        ("response_item", "function_call") => {
            out.call(name.unwrap_or("tool"), call, raw(payload.arguments));
        }
        ("response_item", "custom_tool_call") => out.call(name.unwrap_or("tool"), call, raw(payload.input)),
        ("response_item", "local_shell_call") => out.call("shell", call, raw(payload.action)),
        ("response_item", "function_call_output" | "custom_tool_call_output") => {
            out.push(Role::Tool, payload.output.map(text).unwrap_or_default(), None, call);
        }
        _ => {}
    }
}

fn copilot(kind: &str, data: &RawValue, out: &mut Out<'_>) {
    let Ok(data) = serde_json::from_str::<Data<'_>>(data.get()) else { return };
    let call = data.tool_call.as_deref();
    match kind {
        "user.message" => out.say(Role::User, data.content.map(text).unwrap_or_default()),
        "assistant.message" => out.say(Role::Agent, data.content.map(text).unwrap_or_default()),
        "tool.execution_start" => out.call(data.tool.as_deref().unwrap_or("tool"), call, raw(data.arguments)),
        "tool.execution_complete" => {
            let result = data.result.and_then(|result| {
                let inner = serde_json::from_str::<Data<'_>>(result.get()).ok()?.content?;
                Some(text(inner))
            });
            out.push(Role::Tool, result.unwrap_or_default(), None, call);
        }
        _ => {}
    }
}

fn gemini(kind: &str, line: &Line<'_>, out: &mut Out<'_>) {
    let said = line.content.map(text).unwrap_or_default();
    out.say(if kind == "user" { Role::User } else { Role::Agent }, said);
    let calls: Vec<GeminiCall<'_>> =
        line.tool_calls.and_then(|calls| serde_json::from_str(calls.get()).ok()).unwrap_or_default();
    for call in calls {
        out.time = call.timestamp.and_then(instant).or(out.time);
        out.call(call.name.as_deref().unwrap_or("tool"), call.id.as_deref(), raw(call.args));
        let result = call.result.map(text).unwrap_or_default();
        out.push(Role::Tool, result, None, call.id.as_deref());
    }
}

fn raw(value: Option<&RawValue>) -> String {
    value.map(|value| arguments(value.get())).unwrap_or_default()
}

/// A time as text or in milliseconds.
fn instant(time: &RawValue) -> Option<Timestamp> {
    let json = time.get();
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(json) {
        return Timestamp::parse(&text);
    }
    let millis: i64 = json.parse().ok()?;
    Some(Timestamp::from_micros(millis.checked_mul(1_000)?))
}

/// Whether a person has typed it; agents put notes of their own in the user's mouth.
fn is_prompt(text: &str) -> bool {
    const NOTES: [&str; 10] = [
        "<local-command",
        "<command-name>",
        "<system-reminder>",
        "<environment_context>",
        "<user_instructions>",
        "<permissions",
        "<task-notification>",
        "# AGENTS.md instructions",
        "[Request interrupted",
        "Caveat: ",
    ];
    let text = text.trim_start();
    !text.is_empty() && !NOTES.iter().any(|note| text.starts_with(note))
}

/// A prompt without the tags that Cursor puts around it, and Claude Code around a command that it is.
fn unwrapped(text: &str) -> String {
    let between = |start: &str, end: &str| {
        let (_, rest) = text.split_once(start)?;
        rest.split_once(end).map(|(inner, _)| inner.trim())
    };
    // A command of Claude Code's own starts with its name.
    if text.trim_start().starts_with("<command-message>")
        && let Some(name) = between("<command-name>", "</command-name>")
    {
        let args = between("<command-args>", "</command-args>").unwrap_or_default();
        return format!("{name} {args}").trim().to_owned();
    }
    between("<user_query>", "</user_query>").unwrap_or(text).trim().to_owned()
}
