//! The trace record: an Agent Trace record of version 2.0 with what attribution needs beside it.
//!
//! | member | what |
//! |---|---|
//! | `version`, `id`, `timestamp`, `tool`, `files`, `vcs` | as agent-trace-cli 0.1.3 has them; ranges and line hashes are of whole lines of the file |
//! | `metadata` | session, tool, call, event, sequence and so on, as there; never an absolute path |
//! | `metadata.agent_trace.gist` | of a call that its hook did not name: what it was told to do, see [`super::gist`] |
//! | `metadata.agent_trace.files[i]` | of `files[i]`: `whole`, and `hunks`, one for each place that changed, in order |
//! | hunk: `new_start`, `lines` | the first new line, from 1, and how many; those with lines are the ranges, in order |
//! | hunk: `old_start` | the first line that went, from 1, in the file before; absent where it is not known |
//! | hunk: `old`, `above`, `below` | strict hashes, 8 bytes each in hex, of the lines that went and of up to 3 around |
//! | hunk: `loose` | loose hashes, 8 bytes each in hex, of the new lines |
//!
//! The strict hash of a new line is the beginning of its `line_hashes` entry. A record of another program has no
//! `agent_trace`; its ranges are hunks without a place.

use std::borrow::Cow;

use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Kind, ObjectId, Result, Timestamp, json, record};
use serde::{Deserialize, Serialize};

use super::Call;
use super::hunk::{Hunk, NewLine};
use super::line::LineHash;
use super::resolve::Resolved;

/// The most new lines of which a trace holds hashes; a larger edit has ranges, but no hashes for the lines after.
pub(crate) const TRACE_LINES_MAX: usize = 32_768;
/// What a hunk may at most remove and have hashes of.
const OLD_LINES_MAX: usize = 65_536;

/// A trace, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceRecord {
    /// Its natural key.
    pub(crate) id: String,
    /// Its canonical JSON.
    pub(crate) canonical: Vec<u8>,
}

/// The id of the trace of a call: the same whenever and however often the call is told of.
pub(crate) fn trace_id(
    agent: &str,
    session: &str,
    tool_use: Option<&str>,
    event: &str,
    payload: &[u8],
) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("agent-trace 2026 id of a trace");
    let parts: [&[u8]; 4] = match tool_use {
        Some(tool_use) => [agent.as_bytes(), session.as_bytes(), tool_use.as_bytes(), event.as_bytes()],
        None => [agent.as_bytes(), session.as_bytes(), b"", payload],
    };
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut bytes: [u8; 16] = *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer");
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = encode_hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Makes the record of a call; `files` are paths from the root of the repository and what became of them.
pub(crate) fn encode(id: &str, call: &Call, files: &[(String, Resolved)]) -> Result<TraceRecord> {
    let mut rest = TRACE_LINES_MAX;
    let (mut spelled, mut ours) = (Vec::new(), Vec::new());
    for (path, resolved) in files {
        let (file, extra) = encode_file(call, path, resolved, &mut rest);
        spelled.push(file);
        ours.push(extra);
    }
    let is_creation = files.iter().any(|(_, resolved)| resolved.is_creation);
    let trace = Trace {
        version: "2.0".into(),
        id: id.into(),
        timestamp: call.time.to_string(),
        tool: Tool { name: call.agent.clone(), version: call.agent_version.clone() },
        files: spelled,
        vcs: call.revision.clone().map(|revision| Vcs { kind: "git".into(), revision }),
        metadata: Metadata {
            session_id: Some(call.session.clone()),
            tool_name: Some(call.tool.clone()),
            tool_use_id: call.tool_use.clone(),
            event: Some(call.event.clone()),
            edit_sequence: Some(call.sequence),
            is_creation: Some(is_creation),
            project_id: call.project.clone(),
            branch: call.branch.clone(),
            transcript_bytes: call.transcript_bytes,
            agent_id: call.agent_id.clone(),
            agent_trace: Some(Ours { gist: call.gist.clone(), files: ours }),
        },
    };
    let spelled = serde_json::to_vec(&trace)
        .map_err(|error| Error::invalid("cannot write a trace").with_source(error))?;
    let mut canonical = Vec::with_capacity(spelled.len());
    json::canonicalize(&spelled, &mut canonical)
        .map_err(|error| Error::invalid("cannot write a trace").with_source(error))?;
    record::facts(Kind::TRACE, &canonical)?;
    Ok(TraceRecord { id: id.to_owned(), canonical })
}

