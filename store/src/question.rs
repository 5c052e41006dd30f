//! Questions about a store: events newest first, by kind, session, path or name, and what a short id stands for.
//!
//! A question costs what it returns: the index gives places of events in order of time, and only those events are
//! read. Copies of one record in several logs are answered once.

use std::collections::{BinaryHeap, HashMap, HashSet};

use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{EventId, ObjectId};
use crate::index::Place;
use crate::kind::Kind;
use crate::limits::QUESTION_TRIES_MAX;
use crate::record::{self, name_prefix, prefix_range};
use crate::scan::{Marks, Term, marks};
use crate::segment::{find_ids, find_names, find_names_among};
use crate::store::{Handle, Snapshot, Store, read_events};
use crate::table::NameEntry;
use crate::time::Timestamp;

/// Which events are asked for; all conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Not before this instant.
    pub since: Option<Timestamp>,
    /// Not after this instant.
    pub until: Option<Timestamp>,
    /// Only this session.
    pub session: Option<String>,
    /// Only records that concern this file.
    pub path: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Those too of which something is erased.
    pub erased: bool,
}

/// An event and where it stands.
#[derive(Clone)]
pub struct Found {
    /// The event.
    pub event: Event,
    /// Its id.
    pub id: EventId,
    /// Its segment.
    pub handle: Handle,
    /// Its number in the segment.
    pub number: u32,
}

impl Found {
    /// The id of the event's record.
    pub fn record(&self) -> ObjectId {
        self.event.fact.objects[0]
    }
}

/// Something that a name or short id may stand for.
#[derive(Clone)]
pub enum Match {
    /// An event, by its record, a body or a name.
    Event(Box<Found>),
    /// An object that no event lists by itself, such as a chunk.
    Object(ObjectId),
}

impl Query {
    fn driving_term(&self) -> Term {
        match (&self.path, &self.session, self.kind) {
            (Some(path), _, _) => Term::path(path),
            (None, Some(session), _) => Term::session(session),
            (None, None, Some(kind)) => Term::kind(kind),
            (None, None, None) => Term::ALL,
        }
    }

    fn in_time(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}

/// Asks again with what there is by then, where other processes seal or compact between two looks at the index.
fn steadily<T>(store: &Store, snapshot: &Snapshot, work: impl Fn(&Snapshot) -> Result<T>) -> Result<T> {
    let mut newer: Option<Snapshot> = None;
    for _ in 0..QUESTION_TRIES_MAX {
        let seen = newer.as_ref().unwrap_or(snapshot);
        let answer = work(seen);
        if store.is_current(seen)? {
            return answer;
        }
        newer = Some(store.snapshot()?);
    }
    Err(Error::new(ErrorKind::Unavailable, "the store changes faster than it can be read"))
}

/// Lists events, newest first.
pub fn list(store: &Store, snapshot: &Snapshot, query: &Query) -> Result<Vec<Found>> {
    steadily(store, snapshot, |snapshot| list_in(store, snapshot, query))
}

fn list_in(store: &Store, snapshot: &Snapshot, query: &Query) -> Result<Vec<Found>> {
    let limit = query.limit.unwrap_or(usize::MAX);
    let mut wanted = limit.saturating_add(limit / 4).saturating_add(16);
    loop {
        let (places, exhausted) = places(store, snapshot, query, wanted)?;
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for place in places {
            let Some(event) = fetch(store, snapshot, &place)? else { continue };
            if matches(store, query, &event)? && seen.insert((event.event.fact.kind, event.record())) {
                found.push(event);
                if found.len() == limit {
                    return Ok(found);
                }
            }
        }
        if exhausted {
            return Ok(found);
        }
        wanted = wanted.saturating_mul(4);
    }
}

/// Where an event stands: in the index's segments, or among those the index has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Spot {
    Indexed(Place),
    Unindexed { part: usize, event: usize },
}

/// The newest places that may answer, in order; and whether there are no more.
fn places(store: &Store, snapshot: &Snapshot, query: &Query, wanted: usize) -> Result<(Vec<Spot>, bool)> {
    let mut heap: BinaryHeap<(Timestamp, Spot)> = BinaryHeap::new();
    for (part, unindexed) in snapshot.unindexed.iter().enumerate() {
        for (event, (candidate, _, _)) in unindexed.events.iter().enumerate() {
            if query.in_time(candidate.fact.time) {
                heap.push((candidate.fact.time, Spot::Unindexed { part, event }));
            }
        }
    }
    let mut ordered = Vec::new();
    let mut exhausted = true;
    store.index().read(|view| {
        view.postings(query.driving_term(), &mut |events, newest| {
            while heap.peek().is_some_and(|(time, _)| *time > newest) {
                ordered.extend(heap.pop().map(|(_, spot)| spot));
            }
            if ordered.len() >= wanted {
                exhausted = false;
                return false;
            }
            if query.since.is_some_and(|since| newest < since) {
                return false;
            }
            let in_time = events.iter().filter(|(time, _)| query.in_time(*time));
            heap.extend(in_time.map(|(time, place)| (*time, Spot::Indexed(*place))));
            true
        })
    })?;
    while let Some((_, spot)) = heap.pop() {
        if ordered.len() >= wanted {
            exhausted = false;
            break;
        }
        ordered.push(spot);
    }
    Ok((ordered, exhausted))
}

