//! A hook payload as JSON, read leniently: both spellings of names, cut off, with raw control characters, not UTF-8.
//!
//! Members are found by their letters alone, so `toolInput`, `tool_input` and `tool-input` are one. Nothing is copied
//! but what is asked for. Knows which members say where a file is and what was done to it, but no agent.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use memchr::memmem;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members of one object that are kept; more are passed over.
const MEMBERS_MAX: usize = 256;

/// An object of a payload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object<'a> {
    members: Vec<(String, &'a RawValue)>,
    /// Whether it was read to its end.
    pub(crate) is_complete: bool,
}

impl<'a> Object<'a> {
    /// Reads as much as there is; what is no object has no members.
    pub(crate) fn read(text: &'a str) -> Object<'a> {
        let mut object = Object::default();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = deserializer.deserialize_map(Members(&mut object.members));
        object.is_complete = read.is_ok() && deserializer.end().is_ok();
        object
    }

    /// A member, by its name in lower case without separators; of two the last.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.members.iter().rev().find(|(given, _)| given == name);
        found.map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    /// Whether a member is there and not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        text(self.raw(name)?).filter(|text| !text.is_empty())
    }

    /// The first text that is there, under any of these names.
    pub(crate) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.text(name))
    }

    /// A text that may be empty, under any of these names.
    pub(crate) fn content(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| text(self.raw(name)?))
    }

    /// A flag; what is no flag is false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|value| matches!(value.get(), "true" | "\"true\""))
    }

    /// A number as it is written.
    pub(crate) fn number(&self, name: &str) -> Option<&'a str> {
        let text = self.raw(name)?.get();
        text.starts_with(|start: char| start.is_ascii_digit() || start == '-').then_some(text)
    }

    /// The JSON of a member that is an object, or a text that holds one.
    pub(crate) fn nested(&self, name: &str) -> Option<Cow<'a, str>> {
        let value = self.raw(name)?;
        match value.get().as_bytes().first() {
            Some(b'{') => Some(Cow::Borrowed(value.get())),
            Some(b'"') => text(value).filter(|text| text.trim_start().starts_with('{')).map(Cow::Owned),
            _ => None,
        }
    }

    /// The items of a member that is an array.
    pub(crate) fn items(&self, name: &str) -> Vec<&'a RawValue> {
        self.raw(name).and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default()
    }

    /// Its names, as they are compared.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }
}

/// The text of a value that is one.
pub(crate) fn text(value: &RawValue) -> Option<String> {
    value.get().starts_with('"').then(|| serde_json::from_str(value.get()).ok())?
}

