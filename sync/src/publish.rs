//! The end of a push: a manifest that names the new segments, and the own head that names the manifest.
//!
//! Replacing the head is the commit (I2). A writer first compares the head that stands there with the one it noted
//! before it last wrote: another one means that a copy of this store, or one restored from a backup, goes by the same
//! name. Then nothing is replaced, and this store goes on under a new name.

use std::path::PathBuf;

use agent_trace_store::codec::{Decoder, Encoder};
use agent_trace_store::layout::{create_dir_durably, read_small, write_durably};
use agent_trace_store::limits::BATCH_EVENTS_MAX;
use agent_trace_store::log::{Draft, Prepared};
use agent_trace_store::scan::marks;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, Result, SegmentId, Seq, Store, WriterId};

use crate::head::{Head, RemoteId, head_hash};
use crate::limits::{MANIFEST_BYTES_MAX, MANIFEST_DEPTH_MAX};
use crate::manifest::{Manifest, ManifestId, NO_MANIFEST};
use crate::remote::{FORMAT_KEY, Remote};
use crate::select::events_in;
use crate::state::{SeenHead, State, cache_dir};

const NOTE_BYTES: u64 = 160;

/// What a store notes, per remote, about the head it writes: before it writes, so that a cut push finds either the
/// one or the other there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnHead {
    /// Who writes it.
    pub writer: WriterId,
    /// The generation that it gets.
    pub generation: u64,
    /// The hash of the head before it, zero for none.
    pub before: [u8; 32],
    /// Its own hash.
    pub after: [u8; 32],
    /// The manifest that it names.
    pub manifest: ManifestId,
    /// How many manifests stand before that one.
    pub depth: u32,
    /// How far the own log went.
    pub seq: u64,
}

impl OwnHead {
    fn path(store: &Store, remote: &RemoteId) -> Result<PathBuf> {
        Ok(cache_dir(store, remote)?.join("own-head"))
    }

    fn read(store: &Store, remote: &RemoteId) -> Result<Option<OwnHead>> {
        let Ok(bytes) = read_small(store.env(), &OwnHead::path(store, remote)?, NOTE_BYTES) else {
            return Ok(None);
        };
        OwnHead::decode(&bytes).map(Some)
    }

    /// The bytes of the note.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(self.writer.as_bytes()).u64(self.generation).put(&self.before).put(&self.after);
        encoder.put(&self.manifest).u32(self.depth).u64(self.seq);
        encoder.finish()
    }

    /// Reads the note back. What it counts can be counted on from there.
    pub fn decode(bytes: &[u8]) -> Result<OwnHead> {
        let mut decoder = Decoder::new("note of the own head", bytes);
        let note = OwnHead {
            writer: WriterId::from_bytes(decoder.array()?),
            generation: decoder.u64()?,
            before: decoder.array()?,
            after: decoder.array()?,
            manifest: decoder.array()?,
            depth: decoder.u32()?,
            seq: decoder.u64()?,
        };
        if note.generation == u64::MAX || note.depth > MANIFEST_DEPTH_MAX || note.seq == u64::MAX {
            return Err(decoder.error("a number is out of range"));
        }
        decoder.finish()?;
        Ok(note)
    }

    fn write(&self, store: &Store, remote: &RemoteId) -> Result<()> {
        let path = OwnHead::path(store, remote)?;
        write_durably(store.env(), &path, &self.encode(), true)?;
        // Without the note the store would take itself for a copy, so the names of its directories must last too.
        create_dir_durably(store.env(), path.parent().expect("the note lies in the cache"))
            .map_err(|error| Error::io(format!("cannot make `{}` durable", path.display()), error))
    }
}

/// Makes sure that the own head on the remote, which has the hash `there`, is the one that this store wrote last.
/// Otherwise the store takes a new writer, and what it appended since it last pushed is said again under that: the
/// other copy may have given those seqs to other events. Returns whether that was necessary.
pub fn claim_writer(store: &Store, id: &RemoteId, there: Option<[u8; 32]>) -> Result<bool> {
    let writer = store.writer();
    let noted = OwnHead::read(store, id)?.filter(|noted| noted.writer == writer);
    let ours = match (&noted, there) {
        (None, None) => true,
        (Some(noted), Some(there)) => noted.before == there || noted.after == there,
        (Some(noted), None) => noted.before == [0; 32],
        (None, Some(_)) => false,
    };
    if ours {
        return Ok(false);
    }
    let first = noted.map_or(1, |noted| noted.seq + 1);
    let last = store.tail()?.seq;
    let doubtful =
        if first <= last { EventSet::from_ranges([(writer, first, last)]) } else { EventSet::default() };
    go_on_as_another(store, &doubtful)?;
    Ok(true)
}

