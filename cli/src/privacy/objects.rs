//! Looking through what events list: each object once, of a transcript that has grown only what is new.
//!
//! Portions go in parallel; the states of one conversation go in order on one thread, so that each may go on where the
//! one before ended. What is found is noted under the event, so that a gate asks by event.

use std::collections::{BTreeMap, HashMap};

use agent_trace_store::object::{Part, Stored};
use agent_trace_store::progress::Progress;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Location;
use agent_trace_store::{ErrorKind, Kind, ObjectId, Result, Seq, Store, WriterId};
use agent_trace_sync::gate::each_event;
use rayon::prelude::*;

use super::document::Stream;
use super::finding::{Finding, FingerprintKey};
use super::limits::{FINDINGS_MAX, PORTION_EVENTS};
use super::rules::RuleSet;
use super::scan::{Hit, Scanner};
use super::scanned::{Place, Scanned};

/// Records that one thread takes at once.
const RECORDS_AT_ONCE: usize = 64;
/// Parts of a transcript in which the end of a line is looked for.
const PARTS_BACK_MAX: usize = 8;

/// What looking through has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Events that were not looked through before.
    pub(crate) events: u64,
    /// Bytes of their objects that were.
    pub(crate) bytes: u64,
    /// Whether the time was over first.
    pub(crate) is_cut_short: bool,
}

/// What looks through objects.
pub(crate) struct Objects<'a> {
    pub(crate) store: &'a Store,
    pub(crate) rules: &'a RuleSet,
    pub(crate) key: &'a FingerprintKey,
    pub(crate) progress: &'a dyn Progress,
    /// Until when, by the monotonic clock.
    pub(crate) until: Option<u64>,
}

/// An event, as far as it matters here.
struct Item {
    writer: WriterId,
    seq: Seq,
    kind: Kind,
    key: String,
    objects: Vec<ObjectId>,
    /// Where the record stands, if that is known.
    place: Option<Location>,
}

/// What an object holds, by fingerprint and rule.
type Inside = BTreeMap<Finding, (u64, u64)>;

/// What came of one event.
struct Outcome {
    item: Item,
    found: Vec<(ObjectId, Inside)>,
    /// Transcripts that were looked through.
    bodies: Vec<(ObjectId, u64)>,
    bytes: u64,
    /// Whether an object is not here: nothing can leave with this event then, and it is looked at again.
    is_away: bool,
}

