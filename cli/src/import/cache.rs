//! Which files have been taken completely, so that an unchanged one is not read again.
//!
//! Only a hint, kept beside the index and gone with it: a file is passed over when device, inode, length and times
//! are as they were. One that changed shortly before it was read is not recorded, since a later change could leave
//! no mark.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, 1 |
//! | 8 each | device, inode, length, modified and changed in microseconds, all little-endian |
//! | 9 each | kind and count of what the file gave |

use std::collections::BTreeMap;
use std::path::Path;

use agent_trace_store::env::Metadata;
use agent_trace_store::{Kind, ObjectId, Result, Store, Timestamp};

use super::source::Role;
use super::tally::Job;
use super::walk::Found;

/// What a source gave when it was last read; nothing where that is not known.
pub(super) type Cached = Option<BTreeMap<Kind, u64>>;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 41;
/// A file that was modified later than this before the import began is not recorded.
const RACY_MICROS: i64 = 2_000_000;

/// Looks up all sources at once.
pub(super) fn read(store: &Store, found: &Found) -> Result<Vec<Cached>> {
    let cached = store.index().read(|view| {
        let look_up = |source: &super::source::Source| -> Result<Cached> {
            let value = view.side(&key(&source.path))?;
            Ok(value.and_then(|value| decode(&value, &source.metadata)))
        };
        found.sources.iter().map(look_up).collect::<Result<Vec<_>>>()
    })?;
    Ok(cached.unwrap_or_default())
}

/// Which sources must be read: a manifest goes with all that it names, a layout's records with any of its blobs.
pub(super) fn fresh(found: &Found, cached: &[Cached]) -> Vec<bool> {
    let sources = &found.sources;
    let mut fresh: Vec<bool> =
        (0..sources.len()).map(|source| cached.get(source).is_none_or(Option::is_none)).collect();
    let mut manifests = vec![false; sources.len()];
    let mut layouts = vec![false; found.layouts.len()];
    for (index, source) in sources.iter().enumerate().filter(|(index, _)| fresh[*index]) {
        match source.role {
            Role::Manifest => manifests[index] = true,
            Role::Listed(manifest) => manifests[manifest] = true,
            Role::Blob(layout, _) => layouts[layout] = true,
            Role::Records(_) | Role::Unknown => {}
        }
    }
    for (index, source) in sources.iter().enumerate() {
        fresh[index] |= match source.role {
            Role::Manifest => manifests[index],
            Role::Listed(manifest) => manifests[manifest],
            Role::Records(Some(layout)) => layouts[layout],
            _ => false,
        };
    }
    fresh
}

/// Records what was taken completely, in one write.
pub(super) fn write(job: &Job<'_>, began: Timestamp) -> Result<()> {
    if job.since.is_some() || job.dry_run {
        return Ok(());
    }
    let settled: Vec<usize> = (0..job.sources.len())
        .filter(|source| job.fresh[*source] && job.is_settled(*source))
        .filter(|source| job.sources[*source].metadata.modified.plus_micros(RACY_MICROS) < began)
        .collect();
    if settled.is_empty() {
        return Ok(());
    }
    job.store.index().write(|change| {
        for source in &settled {
            let value = encode(&job.sources[*source].metadata, &job.counts(*source));
            change.set_side(&key(&job.sources[*source].path), Some(&value))?;
        }
        Ok(())
    })
}

fn key(path: &Path) -> Vec<u8> {
    let mut key = b"source:".to_vec();
    key.extend_from_slice(ObjectId::of(path.as_os_str().as_encoded_bytes()).as_bytes());
    key
}

fn encode(metadata: &Metadata, counts: &BTreeMap<Kind, u64>) -> Vec<u8> {
    let mut value = Vec::with_capacity(FIXED_BYTES + counts.len() * 9);
    value.push(VERSION);
    for number in [metadata.device, metadata.inode, metadata.bytes] {
        value.extend_from_slice(&number.to_le_bytes());
    }
    for time in [metadata.modified, metadata.changed] {
        value.extend_from_slice(&time.micros().to_le_bytes());
    }
    for (kind, count) in counts {
        value.push(kind.number());
        value.extend_from_slice(&count.to_le_bytes());
    }
    value
}

/// What the file gave, if the value was made of this very state of it.
fn decode(value: &[u8], metadata: &Metadata) -> Cached {
    let expected = encode(metadata, &BTreeMap::new());
    let counts = value.strip_prefix(expected.as_slice())?;
    let (counts, rest) = counts.as_chunks::<9>();
    let count = |bytes: &[u8; 9]| {
        let [kind, count @ ..] = bytes;
        (Kind::from_number(*kind), u64::from_le_bytes(*count))
    };
    rest.is_empty().then(|| counts.iter().map(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_answers_for_the_state_it_was_made_of_only() {
        let metadata = Metadata {
            bytes: 3,
            is_dir: false,
            modified: Timestamp::from_micros(-5),
            changed: Timestamp::from_micros(6),
            device: 1,
            inode: u64::MAX,
        };
        let counts = BTreeMap::from([(Kind::TRACE, 7), (Kind::SUMMARY, u64::MAX)]);
        let value = encode(&metadata, &counts);
        assert_eq!(decode(&value, &metadata), Some(counts));
        for length in (0..value.len()).filter(|length| *length != FIXED_BYTES && *length != FIXED_BYTES + 9) {
            assert_eq!(decode(&value[..length], &metadata), None, "{length}");
        }
        for other in [
            Metadata { bytes: 4, ..metadata },
            Metadata { device: 2, ..metadata },
            Metadata { inode: 2, ..metadata },
            Metadata { modified: Timestamp::from_micros(-4), ..metadata },
            Metadata { changed: Timestamp::from_micros(7), ..metadata },
        ] {
            assert_eq!(decode(&value, &other), None, "{other:?}");
        }
    }
}
