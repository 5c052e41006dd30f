//! Push: the difference to the remote goes there in segments, then the own head says so (I2).
//!
//! The data path runs one way: replay what is new there ▸ select ▸ build ▸ send segments ▸ send the manifest ▸ replace
//! the head. Cut anywhere, the next push finds what arrived: segments that were built wait in an outbox until the
//! head names them, so they are not built or sent again.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use agent_trace_store::build::{Builder, Built};
use agent_trace_store::progress::Progress;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, SegmentId, Store, Timestamp};
use rayon::prelude::*;

use crate::collect::{Source, collect};
use crate::limits::SEAL_BYTES_MIN;
use crate::manifest::segment_key;
use crate::publish::{claim_writer, publish};
use crate::remote::{Remote, Replayed, events_of, replay};
use crate::select::{Pick, Selection, select};
use crate::state::{State, cache_dir, clear};
use crate::tables::{Tables, cache_table};

/// What a push sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Everything, whether a ledger names it or not.
    pub full: bool,
    /// Only these kinds; empty means all.
    pub only: Vec<Kind>,
    /// Only records not before this instant.
    pub since: Option<Timestamp>,
    /// Count, send nothing.
    pub dry_run: bool,
}

/// What a push has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// Events sent, by kind.
    pub sent: BTreeMap<Kind, u64>,
    /// Events held back, by kind.
    pub held_back: BTreeMap<Kind, u64>,
    /// Segments uploaded.
    pub segments: u64,
    /// Bytes uploaded.
    pub bytes: u64,
    /// Requests made of the remote (files read, written, listed).
    pub requests: u64,
    /// Whether the store had to take a new writer, because its head on the remote was not the one it wrote.
    pub new_writer: bool,
    /// Heads on the remote that went back or vanished since they were last seen.
    pub gone_back: Vec<String>,
    /// What on the remote cannot be read, with reasons.
    pub refused: Vec<String>,
}

/// A segment that is to be sent.
struct Outgoing {
    id: SegmentId,
    bytes: u64,
    sealed: Arc<Sealed>,
}

/// Pushes.
pub fn push(
    store: &Store,
    remote: &Remote,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<PushReport> {
    let _busy = store.busy()?;
    let _lock = remote.lock(store)?;
    if let (Some(id), false) = (remote.id(), options.dry_run) {
        sweep(store, remote, &id)?;
    }
    store.settle()?;
    let mut state = remote.state(store)?;
    let replayed = replay(store, remote, &mut state)?;
    let mut new_writer = false;
    if let (Some(id), false) = (remote.id(), options.dry_run) {
        new_writer = claim_writer(store, &id, replayed.own.map(|(hash, _)| hash))?;
    }
    let selection = choose(store, &state, options)?;
    let mut report = PushReport {
        sent: selection.sent.clone(),
        held_back: selection.held_back.clone(),
        gone_back: replayed.gone_back.clone(),
        refused: replayed.refused.clone(),
        new_writer,
        ..PushReport::default()
    };
    if !options.dry_run {
        let before = state.clone();
        transfer(store, remote, &mut state, &replayed, &selection, progress, &mut report)?;
        state.held = selection.held;
        state.held_kinds = selection.held_back;
        state.evaluated = selection.evaluated;
        if state != before || !replayed.new.is_empty() {
            remote.remember(store, &state)?;
        }
    }
    report.requests = remote.transport().requests();
    Ok(report)
}

/// Chooses what is sent. A large open segment that goes whole is sealed first, so that it can be copied.
fn choose(store: &Store, state: &State, options: &PushOptions) -> Result<Selection> {
    loop {
        store.catch_up()?;
        let snapshot = store.snapshot()?;
        let chosen = choose_in(store, &snapshot, state, options);
        // Another process may have sealed or compacted between two looks at the index.
        if store.is_current(&snapshot)? {
            return chosen;
        }
    }
}

fn choose_in(store: &Store, snapshot: &Snapshot, state: &State, options: &PushOptions) -> Result<Selection> {
    let open = snapshot.segments.open.as_ref().and_then(|open| open.file.len().ok()).unwrap_or_default();
    if !options.dry_run && open >= SEAL_BYTES_MIN {
        // The snapshot is not current any more then, so all is chosen again.
        store.seal()?;
        return Ok(Selection::default());
    }
    select(store, snapshot, state, options)
}

/// Removes what a push of this store that was cut has left aside, here and on the remote.
fn sweep(store: &Store, remote: &Remote, id: &crate::head::RemoteId) -> Result<()> {
    let dir = cache_dir(store, id)?;
    let fs = &store.env().fs;
    let doing = |error| Error::io(format!("cannot clear `{}`", dir.display()), error);
    for place in [dir.clone(), dir.join("tables")] {
        for entry in fs.list(&place).map_err(doing)? {
            if entry.name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".new")) {
                fs.remove(&place.join(entry.name)).map_err(doing)?;
            }
        }
    }
    let sending = dir.join(SENDING);
    remote.transport().claim(&store.writer().short());
    if fs.metadata(&sending).is_ok() {
        remote.transport().sweep()?;
        fs.remove(&sending).map_err(doing)?;
    }
    Ok(())
}

