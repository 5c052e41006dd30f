//! Making one segment of a remote out of several: everything that stands in them, each object and event once.
//!
//! Only what this store has taken in, and so checked, is put together: a segment that somebody damaged would spoil those
//! that it is merged with. Objects come before events, small frames are compressed together. Says nothing about when
//! the old ones may go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use agent_trace_store::build::Builder;
use agent_trace_store::codec::Decoder;
use agent_trace_store::env::Env;
use agent_trace_store::frame::{Effort, Packer, Unpacker};
use agent_trace_store::id::encode_hex;
use agent_trace_store::log::Received;
use agent_trace_store::object::{Objects, ObjectsBuilder, ObjectsFrame, Stored};
use agent_trace_store::scan::Marks;
use agent_trace_store::segment::{all_ids, all_names, read_frame};
use agent_trace_store::segments::Sealed;
use agent_trace_store::store::{Handle, read_events};
use agent_trace_store::writer::{Tip, decode_tips};
use agent_trace_store::{Error, EventId, ObjectId, Result, SegmentId, Store, WriterId};

use crate::collect::GATHER_BYTES;
use crate::head::RemoteId;
use crate::manifest::segment_key;
use crate::remote::Remote;
use crate::state::cache_dir;
use crate::tables::{ABSENT, keep_table};
use crate::transport::Upload;

/// A frame of which less than this is in it is compressed together with others.
const ALONE_BYTES_MIN: u32 = 64 << 10;

/// Merges segments of a remote, and sends what comes of it; returns its id and length.
pub(crate) fn merge(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    segments: &[(SegmentId, u64)],
) -> Result<(SegmentId, u64)> {
    let fetched: Vec<Fetched> =
        segments.iter().map(|segment| fetch(store, remote, id, segment)).collect::<Result<_>>()?;
    let upload = remote.transport().create()?;
    let mut merger = Merger {
        builder: Builder::into(store.env(), upload, store.tail()?),
        small: ObjectsBuilder::new(),
        packer: Packer::new(Effort::FAST),
        unpacker: Unpacker::new(),
        objects: HashSet::new(),
    };
    merger.builder.tips(&all_tips(&fetched)?)?;
    for fetched in &fetched {
        merger.add_objects(&fetched.sealed)?;
    }
    merger.flush()?;
    let mut events: HashSet<EventId> = HashSet::new();
    for fetched in &fetched {
        let new: Vec<Received> =
            events_in(&fetched.sealed)?.into_iter().filter(|received| events.insert(received.id)).collect();
        merger.builder.received(&new)?;
    }
    let ended = merger.builder.end()?;
    // First, so that a segment that is there is known here.
    keep_table(store, id, &ended)?;
    ended.sink.name(&ended.id)?;
    Ok((ended.id, ended.bytes))
}

/// A segment that is at hand; a copy goes with this value.
struct Fetched {
    sealed: Arc<Sealed>,
    copy: Option<(Env, std::path::PathBuf)>,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if let Some((env, path)) = &self.copy {
            // Cleared up by its name by the next push otherwise.
            let _ = env.fs.remove(path);
        }
    }
}

fn fetch(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    (segment, bytes): &(SegmentId, u64),
) -> Result<Fetched> {
    if let Some(sealed) = store.segments().get(segment) {
        return Ok(Fetched { sealed: Arc::clone(sealed), copy: None });
    }
    let env = store.env();
    let mut random = [0; 8];
    env.entropy.fill(&mut random);
    let path = cache_dir(store, id)?.join(format!(".{}.new", encode_hex(&random)));
    let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
    let file = env.fs.create(&path, true).map_err(doing)?;
    let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
    let is_there = remote.transport().fetch(&segment_key(segment), *bytes, &mut |part| {
        hasher.update(part);
        file.write_all_at(part, at).map_err(doing)?;
        at += part.len() as u64;
        Ok(())
    });
    let checked = is_there.and_then(|is_there| match is_there {
        false => Err(Error::corrupt(ABSENT)),
        true if hasher.finalize().as_bytes() != segment.as_bytes() => {
            Err(Error::corrupt("its bytes do not have its hash"))
        }
        true => Sealed::open(env, &path, *segment),
    });
    match checked {
        Ok(sealed) => Ok(Fetched { sealed: Arc::new(sealed), copy: Some((env.clone(), path)) }),
        Err(error) => {
            let _ = env.fs.remove(&path);
            Err(error.context(format!("cannot merge `{}`", segment_key(segment))))
        }
    }
}

