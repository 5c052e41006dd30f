//! A remote in a bucket of S3, of what speaks like it, of Google or of Azure.
//!
//! ```text
//! Transport ─► Inner: tries again ─► the library: signs, reads ─► line: one request, looked at ─► sockets
//! ```
//!
//! Asynchronous work hides behind a small runtime. Conditions are asked for once, to make the `format` file; everything
//! else holds on a bucket that ignores them, that answers ranges with the whole, and that loses answers.

mod file;
mod line;
mod open;
mod pace;
mod probe;
mod refusal;
mod upload;
mod url;
#[cfg(feature = "sim")]
pub mod fake;

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agent_trace_store::env::{Env, File};
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, Timestamp};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use crate::client::Tries;
use crate::limits::{
    AT_ONCE_MAX, BLOCK_BYTES, BUCKET_TRIES_MAX, LOST_PUTS_MAX, PART_BYTES, PUT_BYTES_MAX, READ_BACK_BYTES_MAX,
};
use crate::manifest::segment_key;
use crate::transport::{Listed, Outlet, Standing, Transport, Upload, Version, is_aging};

use file::{Ranged, Spooled};
use line::Line;
use open::Keeper;
use pace::Pace;
use refusal::{Refusal, explain};

pub use probe::Promise;
pub use url::{BucketOptions, BucketUrl, Cloud, Credential, Credentials, GRAMMAR};

/// A remote in a bucket.
pub struct Bucket {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    runtime: Runtime,
    store: Arc<dyn Keeper>,
    line: Line,
    name: String,
    prefix: String,
    spool: Mutex<Option<PathBuf>>,
    ranges_break: AtomicBool,
    tags: Mutex<Tags>,
    at_once: usize,
    sizes: Sizes,
}

/// How much goes or comes at once.
#[derive(Clone, Copy)]
struct Sizes {
    /// What goes in one request; longer files go in parts.
    put: u64,
    /// Such a part.
    part: u64,
    /// What is read at once where a few bytes are wanted.
    block: u64,
}

impl Sizes {
    const USUAL: Sizes = Sizes { put: PUT_BYTES_MAX, part: PART_BYTES, block: BLOCK_BYTES };
    /// So that small worlds come near them.
    const SMALL: Sizes = Sizes { put: 64 << 10, part: 32 << 10, block: 4 << 10 };
}

/// What is known of the tags of a bucket: where two files have one, tags say nothing.
#[derive(Default)]
struct Tags {
    seen: Option<(Path, String)>,
    are_void: bool,
}

/// How an operation came out that was tried as often as it may be.
enum Outcome<T> {
    Done(T),
    Failed(object_store::Error),
}

impl Bucket {
    /// Prepares; nothing is sent yet.
    pub fn open(env: &Env, url: &BucketUrl) -> Result<Bucket> {
        let pace = url.options().rate_bytes.map(|rate| Arc::new(Pace::new(rate)));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Bucket::with(env, url, Line::over_sockets(pace)?, runtime, (AT_ONCE_MAX, Sizes::USUAL))
    }

    /// The same by another way than sockets, one thing after the other and in small parts.
    pub fn over(
        env: &Env,
        url: &BucketUrl,
        way: Arc<dyn object_store::client::HttpService>,
    ) -> Result<Bucket> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Bucket::with(env, url, Line::over(way), runtime, (1, Sizes::SMALL))
    }

    fn with(
        env: &Env,
        url: &BucketUrl,
        line: Line,
        runtime: std::io::Result<Runtime>,
        (at_once, sizes): (usize, Sizes),
    ) -> Result<Bucket> {
        let runtime = runtime.map_err(|error| Error::io("cannot prepare requests to a bucket", error))?;
        let store = open::open(url, &line)?;
        let inner = Inner {
            env: env.clone(),
            runtime,
            store,
            line,
            name: url.to_string(),
            prefix: url.prefix().to_owned(),
            spool: Mutex::new(None),
            ranges_break: AtomicBool::new(false),
            tags: Mutex::default(),
            at_once,
            sizes,
        };
        Ok(Bucket { inner: Arc::new(inner) })
    }
}

