//! Where the events of a project stand: by log and seq, in sealed segments and in the open one.

use std::sync::Arc;

use agent_trace_store::event::Laid;
use agent_trace_store::frame::Unpacker;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Handle;
use agent_trace_store::{EventId, Result, Seq, WriterId};

use super::archive::Seen;
use crate::accept::ForkedIds;
use crate::collect::{Source, chosen_events};
use crate::light::{each_id, walk};

/// Neighbours in one log and in one segment.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    writer: WriterId,
    first: u64,
    last: u64,
    source: usize,
    number: u32,
}

/// The segments that readers see, and where the events of each log stand in them.
pub(super) struct Places {
    pub sources: Vec<Source>,
    /// In order of log and seq.
    stretches: Vec<Stretch>,
}

impl Places {
    /// Lists what is seen.
    pub(super) fn of(seen: &Seen) -> Places {
        let mut places = Places { sources: Vec::new(), stretches: Vec::new() };
        let mut add = |source: Source, runs: &[agent_trace_store::segment::Run]| {
            let index = places.sources.len();
            places.stretches.extend(runs.iter().map(|run| Stretch {
                writer: run.writer,
                first: run.seq_first.get(),
                last: run.seq_last(),
                source: index,
                number: run.first_event,
            }));
            places.sources.push(source);
        };
        let nonce = seen.open.as_ref().map(|open| open.file.header.nonce);
        for sealed in seen.segments.sealed.iter().filter(|sealed| Some(sealed.header.nonce) != nonce) {
            add(Source::sealed(sealed), &sealed.directory.runs);
        }
        if let Some(open) = &seen.open {
            let handle = Handle::Open(Arc::clone(&open.file));
            add(Source { handle, frames: open.frames.clone(), events: open.events }, &open.runs);
        }
        places.stretches.sort_unstable_by_key(|stretch| (stretch.writer, stretch.first, stretch.source));
        places
    }

    /// All events that stand there.
    pub(super) fn events(&self) -> EventSet {
        let stretches = self.stretches.iter();
        EventSet::from_ranges(stretches.map(|stretch| (stretch.writer, stretch.first, stretch.last)))
    }

    /// The sealed segment that a source is.
    pub(super) fn sealed(&self, source: usize) -> Option<&Arc<Sealed>> {
        match &self.sources[source].handle {
            Handle::Sealed(sealed) => Some(sealed),
            Handle::Open(_) => None,
        }
    }

    /// Where events of a log stand: source, number of the first, how many. Both sides of a fork.
    pub(super) fn find(&self, writer: &WriterId, first: u64, last: u64) -> Vec<(usize, u32, u32)> {
        // Stretches of one log may overlap where it has forked, so all that start before the end are looked at, from
        // the log's first on where there is a fork; else only the last before.
        let from = self.stretches.partition_point(|stretch| stretch.writer < *writer);
        let to = self.stretches.partition_point(|stretch| (stretch.writer, stretch.first) <= (*writer, last));
        let mut found: Vec<(usize, u32, u32)> = self.stretches[from..to]
            .iter()
            .filter(|stretch| stretch.last >= first)
            .map(|stretch| {
                let low = stretch.first.max(first);
                let high = stretch.last.min(last);
                let within =
                    |seq: u64| u32::try_from(seq - stretch.first).expect("a segment's events are bounded");
                (stretch.source, stretch.number + within(low), within(high) - within(low) + 1)
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// The ids of events at some places: more than one where a log has forked.
    pub(super) fn ids_at(&self, wanted: &EventSet) -> Result<ForkedIds> {
        let mut ids = ForkedIds::new();
        for (writer, set) in wanted.logs() {
            for (first, last) in set.ranges() {
                for (source, number, count) in self.find(writer, *first, *last) {
                    let numbers: Vec<u32> = (number..number + count).collect();
                    for (event, id, _) in chosen_events(&self.sources[source], &numbers)? {
                        ids.entry((event.writer, event.seq)).or_default().insert(id);
                    }
                }
            }
        }
        Ok(ids)
    }

    /// Hands over every event with its id, segment by segment.
    pub(super) fn each_event(&self, each: &mut dyn FnMut(&Laid<'_>, &EventId) -> Result<()>) -> Result<()> {
        self.sources.iter().try_for_each(|source| each_event_of(source, &mut |_, laid, id| each(laid, id)))
    }
}

/// Hands over the events of a segment with their numbers and ids.
pub(super) fn each_event_of(
    source: &Source,
    each: &mut dyn FnMut(u32, &Laid<'_>, &EventId) -> Result<()>,
) -> Result<()> {
    let mut unpacker = Unpacker::new();
    source.frames.iter().try_for_each(|place| each_id(source, place, &mut unpacker, each))
}

/// Hands over what some events of a segment say, without their ids.
pub(super) fn each_chosen(
    source: &Source,
    numbers: &[u32],
    each: &mut dyn FnMut(&Laid<'_>) -> Result<()>,
) -> Result<()> {
    walk(source, numbers, |_, laid| each(laid))
}

/// A place as a set.
pub(super) fn one_place(writer: WriterId, seq: Seq) -> EventSet {
    EventSet::from_ranges([(writer, seq.get(), seq.get())])
}