/// The file that is there while a push sends; what it finds there the next push clears up.
const SENDING: &str = "sending";

fn transfer(
    store: &Store,
    remote: &Remote,
    state: &mut State,
    replayed: &Replayed,
    selection: &Selection,
    progress: &dyn Progress,
    report: &mut PushReport,
) -> Result<()> {
    let cut = remote.id().map(|id| cache_dir(store, &id)).transpose()?;
    if selection.picks.is_empty() {
        return cut.map_or(Ok(()), |dir| clear(store, &dir.join("outbox")));
    }
    let id =
        remote.id().ok_or_else(|| Error::new(ErrorKind::NotFound, "the remote has not been made yet"))?;
    let outbox = cache_dir(store, &id)?.join("outbox");
    let outgoing = prepare(store, remote, state, selection, &outbox)?;
    let sending = cache_dir(store, &id)?.join(SENDING);
    let doing = |error| Error::io(format!("cannot create `{}`", sending.display()), error);
    store.env().fs.create(&sending, true).map_err(doing)?;
    let total = outgoing.iter().map(|segment| segment.bytes).sum();
    progress.start("pushing", Some(total));
    let added: Vec<_> = outgoing.iter().map(|segment| (segment.id, segment.bytes)).collect();
    // A new writer has no head there yet.
    let there = replayed.own.map(|(hash, _)| hash).filter(|_| !report.new_writer);
    if head_first() {
        publish(store, remote, state, &id, added.clone(), there)?;
    }
    // Several at once: while one waits for the disk, another is read.
    let sent =
        outgoing.par_iter().map(|segment| send(remote, segment, progress)).collect::<Result<Vec<_>>>()?;
    report.segments += sent.iter().filter(|bytes| **bytes > 0).count() as u64;
    report.bytes += sent.iter().sum::<u64>();
    progress.finish();
    if !head_first() {
        publish(store, remote, state, &id, added, there)?;
    }
    for segment in &outgoing {
        // The footer of a segment that the store has itself need not be kept beside it.
        if store.segments().get(&segment.id).is_none() {
            cache_table(store, &id, &segment.id, segment.sealed.file.as_ref(), segment.bytes)?;
        }
        state.segments.insert(segment.id, segment.bytes);
    }
    state.has = state.has.union(&selection.events);
    store.env().fs.remove(&sending).map_err(doing)?;
    clear(store, &outbox)
}

/// Sends a segment, unless it is there; returns the bytes sent.
fn send(remote: &Remote, segment: &Outgoing, progress: &dyn Progress) -> Result<u64> {
    let key = segment_key(&segment.id);
    if remote.transport().bytes(&key)? == Some(segment.bytes) {
        // It arrived in an earlier push that was cut before its head.
        remote.transport().keep(&key)?;
        progress.advance(segment.bytes);
        return Ok(0);
    }
    let sent = |bytes| progress.advance(bytes);
    remote.transport().send(&segment.id, segment.sealed.file.as_ref(), segment.bytes, &sent)?;
    Ok(segment.bytes)
}

/// A planted fault, for showing that the simulation finds it.
fn head_first() -> bool {
    #[cfg(feature = "sim")]
    if agent_trace_store::switches::planted(agent_trace_store::switches::Fault::HeadFirst) {
        return true;
    }
    false
}