fn fetch(store: &Store, snapshot: &Snapshot, spot: &Spot) -> Result<Option<Found>> {
    match spot {
        Spot::Indexed(place) => event_at(store, snapshot, *place),
        Spot::Unindexed { part, event } => {
            let part = &snapshot.unindexed[*part];
            let (event, id, number) = part.events[*event].clone();
            Ok(Some(Found { event, id, handle: part.handle.clone(), number }))
        }
    }
}

/// The event at an index place; `None` where the segment is gone since the snapshot was taken.
pub fn event_at(store: &Store, snapshot: &Snapshot, place: Place) -> Result<Option<Found>> {
    let Some(row) = snapshot.rows.get(&place.segment) else { return Ok(None) };
    let sealed = snapshot.segments.sealed.iter().find(|sealed| sealed.header.nonce == row.nonce);
    let open = snapshot.segments.open.as_ref().filter(|open| open.header.nonce == row.nonce);
    let handle = match (sealed, open) {
        (Some(sealed), _) => Handle::Sealed(sealed.clone()),
        (None, Some(open)) => Handle::Open(open.clone()),
        (None, None) => return Ok(None),
    };
    let (event, id) = store.event(&handle, place.event, Some(row))?;
    Ok(Some(Found { event, id, handle, number: place.event }))
}

fn matches(store: &Store, query: &Query, found: &Found) -> Result<bool> {
    let fact = &found.event.fact;
    if query.kind.is_some_and(|kind| !fact.kind.answers(kind)) || !query.in_time(fact.time) {
        return Ok(false);
    }
    if !query.erased && is_erased(store, found) {
        return Ok(false);
    }
    if query.session.is_none() && query.path.is_none() {
        return Ok(true);
    }
    // Terms are hashes, and the index is only believed after a look at the record.
    let Some(record) = store.read_unless_erased(&found.record())? else { return Ok(false) };
    let Ok(facts) = record::facts(fact.kind, &record) else { return Ok(false) };
    let session = query.session.as_ref().is_none_or(|session| facts.session.as_deref() == Some(session));
    Ok(session && query.path.as_ref().is_none_or(|path| facts.paths.iter().any(|given| given == path)))
}

/// Whether something is erased that an event lists.
fn is_erased(store: &Store, found: &Found) -> bool {
    let erased = store.erased();
    !erased.is_empty() && found.event.fact.objects.iter().any(|id| erased.contains(id))
}

/// Events that are known by a name, or cite it, if `cites`; the name is complete. Those of which something is erased are
/// left out: only [`resolve`] and a query that says so find them.
pub fn named(store: &Store, snapshot: &Snapshot, name: &str, cites: bool) -> Result<Vec<Found>> {
    let mut found = steadily(store, snapshot, |snapshot| named_in(store, snapshot, name, cites))?;
    found.retain(|found| !is_erased(store, found));
    Ok(found)
}

fn named_in(store: &Store, snapshot: &Snapshot, name: &str, cites: bool) -> Result<Vec<Found>> {
    let prefix = name_prefix(name);
    let mut found = by_prefix(store, snapshot, &prefix, &prefix, cites)?;
    let mut error = None;
    found.retain(|found| match is_named(store, found, name, cites) {
        Ok(named) => named,
        Err(failure) => {
            error.get_or_insert(failure);
            false
        }
    });
    error.map_or(Ok(found), Err)
}

fn is_named(store: &Store, found: &Found, name: &str, cites: bool) -> Result<bool> {
    let fact = &found.event.fact;
    if !cites && (fact.key == name || fact.objects.iter().any(|id| id.to_string() == name)) {
        return Ok(true);
    }
    let Some(record) = store.read_unless_erased(&found.record())? else { return Ok(false) };
    let Ok(facts) = record::facts(fact.kind, &record) else { return Ok(false) };
    Ok(facts.names.iter().any(|given| match given {
        record::Name::Is(given) => !cites && given == name,
        record::Name::Cites(given) => cites && given == name,
    }))
}