impl Inner {
    fn path(&self, key: &str) -> Path {
        let parts = [self.prefix.as_str(), key];
        Path::from(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Does something, again and again where it may do better in a while.
    fn attempt_outcome<T, F>(&self, make: impl Fn() -> F) -> Outcome<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut tries = Tries::new(&self.env, BUCKET_TRIES_MAX);
        loop {
            let error = match self.block_on(make()) {
                Ok(done) => return Outcome::Done(done),
                Err(error) => error,
            };
            if !passes(&error) || !tries.wait(Refusal::below(&error).and_then(|refusal| refusal.wait_micros))
            {
                return Outcome::Failed(error);
            }
        }
    }

    /// The same; `None` where the file is not there.
    fn attempt<T, F>(&self, what: &str, make: impl Fn() -> F) -> Result<Option<T>>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        match self.attempt_outcome(make) {
            Outcome::Done(done) => Ok(Some(done)),
            Outcome::Failed(object_store::Error::NotFound { .. }) => Ok(None),
            Outcome::Failed(error) => Err(explain(&format!("{what} in `{}`", self.name), &error)),
        }
    }

    fn has_ranges(&self) -> bool {
        !self.ranges_break.load(Ordering::Relaxed)
    }

    /// A part of a file, with the length of the whole; `Some(None)` where the bucket does not keep to ranges, `None`
    /// where there is no such file.
    #[expect(clippy::option_option, reason = "not there, and not to be had in parts, are two things")]
    fn range(&self, path: &Path, range: Range<u64>) -> Result<Option<Option<(Bytes, u64)>>> {
        let get = || async {
            let options =
                GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let got = self.store.get_opts(path, options).await?;
            let (bytes, expected) = (got.meta.size, got.range.end - got.range.start);
            let content = got.bytes().await?;
            if content.len() as u64 == expected { Ok((content, bytes)) } else { Err(cut()) }
        };
        match self.attempt_outcome(get) {
            Outcome::Done(found) => Ok(Some(Some(found))),
            Outcome::Failed(object_store::Error::NotFound { .. }) => Ok(None),
            Outcome::Failed(error) if Refusal::below(&error).is_none() => {
                // It answered with something else than what was asked for.
                self.ranges_break.store(true, Ordering::Relaxed);
                Ok(Some(None))
            }
            Outcome::Failed(error) => Err(explain(&format!("read a file in `{}`", self.name), &error)),
        }
    }

    /// What is said of a file without reading it; `None` if it is not there.
    fn look(&self, path: &Path) -> Result<Option<ObjectMeta>> {
        self.attempt("look at a file", || self.store.head(path))
    }

    /// How long a file is; `None` if it is not there.
    fn bytes(&self, path: &Path) -> Result<Option<u64>> {
        Ok(self.look(path)?.map(|found| found.size))
    }

    /// Reads a small file as a whole.
    fn read(&self, key: &str, bytes_max: u64) -> Result<Option<(Bytes, Option<Version>)>> {
        let path = self.path(key);
        let get = || async {
            let got = self.store.get(&path).await?;
            let (bytes, version) = (got.meta.size, self.version(&got.meta));
            if bytes > bytes_max {
                return Ok(None);
            }
            let content = got.bytes().await?;
            if content.len() as u64 == bytes { Ok(Some((content, version))) } else { Err(cut()) }
        };
        match self.attempt(&format!("read `{key}`"), get)? {
            Some(None) => Err(Error::corrupt(format!("`{key}` in `{}` is over its limit", self.name))),
            found => Ok(found.flatten()),
        }
    }

