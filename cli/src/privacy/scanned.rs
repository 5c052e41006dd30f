//! What has been looked through already, by which rules, and what was found: a file that may be deleted at any time.
//!
//! ```text
//! magic 8 `ATSCAN\0\0` · version u32 · rules, key check: text each
//! events   an event set                        what was looked through
//! findings count · rule, class, fingerprint, hint
//! places   count · writer, seq, kind, key, object, finding, offset, count
//! bodies   count · key, object, bytes          of each conversation the longest that was looked through
//! check 32                                      BLAKE3 of all before it
//! ```
//!
//! Events are ranges of seqs, so a store of a million records that was looked through takes a few hundred bytes here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::layout::{create_dir_durably, read_small, write_durably};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, Kind, ObjectId, Result, Seq, Store, WriterId};

use super::class::Class;
use super::finding::Finding;
use super::limits::SCANNED_BYTES_MAX;

const MAGIC: &[u8; 8] = b"ATSCAN\0\0";
const VERSION: u32 = 1;
const TEXT_BYTES_MAX: usize = 4096;

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) writer: WriterId,
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    /// The natural key of the record.
    pub(crate) key: String,
    /// The object that holds it.
    pub(crate) object: ObjectId,
    /// The number of the finding.
    pub(crate) finding: u32,
    /// Where it stands first in the object.
    pub(crate) offset: u64,
    /// How often.
    pub(crate) count: u64,
}

/// What has been looked through.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    rules: String,
    key: String,
    pub(crate) events: EventSet,
    pub(crate) findings: Vec<Finding>,
    places: Vec<Place>,
    by_object: HashMap<[u8; 16], Vec<u32>>,
    /// The longest transcript of each conversation that was looked through to its end, with its length.
    bodies: BTreeMap<String, (ObjectId, u64)>,
    by_fingerprint: HashMap<(String, String), u32>,
}

fn prefix(id: &ObjectId) -> [u8; 16] {
    *id.as_bytes().first_chunk().expect("an id is longer")
}

impl Scanned {
    /// Nothing yet, for these rules and this key.
    pub(crate) fn new(rules: &str, key: &str) -> Scanned {
        Scanned { rules: rules.to_owned(), key: key.to_owned(), ..Scanned::default() }
    }

    /// What is kept beside a store; what cannot be read, or is of other rules, counts as nothing.
    pub(crate) fn load(store: &Store, rules: &str, key: &str) -> Scanned {
        let bytes = read_small(store.env(), &file(store.dir()), SCANNED_BYTES_MAX).unwrap_or_default();
        match decode(&bytes) {
            Ok(scanned) if scanned.rules == rules && scanned.key == key => scanned,
            _ => Scanned::new(rules, key),
        }
    }

    /// Keeps it; clears up what was left aside by those that were killed.
    pub(crate) fn save(&self, store: &Store) -> Result<()> {
        let path = file(store.dir());
        let dir = path.parent().unwrap_or(store.dir());
        let fs = &store.env().fs;
        // Whoever writes at the same time loses what it writes, and looks through that again.
        for entry in fs.list(dir).unwrap_or_default() {
            if entry.name != "scanned" {
                let _ = fs.remove(&dir.join(&entry.name));
            }
        }
        create_dir_durably(store.env(), dir)
            .map_err(|error| Error::io(format!("cannot create `{}`", dir.display()), error))?;
        write_durably(store.env(), &path, &self.encode(), true)
    }

    /// The number of a finding, which is added where it is new.
    pub(crate) fn finding(&mut self, finding: &Finding) -> u32 {
        let key = (finding.fingerprint.clone(), finding.rule.clone());
        if let Some(number) = self.by_fingerprint.get(&key) {
            return *number;
        }
        let number = length_u32(self.findings.len());
        self.findings.push(finding.clone());
        self.by_fingerprint.insert(key, number);
        number
    }

    /// The transcript of a conversation that was looked through, which the next may extend.
    pub(crate) fn body(&self, key: &str) -> Option<ObjectId> {
        self.bodies.get(key).map(|(id, _)| *id)
    }

    /// Notes a transcript that was looked through.
    pub(crate) fn note_body(&mut self, key: &str, id: ObjectId, bytes: u64) {
        let known = self.bodies.entry(key.to_owned()).or_insert((id, bytes));
        if bytes >= known.1 {
            *known = (id, bytes);
        }
    }

    /// All places.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Adds a place.
    pub(crate) fn add(&mut self, place: Place) {
        let number = length_u32(self.places.len());
        self.by_object.entry(prefix(&place.object)).or_default().push(number);
        self.places.push(place);
    }

