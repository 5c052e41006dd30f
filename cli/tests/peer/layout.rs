//! The local layout of agent-trace-cli 0.1.3: made from a seed, written as it writes, read as it reads.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use agent_trace_store::ObjectId;
use agent_trace_store::json::canonicalize;
use serde::Serialize as _;
use serde_json::ser::Formatter;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::Random;

/// Records in canonical form by their natural key.
pub(crate) type Records = BTreeMap<String, String>;

/// What one project holds. Of conversations, the latest bytes.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Layout {
    pub(crate) traces: Vec<Value>,
    pub(crate) ledgers: Vec<Value>,
    pub(crate) links: Vec<Value>,
    pub(crate) summaries: Vec<Value>,
    pub(crate) transcripts: BTreeMap<String, Vec<u8>>,
}

/// How much to make. Each commit has a ledger and a link, and each ledger names two traces.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) commits: usize,
    /// Traces that no ledger names.
    pub(crate) unattributed: usize,
    /// Bytes of transcripts; every third is not UTF-8.
    pub(crate) transcripts: &'static [usize],
    pub(crate) summaries: usize,
}

const PATHS: [&str; 4] = ["src/main.rs", "docs/a \"b\".md", "src/\u{e9}\u{1f600}.py", "x\u{2028}y\u{85}z"];

impl Layout {
    /// Makes a layout of a seed; no two seeds share a key.
    pub(crate) fn generate(seed: u64, size: Size) -> Layout {
        let mut random = Random(seed);
        let mut layout = Layout::default();
        for bytes in size.transcripts {
            let body = transcript(&mut random, *bytes, layout.transcripts.len() % 3 == 2);
            layout.transcripts.insert(random.digits(64), body);
        }
        let conversations: Vec<String> = layout.transcripts.keys().cloned().collect();
        for number in 0..2 * size.commits + size.unattributed {
            let conversation = conversations.get(random.below(conversations.len().max(1)));
            let pin = conversation.map(|id| (id.as_str(), sha256(&layout.transcripts[id])));
            layout.traces.push(trace(&mut random, number, pin));
        }
        for number in 0..size.commits {
            let names = &layout.traces[2 * number..2 * number + 2];
            let (ledger, link) = commit(&mut random, names);
            layout.ledgers.push(ledger);
            layout.links.push(link);
        }
        for number in 0..size.summaries {
            let mut summary = json!({"conversation_id": conversations[number % conversations.len()],
                "summary": format!("{} \u{2014} \u{e9}\n\"{number}\"", random.words(20)), "created_at": time(number)});
            if number.is_multiple_of(2) {
                summary["session_id"] = json!(format!("s{number}"));
            }
            layout.summaries.push(summary);
        }
        layout
    }

    /// Adds what another holds; of a conversation that both have, the other's bytes.
    pub(crate) fn merge(&mut self, other: &Layout) {
        self.traces.extend_from_slice(&other.traces);
        self.ledgers.extend_from_slice(&other.ledgers);
        self.links.extend_from_slice(&other.links);
        self.summaries.extend_from_slice(&other.summaries);
        self.transcripts.extend(other.transcripts.clone());
    }

    /// Without the traces that no ledger names.
    pub(crate) fn attributed(&self) -> Layout {
        let named: Vec<&Value> =
            self.ledgers.iter().filter_map(|ledger| ledger["trace_ids"].as_array()).flatten().collect();
        let mut layout = self.clone();
        layout.traces.retain(|trace| named.contains(&&trace["id"]));
        layout
    }

