//! The door through which the world comes in (I12): files, time and randomness as parameters.
//!
//! Nothing else in this crate opens a file, asks the time or draws a random byte, so a seeded simulation
//! can lose, tear, delay and fail every one of them. Knows nothing about formats; never retries.

mod os;
#[cfg(feature = "sim")]
pub mod sim;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::time::Timestamp;

pub use os::{OsClock, OsEntropy, OsFs, os_env, yield_to_others};

/// The world as one value, made once at the top of the program and passed down.
#[derive(Clone)]
pub struct Env {
    /// Files and directories.
    pub fs: Arc<dyn Fs>,
    /// Wall clock and waiting.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it is a directory (links are followed).
    pub is_dir: bool,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Last change of content or inode.
    pub changed: Timestamp,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name within its directory.
    pub name: std::ffi::OsString,
    /// Whether it is a directory itself (links are followed).
    pub is_dir: bool,
}

/// A file system. All operations may fail and may be cut short by a crash.
///
/// What is assumed of it is written down in `docs/format.md`: bytes are durable after `File::sync`, a name
/// after `sync_dir` of its directory; until then both may be lost, kept, or kept in part.
pub trait Fs: Send + Sync {
    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Creates a file that must not exist, readable and writable; `private` makes it mode 0600 from the start.
    fn create(&self, path: &Path, private: bool) -> io::Result<Box<dyn File>>;
    /// Replaces `to` by `from` in one step; durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it; used for caches only.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Creates a directory and its parents (mode 0700 where it makes them); existing ones are fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The same for a directory that other accounts may use too, as far as the process's mask lets them.
    fn create_shared_dir_all(&self, path: &Path) -> io::Result<()> {
        self.create_dir_all(path)
    }
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Length, times and identity of a file or directory, following links.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Whether a name is a file or a directory itself: no link, no pipe, no device.
    fn is_plain(&self, path: &Path) -> io::Result<bool> {
        self.metadata(path).map(|_| true)
    }
    /// The rights of a file, where there are such: the lower nine bits as Unix has them.
    fn mode(&self, _path: &Path) -> io::Result<Option<u32>> {
        Ok(None)
    }
    /// Lets only its user read and write a file.
    fn make_private(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Tries to take an advisory lock on a file, which is created if needed. `None` means that somebody else
    /// holds it. The lock is released when the value is dropped or the process dies, and needs no clean-up.
    fn try_lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn Lock>>>;
}

/// Whether a lock admits others like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Many at once, none exclusive.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held lock; dropping it releases it.
pub trait Lock: Send + Sync {}

#[expect(clippy::len_without_is_empty, reason = "a length may fail, and nobody asks whether a file is empty")]
/// An open file, addressed by offset; there is no shared position.
pub trait File: Send + Sync {
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads at an offset; may return fewer bytes than asked, zero only at or after the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset; may take fewer bytes than given.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or extends with zeroes.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}

impl dyn File + '_ {
    /// Fills the buffer from an offset, or fails with `UnexpectedEof`.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all bytes at an offset.
    pub fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Time. `sleep` is here too, so that waiting costs nothing in a simulation.
pub trait Clock: Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;
    /// Microseconds that only ever grow; for time limits.
    fn monotonic_micros(&self) -> u64;
    /// Waits.
    fn sleep(&self, micros: u64);
}

/// Randomness.
pub trait Entropy: Send + Sync {
    /// Fills the buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}
