//! Room on a full disk, and files that may hold copies of what is erased.
//!
//! What is removed here is computed again, or was left by a process that died. Files of running processes are left
//! alone: who runs cleans up itself.

use std::io;
use std::path::Path;

use crate::env::{Env, LockMode};
use crate::error::{Error, Result};
use crate::layout::write_durably;
use crate::limits::RESERVE_BYTES;
use crate::store::Store;

fn reserve(store: &Path) -> std::path::PathBuf {
    store.join("reserve")
}

/// Makes the file that is given up when the disk is full, unless it is there. That there is no room for it now is no
/// error.
pub(crate) fn keep_back_in(env: &Env, dir: &Path) {
    let path = reserve(dir);
    if matches!(env.fs.metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        // Bytes that no file system makes shorter.
        let mut seed = [0; 32];
        env.entropy.fill(&mut seed);
        let mut bytes = vec![0; RESERVE_BYTES];
        blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut bytes);
        let _ = write_durably(env, &path, &bytes, true);
    }
}

/// The same for a store.
pub(super) fn keep_back(store: &Store) {
    keep_back_in(store.env(), store.dir());
}

/// Gives up what can be computed again, and the reserve.
pub(super) fn make(store: &Store) -> Result<()> {
    store.index().delete()?;
    clear_copies(store)?;
    each_remote(store, "tables")?;
    let path = reserve(store.dir());
    match store.env().fs.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove `{}`", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes files that may hold copies of what is erased. The caller holds `compact.lock`.
pub(super) fn clear_copies(store: &Store) -> Result<()> {
    clear(store, &store.dir().join("damaged"))?;
    each_remote(store, "inbox")
}

/// Clears a folder in the cache of every remote that no other process exchanges with.
fn each_remote(store: &Store, folder: &str) -> Result<()> {
    let dir = store.dir().join("remotes");
    let doing = |error| Error::io(format!("cannot list `{}`", dir.display()), error);
    let entries = match store.env().fs.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(doing)?,
    };
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        let remote = dir.join(&entry.name);
        let taken = store.env().fs.try_lock(&remote.join("lock"), LockMode::Exclusive).map_err(doing)?;
        if let Some(_lock) = taken {
            clear(store, &remote.join(folder))?;
        }
    }
    Ok(())
}

fn clear(store: &Store, dir: &Path) -> Result<()> {
    let fs = &store.env().fs;
    let doing = |error| Error::io(format!("cannot clear `{}`", dir.display()), error);
    let entries = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(doing)?,
    };
    for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
        fs.remove(&dir.join(entry.name)).map_err(doing)?;
    }
    fs.sync_dir(dir).map_err(doing)
}
