//! Erase events in a commit: what they name need not be there, and is removed at once from what is.
//!
//! What the writer of an erase event wrote itself may always be erased, and what belongs to a conversation that is
//! erased already; anything else only by a token with the scope `erase`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_trace_store::erase;
use agent_trace_store::erased::{Act, EraseRecord, Erased};
use agent_trace_store::event::Event;
use agent_trace_store::progress::Silent;
use agent_trace_store::record::facts;
use agent_trace_store::scan::object_prefix;
use agent_trace_store::segment::find_names_among;
use agent_trace_store::segments::Sealed;
use agent_trace_store::store::{Handle, read_events};
use agent_trace_store::{EventId, Kind, ObjectId, Result, Store, WriterId};

use crate::collect::read_record;

/// What the erase events of some uploads say, with what is erased already.
pub(super) struct Erases {
    /// Both together.
    pub all: Arc<Erased>,
    /// What is new, by writer.
    named: BTreeMap<WriterId, BTreeSet<ObjectId>>,
}

/// Reads the erase events of uploads. Events are believed later: here nothing follows from them but what need not be
/// there.
pub(super) fn read(store: &Store, uploads: &[Arc<Sealed>]) -> Result<Erases> {
    let known = store.erased();
    let mut new: Vec<(Act, EraseRecord)> = Vec::new();
    let mut named: BTreeMap<WriterId, BTreeSet<ObjectId>> = BTreeMap::new();
    for sealed in uploads.iter().filter(|sealed| erases(sealed)) {
        each_event(sealed, &mut |event, id| {
            let record = event.fact.objects[0];
            if event.fact.kind != Kind::ERASE || known.acts().iter().any(|act| act.event == id) {
                return Ok(());
            }
            // One that cannot be read says nothing; the check of its segment finds out why.
            let Ok(bytes) = read_record(store, uploads, &record) else { return Ok(()) };
            let Ok(says) = EraseRecord::decode(&bytes) else { return Ok(()) };
            named.entry(event.writer).or_default().extend(says.objects.iter().copied());
            new.push((Act { time: event.fact.time, event: id, writer: event.writer, record }, says));
            Ok(())
        })?;
    }
    let all = if new.is_empty() { known } else { Arc::new(known.joined(Erased::of(new, 0)?)?) };
    Ok(Erases { all, named })
}

/// Whether a segment holds erase events.
pub(super) fn erases(sealed: &Sealed) -> bool {
    sealed.directory.kinds.contains_key(&Kind::ERASE)
}

fn each_event(sealed: &Arc<Sealed>, each: &mut dyn FnMut(Event, EventId) -> Result<()>) -> Result<()> {
    let handle = Handle::Sealed(Arc::clone(sealed));
    for place in &sealed.directory.events_frames {
        for (event, id) in read_events(&handle, place.offset)? {
            each(event, id)?;
        }
    }
    Ok(())
}

impl Erases {
    /// The first record of somebody else that one of them names, if any does that must not.
    pub(super) fn foreign(&self, store: &Store, uploads: &[Arc<Sealed>]) -> Result<Option<String>> {
        if self.named.is_empty() {
            return Ok(None);
        }
        let sealed = store.refresh()?.sealed;
        for (writer, ids) in &self.named {
            let foreign = |event: &Event| -> Result<Option<String>> {
                let is_named = event.fact.objects.iter().any(|id| ids.contains(id));
                let is_foreign = is_named && event.writer != *writer && !is_covered(store, uploads, event)?;
                Ok(is_foreign.then(|| format!("{} `{}`", event.fact.kind, event.fact.key)))
            };
            if let Some(open) = store.open_part()? {
                let handle = Handle::Open(Arc::clone(&open.file));
                for place in &open.frames {
                    for (event, _) in read_events(&handle, place.offset)? {
                        if let Some(found) = foreign(&event)? {
                            return Ok(Some(found));
                        }
                    }
                }
            }
            let mut prefixes: Vec<[u8; 8]> = ids.iter().map(object_prefix).collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            for segment in sealed.iter().chain(uploads) {
                let found =
                    find_names_among(segment.file.as_ref(), &segment.key, &segment.directory, &prefixes)?;
                let numbers: BTreeSet<u32> = found.iter().map(|entry| entry.event).collect();
                for number in numbers {
                    let (event, _) = store.event(&Handle::Sealed(Arc::clone(segment)), number, None)?;
                    if let Some(found) = foreign(&event)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// Whether an event belongs to a conversation that is erased already.
fn is_covered(store: &Store, uploads: &[Arc<Sealed>], event: &Event) -> Result<bool> {
    let known = store.erased();
    let record = event.fact.objects[0];
    if known.contains(&record) {
        return Ok(true);
    }
    if !known.has_conversations() {
        return Ok(false);
    }
    let Ok(bytes) = read_record(store, uploads, &record) else { return Ok(false) };
    Ok(facts(event.fact.kind, &bytes).is_ok_and(|facts| known.covers(event.fact.kind, &facts)))
}

/// Removes the bytes of what is erased from the store of an archive, durably.
pub(super) fn carry_out(store: &Store) -> Result<()> {
    erase::complete_unindexed(store, &Silent).map(|_| ())
}
