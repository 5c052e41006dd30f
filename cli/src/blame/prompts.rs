//! From a trace to what was said: the transcript of its conversation, the call in it, and the prompt before.

use std::collections::HashMap;
use std::rc::Rc;

use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, ObjectId, Result, Store};
use serde::Deserialize;

use super::traces::TraceFacts;
use crate::transcript::{self, Role, Turn};

/// Transcripts of one session that are looked at.
const SESSION_TRANSCRIPTS_MAX: usize = 16;

/// Transcripts that are kept while others are read.
const TRANSCRIPTS_KEPT: usize = 8;

/// A transcript that a store holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// What its record says.
    pub(crate) record: TranscriptRecord,
    /// Its bytes.
    pub(crate) body: ObjectId,
}

/// A transcript that has been read.
pub(crate) struct Transcript {
    /// Where it stands.
    pub(crate) held: Held,
    /// What was said.
    pub(crate) turns: Vec<Turn>,
    /// Its length in characters.
    pub(crate) characters: u64,
    /// Its lines.
    pub(crate) lines: u64,
}

/// A place in a conversation.
#[derive(Clone)]
pub(crate) struct Said {
    /// The transcript.
    pub(crate) transcript: Rc<Transcript>,
    /// The turn that made the edit.
    pub(crate) at: usize,
    /// The prompt that it answers to.
    pub(crate) prompt: Option<usize>,
}

impl Said {
    /// The text of the prompt.
    pub(crate) fn prompt(&self) -> Option<&str> {
        self.prompt.map(|at| self.transcript.turns[at].text.as_str())
    }
}

/// A conversation and a session, as far as they are known.
type Key = (Option<String>, Option<String>);

/// A reader of transcripts, each once.
pub(crate) struct Conversations<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    held: HashMap<Key, Rc<Vec<Held>>>,
    read: HashMap<ObjectId, Rc<Transcript>>,
    summaries: HashMap<String, Option<String>>,
    fetch: Option<Fetch<'a>>,
}

/// Brings bytes here that a pull left out.
type Fetch<'a> = &'a dyn Fn(&ObjectId) -> Result<()>;