/// Events with a name whose prefix is from `low` to `high`.
fn by_prefix(
    store: &Store,
    snapshot: &Snapshot,
    low: &[u8; 8],
    high: &[u8; 8],
    cites: bool,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for sealed in &snapshot.segments.sealed {
        let entries = find_names(sealed.file.as_ref(), &sealed.key, &sealed.directory, low, high)?;
        for number in numbers(entries, cites) {
            let handle = Handle::Sealed(sealed.clone());
            let (event, id) = store.event(&handle, number, None)?;
            found.push(Found { event, id, handle, number });
        }
    }
    let Some(open) = &snapshot.segments.open else { return Ok(found) };
    let row = snapshot.rows.values().find(|row| row.nonce == open.header.nonce);
    if let Some(row) = row.filter(|row| row.id.is_none()) {
        let entries = store.index().read(|view| view.open_names(low, high))?.unwrap_or_default();
        for number in numbers(entries, cites) {
            let handle = Handle::Open(open.clone());
            let (event, id) = store.event(&handle, number, Some(row))?;
            found.push(Found { event, id, handle, number });
        }
    }
    for part in snapshot.unindexed.iter().filter(|part| matches!(part.handle, Handle::Open(_))) {
        for (event, id, number) in &part.events {
            let marks = marks_of_event(store, event, low, high)?;
            if marks.names.iter().any(|(prefix, cited)| *cited == cites && low <= prefix && prefix <= high) {
                let (event, id, number) = (event.clone(), *id, *number);
                found.push(Found { event, id, handle: part.handle.clone(), number });
            }
        }
    }
    Ok(found)
}

/// The marks of an event that the index has not seen; its record is read only where that can matter.
fn marks_of_event(store: &Store, event: &Event, low: &[u8; 8], high: &[u8; 8]) -> Result<Marks> {
    let plain = marks(&event.fact, &[]);
    let hit = plain.names.iter().any(|(prefix, _)| low <= prefix && prefix <= high);
    if hit || event.fact.kind != Kind::TRANSCRIPT {
        return Ok(plain);
    }
    Ok(match store.read_unless_erased(&event.fact.objects[0])? {
        Some(record) => marks(&event.fact, &record),
        None => plain,
    })
}

fn numbers(entries: Vec<NameEntry>, cites: bool) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        entries.into_iter().filter(|entry| entry.cites == cites).map(|entry| entry.event).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The events of records of one kind by their natural keys, for each key in turn. Costs much less than to ask for one
/// after another: each page of names and each frame of events is read once.
pub fn keyed(store: &Store, snapshot: &Snapshot, kind: Kind, keys: &[&str]) -> Result<Vec<Vec<Found>>> {
    steadily(store, snapshot, |snapshot| keyed_in(store, snapshot, kind, keys))
}

fn keyed_in(store: &Store, snapshot: &Snapshot, kind: Kind, keys: &[&str]) -> Result<Vec<Vec<Found>>> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        places.entry(key).or_insert(place);
    }
    let mut prefixes: Vec<[u8; 8]> = keys.iter().map(|key| name_prefix(key)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let sealed = snapshot.segments.sealed.par_iter().map(|sealed| {
        let names = find_names_among(sealed.file.as_ref(), &sealed.key, &sealed.directory, &prefixes)?;
        let handle = Handle::Sealed(sealed.clone());
        let mut found = Vec::new();
        let mut frame = None;
        for number in numbers(names, false) {
            let (offset, slot) = sealed.directory.locate_event(number).ok_or_else(|| {
                let path = handle.path(store.dir());
                Error::corrupt(format!("segment `{}` has no event number {number}", path.display()))
            })?;
            let events = match frame.take() {
                Some((at, events)) if at == offset => events,
                _ => read_events(&handle, offset)?,
            };
            if let Some((event, id)) = events.get(slot).filter(|(event, _)| event.fact.kind == kind) {
                found.push(Found { event: event.clone(), id: *id, handle: handle.clone(), number });
            }
            frame = Some((offset, events));
        }
        Ok(found)
    });
    let mut found: Vec<Found> = sealed.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    found.extend(keyed_in_open(store, snapshot, &prefixes)?);
    let mut answers = vec![Vec::new(); keys.len()];
    for found in found {
        let fact = &found.event.fact;
        let wanted = fact.kind == kind && !is_erased(store, &found);
        if let Some(place) = places.get(fact.key.as_str()).filter(|_| wanted) {
            answers[*place].push(found);
        }
    }
    // A key that is asked for twice is answered twice.
    for (place, key) in keys.iter().enumerate() {
        if places[key] != place {
            answers[place] = answers[places[key]].clone();
        }
    }
    Ok(answers)
}

