//! What a file is, by content: records, or a transcript of which agent and session, and from when.
//!
//! Looks at the head and the tail of a file and parses single lines of it; a line that is no JSON says nothing. What
//! cannot be told is a raw transcript.

use memchr::memmem;
use rayon::prelude::*;

use agent_trace_store::json::{Canonicalizer, Reader, Shape};
use agent_trace_store::limits::RECORD_BYTES_MAX;
use agent_trace_store::record;
use agent_trace_store::{Result, Timestamp};

use super::items::Items;
use super::records::Mode;
use super::source::{Role, Source, SourceFile};
use super::tally::Job;

/// What is read of a head at first, and at most.
const HEAD_BYTES: usize = 64 << 10;
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Lines of a head that are looked at.
const HEAD_LINES_MAX: usize = 256;
/// What is read of a tail at first, and at most.
const TAIL_BYTES: usize = 64 << 10;
const TAIL_BYTES_MAX: usize = 16 << 20;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It is not read: unchanged, or bad.
    Nothing,
    /// It holds records.
    Records(Mode),
    /// It is a transcript.
    Transcript(Head),
}

/// What the content of a transcript says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) agent: Option<&'static str>,
    pub(crate) session: Option<String>,
    /// The part of the session that this is, where it is not the main one: a sub-agent's id.
    pub(crate) part: Option<String>,
    /// The last time in it.
    pub(crate) time: Option<Timestamp>,
}

/// Looks at all files that are to be read, in parallel.
pub(super) fn all(job: &Job<'_>) -> Result<Vec<Probe>> {
    let probe = |buffers: &mut Buffers, (index, source): (usize, &Source)| {
        if !job.fresh[index] || job.is_stopped() {
            return Probe::Nothing;
        }
        match &source.role {
            Role::Manifest => Probe::Nothing,
            Role::Records(_) => Probe::Records(Mode::Lines),
            // What the manifest leaves open is looked up when its turn comes.
            Role::Listed(_) => Probe::Transcript(Head::default()),
            Role::Blob(..) => probe_source(job, index, buffers, false),
            Role::Unknown => probe_source(job, index, buffers, true),
        }
    };
    Ok(job.sources.par_iter().enumerate().map_init(Buffers::default, probe).collect())
}

/// Looks at one file; what cannot be read is noted.
fn probe_source(job: &Job<'_>, index: usize, buffers: &mut Buffers, may_be_records: bool) -> Probe {
    let source = &job.sources[index];
    let read = SourceFile::open(job.store.env(), source)
        .and_then(|file| buffers.probe(&file, source.metadata.bytes, may_be_records));
    match read {
        Ok(probe) => probe,
        Err(error) => {
            job.note(index, None, format!("cannot read it: {error}"));
            Probe::Nothing
        }
    }
}

/// Looks at a transcript of which the agent or the time is not known otherwise.
pub(super) fn transcript(file: &SourceFile, bytes: u64) -> std::io::Result<Head> {
    match Buffers::default().probe(file, bytes, false)? {
        Probe::Transcript(head) => Ok(head),
        _ => Ok(Head::default()),
    }
}

/// Buffers that are kept from file to file.
#[derive(Default)]
struct Buffers {
    canonicalizer: Canonicalizer,
    canonical: Vec<u8>,
    bytes: Vec<u8>,
}

impl Buffers {
    fn probe(&mut self, file: &SourceFile, bytes: u64, may_be_records: bool) -> std::io::Result<Probe> {
        let mut head = Head::default();
        let mut size = HEAD_BYTES;
        let mut is_first = true;
        let has_json = loop {
            let mut part = std::mem::take(&mut self.bytes);
            let whole =
                fill(file, &mut part, 0, size.min(usize::try_from(bytes).unwrap_or(size)))? as u64 == bytes;
            if is_first && self.is_over_many_lines(&part) {
                // Its single lines may look like something else.
                if let Some(mode) = self.look_at_value(file, bytes, &part, may_be_records, &mut head)? {
                    return Ok(Probe::Records(mode));
                }
                if head.agent.is_some() {
                    self.bytes = part;
                    break false;
                }
            }
            is_first = false;
            let looked = self.look_at_lines(&part, whole, may_be_records, &mut head);
            self.bytes = part;
            match looked {
                Looked::Records => return Ok(Probe::Records(Mode::Lines)),
                Looked::Enough => break true,
                Looked::More { has_json } if whole || size >= HEAD_BYTES_MAX => break has_json,
                Looked::More { .. } => size *= 4,
            }
        };
        if head.agent.is_none() {
            look_at_names(&self.bytes, &mut head);
        }
        if has_json || head.agent.is_some() {
            head.time = self.last_time(file, bytes)?;
        }
        Ok(Probe::Transcript(head))
    }

