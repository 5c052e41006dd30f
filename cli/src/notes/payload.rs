//! What a note says: one JSON object, version 2.0 as agent-trace-cli 0.1.3 has it.
//!
//! | member | what |
//! |---|---|
//! | `version` | `2.0` |
//! | `trace_ids` | the traces of the commit, sorted |
//! | `ledger_hash` | `sha256:` and the hash of the ledger in canonical JSON |
//! | `stats` | `ai_lines`, `total_changed_lines` |
//! | `ledger` | the ledger's `files`, if asked for |
//! | `summary` | prose by conversation, if there is any |
//! | `prompts`, `all_session_conversations` | only if asked for |
//!
//! Two notes on one commit merge to one, the same whichever way round and however often: sets are joined, of the rest
//! the larger stays. Members that nobody here knows are kept.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::link::ledger::Ledger;

/// The largest note that is read.
pub(crate) const NOTE_BYTES_MAX: usize = 1 << 20;

/// What goes into a note beside what always does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Include {
    /// The ledger's files.
    pub(crate) ledger: bool,
    /// Summaries of the conversations.
    pub(crate) summary: bool,
    /// What people asked for.
    pub(crate) prompts: bool,
    /// The conversations, with summaries where there are any.
    pub(crate) conversations: bool,
}

/// What is known of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its newest summary.
    pub(crate) summary: Option<String>,
    /// What was asked for in it, in order.
    pub(crate) prompts: Vec<String>,
}

/// Makes the note of a commit; `canonical` is its ledger as it is stored.
pub(crate) fn encode(
    ledger: &Ledger,
    canonical: &[u8],
    added: u64,
    conversations: &BTreeMap<String, Told>,
    include: Include,
) -> Vec<u8> {
    let mut note = Map::new();
    let text = |text: &str| Value::String(text.to_owned());
    note.insert("version".into(), text("2.0"));
    note.insert("trace_ids".into(), ledger.trace_ids.iter().map(|id| text(id)).collect());
    let hash = agent_trace_store::id::encode_hex(&Sha256::digest(canonical));
    note.insert("ledger_hash".into(), text(&format!("sha256:{hash}")));
    let mut stats = Map::new();
    stats.insert("ai_lines".into(), ledger.lines().into());
    stats.insert("total_changed_lines".into(), added.into());
    note.insert("stats".into(), Value::Object(stats));
    if include.ledger
        && let Ok(Value::Object(mut whole)) = serde_json::from_slice(canonical)
    {
        let files = whole.remove("files").unwrap_or_default();
        note.insert("ledger".into(), serde_json::json!({ "files": files }));
    }
    let summaries =
        conversations.iter().filter_map(|(id, told)| Some((id.clone(), text(told.summary.as_ref()?))));
    let summaries: Map<String, Value> = summaries.collect();
    if include.summary && !summaries.is_empty() {
        note.insert("summary".into(), Value::Object(summaries));
    }
    let prompts: Value =
        conversations.values().flat_map(|told| &told.prompts).map(|prompt| text(prompt)).collect();
    if include.prompts && prompts.as_array().is_some_and(|prompts| !prompts.is_empty()) {
        note.insert("prompts".into(), prompts);
    }
    if include.conversations && !conversations.is_empty() {
        let all = conversations
            .iter()
            .map(|(id, told)| serde_json::json!({ "conversation_id": id, "summary": told.summary }));
        note.insert("all_session_conversations".into(), all.collect());
    }
    spelled(note)
}

/// The note without some of what it says.
pub(crate) fn strip(note: &[u8], gone: Include) -> Option<Vec<u8>> {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(note) else { return None };
    let names = [
        ("ledger", gone.ledger),
        ("summary", gone.summary),
        ("prompts", gone.prompts),
        ("all_session_conversations", gone.conversations),
    ];
    for (name, _) in names.into_iter().filter(|(_, gone)| *gone) {
        members.shift_remove(name);
    }
    Some(spelled(members))
}

fn spelled(members: Map<String, Value>) -> Vec<u8> {
    let sorted: BTreeMap<String, Value> = members.into_iter().collect();
    let mut bytes = serde_json::to_vec(&sorted).expect("JSON values can be written");
    bytes.push(b'\n');
    bytes
}

/// One note of two.
pub(crate) fn merge(one: &[u8], two: &[u8]) -> Vec<u8> {
    if one == two {
        return one.to_vec();
    }
    let (Ok(Value::Object(one_members)), Ok(Value::Object(two_members))) =
        (serde_json::from_slice(one), serde_json::from_slice(two))
    else {
        return lines(one, two);
    };
    spelled(merge_members(one_members, two_members))
}

