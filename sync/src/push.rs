//! Push: the difference to the remote goes there in segments, then the own head says so (I2).
//!
//! The data path runs one way: replay what is new there ▸ select ▸ send segments ▸ send the manifest ▸ replace the head.
//! Cut anywhere, the next push finds the segments that arrived, and does not send them again.

use std::collections::BTreeMap;

use agent_trace_store::erase::complete;
use agent_trace_store::progress::Progress;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Error, ErrorKind, Kind, Result, SegmentId, Store, Timestamp};

use crate::gate::{Gate, Open};
use crate::head::{Head, head_hash};
use crate::limits::{GRACE_MICROS, HEAD_BYTES_MAX, seal_bytes_min};
use crate::publish::{claim_writer, publish};
use crate::pull::take_erases;
use crate::remote::{Remote, Replayed, replay, replay_and};
use crate::select::{Selection, select};
use crate::sending::Sending;
use crate::state::{State, cache_dir};
use crate::tables::Tables;
use crate::withdraw::{self, Withdrawal};

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
    /// Events that cannot be sent, since bytes that they list are elsewhere.
    pub elsewhere: u64,
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
    /// What on the remote cannot be read, or what it does not take, with reasons.
    pub refused: Vec<String>,
    /// Logs that have forked, as a service says.
    pub forks: Vec<String>,
    /// Segments on the remote that were replaced, since they held erased bytes.
    pub withdrawn: u64,
}

/// Pushes, whatever it is.
pub fn push(
    store: &Store,
    remote: &Remote,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<PushReport> {
    push_through(store, remote, options, &Open, progress)
}

/// Pushes what a gate lets pass; where it refuses, nothing is sent.
pub fn push_through(
    store: &Store,
    remote: &Remote,
    options: &PushOptions,
    gate: &dyn Gate,
    progress: &dyn Progress,
) -> Result<PushReport> {
    let started = store.env().clock.now();
    let _busy = store.busy()?;
    let _lock = remote.lock(store)?;
    if let (Some(id), false) = (remote.id(), options.dry_run) {
        sweep(store, remote, &id)?;
    }
    store.settle()?;
    let mut state = remote.state(store)?;
    let before = state.clone();
    let mut replayed = replay(store, remote, &mut state)?;
    let mut new_writer = false;
    if let (Some(id), false) = (remote.id(), options.dry_run) {
        new_writer = claim_writer(store, &id, replayed.own.map(|(hash, _)| hash))?;
        // What others have erased is not sent there again; what is erased goes from here first.
        take_erases(store, remote, &state, &replayed.tips)?;
        complete(store, progress)?;
    }
    let mut selection = choose(store, &state, options)?;
    let mut withdrawal = match remote.id() {
        Some(id) if !options.dry_run => withdraw::look(store, remote, &id, &state)?,
        _ => None,
    };
    let withdraws = withdrawal.as_ref().is_some_and(Withdrawal::replaces);
    let replaces_head = !options.dry_run && (!selection.picks.is_empty() || withdraws);
    if replaces_head && !new_writer && !own_head_is_as_said(store, remote, &replayed)? {
        // What the remote says of a head without showing it may not be true; before one is replaced it is read.
        replayed = look_again(store, remote, &mut state, replayed)?;
        if let Some(id) = remote.id() {
            new_writer = claim_writer(store, &id, replayed.own.map(|(hash, _)| hash))?;
        }
        selection = choose(store, &state, options)?;
        if let Some(id) = remote.id() {
            withdrawal = withdraw::look(store, remote, &id, &state)?;
        }
    }
    let mut report = PushReport {
        sent: selection.sent.clone(),
        held_back: selection.held_back.clone(),
        elsewhere: selection.elsewhere,
        gone_back: replayed.gone_back.clone(),
        refused: replayed.refused.clone(),
        new_writer,
        ..PushReport::default()
    };
    if !options.dry_run {
        gate.ask(store, &selection.events)?;
        let run = Run { store, remote, started };
        let changes = Changes { selection: &selection, withdrawal: withdrawal.as_mut() };
        transfer(&run, &mut state, &replayed, changes, progress, &mut report)?;
        state.held = selection.held;
        state.held_kinds = selection.held_back;
        state.evaluated = selection.evaluated;
        if state != before {
            remote.remember(store, &state)?;
        }
        if let (Some(withdrawal), Some(id)) = (withdrawal, remote.id()) {
            withdrawal.finish(store, remote, &id)?;
        }
    }
    report.requests = remote.transport().requests();
    Ok(report)
}

/// Whether the own head is the one that a list of the heads said it is.
fn own_head_is_as_said(store: &Store, remote: &Remote, replayed: &Replayed) -> Result<bool> {
    if replayed.own_is_read {
        return Ok(true);
    }
    let there = remote.transport().read(&Head::key(&store.writer()), HEAD_BYTES_MAX)?;
    Ok(there.map(|bytes| head_hash(&bytes)) == replayed.own.map(|(hash, _)| hash))
}

/// Replays again, and reads the own head.
fn look_again(store: &Store, remote: &Remote, state: &mut State, before: Replayed) -> Result<Replayed> {
    if let Some(seen) = state.heads.get_mut(&store.writer()) {
        seen.version = None;
    }
    let mut replayed = replay_and(store, remote, state, Some(store.writer()))?;
    replayed.new.extend(before.new);
    replayed.gone_back.extend(before.gone_back);
    replayed.refused.extend(before.refused);
    Ok(replayed)
}

/// Chooses what is sent. A large open segment that goes whole is sealed first, so that it can be copied.
pub(crate) fn choose(store: &Store, state: &State, options: &PushOptions) -> Result<Selection> {
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
    if !options.dry_run && open >= seal_bytes_min() {
        // The snapshot is not current any more then, so all is chosen again.
        store.seal()?;
        return Ok(Selection::default());
    }
    select(store, snapshot, state, options)
}

/// Removes what a push of this store that was cut has left aside, here and on the remote.
pub(crate) fn sweep(store: &Store, remote: &Remote, id: &crate::head::RemoteId) -> Result<()> {
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

/// Who pushes where, and since when.
struct Run<'a> {
    store: &'a Store,
    remote: &'a Remote,
    started: Timestamp,
}

/// What a push changes on a remote.
struct Changes<'a> {
    selection: &'a Selection,
    withdrawal: Option<&'a mut Withdrawal>,
}

