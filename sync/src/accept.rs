//! Making the new events of a checked segment part of a store: whole, or what of it is new.
//!
//! A large segment that is new as a whole is kept as it is; of others the new events go to the open segment, or into one
//! that is built for them. Both sides of a fork are kept. Used by whoever receives segments: pulls, and the service.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use agent_trace_store::build::Builder;
use agent_trace_store::event::Event;
use agent_trace_store::index::Feed;
use agent_trace_store::limits::BATCH_EVENTS_MAX;
use agent_trace_store::log::Prepared;
use agent_trace_store::segment::{Contents, Run};
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{EventId, ObjectId, Result, SegmentId, Seq, Store, WriterId};

use crate::collect::{Collected, Source, collect};
use crate::limits::adopt_bytes_min;
use crate::receive::Checked;

/// The ids of the events that are here, at places that are known to be, or may be, on two sides of a fork.
pub type ForkedIds = HashMap<(WriterId, Seq), HashSet<EventId>>;

/// An event, its id, and its number in the segment that it came in.
pub type Numbered = (Event, EventId, u32);

/// How people are told of a fork.
pub fn fork(writer: &WriterId, seq: u64) -> String {
    format!("the log of writer `{}` has forked at seq {seq} or before", writer.short())
}

/// The signed events of a segment that are not here yet.
pub fn new_events(checked: &Checked, held: &EventSet, forked: &ForkedIds) -> Vec<Numbered> {
    // Both sides of a fork are kept: the side that is not here yet is new by its id.
    let new = |event: &Event, id: &EventId| match forked.get(&(event.writer, event.seq)) {
        Some(ids) => !ids.contains(id),
        None => !held.contains(&event.writer, event.seq),
    };
    let signed = checked.events.iter().filter(|(_, _, number)| !checked.unsigned.contains(number));
    signed.filter(|(event, id, _)| new(event, id)).cloned().collect()
}

/// Events as runs, in their order.
pub fn runs_of(events: &[Numbered]) -> Vec<Run> {
    let mut contents = Contents::default();
    for (event, id, _) in events {
        contents.add_event(event, *id);
    }
    contents.runs
}

/// Runs as a set.
pub fn set_of<'r>(runs: impl IntoIterator<Item = &'r Run>) -> EventSet {
    EventSet::from_ranges(runs.into_iter().map(|run| (run.writer, run.seq_first.get(), run.seq_last())))
}

/// Whether these events of a segment are to be kept as the file that they came in.
pub fn goes_whole(events: &[Numbered], checked: &Checked) -> bool {
    let whole = events.len() == checked.events.len() && checked.footer_holds && checked.forks.is_empty();
    let whole = whole && !checked.holds_erased && checked.covered.is_empty();
    whole && checked.sealed.bytes >= adopt_bytes_min()
}

/// Takes a new writer where events of the own log come from elsewhere, beyond what is here (I3); says whether it did.
pub fn give_way(store: &Store, runs: &[Run]) -> Result<bool> {
    let writer = store.writer();
    if !runs.iter().any(|run| run.writer == writer) {
        return Ok(false);
    }
    let tail = store.tail()?;
    if runs.iter().any(|run| run.writer == writer && run.seq_last() > tail.seq) {
        store.renew_writer()?;
        return Ok(true);
    }
    Ok(false)
}

/// The newest tips of the logs that these runs are in.
pub fn tips_for(runs: &[Run], known: &BTreeMap<WriterId, Tip>, came: &[Tip]) -> Vec<Tip> {
    let mut tips: BTreeMap<WriterId, Tip> = BTreeMap::new();
    let writers: BTreeSet<_> = runs.iter().map(|run| run.writer).collect();
    let known = writers.iter().filter_map(|writer| known.get(writer));
    for tip in known.chain(came.iter().filter(|tip| writers.contains(&tip.writer))) {
        let newest = tips.entry(tip.writer).or_insert(*tip);
        if tip.seq > newest.seq {
            *newest = *tip;
        }
    }
    tips.into_values().collect()
}

/// Keeps a segment of which all is new as it is.
pub fn adopt(store: &Store, path: &Path, id: &SegmentId, tips: Vec<Tip>, feed: Option<Feed>) -> Result<()> {
    // The signed tips first: without them the events would count as nobody's.
    store.append(Prepared { tips, ..Prepared::default() })?;
    match feed {
        Some(feed) => store.adopt_indexed(path, id, feed),
        None => store.adopt(path, id),
    }
}

/// Takes events of a segment: into the open segment, or into one built in `aside` for them where it is much.
pub fn append(
    store: &Store,
    aside: &Path,
    sealed: &Arc<Sealed>,
    others: &[Arc<Sealed>],
    events: Vec<Numbered>,
    tips: Vec<Tip>,
) -> Result<()> {
    append_without(store, aside, sealed, others, events, tips, &HashSet::new())
}

/// The same, where these objects are left out; they have been noted.
pub fn append_without(
    store: &Store,
    aside: &Path,
    sealed: &Arc<Sealed>,
    others: &[Arc<Sealed>],
    events: Vec<Numbered>,
    tips: Vec<Tip>,
    absent: &HashSet<ObjectId>,
) -> Result<()> {
    let known = |id: &ObjectId| Ok(absent.contains(id) || store.contains(id)?);
    let mut extra = vec![Arc::clone(sealed)];
    extra.extend(others.iter().filter(|other| other.id != sealed.id).cloned());
    let collected = collect(store, &extra, &Source::sealed(sealed), events, &known)?;
    place(store, aside, collected, tips)
}

/// Takes only the objects that events of a segment need, where the events are here already.
pub fn append_objects(
    store: &Store,
    aside: &Path,
    sealed: &Arc<Sealed>,
    events: Vec<Numbered>,
) -> Result<()> {
    let known = |id: &ObjectId| store.contains(id);
    let extra = [Arc::clone(sealed)];
    let collected = collect(store, &extra, &Source::sealed(sealed), events, &known)?;
    if collected.frames.is_empty() {
        return Ok(());
    }
    place(store, aside, Collected { events: Vec::new(), ..collected }, Vec::new())
}

/// Puts what was collected into the store, all of it or nothing.
fn place(store: &Store, aside: &Path, collected: Collected, tips: Vec<Tip>) -> Result<()> {
    let erased = store.erased();
    if collected.frames.iter().flat_map(|frame| &frame.ids).any(|id| erased.contains(id)) {
        // The base of something live: what has it as its base is written anew, and then it goes.
        note_back(store)?;
    }
    let bytes: u64 = collected.frames.iter().map(|frame| frame.frame.file_bytes()).sum();
    let small = collected.events.len() <= BATCH_EVENTS_MAX / 2;
    if bytes < adopt_bytes_min() && small {
        store.append(Prepared {
            frames: collected.frames,
            received: collected.events,
            tips,
            ..Prepared::default()
        })?;
        return Ok(());
    }
    let mut builder = Builder::new(store.env(), aside, store.tail()?)?;
    builder.tips(&tips)?;
    collected.frames.iter().try_for_each(|frame| builder.objects(frame))?;
    builder.received(&collected.events)?;
    let built = builder.finish()?;
    store.adopt(&built.path, &built.id)
}

fn note_back(store: &Store) -> Result<()> {
    #[cfg(feature = "sim")]
    if agent_trace_store::switches::planted(agent_trace_store::switches::Fault::TakeErased) {
        return Ok(());
    }
    store.unsweep()
}
