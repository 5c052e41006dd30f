//! Bytes on their way into a bucket: whole files under names that are known, and segments whose name is known at the end.
//!
//! Nothing in a bucket can be renamed, so a segment that is made while it is sent waits in a file here until it has its
//! name. In memory are a few parts at most. What a bucket says that it took is looked for before it is believed.

use std::sync::Arc;

use agent_trace_store::env::File;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId};
use bytes::Bytes;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::file::Spooled;
use super::{Inner, Outcome};
use crate::limits::LOST_PUTS_MAX;
use crate::manifest::segment_key;
use crate::transport::Upload;

/// A segment that waits for its name.
pub(super) struct Spool {
    inner: Arc<Inner>,
    spooled: Spooled,
    written: u64,
}

impl Spool {
    pub(super) fn create(inner: &Arc<Inner>) -> Result<Spool> {
        let spooled = Spooled::create(&inner.env, &inner.spool_dir()?)?;
        Ok(Spool { inner: Arc::clone(inner), spooled, written: 0 })
    }
}

impl Upload for Spool {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let doing = |error| Error::io("cannot keep a segment that is to be sent", error);
        self.spooled.file.write_all_at(bytes, self.written).map_err(doing)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        // It need not outlive this process: what has no name there is made again.
        Ok(())
    }

    fn name(self: Box<Self>, id: &SegmentId) -> Result<()> {
        send_segment(&self.inner, id, self.spooled.file.as_ref(), self.written, &|_| {})
    }
}

/// Sends a segment under its name; its hash is compared on the way.
pub(super) fn send_segment(
    inner: &Inner,
    id: &SegmentId,
    file: &dyn File,
    bytes: u64,
    sent: &dyn Fn(u64),
) -> Result<()> {
    let key = segment_key(id);
    let path = inner.path(&key);
    for again in 0..LOST_PUTS_MAX {
        let told = |count| {
            if again == 0 {
                sent(count)
            }
        };
        if bytes <= inner.sizes.put {
            let content = read_part(file, 0, bytes)?;
            if blake3::hash(&content).as_bytes() != id.as_bytes() {
                return Err(damaged(id));
            }
            inner.put(&path, content)?;
            told(bytes);
        } else {
            send_parts(inner, &path, id, file, bytes, &told)?;
        }
        if inner.bytes(&path)? == Some(bytes) {
            return Ok(());
        }
    }
    Err(not_kept(inner, &key))
}

/// What is said of a bucket that took bytes and has not got them.
pub(super) fn not_kept(inner: &Inner, key: &str) -> Error {
    let message = format!("`{}` says that it has taken `{key}`, and does not hold it", inner.name);
    Error::new(ErrorKind::Unavailable, message)
}

fn damaged(id: &SegmentId) -> Error {
    Error::corrupt(format!("segment `{}` is damaged here: run `agent-trace verify`", id.short()))
}

fn read_part(file: &dyn File, at: u64, bytes: u64) -> Result<Bytes> {
    let mut part = vec![0; usize::try_from(bytes).expect("a part is small")];
    file.read_exact_at(&mut part, at)
        .map_err(|error| Error::io("cannot read a segment that is to be sent", error))?;
    Ok(part.into())
}

fn send_parts(
    inner: &Inner,
    path: &Path,
    id: &SegmentId,
    file: &dyn File,
    bytes: u64,
    sent: &dyn Fn(u64),
) -> Result<()> {
    let start = || inner.store.create_multipart(path);
    let upload = inner.attempt("start an upload", start)?.ok_or_else(|| not_kept(inner, path.as_ref()))?;
    let parts = send_each_part(inner, path, &upload, id, file, bytes, sent);
    let done = parts.and_then(|parts| {
        let end = || inner.store.complete_multipart(path, &upload, parts.clone());
        match inner.attempt("end an upload", end)? {
            Some(_) => Ok(()),
            // The answer to an end that was lost: whether it is there is asked next.
            None => Ok(()),
        }
    });
    if done.is_err() {
        // What is left of it only costs room there; buckets remove it by a rule of their own.
        let abort = inner.store.abort_multipart(path, &upload);
        let _ = inner.block_on(abort);
    }
    done
}

fn send_each_part(
    inner: &Inner,
    path: &Path,
    upload: &String,
    id: &SegmentId,
    file: &dyn File,
    bytes: u64,
    sent: &dyn Fn(u64),
) -> Result<Vec<PartId>> {
    let mut hasher = blake3::Hasher::new();
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(inner.sizes.part);
        let part = read_part(file, at, length)?;
        hasher.update(&part);
        let number = parts.len();
        let put = || inner.store.put_part(path, upload, number, PutPayload::from_bytes(part.clone()));
        let put = inner.attempt("send a part of a segment", put)?;
        parts.push(put.ok_or_else(|| not_kept(inner, path.as_ref()))?);
        at += length;
        sent(length);
    }
    if hasher.finalize().as_bytes() != id.as_bytes() {
        return Err(damaged(id));
    }
    Ok(parts)
}

impl Inner {
    /// Writes a whole file.
    pub(super) fn put(&self, path: &Path, content: Bytes) -> Result<()> {
        let put = || self.store.put(path, PutPayload::from_bytes(content.clone()));
        match self.attempt("write a file", put)? {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no bucket `{}`", self.name))),
        }
    }

    /// Writes a file unless it is there, where the bucket keeps to such a condition.
    pub(super) fn put_new(&self, path: &Path, content: Bytes) -> Result<()> {
        let mode = || object_store::PutOptions::from(object_store::PutMode::Create);
        let put = || self.store.put_opts(path, PutPayload::from_bytes(content.clone()), mode());
        match self.attempt_outcome(put) {
            Outcome::Done(_) => Ok(()),
            Outcome::Failed(
                object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
            ) => Ok(()),
            Outcome::Failed(error) => {
                let error = super::refusal::explain("write a file", &error);
                if error.kind() != ErrorKind::Unsupported {
                    return Err(error);
                }
                if self.bytes(path)?.is_some() { Ok(()) } else { self.put(path, content) }
            }
        }
    }
}
