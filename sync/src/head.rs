//! A head: the one small mutable object of each writer on a remote. It names the writer's newest manifest and says
//! how far the logs go that the writer has put there.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `ATHEAD`, two zero bytes |
//! | 4 | version, 1 |
//! | 16 | id of the remote |
//! | 32 | writer |
//! | 8 | generation, one more each time |
//! | 32 | hash of the head before, zero for the first |
//! | 32 | newest manifest |
//! | 8 | time |
//! | 4, then 136 each | tips of the logs |
//! | 64 | signature by the writer over all before it |
//!
//! A generation that goes back, or a head that its writer did not write, shows a copied or restored store.

use agent_trace_store::codec::{Decoder, Encoder};
use agent_trace_store::event::decode_time;
use agent_trace_store::writer::{Tip, WriterKey, decode_tips, encode_tips, verify_signature};
use agent_trace_store::{Result, Timestamp, WriterId};

const MAGIC: &[u8; 8] = b"ATHEAD\0\0";
const VERSION: u32 = 1;

pub use agent_trace_store::elsewhere::RemoteId;

/// The state of one writer on a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The remote.
    pub remote: RemoteId,
    /// The writer.
    pub writer: WriterId,
    /// How often it has been written.
    pub generation: u64,
    /// The hash of the head before.
    pub previous: [u8; 32],
    /// The newest manifest.
    pub manifest: [u8; 32],
    /// When it was written.
    pub time: Timestamp,
    /// How far the logs go.
    pub tips: Vec<Tip>,
}

impl Head {
    /// The key of a writer's head.
    pub fn key(writer: &WriterId) -> String {
        format!("heads/{writer}")
    }

    /// The signed bytes.
    pub fn encode(&self, key: &WriterKey) -> Vec<u8> {
        assert_eq!(key.id(), self.writer, "a writer signs its own head");
        let mut encoder = Encoder::new();
        encoder.put(MAGIC).u32(VERSION).put(&self.remote).put(self.writer.as_bytes()).u64(self.generation);
        encoder.put(&self.previous).put(&self.manifest).i64(self.time.micros()).put(&encode_tips(&self.tips));
        let mut bytes = encoder.finish();
        let signature = key.sign(&bytes);
        bytes.extend_from_slice(&signature);
        bytes
    }

    /// Reads a head and checks its signature and those of its tips.
    pub fn decode(bytes: &[u8]) -> Result<Head> {
        let mut decoder = Decoder::new("head", bytes);
        decoder.format(MAGIC, VERSION)?;
        let head = Head {
            remote: decoder.array()?,
            writer: WriterId::from_bytes(decoder.array()?),
            generation: decoder.u64()?,
            previous: decoder.array()?,
            manifest: decoder.array()?,
            time: decode_time(&mut decoder)?,
            tips: decode_tips(&mut decoder)?,
        };
        let signed = bytes.len() - decoder.remaining();
        let signature = decoder.array()?;
        decoder.finish()?;
        verify_signature(&head.writer, &bytes[..signed], &signature)?;
        head.tips.iter().try_for_each(Tip::verify)?;
        Ok(head)
    }
}

/// The hash of a head's bytes.
pub fn head_hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