impl<'a> Conversations<'a> {
    /// Looks at a store as it was then.
    pub(crate) fn new(store: &'a Store, snapshot: &'a Snapshot) -> Conversations<'a> {
        let (held, read, summaries) = Default::default();
        Conversations { store, snapshot, held, read, summaries, fetch: None }
    }

    /// The same, but transcripts that a pull left out are fetched where they are needed; otherwise they are passed over.
    pub(crate) fn fetching(mut self, fetch: Fetch<'a>) -> Conversations<'a> {
        self.fetch = Some(fetch);
        self
    }

    /// What it looks at.
    pub(crate) fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The newest transcripts of a conversation; where there is none, those of the session.
    pub(crate) fn held(
        &mut self,
        conversation: Option<&str>,
        session: Option<&str>,
    ) -> Result<Rc<Vec<Held>>> {
        let key = (conversation.map(str::to_owned), session.map(str::to_owned));
        if let Some(known) = self.held.get(&key) {
            return Ok(known.clone());
        }
        let mut all = Vec::new();
        if let Some(conversation) = conversation {
            let found = question::keyed(self.store, self.snapshot, Kind::TRANSCRIPT, &[conversation])?;
            all.extend(self.newest(&found[0])?);
        }
        if let (true, Some(session)) = (all.is_empty(), session) {
            let query = Query {
                kind: Some(Kind::TRANSCRIPT),
                session: Some(session.to_owned()),
                limit: Some(256),
                ..Query::default()
            };
            let mut by_key: Vec<(String, Vec<Found>)> = Vec::new();
            for found in question::list(self.store, self.snapshot, &query)? {
                let key = &found.event.fact.key;
                match by_key.iter_mut().find(|(known, _)| known == key) {
                    Some((_, versions)) => versions.push(found),
                    None => by_key.push((key.clone(), vec![found])),
                }
            }
            for (_, versions) in by_key.iter().take(SESSION_TRANSCRIPTS_MAX) {
                all.extend(self.newest(versions)?);
            }
        }
        let all = Rc::new(all);
        self.held.insert(key, all.clone());
        Ok(all)
    }

    /// The version of a transcript that answers, if its bytes are here or can be fetched.
    fn newest(&self, versions: &[Found]) -> Result<Option<Held>> {
        let mut with_bytes: Vec<Found> =
            versions.iter().filter(|found| found.event.fact.objects.len() > 1).cloned().collect();
        if let (Some(fetch), Some(found)) = (self.fetch, question::choose(Kind::TRANSCRIPT, &with_bytes)) {
            fetch(&found.event.fact.objects[1])?;
        }
        let bodies: Vec<ObjectId> = with_bytes.iter().map(|found| found.event.fact.objects[1]).collect();
        let mut here = self.store.contains_all(&bodies)?.into_iter();
        with_bytes.retain(|_| here.next().unwrap_or(false));
        let Some(found) = question::choose(Kind::TRANSCRIPT, &with_bytes) else { return Ok(None) };
        let Ok(record) = TranscriptRecord::decode(&self.store.read(&found.record())?) else {
            return Ok(None);
        };
        Ok(Some(Held { record, body: found.event.fact.objects[1] }))
    }

    /// Reads a transcript.
    pub(crate) fn read(&mut self, held: &Held) -> Result<Rc<Transcript>> {
        if let Some(known) = self.read.get(&held.body) {
            return Ok(known.clone());
        }
        if self.read.len() >= TRANSCRIPTS_KEPT {
            self.read.clear();
        }
        let bytes = self.store.read(&held.body)?;
        let read = Rc::new(Transcript {
            held: held.clone(),
            turns: transcript::turns(&bytes).collect(),
            characters: String::from_utf8_lossy(&bytes).chars().count() as u64,
            lines: memchr::memchr_iter(b'\n', &bytes).count() as u64,
        });
        self.read.insert(held.body, read.clone());
        Ok(read)
    }

    /// Where in its conversation a trace was made; nothing where its transcript is not here.
    pub(crate) fn said(&mut self, trace: &TraceFacts, conversation: Option<&str>) -> Result<Option<Said>> {
        let held = self.held(conversation, trace.session.as_deref())?;
        let mut by_time = None;
        for held in held.iter() {
            let transcript = self.read(held)?;
            let by_id = transcript::find(&transcript.turns, trace.tool_use.as_deref(), None);
            let at = by_id.or_else(|| transcript::find(&transcript.turns, None, trace.time));
            let Some(at) = at else { continue };
            let prompt = transcript::prompt_of(&transcript.turns, at);
            let said = Said { transcript, at, prompt };
            if by_id.is_some() {
                return Ok(Some(said));
            }
            by_time.get_or_insert(said);
        }
        Ok(by_time)
    }

    /// The first prompt of a conversation.
    pub(crate) fn first_prompt(transcript: &Transcript) -> Option<&str> {
        transcript.turns.iter().find(|turn| turn.role == Role::User).map(|turn| turn.text.as_str())
    }

    /// The newest summary of a conversation.
    pub(crate) fn summary(&mut self, conversation: &str) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Summary {
            summary: String,
        }
        if let Some(known) = self.summaries.get(conversation) {
            return Ok(known.clone());
        }
        let mut found = question::named(self.store, self.snapshot, conversation, true)?;
        found.retain(|found| found.event.fact.kind == Kind::SUMMARY);
        let summary = match question::choose(Kind::SUMMARY, &found) {
            Some(chosen) => serde_json::from_slice::<Summary>(&self.store.read(&chosen.record())?).ok(),
            None => None,
        };
        let summary = summary.map(|summary| summary.summary);
        self.summaries.insert(conversation.to_owned(), summary.clone());
        Ok(summary)
    }
}
