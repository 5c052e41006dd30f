//! The footers of a remote's segments, cached: what stands there can be looked up without asking again.
//!
//! A cached footer is the segment file without its batches: header, where the rest belongs, and the rest. Where the
//! store has the same segment itself, that is used instead.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use agent_trace_store::build::Ended;
use agent_trace_store::env::{Env, File};
use agent_trace_store::id::SegmentId;
use agent_trace_store::layout::write_durably;
use agent_trace_store::segment::{Filter, HEADER_BYTES, all_ids, all_names};
use agent_trace_store::segments::Sealed;
use agent_trace_store::{Error, ObjectId, Result, Store};

use crate::head::RemoteId;
use crate::manifest::segment_key;
use crate::state::{State, cache_dir};
use crate::transport::Transport;

/// What is said of a segment that has gone.
pub(crate) const ABSENT: &str = "the remote names it, but it is not there";

const PREFIX_BYTES: u64 = HEADER_BYTES as u64 + 16;

/// A file of which the middle is not here.
struct Hollow {
    file: Box<dyn File>,
    start: u64,
    bytes: u64,
}

impl File for Hollow {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.start {
            self.file.read_at(buffer, offset - self.start + PREFIX_BYTES)
        } else if offset < HEADER_BYTES as u64 {
            let length = buffer.len().min(HEADER_BYTES - usize::try_from(offset).unwrap_or(HEADER_BYTES));
            self.file.read_at(&mut buffer[..length], offset)
        } else {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the batches of a cached footer are not here"))
        }
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

fn table_path(store: &Store, remote: &RemoteId, segment: &SegmentId) -> Result<PathBuf> {
    Ok(cache_dir(store, remote)?.join("tables").join(segment.to_string()))
}

/// The footer of a remote's segment: from the store itself, from the cache, or from the remote.
pub fn remote_segment(
    store: &Store,
    transport: &dyn Transport,
    remote: &RemoteId,
    segment: &SegmentId,
    bytes: u64,
) -> Result<Arc<Sealed>> {
    if let Some(sealed) = store.segments().get(segment) {
        return Ok(Arc::clone(sealed));
    }
    let path = table_path(store, remote, segment)?;
    if let Ok(sealed) = open_table(store.env(), &path, segment) {
        return Ok(Arc::new(sealed));
    }
    let file = transport.open(&segment_key(segment))?.ok_or_else(|| Error::corrupt(ABSENT))?;
    let found = file.len().map_err(|error| Error::io("cannot look at a segment on the remote", error))?;
    if found != bytes {
        return Err(Error::corrupt(format!("expected {bytes} bytes, found {found}")));
    }
    cache_table(store, remote, segment, file.as_ref(), bytes)?;
    match open_table(store.env(), &path, segment).and_then(|sealed| check_table(&sealed).map(|()| sealed)) {
        Ok(sealed) => Ok(Arc::new(sealed)),
        Err(error) => {
            // It came over a way that may damage it: what is kept would be believed from then on.
            forget_table(store, remote, segment)?;
            Err(error)
        }
    }
}

/// Reads all of a footer once, so that every checksum in it is compared.
fn check_table(sealed: &Sealed) -> Result<()> {
    let (file, directory) = (sealed.file.as_ref(), &sealed.directory);
    Filter::read(file, &sealed.key, directory)?;
    all_ids(file, &sealed.key, directory)?;
    all_names(file, &sealed.key, directory)?;
    Ok(())
}

/// Whether an object stands in one of these segments, by their tables.
pub(crate) fn stands_in(segments: &[Arc<Sealed>], id: &ObjectId) -> Result<bool> {
    for sealed in segments {
        if sealed.find(id)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keeps the footer of a segment that has been built.
pub fn keep_table<S>(store: &Store, remote: &RemoteId, ended: &Ended<S>) -> Result<()> {
    let mut table = ended.header.to_vec();
    table.extend_from_slice(&(ended.bytes - ended.footer.len() as u64).to_le_bytes());
    table.extend_from_slice(&ended.bytes.to_le_bytes());
    table.extend_from_slice(&ended.footer);
    write_durably(store.env(), &table_path(store, remote, &ended.id)?, &table, true)
}

/// The footers that are kept of segments that are not known to stand on the remote.
pub fn stray_tables(store: &Store, remote: &RemoteId, state: &State) -> Result<Vec<Arc<Sealed>>> {
    let dir = cache_dir(store, remote)?.join("tables");
    let doing = |error| Error::io(format!("cannot list `{}`", dir.display()), error);
    let mut found = Vec::new();
    for entry in store.env().fs.list(&dir).map_err(doing)? {
        let id = entry.name.to_str().and_then(|name| SegmentId::parse(name).ok());
        let Some(id) = id.filter(|id| !state.segments.contains_key(id)) else { continue };
        match open_table(store.env(), &dir.join(&entry.name), &id) {
            Ok(sealed) => found.push(Arc::new(sealed)),
            Err(_) => forget_table(store, remote, &id)?,
        }
    }
    Ok(found)
}

/// Removes the footer that is kept of a segment.
pub fn forget_table(store: &Store, remote: &RemoteId, segment: &SegmentId) -> Result<()> {
    let path = table_path(store, remote, segment)?;
    let doing = |error| Error::io(format!("cannot remove `{}`", path.display()), error);
    store.env().fs.remove(&path).map_err(doing)
}

/// Keeps the footer of a segment file that is at hand.
fn cache_table(
    store: &Store,
    remote: &RemoteId,
    segment: &SegmentId,
    file: &dyn File,
    bytes: u64,
) -> Result<()> {
    let table = encode_table(file, bytes)?;
    write_durably(store.env(), &table_path(store, remote, segment)?, &table, true)
}

/// Copies the footer out of a segment file of so many bytes, in the form of the cache.
pub fn encode_table(file: &dyn File, bytes: u64) -> Result<Vec<u8>> {
    let doing = |error| Error::io("cannot read the footer of a segment", error);
    let mut table = vec![0; HEADER_BYTES];
    file.read_exact_at(&mut table, 0).map_err(doing)?;
    let header = agent_trace_store::segment::SegmentHeader::decode(
        table.as_slice().try_into().expect("as long as a header"),
    )?;
    let key = agent_trace_store::frame::FrameKey::new(&header.nonce);
    let footer = agent_trace_store::segment::read_footer(file, &key, bytes)?
        .ok_or_else(|| Error::corrupt("the segment has no trailer"))?;
    if footer.start > bytes {
        return Err(Error::corrupt("the footer of a segment starts behind its end"));
    }
    table.extend_from_slice(&footer.start.to_le_bytes());
    table.extend_from_slice(&bytes.to_le_bytes());
    let mut rest = vec![0; usize::try_from(bytes - footer.start).expect("segments are bounded")];
    file.read_exact_at(&mut rest, footer.start).map_err(doing)?;
    table.extend_from_slice(&rest);
    Ok(table)
}

fn open_table(env: &Env, path: &std::path::Path, segment: &SegmentId) -> Result<Sealed> {
    let doing = |error| Error::io(format!("cannot open `{}`", path.display()), error);
    decode_table(env.fs.open(path).map_err(doing)?, segment)
}

/// Takes a file of the cache as the segment whose footer it holds.
pub fn decode_table(file: Box<dyn File>, segment: &SegmentId) -> Result<Sealed> {
    let doing = |error| Error::io("cannot read a cached footer", error);
    let mut numbers = [0; 16];
    file.read_exact_at(&mut numbers, HEADER_BYTES as u64).map_err(doing)?;
    let (start, bytes) = numbers.split_at(8);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let hollow = Hollow { file, start: number(start), bytes: number(bytes) };
    let bytes = hollow.bytes;
    Sealed::from_file(Box::new(hollow), bytes, *segment)
}

/// What stands on a remote, to look objects up in.
pub struct Tables {
    segments: Vec<Arc<Sealed>>,
    /// Objects of which the remote itself said that they are there.
    told: HashSet<ObjectId>,
}

impl Tables {
    /// Opens the footers of all live segments of a remote.
    pub fn open(
        store: &Store,
        transport: &dyn Transport,
        remote: &RemoteId,
        state: &State,
    ) -> Result<Tables> {
        let mut segments = Vec::new();
        for (id, bytes) in state.live_segments() {
            let sealed = remote_segment(store, transport, remote, id, *bytes)?;
            sealed.load_filter()?;
            segments.push(sealed);
        }
        Ok(Tables { segments, told: HashSet::new() })
    }

    /// A remote that holds nothing.
    pub fn empty() -> Tables {
        Tables::told(HashSet::new())
    }

    /// A remote that says itself which of the objects that matter it holds.
    pub fn told(held: HashSet<ObjectId>) -> Tables {
        Tables { segments: Vec::new(), told: held }
    }

    /// Whether an object stands there.
    pub fn contains(&self, id: &ObjectId) -> Result<bool> {
        if self.told.contains(id) {
            return Ok(true);
        }
        for sealed in &self.segments {
            if sealed.find(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
