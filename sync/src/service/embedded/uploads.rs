//! Segments on their way up: one file for each token and segment, seen by that token only, for a day.
//!
//! `uploads/<hash of the token>/<segment>` holds the bytes, `<segment>.len` how many of them are durable: those count,
//! whatever a power cut left behind them. The length is written after the bytes are synced, and is synced itself before
//! the answer. Eight bytes lie in one sector, so the length is the old one or the new one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::limits::SEGMENT_BYTES_MAX;
use agent_trace_store::segments::Sealed;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId};

use crate::limits::{
    COMMIT_SEGMENTS_MAX, UPLOAD_CHUNK_BYTES_MAX, UPLOADS_BYTES_MAX, UPLOADS_KEPT_MICROS, UPLOADS_OPEN_MAX,
};
use crate::service::grant::TokenId;

/// The folder of uploads in the directory of a project.
pub(super) const UPLOADS: &str = "uploads";

/// The uploads of one project.
pub(super) struct Uploads {
    env: Env,
    dir: PathBuf,
    /// Those that a request writes to just now.
    busy: Mutex<BTreeSet<(String, SegmentId)>>,
}

/// The folder of what a token has sent: its public part is not trusted to be a file name.
pub(super) fn folder_of(token: &TokenId) -> String {
    encode_hex(&blake3::hash(token.as_str().as_bytes()).as_bytes()[..16])
}

impl Uploads {
    /// Opens the folder. What is old stays until it is swept: a commit that was begun may need it.
    pub(super) fn open(env: &Env, dir: PathBuf) -> Result<Uploads> {
        create_dir_durably(env, &dir)
            .map_err(|error| Error::io(format!("cannot create `{}`", dir.display()), error))?;
        Ok(Uploads { env: env.clone(), dir, busy: Mutex::default() })
    }

    fn path(&self, folder: &str, id: &SegmentId) -> PathBuf {
        self.dir.join(folder).join(id.to_string())
    }

    /// How much of a segment is there, durably.
    pub(super) fn uploaded(&self, folder: &str, id: &SegmentId) -> Result<Option<u64>> {
        length_of(&self.env, &self.path(folder, id))
    }

