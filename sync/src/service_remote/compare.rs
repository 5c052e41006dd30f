//! Comparing: what a service holds and what is here, where the cursor is lost. The cost follows the difference.
//!
//! Of what is only there the ids are known and not the places; they are remembered until a pull has brought the events.
//! What a service says in symbols is no truer than what it lists, and is never relied on for what is taken in. Where
//! comparing fails or costs more than listing, arrivals are listed.

use std::cell::RefCell;
use std::collections::HashSet;

use agent_trace_store::frame::Unpacker;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, EventId, Result, Seq, Store, WriterId};

use super::replay::Learned;
use super::{Memory, Service};
use crate::collect::{Bodies, Source};
use crate::light::{Ranges, each_id};
use crate::limits::{RECONCILE_ROUNDS_MAX, RUNS_MAX, symbols_first};
use crate::reconcile::{Difference, Progress, Reconciliation};
use crate::select::sources;
use crate::wire::{ArrivalRun, Cursor, Part};

impl Service {
    /// Learns what stands there by what differs from here. False where arrivals are to be listed instead; then nothing
    /// has changed.
    pub(super) fn compare(&self, store: &Store, memory: &mut Memory, newest: u64) -> Result<bool> {
        // What is not indexed would seem to be there only.
        store.catch_up()?;
        let snapshot = store.snapshot()?;
        if !may_be_cheaper(store.held(&snapshot)?.len(), newest) {
            return Ok(false);
        }
        let own = Own::of(sources(store, &snapshot)?);
        let Some((taken_at, difference)) = self.reconcile(&own, newest)? else { return Ok(false) };
        let only_here: HashSet<EventId> = difference.only_here.into_iter().collect();
        let mut both = Ranges::default();
        own.events().filter(|(_, _, id)| !only_here.contains(id)).for_each(|(writer, seq, _)| {
            both.add(writer, seq.get());
        });
        own.end()?;
        memory.state.has = both.finish();
        memory.known.missing = difference.only_there;
        memory.known.pulled = taken_at.position;
        memory.known.cursor = Some(taken_at);
        Ok(true)
    }

    /// Asks for symbols until they tell the difference; nothing where they do not.
    fn reconcile(&self, own: &Own, newest: u64) -> Result<Option<(Cursor, Difference)>> {
        let mut reconciliation = Reconciliation::new();
        for _ in 0..RECONCILE_ROUNDS_MAX {
            let request = reconciliation.request();
            if request.first + u64::from(request.count) > newest {
                return Ok(None);
            }
            let symbols = match self.client.symbols(&request) {
                Ok(symbols) => symbols,
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied) => {
                    return Err(error);
                }
                // Another epoch by now, a service that does not compare, nonsense.
                Err(_) => return Ok(None),
            };
            let progress = reconciliation.take(&symbols, own.events().map(|(_, _, id)| id));
            own.end()?;
            match progress {
                Ok(Progress::More) => {}
                Ok(Progress::Done(difference)) => return Ok(Some((symbols.taken_at, difference))),
                // Symbols that contradict each other say nothing.
                Ok(Progress::TooDifferent) | Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Before a push, where events stand there of which only the ids are known: some may have come from elsewhere since,
    /// and some may be of the own log.
    pub(super) fn look_for_missing(
        &self,
        store: &Store,
        memory: &mut Memory,
        learned: &mut Learned,
    ) -> Result<()> {
        let own = store.writer();
        if !learned.is_compared {
            store.catch_up()?;
            let unknown = store.held(&store.snapshot()?)?.minus(&memory.state.has);
            if unknown.logs().any(|(writer, _)| *writer != own) {
                note_found(store, memory)?;
            }
        }
        let tail = store.tail()?.seq;
        let unsent = EventSet::from_ranges((tail > 0).then_some((own, 1, tail))).minus(&memory.state.has);
        let ranges = unsent.log(&own).map(|log| log.ranges().to_vec()).unwrap_or_default();
        let runs = ranges.into_iter().take(RUNS_MAX - 1);
        let runs =
            runs.map(|(first, last)| ArrivalRun { writer: own, seq_first: first, count: last - first + 1 });
        let beyond = ArrivalRun { writer: own, seq_first: tail + 1, count: u64::MAX - (tail + 1) };
        let runs: Vec<ArrivalRun> = runs.chain([beyond]).collect();
        // Nothing of this is there, unless a copy of this store wrote it. Tips come first, and are all that is read.
        let mut stream = self.client.fetch(&runs, &[], Bodies::Along)?;
        while let Some(Part::Tips(tips)) = stream.read_part()? {
            for tip in tips.iter().filter(|tip| tip.writer == own) {
                tip.verify()?;
                learned.tips.push(*tip);
            }
        }
        Ok(())
    }
}

/// Whether symbols may cost less than a list: both take 48 bytes, a symbol or a run, and a run may hold many events. About
/// 1.4 symbols are needed for each id of the difference, which is at least the difference in size.
fn may_be_cheaper(here: u64, there: u64) -> bool {
    let symbols = here.abs_diff(there).saturating_mul(7) / 5;
    symbols.max(symbols_first() as u64) < there
}

/// Finds out which of the events that are missed are here by now; those are known to stand there by their places too.
pub(super) fn note_found(store: &Store, memory: &mut Memory) -> Result<()> {
    store.catch_up()?;
    let own = Own::of(sources(store, &store.snapshot()?)?);
    let mut missing: HashSet<EventId> = memory.known.missing.iter().copied().collect();
    let mut found = Ranges::default();
    for (writer, seq, id) in own.events() {
        if missing.remove(&id) {
            found.add(writer, seq.get());
        }
    }
    own.end()?;
    memory.state.has = memory.state.has.union(&found.finish());
    memory.known.missing.retain(|id| missing.contains(id));
    Ok(())
}

/// All events of the store at one moment, read frame by frame, each time anew: their ids would fill the memory.
struct Own {
    sources: Vec<Source>,
    failed: RefCell<Option<Error>>,
}

impl Own {
    fn of(sources: Vec<Source>) -> Own {
        Own { sources, failed: RefCell::default() }
    }

    /// The events; whoever has gone through them calls [`end`](Own::end).
    fn events(&self) -> impl Iterator<Item = (WriterId, Seq, EventId)> {
        let mut unpacker = Unpacker::new();
        let frames =
            self.sources.iter().flat_map(|source| source.frames.iter().map(move |place| (source, place)));
        frames.flat_map(move |(source, place)| {
            let mut events = Vec::new();
            let read = each_id(source, place, &mut unpacker, &mut |_, laid, id| {
                events.push((laid.writer, laid.seq, *id));
                Ok(())
            });
            if let Err(error) = read {
                self.failed.replace(Some(error));
            }
            events
        })
    }

    /// Tells whether all could be read.
    fn end(&self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}
