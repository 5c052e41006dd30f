//! What is erased, by the erase events in the segments themselves, and what of it is here all the same.

use std::collections::BTreeSet;

use super::closure::{Closure, each_events};
use super::survey::Survey;
use crate::erased::{Act, EraseRecord, Erased};
use crate::id::ObjectId;
use crate::kind::Kind;

/// What the erase events of surveyed segments name; one whose record is damaged names nothing.
pub(crate) fn erased_in(surveys: &[Survey], closure: &Closure<'_>) -> Erased {
    let events = each_events(surveys, |_, events| {
        let erases = events.into_iter().filter(|(event, _)| event.fact.kind == Kind::ERASE);
        let read = erases.filter_map(|(event, id)| {
            let record = event.fact.objects[0];
            let says = EraseRecord::decode(&closure.plain(&record).ok()?).ok()?;
            Some((Act { time: event.fact.time, event: id, writer: event.writer, record }, says))
        });
        Some(read.collect::<Vec<_>>())
    });
    let mut events: Vec<(Act, EraseRecord)> = events.into_iter().flatten().collect();
    events.sort_unstable_by_key(|(act, _)| *act);
    events.dedup_by_key(|(act, _)| act.event);
    Erased::of(events, 0).unwrap_or_default()
}

/// Erased objects that are here although their erase has been carried out, and that are no parts of live ones.
pub(crate) fn back(
    surveys: &[Survey],
    closure: &Closure<'_>,
    erased: &Erased,
    known: &Erased,
) -> BTreeSet<ObjectId> {
    if !known.swept || !known.names_same(erased) {
        // The next process that opens the store goes on with it.
        return BTreeSet::new();
    }
    let here = erased.ids().filter(|id| !closure.places(id).is_empty());
    let mut back: BTreeSet<ObjectId> = here.copied().collect();
    if !back.is_empty() {
        let live = each_events(surveys, |_, events| {
            let listed = events.into_iter().flat_map(|(event, _)| event.fact.objects);
            Some(listed.filter(|id| !erased.contains(id)).collect::<Vec<_>>())
        });
        for leaf in closure.leaves(live.into_iter().flatten()) {
            back.remove(&leaf);
        }
    }
    back
}
