//! From the spool into the store, each entry exactly once, in order of arrival.
//!
//! A batch is read, its traces and transcripts are appended and synced, and only then its entries go. A stop anywhere
//! in between leaves them where they are; then a trace whose id is in the log already is passed over. What cannot be
//! understood goes to `odd/`, what a newer version wrote stays. The store's lock is held for each append only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, Lock, LockMode};
use agent_trace_store::intake::Intake;
use agent_trace_store::lock::lock;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Error, ErrorKind, Kind, Result, Store, Timestamp};

use super::adapters::{self, Agent, Event};
use super::calls::{self, Calls};
use super::entry::{Entry, EntryKind, FileState};
use super::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, ENTRY_BYTES_MAX, TAIL_MICROS_MAX};
use super::payload::{self, Moment, Object};
use super::pushes::PUSHES;
use super::repository::{normalised, read_start};
use super::rollouts;
use super::spool::Spool;
use super::state::State;
use super::tail::{self, Mark};
use super::transcripts::{self, Conversation, Source};
use crate::edit::gist::gist;
use crate::edit::trace::{self, TraceEdits, TraceRecord};
use crate::edit::{self, Call, ToolEdit};
use crate::notes::attach::NoteSettings;
use crate::privacy::redact::Redaction;

/// Where git hooks wait for whoever links commits.
pub(crate) const GIT: &str = "git";

/// What was absorbed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Absorbed {
    /// Entries that are gone from the spool.
    pub(crate) entries: u64,
    /// Traces that the store did not hold.
    pub(crate) traces: u64,
    /// Whether the time was over before the spool was empty.
    pub(crate) is_cut_short: bool,
    /// The transcripts that were looked at.
    pub(crate) seen: BTreeMap<(Conversation, PathBuf), Timestamp>,
    /// Entries of a newer version, which stay.
    pub(crate) stay: HashSet<String>,
}

/// A project whose spool is absorbed.
pub(crate) struct Place<'a> {
    pub(crate) data: &'a Path,
    pub(crate) spool: &'a Spool,
    pub(crate) store: &'a Store,
}

impl Place<'_> {
    fn env(&self) -> &Env {
        self.store.env()
    }

    fn project(&self) -> Option<String> {
        self.data.file_name().map(|name| name.to_string_lossy().into_owned())
    }
}

/// Makes sure that nobody else absorbs; waits a while for whoever does.
pub(crate) fn alone(env: &Env, spool: &Spool, wait_micros_max: u64) -> Result<Box<dyn Lock>> {
    lock(env, &spool.path("absorb.lock"), LockMode::Exclusive, wait_micros_max)
}

/// Absorbs what waits, until there is nothing more or the time (of the monotonic clock) is over.
pub(crate) fn run(place: &Place<'_>, until: Option<u64>) -> Result<Absorbed> {
    let mut absorbed = Absorbed::default();
    // Where it cannot be read what the user wants, nothing is stored.
    let redaction = Redaction::of_project(place.env(), place.data)?;
    loop {
        let waiting = place.spool.waiting(place.env())?;
        let mut bytes = 0;
        let batch: Vec<String> = waiting
            .into_iter()
            .filter(|waiting| !absorbed.stay.contains(&waiting.name))
            .take(BATCH_ENTRIES_MAX)
            .enumerate()
            .take_while(|(number, waiting)| {
                bytes += waiting.bytes;
                *number == 0 || bytes <= BATCH_BYTES_MAX
            })
            .map(|(_, waiting)| waiting.name)
            .collect();
        if batch.is_empty() {
            break;
        }
        if until.is_some_and(|until| place.env().clock.monotonic_micros() >= until) {
            absorbed.is_cut_short = true;
            break;
        }
        let snapshot = place.store.snapshot()?;
        Batch::new(place, &snapshot, redaction.as_ref()).run(batch, &mut absorbed)?;
    }
    Ok(absorbed)
}

