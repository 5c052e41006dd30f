//! Which name a segment has on an encrypted remote, and which writers have heads there: kept in `remotes/<id>/names`.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `ATNAMES`, a zero byte |
//! | 4 | version, 1 |
//! | 4, then 32 each | writers whose heads have been read |
//! | 4, then 32, 32, 8 each | segments: plain id, name there, bytes there |
//! | 32 | BLAKE3 of all before |
//!
//! Two writers may have sealed the same segment, so an id may have several names; the first is the one that was seen or
//! made last. All but the names of segments that no manifest names yet can be learned again from the remote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::env::Env;
use agent_trace_store::layout::{read_small, write_durably};
use agent_trace_store::{Error, Result, SegmentId, WriterId};

use crate::limits::{HEADS_MAX, SEALED_NAMES_MAX};

const MAGIC: &[u8; 8] = b"ATNAMES\0";
const VERSION: u32 = 1;
const BYTES_MAX: u64 = 1 << 30;

/// A sealed segment as it lies on the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct There {
    /// Its name: the BLAKE3 of its bytes.
    pub name: SegmentId,
    /// Its length.
    pub bytes: u64,
}

/// The names that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Writers whose heads have been read.
    pub writers: BTreeSet<WriterId>,
    segments: BTreeMap<SegmentId, Vec<There>>,
    /// What has been removed since they were read; the file may still name it.
    forgotten: BTreeSet<SegmentId>,
}

impl Names {
    /// Under which names a segment may stand there, the likeliest first.
    pub fn of(&self, id: &SegmentId) -> &[There] {
        self.segments.get(id).map_or(&[], Vec::as_slice)
    }

    /// Learns a name, which becomes the first; says whether it is news.
    pub fn learn(&mut self, id: SegmentId, there: There) -> bool {
        self.forgotten.remove(&id);
        let known = self.segments.entry(id).or_default();
        if known.first() == Some(&there) {
            return false;
        }
        known.retain(|known| *known != there);
        known.insert(0, there);
        true
    }

    /// Forgets the names of a segment.
    pub fn forget(&mut self, id: &SegmentId) {
        self.segments.remove(id);
        self.forgotten.insert(*id);
    }

    /// Plain ids by names there.
    pub fn by_name(&self) -> BTreeMap<SegmentId, SegmentId> {
        self.segments.iter().flat_map(|(id, there)| there.iter().map(|there| (there.name, *id))).collect()
    }

    /// Takes over what another process has learned.
    fn merge(&mut self, other: Names) {
        self.writers.extend(other.writers);
        for (id, there) in other.segments.into_iter().filter(|(id, _)| !self.forgotten.contains(id)) {
            let known = self.segments.entry(id).or_default();
            known.extend(there.into_iter().filter(|there| !known.contains(there)).collect::<Vec<_>>());
        }
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(MAGIC).u32(VERSION).u32(length_u32(self.writers.len()));
        for writer in &self.writers {
            encoder.put(writer.as_bytes());
        }
        encoder.u32(length_u32(self.segments.values().map(Vec::len).sum()));
        for (id, there) in &self.segments {
            for there in there {
                encoder.put(id.as_bytes()).put(there.name.as_bytes()).u64(there.bytes);
            }
        }
        let mut bytes = encoder.finish();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// Reads the file back; what stands there twice counts once.
    pub fn decode(bytes: &[u8]) -> Result<Names> {
        let Some((bytes, hash)) = bytes.split_last_chunk::<32>() else {
            return Err(Error::corrupt("cannot decode names of segments: it ends early"));
        };
        if blake3::hash(bytes).as_bytes() != hash {
            return Err(Error::corrupt("cannot decode names of segments: its bytes do not have its hash"));
        }
        let mut decoder = Decoder::new("names of segments", bytes);
        decoder.format(MAGIC, VERSION)?;
        let mut names = Names::default();
        for _ in 0..decoder.count(32, HEADS_MAX)? {
            names.writers.insert(WriterId::from_bytes(decoder.array()?));
        }
        for _ in 0..decoder.count(72, SEALED_NAMES_MAX)? {
            let id = SegmentId::from_bytes(decoder.array()?);
            let there = There { name: SegmentId::from_bytes(decoder.array()?), bytes: decoder.u64()? };
            let known = names.segments.entry(id).or_default();
            if !known.contains(&there) {
                known.push(there);
            }
        }
        decoder.finish()?;
        Ok(names)
    }

    /// Reads what is kept; what cannot be read is forgotten, and learned again.
    pub fn load(env: &Env, path: &Path) -> Names {
        let bytes = read_small(env, path, BYTES_MAX).ok();
        bytes.and_then(|bytes| Names::decode(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps them, durably, with what another process has kept meanwhile.
    pub fn save(&mut self, env: &Env, path: &Path) -> Result<()> {
        self.merge(Names::load(env, path));
        write_durably(env, path, &self.encode(), true)
    }
}
