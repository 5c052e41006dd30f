//! What a store remembers of a remote: which heads it has replayed, what stands there, what it holds back.
//!
//! All of it can be learned again from the remote, so it lies in the index and may be lost with it.

use std::collections::{BTreeMap, BTreeSet};

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::id::encode_hex;
use agent_trace_store::limits::{SEGMENTS_MAX, WRITERS_MAX};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::{Tip, decode_tips, encode_tips};
use agent_trace_store::{Error, Kind, Result, SegmentId, Store, WriterId};

use crate::head::RemoteId;
use crate::manifest::ManifestId;
use crate::transport::Version;

const VERSION: u8 = 2;

/// A head as it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenHead {
    /// Its generation.
    pub generation: u64,
    /// The hash of its bytes.
    pub hash: [u8; 32],
    /// The manifest that it named.
    pub manifest: ManifestId,
    /// What the remote said of it without reading it; a head with the same is not read again.
    pub version: Option<Version>,
}

/// What is remembered of one remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Heads that have been replayed.
    pub heads: BTreeMap<WriterId, SeenHead>,
    /// Segments that the manifests name, with their lengths.
    pub segments: BTreeMap<SegmentId, u64>,
    /// Segments that are replaced.
    pub replaced: BTreeSet<SegmentId>,
    /// Events that stand there.
    pub has: EventSet,
    /// Events of this store that a push has looked at and held back.
    pub held: EventSet,
    /// How many of those there are, by kind.
    pub held_kinds: BTreeMap<Kind, u64>,
    /// Events of this store that a push has looked at.
    pub evaluated: EventSet,
    /// How far logs go, by the heads.
    pub tips: BTreeMap<WriterId, Tip>,
}

fn side_key(remote: &RemoteId) -> Vec<u8> {
    let mut key = b"remote:".to_vec();
    key.extend_from_slice(remote);
    key
}

impl State {
    /// Reads what is remembered; nothing if nothing is.
    pub fn load(store: &Store, remote: &RemoteId) -> Result<State> {
        let bytes = store.index().read(|view| view.side(&side_key(remote)))?.flatten();
        // What cannot be read is forgotten, and learned again.
        Ok(bytes.and_then(|bytes| State::decode(&bytes).ok()).unwrap_or_default())
    }

    /// Remembers.
    pub fn save(&self, store: &Store, remote: &RemoteId) -> Result<()> {
        let bytes = self.encode();
        store.index().write(|change| change.set_side(&side_key(remote), Some(&bytes)))
    }

    /// Which remote lies at an address, by what was last seen there.
    pub fn remote_at(store: &Store, address: &str) -> Result<Option<RemoteId>> {
        let bytes = store.index().read(|view| view.side(&address_key(address)))?.flatten();
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()))
    }

    /// Remembers which remote lies at an address.
    pub fn note_address(store: &Store, address: &str, remote: &RemoteId) -> Result<()> {
        if State::remote_at(store, address)? == Some(*remote) {
            return Ok(());
        }
        store.index().write(|change| change.set_side(&address_key(address), Some(remote)))
    }

    /// The bytes of the row in the index: everything in order, each once.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(VERSION).u32(length_u32(self.heads.len()));
        for (writer, head) in &self.heads {
            encoder.put(writer.as_bytes()).u64(head.generation).put(&head.hash).put(&head.manifest);
            encoder
                .u8(u8::from(head.version.is_some()))
                .put(head.version.as_ref().map_or(&[], |version| &version[..]));
        }
        encoder.u32(length_u32(self.segments.len()));
        for (id, bytes) in &self.segments {
            encoder.put(id.as_bytes()).u64(*bytes);
        }
        encoder.u32(length_u32(self.replaced.len()));
        for id in &self.replaced {
            encoder.put(id.as_bytes());
        }
        for set in [&self.has, &self.held, &self.evaluated] {
            encoder.prefixed(&set.encode());
        }
        encoder.u32(length_u32(self.held_kinds.len()));
        for (kind, count) in &self.held_kinds {
            encoder.u8(kind.number()).u64(*count);
        }
        let tips: Vec<Tip> = self.tips.values().copied().collect();
        encoder.put(&encode_tips(&tips));
        encoder.finish()
    }

    /// Reads the row back; what stands there twice counts once.
    pub fn decode(bytes: &[u8]) -> Result<State> {
        let mut decoder = Decoder::new("state of a remote", bytes);
        if decoder.u8()? != VERSION {
            return Err(decoder.error("of another version"));
        }
        let mut state = State::default();
        for _ in 0..decoder.count(105, WRITERS_MAX)? {
            let writer = WriterId::from_bytes(decoder.array()?);
            let (generation, hash, manifest) = (decoder.u64()?, decoder.array()?, decoder.array()?);
            let version = match decoder.u8()? {
                0 => None,
                1 => Some(decoder.array()?),
                _ => return Err(decoder.error("a version is neither there nor not")),
            };
            let head = SeenHead { generation, hash, manifest, version };
            state.heads.insert(writer, head);
        }
        for _ in 0..decoder.count(40, SEGMENTS_MAX * 16)? {
            state.segments.insert(SegmentId::from_bytes(decoder.array()?), decoder.u64()?);
        }
        for _ in 0..decoder.count(32, SEGMENTS_MAX * 16)? {
            state.replaced.insert(SegmentId::from_bytes(decoder.array()?));
        }
        let mut sets = [EventSet::default(), EventSet::default(), EventSet::default()];
        for set in &mut sets {
            *set = EventSet::decode(decoder.prefixed(usize::MAX)?)?;
        }
        [state.has, state.held, state.evaluated] = sets;
        for _ in 0..decoder.count(9, 256)? {
            let kind = Kind::from_number(decoder.u8()?);
            state.held_kinds.insert(kind, decoder.u64()?);
        }
        state.tips = decode_tips(&mut decoder)?.into_iter().map(|tip| (tip.writer, tip)).collect();
        decoder.finish()?;
        Ok(state)
    }

    /// Takes a tip in if it goes further than what is known.
    pub fn note_tip(&mut self, tip: &Tip) {
        let known = self.tips.get(&tip.writer);
        if known.is_none_or(|known| known.seq < tip.seq) {
            self.tips.insert(tip.writer, *tip);
        }
    }

    /// Segments that count: named and not replaced.
    pub fn live_segments(&self) -> impl Iterator<Item = (&SegmentId, &u64)> {
        self.segments.iter().filter(|(id, _)| !self.replaced.contains(*id))
    }
}

fn address_key(address: &str) -> Vec<u8> {
    format!("address:{address}").into_bytes()
}

/// The directory in which a store caches what it has read of a remote.
pub fn cache_dir(store: &Store, remote: &RemoteId) -> Result<std::path::PathBuf> {
    let dir = store.dir().join("remotes").join(encode_hex(remote));
    for name in ["tables", "inbox"] {
        let path = dir.join(name);
        store
            .env()
            .fs
            .create_dir_all(&path)
            .map_err(|error| Error::io(format!("cannot create `{}`", path.display()), error))?;
    }
    Ok(dir)
}

/// Removes all files of a directory in the cache.
pub fn clear(store: &Store, dir: &std::path::Path) -> Result<()> {
    let fs = &store.env().fs;
    let doing = |error| Error::io(format!("cannot clear `{}`", dir.display()), error);
    for entry in fs.list(dir).map_err(doing)? {
        fs.remove(&dir.join(entry.name)).map_err(doing)?;
    }
    Ok(())
}
