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
    let (key, ids) = take_tail(decoder, key_bytes, count)?;
    Ok((key.to_owned(), object_ids(ids).collect()))
}

fn take_tail<'a>(decoder: &mut Decoder<'a>, key_bytes: usize, count: usize) -> Result<(&'a str, &'a [u8])> {
    if key_bytes > KEY_BYTES_MAX || count == 0 || count > EVENT_OBJECTS_MAX {
        return Err(decoder.error("a count is over its limit"));
    }
    let key =
        std::str::from_utf8(decoder.take(key_bytes)?).map_err(|_| decoder.error("the key is not UTF-8"))?;
    Ok((key, decoder.take(count * 32)?))
}

fn object_ids(bytes: &[u8]) -> impl Iterator<Item = ObjectId> + '_ {
    bytes.chunks_exact(32).map(|id| ObjectId::from_bytes(id.try_into().expect("chunks of 32")))
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

/// An event as it lies in a frame: nothing copied, its id not computed.
#[derive(Clone, Copy, Debug)]
pub struct Laid<'a> {
    /// Whose log it is in.
    pub writer: WriterId,
    /// Its place in that log.
    pub seq: Seq,
    /// The id before it, where a run of the frame starts.
    pub starts: Option<EventId>,
    /// The kind of its record.
    pub kind: Kind,
    /// When what the record tells of happened.
    pub time: Timestamp,
    /// When it was appended.
    pub appended: Timestamp,
    /// The natural key of its record.
    pub key: &'a str,
    ids: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Laid<'a> {
    /// The objects that it lists, the record first.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> + use<'a> {
        object_ids(self.ids)
    }

    /// The event, whose id is `previous` before it.
    pub fn to_event(&self, previous: EventId) -> Event {
        let (kind, key, objects) = (self.kind, self.key.to_owned(), self.objects().collect());
        let fact = Fact { kind, key, time: self.time, appended: self.appended, objects };
        Event { writer: self.writer, seq: self.seq, previous, fact }
    }

    /// The event's id, where `previous` is the id before it; `encoding` is room that is used again.
    pub fn id(&self, previous: &EventId, encoding: &mut Vec<u8>) -> EventId {
        encoding.clear();
        encoding.extend_from_slice(&[EVENT_VERSION, self.kind.number()]);
        encoding.extend_from_slice(&small(self.key.len()).to_le_bytes());
        encoding.extend_from_slice(self.writer.as_bytes());
        encoding.extend_from_slice(&self.seq.get().to_le_bytes());
        encoding.extend_from_slice(previous.as_bytes());
        // Both times stand in the frame as they do in the encoding.
        encoding.extend_from_slice(&self.bytes[4..EVENT_FIXED_BYTES]);
        encoding.extend_from_slice(&small(self.ids.len() / 32).to_le_bytes());
        encoding.extend_from_slice(&self.bytes[EVENT_FIXED_BYTES..]);
        EventId::of(encoding)
    }
}

/// Goes through the events of one frame as they lie there.
pub fn walk_events<'a>(raw: &'a [u8], mut each: impl FnMut(Laid<'a>) -> Result<()>) -> Result<()> {
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
    for (writer, mut seq, previous, count) in runs {
        for place in 0..count {
            let start = raw.len() - decoder.remaining();
            let kind = Kind::from_number(decoder.u8()?);
            let objects = usize::from(decoder.u8()?);
            let key_bytes = usize::from(decoder.u16()?);
            let (time, appended) = (decode_time(&mut decoder)?, decode_time(&mut decoder)?);
            let (key, ids) = take_tail(&mut decoder, key_bytes, objects)?;
            let bytes = &raw[start..raw.len() - decoder.remaining()];
            let starts = (place == 0).then_some(previous);
            each(Laid { writer, seq, starts, kind, time, appended, key, ids, bytes })?;
            seq = seq.next();
        }
    }
    decoder.finish()
}

/// Reads the events of one frame and computes their ids.
pub fn decode_events(raw: &[u8]) -> Result<Vec<(Event, EventId)>> {
    let mut events = Vec::new();
    let mut last = EventId::NONE;
    let mut encoding = Vec::new();
    walk_events(raw, |laid| {
        let previous = laid.starts.unwrap_or(last);
        last = laid.id(&previous, &mut encoding);
        events.push((laid.to_event(previous), last));
        Ok(())
    })?;
    Ok(events)
}

