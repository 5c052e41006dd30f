//! Pull: what the remote's changed heads name is fetched, checked and taken in.
//!
//! Nothing is taken in before it has been checked, and repeating a pull changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_trace_store::build::Builder;
use agent_trace_store::codec::Decoder;
use agent_trace_store::frame::Unpacker;
use agent_trace_store::progress::{Progress, Silent};
use agent_trace_store::segment::read_frame;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::{Tip, decode_tips};
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, SegmentId, Store, WriterId};

use crate::ahead::in_order;
use crate::bodies::{bring_from, open};
use crate::collect::{Bodies, Source, chosen_events, collect_into};
use crate::manifest::segment_key;
use crate::remote::{Remote, events_of, replay};
use crate::state::State;
use crate::tables::{ABSENT, remote_segment};
use crate::take::{Taking, inbox_path};
use crate::withdraw::Looked;

pub use crate::take::{PullOptions, PullReport, Transcripts};

/// Pulls.
pub fn pull(
    store: &Store,
    remote: &Remote,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<PullReport> {
    let Some(id) = remote.id() else {
        let place = remote.transport().place();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no remote in `{place}` yet")));
    };
    let _busy = store.busy()?;
    let _lock = remote.lock(store)?;
    store.catch_up()?;
    let mut state = remote.state(store)?;
    let before = state.clone();
    let replayed = replay(store, remote, &mut state)?;
    let mut report = PullReport::default();
    report.forks.extend(replayed.gone_back);
    report.refused.extend(replayed.refused);
    let tips = state.tips.clone();
    let mut taking = Taking::start(store, &id, options, tips, &replayed.tips, report)?;
    let wanted = wanted_segments(store, remote, &state, &taking.held, &taking.forked_writers())?;
    if options.dry_run {
        for sealed in &wanted {
            count_new(sealed, &taking.held, options, &mut taking.report)?;
            taking.held = taking.held.union(&events_of(sealed));
        }
        let requests = remote.transport().requests();
        return Ok(PullReport { requests, ..taking.report });
    }
    let gone = take_all(remote, &state, &mut taking, wanted, progress)?;
    if !gone.is_empty() {
        // Somebody may have replaced them since the heads were read; what stands for them is named by another head now.
        let again = replay(store, remote, &mut state)?;
        taking.report.refused.extend(again.refused);
        taking.tips = state.tips.clone();
        let wanted = wanted_segments(store, remote, &state, &taking.held, &taking.forked_writers())?;
        let (lost, wanted): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|sealed| gone.contains(&sealed.id));
        let gone = take_all(remote, &state, &mut taking, wanted, progress)?;
        for id in lost.iter().map(|sealed| sealed.id).chain(gone) {
            taking.refuse(&id, &Error::corrupt(ABSENT));
        }
    }
    let report = taking.end()?;
    if state != before {
        remote.remember(store, &state)?;
    }
    Ok(PullReport { requests: remote.transport().requests(), ..report })
}

/// Takes only the erase events of a remote that are not here, so that a push does not send there again what they name.
/// The caller holds the remote's lock and has replayed it.
pub(crate) fn take_erases(store: &Store, remote: &Remote, state: &State, changed: &[Tip]) -> Result<()> {
    let Some(id) = remote.id() else { return Ok(()) };
    store.catch_up()?;
    let held = store.held(&store.snapshot()?)?;
    let mut wanted = wanted_segments(store, remote, state, &held, &BTreeSet::new())?;
    wanted.retain(|sealed| sealed.directory.kinds.contains_key(&Kind::ERASE));
    if wanted.is_empty() {
        return Ok(());
    }
    let mut looked = Looked::load(store, &id)?;
    wanted.retain(|sealed| !looked.has_taken(&sealed.id));
    if wanted.is_empty() {
        return Ok(());
    }
    let (options, tips) = (PullOptions::default(), state.tips.clone());
    let mut taking = Taking::start(store, &id, &options, tips, changed, PullReport::default())?;
    taking.only = Some(Kind::ERASE);
    let ids: Vec<SegmentId> = wanted.iter().map(|sealed| sealed.id).collect();
    take_all(remote, state, &mut taking, wanted, &Silent)?;
    taking.end()?;
    ids.into_iter().for_each(|id| looked.add_taken(id));
    looked.save(store, &id)
}

/// Live segments that hold events which are not here, by their footers.
fn wanted_segments(
    store: &Store,
    remote: &Remote,
    state: &State,
    held: &EventSet,
    forked: &BTreeSet<WriterId>,
) -> Result<Vec<Arc<Sealed>>> {
    let Some(id) = remote.id() else { return Ok(Vec::new()) };
    if state.has.minus(held).is_empty() && forked.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted = Vec::new();
    for (segment, bytes) in state.live_segments() {
        let sealed = remote_segment(store, remote.transport(), &id, segment, *bytes)?;
        let other_side = sealed.directory.runs.iter().any(|run| forked.contains(&run.writer));
        if other_side || !events_of(&sealed).minus(held).is_empty() {
            wanted.push(sealed);
        }
    }
    // What says that something is erased comes first, so that it is not taken in only to go again.
    let erases = |sealed: &Sealed| sealed.directory.kinds.contains_key(&Kind::ERASE);
    wanted.sort_by_key(|sealed| (!erases(sealed), sealed.header.created, sealed.id));
    Ok(wanted)
}

