//! Transcripts: grouped to sessions, put in order, and taken in byte for byte, each as an extension of the one before.
//!
//! One thread works on one session at a time. A state that the store holds already is told by its hash and passed over.
//! A file that fails while it is read is noted; an error of the store stops the import.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_trace_store::env::File;
use agent_trace_store::intake::{Base, Body};
use agent_trace_store::question;
use agent_trace_store::record::{self, TranscriptRecord};
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, Timestamp};

use super::manifest::Entry;
use super::peer::{Layout, Pins};
use super::probe::{self, Head, Probe};
use super::source::{Role, SourceFile};
use super::tally::Job;
use super::{Worker, hold};

/// A file up to this length is hashed at once to see whether it is known.
const HASHED_BYTES_MAX: u64 = 16 << 20;
/// The label of conversations that come from agent-trace-cli.
const PEER: &str = "agent-trace-cli";

/// One state of one session.
#[derive(Clone)]
struct State {
    source: usize,
    /// By what the states of a session are put in order, before time.
    order: u64,
    time: Timestamp,
    conversation: String,
    session: Option<String>,
    agent: Option<String>,
    label: Option<String>,
    /// What its bytes must be.
    sha256: Option<String>,
}

/// The states of one session.
pub(super) struct Session(Vec<State>);

/// Sessions that wait for a thread.
pub(super) struct Queue<'a> {
    sessions: Vec<Mutex<Session>>,
    next: AtomicUsize,
    /// What the store held before the import; nothing if it was empty.
    snapshot: Option<&'a Snapshot>,
}

impl<'a> Queue<'a> {
    pub(super) fn new(sessions: Vec<Session>, snapshot: &'a Snapshot) -> Queue<'a> {
        let is_empty = snapshot.rows.is_empty() && snapshot.unindexed.is_empty();
        let sessions = sessions.into_iter().map(Mutex::new).collect();
        Queue { sessions, next: AtomicUsize::new(0), snapshot: (!is_empty).then_some(snapshot) }
    }

    fn next(&self) -> Option<Session> {
        let session = self.sessions.get(self.next.fetch_add(1, Ordering::Relaxed))?;
        Some(Session(std::mem::take(&mut hold(session).0)))
    }
}

/// Groups all transcripts to sessions, in the order in which they first appear.
pub(super) fn sessions(
    job: &Job<'_>,
    probes: Vec<Probe>,
    entries: Vec<Entry>,
    layouts: &[Layout],
    pins: &Pins,
) -> Vec<Session> {
    let mut groups = Groups::default();
    for (order, entry) in entries.into_iter().enumerate().filter(|(_, entry)| job.fresh[entry.source]) {
        groups.add_listed(job, entry, order as u64 + 1);
    }
    for (source, probe) in probes.into_iter().enumerate() {
        let Probe::Transcript(head) = probe else { continue };
        let stem = || {
            let stem = job.sources[source].path.file_stem().unwrap_or_default();
            stem.to_string_lossy().into_owned()
        };
        match &job.sources[source].role {
            Role::Blob(layout, sha256) => {
                let records = layouts[*layout].records(sha256);
                records.iter().for_each(|record| groups.add_recorded(source, record));
                let is_recorded =
                    |conversation: &str| records.iter().any(|record| record.conversation_id == conversation);
                let mut conversations = pins.conversations(*layout, &layouts[*layout], sha256);
                conversations.retain(|(conversation, _)| !is_recorded(conversation));
                if records.is_empty() || !conversations.is_empty() {
                    groups.add_blob(job, source, head, sha256, conversations);
                }
            }
            Role::Unknown => groups.add_loose(job, source, head, stem()),
            _ => {}
        }
    }
    let mut sessions = groups.sessions;
    for session in &mut sessions {
        let bytes = |state: &State| job.sources[state.source].metadata.bytes;
        session.0.sort_by_key(|state| (state.order, state.time, bytes(state), state.source));
    }
    sessions
}

#[derive(Default)]
struct Groups {
    sessions: Vec<Session>,
    by_key: HashMap<String, usize>,
}

impl Groups {
    fn add(&mut self, key: String, state: State) {
        let next = self.sessions.len();
        let number = *self.by_key.entry(key).or_insert(next);
        if number == next {
            self.sessions.push(Session(Vec::new()));
        }
        self.sessions[number].0.push(state);
    }