/// Some events of a frame, as the content of another.
#[derive(Clone, Debug, Default)]
pub struct CutEvents {
    /// The content of the frame.
    pub raw: Vec<u8>,
    /// Which events they are; numbers count from the first of these.
    pub runs: Vec<crate::segment::Run>,
    /// The kind of each.
    pub kinds: Vec<Kind>,
}

/// Takes those events of a frame that are wanted, by their places in it.
pub fn cut_events(raw: &[u8], mut wanted: impl FnMut(u32) -> bool) -> Result<CutEvents> {
    let mut cut = CutEvents::default();
    let mut bodies = Vec::with_capacity(raw.len());
    let (mut place, mut last, mut follows) = (0, EventId::NONE, false);
    let mut encoding = Vec::new();
    walk_events(raw, |laid| {
        let previous = laid.starts.unwrap_or(last);
        // Each id is needed, wanted or not: the next event names it.
        last = laid.id(&previous, &mut encoding);
        let taken = wanted(place);
        place += 1;
        follows = follows && laid.starts.is_none();
        if taken {
            let number = crate::codec::length_u32(cut.kinds.len());
            match cut.runs.last_mut().filter(|_| follows) {
                Some(run) => {
                    run.count += 1;
                    run.last = last;
                }
                None => cut.runs.push(crate::segment::Run {
                    writer: laid.writer,
                    seq_first: laid.seq,
                    count: 1,
                    previous,
                    last,
                    first_event: number,
                }),
            }
            cut.kinds.push(laid.kind);
            bodies.extend_from_slice(laid.bytes);
        }
        follows = taken;
        Ok(())
    })?;
    let mut encoder = Encoder::new();
    encoder.u32(crate::codec::length_u32(cut.runs.len()));
    for run in &cut.runs {
        encoder.put(run.writer.as_bytes()).u64(run.seq_first.get());
        encoder.put(run.previous.as_bytes()).u32(run.count);
    }
    cut.raw = encoder.finish();
    cut.raw.extend_from_slice(&bodies);
    Ok(cut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chain(writer: u8, first: u64, count: u64) -> Vec<(Event, EventId)> {
        let mut previous = if first == 1 { EventId::NONE } else { EventId::of(b"before") };
        let event = |seq, previous| Event {
            writer: WriterId::from_bytes([writer; 32]),
            seq: Seq::new(seq).unwrap(),
            previous,
            fact: Fact {
                kind: if seq % 3 == 0 { Kind::LEDGER } else { Kind::TRACE },
                key: format!("key-{seq}"),
                time: Timestamp::from_micros(7),
                appended: Timestamp::from_micros(8),
                objects: (0..1 + seq % 2)
                    .map(|n| ObjectId::of(&[n.to_le_bytes(), seq.to_le_bytes()].concat()))
                    .collect(),
            },
        };
        let make = |seq| {
            let event = event(seq, previous);
            previous = event.id();
            (event, previous)
        };
        (first..first + count).map(make).collect()
    }

    #[test]
    fn events_that_are_cut_out_are_those_that_were_chosen() {
        let events = [chain(1, 1, 9), chain(2, 5, 4), chain(1, 40, 3)].concat();
        let raw = encode_events(events.iter().map(|(event, id)| (event, *id)));
        for mask in (0..1u32 << 16).step_by(97) {
            let chosen = |place: u32| mask >> place & 1 == 1;
            let cut = cut_events(&raw, chosen).unwrap();
            let expected: Vec<(Event, EventId)> = (0..)
                .zip(&events)
                .filter(|(place, _)| chosen(*place))
                .map(|(_, event)| event.clone())
                .collect();
            assert_eq!(decode_events(&cut.raw).unwrap(), expected);
            assert_eq!(cut.raw, encode_events(expected.iter().map(|(event, id)| (event, *id))));
            let mut contents = crate::segment::Contents::default();
            expected.iter().for_each(|(event, id)| contents.add_event(event, *id));
            assert_eq!(cut.runs, contents.runs);
            assert_eq!(cut.kinds, expected.iter().map(|(event, _)| event.fact.kind).collect::<Vec<_>>());
        }
    }
}