/// Counts without fetching; by kind only where a segment is new as a whole.
fn count_new(
    sealed: &Arc<Sealed>,
    held: &EventSet,
    options: &PullOptions,
    report: &mut PullReport,
) -> Result<()> {
    let events = events_of(sealed);
    let new = events.minus(held).len();
    if new == events.len() && options.since.is_none() {
        for (kind, count) in &sealed.directory.kinds {
            *report.taken.entry(*kind).or_default() += u64::from(*count);
        }
    } else {
        *report.taken.entry(Kind::from_number(0)).or_default() += new;
    }
    report.segments += 1;
    report.bytes += sealed.bytes;
    Ok(())
}

/// Takes segments in, and returns those that are not there. One may need objects that another brings, so those that lack
/// some are tried again; what is elsewhere on purpose is fetched for those that need it now.
fn take_all(
    remote: &Remote,
    state: &State,
    taking: &mut Taking<'_>,
    wanted: Vec<Arc<Sealed>>,
    progress: &dyn Progress,
) -> Result<BTreeSet<SegmentId>> {
    let mut gone = BTreeSet::new();
    taking.clear()?;
    progress.start("pulling", Some(wanted.iter().map(|sealed| sealed.bytes).sum()));
    let mut waiting = wanted;
    loop {
        let count = waiting.len();
        let mut incomplete: Vec<(Arc<Sealed>, Vec<ObjectId>)> = Vec::new();
        match taking.bodies {
            Bodies::Along => fetch_and_take(remote, taking, &waiting, progress, &mut incomplete, &mut gone)?,
            Bodies::LeftOut => {
                for listed in waiting {
                    let fetched = fetch_without_bodies(remote, taking, &listed, progress);
                    take_fetched(taking, &listed, fetched, &mut incomplete, &mut gone)?;
                }
            }
        }
        let is_stuck = incomplete.len() == count;
        if is_stuck && bring_missing(remote, state, taking, &incomplete)? {
            waiting = incomplete.into_iter().map(|(sealed, _)| sealed).collect();
            continue;
        }
        if incomplete.is_empty() || is_stuck {
            incomplete.iter().for_each(|(sealed, missing)| taking.refuse_incomplete(&sealed.id, missing));
            break;
        }
        waiting = incomplete.into_iter().map(|(sealed, _)| sealed).collect();
    }
    progress.finish();
    Ok(gone)
}

/// Fetches segments as they are and takes them in; where the remote is far away, several are under way at once.
fn fetch_and_take(
    remote: &Remote,
    taking: &mut Taking<'_>,
    waiting: &[Arc<Sealed>],
    progress: &dyn Progress,
    incomplete: &mut Vec<(Arc<Sealed>, Vec<ObjectId>)>,
    gone: &mut BTreeSet<SegmentId>,
) -> Result<()> {
    let (store, inbox) = (taking.store, taking.inbox.clone());
    let work = |listed: &Arc<Sealed>| fetch(remote, store, &inbox, listed, progress);
    in_order(waiting, remote.transport().fetches_at_once(), &work, &mut |listed, fetched| {
        let counted = fetched.map(|(path, sealed, bytes)| {
            taking.report.segments += u64::from(bytes > 0);
            taking.report.bytes += bytes;
            (path, sealed)
        });
        take_fetched(taking, listed, counted, incomplete, gone)
    })
}

