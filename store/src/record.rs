//! What the index and the filters know of a record: its key, time and names, read from canonical bytes.
//!
//! A record is carried as it came. Only a missing natural key is an error; any other odd field counts as
//! absent, since a record outlives the program that wrote it. Content hashes (`murmur3:`, `sha256:` short
//! or long) are carried and never interpreted. Knows nothing about where records are stored.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::id::{ObjectId, decode_hex, hex_value};
use crate::json::{JsonError, Reader, Shape, decode_string, write_string};
use crate::kind::Kind;
use crate::limits::{KEY_BYTES_MAX, RECORD_FACTS_MAX};
use crate::time::Timestamp;

/// What a record says of itself and of others.
///
/// Text without escapes is borrowed from the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The natural key, under which all versions of the record are found.
    pub key: Cow<'a, str>,
    /// The record's own time, if it has one that can be read.
    pub time: Option<Timestamp>,
    /// The agent's id of the session.
    pub session: Option<Cow<'a, str>>,
    /// The agent or tool that did the work.
    pub agent: Option<Cow<'a, str>>,
    /// The files that it is about, each once, in the order of the record.
    pub paths: Vec<Cow<'a, str>>,
    /// Its own further names and the names of what it refers to, each once.
    pub names: Vec<Name<'a>>,
}

/// A name that a record carries beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// Another name of the record itself.
    Is(Cow<'a, str>),
    /// The name of something that the record refers to.
    Cites(Cow<'a, str>),
}

impl Facts<'_> {
    /// The same facts, to be kept longer than the record.
    pub fn into_owned(self) -> Facts<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Facts {
            key: own(self.key),
            time: self.time,
            session: self.session.map(own),
            agent: self.agent.map(own),
            paths: self.paths.into_iter().map(own).collect(),
            names: self
                .names
                .into_iter()
                .map(|name| match name {
                    Name::Is(name) => Name::Is(own(name)),
                    Name::Cites(name) => Name::Cites(own(name)),
                })
                .collect(),
        }
    }
}

/// Says what kind of record an unlabelled JSON object is, if it looks like one, and reads its facts; the bytes are
/// canonical JSON.
///
/// The same as [`detect`] and then [`facts`], in one walk where the record's shape allows it.
pub fn read(canonical: &[u8]) -> Result<Option<(Kind, Facts<'_>)>> {
    match read_at_once(canonical) {
        Some((kind, fields)) => fields.into_facts(kind).map(|facts| Some((kind, facts))),
        None => detect(canonical).map(|kind| facts(kind, canonical).map(|facts| (kind, facts))).transpose(),
    }
}

/// Reads a record whose kind shows in its first member, as it does in every trace, ledger and commit-link of the
/// known forms: `files` as an array, `commit_sha` as a text. Anything else is nothing, and read the long way.
fn read_at_once(canonical: &[u8]) -> Option<(Kind, Fields<'_>)> {
    let mut fields = Fields::default();
    let mut reader = Reader::new(canonical);
    if reader.shape()? != Shape::Object || !reader.enter_object().ok()? {
        return None;
    }
    let (mut files, mut trace_ids, mut dated, mut first) = (None, false, false, None);
    while let Some(key) = reader.next_key().ok()? {
        let shape = reader.shape()?;
        match (key, shape) {
            (b"commit_sha", Shape::String) | (b"files", Shape::Array) if first.is_none() => first = Some(key),
            _ if first.is_none() => return None,
            _ => {}
        }
        match key {
            b"files" => files = Some(shape),
            b"trace_ids" => trace_ids = shape == Shape::Array,
            b"version" | b"timestamp" => dated = true,
            // What `detect` takes for a trace or a ledger before it looks at what stands first.
            b"id" if first == Some(b"commit_sha") => return None,
            b"commit_sha" if first == Some(b"files") => return None,
            _ => {}
        }
        match first {
            Some(b"files") => read_trace_member(&mut reader, key, &mut fields).ok()?,
            _ => read_commit_member(&mut reader, key, &mut fields).ok()?,
        }
    }
    reader.finish().ok()?;
    let kind = match (first, files) {
        (Some(b"files"), _) if fields.key.is_some() && dated => Kind::TRACE,
        (Some(b"commit_sha"), Some(Shape::Object)) => Kind::LEDGER,
        (Some(b"commit_sha"), _) if trace_ids => Kind::COMMIT_LINK,
        _ => return None,
    };
    Some((kind, fields))
}

/// Reads the facts of one record; the bytes are canonical JSON.
pub fn facts(kind: Kind, canonical: &[u8]) -> Result<Facts<'_>> {
    let mut fields = Fields::default();
    let read = match kind {
        Kind::TRACE => read_record(canonical, &mut fields, read_trace_member),
        Kind::LEDGER | Kind::COMMIT_LINK => read_record(canonical, &mut fields, read_commit_member),
        Kind::TRANSCRIPT => read_record(canonical, &mut fields, read_transcript_member),
        Kind::SUMMARY => read_record(canonical, &mut fields, read_summary_member),
        _ => return Err(Error::invalid(format!("cannot read facts of a record of kind {}", kind.number()))),
    };
    match read {
        Ok(true) => fields.into_facts(kind),
        Ok(false) => Err(Error::invalid(format!("cannot read {kind}: expected a JSON object"))),
        Err(error) => {
            Err(Error::invalid(format!("cannot read {kind}: expected canonical JSON")).with_source(error))
        }
    }
}

/// The facts of bytes of which nothing is known: their BLAKE3 is their key.
pub fn raw_facts(bytes: &[u8]) -> Facts<'static> {
    Facts {
        key: Cow::Owned(ObjectId::of(bytes).to_string()),
        time: None,
        session: None,
        agent: None,
        paths: Vec::new(),
        names: Vec::new(),
    }
}

