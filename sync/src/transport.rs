//! The bytes of a remote: a few small files that are read and written whole, and large ones that never change.
//!
//! A remote is laid out alike wherever it lies. Nothing here compares and swaps, because several stores that are
//! used as remotes do not; each writer writes keys of its own only.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use agent_trace_store::build::Sink;
use agent_trace_store::env::{Env, File, LockMode};
use agent_trace_store::id::encode_hex;
use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, Timestamp};

use crate::manifest::segment_key;

const COPY_BYTES: usize = 1 << 20;

/// Where the segments of a push go.
pub trait Outlet: Send + Sync {
    /// Sends a segment; durable when this returns. Its hash is compared on the way, so that what has been damaged here
    /// gets no name there. `sent` hears of each part.
    fn send(&self, id: &SegmentId, file: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<()>;
    /// Starts a segment whose bytes are made while they are sent, and whose name is known at the end. A transport that
    /// needs the name or the length first keeps the bytes here until then.
    fn create(&self) -> Result<Box<dyn Upload>>;
    /// Makes sure that a segment that an earlier push made or sent, which did not hear of it, is there and stays there;
    /// false where it is not.
    fn keep_segment(&self, id: &SegmentId, bytes: u64) -> Result<bool>;
}

/// A name below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name, without the prefix.
    pub name: String,
    /// What is different whenever the content is; `None` where the remote keeps nothing of the kind.
    pub version: Option<Version>,
}

/// A hash of all that a remote says of a file without reading it.
pub type Version = [u8; 32];

/// A file as it stands below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The name, without the prefix.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was written, by the clock of whoever keeps it.
    pub modified: Timestamp,
}

/// What a remote must be able to do whose layout is our own.
pub trait Transport: Outlet {
    /// Makes what must be there before anything else is written.
    fn make(&self) -> Result<()> {
        Ok(())
    }
    /// Reads a small file; `None` if it is not there.
    fn read(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>>;
    /// The same with its version, where the remote says it with the content: then one belongs to the other.
    fn read_version(&self, key: &str, bytes_max: u64) -> Result<Option<(Vec<u8>, Option<Version>)>> {
        Ok(self.read(key, bytes_max)?.map(|content| (content, None)))
    }
    /// Opens a large file for reading parts of it; `None` if it is not there.
    fn open(&self, key: &str) -> Result<Option<Box<dyn File>>>;
    /// The names below a prefix such as `heads`.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>>;
    /// The files below a prefix with their lengths and times, those written aside and left there too; dearer than
    /// `list`, for clearing up.
    fn survey(&self, prefix: &str) -> Result<Vec<Standing>>;
    /// Copies a large file of so many bytes from front to back into `take`; false if it is not there. Whoever takes
    /// checks what came.
    fn fetch(&self, key: &str, bytes: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Some(file) = self.open(key)? else { return Ok(false) };
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < bytes {
            let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(COPY_BYTES);
            file.read_exact_at(&mut buffer[..length], at).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Error::corrupt("it is shorter than its manifest says").with_source(error)
                }
                _ => Error::io("cannot read a segment of the remote", error),
            })?;
            take(&buffer[..length])?;
            at += length as u64;
        }
        Ok(true)
    }
    /// How many large files may well be fetched at once.
    fn fetches_at_once(&self) -> usize {
        1
    }
    /// Writes a small file, replacing what is there in one step; durable when this returns.
    fn write(&self, key: &str, content: &[u8]) -> Result<()>;
    /// Makes a small file that nobody else makes at the same time, unless it is there.
    fn write_once(&self, key: &str, content: &[u8]) -> Result<()>;
    /// Makes sure that a file that was sent earlier, by a push that did not hear of it, stays there.
    fn keep(&self, key: &str) -> Result<()>;
    /// Removes a file, which may be gone already. What is removed may come back after a power cut.
    fn remove(&self, key: &str) -> Result<()>;
    /// Says in which directory of this machine bytes may wait; what is left there in names `.*.new` is cleared up by
    /// the next push.
    fn spool(&self, _dir: &Path) {}
    /// Says in whose name files are written from now on.
    fn claim(&self, owner: &str);
    /// Removes what was written aside in that name and never got its own.
    fn sweep(&self) -> Result<()>;
    /// Where it is, for people.
    fn place(&self) -> String;
    /// How many requests were made.
    fn requests(&self) -> u64;
}