    fn add_listed(&mut self, job: &Job<'_>, entry: Entry, order: u64) {
        let Entry { source, listed, manifest, line } = entry;
        let found = &job.sources[source];
        if listed.bytes.is_some_and(|bytes| bytes != found.metadata.bytes) {
            let (wanted, bytes) = (listed.bytes.unwrap_or_default(), found.metadata.bytes);
            job.note(source, None, format!("expected {wanted} bytes as its manifest says, found {bytes}"));
            return job.progress.advance(bytes);
        }
        let mut head = Head::default();
        if listed.agent.is_none() || listed.session.is_none() || listed.created_at.is_none() {
            let looked = SourceFile::open(job.store.env(), found)
                .and_then(|file| probe::transcript(&file, found.metadata.bytes));
            match looked {
                Ok(looked) => head = looked,
                Err(error) => {
                    job.note(manifest, Some(line), format!("cannot read `{}`: {error}", listed.file));
                    return job.progress.advance(found.metadata.bytes);
                }
            }
        }
        let stem = || found.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let session = listed.session.or(head.session).unwrap_or_else(stem);
        let agent = listed.agent.or(head.agent.map(str::to_owned));
        let state = State {
            source,
            order,
            time: listed.created_at.or(head.time).unwrap_or(found.metadata.modified),
            conversation: conversation(agent.as_deref(), &session, None),
            session: Some(session.clone()),
            agent,
            label: listed.checkpoint,
            sha256: listed.sha256,
        };
        // By session alone: where a manifest names its agent differently, the bytes still extend each other.
        self.add(format!("{manifest} {session}"), state);
    }

    fn add_blob(
        &mut self,
        job: &Job<'_>,
        source: usize,
        head: Head,
        sha256: &str,
        conversations: Vec<(String, Option<String>)>,
    ) {
        let state = State {
            source,
            order: 0,
            time: head.time.unwrap_or(job.sources[source].metadata.modified),
            conversation: String::new(),
            session: head.session,
            agent: head.agent.map(str::to_owned),
            label: Some(PEER.to_owned()),
            sha256: Some(sha256.to_owned()),
        };
        if conversations.is_empty() {
            // A trace that names it may follow.
            job.unsettle(source);
            let conversation = conversation(head.agent, sha256, None);
            let session = state.session.clone().or_else(|| Some(sha256.to_owned()));
            self.add(conversation.clone(), State { conversation, session, ..state });
            return;
        }
        for (conversation, session) in conversations {
            let state = State {
                conversation: conversation.clone(),
                session: session.or_else(|| state.session.clone()),
                agent: state.agent.clone(),
                label: state.label.clone(),
                sha256: state.sha256.clone(),
                ..state
            };
            self.add(conversation, state);
        }
    }

    /// A state of which the record came along, so that it becomes the same record again.
    fn add_recorded(&mut self, source: usize, record: &TranscriptRecord) {
        let state = State {
            source,
            order: 0,
            time: record.created_at,
            conversation: record.conversation_id.clone(),
            session: record.session_id.clone(),
            agent: record.agent.clone(),
            label: record.source.clone(),
            sha256: Some(record.content_sha256.clone()),
        };
        self.add(record.conversation_id.clone(), state);
    }