/// Says what kind of record an unlabelled JSON object is, if it looks like one; the bytes are canonical JSON.
///
/// Transcripts are not JSON, and their records are never unlabelled.
pub fn detect(canonical: &[u8]) -> Option<Kind> {
    let mut reader = Reader::new(canonical);
    let (mut id, mut commit, mut conversation, mut summary) = (false, false, false, false);
    let (mut files, mut trace_ids, mut dated) = (None, false, false);
    if reader.shape()? != Shape::Object || !reader.enter_object().ok()? {
        return None;
    }
    while let Some(key) = reader.next_key().ok()? {
        let shape = reader.shape()?;
        match key {
            b"id" => id = shape == Shape::String,
            b"commit_sha" => commit = shape == Shape::String,
            b"conversation_id" => conversation = shape == Shape::String,
            b"summary" => summary = shape == Shape::String,
            b"files" => files = Some(shape),
            b"trace_ids" => trace_ids = shape == Shape::Array,
            b"version" | b"timestamp" => dated = true,
            _ => {}
        }
        reader.skip().ok()?;
    }
    if id && dated && files == Some(Shape::Array) {
        Some(Kind::TRACE)
    } else if commit && files == Some(Shape::Object) {
        Some(Kind::LEDGER)
    } else if commit && trace_ids {
        Some(Kind::COMMIT_LINK)
    } else if conversation && summary {
        Some(Kind::SUMMARY)
    } else {
        None
    }
}

/// The eight bytes by which a name is searched.
///
/// A name of at least 16 hex digits (`-` does not count) gives its first 16, so that its beginning finds it;
/// any other gives the first bytes of its BLAKE3 hash and is found by its whole text only.
pub fn name_prefix(name: &str) -> [u8; 8] {
    let mut digits = 0usize;
    let mut number = 0u64;
    for byte in name.bytes().filter(|byte| *byte != b'-') {
        let Some(value) = hex_value(byte) else {
            digits = 0;
            break;
        };
        if digits < PREFIX_DIGITS {
            number = number << 4 | u64::from(value);
        }
        digits += 1;
    }
    if digits >= PREFIX_DIGITS {
        return number.to_be_bytes();
    }
    *blake3::hash(name.as_bytes()).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The first and last prefix that names beginning with this hex text can have.
///
/// Takes 4 to 64 hex digits, `-` ignored, and nothing else; more than 16 digits give one prefix.
pub fn prefix_range(text: &str) -> Option<([u8; 8], [u8; 8])> {
    let mut digits = 0usize;
    let (mut first, mut last) = (0u64, u64::MAX);
    for byte in text.bytes().filter(|byte| *byte != b'-') {
        let value = u64::from(hex_value(byte)?);
        if digits < PREFIX_DIGITS {
            let shift = 60 - 4 * digits;
            first |= value << shift;
            last &= !((15 - value) << shift);
        }
        digits += 1;
    }
    (4..=64).contains(&digits).then(|| (first.to_be_bytes(), last.to_be_bytes()))
}

/// Hex digits that fit a prefix.
const PREFIX_DIGITS: usize = 16;

/// Fields of a record while it is read; text without escapes is borrowed from it.
#[derive(Default)]
struct Fields<'a> {
    key: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    /// Takes the place of `time` where that is missing or no time.
    time_else: Option<Cow<'a, str>>,
    session: Option<Cow<'a, str>>,
    /// Takes the place of `session` where that is missing.
    session_else: Option<Cow<'a, str>>,
    agent: Option<Cow<'a, str>>,
    is: Option<Cow<'a, str>>,
    paths: Distinct<'a>,
    cites: Distinct<'a>,
}

/// Where in a record its natural key stands.
fn key_name(kind: Kind) -> &'static str {
    match kind {
        Kind::TRACE => "id",
        Kind::LEDGER | Kind::COMMIT_LINK => "commit_sha",
        _ => "conversation_id",
    }
}

impl<'a> Fields<'a> {
    fn into_facts(self, kind: Kind) -> Result<Facts<'a>> {
        let missing = |name: &str| {
            Err(Error::invalid(format!(
                "cannot read {kind}: expected `{name}` to be a string that is not empty"
            )))
        };
        let Some(key) = self.key else { return missing(key_name(kind)) };
        let key = match (kind, &self.time) {
            (Kind::SUMMARY, None) => return missing("created_at"),
            (Kind::SUMMARY, Some(time)) => Cow::Owned(format!("{key}:{time}")),
            _ => key,
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "cannot read {kind}: expected a key of at most {KEY_BYTES_MAX} bytes, found {}",
                key.len()
            )));
        }
        let count = self.paths.items.len() + self.cites.items.len() + usize::from(self.is.is_some());
        if count > RECORD_FACTS_MAX {
            return Err(Error::invalid(format!(
                "cannot read {kind} `{key}`: expected at most {RECORD_FACTS_MAX} paths and names, found at least {count}"
            )));
        }
        let parse = |text: Option<Cow<'_, str>>| text.and_then(|text| Timestamp::parse(&text));
        let is = self.is.map(Name::Is);
        let cites = self.cites.items.into_iter().map(Name::Cites);
        Ok(Facts {
            key,
            time: parse(self.time).or_else(|| parse(self.time_else)),
            session: self.session.or(self.session_else),
            agent: self.agent,
            paths: self.paths.items,
            names: is.into_iter().chain(cites).collect(),
        })
    }
}

/// Texts in the order in which they were first seen, each once.
#[derive(Default)]
struct Distinct<'a> {
    items: Vec<Cow<'a, str>>,
    /// The same texts, once there are too many to look at each.
    seen: BTreeSet<Cow<'a, str>>,
}

