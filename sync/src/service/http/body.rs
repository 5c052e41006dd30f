//! Bytes that come in: read with time limits, kept in memory while there is room and in a file after, or handed on to a
//! thread as they come.
//!
//! However many clients send at once, their bodies take `RECEIVE_BYTES_MAX` of memory and `SPOOL_BYTES_MAX` of disk.
//! A file of a body is private, has no name once it is open, and so is gone whatever happens.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Result as StoreResult};
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Waits;
use super::answer::Refusal;
use super::limits::{
    ANSWER_PIECES_MAX, BODY_BYTES_PER_SECOND_MIN, REFUSED_BODY_BYTES_MAX, REFUSED_BODY_SECONDS_MAX,
    SPOOL_BYTES_MAX, SPOOL_STEP_BYTES,
};
use super::scan::ReadAt;
use super::throttle::Turns;

/// A body that is read piece by piece.
pub(super) struct Incoming {
    body: Body,
    bytes_max: u64,
    taken: u64,
    began: Instant,
    what: &'static str,
    /// For the next bytes.
    wait: Duration,
}

impl Incoming {
    /// Takes a body of at most so many bytes.
    pub(super) fn new(body: Body, what: &'static str, bytes_max: u64, waits: &Waits) -> Incoming {
        Incoming { body, bytes_max, taken: 0, began: Instant::now(), what, wait: waits.body }
    }