/// A name as it is compared: lower case, without separators.
pub(crate) fn plain(name: &str) -> String {
    name.chars()
        .filter(|letter| !matches!(letter, '_' | '-' | '.' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

struct Members<'m, 'a>(&'m mut Vec<(String, &'a RawValue)>);

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if self.0.len() < MEMBERS_MAX {
                let value = map.next_value::<&'a RawValue>()?;
                self.0.push((plain(&name), value));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The payload as text that can be parsed, if any can.
pub(crate) fn readable(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => Cow::Owned(rest.to_owned()),
        None => text,
    };
    if Object::read(&text).is_complete {
        return text;
    }
    match escape_controls(&text) {
        Some(repaired) => Cow::Owned(repaired),
        None => text,
    }
}

/// Writes control characters within strings as escapes; nothing where there are none.
fn escape_controls(text: &str) -> Option<String> {
    let (mut in_string, mut escaped, mut changed) = (false, false, false);
    let mut out = String::with_capacity(text.len() + 64);
    for letter in text.chars() {
        if in_string && letter < ' ' {
            changed = true;
            escaped = false;
            match letter {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                other => out.push_str(&format!("\\u{:04x}", other as u32)),
            }
            continue;
        }
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
        out.push(letter);
    }
    changed.then_some(out)
}

/// Replaces the addresses of people by null, wherever they stand.
///
/// By letters, not by parsing: so it holds for a payload that is cut off or broken too. Within a string the quotes
/// of a name would be escaped, so text that speaks of such a member is left alone.
pub(crate) fn without_addresses(bytes: Vec<u8>) -> Vec<u8> {
    let mut found = Vec::new();
    for name in [&b"\"user_email\""[..], b"\"userEmail\""] {
        for at in memmem::find_iter(&bytes, name) {
            if let Some((start, end)) = string_after(&bytes, at + name.len()) {
                found.push((start, end));
            }
        }
    }
    if found.is_empty() {
        return bytes;
    }
    found.sort_unstable();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for (start, end) in found.into_iter().filter(|(start, end)| start < end) {
        if start >= at {
            out.extend_from_slice(&bytes[at..start]);
            out.extend_from_slice(b"null");
            at = end;
        }
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

/// Where the string after a colon begins and ends, quotes included; one that is cut off ends with the bytes.
fn string_after(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let space = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_whitespace);
    while space(at) {
        at += 1;
    }
    if bytes.get(at) != Some(&b':') {
        return None;
    }
    at += 1;
    while space(at) {
        at += 1;
    }
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let start = at;
    at += 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return Some((start, at + 1)),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Some((start, bytes.len()))
}

/// Under which names the input of a tool stands.
pub(crate) const INPUTS: [&str; 6] = ["toolinput", "toolargs", "args", "toolinfo", "input", "arguments"];
/// Under which names the path of a file stands.
pub(crate) const PATHS: [&str; 7] =
    ["filepath", "notebookpath", "path", "absolutepath", "targetfile", "file", "filename"];
/// Under which names a patch stands.
pub(crate) const PATCHES: [&str; 6] = ["patch", "patchtext", "input", "command", "diff", "cmd"];
const PATCH_START: &str = "*** Begin Patch";

/// When an event comes, seen from a tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The tool has not run yet.
    Before,
    /// The tool has run.
    After,
    /// Something else.
    Other,
}

/// The event's name, as the agent gives it or as whoever installed the hook says.
pub(crate) fn event_name(object: &Object<'_>, given: &str) -> String {
    let named = object.first(&["hookeventname", "agentactionname", "event", "eventname", "type"]);
    match named {
        Some(name) => name,
        None if !given.is_empty() => given.to_owned(),
        // Copilot names no event; its payloads differ in what they have.
        None if object.has("toolresult") || object.has("toolresponse") => "PostToolUse".to_owned(),
        None if object.has("toolname") => "PreToolUse".to_owned(),
        None => String::new(),
    }
}

/// When an event of this name comes.
pub(crate) fn moment(event: &str) -> Moment {
    match plain(event).as_str() {
        "pretooluse" | "beforetool" | "toolexecutebefore" | "prewritecode" => Moment::Before,
        "posttooluse" | "aftertool" | "toolexecuteafter" | "postwritecode" | "afterfileedit"
        | "aftertabfileedit" => Moment::After,
        _ => Moment::Other,
    }
}

/// Whether a tool of this name changes files.
pub(crate) fn is_writing(tool: &str) -> bool {
    let tool = plain(tool.rsplit("functions.").next().unwrap_or(tool));
    matches!(
        tool.as_str(),
        "write"
            | "edit"
            | "multiedit"
            | "notebookedit"
            | "applypatch"
            | "writefile"
            | "replace"
            | "create"
            | "strreplace"
            | "strreplaceeditor"
            | "strreplacebasededittool"
            | "insert"
            | "patch"
            | "editfile"
            | "createfile"
            | "searchreplace"
            | "delete"
            | "deletefile"
            | "replacestringinfile"
            | "multireplacestringinfile"
            | "inserteditintofile"
            | "editnotebook"
            | "writetofile"
    )
}

/// The name of the tool.
pub(crate) fn tool_name(object: &Object<'_>) -> Option<String> {
    object.first(&["toolname", "tool"])
}

/// The text of a patch, in an input that is one or has one.
pub(crate) fn patch_text(input: &Object<'_>) -> Option<String> {
    PATCHES.iter().find_map(|name| {
        let value = input.raw(name)?;
        match value.get().as_bytes().first() {
            Some(b'"') => text(value).filter(|text| text.contains(PATCH_START)),
            // `apply_patch` as the command that a shell would run.
            Some(b'[') => {
                let words: Vec<String> = serde_json::from_str(value.get()).ok()?;
                words.into_iter().find(|word| word.contains(PATCH_START))
            }
            _ => None,
        }
    })
}

/// The paths that a patch changes.
pub(crate) fn patch_paths(patch: &str) -> impl Iterator<Item = &str> {
    const MARKS: [&str; 4] = ["*** Add File: ", "*** Update File: ", "*** Delete File: ", "*** Move to: "];
    patch.lines().filter_map(|line| MARKS.iter().find_map(|mark| line.strip_prefix(mark))).map(str::trim)
}

/// The files that an event is about, where it is one of a tool that writes.
pub(crate) fn edited_paths(object: &Object<'_>, event: &str) -> Vec<PathBuf> {
    if moment(event) == Moment::Other {
        return Vec::new();
    }
    let by_event = matches!(
        plain(event).as_str(),
        "afterfileedit" | "aftertabfileedit" | "prewritecode" | "postwritecode"
    );
    if !by_event && !tool_name(object).is_some_and(|tool| is_writing(&tool)) {
        return Vec::new();
    }
    let mut paths: Vec<String> = object.text("filepath").into_iter().collect();
    for name in INPUTS {
        if let Some(nested) = object.nested(name) {
            let input = Object::read(&nested);
            paths.extend(input.first(&PATHS));
            for edit in input.items("edits") {
                paths.extend(Object::read(edit.get()).first(&PATHS));
            }
            if let Some(patch) = patch_text(&input) {
                paths.extend(patch_paths(&patch).map(str::to_owned));
            }
        } else if let Some(patch) = object.text(name).filter(|text| text.contains(PATCH_START)) {
            paths.extend(patch_paths(&patch).map(str::to_owned));
        }
    }
    let mut distinct: Vec<PathBuf> = Vec::new();
    for path in paths {
        let path = PathBuf::from(path.strip_prefix("file://").unwrap_or(&path));
        if !distinct.contains(&path) {
            distinct.push(path);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one_and_the_last_of_two_counts() {
        let object =
            Object::read(r#"{"toolName":"a","tool_name":"b","x":null,"n":12,"f":true,"l":[1,{"a":2}]}"#);
        assert_eq!((object.text("toolname").as_deref(), object.has("x")), (Some("b"), false));
        assert_eq!((object.number("n"), object.flag("f"), object.items("l").len()), (Some("12"), true, 2));
        assert!(object.is_complete);
    }

    #[test]
    fn a_payload_that_is_cut_off_says_what_it_has_said() {
        let object = Object::read(r#"{"session_id":"s","tool_input":{"content":"aaaa"#);
        assert_eq!((object.text("sessionid").as_deref(), object.is_complete), (Some("s"), false));
        for text in ["", "[]", "3", "nonsense", "{\"a\":1} x"] {
            assert!(!Object::read(text).is_complete, "{text}");
        }
    }

    #[test]
    fn raw_control_characters_are_repaired_within_strings_only() {
        let text = readable(b"{\n\t\"a\": \"x\ny\tz\\\"\x01\",\r\n \"b\": \"\\\\\"}");
        let object = Object::read(&text);
        assert_eq!(object.text("a").as_deref(), Some("x\ny\tz\"\u{1}"));
        assert_eq!(object.text("b").as_deref(), Some("\\"));
    }

    #[test]
    fn addresses_go_wherever_they_stand() {
        let check = |given: &str, expected: &str| {
            let out = without_addresses(given.as_bytes().to_vec());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(r#"{"user_email":"a@b.c","x":1}"#, r#"{"user_email":null,"x":1}"#);
        check(r#"{"a":{"userEmail" : "a\"b@c"}}"#, r#"{"a":{"userEmail" : null}}"#);
        check(r#"{"user_email":null}"#, r#"{"user_email":null}"#);
        check(r#"{"user_email":"cut of"#, r#"{"user_email":null"#);
        check(r#"{"user_email":"cut\"#, r#"{"user_email":null"#);
        check(r#"{"text":"\"user_email\":\"a@b.c\""}"#, r#"{"text":"\"user_email\":\"a@b.c\""}"#);
    }

    #[test]
    fn edited_files_are_those_of_tools_that_write() {
        let check = |payload: &str, expected: &[&str]| {
            let object = Object::read(payload);
            let paths = edited_paths(&object, &event_name(&object, ""));
            assert_eq!(paths, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{payload}");
        };
        check(
            r#"{"hook_event_name":"PostToolUse","tool_name":"Write","tool_input":{"file_path":"/a"}}"#,
            &["/a"],
        );
        check(r#"{"hook_event_name":"PostToolUse","tool_name":"Read","tool_input":{"file_path":"/a"}}"#, &[]);
        check(r#"{"hook_event_name":"Stop","tool_name":"Write","tool_input":{"file_path":"/a"}}"#, &[]);
        check(r#"{"toolName":"edit","toolArgs":"{\"path\":\"b\"}"}"#, &["b"]);
        check(r#"{"hook_event_name":"afterFileEdit","file_path":"/c","edits":[]}"#, &["/c"]);
        check(r#"{"agent_action_name":"post_write_code","tool_info":{"file_path":"/d"}}"#, &["/d"]);
        check(
            r#"{"hook_event_name":"PostToolUse","tool_name":"apply_patch","tool_input":{"command":"*** Begin Patch\n*** Add File: x\n+1\n*** Update File: y\n*** Move to: z\n*** End Patch"}}"#,
            &["x", "y", "z"],
        );
    }
}