impl<'a> Distinct<'a> {
    /// Up to this many, looking at each is faster than a set.
    const SCAN_ITEMS_MAX: usize = 16;

    /// Adds a text that is there and not empty.
    fn add(&mut self, text: Option<Cow<'a, str>>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        if self.items.len() > RECORD_FACTS_MAX {
            // Too many already; the record is refused when all of it has been read.
            return;
        }
        if self.items.len() < Distinct::SCAN_ITEMS_MAX {
            if self.items.contains(&text) {
                return;
            }
        } else {
            if self.seen.is_empty() {
                self.seen.extend(self.items.iter().cloned());
            }
            if !self.seen.insert(text.clone()) {
                return;
            }
        }
        self.items.push(text);
    }
}

type Member<'a> = fn(&mut Reader<'a>, &[u8], &mut Fields<'a>) -> Result<(), JsonError>;

/// Reads the members of the record; false if it is no object.
fn read_record<'a>(bytes: &'a [u8], fields: &mut Fields<'a>, member: Member<'a>) -> Result<bool, JsonError> {
    let mut reader = Reader::new(bytes);
    let is_object = each_member(&mut reader, |reader, key| member(reader, key, fields))?;
    reader.finish()?;
    Ok(is_object)
}

/// Calls `member` with each key of the object that comes next; false if it is none, and then passes over it.
fn each_member<'a>(
    reader: &mut Reader<'a>,
    mut member: impl FnMut(&mut Reader<'a>, &'a [u8]) -> Result<(), JsonError>,
) -> Result<bool, JsonError> {
    if !reader.enter_object()? {
        return Ok(false);
    }
    while let Some(key) = reader.next_key()? {
        member(reader, key)?;
    }
    Ok(true)
}

/// Calls `item` before each item of the array that comes next; passes over anything else.
fn each_item<'a>(
    reader: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    if reader.enter_array()? {
        while reader.next_item()? {
            item(reader)?;
        }
    }
    Ok(())
}

/// Takes a string that is not empty; passes over anything else.
fn text<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, str>>, JsonError> {
    Ok(reader.string()?.filter(|text| !text.is_empty()))
}

fn read_trace_member<'a>(
    reader: &mut Reader<'a>,
    key: &[u8],
    fields: &mut Fields<'a>,
) -> Result<(), JsonError> {
    match key {
        b"id" => fields.key = text(reader)?,
        b"timestamp" => fields.time = text(reader)?,
        b"files" => each_item(reader, |reader| read_trace_file(reader, fields))?,
        b"metadata" => {
            each_member(reader, |reader, key| {
                match key {
                    b"session_id" => fields.session = text(reader)?,
                    b"conversation_id" => fields.session_else = text(reader)?,
                    _ => pass(reader)?,
                }
                Ok(())
            })?;
        }
        b"tool" => fields.agent = read_one(reader, b"name")?,
        b"vcs" => {
            let revision = read_one(reader, b"revision")?;
            fields.cites.add(revision);
        }
        _ => pass(reader)?,
    }
    Ok(())
}

/// Reads one of the files of a trace. Agent Trace 0.1 has a `url` in place of a conversation's `id`: no name.
fn read_trace_file<'a>(reader: &mut Reader<'a>, fields: &mut Fields<'a>) -> Result<(), JsonError> {
    each_member(reader, |reader, key| match key {
        b"path" => {
            fields.paths.add(reader.string()?);
            Ok(())
        }
        b"conversations" => each_item(reader, |reader| {
            let id = read_one(reader, b"id")?;
            fields.cites.add(id);
            Ok(())
        }),
        _ => pass(reader),
    })?;
    Ok(())
}

/// Reads a member of a ledger (`files` by path) or of a commit-link (`files_changed`).
fn read_commit_member<'a>(
    reader: &mut Reader<'a>,
    key: &[u8],
    fields: &mut Fields<'a>,
) -> Result<(), JsonError> {
    match key {
        b"commit_sha" => fields.key = text(reader)?,
        b"created_at" => fields.time = text(reader)?,
        b"committed_at" => fields.time_else = text(reader)?,
        b"derived_from" => {
            let source = read_one(reader, b"source_sha")?;
            fields.cites.add(source);
        }
        b"files" => {
            each_member(reader, |reader, path| {
                fields.paths.add(Some(decode_string(path)));
                pass(reader)
            })?;
        }
        b"files_changed" => each_item(reader, |reader| {
            fields.paths.add(reader.string()?);
            Ok(())
        })?,
        b"trace_ids" => each_item(reader, |reader| {
            fields.cites.add(reader.string()?);
            Ok(())
        })?,
        _ => pass(reader)?,
    }
    Ok(())
}

fn read_transcript_member<'a>(
    reader: &mut Reader<'a>,
    key: &[u8],
    fields: &mut Fields<'a>,
) -> Result<(), JsonError> {
    match key {
        b"conversation_id" => fields.key = text(reader)?,
        b"created_at" => fields.time = text(reader)?,
        b"session_id" => fields.session = text(reader)?,
        b"agent" => fields.agent = text(reader)?,
        b"content_sha256" => fields.is = text(reader)?,
        _ => pass(reader)?,
    }
    Ok(())
}

fn read_summary_member<'a>(
    reader: &mut Reader<'a>,
    key: &[u8],
    fields: &mut Fields<'a>,
) -> Result<(), JsonError> {
    match key {
        b"conversation_id" => {
            fields.key = text(reader)?;
            fields.cites.add(fields.key.clone());
        }
        b"created_at" => fields.time = text(reader)?,
        b"session_id" => fields.session = text(reader)?,
        _ => pass(reader)?,
    }
    Ok(())
}

