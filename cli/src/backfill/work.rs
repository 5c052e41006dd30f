//! The run: finds, chooses, imports transcripts, reads calls in parallel, and writes traces in a fixed order.
//!
//! Sessions are taken in portions of bounded size. What a portion gave is durable before its files count as read, so a
//! run that was stopped goes on where it was.

use std::collections::{HashMap, HashSet};

use agent_trace_store::env::Env;
use agent_trace_store::intake::Intake;
use agent_trace_store::progress::Progress;
use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::record;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, Result, Store, Timestamp};
use rayon::prelude::*;

use super::agents::{self, Done, Reader, Told};
use super::files::{Files, History};
use super::places::{self, Candidate};
use super::sessions::{self, Session};
use super::tree::Tree;
use super::{Calls, Options, Place, Report, Skipped, done, lines};
use crate::capture::adapters::Agent;
use crate::edit::gist::gist;
use crate::edit::trace::{self, TraceEdits, TraceRecord};
use crate::edit::{self, Call, ToolEdit};
use crate::import;

/// Bytes of sessions that one portion reads; a single session may be longer.
const PORTION_BYTES: u64 = 96 << 20;
/// The longest file that is one value.
const VALUE_BYTES_MAX: u64 = 256 << 20;

/// How far the time in a session may be from that at which a hook told of the same call.
const APART_MICROS_MAX: u64 = 600_000_000;

/// Brings in what agents have left; linking is the caller's.
pub(crate) fn run(place: &Place<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    let (store, env) = (place.store, place.store.env());
    let began = env.clock.now();
    let found = places::find(env, place.homes, options);
    let tree = Tree::of(place.git);
    let mode = mode(options, &tree);
    let fresh = done::fresh(store, &found.candidates, options.since, &mode)?;
    let mut report = Report {
        files: found.candidates.len() as u64,
        bytes: found.candidates.iter().map(|candidate| candidate.metadata.bytes).sum(),
        unchanged: fresh.iter().filter(|fresh| !**fresh).count() as u64,
        skipped: found.skipped,
        ..Report::default()
    };
    if !fresh.contains(&true) {
        return Ok(report);
    }
    let chosen = sessions::choose(env, &tree, options, &found.candidates, &fresh);
    (report.elsewhere, report.skipped_since) = (chosen.elsewhere.len() as u64, chosen.old);
    report.skipped.extend(chosen.skipped);
    for session in &chosen.sessions {
        report.sessions += 1;
        *report.by_agent.entry(session.agent.name()).or_default() += 1;
    }
    import_transcripts(store, options, &found.candidates, &chosen.sessions, progress, &mut report)?;
    let history = place.git.and_then(|git| History::of(git).ok());
    let work = Work { env, options, tree: &tree, history, candidates: &found.candidates };
    let bytes = chosen.sessions.iter().map(|session| work.bytes(session)).sum();
    progress.start("reading edits", Some(bytes));
    let snapshot = store.snapshot()?;
    let mut taking = Taking::new(store, &snapshot)?;
    for portion in portions(&work, &chosen.sessions) {
        let read: Vec<Outcome> = portion
            .par_iter()
            .map(|session| {
                let outcome = work.read(session);
                progress.advance(work.bytes(session));
                outcome
            })
            .collect();
        let mut settled = Vec::new();
        for (session, outcome) in portion.iter().zip(read) {
            if outcome.skipped.is_empty() {
                settled
                    .extend(session.read.iter().chain(&session.covered).map(|file| &found.candidates[*file]));
            }
            taking.take(session, outcome, options.dry_run, &mut report)?;
        }
        if !options.dry_run {
            taking.finish(&report)?;
            done::note(store, &settled, options.since, &mode, began)?;
        }
    }
    if !options.dry_run {
        let elsewhere: Vec<&Candidate> =
            chosen.elsewhere.iter().map(|file| &found.candidates[*file]).collect();
        done::note(store, &elsewhere, options.since, &mode, began)?;
    }
    progress.finish();
    report.skipped.sort();
    Ok(report)
}

/// What the choice of sessions depends on, besides the files.
fn mode(options: &Options, tree: &Tree<'_>) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for root in tree.roots() {
        hasher.update(root.as_os_str().as_encoded_bytes()).update(b"\0");
    }
    [&[u8::from(options.project)], hasher.finalize().as_bytes().as_slice()].concat()
}