    fn add_loose(&mut self, job: &Job<'_>, source: usize, head: Head, stem: String) {
        let found = &job.sources[source];
        let session = head.session.unwrap_or(stem);
        // What Cursor writes names nobody; only its place says whose it is.
        let in_cursor = || found.path.components().any(|part| part.as_os_str() == "agent-transcripts");
        let head =
            Head { agent: head.agent.or_else(|| in_cursor().then_some("Cursor")), session: None, ..head };
        let conversation = conversation(head.agent, &session, head.part.as_deref());
        let label = found.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let state = State {
            source,
            order: 0,
            time: head.time.unwrap_or(found.metadata.modified),
            conversation: conversation.clone(),
            session: Some(session),
            agent: head.agent.map(str::to_owned),
            label,
            sha256: None,
        };
        self.add(conversation, state);
    }
}

/// Our key for the transcripts of a session; what a sub-agent writes has a key of its own.
pub(crate) fn conversation(agent: Option<&str>, session: &str, part: Option<&str>) -> String {
    let mut bytes = agent.unwrap_or_default().as_bytes().to_vec();
    for text in [Some(session), part].into_iter().flatten() {
        bytes.push(0);
        bytes.extend_from_slice(text.as_bytes());
    }
    ObjectId::of(&bytes).to_string()
}

/// Takes in sessions until there are no more.
pub(super) fn take(job: &Job<'_>, queue: &Queue<'_>, worker: &mut Worker<'_>) -> Result<()> {
    while let Some(Session(states)) = queue.next() {
        let mut chain = Chain::default();
        for state in &states {
            if job.is_stopped() {
                return Ok(());
            }
            chain.take(job, queue.snapshot, worker, state)?;
            job.progress.advance(job.sources[state.source].metadata.bytes);
        }
    }
    Ok(())
}

/// A transcript that the store holds, or has taken in just now.
struct Known {
    conversation: String,
    content: ObjectId,
    sha256: Option<String>,
    bytes: u64,
    time: Timestamp,
    /// Whether it was there before.
    is_stored: bool,
}

/// What is known of a session while its states are taken in.
#[derive(Default)]
struct Chain {
    known: Vec<Known>,
    looked_up: BTreeSet<String>,
    base: Before,
}

/// The state before the next one.
#[derive(Default)]
enum Before {
    #[default]
    Nothing,
    /// It is in the store.
    Stored(ObjectId),
    /// It has been taken in here.
    Taken(Base),
}

impl Chain {
    fn take(
        &mut self,
        job: &Job<'_>,
        snapshot: Option<&Snapshot>,
        worker: &mut Worker<'_>,
        state: &State,
    ) -> Result<()> {
        if job.since.is_some_and(|since| state.time < since) {
            job.count(state.source, Kind::TRANSCRIPT, 1);
            worker.skipped_since += 1;
            return Ok(());
        }
        if let Some(snapshot) = snapshot
            && self.looked_up.insert(state.conversation.clone())
        {
            self.look_up(job, snapshot, &state.conversation)?;
        }
        let source = &job.sources[state.source];
        let file = match SourceFile::open(job.store.env(), source) {
            Ok(file) => file,
            Err(error) => {
                job.note(state.source, None, format!("cannot open it: {error}"));
                return Ok(());
            }
        };
        let taken = match &job.redaction {
            None => self.take_file(job, worker, state, &file, source.metadata.bytes),
            Some(redaction) => {
                let dir = job.store.dir().join("tmp");
                redaction.file(job.store.env(), &file, source.metadata.bytes, &dir).and_then(|redacted| {
                    let (mut state, bytes) = (state.clone(), redacted.bytes);
                    if let Some(remark) = redacted.remark() {
                        // What a manifest says of the raw bytes is not true of these.
                        state.sha256 = None;
                        state.label =
                            Some(state.label.map_or(remark.clone(), |label| format!("{label} ({remark})")));
                    } else if bytes < source.metadata.bytes {
                        state.sha256 = None;
                    }
                    self.take_file(job, worker, &state, &redacted, bytes)
                })
            }
        };
        match taken {
            Err(error) if file.has_failed() => {
                job.note(state.source, None, with_cause(&error));
                Ok(())
            }
            taken => taken,
        }
    }

    fn take_file(
        &mut self,
        job: &Job<'_>,
        worker: &mut Worker<'_>,
        state: &State,
        file: &dyn File,
        bytes: u64,
    ) -> Result<()> {
        let may_be = |known: &&Known| known.bytes == bytes && known.conversation == state.conversation;
        if self.known.iter().any(|known| may_be(&known)) {
            let content = hash(file, bytes)?;
            // A long file is compared with one candidate, while it is taken in.
            let is_same =
                |known: &&Known| may_be(known) && content.is_none_or(|content| content == known.content);
            let is_long = content.is_none();
            if let Some(known) = self.known.iter().find(is_same) {
                // What was taken in just now is not in the store yet; the state before the next one stays as it is.
                if known.is_stored {
                    self.base = Before::Stored(known.content);
                }
                if !is_long || job.dry_run {
                    return note_known(job, worker, state, known.sha256.as_deref());
                }
            }
        }
        if job.dry_run {
            worker.taken.events += 1;
            job.count(state.source, Kind::TRANSCRIPT, 1);
            return self.note_new(file, state, bytes);
        }
        let base = self.base(job, bytes)?;
        let body = worker.intake.body(file, bytes, base.as_ref())?;
        if self.known.iter().any(|known| known.content == body.id && known.conversation == state.conversation)
        {
            self.base = Before::Taken(body.base);
            return note_known(job, worker, state, Some(&body.sha256));
        }
        if let Some(expected) = state.sha256.as_ref().filter(|expected| **expected != body.sha256) {
            job.note(state.source, None, wrong_hash(expected, &body.sha256));
            return Ok(());
        }
        if let Err(reason) = record(worker, state, &body)? {
            job.note(state.source, None, reason);
            return Ok(());
        }
        job.count(state.source, Kind::TRANSCRIPT, 1);
        self.known.push(Known {
            conversation: state.conversation.clone(),
            content: body.id,
            sha256: Some(body.sha256),
            bytes,
            time: state.time,
            is_stored: false,
        });
        self.base = Before::Taken(body.base);
        worker.intake.append_if_large()
    }

