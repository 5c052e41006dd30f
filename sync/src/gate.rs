//! Who is asked before anything leaves: with the events that were chosen, after the choice and before the first byte.
//!
//! Knows nothing of secrets. A push, an export and whatever else sends events asks the same gate; a refusal is an error
//! of kind `Refused`, and nothing has been sent then.

use agent_trace_store::event::Laid;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Result, Store};

use crate::light::{take, walk};
use crate::select::sources;

/// Asked before events leave.
pub trait Gate {
    /// Lets them pass, or refuses.
    fn ask(&self, store: &Store, leaving: &EventSet) -> Result<()>;
}

/// Lets everything pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Gate for Open {
    fn ask(&self, _store: &Store, _leaving: &EventSet) -> Result<()> {
        Ok(())
    }
}

/// Hands over the events of a set that the store holds, segment by segment.
pub fn each_event(
    store: &Store,
    wanted: &EventSet,
    each: &mut dyn FnMut(&Laid<'_>) -> Result<()>,
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    store.catch_up()?;
    let mut rest = wanted.clone();
    for source in sources(store, &store.snapshot()?)? {
        if rest.is_empty() {
            break;
        }
        let numbers = take(&source, &mut rest)?;
        walk(&source, &numbers, |_, laid| each(laid))?;
    }
    Ok(())
}

/// All events that the store holds.
pub fn all_events(store: &Store) -> Result<EventSet> {
    store.catch_up()?;
    store.held(&store.snapshot()?)
}
