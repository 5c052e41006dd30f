//! Bytes that a token has sent by protocol 1 and that no pointer names yet: `staged/<hash of the token>/<SHA-256>`.
//!
//! They are seen by that token only, for a day. A file gets its name once it is whole, hashed and durable.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::limits::OBJECT_BYTES_MAX;
use agent_trace_store::record::is_sha256;
use agent_trace_store::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use super::uploads::{folder_of, list};
use crate::limits::{STAGED_BYTES_MAX, STAGED_FILES_MAX, STAGED_SWEEP_MICROS, UPLOADS_KEPT_MICROS};
use crate::service::archive::Staging;
use crate::service::grant::TokenId;

/// Staged bytes in one folder; several projects may share it, since protocol 1 stages without naming one.
pub struct StagedFiles {
    env: Env,
    dir: PathBuf,
    /// When it was last swept.
    swept: AtomicU64,
    /// Held while a file gets its name, and from looking at the age of one until it is gone: bytes that are sent again
    /// are not removed as the old ones.
    naming: Mutex<()>,
}

impl StagedFiles {
    /// Opens the folder, and removes what is older than a day or was never finished.
    pub fn open(env: &Env, dir: PathBuf) -> Result<StagedFiles> {
        let swept = AtomicU64::new(env.clock.monotonic_micros());
        let staged = StagedFiles { env: env.clone(), dir, swept, naming: Mutex::new(()) };
        create_dir_durably(env, &staged.dir)
            .map_err(|error| Error::io(format!("cannot create `{}`", staged.dir.display()), error))?;
        for folder in list(env, &staged.dir)? {
            let dir = staged.dir.join(&folder);
            for entry in list(env, &dir)?.iter().filter(|entry| entry.starts_with('.')) {
                let path = dir.join(entry);
                env.fs
                    .remove(&path)
                    .map_err(|error| Error::io(format!("cannot remove `{}`", path.display()), error))?;
            }
        }
        staged.sweep()?;
        Ok(staged)
    }

