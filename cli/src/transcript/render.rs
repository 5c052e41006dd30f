//! What is said and done, as text: content in its many shapes, and the arguments of tools.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// One part of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Block<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) tool_use_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
}

/// The parts of a message's content: a text alone is one part.
pub(super) fn blocks(content: &RawValue) -> Vec<Block<'_>> {
    let json = content.get();
    if json.starts_with('"') {
        let text = serde_json::from_str::<Cow<'_, str>>(json).ok();
        return vec![Block { kind: Some("text".into()), text, ..Block::default() }];
    }
    let parts: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
    parts.into_iter().filter_map(|part| serde_json::from_str(part.get()).ok()).collect()
}

/// All text of a content, whatever its shape.
pub(super) fn text(content: &RawValue) -> String {
    let json = content.get();
    if json.starts_with('[') {
        let texts = blocks(content).into_iter().filter_map(|block| block.text);
        let joined = texts.collect::<Vec<_>>().join("\n");
        if !joined.is_empty() {
            return joined;
        }
    }
    arguments(json)
}

/// Arguments of a tool for people: each member on its own line, texts as they are.
pub(super) fn arguments(json: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(json) else { return json.to_owned() };
    match &value {
        // Some agents put JSON into a text.
        Value::String(inner) => match serde_json::from_str::<Value>(inner) {
            Ok(inner @ (Value::Object(_) | Value::Array(_))) => members(&inner),
            _ => inner.clone(),
        },
        value => members(value),
    }
}

fn members(value: &Value) -> String {
    let Value::Object(members) = value else { return plain(value) };
    let mut text = String::new();
    for (name, value) in members {
        let value = plain(value);
        let gap = if value.contains('\n') { "\n" } else { " " };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}:{gap}{value}");
    }
    text.truncate(text.trim_end().len());
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    }
}