    /// Whether the first line begins JSON and is none by itself.
    fn is_over_many_lines(&mut self, bytes: &[u8]) -> bool {
        let bytes = bytes.trim_ascii_start();
        let line = &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())];
        matches!(bytes.first(), Some(b'[' | b'{')) && !self.canonicalize_object(line)
    }

    fn look_at_lines(&mut self, bytes: &[u8], whole: bool, may_be_records: bool, head: &mut Head) -> Looked {
        let mut has_json = false;
        let complete = if whole { bytes.len() } else { memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1) };
        for line in bytes[..complete].split(|byte| *byte == b'\n').take(HEAD_LINES_MAX) {
            if !self.canonicalize_object(line) {
                continue;
            }
            has_json = true;
            if may_be_records && head.agent.is_none() && record::detect(&self.canonical).is_some() {
                return Looked::Records;
            }
            let members = Members::read(&self.canonical);
            if let Some(agent) =
                members.agent().filter(|agent| head.agent.is_none_or(|known| known == *agent))
            {
                head.agent = Some(agent);
                if head.session.is_none() {
                    head.session = members.session_of(agent);
                    head.part = members.part_of(agent);
                }
                if head.session.is_some() {
                    return Looked::Enough;
                }
            }
        }
        // Many lines that say nothing: more of them would not say more.
        let lines = memchr::memchr_iter(b'\n', &bytes[..complete]).count();
        if lines >= HEAD_LINES_MAX && has_json { Looked::Enough } else { Looked::More { has_json } }
    }

    /// A file that is one JSON value over many lines.
    fn look_at_value(
        &mut self,
        file: &SourceFile,
        bytes: u64,
        start: &[u8],
        may_be_records: bool,
        head: &mut Head,
    ) -> std::io::Result<Option<Mode>> {
        if start.trim_ascii_start().starts_with(b"[") {
            let item = Items::new(start, true).next().filter(|_| may_be_records);
            let is_records = item.is_some_and(|item| {
                self.canonicalize_object(item.bytes) && record::detect(&self.canonical).is_some()
            });
            return Ok(is_records.then_some(Mode::Items));
        }
        if bytes > RECORD_BYTES_MAX as u64 {
            return Ok(None);
        }
        let mut whole = Vec::new();
        fill(file, &mut whole, 0, usize::try_from(bytes).unwrap_or(RECORD_BYTES_MAX))?;
        if self.canonicalize_object(&whole) {
            if may_be_records && record::detect(&self.canonical).is_some() {
                return Ok(Some(Mode::Whole));
            }
            let members = Members::read(&self.canonical);
            head.agent = members.agent();
            head.session = head.agent.and_then(|agent| members.session_of(agent));
        }
        Ok(None)
    }

    /// The time in the last line that has one.
    fn last_time(&mut self, file: &SourceFile, bytes: u64) -> std::io::Result<Option<Timestamp>> {
        let mut size = TAIL_BYTES;
        loop {
            let wanted = size.min(usize::try_from(bytes).unwrap_or(size));
            let start = bytes - wanted as u64;
            let mut part = std::mem::take(&mut self.bytes);
            fill(file, &mut part, start, wanted)?;
            let time = self.last_time_in(&part, start == 0);
            self.bytes = part;
            if time.is_some() {
                return Ok(time);
            }
            if start == 0 || size >= TAIL_BYTES_MAX {
                return Ok(last_time_anywhere(&self.bytes));
            }
            size *= 4;
        }
    }

    fn last_time_in(&mut self, tail: &[u8], whole: bool) -> Option<Timestamp> {
        let start = if whole { 0 } else { memchr::memchr(b'\n', tail)? + 1 };
        let mut lines = tail[start..].rsplit(|byte| *byte == b'\n');
        lines.find_map(|line| {
            // Most lines without a time are told apart without parsing them.
            memmem::find(line, b"\"timestamp\"")?;
            self.canonicalize_object(line).then(|| Members::read(&self.canonical).timestamp)?
        })
    }

    fn canonicalize_object(&mut self, line: &[u8]) -> bool {
        let line = line.trim_ascii();
        self.canonical.clear();
        line.starts_with(b"{") && self.canonicalizer.canonicalize(line, &mut self.canonical).is_ok()
    }
}

enum Looked {
    Records,
    Enough,
    More { has_json: bool },
}

fn fill(file: &SourceFile, buffer: &mut Vec<u8>, offset: u64, wanted: usize) -> std::io::Result<usize> {
    buffer.resize(wanted, 0);
    let read = file.read_up_to(buffer, offset)?;
    buffer.truncate(read);
    Ok(read)
}

/// Where a value is too long to parse or cut off, the first names in it have to do.
fn look_at_names(start: &[u8], head: &mut Head) {
    let start = &start[..start.len().min(HEAD_BYTES)];
    let has = |name: &str| memmem::find(start, name.as_bytes()).is_some();
    let is_object = start.trim_ascii_start().starts_with(b"{");
    if is_object && has("\"sessionId\"") && (has("\"projectHash\"") || has("\"messages\"")) {
        head.agent = Some(GEMINI);
        head.session = text_after(start, "\"sessionId\"").map(str::to_owned);
    }
}

/// The last text under `timestamp` or `lastUpdated` that is a time, in JSON over many lines.
fn last_time_anywhere(tail: &[u8]) -> Option<Timestamp> {
    let times = ["\"timestamp\"", "\"lastUpdated\""].into_iter().filter_map(|name| {
        memmem::rfind_iter(tail, name.as_bytes())
            .take(64)
            .find_map(|at| text_after(&tail[at..], name).and_then(Timestamp::parse))
    });
    times.max()
}

