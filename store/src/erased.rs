//! What erase events say: their record, and the file `erased`, which lists what all of them name.
//!
//! The record is canonical JSON and holds ids only, never text of what is erased. The file is computed from the events,
//! so that whoever opens a store knows at once what must not be given out or taken in; a damaged one counts as absent.
//! `docs/erase.md` and `docs/format.md` have the bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::codec::{Decoder, Encoder, length_u32};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, decode_time};
use crate::id::{EventId, IdMap, ObjectId, WriterId};
use crate::json::{JsonError, Reader, write_string};
use crate::kind::Kind;
use crate::layout::{read_small, write_durably};
use crate::limits::{
    ERASE_CONVERSATIONS_MAX, ERASE_OBJECTS_MAX, ERASE_REASON_BYTES_MAX, ERASED_OBJECTS_MAX, KEY_BYTES_MAX,
};
use crate::record::{Facts, Name, name_prefix};
use crate::scan::Marks;
use crate::time::Timestamp;

const MAGIC: &[u8; 8] = b"ATERASE\0";
const VERSION: u32 = 1;
const ACT_BYTES: usize = 104;
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What one erase event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EraseRecord {
    /// Conversations of which nothing is taken in any more.
    pub conversations: BTreeSet<String>,
    /// When it was erased.
    pub erased_at: Timestamp,
    /// Objects whose bytes go.
    pub objects: BTreeSet<ObjectId>,
    /// Why, in the words of whoever erased.
    pub reason: Option<String>,
}

impl EraseRecord {
    /// Splits what is to be erased so that each part is within its limits.
    pub fn split(
        objects: &BTreeSet<ObjectId>,
        conversations: &BTreeSet<String>,
        erased_at: Timestamp,
        reason: Option<&str>,
    ) -> Vec<EraseRecord> {
        let objects: Vec<ObjectId> = objects.iter().copied().collect();
        let conversations: Vec<&String> = conversations.iter().collect();
        let mut objects = objects.chunks(ERASE_OBJECTS_MAX);
        let mut conversations = conversations.chunks(ERASE_CONVERSATIONS_MAX);
        let mut records = Vec::new();
        loop {
            let (ids, keys) = (objects.next(), conversations.next());
            if ids.is_none() && keys.is_none() {
                return records;
            }
            records.push(EraseRecord {
                conversations: keys.unwrap_or_default().iter().map(|key| (*key).clone()).collect(),
                erased_at,
                objects: ids.unwrap_or_default().iter().copied().collect(),
                reason: reason.map(str::to_owned),
            });
        }
    }

    /// Writes the record as canonical JSON.
    ///
    /// Panics where a count is over its limit: callers split before.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.objects.len() <= ERASE_OBJECTS_MAX, "I10: objects are split before");
        assert!(self.conversations.len() <= ERASE_CONVERSATIONS_MAX, "I10: conversations are split before");
        let mut out = b"{\"conversations\":[".to_vec();
        for (place, key) in self.conversations.iter().enumerate() {
            out.extend_from_slice(if place == 0 { b"" } else { b"," });
            write_string(key, &mut out);
        }
        out.extend_from_slice(format!("],\"erased_at\":\"{}\",\"objects\":[", self.erased_at).as_bytes());
        for (place, id) in self.objects.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            out.extend_from_slice(format!("{comma}\"{id}\"").as_bytes());
        }
        out.push(b']');
        if let Some(reason) = &self.reason {
            out.extend_from_slice(b",\"reason\":");
            write_string(reason, &mut out);
        }
        out.push(b'}');
        out
    }

    /// Reads a record back; members that this version does not know are passed over.
    pub fn decode(bytes: &[u8]) -> Result<EraseRecord> {
        let broken = |what: &str| Error::invalid(format!("cannot read erase record: {what}"));
        let members =
            Members::read(bytes).map_err(|error| broken("expected canonical JSON").with_source(error))?;
        let erased_at = members.erased_at.as_deref().and_then(Timestamp::parse);
        let record = EraseRecord {
            conversations: members.conversations.into_iter().collect(),
            erased_at: erased_at.ok_or_else(|| broken("expected `erased_at` to be an RFC 3339 time"))?,
            objects: members.objects.iter().map(|id| ObjectId::parse(id)).collect::<Result<_>>()?,
            reason: members.reason,
        };
        let many = record.objects.len() > ERASE_OBJECTS_MAX
            || record.conversations.len() > ERASE_CONVERSATIONS_MAX
            || record.conversations.iter().any(|key| key.len() > KEY_BYTES_MAX)
            || record.reason.as_ref().is_some_and(|reason| reason.len() > ERASE_REASON_BYTES_MAX);
        if many {
            return Err(broken("a count is over its limit"));
        }
        if record.objects.is_empty() && record.conversations.is_empty() {
            return Err(broken("it names nothing"));
        }
        Ok(record)
    }

    /// What an intake needs to know of the record with these bytes.
    pub fn facts(&self, encoded: &[u8]) -> Facts<'static> {
        Facts {
            key: Cow::Owned(ObjectId::of(encoded).to_string()),
            time: Some(self.erased_at),
            session: None,
            agent: None,
            paths: Vec::new(),
            names: Vec::new(),
        }
    }
}