fn merge_members(one: Map<String, Value>, mut two: Map<String, Value>) -> Map<String, Value> {
    let mut merged = Map::new();
    // What belongs to one ledger stays together.
    const OF_LEDGER: [&str; 3] = ["ledger_hash", "stats", "ledger"];
    let rank = |members: &Map<String, Value>| {
        let lines = members.get("stats").and_then(|stats| stats.get("ai_lines")).and_then(Value::as_u64);
        (lines, OF_LEDGER.map(|name| members.get(name).map(Value::to_string)))
    };
    let winner = if rank(&one) >= rank(&two) { &one } else { &two };
    for name in OF_LEDGER {
        if let Some(value) = winner.get(name) {
            merged.insert(name.into(), value.clone());
        }
    }
    for (name, value) in one {
        if OF_LEDGER.contains(&name.as_str()) {
            continue;
        }
        let value = match two.shift_remove(&name) {
            Some(other) => merge_values(&name, value, other),
            None => value,
        };
        merged.insert(name, value);
    }
    let rest = two.into_iter().filter(|(name, _)| !OF_LEDGER.contains(&name.as_str()));
    merged.extend(rest);
    merged
}

fn merge_values(name: &str, one: Value, two: Value) -> Value {
    match (one, two) {
        (Value::Array(one), Value::Array(two)) if name == "all_session_conversations" => {
            let mut by_id: BTreeMap<String, Value> = BTreeMap::new();
            for value in one.into_iter().chain(two) {
                let id = value.get("conversation_id").map(Value::to_string).unwrap_or_default();
                let best = by_id.remove(&id).map_or(value.clone(), |known| larger(known, value));
                by_id.insert(id, best);
            }
            by_id.into_values().collect()
        }
        (Value::Array(one), Value::Array(two)) => {
            if one.len() >= two.len() && one.starts_with(&two) {
                return Value::Array(one);
            }
            if two.starts_with(&one) {
                return Value::Array(two);
            }
            let all: BTreeMap<String, Value> =
                one.into_iter().chain(two).map(|value| (value.to_string(), value)).collect();
            all.into_values().collect()
        }
        (Value::Object(one), Value::Object(mut two)) => {
            let mut merged: BTreeMap<String, Value> = BTreeMap::new();
            for (key, value) in one {
                let value = two.shift_remove(&key).map_or(value.clone(), |other| larger(value, other));
                merged.insert(key, value);
            }
            merged.extend(two);
            Value::Object(merged.into_iter().collect())
        }
        (one, two) => larger(one, two),
    }
}

fn larger(one: Value, two: Value) -> Value {
    // `null` and other short texts lose against something that is said.
    let rank = |value: &Value| (value.to_string().len(), value.to_string());
    if rank(&one) >= rank(&two) { one } else { two }
}

/// Notes that are no objects: each line once, sorted, as git's `cat_sort_uniq` does.
fn lines(one: &[u8], two: &[u8]) -> Vec<u8> {
    let all = one.split(|byte| *byte == b'\n').chain(two.split(|byte| *byte == b'\n'));
    let all: BTreeSet<&[u8]> = all.filter(|line| !line.is_empty()).collect();
    let mut merged = Vec::new();
    for line in all {
        merged.extend_from_slice(line);
        merged.push(b'\n');
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_two_clones_say_is_joined() {
        let one = br#"{"version":"2.0","trace_ids":["a"],"ledger_hash":"sha256:1","stats":{"ai_lines":3},"summary":{"c":"x"}}"#;
        let two = br#"{"version":"2.0","trace_ids":["b"],"ledger_hash":"sha256:2","stats":{"ai_lines":5},"summary":{"d":"y"},"new":1}"#;
        let merged: Value = serde_json::from_slice(&merge(one, two)).unwrap();
        assert_eq!(
            merged,
            serde_json::json!({"version":"2.0","trace_ids":["a","b"],"ledger_hash":"sha256:2","stats":{"ai_lines":5},
                "summary":{"c":"x","d":"y"},"new":1})
        );
    }

    #[test]
    fn what_is_no_json_is_kept_line_by_line() {
        assert_eq!(merge(b"x\ny\n", b"{}\nx\n"), b"x\ny\n{}\n");
    }

    fn note() -> impl Strategy<Value = Vec<u8>> {
        let ids = prop::collection::btree_set(0_u8..4, 0..3);
        let told = prop::collection::btree_map(0_u8..3, prop::option::of(0_u8..3), 0..3);
        (ids, 0_u64..3, told, prop::bool::ANY).prop_map(|(ids, lines, told, has_ledger)| {
            let mut value = serde_json::json!({
                "trace_ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "stats": {"ai_lines": lines},
                "ledger_hash": format!("sha256:{lines}"),
                "all_session_conversations": told.iter().map(|(id, told)|
                    serde_json::json!({"conversation_id": id.to_string(), "summary": told.map(|told| told.to_string())}))
                    .collect::<Vec<_>>(),
            });
            if has_ledger {
                value["ledger"] = serde_json::json!({"files": {}});
            }
            serde_json::to_vec(&value).unwrap()
        })
    }

    proptest! {
        #[test]
        fn merging_is_the_same_either_way_and_again(one in note(), two in note()) {
            let both = merge(&one, &two);
            let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
            prop_assert_eq!(value(&both), value(&merge(&two, &one)));
            prop_assert_eq!(value(&both), value(&merge(&both, &two)));
            prop_assert_eq!(value(&both), value(&merge(&one, &both)));
        }
    }
}
