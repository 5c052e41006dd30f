//! Replaying a service: what arrived after the cursor becomes part of what is known to be there. Brings no record in.

use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Result, Store};

use super::{Memory, Service};
use crate::client::Arrived;
use crate::publish::go_on_as_another;
use crate::select::events_in;
use crate::state::State;
use crate::wire::{ArrivalsBody, Cursor};

/// What replaying has found out beside the state.
#[derive(Default)]
pub(super) struct Learned {
    /// Tips that came, verified.
    pub(super) tips: Vec<Tip>,
    /// What was known to be there before.
    pub(super) before: EventSet,
    /// Whether the history there is another than the one that was known.
    pub(super) is_other_history: bool,
    /// Whether what is there was just compared with what is here.
    pub(super) is_compared: bool,
}

impl Service {
    /// Asks for all that arrived after the cursor. Without a cursor, compares what is there with what is here where that
    /// costs less than to list all arrivals.
    pub(super) fn replay(&self, store: &Store, memory: &mut Memory) -> Result<Learned> {
        let mut learned = Learned { before: memory.state.has.clone(), ..Learned::default() };
        loop {
            let after = memory.known.cursor;
            match self.client.arrivals(after.as_ref())? {
                Arrived::Unknown => {
                    // It spoke protocol 2 once; the next command asks again what it speaks.
                    memory.known.protocol = None;
                    let message = format!("`{}` no longer speaks the protocol that it did", self.name);
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                Arrived::OtherHistory => {
                    if learned.is_other_history {
                        return Err(Error::new(ErrorKind::Unavailable, "the history of the project changes"));
                    }
                    learned.is_other_history = true;
                    forget(memory);
                }
                Arrived::Some(body) => {
                    if self.take_arrivals(store, memory, &mut learned, after, &body)? {
                        return Ok(learned);
                    }
                }
            }
        }
    }

    /// Takes an answer in; true where there is no more.
    fn take_arrivals(
        &self,
        store: &Store,
        memory: &mut Memory,
        learned: &mut Learned,
        after: Option<Cursor>,
        body: &ArrivalsBody,
    ) -> Result<bool> {
        let Some(after) = after else {
            // Only how far arrivals go. Records that went there one by one are there as events of the service.
            let by_records = std::mem::take(&mut memory.by_records);
            if self.compare(store, memory, body.newest)? {
                memory.state.has = memory.state.has.union(&by_records);
                learned.before.clone_from(&memory.state.has);
                learned.is_compared = true;
                return Ok(true);
            }
            // They are listed from the first on.
            memory.state.has = by_records;
            memory.known.pulled = 0;
            memory.known.missing.clear();
            memory.known.cursor = Some(Cursor { epoch: body.reached.epoch, position: 0 });
            return Ok(body.newest == 0);
        };
        let count: u64 = body.runs.iter().map(|run| run.count).sum();
        let fits = body.reached.epoch == after.epoch
            && body.reached.position.checked_sub(after.position) == Some(count);
        if !fits || (count == 0 && body.newest != after.position) {
            return Err(Error::corrupt(format!(
                "`{}` lists arrivals that do not fit its positions",
                self.name
            )));
        }
        let runs = body.runs.iter();
        let runs = runs.map(|run| (run.writer, run.seq_first, run.seq_first + run.count - 1));
        memory.state.has = memory.state.has.union(&EventSet::from_ranges(runs));
        for tip in &body.tips {
            tip.verify()?;
            memory.state.note_tip(tip);
            learned.tips.push(*tip);
        }
        memory.known.cursor = Some(body.reached);
        Ok(body.reached.position == body.newest)
    }

    /// Makes sure that what the service has of the own log was written here. Otherwise a copy of this store, or one
    /// restored from a backup, goes by the same name: then this store takes a new writer, and says under that again what
    /// it appended since it last pushed. Returns whether that was necessary.
    pub(super) fn claim(&self, store: &Store, learned: &Learned) -> Result<bool> {
        let writer = store.writer();
        let Some(tip) = learned.tips.iter().filter(|tip| tip.writer == writer).max_by_key(|tip| tip.seq)
        else {
            return Ok(false);
        };
        // What is not indexed would look as if somebody else had written it.
        store.catch_up()?;
        let tail = store.tail()?;
        if tip.seq.get() <= tail.seq {
            let place = EventSet::from_ranges([(writer, tip.seq.get(), tip.seq.get())]);
            let here = events_in(store, &place)?;
            if here.iter().any(|event| event.id() == tip.event) {
                return Ok(false);
            }
        }
        let own = EventSet::from_ranges((tail.seq > 0).then_some((writer, 1, tail.seq)));
        go_on_as_another(store, &own.minus(&learned.before))?;
        Ok(true)
    }
}

/// Forgets what was known to be there; what was held back stays.
fn forget(memory: &mut Memory) {
    let (held, held_kinds) = (memory.state.held.clone(), memory.state.held_kinds.clone());
    let evaluated = memory.state.evaluated.clone();
    memory.state = State { held, held_kinds, evaluated, ..State::default() };
    memory.known.cursor = None;
    memory.known.pulled = 0;
    memory.known.missing.clear();
}