fn portions<'s>(work: &Work<'_>, sessions: &'s [Session]) -> Vec<&'s [Session]> {
    let (mut portions, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (number, session) in sessions.iter().enumerate() {
        bytes += work.bytes(session);
        if bytes >= PORTION_BYTES || number + 1 == sessions.len() {
            portions.push(&sessions[start..=number]);
            (start, bytes) = (number + 1, 0);
        }
    }
    portions
}

/// Takes the transcripts of the chosen sessions in, as `import` does.
fn import_transcripts(
    store: &Store,
    options: &Options,
    candidates: &[Candidate],
    sessions: &[Session],
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<()> {
    // A session of OpenCode is many files, none of which is its transcript.
    let whole = sessions.iter().filter(|session| session.agent != Agent::OpenCode);
    let files = whole.flat_map(|session| session.read.iter().chain(&session.covered));
    let mut paths: Vec<_> = files.map(|file| candidates[*file].path.clone()).collect();
    paths.sort();
    if paths.is_empty() {
        return Ok(());
    }
    let options = import::Options {
        paths,
        since: options.since,
        dry_run: options.dry_run,
        index: !options.dry_run,
        redaction: options.redaction.clone(),
    };
    let imported = import::run(store, &options, progress)?;
    report.transcripts = imported.added;
    let bad = imported.bad.into_iter().filter(|bad| !bad.kept);
    report.skipped.extend(bad.map(|bad| Skipped { file: bad.file, line: bad.line, reason: bad.reason }));
    Ok(())
}

/// A trace that a session tells of.
struct ToldTrace {
    record: TraceRecord,
    time: Timestamp,
    gist: String,
}

/// What one session gave.
#[derive(Default)]
struct Outcome {
    traces: Vec<ToldTrace>,
    calls: Calls,
    skipped: Vec<Skipped>,
}

/// What all threads share.
struct Work<'a> {
    env: &'a Env,
    options: &'a Options,
    tree: &'a Tree<'a>,
    history: Option<History>,
    candidates: &'a [Candidate],
}

impl Work<'_> {
    fn bytes(&self, session: &Session) -> u64 {
        session.read.iter().map(|file| self.candidates[*file].metadata.bytes).sum()
    }

    fn read(&self, session: &Session) -> Outcome {
        let mut outcome = Outcome::default();
        let mut taker =
            Taker { work: self, session, files: Files::default(), seen: HashSet::new(), sequence: 0 };
        // The shorter ones come first: what was rewritten later is the longer.
        for file in session.read.iter().rev() {
            let candidate = &self.candidates[*file];
            if let Err(error) = self.read_file(candidate, &mut taker, &mut outcome) {
                let reason = format!("cannot read it: {error}");
                outcome.skipped.push(Skipped { file: candidate.path.clone(), line: None, reason });
            }
        }
        outcome
    }

    fn read_file(
        &self,
        candidate: &Candidate,
        taker: &mut Taker<'_>,
        outcome: &mut Outcome,
    ) -> std::io::Result<()> {
        let mut told = Told::default();
        let agent = taker.session.agent;
        if agent == Agent::OpenCode {
            agents::opencode::read(self.env, &candidate.path, &mut told)?;
            taker.take(&mut told, candidate, outcome);
            return Ok(());
        }
        let mut reader = Reader::of(agent);
        let file = self.env.fs.open(&candidate.path)?;
        let bytes = candidate.metadata.bytes;
        let is_value = reader.is_whole() && candidate.path.extension().is_none_or(|ending| ending != "jsonl");
        if is_value || (reader.is_whole() && is_over_many_lines(&*file)?) {
            if bytes > VALUE_BYTES_MAX {
                return Err(std::io::Error::other(format!(
                    "expected at most {VALUE_BYTES_MAX} bytes, found {bytes}"
                )));
            }
            let whole = crate::capture::repository::read(&*file, 0, bytes)?;
            reader.line(&whole, bytes, &mut told);
            taker.take(&mut told, candidate, outcome);
            return Ok(());
        }
        let mut buffer = Vec::new();
        let mut broken = None;
        let read = lines::each(&*file, bytes, &mut buffer, &mut |number, behind, line| {
            reader.line(line, behind, &mut told);
            // The last line may still be written.
            if std::mem::take(&mut told.broken) > 0 && behind < bytes {
                broken.get_or_insert(number);
            }
            if !told.done.is_empty() || told.failed > 0 {
                taker.take(&mut told, candidate, outcome);
            }
        })?;
        let mut skip = |line: Option<u64>, reason: &str| {
            outcome.skipped.push(Skipped { file: candidate.path.clone(), line, reason: reason.to_owned() });
        };
        if read.too_long > 0 {
            skip(None, "a line is too long to be read");
        }
        if broken.is_some() {
            skip(broken, "a line that tells of an edit is no JSON");
        }
        Ok(())
    }
}