    /// Writes it to a project's folder, over what is there.
    pub(crate) fn write(&self, dir: &Path) {
        for (name, records, ascii) in [
            ("traces.jsonl", &self.traces, true),
            ("ledgers.jsonl", &self.ledgers, true),
            ("commit-links.jsonl", &self.links, true),
            ("session-summaries.jsonl", &self.summaries, false),
        ] {
            let mut bytes = Vec::new();
            for record in records {
                let mut serializer =
                    serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter { ascii });
                record.serialize(&mut serializer).unwrap();
                bytes.push(b'\n');
            }
            fs::write(dir.join(name), bytes).unwrap();
        }
        let conversations = dir.join("conversations");
        let mut index = serde_json::Map::new();
        for (id, body) in &self.transcripts {
            let sha = sha256(body);
            fs::create_dir_all(conversations.join(&sha[..2])).unwrap();
            fs::write(conversations.join(&sha[..2]).join(&sha), body).unwrap();
            index.insert(id.clone(), json!(sha));
        }
        fs::create_dir_all(&conversations).unwrap();
        fs::write(conversations.join("_index.json"), serde_json::to_vec_pretty(&index).unwrap()).unwrap();
    }

    /// Reads a project's folder.
    pub(crate) fn read(dir: &Path) -> Layout {
        let records = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let conversations = dir.join("conversations");
        let index = fs::read(conversations.join("_index.json")).unwrap_or_else(|_| b"{}".to_vec());
        let index: BTreeMap<String, String> = serde_json::from_slice(&index).unwrap();
        let body = |sha: &String| fs::read(conversations.join(&sha[..2]).join(sha)).unwrap();
        Layout {
            traces: records("traces.jsonl"),
            ledgers: records("ledgers.jsonl"),
            links: records("commit-links.jsonl"),
            summaries: records("session-summaries.jsonl"),
            transcripts: index.iter().map(|(id, sha)| (id.clone(), body(sha))).collect(),
        }
    }

    /// Records of all four kinds, by kind and key; of several under one key the last.
    pub(crate) fn records(&self) -> Records {
        let mut records = Records::new();
        for (kind, list, keys) in [
            ("trace", &self.traces, &["id"][..]),
            ("ledger", &self.ledgers, &["commit_sha"]),
            ("commit-link", &self.links, &["commit_sha"]),
            ("summary", &self.summaries, &["conversation_id", "created_at"]),
        ] {
            for record in list {
                let key: Vec<&str> = keys.iter().filter_map(|key| record[key].as_str()).collect();
                let (_, text) = canonical(record);
                records.insert(format!("{kind} {}", key.join(":")), text);
            }
        }
        records
    }

    /// The ids that the records have in a store.
    pub(crate) fn record_ids(&self) -> Vec<String> {
        let lists = [&self.traces, &self.ledgers, &self.links, &self.summaries];
        let mut ids: Vec<String> =
            lists.into_iter().flatten().map(|record| canonical(record).0.to_string()).collect();
        ids.sort();
        ids
    }

    /// Fails at the first record or transcript that is not as expected.
    pub(crate) fn assert_is(&self, expected: &Layout, what: &str) {
        let (found, records) = (self.records(), expected.records());
        for (key, record) in &records {
            let found = found.get(key).unwrap_or_else(|| panic!("{what}: {key} is missing"));
            assert_eq!(found, record, "{what}: {key}");
        }
        if let Some(key) = found.keys().find(|key| !records.contains_key(*key)) {
            panic!("{what}: {key} was not expected");
        }
        let lines = self.traces.len() + self.ledgers.len() + self.links.len() + self.summaries.len();
        assert_eq!(lines, found.len(), "{what}: no record is there twice");
        for (id, body) in &expected.transcripts {
            let found =
                self.transcripts.get(id).unwrap_or_else(|| panic!("{what}: conversation {id} is missing"));
            assert!(found == body, "{what}: conversation {id}: {} bytes, not {}", found.len(), body.len());
        }
        assert_eq!(self.transcripts.len(), expected.transcripts.len(), "{what}: conversations");
    }
}

/// The SHA-256 of some bytes in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(record: &Value) -> (ObjectId, String) {
    let mut bytes = Vec::new();
    canonicalize(&serde_json::to_vec(record).unwrap(), &mut bytes).unwrap();
    (ObjectId::of(&bytes), String::from_utf8(bytes).unwrap())
}

