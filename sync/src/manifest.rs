//! A manifest: an immutable list of segments that one writer put on a remote, named by the hash of its bytes.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `ATMANIF`, a zero byte |
//! | 4 | version, 1 |
//! | 32 | the manifest before, zero for none |
//! | 4 | how many manifests stand before this one |
//! | 4, then 32, 8 each | segments added: id, bytes |
//! | 4, then 32 each | segments of any writer whose live content stands in those added |

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::{Error, Result, SegmentId};

use crate::limits::{MANIFEST_DEPTH_MAX, MANIFEST_SEGMENTS_MAX};

const MAGIC: &[u8; 8] = b"ATMANIF\0";
const VERSION: u32 = 1;

/// The id of a manifest: the BLAKE3 of its bytes. Zero stands for none.
pub type ManifestId = [u8; 32];

/// No manifest.
pub const NO_MANIFEST: ManifestId = [0; 32];

/// A list of segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The manifest before, or [`NO_MANIFEST`].
    pub previous: ManifestId,
    /// How many stand before this one.
    pub depth: u32,
    /// Segments added, with their lengths.
    pub added: Vec<(SegmentId, u64)>,
    /// Segments whose live content stands in those added.
    pub replaces: Vec<SegmentId>,
}

impl Manifest {
    /// The key of a manifest on a remote.
    pub fn key(id: &ManifestId) -> String {
        format!("manifests/{}", agent_trace_store::id::encode_hex(id))
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.added.len() <= MANIFEST_SEGMENTS_MAX, "I10: segments are counted before");
        let mut encoder = Encoder::new();
        encoder.put(MAGIC).u32(VERSION).put(&self.previous).u32(self.depth);
        encoder.u32(length_u32(self.added.len()));
        for (id, bytes) in &self.added {
            encoder.put(id.as_bytes()).u64(*bytes);
        }
        encoder.u32(length_u32(self.replaces.len()));
        for id in &self.replaces {
            encoder.put(id.as_bytes());
        }
        encoder.finish()
    }

    /// The id of these bytes.
    pub fn id(bytes: &[u8]) -> ManifestId {
        *blake3::hash(bytes).as_bytes()
    }

    /// Reads a manifest that is known by its id.
    pub fn decode(id: &ManifestId, bytes: &[u8]) -> Result<Manifest> {
        if Manifest::id(bytes) != *id {
            return Err(Error::corrupt("cannot read manifest: its bytes do not have its hash"));
        }
        let mut decoder = Decoder::new("manifest", bytes);
        decoder.format(MAGIC, VERSION)?;
        let previous = decoder.array()?;
        let depth = decoder.u32()?;
        if depth > MANIFEST_DEPTH_MAX || (depth == 0) != (previous == NO_MANIFEST) {
            return Err(decoder.error("its depth is out of range"));
        }
        let mut manifest = Manifest { previous, depth, ..Manifest::default() };
        for _ in 0..decoder.count(40, MANIFEST_SEGMENTS_MAX)? {
            manifest.added.push((SegmentId::from_bytes(decoder.array()?), decoder.u64()?));
        }
        for _ in 0..decoder.count(32, MANIFEST_SEGMENTS_MAX)? {
            manifest.replaces.push(SegmentId::from_bytes(decoder.array()?));
        }
        decoder.finish()?;
        Ok(manifest)
    }
}

/// The key of a segment on a remote.
pub fn segment_key(id: &SegmentId) -> String {
    format!("segments/{id}")
}