/// The segments that are to be sent: whole ones as they are, others built, those of a push that was cut used again.
fn prepare(
    store: &Store,
    remote: &Remote,
    state: &State,
    selection: &Selection,
    outbox: &Path,
) -> Result<Vec<Outgoing>> {
    let mut outgoing = Vec::new();
    let mut parts: Vec<&Pick> = Vec::new();
    for pick in &selection.picks {
        match (&pick.source.handle, &pick.events) {
            (agent_trace_store::store::Handle::Sealed(sealed), None) => {
                let (id, bytes) = (sealed.id, sealed.bytes);
                outgoing.push(Outgoing { id, bytes, sealed: Arc::clone(sealed) });
            }
            _ => parts.push(pick),
        }
    }
    let mut left = selection.events.minus(
        &outgoing.iter().fold(EventSet::default(), |set, segment| set.union(&events_of(&segment.sealed))),
    );
    for sealed in left_over(store, outbox)? {
        let events = events_of(&sealed);
        if events.minus(&left).is_empty() {
            left = left.minus(&events);
            outgoing.push(Outgoing { id: sealed.id, bytes: sealed.bytes, sealed });
        }
    }
    if left.is_empty() {
        return Ok(outgoing);
    }
    for built in build(store, remote, state, &parts, &left, &outgoing, outbox)? {
        let named = outbox.join(format!("{}.seg", built.id));
        let doing = |error| Error::io(format!("cannot name `{}`", named.display()), error);
        store.env().fs.rename(&built.path, &named).map_err(doing)?;
        let sealed = Arc::new(Sealed::open(store.env(), &named, built.id)?);
        outgoing.push(Outgoing { id: built.id, bytes: built.bytes, sealed });
    }
    Ok(outgoing)
}

/// Segments in the outbox that an earlier push built.
fn left_over(store: &Store, outbox: &Path) -> Result<Vec<Arc<Sealed>>> {
    let fs = &store.env().fs;
    let doing = |error| Error::io(format!("cannot list `{}`", outbox.display()), error);
    let mut found = Vec::new();
    for entry in fs.list(outbox).map_err(doing)? {
        let id = entry.name.to_str().and_then(|name| name.strip_suffix(".seg"));
        let path = outbox.join(&entry.name);
        let sealed = id.and_then(|id| SegmentId::parse(id).ok()).and_then(|id| {
            let sealed = Sealed::open(store.env(), &path, id).ok()?;
            // Its name was not made durable with it, so it is checked.
            let hash = agent_trace_store::log::hash_file(sealed.file.as_ref(), sealed.bytes).ok()?;
            (hash == id).then_some(sealed)
        });
        match sealed {
            Some(sealed) => found.push(Arc::new(sealed)),
            None => fs.remove(&path).map_err(doing)?,
        }
    }
    Ok(found)
}

/// Builds segments of the chosen events and of the objects that the remote does not have.
fn build(
    store: &Store,
    remote: &Remote,
    state: &State,
    parts: &[&Pick],
    left: &EventSet,
    whole: &[Outgoing],
    outbox: &Path,
) -> Result<Vec<Built>> {
    let tables = match remote.id() {
        Some(id) => Tables::open(store, remote.transport(), &id, state)?,
        None => Tables::empty(),
    };
    let tail = store.tail()?;
    let mut built = Vec::new();
    let mut builder = Builder::new(store.env(), outbox, tail)?;
    let mut sent: HashSet<ObjectId> = HashSet::new();
    for pick in parts {
        let events = match &pick.events {
            Some(events) => events.clone(),
            None => {
                crate::collect::chosen_events(&pick.source, &(0..pick.source.events).collect::<Vec<_>>())?
            }
        };
        let events: Vec<_> =
            events.into_iter().filter(|(event, _, _)| left.contains(&event.writer, event.seq)).collect();
        let collected = {
            let known = |id: &ObjectId| -> Result<bool> {
                if sent.contains(id) || tables.contains(id)? {
                    return Ok(true);
                }
                for segment in whole {
                    if segment.sealed.find(id)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            collect(store, None, &Source::clone(&pick.source), events, &known)?
        };
        for frame in &collected.frames {
            sent.extend(frame.ids.iter().copied());
            builder.objects(frame)?;
        }
        builder.received(&collected.events)?;
        if builder.is_full() {
            built.push(builder.finish()?);
            builder = Builder::new(store.env(), outbox, tail)?;
        }
    }
    if builder.is_empty() {
        builder.discard();
    } else {
        built.push(builder.finish()?);
    }
    Ok(built)
}