/// A transcript of exactly so many bytes.
fn transcript(random: &mut Random, bytes: usize, binary: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(bytes + 200);
    while body.len() < bytes {
        let text = random.words(12);
        writeln!(body, r#"{{"type":"assistant","n":"{}","text":"{text} caf\u00e9 é"}}"#, random.digits(16))
            .unwrap();
    }
    body.truncate(bytes);
    // The cut may go through a letter; what is to be text is text.
    while !binary && std::str::from_utf8(&body).is_err() {
        body.pop();
        body.push(b'.');
        let at = body.len().saturating_sub(2);
        body[at] = b'.';
    }
    if binary && let Some(byte) = body.last_mut() {
        *byte = 0xff;
    }
    body
}

fn time(number: usize) -> String {
    // Several have the same time, and later ones an earlier one.
    format!(
        "2026-{:02}-{:02}T{:02}:00:{:02}.123456+00:00",
        1 + number % 9,
        1 + number % 28,
        number % 24,
        number % 7
    )
}

fn uuid(random: &mut Random) -> String {
    let digits = random.digits(32);
    format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
}

fn trace(random: &mut Random, number: usize, pin: Option<(&str, String)>) -> Value {
    let hash = format!("sha256:{}", random.digits(64));
    let mut conversation = json!({"contributor": {"type": "ai", "model_id": "anthropic/claude-opus-4"},
        "ranges": [{"start_line": 1, "end_line": 6, "content_hash": hash,
            "line_hashes": [{"line_offset": 0, "hash": hash}]}]});
    if let Some((id, sha)) = pin {
        conversation["id"] = json!(id);
        conversation["content_sha256"] = json!(sha);
    }
    json!({"version": "2.0", "id": uuid(random), "timestamp": time(number), "tool": {"name": "claude-code"},
        "files": [{"path": PATHS[number % PATHS.len()], "conversations": [conversation]}],
        "vcs": {"type": "git", "revision": random.digits(48)},
        "metadata": {"session_id": format!("s{}", number % 40), "tool_name": "Write", "is_creation": number.is_multiple_of(2),
            "edit_sequence": number, "share": 0.25, "none": null, "command": "printf '\u{1}\u{7f}\t\\'",
            "note": random.words(number % 30)}})
}

fn commit(random: &mut Random, traces: &[Value]) -> (Value, Value) {
    let (sha, parent, number) =
        (random.digits(48)[..40].to_owned(), random.digits(48)[..40].to_owned(), random.below(999));
    let ids: Vec<&Value> = traces.iter().map(|trace| &trace["id"]).collect();
    let path = traces[0]["files"][0]["path"].as_str().unwrap();
    let conversation = &traces[0]["files"][0]["conversations"][0]["id"];
    let (committed, created) = (time(number), time(number + 1));
    let ledger = json!({"version": "2.0", "commit_sha": sha, "parent_sha": parent, "parent_committed_at": time(number),
        "committed_at": committed, "created_at": created, "trace_ids": ids, "files": {path: {"line_attributions": [
            {"start_line": 1, "end_line": 6, "type": "ai", "trace_id": ids[0], "model_id": null,
             "conversation_id": conversation, "evidence": [{"line": 1, "hash": format!("sha256:{}", random.digits(64)),
                "content": "def fib(n):\t# \u{e9}\u{2028}"}]}]}}, "used_fallback": number.is_multiple_of(2)});
    let link = json!({"commit_sha": sha, "parent_sha": parent, "trace_ids": ids, "files_changed": [path, "Cargo.toml"],
        "committed_at": committed, "created_at": created});
    (ledger, link)
}

/// Writes JSON as Python does: a blank after commas and colons, and letters beyond ASCII escaped or not.
struct PythonFormatter {
    ascii: bool,
}

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for letter in fragment.chars() {
            if letter.is_ascii() || !self.ascii {
                write!(writer, "{letter}")?;
                continue;
            }
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}
