//! The event: the statement that gives a record a place in a writer's log, and its two layouts.
//!
//! An event's id is the BLAKE3 of its *encoding*, which names the event before it:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | kind of the record |
//! | 2 | bytes of the key |
//! | 32 | writer |
//! | 8 | seq |
//! | 32 | id of the event before, zero for the first |
//! | 8 | time of the record, microseconds since 1970 |
//! | 8 | time of appending |
//! | 2 | number of objects, the record first |
//! | | key |
//! | 32 each | object ids |
//!
//! In a frame, events that follow each other share what the chain repeats:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | number of runs |
//! | 32, 8, 32, 4 each | run: writer, first seq, id before the first, number of events |
//! | 1, 1, 2, 8, 8 each | event: kind, number of objects, bytes of the key, time, appended; then key and ids |

use crate::codec::{Decoder, Encoder};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EventId, ObjectId, Seq, WriterId};
use crate::kind::Kind;
use crate::limits::{EVENT_OBJECTS_MAX, FRAME_EVENTS_MAX, KEY_BYTES_MAX};
use crate::time::Timestamp;

const EVENT_VERSION: u8 = 1;
const RUN_BYTES: usize = 76;
const EVENT_FIXED_BYTES: usize = 20;

/// A statement in a log; immutable once appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose log it is in.
    pub writer: WriterId,
    /// Its place in that log.
    pub seq: Seq,
    /// The id of the event before, [`EventId::NONE`] for the first.
    pub previous: EventId,
    /// What it says.
    pub fact: Fact,
}

/// What an event says, apart from its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The kind of its record.
    pub kind: Kind,
    /// The natural key of its record.
    pub key: String,
    /// When what the record tells of happened.
    pub time: Timestamp,
    /// When it was appended.
    pub appended: Timestamp,
    /// The record first, then the bodies that belong to it.
    pub objects: Vec<ObjectId>,
}

impl Event {
    /// The bytes whose hash is the event's id.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes);
        bytes
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let fact = &self.fact;
        assert!(fact.key.len() <= KEY_BYTES_MAX, "I10: the key is checked when the fact is made");
        assert!((1..=EVENT_OBJECTS_MAX).contains(&fact.objects.len()), "I10: objects are counted before");
        out.clear();
        out.reserve(EVENT_FIXED_BYTES + RUN_BYTES + fact.key.len() + 32 * fact.objects.len());
        let mut encoder = Encoder::onto(std::mem::take(out));
        encoder.u8(EVENT_VERSION).u8(fact.kind.number()).u16(small(fact.key.len()));
        encoder.put(self.writer.as_bytes()).u64(self.seq.get()).put(self.previous.as_bytes());
        encoder.i64(fact.time.micros()).i64(fact.appended.micros()).u16(small(fact.objects.len()));
        encoder.put(fact.key.as_bytes());
        for object in &fact.objects {
            encoder.put(object.as_bytes());
        }
        *out = encoder.finish();
    }

    /// Reads an encoding back.
    pub fn decode(bytes: &[u8]) -> Result<Event> {
        let mut decoder = Decoder::new("event", bytes);
        let version = decoder.u8()?;
        if version != EVENT_VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("cannot decode event: version {version} is newer than this program"),
            ));
        }
        let kind = Kind::from_number(decoder.u8()?);
        let key_bytes = usize::from(decoder.u16()?);
        let writer = WriterId::from_bytes(decoder.array()?);
        let seq = Seq::new(decoder.u64()?).ok_or_else(|| decoder.error("seq is zero"))?;
        let previous = EventId::from_bytes(decoder.array()?);
        let (time, appended) = (decode_time(&mut decoder)?, decode_time(&mut decoder)?);
        let count = usize::from(decoder.u16()?);
        let (key, objects) = decode_tail(&mut decoder, key_bytes, count)?;
        decoder.finish()?;
        let event = Event { writer, seq, previous, fact: Fact { kind, key, time, appended, objects } };
        if (event.seq == Seq::FIRST) != (event.previous == EventId::NONE) {
            return Err(Error::corrupt("cannot decode event: only the first event has none before it"));
        }
        Ok(event)
    }

    /// The event's id.
    pub fn id(&self) -> EventId {
        self.id_with(&mut Vec::new())
    }

    /// The event's id; the buffer is kept from event to event by who needs many.
    pub fn id_with(&self, buffer: &mut Vec<u8>) -> EventId {
        self.encode_into(buffer);
        EventId::of(buffer)
    }
}

fn small(count: usize) -> u16 {
    u16::try_from(count).expect("counts and keys are bounded by limits")
}

/// Takes a time, which must have a text form: a clamped one would not encode to the same bytes.
pub fn decode_time(decoder: &mut Decoder<'_>) -> Result<Timestamp> {
    let micros = decoder.i64()?;
    if !(Timestamp::MIN.micros()..=Timestamp::MAX.micros()).contains(&micros) {
        return Err(decoder.error("a time is out of range"));
    }
    Ok(Timestamp::from_micros(micros))
}