#[derive(Default)]
struct Members {
    conversations: Vec<String>,
    erased_at: Option<String>,
    objects: Vec<String>,
    reason: Option<String>,
}

impl Members {
    fn read(bytes: &[u8]) -> Result<Members, JsonError> {
        let mut members = Members::default();
        let mut reader = Reader::new(bytes);
        if reader.enter_object()? {
            while let Some(key) = reader.next_key()? {
                match key {
                    b"conversations" => strings(&mut reader, &mut members.conversations)?,
                    b"erased_at" => members.erased_at = reader.string()?.map(Cow::into_owned),
                    b"objects" => strings(&mut reader, &mut members.objects)?,
                    b"reason" => members.reason = reader.string()?.map(Cow::into_owned),
                    _ => {
                        reader.skip()?;
                    }
                }
            }
        }
        reader.finish()?;
        Ok(members)
    }
}

fn strings(reader: &mut Reader<'_>, out: &mut Vec<String>) -> Result<(), JsonError> {
    if reader.enter_array()? {
        while reader.next_item()? {
            out.extend(reader.string()?.map(Cow::into_owned));
        }
    }
    Ok(())
}

/// One erase event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// When.
    pub time: Timestamp,
    /// The event.
    pub event: EventId,
    /// By whom: the event's writer.
    pub writer: WriterId,
    /// The event's record.
    pub record: ObjectId,
}

/// What all erase events of a store name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    acts: Vec<Act>,
    objects: IdMap<u32>,
    conversations: BTreeMap<String, u32>,
    /// Prefixes of the conversations' names.
    prefixes: BTreeSet<[u8; 8]>,
    /// Erase events that the index counted when this was made.
    pub counted: u64,
    /// Whether no bytes are left of what is listed.
    pub swept: bool,
}