/// Takes the string under one key of the object that comes next, if there is one.
fn read_one<'a>(reader: &mut Reader<'a>, wanted: &[u8]) -> Result<Option<Cow<'a, str>>, JsonError> {
    let mut found = None;
    each_member(reader, |reader, key| {
        if key == wanted {
            found = text(reader)?;
            return Ok(());
        }
        pass(reader)
    })?;
    Ok(found)
}

fn pass(reader: &mut Reader<'_>) -> Result<(), JsonError> {
    reader.skip().map(|_| ())
}

/// One state of an agent's session file; the bytes themselves are another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptRecord {
    /// Our key for the transcripts of one session.
    pub conversation_id: String,
    /// The agent's id of the session; a peer's pointer has none.
    pub session_id: Option<String>,
    /// The agent that wrote the file; a peer's pointer has none.
    pub agent: Option<String>,
    /// The SHA-256 of the file's bytes: 64 lower-case hex digits.
    pub content_sha256: String,
    /// The file's length in bytes.
    pub size: u64,
    /// When the file was in this state.
    pub created_at: Timestamp,
    /// Where it was taken from: a checkpoint or a file, as a label for people.
    pub source: Option<String>,
}

impl TranscriptRecord {
    /// Writes the record as canonical JSON.
    ///
    /// Panics where `content_sha256` is not 64 lower-case hex digits: callers check what comes from outside.
    pub fn encode(&self) -> Vec<u8> {
        assert!(is_sha256(&self.content_sha256), "a content hash is 64 lower-case hex digits");
        let created_at = self.created_at.to_string();
        let mut out = Vec::with_capacity(256);
        // In the order of the keys.
        write_member("agent", self.agent.as_deref(), &mut out);
        write_member("content_sha256", Some(&self.content_sha256), &mut out);
        write_member("conversation_id", Some(&self.conversation_id), &mut out);
        write_member("created_at", Some(&created_at), &mut out);
        write_member("session_id", self.session_id.as_deref(), &mut out);
        out.extend_from_slice(format!(",\"size\":{}", self.size).as_bytes());
        write_member("source", self.source.as_deref(), &mut out);
        out.push(b'}');
        out
    }

    /// Reads a record back; members that this version does not know are passed over.
    pub fn decode(bytes: &[u8]) -> Result<TranscriptRecord> {
        let read = TranscriptMembers::read(bytes).map_err(|error| {
            Error::invalid("cannot read transcript record: expected canonical JSON").with_source(error)
        })?;
        let missing = |name: &str, wanted: &str| {
            Error::invalid(format!("cannot read transcript record: expected `{name}` to be {wanted}"))
        };
        Ok(TranscriptRecord {
            conversation_id: read.conversation_id.ok_or_else(|| missing("conversation_id", "a string"))?,
            session_id: read.session_id,
            agent: read.agent,
            content_sha256: read
                .content_sha256
                .filter(|text| is_sha256(text))
                .ok_or_else(|| missing("content_sha256", "64 lower-case hex digits"))?,
            size: read
                .size
                .and_then(|size| size.parse().ok())
                .ok_or_else(|| missing("size", "a number of bytes"))?,
            created_at: read
                .created_at
                .and_then(|time| Timestamp::parse(&time))
                .ok_or_else(|| missing("created_at", "an RFC 3339 time"))?,
            source: read.source,
        })
    }
}

/// The members of a transcript record as they stand.
#[derive(Default)]
struct TranscriptMembers {
    conversation_id: Option<String>,
    session_id: Option<String>,
    agent: Option<String>,
    content_sha256: Option<String>,
    size: Option<String>,
    created_at: Option<String>,
    source: Option<String>,
}

impl TranscriptMembers {
    fn read(bytes: &[u8]) -> Result<TranscriptMembers, JsonError> {
        let mut members = TranscriptMembers::default();
        let mut reader = Reader::new(bytes);
        each_member(&mut reader, |reader, key| {
            let member = match key {
                b"agent" => &mut members.agent,
                b"content_sha256" => &mut members.content_sha256,
                b"conversation_id" => &mut members.conversation_id,
                b"created_at" => &mut members.created_at,
                b"session_id" => &mut members.session_id,
                b"source" => &mut members.source,
                b"size" => {
                    members.size = reader.token()?.map(str::to_owned);
                    return Ok(());
                }
                _ => return pass(reader),
            };
            *member = reader.string()?.map(Cow::into_owned);
            Ok(())
        })?;
        reader.finish()?;
        Ok(members)
    }
}

/// Appends a member, and before it what separates it from the one before.
fn write_member(key: &str, value: Option<&str>, out: &mut Vec<u8>) {
    let Some(value) = value else { return };
    out.push(if out.is_empty() { b'{' } else { b',' });
    write_string(key, out);
    out.push(b':');
    write_string(value, out);
}

