//! A file in a bucket that is read in parts: small reads by blocks that are kept for a while, large ones as they are.
//!
//! Where a bucket does not keep to ranges, the file is fetched as a whole once, and read here. What was read is checked
//! by whoever asked; a block proves nothing.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Result};
use bytes::Bytes;
use object_store::path::Path;

use super::Inner;
use crate::limits::BLOCKS_KEPT_MAX;

/// A file that is read by ranges.
pub(super) struct Ranged {
    inner: Arc<Inner>,
    path: Path,
    bytes: u64,
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
    whole: OnceLock<Spooled>,
}

impl Ranged {
    /// Opens one by its first block, which says how long it is; `None` where it is not there.
    pub(super) fn open(inner: &Arc<Inner>, path: Path) -> Result<Option<Ranged>> {
        let make = |bytes| Ranged {
            inner: Arc::clone(inner),
            path: path.clone(),
            bytes,
            blocks: Mutex::new(VecDeque::new()),
            whole: OnceLock::new(),
        };
        if inner.has_ranges() {
            match inner.range(&path, 0..inner.sizes.block)? {
                Some(Some((first, bytes))) => {
                    let file = make(bytes);
                    file.keep(0, first);
                    return Ok(Some(file));
                }
                Some(None) => {}
                None => return Ok(None),
            }
        }
        Ok(inner.bytes(&path)?.map(make))
    }

    fn keep(&self, index: u64, block: Bytes) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push_back((index, block));
        if blocks.len() > BLOCKS_KEPT_MAX {
            blocks.pop_front();
        }
    }

    fn kept(&self, index: u64) -> Option<Bytes> {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().find(|(found, _)| *found == index).map(|(_, block)| block.clone())
    }

    /// The bytes from `start` to `end`; `None` where the bucket does not keep to ranges.
    fn range(&self, start: u64, end: u64) -> Result<Option<Bytes>> {
        if !self.inner.has_ranges() {
            return Ok(None);
        }
        let found = self.inner.range(&self.path, start..end)?;
        let found = found.ok_or_else(|| Error::corrupt("it has gone while it was read"))?;
        let Some((bytes, _)) = found else { return Ok(None) };
        if bytes.len() as u64 != end - start {
            return Err(Error::corrupt("it has become shorter while it was read"));
        }
        Ok(Some(bytes))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let length =
            buffer.len().min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..length];
        if self.whole.get().is_none() {
            if length as u64 >= self.inner.sizes.block {
                if let Some(bytes) = self.range(offset, offset + length as u64)? {
                    buffer.copy_from_slice(&bytes);
                    return Ok(length);
                }
            } else if let Some(count) = self.read_block(buffer, offset)? {
                return Ok(count);
            }
            let spooled = self.inner.spool_whole(&self.path, self.bytes)?;
            // Another thread may have been first; then this one's goes.
            let _ = self.whole.set(spooled);
        }
        let whole = self.whole.get().expect("set above");
        whole.file.read_at(buffer, offset).map_err(|error| Error::io("cannot read what was fetched", error))
    }

    fn read_block(&self, buffer: &mut [u8], offset: u64) -> Result<Option<usize>> {
        let size = self.inner.sizes.block;
        let index = offset / size;
        let start = index * size;
        let block = match self.kept(index) {
            Some(block) => block,
            None => match self.range(start, (start + size).min(self.bytes))? {
                Some(block) => {
                    self.keep(index, block.clone());
                    block
                }
                None => return Ok(None),
            },
        };
        let within = usize::try_from(offset - start).expect("less than a block");
        let count = buffer.len().min(block.len() - within);
        buffer[..count].copy_from_slice(&block[within..within + count]);
        Ok(Some(count))
    }
}

impl File for Ranged {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(buffer, offset).map_err(io::Error::other)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that wait in a file of this machine, which goes with this value.
pub(super) struct Spooled {
    env: Env,
    path: PathBuf,
    /// The file.
    pub(super) file: Box<dyn File>,
}

impl Spooled {
    /// Makes one in a directory; what a process that dies leaves there is cleared up by its name.
    pub(super) fn create(env: &Env, dir: &std::path::Path) -> Result<Spooled> {
        let mut random = [0; 8];
        env.entropy.fill(&mut random);
        let path = dir.join(format!(".{}.new", encode_hex(&random)));
        let doing = |error| Error::io(format!("cannot create `{}`", path.display()), error);
        let file = env.fs.create(&path, true).map_err(doing)?;
        Ok(Spooled { env: env.clone(), path, file })
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        // Cleared up later by its name.
        let _ = self.env.fs.remove(&self.path);
    }
}