/// Takes a new writer, and says under that again what others cannot take from the old one.
pub(crate) fn go_on_as_another(store: &Store, doubtful: &EventSet) -> Result<()> {
    store.renew_writer()?;
    store.catch_up()?;
    if !doubtful.is_empty() {
        let reissued = events_in(store, doubtful)?
            .into_iter()
            .map(|event| {
                let record = store.read_unless_erased(&event.fact.objects[0])?.unwrap_or_default();
                Ok(Draft { marks: marks(&event.fact, &record), fact: event.fact })
            })
            .collect::<Result<Vec<_>>>()?;
        for part in reissued.chunks(BATCH_EVENTS_MAX) {
            store.append(Prepared { reissued: part.to_vec(), ..Prepared::default() })?;
        }
        store.catch_up()?;
    }
    Ok(())
}

/// Sends the manifest and replaces the own head, which stands there with hash `there`. What is live of the segments in
/// `replaces` stands in those added.
pub fn publish(
    store: &Store,
    remote: &Remote,
    state: &mut State,
    id: &RemoteId,
    added: Vec<(SegmentId, u64)>,
    replaces: Vec<SegmentId>,
    there: Option<[u8; 32]>,
) -> Result<()> {
    let noted = OwnHead::read(store, id)?.filter(|noted| noted.writer == store.writer());
    let previous = there;
    let seen = state.heads.get(&store.writer()).copied().filter(|_| previous.is_some());
    let (before, depth) = match (seen, &noted) {
        (Some(seen), Some(noted)) if noted.manifest == seen.manifest => (seen.manifest, Some(noted.depth)),
        (Some(seen), _) => (seen.manifest, None),
        (None, _) => (NO_MANIFEST, None),
    };
    let manifest = extend(remote, before, depth, added, replaces)?;
    let bytes = manifest.encode();
    let manifest_id = Manifest::id(&bytes);
    remote.transport().write(&Manifest::key(&manifest_id), &bytes)?;
    let generation =
        seen.map_or(0, |seen| seen.generation).max(noted.as_ref().map_or(0, |noted| noted.generation)) + 1;
    note_own_tip(store, state)?;
    let head = Head {
        remote: *id,
        writer: store.writer(),
        generation,
        previous: previous.unwrap_or_default(),
        manifest: manifest_id,
        time: store.env().clock.now(),
        tips: state.tips.values().copied().collect(),
    };
    let bytes = head.encode(&store.key());
    let hash = head_hash(&bytes);
    let note = OwnHead {
        writer: store.writer(),
        generation,
        before: previous.unwrap_or_default(),
        after: hash,
        manifest: manifest_id,
        depth: manifest.depth,
        seq: state.tips.get(&store.writer()).map_or(0, |tip| tip.seq.get()),
    };
    note.write(store, id)?;
    // Whoever made the remote may have died before the name of its `format` file was durable; without it the head
    // would be of another remote.
    remote.transport().keep(FORMAT_KEY)?;
    remote.transport().write(&Head::key(&store.writer()), &bytes)?;
    state.heads.insert(store.writer(), SeenHead { generation, hash, manifest: manifest_id, version: None });
    Ok(())
}

/// The manifest after another; now and then one that lists all segments again, so that chains stay short.
fn extend(
    remote: &Remote,
    before: ManifestId,
    depth: Option<u32>,
    added: Vec<(SegmentId, u64)>,
    replaces: Vec<SegmentId>,
) -> Result<Manifest> {
    if before == NO_MANIFEST {
        return Ok(Manifest { added, replaces, ..Manifest::default() });
    }
    let read = |id: &ManifestId| -> Result<Manifest> {
        let bytes = remote.transport().read(&Manifest::key(id), MANIFEST_BYTES_MAX)?;
        Manifest::decode(
            id,
            &bytes.ok_or_else(|| Error::corrupt("the own manifest is gone from the remote"))?,
        )
    };
    let depth = match depth {
        Some(depth) => depth,
        None => read(&before)?.depth,
    };
    if depth + 1 < MANIFEST_DEPTH_MAX {
        return Ok(Manifest { previous: before, depth: depth + 1, added, replaces });
    }
    let mut chain = Vec::new();
    let mut next = before;
    while next != NO_MANIFEST {
        let manifest = read(&next)?;
        next = manifest.previous;
        chain.push(manifest);
    }
    let mut whole = Manifest::default();
    for manifest in chain.into_iter().rev() {
        whole.added.extend(manifest.added);
        whole.replaces.extend(manifest.replaces);
    }
    whole.replaces.extend(replaces);
    whole.added.retain(|(id, _)| !whole.replaces.contains(id));
    whole.added.extend(added);
    Ok(whole)
}

/// Adds the own tip and those that came with what was pulled.
pub(crate) fn note_own_tip(store: &Store, state: &mut State) -> Result<()> {
    for tip in store.index().read(|view| view.tips())?.unwrap_or_default() {
        state.note_tip(&tip);
    }
    let tail = store.tail()?;
    if let Some(seq) = Seq::new(tail.seq) {
        state.note_tip(&store.key().tip(seq, tail.event));
    }
    Ok(())
}
