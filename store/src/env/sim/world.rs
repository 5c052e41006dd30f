//! The seam's traits over a simulated disk, one set per simulated process.
//!
//! Only hands calls to the disk; all behaviour is there. Holds no state but handle numbers.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::disk::Disk;
use super::random::Random;
use crate::env::{Clock, DirEntry, Entropy, Env, File, Fs, Lock, LockMode, Metadata};
use crate::time::Timestamp;

pub(super) type SharedDisk = Arc<Mutex<Disk>>;

/// A test that failed while it held the disk leaves it usable for the others.
pub(super) fn hold<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn start_process(disk: &SharedDisk) -> (u64, Env) {
    let (process, random) = hold(disk).start_process();
    let env = Env {
        fs: Arc::new(SimFs { disk: disk.clone(), process }),
        clock: Arc::new(SimClock { disk: disk.clone() }),
        entropy: Arc::new(SimEntropy { random: Mutex::new(random) }),
    };
    (process, env)
}

struct SimFs {
    disk: SharedDisk,
    process: u64,
}

impl SimFs {
    fn file(&self, handle: u64) -> Box<dyn File> {
        Box::new(SimFile { disk: self.disk.clone(), handle })
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let handle = hold(&self.disk).open(self.process, path, false)?;
        Ok(self.file(handle))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let handle = hold(&self.disk).open(self.process, path, true)?;
        Ok(self.file(handle))
    }

    fn create(&self, path: &Path, private: bool) -> io::Result<Box<dyn File>> {
        let handle = hold(&self.disk).create(self.process, path, private)?;
        Ok(self.file(handle))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        hold(&self.disk).rename(self.process, from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        hold(&self.disk).remove(self.process, path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        hold(&self.disk).remove_dir_all(self.process, path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        hold(&self.disk).list(self.process, path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        hold(&self.disk).create_dir_all(self.process, path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        hold(&self.disk).sync_dir(self.process, path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        hold(&self.disk).metadata(self.process, path)
    }

    fn try_lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn Lock>>> {
        let lock = hold(&self.disk).try_lock(self.process, path, mode)?;
        Ok(lock.map(|lock| Box::new(SimLock { disk: self.disk.clone(), lock }) as Box<dyn Lock>))
    }
}

struct SimFile {
    disk: SharedDisk,
    handle: u64,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        hold(&self.disk).len(self.handle)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        hold(&self.disk).read(self.handle, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        hold(&self.disk).write(self.handle, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        hold(&self.disk).set_len(self.handle, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        hold(&self.disk).sync(self.handle)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        hold(&self.disk).close(self.handle);
    }
}

struct SimLock {
    disk: SharedDisk,
    lock: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        hold(&self.disk).unlock(self.lock);
    }
}

struct SimClock {
    disk: SharedDisk,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let mut disk = hold(&self.disk);
        disk.micros += 1;
        disk.wall()
    }

    fn monotonic_micros(&self) -> u64 {
        let mut disk = hold(&self.disk);
        disk.micros += 1;
        disk.micros
    }

    fn sleep(&self, micros: u64) {
        let mut disk = hold(&self.disk);
        disk.micros = disk.micros.saturating_add(micros);
        drop(disk);
        // Whoever is waited for may be a real thread.
        thread::yield_now();
    }
}

struct SimEntropy {
    random: Mutex<Random>,
}

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        hold(&self.random).fill(buffer);
    }
}