/// A segment on its way: bytes in order, then its name. Dropped without a name, it is gone.
pub trait Upload: Send {
    /// Sends the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes what was sent durable.
    fn sync(&mut self) -> Result<()>;
    /// Gives the segment its name; durable when this returns.
    fn name(self: Box<Self>, id: &SegmentId) -> Result<()>;
}

impl Sink for Box<dyn Upload> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.as_mut().write(bytes)
    }

    fn sync(&mut self) -> Result<()> {
        self.as_mut().sync()
    }

    fn discard(self) {}
}

/// A segment that is written aside in a folder.
struct FolderUpload {
    env: Env,
    dir: PathBuf,
    aside: PathBuf,
    file: Box<dyn File>,
    written: u64,
    named: bool,
}

impl Upload for FolderUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.written).map_err(|error| unreachable(&self.aside, error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|error| unreachable(&self.aside, error))
    }

    fn name(mut self: Box<Self>, id: &SegmentId) -> Result<()> {
        let path = self.dir.join(segment_key(id));
        let dir = path.parent().expect("a segment lies in a folder");
        self.env.fs.rename(&self.aside, &path).map_err(|error| unreachable(&path, error))?;
        self.named = true;
        self.env.fs.sync_dir(dir).map_err(|error| unreachable(&path, error))
    }
}

impl Drop for FolderUpload {
    fn drop(&mut self) {
        if !self.named {
            // A file with a name of its own that nobody reads; a later push makes another.
            let _ = self.env.fs.remove(&self.aside);
        }
    }
}

/// A remote in a folder.
pub struct Folder {
    env: Env,
    dir: PathBuf,
    requests: AtomicU64,
    owner: Mutex<String>,
}

impl Folder {
    /// Names a folder; nothing is read yet.
    pub fn new(env: &Env, dir: &Path) -> Folder {
        Folder {
            env: env.clone(),
            dir: dir.to_owned(),
            requests: AtomicU64::new(0),
            owner: Mutex::new("nobody".to_owned()),
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.dir.join(key)
    }

    /// The length of a file; `None` if it is not there.
    fn bytes(&self, key: &str) -> Result<Option<u64>> {
        let path = self.path(key);
        match self.env.fs.metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreachable(&path, error)),
        }
    }

    fn aside(&self) -> String {
        format!(".new-{}-", self.owner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn aside_in(&self, dir: &Path) -> PathBuf {
        let mut random = [0; 8];
        self.env.entropy.fill(&mut random);
        dir.join(format!("{}{}", self.aside(), encode_hex(&random)))
    }

    fn put(&self, key: &str, fill: &mut dyn FnMut(&dyn File) -> Result<()>) -> Result<()> {
        let path = self.path(key);
        let dir = path.parent().ok_or_else(|| Error::invalid(format!("`{key}` is no key of a remote")))?;
        let aside = self.aside_in(dir);
        let doing = |error| unreachable(&path, error);
        let file = self.env.fs.create(&aside, false).map_err(doing)?;
        let filled = fill(file.as_ref()).and_then(|()| file.sync().map_err(doing));
        if let Err(error) = filled {
            // A file with a name of its own that nobody reads; a later push makes another.
            let _ = self.env.fs.remove(&aside);
            return Err(error);
        }
        self.env.fs.rename(&aside, &path).map_err(doing)?;
        self.env.fs.sync_dir(dir).map_err(doing)
    }
}

fn unreachable(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull => ErrorKind::Full,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("cannot reach `{}` on the remote", path.display())).with_source(error)
}