    /// The next bytes; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let frame = match tokio::time::timeout(self.wait, self.body.frame()).await {
                Err(_) => return Err(slow()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(broken(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            self.taken += bytes.len() as u64;
            if self.taken > self.bytes_max {
                return Err(Refusal::too_large(self.what, self.bytes_max));
            }
            let seconds = self.began.elapsed().saturating_sub(self.wait).as_secs();
            if self.taken < seconds * BODY_BYTES_PER_SECOND_MIN {
                return Err(slow());
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All bytes, of a body that is small by its limit.
    pub(super) async fn small(mut self) -> Result<Vec<u8>, Refusal> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// All bytes, kept where there is room.
    pub(super) async fn spool(mut self, spools: &Arc<Spools>, turns: &Turns) -> Result<Spool, Refusal> {
        let mut memory = Memory::default();
        while let Some(bytes) = self.next().await? {
            match turns.receive(bytes.len()) {
                Some(room) => memory.put(&bytes, room),
                None => return self.spool_to_file(spools, memory, bytes).await,
            }
        }
        Ok(Spool::Memory(memory))
    }

    async fn spool_to_file(
        mut self,
        spools: &Arc<Spools>,
        memory: Memory,
        bytes: Bytes,
    ) -> Result<Spool, Refusal> {
        let from = spools.clone();
        let mut file = super::blocking(move || {
            let mut file = from.create()?;
            file.append(&memory.bytes)?;
            file.append(&bytes)?;
            Ok(file)
        })
        .await?;
        let mut pending = Vec::with_capacity(SPOOL_STEP_BYTES);
        loop {
            let next = self.next().await?;
            pending.extend_from_slice(next.as_deref().unwrap_or_default());
            if pending.len() >= SPOOL_STEP_BYTES || next.is_none() {
                (file, pending) = super::blocking(move || {
                    file.append(&pending)?;
                    pending.clear();
                    Ok((file, pending))
                })
                .await?;
            }
            if next.is_none() {
                return Ok(Spool::File(file));
            }
        }
    }

    /// Hands the bytes to a thread that reads them as they come; returns when all are handed over or the thread wants
    /// no more.
    pub(super) async fn pump(mut self, to: mpsc::Sender<io::Result<Bytes>>) -> Result<(), Refusal> {
        loop {
            match self.next().await {
                Ok(Some(bytes)) => {
                    if to.send(Ok(bytes)).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => {
                    let _ = to.send(Ok(END)).await;
                    return Ok(());
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Reads on for a short time and throws away, so that the client comes to read why it was refused.
    pub(super) async fn discard(mut self) {
        self.bytes_max = REFUSED_BODY_BYTES_MAX.min(self.bytes_max);
        let all = async { while let Ok(Some(_)) = self.next().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(REFUSED_BODY_SECONDS_MAX), all).await;
    }
}

/// Refuses a body that says that it is longer than this, or that is compressed.
pub(super) fn check(headers: &HeaderMap, what: &str, bytes_max: u64) -> Result<(), Refusal> {
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    if encoding.is_some_and(|encoding| encoding != b"identity") {
        let message = "expected a body without `Content-Encoding`";
        return Err(Refusal::new(415, "content_encoding", message));
    }
    match length(headers) {
        Some(length) if length > bytes_max => Err(Refusal::too_large(what, bytes_max)),
        _ => Ok(()),
    }
}

/// What a request says of the length of its body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body that cannot be read on: it is no HTTP, or it was cut on the way and may come whole the next time.
fn broken(error: &axum::Error) -> Refusal {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
            return Refusal::new(400, "invalid", "the body cannot be read").because(error.to_string());
        }
        next = cause.source();
    }
    Refusal::new(408, "cut", "the body ended early").because(error.to_string())
}

fn slow() -> Refusal {
    Refusal::new(408, "slow", "the body comes too slowly")
}

/// Says that the body is whole; what ends without it was cut, and must not be taken for the whole.
const END: Bytes = Bytes::new();

/// The thread's end of [`Incoming::pump`].
pub(super) struct PumpReader {
    from: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
    is_ended: bool,
}

/// Both ends of a pump.
pub(super) fn pump() -> (mpsc::Sender<io::Result<Bytes>>, PumpReader) {
    let (to, from) = mpsc::channel(ANSWER_PIECES_MAX);
    (to, PumpReader { from, rest: Bytes::new(), is_ended: false })
}

impl Read for PumpReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.is_ended {
            self.rest = self.from.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)??;
            self.is_ended = self.rest.is_empty();
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// A body in memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Memory {
    fn put(&mut self, bytes: &[u8], room: OwnedSemaphorePermit) {
        self.bytes.extend_from_slice(bytes);
        match &mut self.room {
            Some(all) => all.merge(room),
            None => self.room = Some(room),
        }
    }
}

/// A body that has come in.
pub(super) enum Spool {
    /// In memory.
    Memory(Memory),
    /// In a file.
    File(SpoolFile),
}

impl Spool {
    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Spool::Memory(memory) => memory.bytes.len() as u64,
            Spool::File(file) => file.bytes,
        }
    }

    /// What must be reserved to have it in memory, beyond what it takes now.
    pub(super) fn work_bytes(&self) -> usize {
        match self {
            Spool::Memory(_) => 0,
            Spool::File(file) => usize::try_from(file.bytes).unwrap_or(usize::MAX),
        }
    }

    /// All bytes in memory.
    pub(super) fn into_memory(self) -> StoreResult<Memory> {
        match self {
            Spool::Memory(memory) => Ok(memory),
            Spool::File(file) => {
                let length = usize::try_from(file.bytes)
                    .map_err(|_| Error::invalid("the body does not fit into memory"))?;
                let mut bytes = vec![0; length];
                file.file.read_exact_at(&mut bytes, 0).map_err(unspooled)?;
                Ok(Memory { bytes, room: None })
            }
        }
    }
}

impl Memory {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReadAt for Spool {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Spool::Memory(memory) => (&memory.bytes[..]).read_at(buffer, offset),
            Spool::File(file) => file.file.read_at(buffer, offset),
        }
    }
}

/// Where bodies lie that have no room in memory.
pub(super) struct Spools {
    env: Env,
    dir: PathBuf,
    used: AtomicU64,
}

impl Spools {
    /// Makes the folder and removes what a process left there that was killed.
    pub(super) fn open(env: &Env, dir: &Path) -> StoreResult<Spools> {
        let failed = |error| Error::io(format!("cannot prepare folder `{}`", dir.display()), error);
        env.fs.create_dir_all(dir).map_err(failed)?;
        for entry in env.fs.list(dir).map_err(failed)? {
            if !entry.is_dir {
                env.fs.remove(&dir.join(&entry.name)).map_err(failed)?;
            }
        }
        Ok(Spools { env: env.clone(), dir: dir.to_owned(), used: AtomicU64::new(0) })
    }

    fn create(self: &Arc<Spools>) -> StoreResult<SpoolFile> {
        let mut name = [0; 16];
        self.env.entropy.fill(&mut name);
        let path = self.dir.join(encode_hex(&name));
        let file = self.env.fs.create(&path, true).map_err(unspooled)?;
        self.env.fs.remove(&path).map_err(unspooled)?;
        Ok(SpoolFile { file, bytes: 0, spools: self.clone() })
    }
}

/// A body in a file that has no name.
pub(super) struct SpoolFile {
    file: Box<dyn File>,
    bytes: u64,
    spools: Arc<Spools>,
}

impl SpoolFile {
    fn append(&mut self, bytes: &[u8]) -> StoreResult<()> {
        let length = bytes.len() as u64;
        let used = self.spools.used.fetch_add(length, Ordering::Relaxed) + length;
        if used > SPOOL_BYTES_MAX {
            self.spools.used.fetch_sub(length, Ordering::Relaxed);
            let kind = agent_trace_store::ErrorKind::Unavailable;
            return Err(Error::new(kind, "too many large bodies come in at once"));
        }
        let at = self.bytes;
        self.bytes += length;
        self.file.write_all_at(bytes, at).map_err(unspooled)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.spools.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn unspooled(error: io::Error) -> Error {
    Error::io("cannot keep the body in a file", error)
}