fn decode_tail(decoder: &mut Decoder<'_>, key_bytes: usize, count: usize) -> Result<(String, Vec<ObjectId>)> {
    if key_bytes > KEY_BYTES_MAX || count == 0 || count > EVENT_OBJECTS_MAX {
        return Err(decoder.error("a count is over its limit"));
    }
    let key =
        std::str::from_utf8(decoder.take(key_bytes)?).map_err(|_| decoder.error("the key is not UTF-8"))?;
    let key = key.to_owned();
    let ids = decoder.take(count * 32)?;
    let objects =
        ids.chunks_exact(32).map(|id| ObjectId::from_bytes(id.try_into().expect("chunks of 32"))).collect();
    Ok((key, objects))
}

/// Encodes events for one frame; they need not be of one log, but neighbours that fit are stored as runs.
pub fn encode_events<'e>(events: impl Iterator<Item = (&'e Event, EventId)> + Clone) -> Vec<u8> {
    let mut runs: Vec<(&Event, u32)> = Vec::new();
    let mut before: Option<(&Event, EventId)> = None;
    let (mut total, mut bytes) = (0, 0);
    for (event, id) in events.clone() {
        let follows = before.is_some_and(|(before, id)| continues(before, id, event));
        match runs.last_mut() {
            Some(run) if follows => run.1 += 1,
            _ => runs.push((event, 1)),
        }
        before = Some((event, id));
        total += 1;
        bytes += EVENT_FIXED_BYTES + event.fact.key.len() + 32 * event.fact.objects.len();
    }
    assert!(total <= FRAME_EVENTS_MAX, "I10: a frame is filled up to its limit");
    let mut encoder = Encoder::onto(Vec::with_capacity(4 + runs.len() * RUN_BYTES + bytes));
    encoder.u32(crate::codec::length_u32(runs.len()));
    for (event, count) in runs {
        encoder.put(event.writer.as_bytes()).u64(event.seq.get()).put(event.previous.as_bytes()).u32(count);
    }
    for (event, _) in events {
        let fact = &event.fact;
        let objects = u8::try_from(fact.objects.len()).expect("objects of an event are bounded");
        encoder.u8(fact.kind.number()).u8(objects).u16(small(fact.key.len()));
        encoder.i64(fact.time.micros()).i64(fact.appended.micros()).put(fact.key.as_bytes());
        for object in &fact.objects {
            encoder.put(object.as_bytes());
        }
    }
    encoder.finish()
}

/// Whether `next` stands right after `event`, whose id is `id`, in the same log.
pub fn continues(event: &Event, id: EventId, next: &Event) -> bool {
    next.writer == event.writer && next.seq == event.seq.next() && next.previous == id
}

/// Reads the events of one frame and computes their ids.
pub fn decode_events(raw: &[u8]) -> Result<Vec<(Event, EventId)>> {
    let mut decoder = Decoder::new("events frame", raw);
    let run_count = decoder.count(RUN_BYTES, FRAME_EVENTS_MAX)?;
    let mut runs = Vec::with_capacity(run_count);
    let mut total = 0usize;
    for _ in 0..run_count {
        let writer = WriterId::from_bytes(decoder.array()?);
        let seq = Seq::new(decoder.u64()?).ok_or_else(|| decoder.error("seq is zero"))?;
        let previous = EventId::from_bytes(decoder.array()?);
        let count = decoder.u32()? as usize;
        total = total.saturating_add(count);
        if count == 0 || total > FRAME_EVENTS_MAX || seq.get().checked_add(count as u64).is_none() {
            return Err(decoder.error("a run has an impossible length"));
        }
        if (seq == Seq::FIRST) != (previous == EventId::NONE) {
            return Err(decoder.error("only the first event has none before it"));
        }
        runs.push((writer, seq, previous, count));
    }
    if total.saturating_mul(EVENT_FIXED_BYTES) > decoder.remaining() {
        return Err(decoder.error("it ends early"));
    }
    let mut events = Vec::with_capacity(total);
    let mut buffer = Vec::new();
    for (writer, mut seq, mut previous, count) in runs {
        for _ in 0..count {
            let kind = Kind::from_number(decoder.u8()?);
            let objects = usize::from(decoder.u8()?);
            let key_bytes = usize::from(decoder.u16()?);
            let (time, appended) = (decode_time(&mut decoder)?, decode_time(&mut decoder)?);
            let (key, objects) = decode_tail(&mut decoder, key_bytes, objects)?;
            let event = Event { writer, seq, previous, fact: Fact { kind, key, time, appended, objects } };
            let id = event.id_with(&mut buffer);
            events.push((event, id));
            seq = seq.next();
            previous = id;
        }
    }
    decoder.finish()?;
    Ok(events)
}
