//! A file to be read, and reading it such that its failures are told from the store's.
//!
//! A source belongs to somebody else: it may vanish, shrink or be unreadable at any time. Never writes.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_trace_store::env::{Env, File, Metadata};

/// A file that was found.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its absolute path.
    pub(super) path: PathBuf,
    /// What was known of it when it was found.
    pub(super) metadata: Metadata,
    /// What it is, as far as its name and place say.
    pub(super) role: Role,
}

/// What a file is by name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A list of transcripts.
    Manifest,
    /// A transcript that a manifest names; the number is the manifest's.
    Listed(usize),
    /// Records, one on each line; with the layout in which it lies.
    Records(Option<usize>),
    /// A conversation in a layout, named by its SHA-256.
    Blob(usize, String),
    /// To be found out by content.
    Unknown,
}

/// An open source that remembers whether reading it failed.
pub(super) struct SourceFile {
    file: Box<dyn File>,
    bytes: u64,
    failed: AtomicBool,
}

impl SourceFile {
    /// Opens a source; its length is the one that was found.
    pub(super) fn open(env: &Env, source: &Source) -> io::Result<SourceFile> {
        let file = env.fs.open(&source.path)?;
        Ok(SourceFile { file, bytes: source.metadata.bytes, failed: AtomicBool::new(false) })
    }

    /// Whether a read failed or the file has become shorter than it was when it was found.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Reads as many bytes as there are at an offset, up to the buffer's length.
    pub(super) fn read_up_to(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl File for SourceFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset);
        let failed = match &read {
            Ok(0) => !buffer.is_empty() && offset < self.bytes,
            Ok(_) => false,
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        };
        if failed {
            self.failed.store(true, Ordering::Relaxed);
        }
        read
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