impl Erased {
    /// Whether nothing was ever erased.
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// How many objects are erased.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether an object is erased.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.objects.contains_key(id)
    }

    /// Whether nothing of a conversation is taken in any more.
    pub fn has_conversation(&self, key: &str) -> bool {
        self.conversations.contains_key(key)
    }

    /// Whether any conversation is erased.
    pub fn has_conversations(&self) -> bool {
        !self.conversations.is_empty()
    }

    /// The erase event that names an object, the oldest where there are several.
    pub fn act(&self, id: &ObjectId) -> Option<&Act> {
        self.objects.get(id).map(|number| &self.acts[*number as usize])
    }

    /// The erase event that names a conversation.
    pub fn act_on(&self, conversation: &str) -> Option<&Act> {
        self.conversations.get(conversation).map(|number| &self.acts[*number as usize])
    }

    /// The erase events, oldest first.
    pub fn acts(&self) -> &[Act] {
        &self.acts
    }

    /// The objects, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.objects.keys()
    }

    /// Whether a record belongs to an erased conversation: a transcript or summary of it, or a trace that names it.
    pub fn covers(&self, kind: Kind, facts: &Facts<'_>) -> bool {
        if self.conversations.is_empty() {
            return false;
        }
        match kind {
            Kind::TRANSCRIPT => self.has_conversation(&facts.key),
            Kind::TRACE | Kind::SUMMARY => facts
                .names
                .iter()
                .any(|name| matches!(name, Name::Cites(name) if self.has_conversation(name))),
            _ => false,
        }
    }

    /// The same for an event that came from elsewhere with what it is found under: names are compared by their
    /// prefixes first, so a true answer is to be confirmed with the record.
    pub fn may_cover(&self, event: &Event, marks: &Marks) -> bool {
        if self.conversations.is_empty() {
            return false;
        }
        match event.fact.kind {
            Kind::TRANSCRIPT => self.has_conversation(&event.fact.key),
            Kind::TRACE | Kind::SUMMARY => {
                marks.names.iter().any(|(prefix, cites)| *cites && self.prefixes.contains(prefix))
            }
            _ => false,
        }
    }

    /// Puts together what erase events say; each with its record.
    pub fn of(mut events: Vec<(Act, EraseRecord)>, counted: u64) -> Result<Erased> {
        events.sort_unstable_by_key(|(act, _)| *act);
        let mut erased = Erased { counted, ..Erased::default() };
        for (number, (act, record)) in (0u32..).zip(events) {
            erased.acts.push(act);
            for id in record.objects {
                erased.objects.entry(id).or_insert(number);
            }
            for key in record.conversations {
                erased.prefixes.insert(name_prefix(&key));
                erased.conversations.entry(key).or_insert(number);
            }
        }
        // What says that something is erased stays.
        let records: Vec<ObjectId> = erased.acts.iter().map(|act| act.record).collect();
        for record in records {
            erased.objects.remove(&record);
        }
        if erased.objects.len() > ERASED_OBJECTS_MAX {
            let found = erased.objects.len();
            return Err(Error::invalid(format!(
                "expected at most {ERASED_OBJECTS_MAX} erased objects, found {found}"
            )));
        }
        Ok(erased)
    }

    /// Both together.
    pub fn joined(&self, other: Erased) -> Result<Erased> {
        let shift = length_u32(self.acts.len());
        let mut both = self.clone();
        both.acts.extend(other.acts);
        for (id, number) in other.objects {
            both.objects.entry(id).or_insert(number + shift);
        }
        for (key, number) in other.conversations {
            both.conversations.entry(key).or_insert(number + shift);
        }
        both.prefixes.extend(other.prefixes);
        if both.objects.len() > ERASED_OBJECTS_MAX {
            let found = both.objects.len();
            return Err(Error::invalid(format!(
                "expected at most {ERASED_OBJECTS_MAX} erased objects, found {found}"
            )));
        }
        Ok(both)
    }

    /// The same, with a note of whether bytes may be left.
    pub(crate) fn with_swept(&self, swept: bool) -> Erased {
        Erased { swept, ..self.clone() }
    }

    /// Whether another one names the same.
    pub fn names_same(&self, other: &Erased) -> bool {
        self.acts == other.acts
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(MAGIC).u32(VERSION).u8(u8::from(self.swept)).u64(self.counted);
        encoder.u32(length_u32(self.acts.len()));
        for act in &self.acts {
            encoder.put(act.event.as_bytes()).put(act.writer.as_bytes());
            encoder.i64(act.time.micros()).put(act.record.as_bytes());
        }
        let mut objects: Vec<(&ObjectId, &u32)> = self.objects.iter().collect();
        objects.sort_unstable();
        encoder.u32(length_u32(objects.len()));
        for (id, number) in objects {
            encoder.put(id.as_bytes()).u32(*number);
        }
        encoder.u32(length_u32(self.conversations.len()));
        for (key, number) in &self.conversations {
            encoder.prefixed(key.as_bytes()).u32(*number);
        }
        let mut bytes = encoder.finish();
        let checksum = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads the file back.
    pub fn decode(bytes: &[u8]) -> Result<Erased> {
        let body = bytes
            .split_last_chunk::<32>()
            .filter(|(body, checksum)| blake3::hash(body).as_bytes() == *checksum)
            .map(|(body, _)| body)
            .ok_or_else(|| Error::corrupt("the list of what is erased is damaged"))?;
        let mut decoder = Decoder::new("list of what is erased", body);
        decoder.format(MAGIC, VERSION)?;
        let swept = decoder.u8()? == 1;
        let mut erased = Erased { swept, counted: decoder.u64()?, ..Erased::default() };
        for _ in 0..decoder.count(ACT_BYTES, u32::MAX as usize)? {
            let event = EventId::from_bytes(decoder.array()?);
            let writer = WriterId::from_bytes(decoder.array()?);
            let time = decode_time(&mut decoder)?;
            erased.acts.push(Act { time, event, writer, record: ObjectId::from_bytes(decoder.array()?) });
        }
        let acts = erased.acts.len();
        let number = |decoder: &mut Decoder<'_>| {
            let number = decoder.u32()?;
            if number as usize >= acts {
                return Err(decoder.error("it names an event that is not listed"));
            }
            Ok(number)
        };
        for _ in 0..decoder.count(36, ERASED_OBJECTS_MAX)? {
            let id = ObjectId::from_bytes(decoder.array()?);
            erased.objects.insert(id, number(&mut decoder)?);
        }
        for _ in 0..decoder.count(8, u32::MAX as usize)? {
            let key = std::str::from_utf8(decoder.prefixed(KEY_BYTES_MAX)?)
                .map_err(|_| decoder.error("a key is not text"))?
                .to_owned();
            erased.prefixes.insert(name_prefix(&key));
            let number = number(&mut decoder)?;
            erased.conversations.insert(key, number);
        }
        decoder.finish()?;
        Ok(erased)
    }
}

/// How a reader tells one state of the file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(u64, u64, i64)>);

fn path(store: &Path) -> PathBuf {
    store.join("erased")
}

/// How the file is now.
pub(crate) fn stamp(env: &Env, store: &Path) -> Result<Stamp> {
    let path = path(store);
    match env.fs.metadata(&path) {
        Ok(found) => Ok(Stamp(Some((found.inode, found.bytes, found.changed.micros())))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stamp(None)),
        Err(error) => Err(Error::io(format!("cannot look at `{}`", path.display()), error)),
    }
}

