//! Which files have been read to their end, so that an unchanged one is not read again.
//!
//! A hint only, kept beside the index and gone with it. A row holds device, inode, length and times of the file, and
//! from when on its edits were taken.

use std::path::Path;

use agent_trace_store::env::Metadata;
use agent_trace_store::{ObjectId, Result, Store, Timestamp};

use super::places::Candidate;

const VERSION: u8 = 1;
/// A file that was modified later than this before it was read is not remembered: it may still change unseen.
const RACY_MICROS: i64 = 2_000_000;
/// The row that says from when on commits are to be linked.
const PENDING: &[u8] = b"backfill-pending";

/// Which files are to be read.
pub(super) fn fresh(
    store: &Store,
    candidates: &[Candidate],
    since: Option<Timestamp>,
    mode: &[u8],
) -> Result<Vec<bool>> {
    let known = store.index().read(|view| {
        let look_up = |candidate: &Candidate| -> Result<bool> {
            let row = view.side(&key(&candidate.path, mode))?;
            Ok(row.is_some_and(|row| covers(&row, &candidate.metadata, since)))
        };
        candidates.iter().map(look_up).collect::<Result<Vec<bool>>>()
    })?;
    Ok(match known {
        Some(known) => known.into_iter().map(|known| !known).collect(),
        None => vec![true; candidates.len()],
    })
}

/// Remembers files that were read, in one write.
pub(super) fn note(
    store: &Store,
    files: &[&Candidate],
    since: Option<Timestamp>,
    mode: &[u8],
    began: Timestamp,
) -> Result<()> {
    let settled = files.iter().filter(|file| file.metadata.modified.plus_micros(RACY_MICROS) < began);
    let settled: Vec<_> = settled.collect();
    if settled.is_empty() {
        return Ok(());
    }
    store.index().write(|change| {
        for file in &settled {
            change.set_side(&key(&file.path, mode), Some(&encode(&file.metadata, since)))?;
        }
        Ok(())
    })
}

/// From when on commits have not been linked since traces came in.
pub(crate) fn pending(store: &Store) -> Result<Option<Timestamp>> {
    let row = store.index().read(|view| view.side(PENDING))?.flatten();
    let micros = row.and_then(|row| row.try_into().ok()).map(i64::from_le_bytes);
    Ok(micros.map(Timestamp::from_micros))
}

/// Notes that they have to be, or, with nothing, that they have been.
pub(crate) fn set_pending(store: &Store, from: Option<Timestamp>) -> Result<()> {
    let row = from.map(|from| from.micros().to_le_bytes());
    store.index().write(|change| change.set_side(PENDING, row.as_ref().map(|row| row.as_slice())))
}

fn key(path: &Path, mode: &[u8]) -> Vec<u8> {
    let mut name = path.as_os_str().as_encoded_bytes().to_vec();
    name.push(0);
    name.extend_from_slice(mode);
    [b"backfill:".as_slice(), ObjectId::of(&name).as_bytes()].concat()
}

fn encode(metadata: &Metadata, since: Option<Timestamp>) -> Vec<u8> {
    let mut row = vec![VERSION];
    for number in [metadata.device, metadata.inode, metadata.bytes] {
        row.extend_from_slice(&number.to_le_bytes());
    }
    for time in [metadata.modified, metadata.changed] {
        row.extend_from_slice(&time.micros().to_le_bytes());
    }
    row.extend_from_slice(&since.map_or(i64::MIN, Timestamp::micros).to_le_bytes());
    row
}

/// Whether a row is of this very state of the file, and of all that is asked for.
fn covers(row: &[u8], metadata: &Metadata, since: Option<Timestamp>) -> bool {
    let expected = encode(metadata, since);
    let fixed = expected.len() - 8;
    let Some(taken) = row.get(fixed..).and_then(|taken| taken.try_into().ok()).map(i64::from_le_bytes) else {
        return false;
    };
    row[..fixed] == expected[..fixed] && taken <= since.map_or(i64::MIN, Timestamp::micros)
}