/// Brings transcripts up to date once more, after the last event that named them.
pub(crate) fn refresh(place: &Place<'_>, seen: &BTreeMap<(Conversation, PathBuf), Timestamp>) -> Result<()> {
    let grown = seen.iter().filter(|((_, path), _)| {
        let bytes = place.env().fs.metadata(path).map_or(0, |metadata| metadata.bytes);
        Mark::read(place.env(), place.spool, path).is_some_and(|mark| mark.offset < bytes)
    });
    let redaction = Redaction::of_project(place.env(), place.data)?;
    let snapshot = place.store.snapshot()?;
    let mut batch = Batch::new(place, &snapshot, redaction.as_ref());
    for ((conversation, path), time) in grown {
        let source =
            Source { conversation: conversation.clone(), path: path.clone(), tails: Vec::new(), time: *time };
        batch.take_transcript(&source)?;
    }
    batch.intake.append()?;
    batch.finish()
}

/// Removes what is of no use any more: left-overs, and what waits for the end of calls that will not come.
pub(crate) fn tidy(place: &Place<'_>) {
    let (env, spool) = (place.env(), place.spool);
    spool.remove_leftovers(env);
    let now = env.clock.now().micros();
    calls::tidy(env, spool);
    for entry in env.fs.list(&spool.path("tails")).unwrap_or_default() {
        let path = spool.path("tails").join(&entry.name);
        let modified = env.fs.metadata(&path).map(|metadata| metadata.modified.micros());
        if modified.is_ok_and(|modified| now - modified > TAIL_MICROS_MAX) {
            let _ = env.fs.remove(&path);
        }
    }
}

/// What becomes of an entry once the batch is durable.
enum Fate {
    Done,
    /// It cannot be understood, or not all of it.
    Odd(String),
    /// It is moved for somebody else to take.
    Move(PathBuf),
}

struct Batch<'p, 's> {
    place: &'p Place<'s>,
    snapshot: &'p Snapshot,
    redaction: Option<&'p Redaction>,
    intake: Intake<'p>,
    state: State,
    ids: HashSet<String>,
    marks: Vec<(PathBuf, Mark)>,
    calls: Calls<'p>,
    /// Transcripts that were looked for, by session.
    rollouts: HashMap<String, Option<PathBuf>>,
    traces: u64,
}

impl<'p, 's> Batch<'p, 's> {
    fn new(place: &'p Place<'s>, snapshot: &'p Snapshot, redaction: Option<&'p Redaction>) -> Batch<'p, 's> {
        Batch {
            redaction,
            intake: Intake::new(place.store),
            state: State::read(place.env(), place.data),
            place,
            snapshot,
            ids: HashSet::new(),
            marks: Vec::new(),
            calls: Calls::new(place.env(), place.spool),
            rollouts: HashMap::new(),
            traces: 0,
        }
    }