    /// What the next state may extend: the state before it, else the newest that is stored.
    fn base(&mut self, job: &Job<'_>, bytes: u64) -> Result<Option<Base>> {
        let stored = match std::mem::take(&mut self.base) {
            Before::Taken(base) => return Ok(Some(base)),
            Before::Stored(content) => Some(content),
            Before::Nothing => {
                let stored = self.known.iter().filter(|known| known.is_stored && known.bytes <= bytes);
                stored.max_by_key(|known| (known.time, known.bytes)).map(|known| known.content)
            }
        };
        match stored.map(|content| Base::of(job.store, content)).transpose() {
            // Its bytes are no longer here, or not yet there: taken in by this thread and not appended.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            base => base,
        }
    }

    /// Remembers what a dry run would have taken in.
    fn note_new(&mut self, file: &dyn File, state: &State, bytes: u64) -> Result<()> {
        if let Some(content) = hash(file, bytes)? {
            let (conversation, time) = (state.conversation.clone(), state.time);
            self.known.push(Known { conversation, content, sha256: None, bytes, time, is_stored: false });
        }
        Ok(())
    }

    /// Finds the transcripts that the store holds of a conversation.
    fn look_up(&mut self, job: &Job<'_>, snapshot: &Snapshot, conversation: &str) -> Result<()> {
        for found in question::named(job.store, snapshot, conversation, false)? {
            let fact = &found.event.fact;
            let (Kind::TRANSCRIPT, Some(content)) = (fact.kind, fact.objects.get(1)) else { continue };
            if fact.key != conversation {
                continue;
            }
            // What this version cannot read, or no longer has, is none that could be recognised.
            let Ok(record) = job.store.read(&found.record()) else { continue };
            let Ok(record) = TranscriptRecord::decode(&record) else { continue };
            self.known.push(Known {
                conversation: conversation.to_owned(),
                content: *content,
                sha256: Some(record.content_sha256),
                bytes: record.size,
                time: fact.time,
                is_stored: true,
            });
        }
        Ok(())
    }
}

/// Takes in the record of a transcript whose body has been taken in; the inner error is the record's.
fn record(worker: &mut Worker<'_>, state: &State, body: &Body) -> Result<Result<(), String>> {
    let transcript = TranscriptRecord {
        conversation_id: state.conversation.clone(),
        session_id: state.session.clone(),
        agent: state.agent.clone(),
        content_sha256: body.sha256.clone(),
        size: body.bytes,
        created_at: state.time,
        source: state.label.clone(),
    };
    let canonical = transcript.encode();
    match record::facts(Kind::TRANSCRIPT, &canonical) {
        Ok(facts) => {
            worker.intake.record(Kind::TRANSCRIPT, &canonical, &facts, state.time, &[body.id])?;
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(error.message().to_owned())),
    }
}

/// Counts a state that is known, unless it is not what it should be.
fn note_known(job: &Job<'_>, worker: &mut Worker<'_>, state: &State, sha256: Option<&str>) -> Result<()> {
    match (&state.sha256, sha256) {
        (Some(expected), Some(sha256)) if expected != sha256 => {
            job.note(state.source, None, wrong_hash(expected, sha256));
        }
        _ => {
            job.count(state.source, Kind::TRANSCRIPT, 1);
            worker.taken.known += 1;
        }
    }
    Ok(())
}

/// The id of a file's bytes, if it is short enough to be read at once.
fn hash(file: &dyn File, bytes: u64) -> Result<Option<ObjectId>> {
    if bytes > HASHED_BYTES_MAX {
        return Ok(None);
    }
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or_default()];
    match file.read_exact_at(&mut buffer, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(Error::invalid("it became shorter while it was read"));
        }
        Err(error) => return Err(Error::io("cannot read it", error)),
    }
    Ok(Some(ObjectId::of(&buffer)))
}

fn wrong_hash(expected: &str, found: &str) -> String {
    format!("expected bytes with SHA-256 `{expected}`, found `{found}`")
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
