//! Two records under one key: what a bundle brings beside what is here. Both are kept; which one answers follows from what
//! they say (decisions on records), so all that is done here is to tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_trace_store::id::encode_hex;
use agent_trace_store::question;
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::segments::Sealed;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, ObjectId, Presence, Result, Store};
use sha2::{Digest, Sha256};

use crate::collect::read_record;
use crate::limits::BUNDLE_CONFLICTS_MAX;

/// A key under which a bundle brings another record than the one that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConflict {
    /// The kind of the records.
    pub kind: Kind,
    /// Their key.
    pub key: String,
    /// The records that were here.
    pub here: Vec<ObjectId>,
    /// The records that came.
    pub came: Vec<ObjectId>,
}

/// A record that comes: by its event's objects.
type Coming = BTreeMap<(Kind, String), BTreeSet<Vec<ObjectId>>>;

/// Records that come, gathered to be compared with what is here.
#[derive(Default)]
pub(crate) struct Comparison {
    coming: Coming,
    found: Vec<KeyConflict>,
    count: u64,
}

/// Keys that are looked up at once.
const KEYS_AT_ONCE: usize = 4_096;

impl Comparison {
    /// Notes the objects of an event that comes.
    pub(crate) fn note(&mut self, kind: Kind, key: &str, objects: &[ObjectId]) {
        if kind.is_known() {
            self.coming.entry((kind, key.to_owned())).or_default().insert(objects.to_vec());
        }
    }

    /// Compares what has been noted, and forgets it.
    pub(crate) fn flush(&mut self, store: &Store, snapshot: &Snapshot, extra: &[Arc<Sealed>]) -> Result<()> {
        let coming = std::mem::take(&mut self.coming);
        for kind in Kind::KNOWN {
            let of_kind: Vec<_> = coming.iter().filter(|((of, _), _)| *of == kind).collect();
            for part in of_kind.chunks(KEYS_AT_ONCE) {
                let keys: Vec<&str> = part.iter().map(|((_, key), _)| key.as_str()).collect();
                let here = question::keyed(store, snapshot, kind, &keys)?;
                for (((_, key), came), here) in part.iter().zip(here) {
                    let here: BTreeSet<Vec<ObjectId>> =
                        here.into_iter().map(|found| found.event.fact.objects).collect();
                    self.compare(store, extra, kind, key, &here, came)?;
                }
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        store: &Store,
        extra: &[Arc<Sealed>],
        kind: Kind,
        key: &str,
        here: &BTreeSet<Vec<ObjectId>>,
        came: &BTreeSet<Vec<ObjectId>>,
    ) -> Result<()> {
        let records =
            |set: &BTreeSet<Vec<ObjectId>>| set.iter().map(|objects| objects[0]).collect::<BTreeSet<_>>();
        let (mine, theirs) = (records(here), records(came));
        let new: Vec<ObjectId> = theirs.difference(&mine).copied().collect();
        if mine.is_empty() || new.is_empty() {
            return Ok(());
        }
        if kind == Kind::TRANSCRIPT && is_one_series(store, extra, here.iter().chain(came))? {
            return Ok(());
        }
        self.count += 1;
        if self.found.len() < BUNDLE_CONFLICTS_MAX {
            let here = mine.into_iter().collect();
            self.found.push(KeyConflict { kind, key: key.to_owned(), here, came: new });
        }
        Ok(())
    }

    /// The first conflicts, and how many there are.
    pub(crate) fn finish(self) -> (Vec<KeyConflict>, u64) {
        (self.found, self.count)
    }
}

/// Whether the longest of these snapshots starts with each of the others, so that they are one transcript as it grew.
fn is_one_series<'o>(
    store: &Store,
    extra: &[Arc<Sealed>],
    snapshots: impl Iterator<Item = &'o Vec<ObjectId>>,
) -> Result<bool> {
    let mut states: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut longest: Option<(u64, ObjectId)> = None;
    for objects in snapshots {
        let Ok(record) = TranscriptRecord::decode(&read_record(store, extra, &objects[0])?) else {
            return Ok(false);
        };
        let Some(body) = objects.get(1) else { return Ok(false) };
        if longest.is_none_or(|(bytes, _)| record.size > bytes) {
            longest = Some((record.size, *body));
        }
        states.entry(record.size).or_default().insert(record.content_sha256);
    }
    if states.values().any(|hashes| hashes.len() > 1) {
        return Ok(false);
    }
    let Some((_, body)) = longest else { return Ok(true) };
    if store.locate_with(extra, &body)?.is_none() && store.presence(&body)? != Presence::Present {
        // Only its bytes could tell.
        return Ok(true);
    }
    let (mut at, mut hasher, mut all) = (0u64, Sha256::new(), true);
    let mut states = states.into_iter().peekable();
    store.copy_with(extra, &body, &mut |mut part| {
        while let Some((size, hashes)) = states.peek() {
            let take = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(part.len());
            hasher.update(&part[..take]);
            at += take as u64;
            part = &part[take..];
            if at < *size {
                break;
            }
            let hash: [u8; 32] = hasher.clone().finalize().into();
            all = all && hashes.contains(&encode_hex(&hash));
            states.next();
        }
        Ok(())
    })?;
    Ok(all)
}
