//! The outbox: segments that are made for a service wait here until the commit that names them is answered.
//!
//! A service needs a segment's name before its bytes, and the name is known at the end, so the bytes are kept here. The
//! commit is kept too, before it is sent: a push that was cut sends what is missing and repeats the same commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::layout::{create_dir_durably, read_small, write_durably};
use agent_trace_store::log::hash_file;
use agent_trace_store::{Error, Result, SegmentId, Store};

use crate::client::Client;
use crate::head::RemoteId;
use crate::limits::{COMMIT_SEGMENTS_MAX, PENDING_BYTES_MAX};
use crate::state::{State, cache_dir, clear};
use crate::transport::{Outlet, Upload};
use crate::wire::BatchId;

const COMMIT: &str = "commit";
const VERSION: u8 = 1;

/// The outbox of one service.
pub(super) struct Outbox {
    env: Env,
    client: Arc<Client>,
    dir: PathBuf,
}

impl Outbox {
    /// Opens the outbox, and makes it where it is not there.
    pub(super) fn open(store: &Store, client: &Arc<Client>, id: &RemoteId) -> Result<Outbox> {
        let dir = cache_dir(store, id)?.join("outbox");
        create_dir_durably(store.env(), &dir)
            .map_err(|error| Error::io(format!("cannot create `{}`", dir.display()), error))?;
        Ok(Outbox { env: store.env().clone(), client: Arc::clone(client), dir })
    }

    fn path(&self, id: &SegmentId) -> PathBuf {
        self.dir.join(format!("{id}.seg"))
    }

    /// A segment that waits, if it is there and whole.
    pub(super) fn segment(&self, id: &SegmentId, bytes: u64) -> Result<Option<Box<dyn File>>> {
        let Ok(file) = self.env.fs.open(&self.path(id)) else { return Ok(None) };
        let whole = file.len().is_ok_and(|found| found == bytes) && hash_file(file.as_ref(), bytes)? == *id;
        Ok(whole.then_some(file))
    }

    /// Keeps a commit, durably, before it is sent.
    pub(super) fn keep_commit(&self, pending: &Pending) -> Result<()> {
        write_durably(&self.env, &self.dir.join(COMMIT), &pending.encode(), true)
    }

    /// The commit of a push that was cut.
    pub(super) fn commit(&self) -> Option<Pending> {
        let bytes = read_small(&self.env, &self.dir.join(COMMIT), PENDING_BYTES_MAX).ok()?;
        Pending::decode(&bytes).ok()
    }

    /// Removes everything: the commit first, since without it the rest means nothing.
    pub(super) fn clear(&self, store: &Store, id: &RemoteId) -> Result<()> {
        let commit = self.dir.join(COMMIT);
        if self.env.fs.metadata(&commit).is_ok() {
            let doing = |error| Error::io(format!("cannot clear `{}`", self.dir.display()), error);
            self.env.fs.remove(&commit).map_err(doing)?;
            self.env.fs.sync_dir(&self.dir).map_err(doing)?;
        }
        clear(store, &self.dir)?;
        clear(store, &cache_dir(store, id)?.join("tables"))
    }
}

impl Outlet for Outbox {
    fn send(&self, id: &SegmentId, file: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<()> {
        self.client.upload(id, file, bytes, sent).map(|_| ())
    }

    fn create(&self) -> Result<Box<dyn Upload>> {
        let mut random = [0; 8];
        self.env.entropy.fill(&mut random);
        let aside = self.dir.join(format!("build-{}", encode_hex(&random)));
        let file = self.env.fs.create(&aside, true).map_err(|error| at(&aside, error))?;
        let (env, client, dir) = (self.env.clone(), Arc::clone(&self.client), self.dir.clone());
        Ok(Box::new(Waiting { env, client, dir, aside, file, written: 0, is_named: false }))
    }

    fn keep_segment(&self, id: &SegmentId, bytes: u64) -> Result<bool> {
        let Some(file) = self.segment(id, bytes)? else { return Ok(false) };
        self.client.upload_rest(id, file.as_ref(), bytes, &|_| ())?;
        Ok(true)
    }
}

fn at(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot write `{}`", path.display()), error)
}

/// A segment that is being made.
struct Waiting {
    env: Env,
    client: Arc<Client>,
    dir: PathBuf,
    aside: PathBuf,
    file: Box<dyn File>,
    written: u64,
    is_named: bool,
}

impl Upload for Waiting {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.written).map_err(|error| at(&self.aside, error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        // A copy of what is durable in the store: where it is lost, its hash says so, and it is made again.
        Ok(())
    }

    fn name(mut self: Box<Self>, id: &SegmentId) -> Result<()> {
        let path = self.dir.join(format!("{id}.seg"));
        self.env.fs.rename(&self.aside, &path).map_err(|error| at(&path, error))?;
        self.is_named = true;
        self.client.upload(id, self.file.as_ref(), self.written, &|_| ()).map(|_| ())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_named {
            // Nobody reads it, and the next push clears the outbox.
            let _ = self.env.fs.remove(&self.aside);
        }
    }
}

/// A commit that was about to be sent.
pub(super) struct Pending {
    /// Its name.
    pub(super) batch: BatchId,
    /// Its segments with their lengths.
    pub(super) segments: Vec<(SegmentId, u64)>,
    /// What it brings (`has`), the tips that go with it, and what is held back once it is there.
    pub(super) after: State,
}

impl Pending {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(VERSION).put(&self.batch).u32(length_u32(self.segments.len()));
        for (id, bytes) in &self.segments {
            encoder.put(id.as_bytes()).u64(*bytes);
        }
        encoder.prefixed(&self.after.encode());
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Pending> {
        let mut decoder = Decoder::new("commit that waits", bytes);
        if decoder.u8()? != VERSION {
            return Err(decoder.error("of another version"));
        }
        let batch = decoder.array()?;
        let mut segments = Vec::new();
        for _ in 0..decoder.count(40, COMMIT_SEGMENTS_MAX)? {
            segments.push((SegmentId::from_bytes(decoder.array()?), decoder.u64()?));
        }
        let after = State::decode(decoder.prefixed(usize::MAX)?)?;
        decoder.finish()?;
        Ok(Pending { batch, segments, after })
    }
}