    /// What is different whenever the content is. Without a tag nothing is said: a time alone is too coarse.
    fn version(&self, meta: &ObjectMeta) -> Option<Version> {
        let tag = meta.e_tag.as_deref().unwrap_or_default().trim_start_matches("W/").trim_matches('"');
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        match &tags.seen {
            // All files differ here, so a tag that two of them have is no tag.
            Some((path, seen)) => tags.are_void |= seen == tag && *path != meta.location,
            None => tags.seen = Some((meta.location.clone(), tag.to_owned())),
        }
        if tag.is_empty() || tags.are_void {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(tag.as_bytes()).update(&[0]);
        hasher.update(&meta.size.to_le_bytes()).update(&meta.last_modified.timestamp().to_le_bytes());
        Some(*hasher.finalize().as_bytes())
    }

    /// Where bytes may wait on this machine.
    fn spool_dir(&self) -> Result<PathBuf> {
        let dir = self.spool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        dir.ok_or_else(|| Error::new(ErrorKind::Failed, format!("nothing can wait here for `{}`", self.name)))
    }

    /// Fetches a whole file into one of this machine.
    fn spool_whole(&self, path: &Path, bytes: u64) -> Result<Spooled> {
        let spooled = Spooled::create(&self.env, &self.spool_dir()?)?;
        let mut at = 0;
        let found = self.fetch(path, bytes, &mut |part| {
            let doing = |error| Error::io("cannot keep what was fetched", error);
            spooled.file.write_all_at(part, at).map_err(doing)?;
            at += part.len() as u64;
            Ok(())
        })?;
        if found { Ok(spooled) } else { Err(Error::corrupt("it has gone while it was read")) }
    }

    /// Hands a whole file over, from front to back; goes on where it was cut.
    fn fetch(&self, path: &Path, bytes: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let mut tries = Tries::new(&self.env, BUCKET_TRIES_MAX);
        let mut at = 0;
        loop {
            let before = at;
            let error = match self.block_on(self.fetch_from(path, &mut at, bytes, take)) {
                Ok(()) => return Ok(true),
                Err(Lost::Taker(error)) => return Err(error),
                Err(Lost::Other(object_store::Error::NotFound { .. })) if at == 0 => return Ok(false),
                Err(Lost::Other(error)) => error,
            };
            if at > before {
                tries = Tries::new(&self.env, BUCKET_TRIES_MAX);
            }
            let no_range = Refusal::below(&error).is_none() && at > 0 && self.has_ranges();
            if no_range {
                self.ranges_break.store(true, Ordering::Relaxed);
            } else if !passes(&error)
                || !tries.wait(Refusal::below(&error).and_then(|refusal| refusal.wait_micros))
            {
                return Err(explain(&format!("fetch a file in `{}`", self.name), &error));
            }
        }
    }

    async fn fetch_from(
        &self,
        path: &Path,
        at: &mut u64,
        bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Lost> {
        let range = (*at > 0 && self.has_ranges()).then_some(GetRange::Bounded(*at..bytes));
        let mut skip = if range.is_some() { 0 } else { *at };
        let options = GetOptions { range, ..GetOptions::default() };
        let got = self.store.get_opts(path, options).await.map_err(Lost::Other)?;
        if got.meta.size != bytes {
            let found = got.meta.size;
            return Err(Lost::Taker(Error::corrupt(format!("expected {bytes} bytes, found {found}"))));
        }
        let mut stream = got.into_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(Lost::Other)?;
            let skipped = part.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= skipped as u64;
            let left = usize::try_from(bytes - *at).unwrap_or(usize::MAX);
            let part = part.slice(skipped..);
            let part = part.slice(..part.len().min(left));
            take(&part).map_err(Lost::Taker)?;
            *at += part.len() as u64;
        }
        if *at == bytes { Ok(()) } else { Err(Lost::Other(cut())) }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let path = self.path(prefix);
        let list = || self.store.list(Some(&path)).try_collect::<Vec<ObjectMeta>>();
        Ok(self.attempt(&format!("list `{prefix}`"), list)?.unwrap_or_default())
    }
}

/// Why a file did not come to its end.
enum Lost {
    /// Whoever takes the bytes cannot go on.
    Taker(Error),
    Other(object_store::Error),
}

fn passes(error: &object_store::Error) -> bool {
    Refusal::below(error).is_some_and(|refusal| refusal.passes)
}

fn cut() -> object_store::Error {
    let refusal = Refusal::passing("the answer has ended early");
    object_store::Error::Generic { store: "bucket", source: Box::new(refusal) }
}

fn modified(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from_micros(meta.last_modified.timestamp_micros())
}

fn name_of(path: &Path) -> Option<String> {
    path.filename().map(str::to_owned)
}

impl Outlet for Bucket {
    fn send(&self, id: &SegmentId, file: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<()> {
        upload::send_segment(&self.inner, id, file, bytes, sent)
    }

    fn create(&self) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::Spool::create(&self.inner)?))
    }

    fn keep_segment(&self, id: &SegmentId, bytes: u64) -> Result<bool> {
        let found = self.inner.look(&self.inner.path(&segment_key(id)))?;
        Ok(found.is_some_and(|found| found.size == bytes && !is_aging(&self.inner.env, modified(&found))))
    }

    fn sends_at_once(&self) -> usize {
        self.inner.at_once
    }
}

