//! What answers for each key by protocol 1, and in which order it is served.
//!
//! All versions of a record are kept; one answers, chosen from content alone (so that all copies agree): the earliest
//! trace, the latest ledger, commit-link and summary; the transcript that extends all others of its conversation, else
//! the latest. Whatever comes to answer gets a time of its own, one microsecond after the last or now, under which it is
//! served; what answered before is served no more.

use agent_trace_store::codec::{Decoder, Encoder};
use agent_trace_store::{Kind, ObjectId, Result, Store, Timestamp};
use redb::{ReadTransaction, ReadableTable};

use super::arrivals::{Change, KEYS, ROWS, STATES, failed};
use crate::service::archive::Resource;

/// The hash by which a key is looked up.
pub(super) type KeyHash = [u8; 16];

/// A body of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyRef {
    /// The object.
    pub id: ObjectId,
    /// Its length.
    pub bytes: u64,
}

/// What answers for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Winner {
    /// When it came to answer.
    pub arrived: Timestamp,
    /// The record that is best by time.
    pub best: (Timestamp, ObjectId),
    /// Of a conversation: the transcript that extends all others, and its body.
    pub longest: Option<((Timestamp, ObjectId), BodyRef)>,
}

impl Winner {
    /// The record that answers.
    pub(super) fn record(&self) -> ObjectId {
        self.longest.map_or(self.best.1, |(version, _)| version.1)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.i64(self.arrived.micros()).i64(self.best.0.micros()).put(self.best.1.as_bytes());
        if let Some((version, body)) = &self.longest {
            encoder.i64(version.0.micros()).put(version.1.as_bytes()).put(body.id.as_bytes()).u64(body.bytes);
        }
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Winner> {
        let mut decoder = Decoder::new("row of a key", bytes);
        let arrived = Timestamp::from_micros(decoder.i64()?);
        let best = (Timestamp::from_micros(decoder.i64()?), ObjectId::from_bytes(decoder.array()?));
        let longest = match decoder.remaining() {
            0 => None,
            _ => {
                let time = Timestamp::from_micros(decoder.i64()?);
                let version = (time, ObjectId::from_bytes(decoder.array()?));
                let id = ObjectId::from_bytes(decoder.array()?);
                Some((version, BodyRef { id, bytes: decoder.u64()? }))
            }
        };
        decoder.finish()?;
        Ok(Winner { arrived, best, longest })
    }
}

/// A record that has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Its resource.
    pub resource: Resource,
    /// The hash of its key.
    pub key: KeyHash,
    /// Its time.
    pub time: Timestamp,
    /// The record.
    pub record: ObjectId,
    /// Of a transcript: its body.
    pub body: Option<BodyRef>,
}

fn number(resource: Resource) -> u8 {
    match resource {
        Resource::Traces => 1,
        Resource::Ledgers => 2,
        Resource::CommitLinks => 3,
        Resource::Conversations => 4,
        Resource::Summaries => 5,
    }
}

/// The resource that a kind of record is served as.
pub(super) fn resource_of(kind: Kind) -> Option<Resource> {
    match kind {
        Kind::TRACE => Some(Resource::Traces),
        Kind::LEDGER => Some(Resource::Ledgers),
        Kind::COMMIT_LINK => Some(Resource::CommitLinks),
        Kind::TRANSCRIPT => Some(Resource::Conversations),
        Kind::SUMMARY => Some(Resource::Summaries),
        _ => None,
    }
}

/// The kind of record that a resource holds.
pub(super) fn kind_of(resource: Resource) -> Kind {
    match resource {
        Resource::Traces => Kind::TRACE,
        Resource::Ledgers => Kind::LEDGER,
        Resource::CommitLinks => Kind::COMMIT_LINK,
        Resource::Conversations => Kind::TRANSCRIPT,
        Resource::Summaries => Kind::SUMMARY,
    }
}