/// The string under the first occurrence of a quoted name, if it is plain.
fn text_after<'b>(bytes: &'b [u8], name: &str) -> Option<&'b str> {
    let at = memmem::find(bytes, name.as_bytes())? + name.len();
    let rest = bytes[at..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', &rest[..rest.len().min(256)])?;
    (rest[end] == b'"' && end > 0).then(|| std::str::from_utf8(&rest[..end]).ok())?
}

const CLAUDE: &str = "Claude Code";
const CODEX: &str = "Codex";
const COPILOT: &str = "Copilot CLI";
const GEMINI: &str = "Gemini CLI";

/// The members of a line by which agents are known.
#[derive(Default)]
struct Members {
    kind: String,
    session_id: Option<String>,
    /// `id` and `session_id` of `payload`, `sessionId` of `data`.
    payload: Option<Option<String>>,
    data: Option<Option<String>>,
    agent_id: Option<String>,
    is_sidechain: bool,
    has_uuid: bool,
    has_message_id: bool,
    has_leaf: bool,
    has_project: bool,
    timestamp: Option<Timestamp>,
}

impl Members {
    fn read(canonical: &[u8]) -> Members {
        let mut members = Members::default();
        // The bytes are canonical, so nothing fails; if it did, what was read would do.
        let _ = members.read_into(canonical);
        members
    }

    fn read_into(&mut self, canonical: &[u8]) -> Result<(), agent_trace_store::json::JsonError> {
        let mut reader = Reader::new(canonical);
        if !reader.enter_object()? {
            return Ok(());
        }
        let owned = |text: Option<std::borrow::Cow<'_, str>>| {
            text.filter(|text| !text.is_empty()).map(|text| text.into_owned())
        };
        while let Some(key) = reader.next_key()? {
            match key {
                b"type" => self.kind = owned(reader.string()?).unwrap_or_default(),
                b"sessionId" => self.session_id = owned(reader.string()?),
                b"agentId" => self.agent_id = owned(reader.string()?),
                b"timestamp" => {
                    self.timestamp = reader.string()?.and_then(|text| Timestamp::parse(&text));
                }
                b"isSidechain" => self.is_sidechain = reader.token()? == Some("true"),
                b"uuid" => self.has_uuid = reader.string()?.is_some(),
                b"messageId" => self.has_message_id = reader.string()?.is_some(),
                b"leafUuid" => self.has_leaf = reader.string()?.is_some(),
                b"projectHash" => self.has_project |= reader.string()?.is_some(),
                b"messages" => {
                    self.has_project |= reader.shape() == Some(Shape::Array);
                    reader.skip()?;
                }
                b"payload" | b"data" if reader.shape() == Some(Shape::Object) => {
                    let names: [&[u8]; 2] =
                        if key == b"data" { [b"sessionId"; 2] } else { [b"id", b"session_id"] };
                    let mut id = None;
                    reader.enter_object()?;
                    while let Some(inner) = reader.next_key()? {
                        if names.contains(&inner) && id.is_none() {
                            id = owned(reader.string()?);
                        } else {
                            reader.skip()?;
                        }
                    }
                    *(if key == b"data" { &mut self.data } else { &mut self.payload }) = Some(id);
                }
                _ => drop(reader.skip()?),
            }
        }
        Ok(())
    }

    fn agent(&self) -> Option<&'static str> {
        let kind = self.kind.as_str();
        let codex =
            ["session_meta", "response_item", "event_msg", "turn_context", "compacted", "world_state"];
        let copilot = ["session.", "user.", "assistant.", "tool.", "hook."];
        if self.payload.is_some() && codex.contains(&kind) {
            return Some(CODEX);
        }
        if self.data.is_some() && copilot.iter().any(|prefix| kind.starts_with(prefix)) {
            return Some(COPILOT);
        }
        if self.session_id.is_some() && self.has_project {
            return Some(GEMINI);
        }
        let claude = match kind {
            "" => false,
            "file-history-snapshot" => self.has_message_id,
            "summary" => self.has_leaf,
            "queue-operation" | "custom-title" | "ai-title" | "last-prompt" | "mode" | "pr-link" => {
                self.session_id.is_some()
            }
            _ => self.session_id.is_some() && self.has_uuid,
        };
        claude.then_some(CLAUDE)
    }

    fn session_of(&self, agent: &str) -> Option<String> {
        match agent {
            CODEX if self.kind == "session_meta" => self.payload.clone().flatten(),
            CODEX => None,
            COPILOT if self.kind == "session.start" => self.data.clone().flatten(),
            COPILOT => None,
            _ => self.session_id.clone(),
        }
    }

    /// A sub-agent of Claude Code writes a file of its own under its parent's session.
    fn part_of(&self, agent: &str) -> Option<String> {
        self.agent_id.clone().filter(|_| agent == CLAUDE && self.is_sidechain)
    }
}