impl Outlet for Folder {
    fn send(&self, id: &SegmentId, source: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<()> {
        let key = &segment_key(id);
        let path = self.dir.join(key);
        self.put(key, &mut |file| {
            let mut hasher = blake3::Hasher::new();
            let mut buffer = vec![0; COPY_BYTES];
            let mut at = 0;
            while at < bytes {
                let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(COPY_BYTES);
                source.read_exact_at(&mut buffer[..length], at).map_err(|error| {
                    Error::io(format!("cannot read what is to be sent as `{key}`"), error)
                })?;
                file.write_all_at(&buffer[..length], at).map_err(|error| unreachable(&path, error))?;
                at += length as u64;
                hasher.update(&buffer[..length]);
                sent(length as u64);
            }
            if hasher.finalize().as_bytes() != id.as_bytes() {
                let short = id.short();
                return Err(Error::corrupt(format!(
                    "segment `{short}` is damaged here: run `agent-trace verify`"
                )));
            }
            Ok(())
        })
    }

    fn create(&self) -> Result<Box<dyn Upload>> {
        let dir = self.path("segments");
        let aside = self.aside_in(&dir);
        let file = self.env.fs.create(&aside, false).map_err(|error| unreachable(&aside, error))?;
        let (env, dir) = (self.env.clone(), self.dir.clone());
        Ok(Box::new(FolderUpload { env, dir, aside, file, written: 0, named: false }))
    }

    fn keep_segment(&self, id: &SegmentId, bytes: u64) -> Result<bool> {
        let key = segment_key(id);
        if self.bytes(&key)? != Some(bytes) {
            return Ok(false);
        }
        self.keep(&key)?;
        Ok(true)
    }
}

impl Transport for Folder {
    fn make(&self) -> Result<()> {
        for name in ["heads", "manifests", "segments"] {
            let dir = self.path(name);
            create_dir_durably(&self.env, &dir).map_err(|error| unreachable(&dir, error))?;
        }
        self.env.fs.sync_dir(&self.dir).map_err(|error| unreachable(&self.dir, error))
    }

    fn read(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path(key);
        match agent_trace_store::layout::read_small(&self.env, &path, bytes_max) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Error::corrupt(format!("`{}` on the remote is over its limit", path.display()))
                    .with_source(error))
            }
            Err(error) => Err(unreachable(&path, error)),
        }
    }

    fn open(&self, key: &str) -> Result<Option<Box<dyn File>>> {
        let path = self.path(key);
        match self.env.fs.open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreachable(&path, error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let path = self.path(prefix);
        match self.env.fs.list(&path) {
            Ok(entries) => Ok(entries
                .into_iter()
                .filter_map(|entry| entry.name.into_string().ok())
                .filter(|name| !name.starts_with('.'))
                .map(|name| Listed { name, version: None })
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(unreachable(&path, error)),
        }
    }

    fn survey(&self, prefix: &str) -> Result<Vec<Standing>> {
        let dir = self.path(prefix);
        let entries = match self.env.fs.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreachable(&dir, error)),
        };
        let mut standing = Vec::new();
        for name in entries.into_iter().filter_map(|entry| entry.name.into_string().ok()) {
            let path = self.path(prefix).join(&name);
            match self.env.fs.metadata(&path) {
                Ok(found) if found.is_dir => {}
                Ok(found) => standing.push(Standing { name, bytes: found.bytes, modified: found.modified }),
                // Somebody else has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreachable(&path, error)),
            }
        }
        Ok(standing)
    }

    fn write(&self, key: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(key);
        self.put(key, &mut |file| file.write_all_at(content, 0).map_err(|error| unreachable(&path, error)))
    }

    fn write_once(&self, key: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(format!(".{key}.lock"));
        let _lock = lock(&self.env, &path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        if self.bytes(key)?.is_some() { Ok(()) } else { self.write(key, content) }
    }

    fn keep(&self, key: &str) -> Result<()> {
        // Its content was synced before it got this name.
        let path = self.path(key);
        let dir = path.parent().ok_or_else(|| Error::invalid(format!("`{key}` is no key of a remote")))?;
        self.env.fs.sync_dir(dir).map_err(|error| unreachable(&path, error))
    }

    fn remove(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match self.env.fs.remove(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unreachable(&path, error)),
        }
    }

    fn claim(&self, owner: &str) {
        owner.clone_into(&mut self.owner.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn sweep(&self) -> Result<()> {
        let start = self.aside();
        for name in ["heads", "manifests", "segments"] {
            let dir = self.path(name);
            for entry in self.env.fs.list(&dir).map_err(|error| unreachable(&dir, error))? {
                if entry.name.to_str().is_some_and(|name| name.starts_with(&start)) {
                    let path = dir.join(entry.name);
                    self.env.fs.remove(&path).map_err(|error| unreachable(&path, error))?;
                }
            }
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}
