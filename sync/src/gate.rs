//! Who is asked before anything leaves: with the events that were chosen, after the choice and before the first byte.
//!
//! Knows nothing of secrets. A push, an export and whatever else sends events asks the same gate; a refusal is an error
//! of kind `Refused`, and nothing has been sent then.

use std::collections::HashMap;

use agent_trace_store::event::Laid;
use agent_trace_store::segment::all_ids;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::{Handle, Location};
use agent_trace_store::{ObjectId, Result, Store};

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

/// Events of one segment from which on its table of ids is read, so that no record is looked for by itself.
const TABLE_EVENTS_MIN: usize = 64;

/// Hands over the events of a set that the store holds, segment by segment; of many with the places of their records.
pub fn each_event(
    store: &Store,
    wanted: &EventSet,
    each: &mut dyn FnMut(&Laid<'_>, Option<Location>) -> Result<()>,
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
        let mut places: HashMap<ObjectId, (u32, u32)> = HashMap::new();
        if let (Handle::Sealed(sealed), true) = (&source.handle, numbers.len() >= TABLE_EVENTS_MIN) {
            let ids = all_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory)?;
            places.extend(ids.into_iter().map(|entry| (entry.id, (entry.frame, entry.slot))));
        }
        walk(&source, &numbers, |_, laid| {
            let place = laid.objects().next().and_then(|id| places.get(&id));
            let place = place.map(|(frame, slot)| Location {
                handle: source.handle.clone(),
                frame: *frame,
                slot: *slot,
            });
            each(laid, place)
        })?;
    }
    Ok(())
}

/// All events that the store holds.
pub fn all_events(store: &Store) -> Result<EventSet> {
    store.catch_up()?;
    store.held(&store.snapshot()?)
}
