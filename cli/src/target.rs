//! What an id on the command line stands for: records with their versions, or a bare object.
//!
//! A beginning that fits several things is refused with a list of them. Versions of one record are one thing.

use std::collections::{BTreeMap, BTreeSet};

use agent_trace_store::question::{self, Found, Match};
use agent_trace_store::record::{self, Name, TranscriptRecord};
use agent_trace_store::store::Snapshot;
use agent_trace_store::{ErrorKind, Kind, ObjectId, Presence, Result, Store};
use sha2::{Digest, Sha256};

use crate::report::Failure;
use crate::sanitize;

const CANDIDATES_SHOWN_MAX: usize = 20;

/// What an id stands for.
pub(crate) enum Target {
    /// Records, at least one.
    Records(Vec<Versions>),
    /// An object that no event lists by itself.
    Object(ObjectId),
}

/// All versions of one record, at least one.
pub(crate) struct Versions {
    /// The versions, each once, newest first.
    pub(crate) all: Vec<Found>,
    /// Which of them answers.
    pub(crate) chosen: usize,
}

impl Versions {
    /// The version that answers.
    pub(crate) fn answer(&self) -> &Found {
        &self.all[self.chosen]
    }
}

/// Finds what an id stands for.
pub(crate) fn find(store: &Store, snapshot: &Snapshot, text: &str) -> Result<Target, Failure> {
    let mut things: BTreeMap<Thing, Vec<Found>> = BTreeMap::new();
    for found in question::resolve(store, snapshot, text)? {
        match found {
            Match::Object(id) => {
                things.entry(Thing::Object(id)).or_default();
            }
            Match::Event(found) => {
                for thing in things_named(store, &found, text)? {
                    things.entry(thing).or_default().push((*found).clone());
                }
            }
        }
    }
    if things.len() > 1 {
        return Err(ambiguous(text, &things));
    }
    match things.pop_first() {
        None => Err(absent(text)),
        Some((Thing::Object(id), _)) => Ok(Target::Object(id)),
        Some((thing, events)) => Ok(Target::Records(versions(store, snapshot, &thing, events)?)),
    }
}

/// What a beginning may be the beginning of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// A natural key: a trace, a conversation, or a commit with its ledger and commit-link.
    Key(String),
    /// One version of a record, by its id.
    Record(ObjectId),
    /// The bytes of a transcript, by their SHA-256 or their id.
    Body(ObjectId),
    /// Any other object.
    Object(ObjectId),
}

/// The things of this event whose name the text is, or else begins.
fn things_named(store: &Store, found: &Found, text: &str) -> Result<BTreeSet<Thing>> {
    let fact = &found.event.fact;
    let plain = |name: &str| name.replace('-', "").to_ascii_lowercase();
    let wanted = plain(text);
    let fits = |name: &str, whole: bool| if whole { name == text } else { plain(name).starts_with(&wanted) };
    for whole in [true, false] {
        let mut things = BTreeSet::new();
        // Raw bytes have their id for a key: that is one name, not two.
        if fits(&fact.key, whole) && fact.key != found.record().to_string() {
            things.insert(Thing::Key(fact.key.clone()));
        }
        for (index, id) in fact.objects.iter().enumerate() {
            if fits(&id.to_string(), whole) {
                things.insert(if index == 0 { Thing::Record(*id) } else { Thing::Body(*id) });
            }
        }
        if things.is_empty() && fact.kind == Kind::TRANSCRIPT {
            let bytes = store.read_unless_erased(&found.record())?.unwrap_or_default();
            let names = record::facts(fact.kind, &bytes).map(|facts| facts.names);
            let named = names
                .unwrap_or_default()
                .iter()
                .any(|name| matches!(name, Name::Is(name) if fits(name, whole)));
            if named {
                things
                    .insert(fact.objects.get(1).map_or(Thing::Record(found.record()), |id| Thing::Body(*id)));
            }
        }
        if !things.is_empty() {
            return Ok(things);
        }
    }
    Ok(BTreeSet::from([Thing::Record(found.record())]))
}

/// Sorts events into records, and says which version of each answers.
fn versions(store: &Store, snapshot: &Snapshot, thing: &Thing, events: Vec<Found>) -> Result<Vec<Versions>> {
    let mut records: BTreeMap<(Kind, String), Vec<Found>> = BTreeMap::new();
    for found in events {
        let key = (found.event.fact.kind, found.event.fact.key.clone());
        records.entry(key).or_default().push(found);
    }
    let mut all = Vec::new();
    for ((kind, key), mut found) in records {
        let meant = match thing {
            Thing::Record(id) => Some(*id),
            Thing::Body(id) => newest_with_body(&found, id),
            _ => None,
        };
        if meant.is_some() {
            // The other versions do not have this id; they are counted, and listed by `--all`.
            found.extend(question::named(store, snapshot, &key, false)?);
            found.retain(|found| found.event.fact.kind == kind && found.event.fact.key == key);
        }
        all.push(sort(store, kind, found, meant)?);
    }
    Ok(all)
}