impl Objects<'_> {
    /// Looks through those of the events that have not been, and notes it.
    pub(crate) fn scan(&self, wanted: &EventSet, scanned: &mut Scanned) -> Result<Cost> {
        let todo = wanted.minus(&scanned.events);
        let mut cost = Cost::default();
        if todo.is_empty() {
            return Ok(cost);
        }
        self.progress.start("looking for secrets", Some(todo.len()));
        let mut waiting = Vec::new();
        each_event(self.store, &todo, &mut |laid, place| {
            if cost.is_cut_short {
                return Ok(());
            }
            waiting.push(Item {
                writer: laid.writer,
                seq: laid.seq,
                kind: laid.kind,
                key: laid.key.to_owned(),
                objects: laid.objects().collect(),
                place,
            });
            if waiting.len() >= PORTION_EVENTS {
                self.portion(std::mem::take(&mut waiting), scanned, &mut cost)?;
                let now = self.store.env().clock.monotonic_micros();
                cost.is_cut_short = self.until.is_some_and(|until| now >= until);
            }
            Ok(())
        })?;
        if !cost.is_cut_short {
            self.portion(waiting, scanned, &mut cost)?;
        }
        self.progress.finish();
        Ok(cost)
    }

    fn portion(&self, items: Vec<Item>, scanned: &mut Scanned, cost: &mut Cost) -> Result<()> {
        let known = &*scanned;
        let outcomes: Vec<Vec<Outcome>> = groups(items)
            .into_par_iter()
            .map_init(
                || Scanner::new(self.rules),
                |scanner, group| {
                    let mut last = None;
                    let outcomes: Result<Vec<Outcome>> =
                        group.into_iter().map(|item| self.item(scanner, item, known, &mut last)).collect();
                    if let Ok(outcomes) = &outcomes {
                        self.progress.advance(outcomes.len() as u64);
                    }
                    outcomes
                },
            )
            .collect::<Result<_>>()?;
        let mut ranges = Vec::new();
        for outcome in outcomes.into_iter().flatten() {
            let item = outcome.item;
            cost.bytes += outcome.bytes;
            if outcome.is_away {
                continue;
            }
            ranges.push((item.writer, item.seq.get(), item.seq.get()));
            cost.events += 1;
            for (id, bytes) in outcome.bodies {
                scanned.note_body(&item.key, id, bytes);
            }
            for (object, inside) in outcome.found {
                for (finding, (offset, count)) in inside {
                    let finding = scanned.finding(&finding);
                    let (writer, seq, kind, key) = (item.writer, item.seq, item.kind, item.key.clone());
                    scanned.add(Place { writer, seq, kind, key, object, finding, offset, count });
                }
            }
        }
        scanned.events = scanned.events.union(&EventSet::from_ranges(ranges));
        Ok(())
    }

    fn item(
        &self,
        scanner: &mut Scanner<'_>,
        item: Item,
        known: &Scanned,
        last: &mut Option<Body>,
    ) -> Result<Outcome> {
        let mut outcome = Outcome { found: Vec::new(), bodies: Vec::new(), bytes: 0, is_away: false, item };
        let objects = std::mem::take(&mut outcome.item.objects);
        for id in objects.iter().skip(1) {
            if self.store.locate(id)?.is_none() {
                outcome.is_away = true;
                return Ok(outcome);
            }
        }
        for (number, id) in objects.iter().enumerate() {
            let inside = if number > 0 {
                let (key, bytes) = (&outcome.item.key, &mut outcome.bytes);
                let body = self.body(scanner, (key, id), known, last.take(), bytes)?;
                outcome.bodies.push((*id, body.bytes));
                let inside = body.inside.clone();
                *last = Some(body);
                inside
            } else {
                let record = match self.record(id, outcome.item.place.take()) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        outcome.is_away = true;
                        return Ok(outcome);
                    }
                    record => record?,
                };
                outcome.bytes += record.len() as u64;
                let mut inside = Inside::new();
                let mut stream = Stream::new(scanner, None, 0);
                let mut tell = |at: u64, hit: &Hit| self.note(&mut inside, at, hit);
                stream.feed(&record, &mut tell);
                stream.finish(&mut tell);
                inside
            };
            if !inside.is_empty() {
                outcome.found.push((*id, inside));
            }
        }
        outcome.item.objects = objects;
        Ok(outcome)
    }

    /// Reads a record, and compares its hash.
    fn record(&self, id: &ObjectId, place: Option<Location>) -> Result<Vec<u8>> {
        if let Some(place) = place {
            let objects = self.store.objects(&place.handle, place.frame)?;
            if let Stored::Plain(bytes) = objects.get(place.slot as usize)?
                && ObjectId::of(bytes) == *id
            {
                return Ok(bytes.to_vec());
            }
        }
        self.store.read(id)
    }

    fn note(&self, inside: &mut Inside, at: u64, hit: &Hit) {
        let finding = Finding::new(&self.rules.rules[hit.rule as usize], &hit.secret, self.key);
        if inside.len() < FINDINGS_MAX || inside.contains_key(&finding) {
            inside.entry(finding).or_insert((at, 0)).1 += 1;
        }
    }

    /// Looks through a transcript, from where it differs from one that was.
    fn body(
        &self,
        scanner: &mut Scanner<'_>,
        (key, id): (&str, &ObjectId),
        known: &Scanned,
        last: Option<Body>,
        looked: &mut u64,
    ) -> Result<Body> {
        let (parts, bytes) = self.store.leaves(id)?;
        let last = match last {
            Some(last) => Some(last),
            None => self.before(key, known)?,
        };
        let (shared, mut inside) =
            last.map_or_else(|| (0, Inside::new()), |last| (last.shared(&parts), last.inside));
        let resume = self.line_start(&parts, shared)?;
        inside.retain(|_, (offset, _)| *offset < resume);
        let mut stream = Stream::new(scanner, None, resume);
        let mut tell = |at: u64, hit: &Hit| self.note(&mut inside, at, hit);
        let mut at = 0;
        for part in &parts {
            let end = at + part.bytes;
            if end > resume {
                let read = self.store.read(&part.id)?;
                let from = usize::try_from(resume.saturating_sub(at)).unwrap_or(usize::MAX);
                let new = read.get(from..).unwrap_or_default();
                *looked += new.len() as u64;
                stream.feed(new, &mut tell);
            }
            at = end;
        }
        stream.finish(&mut tell);
        Ok(Body { parts, bytes, inside })
    }

    /// The transcript of a conversation that was looked through before, and what was found there.
    fn before(&self, key: &str, known: &Scanned) -> Result<Option<Body>> {
        let Some(id) = known.body(key) else { return Ok(None) };
        if self.store.locate(&id)?.is_none() {
            return Ok(None);
        }
        let (parts, bytes) = self.store.leaves(&id)?;
        let inside = known.places_of(&id);
        let inside = inside
            .map(|place| (known.findings[place.finding as usize].clone(), (place.offset, place.count)))
            .collect();
        Ok(Some(Body { parts, bytes, inside }))
    }

    /// The start of the line that the byte at `shared` stands in, or follows; the beginning where that is far.
    fn line_start(&self, parts: &[Part], shared: u64) -> Result<u64> {
        if shared == 0 {
            return Ok(0);
        }
        let mut starts = Vec::new();
        let mut at = 0;
        for part in parts {
            if at >= shared {
                break;
            }
            starts.push((at, part));
            at += part.bytes;
        }
        for (at, part) in starts.into_iter().rev().take(PARTS_BACK_MAX) {
            let read = self.store.read(&part.id)?;
            let end = usize::try_from(shared - at).unwrap_or(usize::MAX).min(read.len());
            if let Some(found) = memchr::memrchr(b'\n', &read[..end]) {
                return Ok(at + found as u64 + 1);
            }
        }
        Ok(0)
    }
}

/// A transcript that was looked through.
struct Body {
    parts: Vec<Part>,
    bytes: u64,
    inside: Inside,
}

impl Body {
    /// How many bytes of another begin the same, as their parts say.
    fn shared(&self, parts: &[Part]) -> u64 {
        let same = self.parts.iter().zip(parts).take_while(|(one, other)| one.id == other.id);
        same.map(|(part, _)| part.bytes).sum()
    }
}

/// What one thread takes: the states of a conversation together, others by number.
fn groups(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut groups: Vec<Vec<Item>> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    let mut records: Vec<Item> = Vec::new();
    for item in items {
        if item.kind == Kind::TRANSCRIPT {
            let next = groups.len();
            let number = *by_key.entry(item.key.clone()).or_insert(next);
            if number == next {
                groups.push(Vec::new());
            }
            groups[number].push(item);
            continue;
        }
        records.push(item);
        if records.len() == RECORDS_AT_ONCE {
            groups.push(std::mem::take(&mut records));
        }
    }
    groups.push(records);
    groups
}