    fn run(mut self, names: Vec<String>, absorbed: &mut Absorbed) -> Result<()> {
        let mut entries = Vec::new();
        let mut fates: Vec<(String, Fate)> = Vec::new();
        for name in names {
            match read_entry(self.place.env(), &self.place.spool.path(&name)) {
                Ok(Some(entry)) => entries.push((name, entry)),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    self.place.spool.note(self.place.env(), &format!("`{name}`: {error}"));
                    absorbed.stay.insert(name);
                }
                Err(error) => fates.push((name, Fate::Odd(error.to_string()))),
            }
        }
        let events: Vec<Option<(Event, bool)>> = entries.iter().map(|(_, entry)| understand(entry)).collect();
        let told = told_by_tools(&entries, &events);
        let mut sources: BTreeMap<(Conversation, PathBuf), Source<'_>> = BTreeMap::new();
        for ((name, entry), event) in entries.iter().zip(&events) {
            let fate = match (entry.facts.kind, event) {
                (EntryKind::Git, _) => self.git(name, entry),
                (EntryKind::Agent, None) => Fate::Odd("nobody knows whose payload it is".to_owned()),
                (EntryKind::Agent, Some((event, is_whole))) => {
                    add_sources(entry, event, &mut sources);
                    if let Some(source) = self.untold_source(entry, event) {
                        sources.entry((source.conversation.clone(), source.path.clone())).or_insert(source);
                    }
                    match self.event(name, entry, event, &told)? {
                        Fate::Done if !is_whole => Fate::Odd("its payload is cut off or broken".to_owned()),
                        fate => fate,
                    }
                }
            };
            fates.push((name.clone(), fate));
        }
        for ((conversation, path), source) in sources {
            self.take_transcript(&source)?;
            let time = absorbed.seen.entry((conversation, path)).or_insert(source.time);
            *time = source.time.max(*time);
        }
        for (begun, to) in self.calls.not_ended() {
            if let Some((_, fate)) = fates.iter_mut().find(|(name, _)| *name == begun) {
                *fate = Fate::Move(to);
            }
        }
        // From here on what the entries said is safe.
        self.intake.append()?;
        absorbed.traces += self.traces;
        let (env, spool, redaction) = (self.place.env().clone(), self.place.spool, self.redaction);
        self.finish()?;
        for (name, fate) in fates {
            let path = spool.path(&name);
            let doing = |error| Error::io(format!("cannot clear `{}`", path.display()), error);
            match fate {
                Fate::Done => env.fs.remove(&path).map_err(doing)?,
                Fate::Odd(why) if redaction.is_none_or(|redaction| !holds_secret(&env, redaction, &path)) => {
                    spool.put_aside(&env, &name, &why)?;
                }
                Fate::Odd(why) => {
                    spool.note(&env, &format!("`{name}`: {why}; it held a secret, and is gone"));
                    env.fs.remove(&path).map_err(doing)?;
                }
                Fate::Move(to) => {
                    env.fs.create_dir_all(to.parent().unwrap_or(spool.dir())).map_err(doing)?;
                    env.fs.rename(&path, &to).map_err(doing)?;
                }
            }
            absorbed.entries += 1;
        }
        Ok(())
    }

    /// Notes what goes with what is durable now.
    fn finish(mut self) -> Result<()> {
        let env = self.place.env();
        self.state.write(env)?;
        for (path, mark) in &self.marks {
            // Without it the next hook takes more than it must.
            let _ = mark.write(env, self.place.spool, path);
        }
        self.calls.clear();
        Ok(())
    }

    /// The transcript of a session whose hooks do not name it.
    fn untold_source(&mut self, entry: &Entry, event: &Event) -> Option<Source<'static>> {
        let session =
            event.session.clone().filter(|_| event.agent == Agent::Codex && entry.tails.is_empty())?;
        let env = self.place.env();
        let path =
            self.rollouts.entry(session.clone()).or_insert_with(|| rollouts::find(env, &session)).clone()?;
        let conversation = Conversation { agent: event.agent, session, part: None };
        Some(Source { conversation, path, tails: Vec::new(), time: entry.facts.arrived })
    }

    /// A git hook: what links commits comes for it later.
    fn git(&mut self, name: &str, entry: &Entry) -> Fate {
        self.state.heard(&format!("git/{}", entry.facts.name), &entry.facts.name, entry.facts.arrived);
        match entry.facts.name.as_str() {
            "post-commit" | "post-rewrite" => Fate::Move(self.place.spool.path(GIT).join(name)),
            "pre-push" if NoteSettings::read(self.place.env(), self.place.data).push => {
                Fate::Move(self.place.spool.path(PUSHES).join(name))
            }
            _ => Fate::Done,
        }
    }

    fn event(
        &mut self,
        name: &str,
        entry: &Entry,
        event: &Event,
        told: &HashSet<(String, PathBuf)>,
    ) -> Result<Fate> {
        self.state.heard(event.agent.name(), &event.name, entry.facts.arrived);
        let paths = paths_of(entry);
        if event.moment == Moment::Before && !entry.files.is_empty() {
            self.calls.begin(event, name, entry);
            // Unless its end comes in this batch, it will be moved.
            return Ok(Fate::Done);
        }
        if matches!(payload::plain(&event.name).as_str(), "posttoolusefailure" | "stop" | "sessionend") {
            self.calls.forget(event);
        }
        let is_told = |path: &PathBuf| {
            event.session.clone().is_some_and(|session| told.contains(&(session, path.clone())))
        };
        if event.moment != Moment::After || event.edits.is_empty() {
            return Ok(Fate::Done);
        }
        if event.is_second_telling && !paths.is_empty() && paths.iter().all(is_told) {
            return Ok(Fate::Done);
        }
        let Some(session) = event.session.clone() else {
            return Ok(Fate::Odd("an edit of no session".to_owned()));
        };
        match self.trace(entry, event, &session, &paths) {
            Ok(()) => Ok(Fate::Done),
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(Fate::Odd(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Makes the trace of a call, unless the store has it.
    fn trace(&mut self, entry: &Entry, event: &Event, session: &str, paths: &[PathBuf]) -> Result<()> {
        let id = trace::trace_id(
            event.agent.name(),
            session,
            event.tool_use.as_deref(),
            "PostToolUse",
            &entry.payload,
        );
        let main = Conversation { agent: event.agent, session: session.to_owned(), part: None };
        let next = self.next(&main, session, entry.facts.arrived)?;
        let befores = self.calls.end(event, paths);
        if self.ids.contains(&id) {
            return Ok(());
        }
        if let Some(sequence) = self.stored(&id)? {
            let session = self.state.session(&main.key(), entry.facts.arrived);
            session.next = session.next.max(sequence + 1);
            return Ok(());
        }
        let edits: Vec<(String, ToolEdit)> =
            event.edits.iter().filter_map(|edit| complete(self.place.env(), entry, edit, &befores)).collect();
        if edits.is_empty() {
            // All of it happened outside the repository.
            return Ok(());
        }
        let mut call = self.call(entry, event, &main, next);
        if call.tool_use.is_none() {
            call.gist = Some(gist(edits.iter().map(|(name, edit)| (name.as_str(), &edit.change))));
        }
        let files: Vec<_> = edits.into_iter().map(|(name, edit)| (name, edit::resolve(&edit))).collect();
        let TraceRecord { id, canonical } = trace::encode(&id, &call, &files)?;
        let redacted = self.redaction.and_then(|redaction| redaction.bytes(&canonical));
        let canonical = redacted.map_or(canonical, |(redacted, _)| redacted);
        let facts = record::facts(Kind::TRACE, &canonical)?;
        self.intake.record(Kind::TRACE, &canonical, &facts, entry.facts.arrived, &[])?;
        self.state.session(&main.key(), entry.facts.arrived).next = next + 1;
        self.ids.insert(id);
        self.traces += 1;
        Ok(())
    }

    fn call(&mut self, entry: &Entry, event: &Event, main: &Conversation, sequence: u64) -> Call {
        let own = Conversation { part: event.agent_id.clone(), ..main.clone() };
        let tail =
            entry.tails.iter().rev().find(|tail| conversation_of(event, &tail.path).as_ref() == Some(&own));
        let tail = tail.or(entry.tails.first());
        let (mut model, mut version) = (event.model.clone(), event.agent_version.clone());
        if let Some(tail) = tail.filter(|_| model.is_none()) {
            let said = transcripts::look_back(self.place.env(), &tail.path, event.tool_use.as_deref());
            (model, version) = (said.model, version.or(said.version));
        }
        let session = self.state.session(&own.key(), entry.facts.arrived);
        for (value, known) in [(&mut model, &mut session.model), (&mut version, &mut session.version)] {
            match value {
                Some(value) => *known = Some(value.clone()),
                None => value.clone_from(known),
            }
        }
        Call {
            agent: event.agent.name().to_owned(),
            agent_version: version,
            model,
            session: main.session.clone(),
            conversation: own.key(),
            tool: event.tool.clone().unwrap_or_else(|| event.name.clone()),
            tool_use: event.tool_use.clone(),
            gist: None,
            event: event.name.clone(),
            time: entry.facts.arrived,
            sequence,
            revision: entry.facts.revision.clone(),
            branch: entry.facts.branch.clone(),
            transcript_bytes: tail.map(|tail| tail.size),
            agent_id: event.agent_id.clone(),
            project: self.place.project(),
        }
    }

    /// The number of the next edit of a session: remembered, else counted.
    fn next(&mut self, main: &Conversation, session: &str, time: Timestamp) -> Result<u64> {
        let key = main.key();
        if !self.state.sessions.contains_key(&key) {
            let query =
                Query { kind: Some(Kind::TRACE), session: Some(session.to_owned()), ..Query::default() };
            let count = question::list(self.place.store, self.snapshot, &query)?.len() as u64;
            self.state.session(&key, time).next = count;
        }
        Ok(self.state.session(&key, time).next)
    }

    /// The number of a trace that the store holds.
    fn stored(&self, id: &str) -> Result<Option<u64>> {
        let found = question::named(self.place.store, self.snapshot, id, false)?;
        let found = found.into_iter().find(|found| {
            let fact = &found.event.fact;
            fact.kind == Kind::TRACE && fact.key == id
        });
        let Some(found) = found else { return Ok(None) };
        let bytes = self.place.store.read(&found.record())?;
        Ok(Some(TraceEdits::read(found.record(), &bytes).map_or(0, |edits| edits.sequence)))
    }

    fn take_transcript(&mut self, source: &Source<'_>) -> Result<()> {
        let Place { store, spool, .. } = *self.place;
        let outcome =
            match transcripts::take(store, self.snapshot, spool, &mut self.intake, self.redaction, source) {
                Ok(outcome) => outcome,
                // It may be changing this very moment; the next flush finds it again.
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    let said = format!("transcript `{}`: {error}", source.path.display());
                    transcripts::Outcome { mark: None, said: Some(said) }
                }
                Err(error) => return Err(error),
            };
        if let Some(mark) = outcome.mark {
            if self.redaction.is_some() {
                // What events bring of a file that is lost goes behind this state.
                self.marks.push((transcripts::redacted_name(&source.path), mark));
            }
            self.marks.push((source.path.clone(), mark));
        }
        let session = self.state.session(&source.conversation.key(), source.time);
        if session.said != outcome.said {
            session.said.clone_from(&outcome.said);
            if let Some(said) = &outcome.said {
                spool.note(self.place.env(), said);
            }
        }
        Ok(())
    }
}

/// Who is heard of in an entry that waits, by which event, and when.
pub(crate) fn heard_in(env: &Env, path: &Path) -> Option<(String, String, Timestamp)> {
    let entry = read_entry(env, path).ok()??;
    let (name, event) = match entry.facts.kind {
        EntryKind::Git => (format!("git/{}", entry.facts.name), entry.facts.name.clone()),
        EntryKind::Agent => {
            let (event, _) = understand(&entry)?;
            (event.agent.name().to_owned(), event.name)
        }
    };
    Some((name, event, entry.facts.arrived))
}

/// Whether an entry holds a secret that must not be kept.
fn holds_secret(env: &Env, redaction: &Redaction, path: &Path) -> bool {
    let Ok(bytes) = read_start(env.fs.as_ref(), path, ENTRY_BYTES_MAX + 1) else { return false };
    redaction.bytes(&bytes).is_some()
}

/// Reads an entry; nothing if it is gone.
pub(super) fn read_entry(env: &Env, path: &Path) -> Result<Option<Entry>> {
    match read_start(env.fs.as_ref(), path, ENTRY_BYTES_MAX + 1) {
        Ok(bytes) => Entry::decode(&bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    }
}

/// Understands an agent's event, and says whether all of its payload was there.
fn understand(entry: &Entry) -> Option<(Event, bool)> {
    let text = payload::readable(&entry.payload);
    let object = Object::read(&text);
    let event = adapters::read(&object, &entry.facts.name, &entry.facts.argument)?;
    Some((event, object.is_complete && !entry.facts.is_cut))
}

/// The sessions and files of which the use of a tool has been told in this batch.
fn told_by_tools(
    entries: &[(String, Entry)],
    events: &[Option<(Event, bool)>],
) -> HashSet<(String, PathBuf)> {
    let mut told = HashSet::new();
    for ((_, entry), event) in entries.iter().zip(events) {
        let Some((event, _)) = event else { continue };
        if event.moment == Moment::After && !event.is_second_telling && !event.edits.is_empty() {
            let Some(session) = &event.session else { continue };
            told.extend(paths_of(entry).into_iter().map(|path| (session.clone(), path)));
        }
    }
    told
}

pub(super) fn paths_of(entry: &Entry) -> Vec<PathBuf> {
    entry.files.iter().map(|file| file.path.clone()).collect()
}

/// Whose transcript a path is, in an event.
fn conversation_of(event: &Event, path: &Path) -> Option<Conversation> {
    let session = event.session.clone()?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_below = path.parent().and_then(Path::file_name).is_some_and(|name| name == "subagents");
    let part = stem.strip_prefix("agent-").filter(|_| is_below).map(str::to_owned);
    Some(Conversation { agent: event.agent, session, part })
}

/// Adds the transcripts that an entry names, each with what it took of them.
fn add_sources<'e>(
    entry: &'e Entry,
    event: &Event,
    sources: &mut BTreeMap<(Conversation, PathBuf), Source<'e>>,
) {
    for tail in &entry.tails {
        let Some(conversation) = conversation_of(event, &tail.path) else { continue };
        let source = sources.entry((conversation.clone(), tail.path.clone())).or_insert_with(|| Source {
            conversation,
            path: tail.path.clone(),
            tails: Vec::new(),
            time: entry.facts.arrived,
        });
        source.tails.push(tail);
        source.time = source.time.max(entry.facts.arrived);
    }
}

/// An edit with what hooks saw of its file, and the file's name in the repository; nothing for a file outside.
fn complete(
    env: &Env,
    entry: &Entry,
    edit: &ToolEdit,
    befores: &BTreeMap<PathBuf, FileState>,
) -> Option<(String, ToolEdit)> {
    let path = normalised(&entry.facts.directory.join(&edit.path));
    let name = path.strip_prefix(&entry.facts.root).ok().filter(|_| entry.facts.root.is_absolute())?;
    if name.as_os_str().is_empty() || name.starts_with(".git") {
        return None;
    }
    let name = name.to_string_lossy().into_owned();
    let mut edit = edit.clone();
    if edit.before.is_none() {
        edit.before = befores.get(&path).and_then(content);
    }
    if edit.after.is_none() {
        let after = entry.files.iter().find(|file| file.path == path);
        edit.after = after.and_then(|file| match &file.state {
            FileState::Absent => None,
            FileState::Hashed(bytes, hash) => unchanged(env, &path, *bytes, hash),
            state => content(state),
        });
    }
    Some((name, edit))
}

/// What a file that was too large for its entry held, if it still holds that.
fn unchanged(env: &Env, path: &Path, bytes: u64, hash: &[u8; 32]) -> Option<Vec<u8>> {
    let now = read_start(env.fs.as_ref(), path, bytes + 1).ok()?;
    (now.len() as u64 == bytes && tail::hash(&now) == *hash).then_some(now)
}

/// What a file held; nothing where that is not known.
fn content(state: &FileState) -> Option<Vec<u8>> {
    match state {
        FileState::Absent => Some(Vec::new()),
        FileState::Whole(bytes) => Some(bytes.clone()),
        _ => None,
    }
}