    /// The places in one object.
    pub(crate) fn places_of(&self, object: &ObjectId) -> impl Iterator<Item = &Place> {
        let numbers = self.by_object.get(&prefix(object)).into_iter().flatten();
        numbers.map(|number| &self.places[*number as usize])
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(MAGIC).u32(VERSION);
        encoder.prefixed(self.rules.as_bytes()).prefixed(self.key.as_bytes());
        encoder.prefixed(&self.events.encode());
        encoder.u32(length_u32(self.findings.len()));
        for finding in &self.findings {
            encoder.prefixed(finding.rule.as_bytes()).u8(u8::from(finding.class == Class::Certain));
            encoder.prefixed(finding.fingerprint.as_bytes()).prefixed(finding.hint.as_bytes());
        }
        encoder.u32(length_u32(self.places.len()));
        for place in &self.places {
            encoder.put(place.writer.as_bytes()).u64(place.seq.get()).u8(place.kind.number());
            encoder.prefixed(place.key.as_bytes()).put(place.object.as_bytes());
            encoder.u32(place.finding).u64(place.offset).u64(place.count);
        }
        encoder.u32(length_u32(self.bodies.len()));
        for (key, (id, bytes)) in &self.bodies {
            encoder.prefixed(key.as_bytes()).put(id.as_bytes()).u64(*bytes);
        }
        let mut bytes = encoder.finish();
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        bytes
    }
}

/// Where it is kept.
pub(crate) fn file(store: &Path) -> PathBuf {
    store.join("privacy").join("scanned")
}

fn decode(bytes: &[u8]) -> Result<Scanned> {
    let damaged = || Error::corrupt("the notes of what was scanned are damaged");
    let (content, check) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
    if blake3::hash(content).as_bytes() != check {
        return Err(damaged());
    }
    let mut decoder = Decoder::new("notes of what was scanned", content);
    decoder.format(MAGIC, VERSION)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| damaged());
    let rules = text(decoder.prefixed(TEXT_BYTES_MAX)?)?;
    let key = text(decoder.prefixed(TEXT_BYTES_MAX)?)?;
    let mut scanned = Scanned::new(&rules, &key);
    scanned.events = EventSet::decode(decoder.prefixed(content.len())?)?;
    for _ in 0..decoder.count(13, content.len())? {
        let rule = text(decoder.prefixed(TEXT_BYTES_MAX)?)?;
        let class = if decoder.u8()? == 1 { Class::Certain } else { Class::Possible };
        let fingerprint = text(decoder.prefixed(TEXT_BYTES_MAX)?)?;
        let hint = text(decoder.prefixed(TEXT_BYTES_MAX)?)?;
        scanned.finding(&Finding { rule, class, fingerprint, hint });
    }
    for _ in 0..decoder.count(97, content.len())? {
        let writer = WriterId::from_bytes(decoder.array()?);
        let seq = Seq::new(decoder.u64()?).ok_or_else(damaged)?;
        let kind = Kind::from_number(decoder.u8()?);
        let key = text(decoder.prefixed(TEXT_BYTES_MAX)?)?;
        let object = ObjectId::from_bytes(decoder.array()?);
        let (finding, offset, count) = (decoder.u32()?, decoder.u64()?, decoder.u64()?);
        if finding as usize >= scanned.findings.len() {
            return Err(damaged());
        }
        scanned.add(Place { writer, seq, kind, key, object, finding, offset, count });
    }
    for _ in 0..decoder.count(44, content.len())? {
        let key = text(decoder.prefixed(TEXT_BYTES_MAX)?)?;
        let id = ObjectId::from_bytes(decoder.array()?);
        scanned.bodies.insert(key, (id, decoder.u64()?));
    }
    decoder.finish()?;
    Ok(scanned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sample() -> Scanned {
        let mut scanned = Scanned::new("rules", "key");
        let writer = WriterId::from_bytes([3; 32]);
        scanned.events = EventSet::from_ranges([(writer, 1, 1_000_000)]);
        let (rule, fingerprint) = ("github-pat".to_owned(), "0123456789abcdef".to_owned());
        let finding = Finding { rule, class: Class::Certain, fingerprint, hint: "ghp_".to_owned() };
        let number = scanned.finding(&finding);
        assert_eq!(scanned.finding(&finding), number, "each once");
        let object = ObjectId::from_bytes([5; 32]);
        let seq = Seq::new(7).unwrap();
        let key = "conversation".to_owned();
        scanned.note_body(&key, object, 10);
        scanned.note_body(&key, ObjectId::from_bytes([6; 32]), 9);
        let kind = Kind::TRANSCRIPT;
        scanned.add(Place { writer, seq, kind, key, object, finding: number, offset: 9, count: 2 });
        scanned
    }

    #[test]
    fn what_was_noted_is_read_back_and_what_is_damaged_is_not() {
        let scanned = sample();
        let bytes = scanned.encode();
        assert!(bytes.len() < 400, "{}", bytes.len());
        let read = decode(&bytes).unwrap();
        assert_eq!((&read.events, &read.findings), (&scanned.events, &scanned.findings));
        assert_eq!(read.places(), scanned.places());
        let object = ObjectId::from_bytes([5; 32]);
        assert_eq!(read.body("conversation"), Some(object), "the longest");
        assert_eq!(read.places_of(&object).count(), 1);
        assert_eq!(read.encode(), bytes);
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
            let mut flipped = bytes.clone();
            flipped[end] ^= 1;
            assert!(decode(&flipped).is_err(), "{end}");
        }
        // Where the check fits, what it covers is still read with care.
        for end in 0..bytes.len() - 32 {
            let mut false_one = bytes[..bytes.len() - 32].to_vec();
            false_one[end] ^= 0x80;
            let check = blake3::hash(&false_one);
            false_one.extend_from_slice(check.as_bytes());
            let _ = decode(&false_one);
        }
    }
}