/// Events of the open segment that may have one of these prefixes.
fn keyed_in_open(store: &Store, snapshot: &Snapshot, prefixes: &[[u8; 8]]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let Some(open) = &snapshot.segments.open else { return Ok(found) };
    let handle = Handle::Open(open.clone());
    let row = snapshot.rows.values().find(|row| row.nonce == open.header.nonce);
    if let Some(row) = row.filter(|row| row.id.is_none()) {
        let entries = store.index().read(|view| {
            let mut entries = Vec::new();
            for prefix in prefixes {
                entries.extend(view.open_names(prefix, prefix)?);
            }
            Ok(entries)
        })?;
        for number in numbers(entries.unwrap_or_default(), false) {
            let (event, id) = store.event(&handle, number, Some(row))?;
            found.push(Found { event, id, handle: handle.clone(), number });
        }
    }
    for part in snapshot.unindexed.iter().filter(|part| matches!(part.handle, Handle::Open(_))) {
        for (event, id, number) in &part.events {
            if prefixes.binary_search(&name_prefix(&event.fact.key)).is_ok() {
                found.push(Found { event: event.clone(), id: *id, handle: handle.clone(), number: *number });
            }
        }
    }
    Ok(found)
}

/// Finds what a text may stand for: a natural key, the SHA-256 of a transcript, or the first digits of an id.
pub fn resolve(store: &Store, snapshot: &Snapshot, text: &str) -> Result<Vec<Match>> {
    steadily(store, snapshot, |snapshot| resolve_in(store, snapshot, text))
}

fn resolve_in(store: &Store, snapshot: &Snapshot, text: &str) -> Result<Vec<Match>> {
    let exact = named_in(store, snapshot, text, false)?;
    if !exact.is_empty() {
        return Ok(exact.into_iter().map(|found| Match::Event(Box::new(found))).collect());
    }
    let Some((low, high)) = prefix_range(text) else { return Ok(Vec::new()) };
    let digits: String = text.chars().filter(|digit| *digit != '-').collect::<String>().to_ascii_lowercase();
    let mut matches = Vec::new();
    let mut listed = HashSet::new();
    for found in by_prefix(store, snapshot, &low, &high, false)? {
        let starts = |name: &str| name.replace('-', "").to_ascii_lowercase().starts_with(&digits);
        let fact = &found.event.fact;
        listed.extend(fact.objects.iter().copied());
        let by_object = fact.objects.iter().any(|id| starts(&id.to_string()));
        let named = by_object || starts(&fact.key) || {
            let record = store.read_unless_erased(&found.record())?.unwrap_or_default();
            let facts = record::facts(fact.kind, &record);
            let names = facts.map(|facts| facts.names).unwrap_or_default();
            names.iter().any(|name| matches!(name, record::Name::Is(name) if starts(name)))
        };
        if named {
            matches.push(Match::Event(Box::new(found)));
        }
    }
    for id in objects_by_prefix(store, snapshot, &digits)? {
        if listed.insert(id) {
            matches.push(Match::Object(id));
        }
    }
    Ok(matches)
}

/// Objects whose ids start with these hex digits.
fn objects_by_prefix(store: &Store, snapshot: &Snapshot, digits: &str) -> Result<Vec<ObjectId>> {
    let bound = |fill: &str| {
        let mut text = digits.to_owned();
        text.extend(std::iter::repeat_n(fill, 64usize.saturating_sub(digits.len())));
        ObjectId::parse(&text)
    };
    let (Ok(low), Ok(high)) = (bound("0"), bound("f")) else { return Ok(Vec::new()) };
    let (low, high) = (low.as_bytes(), high.as_bytes());
    let mut ids = Vec::new();
    for sealed in &snapshot.segments.sealed {
        let entries = find_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory, low, high)?;
        ids.extend(entries.into_iter().map(|entry| entry.id));
    }
    if snapshot.segments.open.is_some() {
        let entries = store.index().read(|view| view.open_ids(low, high))?.unwrap_or_default();
        ids.extend(entries.into_iter().map(|entry| entry.id));
    }
    Ok(ids)
}

/// The version that answers for a natural key, chosen from content alone so that all copies agree: the earliest
/// trace, the latest of any other kind; ties go by object id. A transcript that extends another goes before it.
pub fn choose(kind: Kind, versions: &[Found]) -> Option<&Found> {
    let order = |found: &&Found| (found.event.fact.time, found.record());
    let of_kind = versions.iter().filter(|found| found.event.fact.kind == kind);
    if kind == Kind::TRACE { of_kind.min_by_key(order) } else { of_kind.max_by_key(order) }
}