fn newest_with_body(found: &[Found], body: &ObjectId) -> Option<ObjectId> {
    let with = found.iter().filter(|found| found.event.fact.objects[1..].contains(body));
    with.max_by_key(|found| (found.event.fact.time, found.record())).map(Found::record)
}

fn sort(store: &Store, kind: Kind, mut found: Vec<Found>, meant: Option<ObjectId>) -> Result<Versions> {
    found.sort_by_key(|found| std::cmp::Reverse((found.event.fact.time, found.record(), found.event.writer)));
    found.dedup_by_key(|found| found.record());
    let answer = match meant {
        Some(meant) => Some(meant),
        None if kind == Kind::TRANSCRIPT => choose_transcript(store, &found)?,
        None => question::choose(kind, &found).map(Found::record),
    };
    let chosen = found.iter().position(|found| Some(found.record()) == answer).unwrap_or(0);
    Ok(Versions { all: found, chosen })
}

/// The longest version, if its beginnings are all the others; else the one that is chosen by time.
fn choose_transcript(store: &Store, versions: &[Found]) -> Result<Option<ObjectId>> {
    let newest = question::choose(Kind::TRANSCRIPT, versions).map(Found::record);
    if versions.len() < 2 {
        return Ok(newest);
    }
    let mut states = Vec::new();
    for found in versions {
        let record = store.read_unless_erased(&found.record())?;
        let Some(Ok(record)) = record.as_deref().map(TranscriptRecord::decode) else { return Ok(newest) };
        states.push((record.size, record.content_sha256, found));
    }
    states.sort_by(|a, b| (a.0, &a.1, a.2.event.fact.time).cmp(&(b.0, &b.1, b.2.event.fact.time)));
    let Some((size, sha256, longest)) = states.last().cloned() else { return Ok(newest) };
    let is_alone = states.iter().all(|state| state.0 < size || state.1 == sha256);
    if Some(longest.record()) == newest || !is_alone || longest.event.fact.objects.len() < 2 {
        return Ok(newest);
    }
    let body = &longest.event.fact.objects[1];
    if store.presence(body)? != Presence::Present {
        // Only its bytes could tell whether it extends the others.
        return Ok(newest);
    }
    let extends = extends(store, body, &states)?;
    Ok(if extends { Some(longest.record()) } else { newest })
}

/// Whether the bytes of each state are the beginning of this object. States are in order of size.
fn extends(store: &Store, body: &ObjectId, states: &[(u64, String, &Found)]) -> Result<bool> {
    let (mut at, mut hasher, mut all) = (0u64, Sha256::new(), true);
    let mut next = 0;
    store.copy(body, &mut |mut part| {
        while !part.is_empty() && all && next < states.len() {
            let wanted = states[next].0.saturating_sub(at);
            let take = usize::try_from(wanted).unwrap_or(usize::MAX).min(part.len());
            hasher.update(&part[..take]);
            at += take as u64;
            part = &part[take..];
            if at >= states[next].0 {
                let hash: [u8; 32] = hasher.clone().finalize().into();
                all = agent_trace_store::id::encode_hex(&hash) == states[next].1;
                next += 1;
            }
        }
        Ok(())
    })?;
    Ok(all)
}

fn absent(text: &str) -> Failure {
    let message = format!("nothing in this store is called `{}`", sanitize::line(text));
    let hint = if text.len() < 4 {
        "give at least 4 digits of an id"
    } else {
        "`agent-trace log` lists records with their ids; `agent-trace pull` may bring more"
    };
    Failure::new(ErrorKind::NotFound, message, hint)
}

fn ambiguous(text: &str, things: &BTreeMap<Thing, Vec<Found>>) -> Failure {
    let mut lines: Vec<String> = things
        .iter()
        .take(CANDIDATES_SHOWN_MAX)
        .map(|(thing, events)| {
            let of = events.first().map(|found| {
                let fact = &found.event.fact;
                format!("{} {} {}", fact.kind, sanitize::line(&fact.key), fact.time)
            });
            match thing {
                Thing::Key(key) => of.unwrap_or_else(|| sanitize::line(key).into_owned()),
                Thing::Record(id) => format!("record {id} ({})", of.unwrap_or_default()),
                Thing::Body(id) => format!("bytes of a transcript {id} ({})", of.unwrap_or_default()),
                Thing::Object(id) => format!("object {id}"),
            }
        })
        .collect();
    if things.len() > CANDIDATES_SHOWN_MAX {
        lines.push(format!("and {} more", things.len() - CANDIDATES_SHOWN_MAX));
    }
    let message = format!("`{}` may be any of {} things", sanitize::line(text), things.len());
    let mut failure = Failure::new(ErrorKind::Invalid, message, "give more digits");
    failure.error = failure.error.with_source(lines.join("\n"));
    failure
}

/// An object's length, without reading it.
pub(crate) fn object_bytes(store: &Store, id: &ObjectId) -> Result<u64> {
    if let Presence::Erased(act) = store.presence(id)? {
        return Err(agent_trace_store::erased::gone(id, &act));
    }
    Ok(store.leaves(id)?.1)
}