fn transfer(
    run: &Run<'_>,
    state: &mut State,
    replayed: &Replayed,
    Changes { selection, withdrawal }: Changes<'_>,
    progress: &dyn Progress,
    report: &mut PushReport,
) -> Result<()> {
    let Run { store, remote, started } = *run;
    let withdraws = withdrawal.as_ref().is_some_and(|withdrawal| withdrawal.replaces());
    if selection.picks.is_empty() && !withdraws {
        return Ok(());
    }
    let id =
        remote.id().ok_or_else(|| Error::new(ErrorKind::NotFound, "the remote has not been made yet"))?;
    let sending = cache_dir(store, &id)?.join(SENDING);
    let doing = |error| Error::io(format!("cannot create `{}`", sending.display()), error);
    store.env().fs.create(&sending, true).map_err(doing)?;
    let tables = || Tables::open(store, remote.transport(), &id, state);
    let work = Sending::prepare(store, remote.transport(), &id, state, selection, &tables)?;
    progress.start("pushing", Some(work.bytes()));
    // A new writer has no head there yet.
    let there = replayed.own.map(|(hash, _)| hash).filter(|_| !report.new_writer);
    let early = head_first();
    let mut outgoing = work.run(!early, progress)?;
    let mut added: Vec<_> = outgoing.iter().map(|segment| (segment.id, segment.bytes)).collect();
    let mut replaces = Vec::new();
    if let Some(withdrawal) = withdrawal {
        let instead = withdrawal.send(store, remote, &id, state)?;
        report.withdrawn += instead.replaces.len() as u64;
        added.extend(instead.added);
        replaces = instead.replaces;
    }
    if added.is_empty() {
        // What is erased there is only a part of something live.
        progress.finish();
        return store.env().fs.remove(&sending).map_err(doing);
    }
    if early {
        publish(store, remote, state, &id, added.clone(), replaces.clone(), there)?;
        outgoing.iter_mut().try_for_each(|segment| work.arrive(segment, progress))?;
    }
    report.segments += outgoing.iter().filter(|segment| segment.sent > 0).count() as u64;
    report.bytes += outgoing.iter().map(|segment| segment.sent).sum::<u64>();
    progress.finish();
    if !early {
        if store.env().clock.now().micros().saturating_sub(started.micros()) > GRACE_MICROS / 2 {
            check_still_there(remote, &added)?;
        }
        publish(store, remote, state, &id, added.clone(), replaces.clone(), there)?;
    }
    state.replaced.extend(replaces);
    state.segments.extend(added);
    state.has = state.has.union(&selection.events);
    store.env().fs.remove(&sending).map_err(doing)
}

/// After a long push, what was sent first may soon be cleared up by others, since no head refers to it.
fn check_still_there(remote: &Remote, added: &[(SegmentId, u64)]) -> Result<()> {
    for (segment, bytes) in added {
        if !remote.transport().keep_segment(segment, *bytes)? {
            let message = "the push took so long that what it sent may have been cleared up; push again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
    }
    Ok(())
}

/// A planted fault, for showing that the simulation finds it.
fn head_first() -> bool {
    #[cfg(feature = "sim")]
    if agent_trace_store::switches::planted(agent_trace_store::switches::Fault::HeadFirst) {
        return true;
    }
    false
}