/// Says whether this is a SHA-256 as it is written: 64 hex digits, lower case.
pub fn is_sha256(text: &str) -> bool {
    decode_hex(text, &mut [0; 32]) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::canonicalize;
    use proptest::prelude::*;

    const SHA: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const COMMIT: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    const TRACE_ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

    fn canonical(text: &str) -> Vec<u8> {
        // `SHA`, `COMMIT` and `TRACE` stand for values of real shape.
        let text = text.replace("SHA", SHA).replace("COMMIT", COMMIT).replace("TRACE", TRACE_ID);
        let mut out = Vec::new();
        canonicalize(text.as_bytes(), &mut out).unwrap_or_else(|error| panic!("{text}: {error}"));
        out
    }

    fn read(kind: Kind, text: &str) -> Facts<'static> {
        facts(kind, canonical(text).leak()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[track_caller]
    fn check_refused(kind: Kind, text: &str, message: &str) {
        let error = facts(kind, &canonical(text)).expect_err(text);
        assert_eq!(error.message(), message, "{text}");
        assert_eq!(error.kind(), crate::error::ErrorKind::Invalid, "{text}");
    }

    fn cites<'a>(names: &[&'a str]) -> Vec<Name<'a>> {
        names.iter().map(|name| Name::Cites((*name).into())).collect()
    }

    fn time(text: &str) -> Option<Timestamp> {
        Some(Timestamp::parse(text).unwrap())
    }

    const TRACE: &str = r#"{"version":"2.0","id":"TRACE","timestamp":"2026-11-20T07:19:55.158873+00:00",
        "tool":{"name":"claude-code"},
        "files":[{"path":"fib.py","conversations":[{"contributor":{"type":"ai","model_id":"anthropic/claude-opus-4"},
            "ranges":[{"start_line":1,"end_line":6,"content_hash":"sha256:SHA",
                "line_hashes":[{"line_offset":0,"hash":"sha256:SHA"}]}],
            "id":"SHA","content_sha256":"SHA"}]}],
        "vcs":{"type":"git","revision":"COMMIT"},
        "metadata":{"session_id":"s1","tool_name":"Write","tool_use_id":"tu1","is_creation":false,
            "project_id":"at-0","repo_root":"/abs/path","edit_sequence":0}}"#;

    const LEDGER: &str = r#"{"version":"2.0","commit_sha":"COMMIT","parent_sha":null,
        "parent_committed_at":"2026-11-19T00:00:00+01:00","committed_at":"2026-11-20T08:00:00+01:00",
        "created_at":"2026-11-20T07:20:00+00:00","trace_ids":["TRACE"],
        "files":{"src/é \"q\".py":{"line_attributions":[{"start_line":1,"end_line":6,"type":"ai","trace_id":"TRACE",
            "model_id":null,"conversation_id":null,"evidence":[{"line":1,"hash":"sha256:SHA","content":"def fib(n):"}]}]},
            "a.py":{"line_attributions":[]}},
        "derived_from":{"kind":"cherry-pick","source_sha":"0123456789012345678901234567890123456789"},
        "used_fallback":true}"#;

    const COMMIT_LINK: &str = r#"{"commit_sha":"COMMIT","parent_sha":"COMMIT","trace_ids":["TRACE","t2","TRACE"],
        "files_changed":["b.py","a.py","b.py"],"committed_at":"2026-11-20T08:00:00+01:00",
        "created_at":"2026-11-20T07:20:00Z"}"#;

    const SUMMARY: &str = r#"{"conversation_id":"SHA","summary":"Did it.","created_at":"2026-11-20T07:20:00+00:00","session_id":"s1"}"#;

    #[test]
    fn a_trace_is_read() {
        assert_eq!(
            read(Kind::TRACE, TRACE),
            Facts {
                key: TRACE_ID.into(),
                time: time("2026-11-20T07:19:55.158873Z"),
                session: Some("s1".into()),
                agent: Some("claude-code".into()),
                paths: vec!["fib.py".into()],
                names: cites(&[SHA, COMMIT]),
            }
        );
    }

    #[test]
    fn a_trace_of_the_published_form_is_read() {
        let text = r#"{"version":"0.1.0","id":"TRACE","timestamp":"2026-01-23T14:30:00Z",
            "vcs":{"type":"jj","revision":"kkmpptxz"},"tool":{"name":"cursor","version":"2.4.0"},
            "files":[{"path":"src/app.ts","conversations":[{"url":"https://api.cursor.com/v1/conversations/12345",
                "contributor":{"type":"ai","model_id":"anthropic/claude-opus-4-5"},
                "ranges":[{"start_line":42,"end_line":67,"content_hash":"murmur3:9f2e8a1b"},
                    {"start_line":70,"end_line":70,"content_hash":"sha256:0123456789abcdef"}],
                "related":[{"type":"session","url":"https://x"}]}]},
                {"path":"src/app.ts","conversations":[]},{"path":"b"}],
            "metadata":{"conversation_id":"c1","dev.cursor":{"session_id":"inner"}}}"#;
        let read = read(Kind::TRACE, text);
        assert_eq!(read.session.as_deref(), Some("c1"));
        assert_eq!(read.paths, ["src/app.ts", "b"]);
        assert_eq!(read.names, cites(&["kkmpptxz"]));
    }

    #[test]
    fn a_ledger_is_read() {
        assert_eq!(
            read(Kind::LEDGER, LEDGER),
            Facts {
                key: COMMIT.into(),
                time: time("2026-11-20T07:20:00Z"),
                session: None,
                agent: None,
                paths: vec!["a.py".into(), "src/é \"q\".py".into()],
                names: cites(&["0123456789012345678901234567890123456789", TRACE_ID]),
            }
        );
        let merge =
            r#"{"commit_sha":"COMMIT","derived_from":{"kind":"merge","parents":["p1","p2"]},"files":{}}"#;
        assert_eq!(read(Kind::LEDGER, merge).names, []);
    }

    #[test]
    fn a_commit_link_is_read() {
        assert_eq!(
            read(Kind::COMMIT_LINK, COMMIT_LINK),
            Facts {
                key: COMMIT.into(),
                time: time("2026-11-20T07:20:00Z"),
                session: None,
                agent: None,
                paths: vec!["b.py".into(), "a.py".into()],
                names: cites(&[TRACE_ID, "t2"]),
            }
        );
        let pulled = r#"{"commit_sha":"COMMIT","files_changed":null,"trace_ids":null,"created_at":null,
            "committed_at":"2026-11-20T08:00:00+01:00"}"#;
        let read = read(Kind::COMMIT_LINK, pulled);
        assert_eq!((read.time, read.paths, read.names), (time("2026-11-20T07:00:00Z"), vec![], vec![]));
    }

    #[test]
    fn a_summary_is_read() {
        assert_eq!(
            read(Kind::SUMMARY, SUMMARY),
            Facts {
                key: format!("{SHA}:2026-11-20T07:20:00+00:00").into(),
                time: time("2026-11-20T07:20:00Z"),
                session: Some("s1".into()),
                agent: None,
                paths: vec![],
                names: cites(&[SHA]),
            }
        );
    }

    fn transcript() -> TranscriptRecord {
        TranscriptRecord {
            conversation_id: "c\"1".to_owned(),
            session_id: Some("s1".to_owned()),
            agent: Some("claude-code".into()),
            content_sha256: SHA.to_owned(),
            size: u64::MAX,
            created_at: Timestamp::parse("2026-11-20T07:20:00.5Z").unwrap(),
            source: Some("checkpoint 1".to_owned()),
        }
    }

    #[test]
    fn a_transcript_record_is_canonical_and_read() {
        let bytes = transcript().encode();
        let text = format!(
            r#"{{"agent":"claude-code","content_sha256":"{SHA}","conversation_id":"c\"1","created_at":"2026-11-20T07:20:00.500Z","session_id":"s1","size":18446744073709551615,"source":"checkpoint 1"}}"#
        );
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), text);
        assert_eq!(canonical(&text), bytes);
        assert_eq!(
            facts(Kind::TRANSCRIPT, &bytes).unwrap(),
            Facts {
                key: "c\"1".into(),
                time: time("2026-11-20T07:20:00.5Z"),
                session: Some("s1".into()),
                agent: Some("claude-code".into()),
                paths: vec![],
                names: vec![Name::Is(SHA.into())],
            }
        );
        assert_eq!(detect(&bytes), None);
    }

    #[test]
    fn a_broken_transcript_record_is_refused() {
        let good = String::from_utf8(transcript().encode()).unwrap();
        let check = |from: &str, to: &str, field: &str| {
            let broken = good.replace(from, to);
            assert_ne!(broken, good);
            let error = TranscriptRecord::decode(broken.as_bytes()).expect_err(&broken);
            assert!(error.message().contains(field), "{error}");
        };
        check(r#""conversation_id":"c\"1""#, r#""conversation_id":1"#, "`conversation_id`");
        check(r#""created_at":"2026"#, r#""created_at":"26"#, "`created_at`");
        check("9f86", "9F86", "`content_sha256`");
        check("9f86", "9f8", "`content_sha256`");
        check("18446744073709551615", "18446744073709551616", "`size`");
        check("18446744073709551615", "-1", "`size`");
        check("18446744073709551615", "1.0", "`size`");
        check("18446744073709551615", "\"1\"", "`size`");
        check("}", "}}", "canonical");
        check("}", "", "canonical");
        assert!(TranscriptRecord::decode(b"[]").is_err());
        let more = good.replace("\"size\"", "\"shape\":{},\"size\"");
        assert_eq!(TranscriptRecord::decode(more.as_bytes()).unwrap(), transcript());
    }

    #[test]
    #[should_panic(expected = "64 lower-case hex digits")]
    fn a_transcript_record_with_another_hash_is_not_written() {
        TranscriptRecord { content_sha256: SHA.to_uppercase(), ..transcript() }.encode();
    }

    #[test]
    fn a_missing_key_is_refused() {
        let expected = |kind: &str, name: &str| {
            format!("cannot read {kind}: expected `{name}` to be a string that is not empty")
        };
        for value in ["1", "null", "\"\"", "[\"x\"]", "{\"id\":\"x\"}"] {
            check_refused(Kind::TRACE, &format!("{{\"id\":{value}}}"), &expected("trace", "id"));
            let commit = format!("{{\"commit_sha\":{value}}}");
            check_refused(Kind::LEDGER, &commit, &expected("ledger", "commit_sha"));
            check_refused(Kind::COMMIT_LINK, &commit, &expected("commit-link", "commit_sha"));
            let conversation = format!("{{\"conversation_id\":{value},\"created_at\":\"t\"}}");
            check_refused(Kind::TRANSCRIPT, &conversation, &expected("transcript", "conversation_id"));
            check_refused(Kind::SUMMARY, &conversation, &expected("summary", "conversation_id"));
            let undated = format!("{{\"conversation_id\":\"c\",\"created_at\":{value}}}");
            check_refused(Kind::SUMMARY, &undated, &expected("summary", "created_at"));
        }
        check_refused(Kind::TRACE, "{}", &expected("trace", "id"));
        for value in ["[]", "1", "\"id\"", "null", "[{\"id\":\"x\"}]"] {
            check_refused(Kind::TRACE, value, "cannot read trace: expected a JSON object");
        }
        check_refused(Kind::from_number(9), "{}", "cannot read facts of a record of kind 9");
    }

    #[test]
    fn bytes_that_are_not_canonical_are_refused() {
        for text in
            ["", "{", "{\"id\":\"x\"", "{\"id\":\"x\"}}", "{\"id\": \"x\"}", "{\"id\":\"x\",\"files\":[,]}"]
        {
            let error = facts(Kind::TRACE, text.as_bytes()).expect_err(text);
            assert_eq!(error.message(), "cannot read trace: expected canonical JSON", "{text}");
            assert_eq!(detect(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn odd_fields_count_as_absent() {
        let odd = r#"{"id":"x","timestamp":"yesterday","tool":"claude","files":[1,"a",null,{"path":2},{"path":""},
            {"path":"p","conversations":{"id":"no"}},{"conversations":[{"id":7},[],{"id":""},"c",{"id":"c"}]}],
            "metadata":[{"session_id":"s"}],"vcs":{"revision":null}}"#;
        let read_odd = read(Kind::TRACE, odd);
        assert_eq!(
            read_odd,
            Facts {
                key: "x".into(),
                time: None,
                session: None,
                agent: None,
                paths: vec!["p".into()],
                names: cites(&["c"]),
            }
        );
        let session =
            |text: &str| read(Kind::TRACE, &format!("{{\"id\":\"x\",\"metadata\":{text}}}")).session;
        assert_eq!(session(r#"{"session_id":null,"conversation_id":"c"}"#).as_deref(), Some("c"));
        assert_eq!(session(r#"{"session_id":"","conversation_id":"c"}"#).as_deref(), Some("c"));
        assert_eq!(session(r#"{"session_id":"s","conversation_id":"c"}"#).as_deref(), Some("s"));
        assert_eq!(session("{}"), None);
        let ledger = r#"{"commit_sha":"x","created_at":"?","committed_at":"2026-11-20T00:00:00Z","files":["no"],
            "trace_ids":{"no":1},"derived_from":"no"}"#;
        let read_ledger = read(Kind::LEDGER, ledger);
        assert_eq!(read_ledger.time, time("2026-11-20T00:00:00Z"));
        assert_eq!((read_ledger.paths, read_ledger.names), (vec![], vec![]));
    }

    #[test]
    fn keys_are_bounded() {
        for length in [1, KEY_BYTES_MAX - 1, KEY_BYTES_MAX] {
            assert_eq!(
                read(Kind::TRACE, &format!("{{\"id\":\"{}\"}}", "k".repeat(length))).key.len(),
                length
            );
        }
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        let message = format!(
            "cannot read trace: expected a key of at most {KEY_BYTES_MAX} bytes, found {}",
            long.len()
        );
        check_refused(Kind::TRACE, &format!("{{\"id\":\"{long}\"}}"), &message);
        let text =
            format!("{{\"conversation_id\":\"{}\",\"created_at\":\"t\"}}", "k".repeat(KEY_BYTES_MAX - 1));
        let message = format!(
            "cannot read summary: expected a key of at most {KEY_BYTES_MAX} bytes, found {}",
            KEY_BYTES_MAX + 1
        );
        check_refused(Kind::SUMMARY, &text, &message);
    }

    #[test]
    fn facts_are_bounded_and_distinct() {
        let link = |paths: usize, ids: usize| {
            let list = |count: usize| {
                // Each twice, the second time in another place.
                let once = (0..count).map(|number| format!("\"{number}\"")).collect::<Vec<_>>().join(",");
                if count == 0 { "[]".to_owned() } else { format!("[{once},{once}]") }
            };
            format!("{{\"commit_sha\":\"x\",\"files_changed\":{},\"trace_ids\":{}}}", list(paths), list(ids))
        };
        for count in [0, 1, 15, 16, 17, 18, 100] {
            let read = read(Kind::COMMIT_LINK, &link(count, count / 2));
            let expected: Vec<_> = (0..count).map(|number| number.to_string()).collect();
            assert_eq!(read.paths, expected);
            assert_eq!(read.names.len(), count / 2);
        }
        let read = read(Kind::COMMIT_LINK, &link(RECORD_FACTS_MAX - 1, 1));
        assert_eq!(read.paths.len() + read.names.len(), RECORD_FACTS_MAX);
        let found = RECORD_FACTS_MAX + 1;
        let message = format!(
            "cannot read commit-link `x`: expected at most {RECORD_FACTS_MAX} paths and names, found at least {found}"
        );
        check_refused(Kind::COMMIT_LINK, &link(RECORD_FACTS_MAX, 1), &message);
    }

    #[test]
    fn kinds_are_told_apart() {
        let check =
            |text: &str, expected: Option<Kind>| assert_eq!(detect(&canonical(text)), expected, "{text}");
        check(TRACE, Some(Kind::TRACE));
        check(LEDGER, Some(Kind::LEDGER));
        check(COMMIT_LINK, Some(Kind::COMMIT_LINK));
        check(SUMMARY, Some(Kind::SUMMARY));
        check(r#"{"id":"x","files":[],"timestamp":"t"}"#, Some(Kind::TRACE));
        check(r#"{"id":"x","files":[],"version":"0.1"}"#, Some(Kind::TRACE));
        check(r#"{"id":"x","files":[]}"#, None);
        check(r#"{"id":"x","files":{},"version":"0.1"}"#, None);
        check(r#"{"files":[],"version":"0.1"}"#, None);
        check(r#"{"commit_sha":"x","files":{}}"#, Some(Kind::LEDGER));
        check(r#"{"commit_sha":"x","files":[],"trace_ids":[]}"#, Some(Kind::COMMIT_LINK));
        check(r#"{"commit_sha":"x"}"#, None);
        check(r#"{"conversation_id":"x"}"#, None);
        check(r#"{"conversation_id":"x","content_sha256":"SHA","size":1}"#, None);
        check(r#"{"conversation_id":1,"summary":"x"}"#, None);
        for text in ["{}", "[]", "1", "\"files\"", "[{\"conversation_id\":\"x\",\"summary\":\"y\"}]"] {
            check(text, None);
        }
    }

    #[test]
    fn hex_names_are_found_by_their_beginning() {
        let prefix = [0x7c, 0x9e, 0x66, 0x79, 0x74, 0x25, 0x40, 0xde];
        assert_eq!(name_prefix(TRACE_ID), prefix);
        assert_eq!(name_prefix(&TRACE_ID.to_uppercase()), prefix);
        assert_eq!(name_prefix("7c9e6679742540de"), prefix);
        assert_eq!(name_prefix("7c9e6679742540deff"), prefix);
        let hash = |name: &str| blake3::hash(name.as_bytes()).as_bytes()[..8].to_vec();
        for name in ["", "-", "7c9e6679742540d", "7c9e6679742540deg", "g7c9e6679742540de", "é", "session one"]
        {
            assert_eq!(name_prefix(name).to_vec(), hash(name), "{name}");
        }
    }

    #[test]
    fn a_prefix_range_holds_what_begins_so() {
        let check = |text: &str, first: u64, last: u64| {
            assert_eq!(prefix_range(text), Some((first.to_be_bytes(), last.to_be_bytes())), "{text}");
        };
        check("7c9e", 0x7c9e_0000_0000_0000, 0x7c9e_ffff_ffff_ffff);
        check("7C9E6", 0x7c9e_6000_0000_0000, 0x7c9e_6fff_ffff_ffff);
        check("7c9e6679-7", 0x7c9e_6679_7000_0000, 0x7c9e_6679_7fff_ffff);
        check("0000", 0, 0x0000_ffff_ffff_ffff);
        check("ffff", 0xffff_0000_0000_0000, u64::MAX);
        check("7c9e6679742540d", 0x7c9e_6679_7425_40d0, 0x7c9e_6679_7425_40df);
        check("7c9e6679742540de", 0x7c9e_6679_7425_40de, 0x7c9e_6679_7425_40de);
        check(TRACE_ID, 0x7c9e_6679_7425_40de, 0x7c9e_6679_7425_40de);
        check(SHA, 0x9f86_d081_884c_7d65, 0x9f86_d081_884c_7d65);
        for text in ["", "-", "7c9", "7-c-9", "7c9g", "7c9e ", "é7c9e", &"0".repeat(65)] {
            assert_eq!(prefix_range(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_hex_name_lies_in_the_range_of_its_beginnings(name in "[0-9a-fA-F]{8}-?[0-9a-f]{8,56}", cut in 4usize..66) {
            let cut = &name[..cut.min(name.len())];
            if let Some((first, last)) = prefix_range(cut) {
                prop_assert!((first..=last).contains(&name_prefix(&name)));
            } else {
                prop_assert_eq!(cut.replace('-', "").len() < 4 || cut.replace('-', "").len() > 64, true);
            }
        }

        #[test]
        fn one_walk_reads_what_two_read(
            members in prop::collection::btree_map(
                prop::sample::select(vec![
                    "commit_sha", "conversation_id", "created_at", "files", "files_changed", "id", "metadata", "summary",
                    "timestamp", "tool", "trace_ids", "vcs", "version", "agent",
                ]),
                prop::sample::select(vec![
                    "\"\"", "\"x\"", "\"2026-11-20T07:19:55Z\"", "1", "null", "{}", "[]", "[\"a\",\"b\"]", "{\"a.py\":{}}",
                    "[{\"path\":\"p\",\"conversations\":[{\"id\":\"c\"}]}]", "{\"name\":\"n\",\"session_id\":\"s\"}",
                ]),
                0..9,
            ),
        ) {
            let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let bytes = canonical(&format!("{{{}}}", members.join(",")));
            let told = |error: Error| error.message().to_owned();
            let two = detect(&bytes).map(|kind| facts(kind, &bytes).map(|facts| (kind, facts))).transpose();
            prop_assert_eq!(super::read(&bytes).map_err(told), two.map_err(told));
        }

        #[test]
        fn a_transcript_record_comes_back(
            texts in prop::array::uniform2("\\PC{0,20}|[\\x00-\\x7f]{0,20}"),
            options in prop::array::uniform3(prop::option::of("\\PC{0,20}")),
            hash: [u8; 32],
            size: u64,
            micros in Timestamp::MIN.micros()..=Timestamp::MAX.micros(),
        ) {
            let [conversation_id, source] = texts;
            let [session_id, agent, with_source] = options;
            let record = TranscriptRecord {
                conversation_id, session_id, agent,
                content_sha256: crate::id::encode_hex(&hash),
                size,
                created_at: Timestamp::from_micros(micros),
                source: with_source.map(|_| source),
            };
            let bytes = record.encode();
            prop_assert_eq!(canonical_bytes(&bytes), bytes.clone());
            prop_assert_eq!(TranscriptRecord::decode(&bytes).unwrap(), record);
        }

        #[test]
        fn no_bytes_panic(
            start in 0usize..5,
            at: prop::sample::Index,
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..8),
                "[\\[\\]{},:\"\\\\u0-9a-f]{0,8}".prop_map(String::into_bytes),
            ],
            text in "\\PC{0,40}|[0-9a-f-]{0,70}",
        ) {
            let mut damaged = match start {
                0 => canonical(TRACE),
                1 => canonical(LEDGER),
                2 => canonical(COMMIT_LINK),
                3 => canonical(SUMMARY),
                _ => transcript().encode(),
            };
            let at = at.index(damaged.len());
            let end = (at + bytes.len()).min(damaged.len());
            damaged.splice(at..end, bytes);
            for kind in Kind::KNOWN {
                let _ = facts(kind, &damaged);
            }
            let _ = detect(&damaged);
            let _ = TranscriptRecord::decode(&damaged);
            let _ = (name_prefix(&text), prefix_range(&text));
        }
    }

    fn canonical_bytes(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        canonicalize(bytes, &mut out).unwrap();
        out
    }
}