/// Takes a segment in that has come; what is damaged is refused and listed.
fn take_fetched(
    taking: &mut Taking<'_>,
    listed: &Arc<Sealed>,
    fetched: Result<(PathBuf, Arc<Sealed>)>,
    incomplete: &mut Vec<(Arc<Sealed>, Vec<ObjectId>)>,
    gone: &mut BTreeSet<SegmentId>,
) -> Result<()> {
    let (path, sealed) = match fetched {
        Ok(fetched) => fetched,
        Err(error) if error.message() == ABSENT => {
            gone.insert(listed.id);
            return Ok(());
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            taking.refuse(&listed.id, &error);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if let Some(missing) = taking.take(&path, &sealed)? {
        incomplete.push((Arc::clone(listed), missing));
    }
    Ok(())
}

/// Fetches the objects that segments lack where some of this store are elsewhere: a transcript that has grown needs the
/// bytes that it starts with. Says whether anything came.
fn bring_missing(
    remote: &Remote,
    state: &State,
    taking: &mut Taking<'_>,
    incomplete: &[(Arc<Sealed>, Vec<ObjectId>)],
) -> Result<bool> {
    // What came with something that is erased may be needed by something that is not.
    if taking.store.elsewhere()?.is_empty() && taking.store.erased().is_empty() {
        return Ok(false);
    }
    let missing: BTreeSet<ObjectId> = incomplete.iter().flat_map(|(_, missing)| missing).copied().collect();
    let missing: Vec<ObjectId> = missing.into_iter().collect();
    let brought = bring_from(taking.store, remote, &taking.remote, state, &missing, &Silent)?;
    taking.report.bytes += brought.bytes;
    Ok(brought.objects > 0 && taking.store.contains_all(&missing)?.contains(&true))
}

/// Makes a segment in the inbox of what a segment of the remote holds, without bytes of transcripts: only the frames that
/// it needs are read. It is checked like any other.
fn fetch_without_bodies(
    remote: &Remote,
    taking: &mut Taking<'_>,
    listed: &Arc<Sealed>,
    progress: &dyn Progress,
) -> Result<(PathBuf, Arc<Sealed>)> {
    match build_without_bodies(remote, taking, listed) {
        Ok((path, sealed)) => {
            taking.report.segments += 1;
            taking.report.bytes += sealed.bytes;
            progress.advance(listed.bytes);
            Ok((path, sealed))
        }
        // It needs objects of others: what is here by then is seen when it is checked as it is.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let (path, sealed, bytes) = fetch(remote, taking.store, &taking.inbox, listed, progress)?;
            taking.report.segments += u64::from(bytes > 0);
            taking.report.bytes += bytes;
            Ok((path, sealed))
        }
        Err(error) => Err(error),
    }
}

fn build_without_bodies(
    remote: &Remote,
    taking: &Taking<'_>,
    listed: &Arc<Sealed>,
) -> Result<(PathBuf, Arc<Sealed>)> {
    let (store, env) = (taking.store, taking.store.env());
    let there = open(remote, listed)?;
    let source = Source::sealed(&there);
    let numbers: Vec<u32> = (0..source.events).collect();
    let events = chosen_events(&source, &numbers)?;
    let left_out = taking.bodies.left_out(events.iter().map(|(event, _, _)| event));
    let known = |id: &ObjectId| Ok(left_out.contains(id));
    let mut builder = Builder::new(env, &taking.inbox, store.tail()?)?;
    builder.tips(&tips_in(&there)?)?;
    let extra = [Arc::clone(&there)];
    let events = collect_into(store, &extra, &source, events, &known, &mut |frame| builder.objects(&frame))?;
    builder.received(&events)?;
    let built = builder.finish()?;
    let path = taking.path(&built.id);
    let doing = |error| Error::io(format!("cannot name `{}`", path.display()), error);
    env.fs.rename(&built.path, &path).map_err(doing)?;
    let sealed = Sealed::open(env, &path, built.id)?;
    Ok((path, Arc::new(sealed)))
}

/// The tips that stand in a segment.
fn tips_in(sealed: &Sealed) -> Result<Vec<Tip>> {
    let (mut tips, mut unpacker) = (Vec::new(), Unpacker::new());
    for offset in &sealed.directory.tips_frames {
        let frame = read_frame(sealed.file.as_ref(), &sealed.key, u64::from(*offset))?;
        tips.extend(decode_tips(&mut Decoder::new("tips frame", &frame.into_raw(&mut unpacker)?))?);
    }
    Ok(tips)
}

/// Copies a segment into the inbox, unless this pull has done so; returns how many bytes came.
fn fetch(
    remote: &Remote,
    store: &Store,
    inbox: &Path,
    listed: &Arc<Sealed>,
    progress: &dyn Progress,
) -> Result<(PathBuf, Arc<Sealed>, u64)> {
    let env = store.env();
    let path = inbox_path(inbox, &listed.id);
    let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
    if env.fs.metadata(&path).is_ok() {
        if let Ok(sealed) = Sealed::open(env, &path, listed.id) {
            progress.advance(sealed.bytes);
            return Ok((path, Arc::new(sealed), 0));
        }
        env.fs.remove(&path).map_err(doing)?;
    }
    let target = env.fs.create(&path, true).map_err(doing)?;
    let mut at = 0;
    let is_there = remote.transport().fetch(&segment_key(&listed.id), listed.bytes, &mut |part| {
        target.write_all_at(part, at).map_err(doing)?;
        at += part.len() as u64;
        progress.advance(part.len() as u64);
        Ok(())
    })?;
    if !is_there {
        env.fs.remove(&path).map_err(doing)?;
        return Err(Error::corrupt(ABSENT));
    }
    target.sync().map_err(doing)?;
    let sealed = Sealed::open(env, &path, listed.id)?;
    Ok((path, Arc::new(sealed), listed.bytes))
}
