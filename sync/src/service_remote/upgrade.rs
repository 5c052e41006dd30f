//! From protocol 1 to protocol 2, when a service speaks it at last.
//!
//! What was sent record by record stands there as events of the service's own writer. So the project is asked which of
//! those records it holds: they need not be sent again as events of this store, and what the change has lost is.

use agent_trace_store::seqs::EventSet;
use agent_trace_store::{ObjectId, Result, Store};

use super::{Memory, Service};
use crate::light::{Ranges, walk};
use crate::push::{PushOptions, choose};
use crate::state::State;

impl Service {
    /// Makes what is remembered ready for the first replay by protocol 2. The cursors of protocol 1 stay.
    pub(super) fn upgrade(&self, store: &Store, memory: &mut Memory) -> Result<()> {
        memory.by_records = self.still_there(store, &memory.state)?;
        memory.known.cursor = None;
        memory.known.pulled = 0;
        Ok(())
    }

    /// The events that were there by protocol 1 and whose records are there now.
    fn still_there(&self, store: &Store, state: &State) -> Result<EventSet> {
        if state.has.is_empty() {
            return Ok(EventSet::default());
        }
        let mine = store.held(&store.snapshot()?)?;
        let others = State { has: mine.minus(&state.has), tips: state.tips.clone(), ..State::default() };
        let all = PushOptions { full: true, dry_run: true, ..PushOptions::default() };
        let mut there = Ranges::default();
        for pick in choose(store, &others, &all)?.picks {
            let numbers = pick.numbers.unwrap_or_else(|| (0..pick.source.events).collect());
            let mut places = Vec::with_capacity(numbers.len());
            walk(&pick.source, &numbers, |_, laid| {
                places.extend(laid.objects().next().map(|record| (record, laid.writer, laid.seq.get())));
                Ok(())
            })?;
            let records: Vec<ObjectId> = places.iter().map(|(record, _, _)| *record).collect();
            let held = self.client.holds(&records)?;
            for (_, writer, seq) in places.iter().filter(|(record, _, _)| held.contains(record)) {
                there.add(*writer, *seq);
            }
        }
        Ok(there.finish())
    }
}
