//! What an erase would do: which objects go, which stay and why, and how many bytes that is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::live::{Named, Removal, removal};
use crate::error::{Error, Result};
use crate::id::{EventId, IdSet, ObjectId, WriterId};
use crate::kind::Kind;
use crate::limits::ERASED_OBJECTS_MAX;
use crate::question::{self, Found, Query};
use crate::record::{Name, facts};
use crate::segments::Sealed;
use crate::store::{Handle, Snapshot, Store, read_events};

/// What is to be erased.
#[derive(Default)]
pub struct Wanted {
    /// Events of which all objects go that no other event lists.
    pub events: BTreeMap<EventId, Found>,
    /// Objects that go whoever lists them.
    pub named: BTreeSet<ObjectId>,
    /// Conversations of which nothing is taken in any more.
    pub conversations: BTreeSet<String>,
}

impl Wanted {
    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.named.is_empty() && self.conversations.is_empty()
    }

    /// Adds events.
    pub fn add(&mut self, found: impl IntoIterator<Item = Found>) {
        let found = found.into_iter().filter(|found| found.event.fact.kind != Kind::ERASE);
        self.events.extend(found.map(|found| (found.id, found)));
    }

    /// Adds a conversation with all its transcripts and summaries, and the traces that name it.
    pub fn add_conversation(&mut self, store: &Store, snapshot: &Snapshot, key: &str) -> Result<()> {
        if !self.conversations.insert(key.to_owned()) {
            return Ok(());
        }
        let own = question::named(store, snapshot, key, false)?;
        self.add(own.into_iter().filter(|found| found.event.fact.kind == Kind::TRANSCRIPT));
        let citing = question::named(store, snapshot, key, true)?;
        self.add(
            citing.into_iter().filter(|found| matches!(found.event.fact.kind, Kind::TRACE | Kind::SUMMARY)),
        );
        Ok(())
    }

    /// Adds all that belongs to an agent's session, and its conversations; says whether there is anything.
    pub fn add_session(&mut self, store: &Store, snapshot: &Snapshot, session: &str) -> Result<bool> {
        let query = Query { session: Some(session.to_owned()), ..Query::default() };
        let found = question::list(store, snapshot, &query)?;
        let mut conversations = BTreeSet::new();
        for found in &found {
            let fact = &found.event.fact;
            match fact.kind {
                Kind::TRANSCRIPT => {
                    conversations.insert(fact.key.clone());
                }
                Kind::TRACE | Kind::SUMMARY => {
                    let Some(record) = store.read_unless_erased(&found.record())? else { continue };
                    let Ok(facts) = facts(fact.kind, &record) else { continue };
                    for name in &facts.names {
                        if let Name::Cites(name) = name
                            && is_conversation(store, snapshot, name)?
                        {
                            conversations.insert(name.clone().into_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        let any = !found.is_empty();
        self.add(
            found.into_iter().filter(|found| {
                matches!(found.event.fact.kind, Kind::TRACE | Kind::SUMMARY | Kind::TRANSCRIPT)
            }),
        );
        for key in conversations {
            self.add_conversation(store, snapshot, &key)?;
        }
        Ok(any)
    }
}

/// Whether a name that a trace cites is that of a conversation, and not of a commit.
fn is_conversation(store: &Store, snapshot: &Snapshot, name: &str) -> Result<bool> {
    let found = question::named(store, snapshot, name, false)?;
    Ok(found.iter().any(|found| found.event.fact.kind == Kind::TRANSCRIPT))
}

/// Why something stays that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stays {
    /// An event lists it that is not to be erased.
    Listed,
    /// It is a part of an object that is not to be erased.
    Part,
}

/// What an erase would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasePlan {
    /// Objects that the erase event names, the parts that only they need included.
    pub objects: BTreeSet<ObjectId>,
    /// Conversations that it names.
    pub conversations: BTreeSet<String>,
    /// Events whose objects go, by kind.
    pub events: BTreeMap<Kind, u64>,
    /// How many of them other writers have written.
    pub others: u64,
    /// Objects whose bytes are here, and go.
    pub present: u64,
    /// Those bytes, before compression.
    pub bytes: u64,
    /// What stays, and why.
    pub stays: BTreeMap<ObjectId, Stays>,
    /// Segments that are written anew.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
}

impl ErasePlan {
    /// Whether there is nothing to erase.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.conversations.is_empty()
    }
}

/// Says what goes. The open segment is sealed first, so that all of it can be looked up.
pub fn plan(store: &Store, wanted: &Wanted) -> Result<ErasePlan> {
    store.seal()?;
    store.catch_up()?;
    let set = store.refresh()?;
    let known = store.erased();
    let mut plan = ErasePlan { objects: wanted.named.clone(), ..ErasePlan::default() };
    plan.conversations =
        wanted.conversations.iter().filter(|key| !known.has_conversation(key)).cloned().collect();
    for found in wanted.events.values() {
        plan.objects.extend(found.event.fact.objects.iter().filter(|id| !known.contains(id)));
    }
    plan.objects.retain(|id| !known.contains(id));
    for id in listed_by_others(&set.sealed, wanted, &plan.objects)? {
        plan.objects.remove(&id);
        plan.stays.insert(id, Stays::Listed);
    }
    let own: WriterId = store.writer();
    for found in wanted.events.values() {
        let fact = &found.event.fact;
        if fact.objects.iter().any(|id| plan.objects.contains(id)) {
            *plan.events.entry(fact.kind).or_default() += 1;
            plan.others += u64::from(found.event.writer != own);
        }
    }
    let ids: IdSet = known.ids().chain(&plan.objects).copied().collect();
    let removal = removal(store, &|id| store.locate(id), &set.sealed, &[], &Named { ids: &ids })?;
    let parts: Vec<ObjectId> = removal.gone.iter().filter(|id| !known.contains(id)).copied().collect();
    plan.objects.extend(&parts);
    for id in removal.kept.iter().filter(|id| !known.contains(id)) {
        plan.stays.insert(*id, Stays::Part);
    }
    if known.len() + plan.objects.len() > ERASED_OBJECTS_MAX {
        return Err(Error::invalid(format!(
            "expected at most {ERASED_OBJECTS_MAX} erased objects in a store, found {}",
            known.len() + plan.objects.len()
        )));
    }
    measure(store, &set.sealed, &removal, &mut plan)?;
    Ok(plan)
}

/// Those of some objects that events list which are not to be erased.
fn listed_by_others(
    segments: &[Arc<Sealed>],
    wanted: &Wanted,
    objects: &BTreeSet<ObjectId>,
) -> Result<BTreeSet<ObjectId>> {
    let mut found = BTreeSet::new();
    // One record may stand in the logs of several writers.
    let records: HashSet<ObjectId> = wanted.events.values().map(Found::record).collect();
    for sealed in segments {
        let handle = Handle::Sealed(Arc::clone(sealed));
        for place in &sealed.directory.events_frames {
            for (event, _) in read_events(&handle, place.offset)? {
                let record = event.fact.objects[0];
                if records.contains(&record) {
                    continue;
                }
                let listed = event.fact.objects.iter().filter(|id| objects.contains(*id));
                found.extend(listed.filter(|id| !wanted.named.contains(*id)));
                // An erase event is never erased.
                if event.fact.kind == Kind::ERASE && objects.contains(&record) {
                    found.insert(record);
                }
            }
        }
    }
    Ok(found)
}

fn measure(store: &Store, segments: &[Arc<Sealed>], removal: &Removal, plan: &mut ErasePlan) -> Result<()> {
    let mut places: Vec<(usize, u32, u32)> = Vec::new();
    let mut seen = HashSet::new();
    for (number, sealed) in segments.iter().enumerate() {
        if removal.concerns(sealed)? {
            plan.segments += 1;
            plan.segment_bytes += sealed.bytes;
        }
        for id in &removal.gone {
            if let Some(entry) = sealed.find(id)?.filter(|_| seen.insert(*id)) {
                places.push((number, entry.frame, entry.slot));
            }
        }
    }
    places.sort_unstable();
    plan.present = places.len() as u64;
    for (number, frame, slot) in places {
        let objects = store.objects(&Handle::Sealed(Arc::clone(&segments[number])), frame)?;
        let laid = objects.laid(slot as usize)?;
        if !laid.is_recipe() {
            plan.bytes += laid.bytes() as u64;
        }
    }
    Ok(())
}