/// The hash of a key.
pub(super) fn key_hash(key: &str) -> KeyHash {
    let hash = blake3::hash(key.as_bytes());
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The hash by which one state of a conversation is known.
pub(super) fn state_hash(conversation: &KeyHash, sha256: &[u8; 32]) -> KeyHash {
    let hash = blake3::Hasher::new().update(conversation).update(sha256).finalize();
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn key_row(resource: Resource, key: &KeyHash) -> [u8; 17] {
    let mut row = [number(resource); 17];
    row[1..].copy_from_slice(key);
    row
}

fn time_row(resource: Resource, time: Timestamp) -> [u8; 9] {
    let mut row = [number(resource); 9];
    // Times sort as bytes once the sign is flipped.
    row[1..].copy_from_slice(&(time.micros() ^ i64::MIN).to_be_bytes());
    row
}

/// What answers for some keys.
pub(super) fn winners(
    transaction: &ReadTransaction,
    resource: Resource,
    keys: &[KeyHash],
) -> Result<Vec<Option<Winner>>> {
    let table = transaction.open_table(KEYS).map_err(failed)?;
    let find = |key: &KeyHash| {
        let found = table.get(key_row(resource, key).as_slice()).map_err(failed)?;
        found.map(|value| Winner::decode(value.value())).transpose()
    };
    keys.iter().map(find).collect()
}

/// Whether a state of a conversation is here.
pub(super) fn has_state(transaction: &ReadTransaction, state: &KeyHash) -> Result<bool> {
    let table = transaction.open_table(STATES).map_err(failed)?;
    Ok(table.get(state.as_slice()).map_err(failed)?.is_some())
}

/// Rows of a resource after a time, oldest first.
pub(super) fn rows(
    transaction: &ReadTransaction,
    resource: Resource,
    since: Option<Timestamp>,
    limit: usize,
) -> Result<Vec<(Timestamp, ObjectId)>> {
    let table = transaction.open_table(ROWS).map_err(failed)?;
    let low = since.map_or([number(resource), 0, 0, 0, 0, 0, 0, 0, 0], |since| time_row(resource, since));
    let high = [number(resource), 255, 255, 255, 255, 255, 255, 255, 255];
    let mut found = Vec::new();
    for row in table.range(low.as_slice()..=high.as_slice()).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let mut decoder = Decoder::new("row of a resource", key.value());
        decoder.u8()?;
        let arrived = Timestamp::from_micros(i64::from_be_bytes(decoder.array()?) ^ i64::MIN);
        if since.is_some_and(|since| arrived <= since) {
            continue;
        }
        if found.len() == limit {
            break;
        }
        found
            .push((arrived, ObjectId::from_bytes(Decoder::new("row of a resource", value.value()).array()?)));
    }
    Ok(found)
}

/// Gives times to what comes to answer, in one transaction.
pub(super) struct Times {
    now: i64,
    last: i64,
}

impl Times {
    /// Goes on after the last time that was given.
    pub(super) fn new(change: &Change<'_>, now: Timestamp) -> Result<Times> {
        Ok(Times { now: now.micros(), last: change.last_time()? })
    }

    fn next(&mut self) -> Timestamp {
        self.last = self.now.max(self.last.saturating_add(1));
        Timestamp::from_micros(self.last)
    }

    /// Notes the last time that was given.
    pub(super) fn finish(self, change: &Change<'_>) -> Result<()> {
        change.set_last_time(self.last)
    }
}

impl Change<'_> {
    /// Notes states of conversations as here.
    pub(super) fn add_states(&self, states: &[KeyHash]) -> Result<()> {
        let mut table = self.transaction.open_table(STATES).map_err(failed)?;
        for state in states {
            table.insert(state.as_slice(), [].as_slice()).map_err(failed)?;
        }
        Ok(())
    }

    /// Lets records answer for their keys where they are better than what does.
    pub(super) fn arrive(&self, store: &Store, arrivals: &[Arrival], times: &mut Times) -> Result<()> {
        let mut keys = self.transaction.open_table(KEYS).map_err(failed)?;
        let mut rows = self.transaction.open_table(ROWS).map_err(failed)?;
        for arrival in arrivals {
            let key = key_row(arrival.resource, &arrival.key);
            let known = match keys.get(key.as_slice()).map_err(failed)? {
                Some(value) => Some(Winner::decode(value.value())?),
                None => None,
            };
            let Some(mut winner) = better(store, known.as_ref(), arrival)? else { continue };
            match known.as_ref().filter(|known| known.record() == winner.record()) {
                // Another version that does not answer may still count in the next comparison.
                Some(known) => winner.arrived = known.arrived,
                None => {
                    if let Some(known) = &known {
                        let row = time_row(arrival.resource, known.arrived);
                        rows.remove(row.as_slice()).map_err(failed)?;
                    }
                    winner.arrived = times.next();
                    let mut value = [0; 48];
                    value[..32].copy_from_slice(winner.record().as_bytes());
                    value[32..].copy_from_slice(&arrival.key);
                    let row = time_row(arrival.resource, winner.arrived);
                    rows.insert(row.as_slice(), value.as_slice()).map_err(failed)?;
                }
            }
            keys.insert(key.as_slice(), winner.encode().as_slice()).map_err(failed)?;
        }
        Ok(())
    }
}

/// What answers after an arrival; `None` where nothing changes.
fn better(store: &Store, known: Option<&Winner>, arrival: &Arrival) -> Result<Option<Winner>> {
    let new = (arrival.time, arrival.record);
    let Some(known) = known else {
        let longest = arrival.body.map(|body| (new, body));
        return Ok(Some(Winner { arrived: Timestamp::default(), best: new, longest }));
    };
    let replaces = match arrival.resource {
        Resource::Traces => new < known.best,
        _ => new > known.best,
    };
    let mut winner = *known;
    if replaces {
        winner.best = new;
    }
    if let Some((version, body)) = known.longest {
        winner.longest = match arrival.body {
            Some(same) if same.id == body.id => Some((version.max(new), body)),
            Some(other) if other.bytes > body.bytes && extends(store, &other, &body)? => Some((new, other)),
            Some(other) if other.bytes < body.bytes && extends(store, &body, &other)? => {
                Some((version, body))
            }
            // Two that do not extend each other: no transcript extends all from now on.
            _ => None,
        };
    }
    Ok((winner != *known).then_some(winner))
}

/// Whether a longer body starts with all of a shorter one. Parts that both share are not read.
fn extends(store: &Store, longer: &BodyRef, shorter: &BodyRef) -> Result<bool> {
    let erased = store.erased();
    if erased.contains(&longer.id) || erased.contains(&shorter.id) {
        return Ok(false);
    }
    let read = |id: &ObjectId| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        store.copy_part_with(&[], id, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    };
    let (long, _) = store.leaves(&longer.id)?;
    let (short, _) = store.leaves(&shorter.id)?;
    let same = long.iter().zip(&short).take_while(|(long, short)| long == short).count();
    let (mut long, mut short) = (long[same..].iter(), short[same..].iter());
    let (mut have, mut want): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    loop {
        if want.is_empty() {
            let Some(part) = short.next() else { return Ok(true) };
            want = read(&part.id)?;
        }
        if have.is_empty() {
            let Some(part) = long.next() else { return Ok(false) };
            have = read(&part.id)?;
        }
        let common = have.len().min(want.len());
        if have[..common] != want[..common] {
            return Ok(false);
        }
        have.drain(..common);
        want.drain(..common);
    }
}
