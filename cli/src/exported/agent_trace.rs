//! Traces as Agent Trace records of version 0.1.0, one to a line.
//!
//! What that version has no place for stays in `metadata` under a name of ours. A conversation's id becomes its `url`, as a URN,
//! where it has none.

use std::collections::HashSet;
use std::path::Path;

use agent_trace_store::{Kind, Result, Store};
use agent_trace_sync::bundle::{ExportPlan, Flow, NewFile};
use serde_json::{Map, Value, json};

use super::Written;

/// Under what our own members of `metadata` go.
const OWN: &str = "dev.agent-trace.record";
const MODEL_CHARS_MAX: usize = 250;

pub(super) fn write(store: &Store, plan: &ExportPlan, path: &Path) -> Result<Written> {
    let mut file = NewFile::create(store.env(), path)?;
    let mut written = Written::default();
    let (mut seen, mut lines) = (HashSet::new(), Vec::new());
    plan.each(&mut |event| {
        if event.fact.kind != Kind::TRACE || !seen.insert(event.fact.objects[0]) {
            return Ok(());
        }
        let record = store.read(&event.fact.objects[0])?;
        let Some(record) = serde_json::from_slice(&record).ok().and_then(convert) else {
            written.skipped += 1;
            return Ok(());
        };
        lines.extend_from_slice(record.to_string().as_bytes());
        lines.push(b'\n');
        *written.counts.entry(Kind::TRACE).or_default() += 1;
        if lines.len() >= 1 << 20 {
            written.bytes += lines.len() as u64;
            file.write(&std::mem::take(&mut lines))?;
        }
        Ok(())
    })?;
    written.bytes += lines.len() as u64;
    file.write(&lines)?;
    file.finish()?;
    Ok(written)
}

/// The record in the form of version 0.1.0; nothing where it lacks what every record has.
fn convert(record: Value) -> Option<Value> {
    let Value::Object(mut record) = record else { return None };
    let id = record.remove("id").filter(Value::is_string)?;
    let timestamp = record.remove("timestamp").filter(Value::is_string)?;
    let Some(Value::Array(files)) = record.remove("files") else { return None };
    let mut out = Map::new();
    out.insert("version".to_owned(), json!("0.1.0"));
    out.insert("id".to_owned(), id);
    out.insert("timestamp".to_owned(), timestamp);
    if let Some(Value::Object(vcs)) = record.remove("vcs") {
        out.extend([("vcs".to_owned(), picked(&vcs, &["type", "revision"]))]);
    }
    if let Some(Value::Object(tool)) = record.remove("tool") {
        out.extend([("tool".to_owned(), picked(&tool, &["name", "version"]))]);
    }
    let files: Vec<Value> = files.into_iter().filter_map(file).collect();
    out.insert("files".to_owned(), Value::Array(files));
    if let Some(Value::Object(metadata)) = record.remove("metadata") {
        // Names with a dot are somebody's by the rule of the specification; others are ours.
        let (theirs, own): (Map<String, Value>, Map<String, Value>) =
            metadata.into_iter().partition(|(name, _)| name.contains('.'));
        let mut metadata = theirs;
        if !own.is_empty() {
            metadata.insert(OWN.to_owned(), Value::Object(own));
        }
        if !metadata.is_empty() {
            out.insert("metadata".to_owned(), Value::Object(metadata));
        }
    }
    Some(Value::Object(out))
}

/// Some members of an object.
fn picked(from: &Map<String, Value>, names: &[&str]) -> Value {
    let some = names.iter().filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())));
    Value::Object(some.filter(|(_, value)| !value.is_null()).collect())
}

fn file(file: Value) -> Option<Value> {
    let Value::Object(mut file) = file else { return None };
    let path = file.remove("path").filter(Value::is_string)?;
    let conversations = match file.remove("conversations") {
        Some(Value::Array(conversations)) => conversations.into_iter().filter_map(conversation).collect(),
        _ => Vec::new(),
    };
    Some(json!({"path": path, "conversations": conversations}))
}

