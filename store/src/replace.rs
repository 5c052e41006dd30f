//! Putting new segments in the place of old ones, so that a cut anywhere leaves the one or the other.
//!
//! The new segments are whole and durable in `tmp/` before a journal names them; from then on whoever opens the store
//! finishes what the journal says. Each step may be done twice. Knows nothing of what the segments hold.

use std::path::Path;
use std::sync::Arc;

use crate::build::Built;
use crate::codec::{Decoder, Encoder, length_u32};
use crate::env::LockMode;
use crate::error::{Error, Result};
use crate::id::SegmentId;
use crate::layout::{read_small, write_durably};
use crate::limits::{LOCK_WAIT_MICROS_MAX, SEGMENTS_MAX};
use crate::lock::lock;
use crate::segments::{Sealed, sealed_path, segments_dir};
use crate::store::Store;

const JOURNAL_BYTES_MAX: u64 = 8 << 20;

/// Who replaces segments; each has a journal of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A compaction: the index is made anew with each journal.
    Compact,
    /// An erase, which replaces one segment after the other and makes the index anew at its end.
    Erase,
}

impl Why {
    /// The name of the journal.
    pub(crate) fn journal(self) -> &'static str {
        match self {
            Why::Compact => "compact.journal",
            Why::Erase => "erase.journal",
        }
    }
}

/// Removes what a compaction, an erase or a repair that was cut has left. The caller holds `compact.lock`.
pub(crate) fn sweep(store: &Store) -> Result<()> {
    for why in [Why::Compact, Why::Erase] {
        if exists(store, &store.dir().join(why.journal()))? {
            return Ok(());
        }
    }
    remove_named(store, &store.dir().join("tmp"), "build-")?;
    for why in [Why::Compact, Why::Erase] {
        remove_named(store, store.dir(), &format!(".{}.", why.journal()))?;
    }
    Ok(())
}

/// Removes files of a directory whose names start so.
pub(crate) fn remove_named(store: &Store, dir: &Path, start: &str) -> Result<()> {
    let fs = &store.env().fs;
    let doing = |error| Error::io(format!("cannot clear `{}`", dir.display()), error);
    for entry in fs.list(dir).map_err(doing)? {
        if entry.name.to_str().is_some_and(|name| name.starts_with(start)) {
            fs.remove(&dir.join(entry.name)).map_err(doing)?;
        }
    }
    Ok(())
}

/// Puts the new segments in the place of the old ones.
pub(crate) fn switch(store: &Store, why: Why, built: &[Built], old: &[Arc<Sealed>]) -> Result<()> {
    let mut encoder = Encoder::new();
    encoder.u32(length_u32(built.len()));
    for built in built {
        let name = built.path.file_name().and_then(|name| name.to_str()).expect("our own names are text");
        encoder.put(built.id.as_bytes()).prefixed(name.as_bytes());
    }
    encoder.u32(length_u32(old.len()));
    for sealed in old {
        encoder.put(sealed.id.as_bytes());
    }
    let tmp = store.dir().join("tmp");
    store.env().fs.sync_dir(&tmp).map_err(|error| Error::io("cannot sync the new segments", error))?;
    let mut journal = encoder.finish();
    let checksum = *blake3::hash(&journal).as_bytes();
    journal.extend_from_slice(&checksum);
    write_durably(store.env(), &store.dir().join(why.journal()), &journal, true)?;
    roll_forward(store, why, &journal)
}

/// Finishes what was cut after its journal was written. A journal of a live process is left to it.
pub(crate) fn finish_interrupted(store: &Store) -> Result<()> {
    for why in [Why::Compact, Why::Erase] {
        finish(store, why)?;
    }
    Ok(())
}

/// The same by whoever holds `compact.lock`.
pub(crate) fn roll_on(store: &Store) -> Result<()> {
    for why in [Why::Compact, Why::Erase] {
        let path = store.dir().join(why.journal());
        if exists(store, &path)? {
            read_on(store, why, &path)?;
        }
    }
    Ok(())
}

fn finish(store: &Store, why: Why) -> Result<()> {
    let path = store.dir().join(why.journal());
    if !exists(store, &path)? {
        return Ok(());
    }
    let compact_lock = store.dir().join("compact.lock");
    let taken = store.env().fs.try_lock(&compact_lock, LockMode::Exclusive);
    let Some(_lock) = taken.map_err(|error| Error::io("cannot lock `compact.lock`", error))? else {
        return Ok(());
    };
    read_on(store, why, &path)
}

fn read_on(store: &Store, why: Why, path: &Path) -> Result<()> {
    match read_small(store.env(), path, JOURNAL_BYTES_MAX) {
        Ok(journal) => roll_forward(store, why, &journal),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    }
}

/// Whether a file is there; that it cannot be looked at does not say that it is not.
pub(crate) fn exists(store: &Store, path: &Path) -> Result<bool> {
    match store.env().fs.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(format!("cannot look at `{}`", path.display()), error)),
    }
}

fn roll_forward(store: &Store, why: Why, journal: &[u8]) -> Result<()> {
    let (body, checksum) = journal
        .split_last_chunk::<32>()
        .filter(|(body, checksum)| blake3::hash(body).as_bytes() == *checksum)
        .ok_or_else(|| {
            Error::corrupt(format!("`{}` is damaged: it is written whole or not at all", why.journal()))
        })?;
    let _ = checksum;
    let mut decoder = Decoder::new("journal of replaced segments", body);
    let (fs, tmp) = (&store.env().fs, store.dir().join("tmp"));
    let doing = |error| Error::io("cannot put new segments in place", error);
    let _lock = lock(store.env(), &store.dir().join("lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    let mut new = Vec::new();
    for _ in 0..decoder.count(36, SEGMENTS_MAX)? {
        let id = SegmentId::from_bytes(decoder.array()?);
        let name = decoder.prefixed(255)?;
        let name = std::str::from_utf8(name).map_err(|_| decoder.error("a name is not text"))?;
        let (from, to) = (tmp.join(name), sealed_path(store.dir(), &id));
        if !exists(store, &to)? {
            fs.rename(&from, &to).map_err(doing)?;
        }
        new.push(id);
    }
    fs.sync_dir(&segments_dir(store.dir())).map_err(doing)?;
    for _ in 0..decoder.count(32, SEGMENTS_MAX)? {
        let path = sealed_path(store.dir(), &SegmentId::from_bytes(decoder.array()?));
        if exists(store, &path)? {
            fs.remove(&path).map_err(doing)?;
        }
    }
    fs.sync_dir(&segments_dir(store.dir())).map_err(doing)?;
    fs.remove(&store.dir().join(why.journal())).map_err(doing)?;
    fs.sync_dir(store.dir()).map_err(doing)?;
    drop(_lock);
    match why {
        Why::Compact => crate::compact::reindex_after(store, &new),
        Why::Erase => Ok(()),
    }
}