/// Reads the file; one that is not there, or damaged, names nothing and counts nothing.
pub(crate) fn read(env: &Env, store: &Path) -> Result<Erased> {
    let path = path(store);
    let bytes = match read_small(env, &path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Erased::default()),
        Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    };
    match Erased::decode(&bytes) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Erased::default()),
        decoded => decoded,
    }
}

/// Replaces the file; the caller holds the store's lock.
pub(crate) fn write(env: &Env, store: &Path, erased: &Erased) -> Result<()> {
    write_durably(env, &path(store), &erased.encode(), true)
}

/// The error for an object that is erased.
pub fn gone(id: &ObjectId, act: &Act) -> Error {
    let (time, writer) = (act.time, act.writer.short());
    Error::new(ErrorKind::NotFound, format!("object `{id}` was erased on {time} by writer `{writer}`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::json::canonicalize;

    fn record(texts: &[&str], keys: &[&str]) -> EraseRecord {
        EraseRecord {
            conversations: keys.iter().map(|key| (*key).to_owned()).collect(),
            erased_at: Timestamp::from_micros(1_700_000_000_000_000),
            objects: texts.iter().map(|text| ObjectId::of(text.as_bytes())).collect(),
            reason: Some("a \"key\"\n".into()),
        }
    }

    #[test]
    fn a_record_is_canonical_and_is_read_back() {
        for record in [record(&["a", "b"], &["c/\u{1}", "d"]), record(&[], &["x"]), record(&["y"], &[])] {
            let bytes = record.encode();
            let mut canonical = Vec::new();
            canonicalize(&bytes, &mut canonical).unwrap();
            assert_eq!(canonical, bytes);
            assert_eq!(EraseRecord::decode(&bytes).unwrap(), record);
        }
        assert!(EraseRecord::decode(&record(&[], &[]).encode()).is_err(), "it names nothing");
        assert!(
            EraseRecord::decode(b"{\"objects\":[\"zz\"],\"erased_at\":\"2026-01-01T00:00:00Z\"}").is_err()
        );
        assert!(EraseRecord::decode(b"[]").is_err());
    }

    #[test]
    fn what_is_over_a_limit_is_split() {
        let objects: BTreeSet<ObjectId> =
            (0..ERASE_OBJECTS_MAX + 1).map(|n| ObjectId::of(&n.to_le_bytes())).collect();
        let keys: BTreeSet<String> = (0..2 * ERASE_CONVERSATIONS_MAX + 1).map(|n| format!("c{n}")).collect();
        let records = EraseRecord::split(&objects, &keys, Timestamp::from_micros(0), None);
        assert_eq!(records.len(), 3);
        let all: BTreeSet<ObjectId> = records.iter().flat_map(|record| record.objects.clone()).collect();
        assert_eq!(all, objects);
        let all: BTreeSet<String> = records.iter().flat_map(|record| record.conversations.clone()).collect();
        assert_eq!(all, keys);
        for record in records {
            assert_eq!(EraseRecord::decode(&record.encode()).unwrap(), record);
        }
    }

    #[test]
    fn the_file_is_read_back_and_a_damaged_one_is_not() {
        let act = |n: u8| Act {
            time: Timestamp::from_micros(i64::from(n)),
            event: EventId::from_bytes([n; 32]),
            writer: WriterId::from_bytes([n; 32]),
            record: ObjectId::from_bytes([n; 32]),
        };
        let events = vec![(act(2), record(&["b", "c"], &["k"])), (act(1), record(&["a", "b"], &["k", "l"]))];
        let mut erased = Erased::of(events, 2).unwrap();
        erased.swept = true;
        assert_eq!(erased.act(&ObjectId::of(b"b")), Some(&act(1)), "the oldest");
        assert_eq!(erased.act(&ObjectId::of(b"c")), Some(&act(2)));
        assert_eq!(erased.act_on("k"), Some(&act(1)));
        let bytes = erased.encode();
        assert_eq!(Erased::decode(&bytes).unwrap(), erased);
        for end in 0..bytes.len() {
            assert!(Erased::decode(&bytes[..end]).is_err());
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert!(Erased::decode(&damaged).is_err());
        }
    }

    #[test]
    fn an_erase_event_cannot_be_erased() {
        let inner = Act {
            time: Timestamp::from_micros(1),
            event: EventId::from_bytes([1; 32]),
            writer: WriterId::from_bytes([1; 32]),
            record: ObjectId::of(b"a"),
        };
        let erased = Erased::of(vec![(inner, record(&["a", "b"], &[]))], 1).unwrap();
        assert!(!erased.contains(&ObjectId::of(b"a")) && erased.contains(&ObjectId::of(b"b")));
    }
}