    fn path(&self, token: &TokenId, sha256: &[u8; 32]) -> PathBuf {
        self.dir.join(folder_of(token)).join(encode_hex(sha256))
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sweeps where that was last done an hour ago.
    pub(super) fn sweep_sometimes(&self) -> Result<()> {
        let (now, swept) = (self.env.clock.monotonic_micros(), self.swept.load(Ordering::Relaxed));
        if now.saturating_sub(swept) < STAGED_SWEEP_MICROS {
            return Ok(());
        }
        self.swept.store(now, Ordering::Relaxed);
        self.sweep()
    }

    /// Removes what was staged more than a day ago.
    pub fn sweep(&self) -> Result<()> {
        let before = self.env.clock.now().plus_micros(-UPLOADS_KEPT_MICROS);
        for folder in list(&self.env, &self.dir)? {
            let dir = self.dir.join(&folder);
            for entry in list(&self.env, &dir)?.iter().filter(|entry| !entry.starts_with('.')) {
                let path = dir.join(entry);
                let _naming = self.naming();
                if !self.env.fs.metadata(&path).is_ok_and(|metadata| metadata.modified < before) {
                    continue;
                }
                match self.env.fs.remove(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(format!("cannot remove `{}`", path.display()), error));
                    }
                    // Or a pointer has just made it part of a project.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Opens what a token has staged; a file that is older than a day counts as gone.
    pub(super) fn file(&self, token: &TokenId, sha256: &[u8; 32]) -> Result<Option<(Box<dyn File>, u64)>> {
        let path = self.path(token, sha256);
        let before = self.env.clock.now().plus_micros(-UPLOADS_KEPT_MICROS);
        let doing = |error| Error::io(format!("cannot read `{}`", path.display()), error);
        match self.env.fs.metadata(&path) {
            Ok(metadata) if metadata.modified < before => Ok(None),
            Ok(metadata) => Ok(Some((self.env.fs.open(&path).map_err(doing)?, metadata.bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(doing(error)),
        }
    }

    /// Removes what a pointer has made part of a project.
    pub(super) fn linked(&self, token: &TokenId, sha256: &[u8; 32]) {
        // What is left is swept after a day.
        let _ = self.env.fs.remove(&self.path(token, sha256));
    }

    /// Refuses a token that has staged too much.
    fn admit(&self, folder: &str) -> Result<()> {
        let dir = self.dir.join(folder);
        let names = list(&self.env, &dir)?;
        let bytes =
            |name: &String| self.env.fs.metadata(&dir.join(name)).map_or(0, |metadata| metadata.bytes);
        if names.len() >= STAGED_FILES_MAX || names.iter().map(bytes).sum::<u64>() >= STAGED_BYTES_MAX {
            self.sweep()?;
            let message =
                format!("a token may stage {STAGED_FILES_MAX} files of {STAGED_BYTES_MAX} bytes in all");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    fn write(&self, path: &std::path::Path, bytes: &mut dyn Read, most: u64) -> Result<([u8; 32], u64)> {
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        let file = self.env.fs.create(path, true).map_err(doing)?;
        let mut buffer = vec![0; 256 << 10];
        let (mut hash, mut at) = (Sha256::new(), 0);
        loop {
            let read = match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Error::invalid("cannot read what is to be staged").with_source(error));
                }
            };
            if at + read as u64 > most {
                return Err(Error::invalid(format!("expected at most {most} bytes")));
            }
            hash.update(&buffer[..read]);
            file.write_all_at(&buffer[..read], at).map_err(doing)?;
            at += read as u64;
        }
        file.sync().map_err(doing)?;
        Ok((hash.finalize().into(), at))
    }
}

impl Staging for StagedFiles {
    fn stage(&self, token: &TokenId, bytes: &mut dyn Read, bytes_max: u64) -> Result<([u8; 32], u64)> {
        let folder = folder_of(token);
        let dir = self.dir.join(&folder);
        let doing = |error| Error::io(format!("cannot stage in `{}`", dir.display()), error);
        create_dir_durably(&self.env, &dir).map_err(doing)?;
        self.admit(&folder)?;
        let mut nonce = [0; 16];
        self.env.entropy.fill(&mut nonce);
        let aside = dir.join(format!(".{}", encode_hex(&nonce)));
        let written =
            self.write(&aside, bytes, bytes_max.min(OBJECT_BYTES_MAX)).and_then(|(sha256, length)| {
                let naming = self.naming();
                self.env.fs.rename(&aside, &self.path(token, &sha256)).map_err(doing)?;
                drop(naming);
                self.env.fs.sync_dir(&dir).map_err(doing)?;
                Ok((sha256, length))
            });
        if written.is_err() {
            // The error matters, not what it leaves behind: that is swept at the next start.
            let _ = self.env.fs.remove(&aside);
        }
        written
    }

    fn staged(&self, token: &TokenId, sha256: &[u8; 32]) -> Result<Option<u64>> {
        Ok(self.file(token, sha256)?.map(|(_, bytes)| bytes))
    }

    fn read_staged(
        &self,
        token: &TokenId,
        sha256: &[u8; 32],
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let Some((file, length)) = self.file(token, sha256)? else { return Ok(false) };
        let (mut buffer, mut at) = (vec![0; 256 << 10], 0);
        while at < length {
            let count = usize::try_from(length - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            file.read_exact_at(&mut buffer[..count], at)
                .map_err(|error| Error::io("cannot read staged bytes", error))?;
            each(&buffer[..count])?;
            at += count as u64;
        }
        Ok(true)
    }
}

/// Reads a SHA-256 as it is written: 64 hex digits in lower case.
pub(super) fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut sha256 = [0; 32];
    (is_sha256(text) && decode_hex(text, &mut sha256)).then_some(sha256)
}