/// Whether the first line is no value by itself.
fn is_over_many_lines(file: &dyn agent_trace_store::env::File) -> std::io::Result<bool> {
    let start = crate::capture::repository::read(file, 0, 4096)?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(line.trim_ascii() == b"{" || line.trim_ascii() == b"[")
}

/// Makes traces of the calls of one session, in their order.
struct Taker<'w> {
    work: &'w Work<'w>,
    session: &'w Session,
    files: Files,
    seen: HashSet<String>,
    sequence: u64,
}

impl Taker<'_> {
    fn take(&mut self, told: &mut Told, candidate: &Candidate, outcome: &mut Outcome) {
        outcome.calls.failed += std::mem::take(&mut told.failed);
        for call in told.done.drain(..) {
            outcome.calls.found += 1;
            let sequence = self.sequence;
            self.sequence += 1;
            match self.trace(call, sequence, candidate, outcome) {
                Ok(()) => {}
                Err(error) => {
                    let reason = format!("an edit cannot be kept: {error}");
                    outcome.skipped.push(Skipped { file: candidate.path.clone(), line: None, reason });
                }
            }
        }
    }

    fn trace(
        &mut self,
        call: Done,
        sequence: u64,
        candidate: &Candidate,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let agent = self.session.agent.name();
        let session = call.session.clone().unwrap_or_else(|| self.session.session.clone());
        let id = trace::trace_id(agent, &session, call.tool_use.as_deref(), "PostToolUse", &call.payload);
        let time = call.time.unwrap_or(candidate.metadata.modified);
        let folder = call.folder.clone().unwrap_or_else(|| self.session.folder.clone());
        let is_seen = !self.seen.insert(id.clone());
        let name = |edit: &ToolEdit| self.work.tree.name(&self.session.root, &folder, &edit.path);
        let named = call.edits.into_iter().filter_map(|edit| Some((name(&edit)?, edit)));
        let mut files: Vec<(String, ToolEdit)> = named.collect();
        let gist = gist(files.iter().map(|(name, edit)| (name.as_str(), &edit.change)));
        for (name, edit) in files.iter_mut().filter(|_| !is_seen) {
            let at = (call.revision.as_deref(), call.branch.as_deref(), time);
            self.files.complete(self.work.history.as_ref(), edit, name, at);
            self.files.edited(edit, name);
        }
        let count = match () {
            () if is_seen => &mut outcome.calls.known,
            () if files.is_empty() => &mut outcome.calls.outside,
            () if self.work.options.since.is_some_and(|since| time < since) => &mut outcome.calls.old,
            () => {
                let resolved: Vec<_> =
                    files.into_iter().map(|(name, edit)| (name, edit::resolve(&edit))).collect();
                let is_empty = resolved.iter().all(|(_, resolved)| resolved.hunks.is_empty());
                outcome.calls.without_lines += u64::from(is_empty);
                let call = Call {
                    agent: agent.to_owned(),
                    agent_version: call.version,
                    model: call.model,
                    session,
                    conversation: self.session.conversation(),
                    tool: call.tool,
                    tool_use: call.tool_use,
                    gist: None,
                    event: "PostToolUse".to_owned(),
                    time,
                    sequence,
                    revision: call.revision,
                    branch: call.branch,
                    transcript_bytes: call.bytes,
                    agent_id: call.agent_id.or_else(|| self.session.part.clone()),
                    project: self.work.options.project_id.clone(),
                };
                let record = trace::encode(&id, &call, &resolved)?;
                outcome.traces.push(ToldTrace { record, time, gist });
                return Ok(());
            }
        };
        *count += 1;
        Ok(())
    }
}

