//! Several segments that came from elsewhere become part of a store together, or none does.
//!
//! They lie whole and durable in a folder of the store's `tmp`, and a journal names them: writing it is the commit (I2).
//! From then on whoever opens the store finishes what it says. Before that, what lies there counts for nothing.

use std::path::PathBuf;

use crate::codec::{Decoder, Encoder, length_u32};
use crate::env::{Lock, LockMode};
use crate::error::{Error, Result};
use crate::id::SegmentId;
use crate::layout::{create_dir_durably, read_small, write_durably};
use crate::limits::{LOCK_WAIT_MICROS_MAX, SEGMENTS_MAX};
use crate::lock::lock;
use crate::segments::{sealed_path, segments_dir};
use crate::store::Store;

const JOURNAL: &str = "adopt.journal";
const JOURNAL_BYTES_MAX: u64 = 8 << 20;
const LOCK: &str = "adopt.lock";

/// The folder in which segments wait; there is one for a store, so one adoption at a time.
pub struct Quarantine {
    dir: PathBuf,
    _lock: Box<dyn Lock>,
}

impl Quarantine {
    /// Opens the folder, empty: what an adoption that was cut left there is removed.
    pub fn open(store: &Store) -> Result<Quarantine> {
        let lock = lock(store.env(), &store.dir().join(LOCK), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        // What was cut after its commit comes to its end before anything is removed.
        finish_locked(store)?;
        let dir = store.dir().join("tmp").join("adopt");
        remove(store, &dir)?;
        let doing = |error| Error::io(format!("cannot create `{}`", dir.display()), error);
        create_dir_durably(store.env(), &dir).map_err(doing)?;
        Ok(Quarantine { dir, _lock: lock })
    }

    /// The folder.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Where a segment waits.
    pub fn path(&self, id: &SegmentId) -> PathBuf {
        self.dir.join(format!("{id}.seg"))
    }

    /// Makes segments that wait part of the store: all of them, also when it is cut anywhere. Their contents are durable.
    pub fn adopt(&self, store: &Store, segments: &[SegmentId]) -> Result<()> {
        if segments.is_empty() {
            return Ok(());
        }
        assert!(segments.len() <= SEGMENTS_MAX, "I10: segments are counted before");
        let doing = |error| Error::io(format!("cannot sync `{}`", self.dir.display()), error);
        store.env().fs.sync_dir(&self.dir).map_err(doing)?;
        let mut encoder = Encoder::new();
        encoder.u32(length_u32(segments.len()));
        for id in segments {
            encoder.put(id.as_bytes());
        }
        let mut journal = encoder.finish();
        let checksum = *blake3::hash(&journal).as_bytes();
        journal.extend_from_slice(&checksum);
        write_durably(store.env(), &store.dir().join(JOURNAL), &journal, true)?;
        finish_locked(store)
    }

    /// Removes the folder with what is left in it.
    pub fn close(self, store: &Store) -> Result<()> {
        remove(store, &self.dir)
    }
}

fn remove(store: &Store, dir: &std::path::Path) -> Result<()> {
    match store.env().fs.remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove `{}`", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// Finishes an adoption that was cut after its commit; one of a live process is left to it.
pub(crate) fn finish_interrupted(store: &Store) -> Result<()> {
    if !exists(store, &store.dir().join(JOURNAL))? {
        return Ok(());
    }
    let taken = store.env().fs.try_lock(&store.dir().join(LOCK), LockMode::Exclusive);
    let taken = taken.map_err(|error| Error::io(format!("cannot lock `{LOCK}`"), error))?;
    if taken.is_some() { finish_locked(store) } else { Ok(()) }
}

fn exists(store: &Store, path: &std::path::Path) -> Result<bool> {
    match store.env().fs.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(format!("cannot look at `{}`", path.display()), error)),
    }
}

/// Does what the journal says, if there is one. The caller holds the lock of adoptions.
fn finish_locked(store: &Store) -> Result<()> {
    let path = store.dir().join(JOURNAL);
    let journal = match read_small(store.env(), &path, JOURNAL_BYTES_MAX) {
        Ok(journal) => journal,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    };
    let segments = decode(&journal)?;
    let fs = &store.env().fs;
    let doing = |error| Error::io("cannot put segments in place", error);
    {
        let _lock = lock(store.env(), &store.dir().join("lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        let waiting = store.dir().join("tmp").join("adopt");
        for id in &segments {
            let from = waiting.join(format!("{id}.seg"));
            // One that is not there any more has been put in place, and may have been compacted away since.
            if exists(store, &from)? {
                fs.rename(&from, &sealed_path(store.dir(), id)).map_err(doing)?;
            }
        }
        fs.sync_dir(&segments_dir(store.dir())).map_err(doing)?;
        fs.remove(&path).map_err(doing)?;
        fs.sync_dir(store.dir()).map_err(doing)?;
    }
    store.refresh().map(|_| ())
}

/// The segments that a journal names.
fn decode(journal: &[u8]) -> Result<Vec<SegmentId>> {
    let damaged = || Error::corrupt(format!("`{JOURNAL}` is damaged: it is written whole or not at all"));
    let (body, checksum) = journal.split_last_chunk::<32>().ok_or_else(damaged)?;
    if blake3::hash(body).as_bytes() != checksum {
        return Err(damaged());
    }
    let mut decoder = Decoder::new("journal of an adoption", body);
    let mut segments = Vec::new();
    for _ in 0..decoder.count(32, SEGMENTS_MAX)? {
        segments.push(SegmentId::from_bytes(decoder.array()?));
    }
    decoder.finish()?;
    Ok(segments)
}