fn conversation(conversation: Value) -> Option<Value> {
    let Value::Object(mut from) = conversation else { return None };
    let mut out = Map::new();
    let id = from
        .get("id")
        .and_then(Value::as_str)
        .map(|id| json!(format!("urn:agent-trace:conversation:{}", escaped(id))));
    if let Some(url) = from.remove("url").filter(Value::is_string).or(id) {
        out.insert("url".to_owned(), url);
    }
    if let Some(contributor) = from.remove("contributor").and_then(contributor) {
        out.insert("contributor".to_owned(), contributor);
    }
    let ranges = match from.remove("ranges") {
        Some(Value::Array(ranges)) => ranges.into_iter().filter_map(range).collect(),
        _ => Vec::new(),
    };
    out.insert("ranges".to_owned(), Value::Array(ranges));
    if let Some(related) = from.remove("related").filter(Value::is_array) {
        out.insert("related".to_owned(), related);
    }
    Some(Value::Object(out))
}

fn contributor(contributor: Value) -> Option<Value> {
    let Value::Object(from) = contributor else { return None };
    let kind = from.get("type").and_then(Value::as_str);
    let kind = kind.filter(|kind| ["human", "ai", "mixed", "unknown"].contains(kind)).unwrap_or("unknown");
    let mut out = json!({"type": kind});
    let model = from.get("model_id").and_then(Value::as_str);
    if let Some(model) = model.filter(|model| model.chars().count() <= MODEL_CHARS_MAX) {
        out["model_id"] = json!(model);
    }
    Some(out)
}

fn range(range: Value) -> Option<Value> {
    let Value::Object(mut from) = range else { return None };
    let first = from.get("start_line").and_then(Value::as_u64).filter(|line| *line > 0)?;
    let last = from.get("end_line").and_then(Value::as_u64).filter(|line| *line >= first)?;
    let mut out = json!({"start_line": first, "end_line": last});
    if let Some(hash) = from.remove("content_hash").filter(Value::is_string) {
        out["content_hash"] = hash;
    }
    if let Some(contributor) = from.remove("contributor").and_then(contributor) {
        out["contributor"] = contributor;
    }
    Some(out)
}

/// A name inside a URN.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_what_the_version_knows() {
        let record = json!({"version": "2.0", "id": "i", "timestamp": "t", "tool": {"name": "x", "odd": 1},
            "vcs": {"type": "git", "revision": "r"}, "more": 1,
            "files": [{"path": "a b", "conversations": [{"id": "c/d", "content_sha256": "s",
                "contributor": {"type": "ai", "model_id": "m"},
                "ranges": [{"start_line": 1, "end_line": 2, "line_hashes": [1], "content_hash": "h"},
                    {"start_line": 0, "end_line": 2}, {"start_line": 3, "end_line": 2}]}]}, 7],
            "metadata": {"session_id": "s", "com.x": 1}});
        let expected = json!({"version": "0.1.0", "id": "i", "timestamp": "t",
            "vcs": {"type": "git", "revision": "r"}, "tool": {"name": "x"},
            "files": [{"path": "a b", "conversations": [{"url": "urn:agent-trace:conversation:c%2Fd",
                "contributor": {"type": "ai", "model_id": "m"},
                "ranges": [{"start_line": 1, "end_line": 2, "content_hash": "h"}]}]}],
            "metadata": {"com.x": 1, "dev.agent-trace.record": {"session_id": "s"}}});
        assert_eq!(convert(record), Some(expected));
        for none in [
            json!(1),
            json!({}),
            json!({"id": "i", "timestamp": "t"}),
            json!({"id": 1, "timestamp": "t", "files": []}),
        ] {
            assert_eq!(convert(none.clone()), None, "{none}");
        }
    }
}