fn encode_file(call: &Call, path: &str, resolved: &Resolved, rest: &mut usize) -> (File, OurFile) {
    let (mut ranges, mut hunks) = (Vec::new(), Vec::new());
    for hunk in &resolved.hunks {
        let known = hunk.new.len().min(*rest);
        *rest -= known;
        let hashes = hunk.new[..known].iter().enumerate();
        if !hunk.new.is_empty() {
            ranges.push(FileRange {
                start_line: hunk.new_start as u64 + 1,
                end_line: (hunk.new_start + hunk.new.len()) as u64,
                content_hash: hunk.content.map(|hash| hash.text()),
                line_hashes: hashes
                    .map(|(at, line)| HashedLine { line_offset: at as u64, hash: line.hash.text().into() })
                    .collect(),
            });
        }
        hunks.push(OurHunk {
            old_start: hunk.old_start.map(|start| start as u64 + 1),
            new_start: hunk.new_start as u64 + 1,
            lines: hunk.new.len() as u64,
            old: encode_hashes(hunk.old.iter().take(OLD_LINES_MAX)),
            loose: encode_hashes(hunk.new[..known].iter().map(|line| &line.loose)),
            above: encode_hashes(&hunk.above),
            below: encode_hashes(&hunk.below),
        });
    }
    let conversation = Conversation {
        contributor: Contributor { kind: "ai".into(), model_id: call.model.as_deref().map(full_model) },
        ranges,
        id: Some(call.conversation.clone()),
    };
    (
        File { path: path.to_owned(), conversations: vec![conversation] },
        OurFile { whole: resolved.is_whole, hunks },
    )
}

/// The model with its provider in front, where its name shows whose it is.
pub(crate) fn full_model(model: &str) -> String {
    if model.contains('/') {
        return model.to_owned();
    }
    let provider = match model {
        _ if model.starts_with("claude-") => "anthropic/",
        _ if ["gpt-", "o1", "o3", "o4", "codex-"].iter().any(|start| model.starts_with(start)) => "openai/",
        _ if model.starts_with("gemini-") => "google/",
        _ => "",
    };
    format!("{provider}{model}")
}

fn encode_hashes<'a>(hashes: impl IntoIterator<Item = &'a u64>) -> String {
    hashes.into_iter().map(|hash| format!("{hash:016x}")).collect()
}

/// A trace as attribution reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceEdits {
    /// Its natural key.
    pub(crate) id: String,
    /// The record.
    pub(crate) record: ObjectId,
    /// When the edit was made.
    pub(crate) time: Timestamp,
    /// Its number within its session.
    pub(crate) sequence: u64,
    /// The agent.
    pub(crate) agent: String,
    /// The session.
    pub(crate) session: Option<String>,
    /// What it was told to do, where its hook did not name the call.
    pub(crate) gist: Option<String>,
    /// What it did to files.
    pub(crate) files: Vec<FileEdit>,
}

/// What a trace did to one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileEdit {
    /// From the root of the repository.
    pub(crate) path: String,
    /// The model.
    pub(crate) model: Option<String>,
    /// The conversation.
    pub(crate) conversation: Option<String>,
    /// The places that changed.
    pub(crate) hunks: Vec<Hunk>,
    /// Whether the one hunk is all of the file, and nothing is known of it before.
    pub(crate) is_whole: bool,
}

impl TraceEdits {
    /// Reads a trace record, ours or another program's.
    pub(crate) fn read(record: ObjectId, bytes: &[u8]) -> Result<TraceEdits> {
        let trace: Trace = serde_json::from_slice(bytes)
            .map_err(|error| Error::invalid("cannot read a trace").with_source(error))?;
        let (gist, ours) = trace.metadata.agent_trace.map(|ours| (ours.gist, ours.files)).unwrap_or_default();
        let mut ours = ours.into_iter();
        let files = trace.files.into_iter().map(|file| read_file(file, ours.next())).collect();
        Ok(TraceEdits {
            id: trace.id,
            record,
            time: Timestamp::parse(&trace.timestamp).unwrap_or_default(),
            sequence: trace.metadata.edit_sequence.unwrap_or_default(),
            agent: trace.tool.name,
            session: trace.metadata.session_id,
            gist,
            files,
        })
    }
}

