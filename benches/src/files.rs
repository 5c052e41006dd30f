//! What the benchmarks do with files and folders: count bytes, remove, copy durably, warm up.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::report::Result;

/// The apparent bytes of all files below a folder, or of one file.
pub(crate) fn bytes_below(path: &Path) -> Result<u64> {
    let metadata = std::fs::symlink_metadata(path)
        .map_err(|error| format!("cannot count {}: {error}", path.display()))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        bytes += bytes_below(&entry?.path())?;
    }
    Ok(bytes)
}

/// Removes a folder; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}

/// Removes a folder and makes it again, empty.
pub(crate) fn renew(path: &Path) -> Result<PathBuf> {
    remove(path)?;
    std::fs::create_dir_all(path)?;
    Ok(path.to_path_buf())
}

/// Copies a folder, each file and each folder synced: the physical floor of a push to a folder.
pub(crate) fn copy_durably(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_durably(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()?;
    Ok(())
}

/// Reads all files below a folder once, so that every competitor finds them in memory.
pub(crate) fn warm(path: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            warm(&entry.path())?;
            continue;
        }
        let mut file = File::open(entry.path())?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// The whole lines that lie in `bytes` bytes of a file from `offset` on.
pub(crate) fn lines_at(path: &Path, offset: u64, bytes: u64) -> Result<Vec<String>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut raw = Vec::new();
    file.take(bytes).read_to_end(&mut raw)?;
    let text = String::from_utf8_lossy(&raw);
    // The first piece is the end of a line, except at the start; the last one is the start of a line, or empty.
    let mut pieces: Vec<&str> = text.split('\n').skip(usize::from(offset > 0)).collect();
    pieces.pop();
    Ok(pieces.into_iter().map(String::from).collect())
}