/// Writes traces, each once.
struct Taking<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    intake: Intake<'a>,
    has_traces: bool,
    /// By call, since a session that was forked repeats the calls of the one before.
    seen: HashSet<u128>,
}

impl<'a> Taking<'a> {
    fn new(store: &'a Store, snapshot: &'a Snapshot) -> Result<Taking<'a>> {
        let query = Query { kind: Some(Kind::TRACE), limit: Some(1), ..Query::default() };
        let has_traces = !question::list(store, snapshot, &query)?.is_empty();
        Ok(Taking { store, snapshot, intake: Intake::new(store), has_traces, seen: HashSet::new() })
    }

    fn take(&mut self, session: &Session, outcome: Outcome, dry: bool, report: &mut Report) -> Result<()> {
        let held = self.held(session)?;
        // Calls of Cursor have no ids here, so those that a hook has told of cannot be recognised one by one.
        let is_captured = session.agent == Agent::Cursor
            && !held.is_empty()
            && !outcome.traces.iter().any(|told| held.contains_key(&told.record.id));
        let is_all_held = outcome.traces.iter().all(|told| held.contains_key(&told.record.id));
        let mut unnamed = if is_all_held || is_captured { Unnamed::default() } else { self.unnamed(&held)? };
        let mut calls = outcome.calls;
        for ToldTrace { record, time, gist } in outcome.traces {
            report.first = Some(report.first.map_or(time, |first| first.min(time)));
            let is_held = held.contains_key(&record.id) || unnamed.take(&gist, time);
            if is_captured || is_held || !self.seen.insert(short(&record)) {
                calls.known += 1;
                continue;
            }
            calls.added += 1;
            if !dry {
                let facts = record::facts(Kind::TRACE, &record.canonical)?;
                self.intake.record(Kind::TRACE, &record.canonical, &facts, time, &[])?;
            }
        }
        report.calls.add(calls);
        report.skipped.extend(outcome.skipped);
        if dry { Ok(()) } else { self.intake.append_if_large() }
    }

    /// The traces that the store holds of a session, by their ids.
    fn held(&self, session: &Session) -> Result<HashMap<String, Found>> {
        if !self.has_traces {
            return Ok(HashMap::new());
        }
        let query =
            Query { kind: Some(Kind::TRACE), session: Some(session.session.clone()), ..Query::default() };
        let held = question::list(self.store, self.snapshot, &query)?;
        Ok(held.into_iter().map(|found| (found.event.fact.key.clone(), found)).collect())
    }

    /// Those of them that come from hooks which do not name the call.
    fn unnamed(&self, held: &HashMap<String, Found>) -> Result<Unnamed> {
        let mut unnamed = Unnamed::default();
        for found in held.values() {
            // What a pull left out, or what cannot be read as a trace, is none of a hook's.
            let Ok(bytes) = self.store.read(&found.record()) else { continue };
            if let Ok(TraceEdits { gist: Some(gist), time, .. }) = TraceEdits::read(found.record(), &bytes) {
                unnamed.0.entry(gist).or_default().push(time);
            }
        }
        Ok(unnamed)
    }

    /// Makes what was taken durable, and notes that it has to be linked.
    fn finish(&mut self, report: &Report) -> Result<()> {
        if report.calls.added == 0 {
            return Ok(());
        }
        let pending = done::pending(self.store)?;
        let from = pending.into_iter().chain(report.first).min();
        if from != pending {
            done::set_pending(self.store, from)?;
        }
        self.intake.append()
    }
}

/// When calls were that hooks have told of without naming them, by what they were told to do.
#[derive(Default)]
struct Unnamed(HashMap<String, Vec<Timestamp>>);

impl Unnamed {
    /// Whether a call is one of them; each is one call only.
    fn take(&mut self, gist: &str, time: Timestamp) -> bool {
        let Some(times) = self.0.get_mut(gist) else { return false };
        let away = |at: usize| times[at].micros().abs_diff(time.micros());
        let nearest = (0..times.len()).min_by_key(|at| away(*at)).filter(|at| away(*at) <= APART_MICROS_MAX);
        nearest.map(|at| times.swap_remove(at)).is_some()
    }
}

/// What a call is known by, whichever session repeats it.
fn short(record: &TraceRecord) -> u128 {
    u128::from_be_bytes(
        *blake3::hash(record.id.as_bytes()).as_bytes().first_chunk().expect("a hash is longer"),
    )
}