/// The newest tip of each writer that stands in the segments.
fn all_tips(fetched: &[Fetched]) -> Result<Vec<Tip>> {
    let mut tips: BTreeMap<WriterId, Tip> = BTreeMap::new();
    let mut unpacker = Unpacker::new();
    for Fetched { sealed, .. } in fetched {
        for offset in &sealed.directory.tips_frames {
            let frame = read_frame(sealed.file.as_ref(), &sealed.key, u64::from(*offset))?;
            for tip in decode_tips(&mut Decoder::new("tips frame", &frame.into_raw(&mut unpacker)?))? {
                let known = tips.entry(tip.writer).or_insert(tip);
                if known.seq < tip.seq {
                    *known = tip;
                }
            }
        }
    }
    Ok(tips.into_values().collect())
}

/// The events of a segment with the names under which they are found.
fn events_in(sealed: &Arc<Sealed>) -> Result<Vec<Received>> {
    let mut names: HashMap<u32, Marks> = HashMap::new();
    for entry in all_names(sealed.file.as_ref(), &sealed.key, &sealed.directory)? {
        names.entry(entry.event).or_default().names.push((entry.prefix, entry.cites));
    }
    let handle = Handle::Sealed(Arc::clone(sealed));
    let mut received = Vec::new();
    for place in &sealed.directory.events_frames {
        for ((event, id), number) in read_events(&handle, place.offset)?.into_iter().zip(place.first_event..)
        {
            received.push(Received { event, id, marks: names.remove(&number).unwrap_or_default() });
        }
    }
    Ok(received)
}

struct Merger {
    builder: Builder<Box<dyn Upload>>,
    small: ObjectsBuilder,
    packer: Packer,
    unpacker: Unpacker,
    objects: HashSet<ObjectId>,
}

impl Merger {
    /// Adds the objects of a segment that are not here yet.
    fn add_objects(&mut self, sealed: &Sealed) -> Result<()> {
        let mut by_frame: BTreeMap<u32, BTreeMap<u32, ObjectId>> = BTreeMap::new();
        for entry in all_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory)? {
            by_frame.entry(entry.frame).or_default().insert(entry.slot, entry.id);
        }
        for offset in &sealed.directory.objects_frames {
            let ids = by_frame.remove(offset).unwrap_or_default();
            let frame = read_frame(sealed.file.as_ref(), &sealed.key, u64::from(*offset))?;
            let raw_bytes = frame.raw_bytes;
            let objects = Objects::decode(frame.clone().into_raw(&mut self.unpacker)?)?;
            for (slot, id) in &ids {
                if let Stored::Plain(bytes) = objects.get(*slot as usize)?
                    && blake3::hash(bytes).as_bytes() != id.as_bytes()
                {
                    return Err(Error::corrupt(format!("object `{id}` is damaged on the remote")));
                }
            }
            let new: Vec<(u32, ObjectId)> = ids
                .iter()
                .filter(|(_, id)| !self.objects.contains(*id))
                .map(|(slot, id)| (*slot, *id))
                .collect();
            self.objects.extend(ids.values().copied());
            if new.len() == ids.len() && raw_bytes >= ALONE_BYTES_MIN {
                self.builder.objects(&ObjectsFrame { frame, ids: ids.into_values().collect() })?;
                continue;
            }
            for (slot, id) in new {
                let laid = objects.laid(slot as usize)?;
                if self.small.raw_bytes() + laid.bytes() > GATHER_BYTES || !self.small.fits(laid.bytes()) {
                    self.flush()?;
                }
                self.small.add_stored(id, &laid);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.small.is_empty() {
            return Ok(());
        }
        let frame = self.small.finish(&mut self.packer);
        self.builder.objects(&frame)
    }
}
