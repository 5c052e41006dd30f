//! What a store remembers of a service beside the state that every remote has: protocol and cursors.
//!
//! Lies in the index, may be lost with it, and is learned again.

use std::collections::BTreeMap;

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::{EventId, Result, Store};

use crate::head::RemoteId;
use crate::limits::SYMBOLS_MAX;
use crate::wire::Cursor;

const VERSION: u8 = 2;
const TEXT_BYTES_MAX: usize = 256;
const RESOURCES_MAX: usize = 16;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Records one by one.
    One,
    /// Segments.
    Two,
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What the service speaks, once it was asked.
    pub(super) protocol: Option<Protocol>,
    /// How far arrivals have been replayed.
    pub(super) cursor: Option<Cursor>,
    /// Up to where every arrival is here, but for those that are `missing`.
    pub(super) pulled: u64,
    /// Events that stand there and not here, of which only the ids are known.
    pub(super) missing: Vec<EventId>,
    /// By protocol 1, how far each resource has been pulled.
    pub(super) since: BTreeMap<u8, String>,
}

impl Known {
    pub(super) fn load(store: &Store, id: &RemoteId) -> Result<Known> {
        let bytes = store.index().read(|view| view.side(&key(id)))?.flatten();
        // What cannot be read is forgotten, and learned again.
        Ok(bytes.and_then(|bytes| Known::decode(&bytes).ok()).unwrap_or_default())
    }

    pub(super) fn save(&self, store: &Store, id: &RemoteId) -> Result<()> {
        let bytes = self.encode();
        store.index().write(|change| change.set_side(&key(id), Some(&bytes)))
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let protocol = match self.protocol {
            None => 0,
            Some(Protocol::One) => 1,
            Some(Protocol::Two) => 2,
        };
        encoder.u8(VERSION).u8(protocol).u8(u8::from(self.cursor.is_some()));
        let cursor = self.cursor.unwrap_or(Cursor { epoch: [0; 16], position: 0 });
        encoder.put(&cursor.epoch).u64(cursor.position).u64(self.pulled);
        encoder.u32(length_u32(self.missing.len()));
        for id in &self.missing {
            encoder.put(id.as_bytes());
        }
        encoder.u32(length_u32(self.since.len()));
        for (resource, text) in &self.since {
            encoder.u8(*resource).prefixed(text.as_bytes());
        }
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Known> {
        let mut decoder = Decoder::new("cursors of a service", bytes);
        if decoder.u8()? != VERSION {
            return Err(decoder.error("of another version"));
        }
        let protocol = match decoder.u8()? {
            1 => Some(Protocol::One),
            2 => Some(Protocol::Two),
            _ => None,
        };
        let is_there = decoder.u8()? == 1;
        let cursor = Cursor { epoch: decoder.array()?, position: decoder.u64()? };
        let pulled = decoder.u64()?;
        let count = decoder.count(32, SYMBOLS_MAX)?;
        let missing = (0..count).map(|_| Ok(EventId::from_bytes(decoder.array()?))).collect::<Result<_>>()?;
        let mut since = BTreeMap::new();
        for _ in 0..decoder.count(5, RESOURCES_MAX)? {
            let resource = decoder.u8()?;
            let text = String::from_utf8_lossy(decoder.prefixed(TEXT_BYTES_MAX)?).into_owned();
            since.insert(resource, text);
        }
        decoder.finish()?;
        Ok(Known { protocol, cursor: is_there.then_some(cursor), pulled, missing, since })
    }
}

fn key(id: &RemoteId) -> Vec<u8> {
    let mut key = b"service:".to_vec();
    key.extend_from_slice(id);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back() {
        let known = Known {
            protocol: Some(Protocol::Two),
            cursor: Some(Cursor { epoch: [3; 16], position: 9 }),
            pulled: 7,
            missing: vec![EventId::from_bytes([5; 32]), EventId::from_bytes([6; 32])],
            since: BTreeMap::from([(1, "2026-01-01T00:00:00Z".to_owned())]),
        };
        for known in [known, Known::default()] {
            let bytes = known.encode();
            assert_eq!(Known::decode(&bytes).unwrap(), known);
            assert!((0..bytes.len()).all(|end| Known::decode(&bytes[..end]).is_err()));
        }
    }
}