fn read_file(file: File, ours: Option<OurFile>) -> FileEdit {
    let conversation =
        file.conversations.iter().find(|conversation| conversation.contributor.kind != "human");
    let (model, id) = conversation
        .map(|conversation| (conversation.contributor.model_id.clone(), conversation.id.clone()))
        .unwrap_or_default();
    let by_ai = file.conversations.iter().filter(|conversation| conversation.contributor.kind != "human");
    let ranges: Vec<&FileRange> = by_ai.flat_map(|conversation| &conversation.ranges).collect();
    let (hunks, is_whole) = match ours {
        Some(ours) => (read_hunks(&ours.hunks, &ranges), ours.whole),
        None => (ranges.iter().map(|range| range.unplaced()).collect(), false),
    };
    FileEdit { path: file.path, model, conversation: id, hunks, is_whole }
}

fn read_hunks(hunks: &[OurHunk], ranges: &[&FileRange]) -> Vec<Hunk> {
    let mut ranges = ranges.iter();
    hunks
        .iter()
        .map(|hunk| {
            let range = if hunk.lines > 0 { ranges.next() } else { None };
            let mut loose = decode_hashes(&hunk.loose).into_iter();
            let mut new = range.map(|range| range.new_lines()).unwrap_or_default();
            for line in &mut new {
                line.loose = loose.next().unwrap_or(line.loose);
            }
            let place = |line: u64| usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
            Hunk {
                old_start: hunk.old_start.map(place),
                new_start: place(hunk.new_start),
                old: decode_hashes(&hunk.old),
                new,
                content: None,
                above: decode_hashes(&hunk.above),
                below: decode_hashes(&hunk.below),
            }
        })
        .collect()
}