    /// Takes the next bytes of a segment; returns how much there is then.
    pub(super) fn upload(&self, token: &TokenId, id: &SegmentId, offset: u64, bytes: &[u8]) -> Result<u64> {
        if bytes.len() > UPLOAD_CHUNK_BYTES_MAX
            || offset.saturating_add(bytes.len() as u64) > SEGMENT_BYTES_MAX
        {
            return Err(Error::invalid(format!(
                "a chunk of an upload is over its limit of {UPLOAD_CHUNK_BYTES_MAX} bytes, or its segment over \
                 {SEGMENT_BYTES_MAX}"
            )));
        }
        let folder = folder_of(token);
        let key = (folder.clone(), *id);
        if !self.busy().insert(key.clone()) {
            return Err(Error::new(ErrorKind::Unavailable, "another request is sending this segment"));
        }
        let taken = self.upload_alone(&folder, id, offset, bytes);
        self.busy().remove(&key);
        taken
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, SegmentId)>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upload_alone(&self, folder: &str, id: &SegmentId, offset: u64, bytes: &[u8]) -> Result<u64> {
        let path = self.path(folder, id);
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        let there = length_of(&self.env, &path)?;
        if there.unwrap_or_default() != offset {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "expected the bytes from {} on, found those from {offset}",
                    there.unwrap_or_default()
                ),
            ));
        }
        let fs = &self.env.fs;
        let length = path.with_extension("len");
        let (file, mark) = match there {
            // Nothing counts yet, and whoever made them may have failed before their names were durable.
            None | Some(0) => self.create(folder, &path, &length)?,
            Some(_) => (fs.open_write(&path).map_err(doing)?, fs.open_write(&length).map_err(doing)?),
        };
        file.write_all_at(bytes, offset).map_err(doing)?;
        file.sync().map_err(doing)?;
        let end = offset + bytes.len() as u64;
        mark.write_all_at(&end.to_le_bytes(), 0).map_err(doing)?;
        mark.sync().map_err(doing)?;
        Ok(end)
    }

    /// Makes the two files of an upload, empty, with durable names.
    fn create(&self, folder: &str, path: &Path, length: &Path) -> Result<(Box<dyn File>, Box<dyn File>)> {
        let dir = self.dir.join(folder);
        let fs = &self.env.fs;
        let doing = |error| Error::io(format!("cannot create `{}`", path.display()), error);
        create_dir_durably(&self.env, &dir).map_err(doing)?;
        for stale in [path, length] {
            if fs.metadata(stale).is_ok() {
                fs.remove(stale).map_err(doing)?;
            }
        }
        let bytes = self.bytes()?;
        if self.is_full(folder)? {
            let message = format!("a token may have {UPLOADS_OPEN_MAX} uploads at once");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        if bytes >= UPLOADS_BYTES_MAX {
            return Err(Error::new(ErrorKind::Full, "too much has been uploaded and not committed"));
        }
        let file = fs.create(path, true).map_err(doing)?;
        let mark = fs.create(length, true).map_err(doing)?;
        mark.write_all_at(&0u64.to_le_bytes(), 0).map_err(doing)?;
        mark.sync().map_err(doing)?;
        fs.sync_dir(&dir).map_err(doing)?;
        Ok((file, mark))
    }

    /// Whether a token has as many uploads as it may that are not whole yet; those that are wait for their commit.
    fn is_full(&self, folder: &str) -> Result<bool> {
        let names = list(&self.env, &self.dir.join(folder))?;
        let ids: Vec<SegmentId> = names.iter().filter_map(|name| SegmentId::parse(name).ok()).collect();
        if ids.len() < UPLOADS_OPEN_MAX {
            return Ok(false);
        }
        let is_part = |id: &&SegmentId| !self.is_whole(folder, id);
        Ok(ids.len() >= COMMIT_SEGMENTS_MAX || ids.iter().filter(is_part).count() >= UPLOADS_OPEN_MAX)
    }

    /// Whether an upload is a segment already. Looks and changes nothing: it may be written to just now, and bytes whose
    /// length is still to be noted must stay.
    fn is_whole(&self, folder: &str, id: &SegmentId) -> bool {
        let path = self.path(folder, id);
        let Ok(Some(bytes)) = length_of(&self.env, &path) else { return false };
        let Ok(file) = self.env.fs.open(&path) else { return false };
        file.len().is_ok_and(|there| there == bytes) && Sealed::from_file(file, bytes, *id).is_ok()
    }

    /// What all uploads take.
    fn bytes(&self) -> Result<u64> {
        let mut sum = 0;
        for folder in list(&self.env, &self.dir)? {
            let dir = self.dir.join(folder);
            let bytes =
                |name: &String| self.env.fs.metadata(&dir.join(name)).map_or(0, |metadata| metadata.bytes);
            sum += list(&self.env, &dir)?.iter().map(bytes).sum::<u64>();
        }
        Ok(sum)
    }

    /// An upload as a segment, cut to what is there, which is durable then; `None` where there is none.
    pub(super) fn segment(&self, folder: &str, id: &SegmentId) -> Result<Option<(PathBuf, Sealed)>> {
        let key = (folder.to_owned(), *id);
        if !self.busy().insert(key.clone()) {
            return Err(Error::new(ErrorKind::Unavailable, "another request is sending this segment"));
        }
        let found = self.segment_alone(folder, id);
        self.busy().remove(&key);
        found
    }

    fn segment_alone(&self, folder: &str, id: &SegmentId) -> Result<Option<(PathBuf, Sealed)>> {
        let path = self.path(folder, id);
        let Some(bytes) = length_of(&self.env, &path)? else { return Ok(None) };
        let doing = |error| Error::io(format!("cannot open `{}`", path.display()), error);
        let file = self.env.fs.open_write(&path).map_err(doing)?;
        if file.len().map_err(doing)? != bytes {
            file.set_len(bytes).map_err(doing)?;
            file.sync().map_err(doing)?;
        }
        // Who wrote the length may have died before its sync, or the sync failed and another try found it there.
        let mark = self.env.fs.open_write(&path.with_extension("len")).map_err(doing)?;
        mark.write_all_at(&bytes.to_le_bytes(), 0).map_err(doing)?;
        mark.sync().map_err(doing)?;
        Sealed::from_file(file, bytes, *id).map(|sealed| Some((path, sealed)))
    }

    /// Removes an upload, whole or not.
    pub(super) fn remove(&self, folder: &str, id: &SegmentId) -> Result<()> {
        let path = self.path(folder, id);
        // The length first: without it nothing counts.
        for path in [path.with_extension("len"), path] {
            match self.env.fs.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("cannot remove `{}`", path.display()), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what was last written to more than a day ago.
    pub(super) fn sweep(&self) -> Result<()> {
        let before = self.env.clock.now().plus_micros(-UPLOADS_KEPT_MICROS);
        for folder in list(&self.env, &self.dir)? {
            let dir = self.dir.join(&folder);
            for entry in list(&self.env, &dir)? {
                let old =
                    self.env.fs.metadata(&dir.join(&entry)).is_ok_and(|metadata| metadata.modified < before);
                let name = entry.strip_suffix(".len").unwrap_or(&entry);
                match SegmentId::parse(name) {
                    Ok(id) if old => self.remove(&folder, &id)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn length_of(env: &Env, path: &Path) -> Result<Option<u64>> {
    let length = path.with_extension("len");
    let doing = |error| Error::io(format!("cannot read `{}`", length.display()), error);
    let file = match env.fs.open(&length) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(doing(error)),
    };
    let mut bytes = [0; 8];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        // Made, and cut before its first length was durable.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(doing(error)),
    }
    match env.fs.metadata(path) {
        Ok(metadata) => Ok(Some(u64::from_le_bytes(bytes).min(metadata.bytes))),
        // Kept in the store since.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    }
}

/// The names in a directory; none where it is not there.
/// How many uploads there are in the directory of a project.
pub(super) fn uploads_in(env: &Env, project: &Path) -> Result<u64> {
    let (dir, mut count) = (project.join(UPLOADS), 0);
    for folder in list(env, &dir)? {
        let names = list(env, &dir.join(folder))?;
        count += names.iter().filter(|name| SegmentId::parse(name).is_ok()).count() as u64;
    }
    Ok(count)
}

pub(super) fn list(env: &Env, dir: &Path) -> Result<Vec<String>> {
    match env.fs.list(dir) {
        Ok(entries) => Ok(entries.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(format!("cannot list `{}`", dir.display()), error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use agent_trace_store::env::sim::{FaultKind, Repeat, SimDisk};

    #[test]
    fn a_new_upload_leaves_those_alone_that_are_written_to() {
        let env = SimDisk::new(1).env();
        let uploads = Uploads::open(&env, "/uploads".into()).unwrap();
        let token = TokenId::new("t");
        let id = |number: usize| SegmentId::from_bytes([u8::try_from(number).unwrap(); 32]);
        for number in 0..UPLOADS_OPEN_MAX {
            uploads.upload(&token, &id(number), 0, b"part").unwrap();
        }
        // As another request leaves it between its bytes and their length.
        let path = uploads.path(&folder_of(&token), &id(3));
        env.fs.open_write(&path).unwrap().write_all_at(b" of it", 4).unwrap();
        let refused = uploads.upload(&token, &id(UPLOADS_OPEN_MAX), 0, b"part").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert_eq!(env.fs.metadata(&path).unwrap().bytes, 10);
    }

    #[test]
    fn what_a_commit_finds_uploaded_is_durable_also_where_the_first_try_failed() {
        for seed in 0..20 {
            for step in 0..12 {
                let disk = SimDisk::new(seed);
                let uploads = Uploads::open(&disk.env(), "/uploads".into()).unwrap();
                let (token, id) = (TokenId::new("t"), SegmentId::from_bytes([1; 32]));
                disk.fail_at(disk.operations() + step, FaultKind::Eio, Repeat::Once);
                let first = uploads.upload(&token, &id, 0, b"all of it");
                disk.clear_faults();
                if first.is_err() {
                    match uploads.upload(&token, &id, 0, b"all of it") {
                        Ok(there) => assert_eq!(there, 9),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                    }
                }
                // A commit looks at it, and finds no segment here.
                assert!(uploads.segment(&folder_of(&token), &id).is_err());
                disk.crash();
                let uploads = Uploads::open(&disk.env(), "/uploads".into()).unwrap();
                let there = uploads.uploaded(&folder_of(&token), &id).unwrap();
                assert_eq!(there, Some(9), "operation {step} failed, seed {seed}");
                let path = uploads.path(&folder_of(&token), &id);
                assert_eq!(disk.read_file(&path).unwrap(), b"all of it");
            }
        }
    }

    #[test]
    fn an_upload_that_is_written_to_is_not_cut() {
        let env = SimDisk::new(1).env();
        let uploads = Uploads::open(&env, "/uploads".into()).unwrap();
        let (token, id) = (TokenId::new("t"), SegmentId::from_bytes([1; 32]));
        uploads.upload(&token, &id, 0, b"part").unwrap();
        uploads.busy().insert((folder_of(&token), id));
        let refused = uploads.segment(&folder_of(&token), &id).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
    }
}