impl Transport for Bucket {
    fn read(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.read(key, bytes_max)?.map(|(content, _)| content.into()))
    }

    fn read_version(&self, key: &str, bytes_max: u64) -> Result<Option<(Vec<u8>, Option<Version>)>> {
        Ok(self.inner.read(key, bytes_max)?.map(|(content, version)| (content.into(), version)))
    }

    fn open(&self, key: &str) -> Result<Option<Box<dyn File>>> {
        let file = Ranged::open(&self.inner, self.inner.path(key))?;
        Ok(file.map(|file| Box::new(file) as Box<dyn File>))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let path = self.inner.path(prefix);
        let list = || self.inner.store.list_with_delimiter(Some(&path));
        let found = self.inner.attempt(&format!("list `{prefix}`"), list)?;
        let Some(found) = found else { return Ok(Vec::new()) };
        let dirs = found
            .common_prefixes
            .iter()
            .filter_map(|path| name_of(path).map(|name| Listed { name, version: None }));
        let files = found.objects.iter().filter_map(|meta| {
            name_of(&meta.location).map(|name| Listed { name, version: self.inner.version(meta) })
        });
        Ok(dirs.chain(files).collect())
    }

    fn survey(&self, prefix: &str) -> Result<Vec<Standing>> {
        let standing = self.inner.list(prefix)?.into_iter().filter_map(|meta| {
            let modified = modified(&meta);
            name_of(&meta.location).map(|name| Standing { name, bytes: meta.size, modified })
        });
        Ok(standing.collect())
    }

    fn fetch(&self, key: &str, bytes: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        self.inner.fetch(&self.inner.path(key), bytes, take)
    }

    fn fetches_at_once(&self) -> usize {
        self.inner.at_once
    }

    fn write(&self, key: &str, content: &[u8]) -> Result<()> {
        let path = self.inner.path(key);
        for _ in 0..LOST_PUTS_MAX {
            self.inner.put(&path, Bytes::copy_from_slice(content))?;
            let is_there = if content.len() as u64 <= READ_BACK_BYTES_MAX {
                self.inner.read(key, READ_BACK_BYTES_MAX)?.is_some_and(|(found, _)| found == content)
            } else {
                self.inner.bytes(&path)? == Some(content.len() as u64)
            };
            if is_there {
                return Ok(());
            }
        }
        Err(upload::not_kept(&self.inner, key))
    }

    fn write_once(&self, key: &str, content: &[u8]) -> Result<()> {
        for _ in 0..LOST_PUTS_MAX {
            self.inner.put_new(&self.inner.path(key), Bytes::copy_from_slice(content))?;
            // Whoever was first wrote it, and it may be another content.
            if self.inner.bytes(&self.inner.path(key))?.is_some() {
                return Ok(());
            }
        }
        Err(upload::not_kept(&self.inner, key))
    }

    fn keep(&self, _key: &str) -> Result<()> {
        // What a bucket has once shown stays there.
        Ok(())
    }

    fn remove(&self, key: &str) -> Result<()> {
        let path = self.inner.path(key);
        self.inner.attempt(&format!("remove `{key}`"), || self.inner.store.delete(&path)).map(|_| ())
    }

    fn spool(&self, dir: &std::path::Path) {
        *self.inner.spool.lock().unwrap_or_else(PoisonError::into_inner) = Some(dir.to_owned());
    }

    fn claim(&self, _owner: &str) {}

    fn sweep(&self) -> Result<()> {
        // Nothing has a name there before it is whole.
        Ok(())
    }

    fn place(&self) -> String {
        self.inner.name.clone()
    }

    fn requests(&self) -> u64 {
        self.inner.line.requests()
    }
}