/// Hashes as they are spelled; nothing if they are spelled otherwise.
fn decode_hashes(text: &str) -> Vec<u64> {
    let digits = text.as_bytes().chunks_exact(16);
    if !digits.remainder().is_empty() {
        return Vec::new();
    }
    let parsed = digits.map(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    parsed.collect::<Option<Vec<u64>>>().unwrap_or_default()
}

impl FileRange {
    fn new_lines(&self) -> Vec<NewLine> {
        let hashes = self.line_hashes.iter().map_while(|line| LineHash::parse(&line.hash));
        hashes.map(|hash| NewLine { hash, loose: hash.short() }).collect()
    }

    /// The range as a hunk of which nothing is known but its lines.
    fn unplaced(&self) -> Hunk {
        let new_start = usize::try_from(self.start_line.saturating_sub(1)).unwrap_or_default();
        Hunk { new_start, new: self.new_lines(), ..Hunk::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct Trace {
    #[serde(default)]
    version: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    timestamp: String,
    #[serde(default)]
    tool: Tool,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vcs: Option<Vcs>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Serialize, Deserialize)]
struct Tool {
    #[serde(default)]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Vcs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    revision: String,
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default)]
    path: String,
    #[serde(default)]
    conversations: Vec<Conversation>,
}

#[derive(Serialize, Deserialize)]
struct Conversation {
    #[serde(default)]
    contributor: Contributor,
    #[serde(default)]
    ranges: Vec<FileRange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Contributor {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct FileRange {
    #[serde(default)]
    start_line: u64,
    #[serde(default)]
    end_line: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    line_hashes: Vec<HashedLine<'static>>,
}

#[derive(Serialize, Deserialize)]
struct HashedLine<'a> {
    #[serde(default)]
    line_offset: u64,
    #[serde(default)]
    hash: Cow<'a, str>,
}

#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_use_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    edit_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_creation: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transcript_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_trace: Option<Ours>,
}

#[derive(Serialize, Deserialize)]
struct Ours {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gist: Option<String>,
    #[serde(default)]
    files: Vec<OurFile>,
}

#[derive(Serialize, Deserialize)]
struct OurFile {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    whole: bool,
    #[serde(default)]
    hunks: Vec<OurHunk>,
}

#[derive(Serialize, Deserialize)]
struct OurHunk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old_start: Option<u64>,
    #[serde(default)]
    new_start: u64,
    #[serde(default)]
    lines: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    old: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    loose: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    above: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    below: String,
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Replacement, ToolEdit, resolve};
    use super::*;

    fn call() -> Call {
        Call {
            agent: "claude-code".into(),
            model: Some("claude-opus-4".into()),
            session: "s1".into(),
            conversation: "c1".into(),
            tool: "Edit".into(),
            tool_use: Some("toolu_1".into()),
            event: "PostToolUse".into(),
            time: Timestamp::parse("2026-11-20T07:19:55.158873Z").unwrap(),
            sequence: 7,
            revision: Some("0123456789012345678901234567890123456789".into()),
            ..Call::default()
        }
    }

    fn edited(before: &str, old: &str, new: &str) -> Resolved {
        let replacement = Replacement { old: old.into(), new: new.into(), all: true };
        resolve(&ToolEdit {
            path: "f".into(),
            change: Change::Replace(vec![replacement]),
            before: Some(before.into()),
            after: None,
        })
    }

    #[test]
    fn what_is_written_is_read_back() {
        let files = [
            ("src/a.rs".to_owned(), edited("a\nb\nc\nd\n", "b\n", "x\ny\n")),
            ("src/b.rs".to_owned(), edited("a\nb\n", "b\n", "")),
        ];
        let record = encode("id-1", &call(), &files).unwrap();
        let read = TraceEdits::read(ObjectId::of(&record.canonical), &record.canonical).unwrap();
        assert_eq!((read.id.as_str(), read.sequence, read.time), ("id-1", 7, call().time));
        for (file, (path, resolved)) in read.files.iter().zip(&files) {
            assert_eq!(&file.path, path);
            let mut hunks = resolved.hunks.clone();
            hunks.iter_mut().for_each(|hunk| hunk.content = None);
            assert_eq!(file.hunks, hunks);
            assert_eq!(file.model.as_deref(), Some("anthropic/claude-opus-4"));
        }
        let facts = record::facts(Kind::TRACE, &record.canonical).unwrap();
        assert_eq!(facts.paths, ["src/a.rs", "src/b.rs"]);
        assert_eq!(facts.session.as_deref(), Some("s1"));
    }

    #[test]
    fn a_record_of_another_program_has_unplaced_hunks() {
        let hash = LineHash::of(b"x");
        let text = format!(
            r#"{{"files":[{{"conversations":[{{"contributor":{{"type":"ai"}},"id":"c","ranges":[{{"end_line":5,
            "line_hashes":[{{"hash":"{}","line_offset":0}}],"start_line":4}}]}}],"path":"f"}}],"id":"t",
            "timestamp":"2026-11-20T07:19:55+00:00","tool":{{"name":"cursor"}},"version":"2.0"}}"#,
            hash.text()
        );
        let read = TraceEdits::read(ObjectId::of(b""), text.as_bytes()).unwrap();
        let hunk = &read.files[0].hunks[0];
        assert_eq!((hunk.old_start, hunk.new_start, hunk.new.len()), (None, 3, 1));
        assert_eq!(hunk.new[0].hash, hash);
    }

    #[test]
    fn hostile_records_are_read_without_harm() {
        for text in [
            r#"{"files":[{"conversations":[],"path":"f"}],"metadata":{"agent_trace":{"files":[{"hunks":[{"lines":3,"old":"0g","new_start":18446744073709551615}]}]}}}"#,
            r#"{"files":[{"path":"f","conversations":[{"ranges":[{"start_line":0,"end_line":0,"line_hashes":[{"hash":"md5:1"}]}]}]}]}"#,
        ] {
            TraceEdits::read(ObjectId::of(b""), text.as_bytes()).unwrap();
        }
        assert!(TraceEdits::read(ObjectId::of(b""), b"7").is_err());
    }

    #[test]
    fn an_edit_too_large_has_ranges_but_not_all_hashes() {
        let text = "x\n".repeat(TRACE_LINES_MAX + 10);
        let resolved = resolve(&ToolEdit {
            path: "f".into(),
            change: Change::Write(text.into_bytes()),
            before: None,
            after: None,
        });
        let record = encode("id", &call(), &[("f".into(), resolved)]).unwrap();
        assert!(record.canonical.len() < agent_trace_store::limits::RECORD_BYTES_MAX);
        let read = TraceEdits::read(ObjectId::of(b""), &record.canonical).unwrap();
        assert_eq!(read.files[0].hunks[0].new.len(), TRACE_LINES_MAX);
    }

    #[test]
    fn one_call_has_one_id() {
        let id = |tool_use: Option<&str>, event: &str, payload: &[u8]| {
            trace_id("codex", "s", tool_use, event, payload)
        };
        assert_eq!(id(Some("t"), "e", b"1"), id(Some("t"), "e", b"2"));
        assert_ne!(id(Some("t"), "e", b""), id(Some("t"), "f", b""));
        assert_ne!(id(None, "e", b"1"), id(None, "e", b"2"));
        let text = id(None, "e", b"1");
        assert_eq!((text.len(), &text[14..15]), (36, "8"));
    }
}
