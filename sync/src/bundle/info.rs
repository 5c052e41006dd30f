//! The readable manifest of a bundle, `bundle.json`: what is inside, who made it, when, and what it builds on.
//!
//! It is for people and programs that look before they import. It is compared with what is inside, and believed in nothing
//! else.

use std::collections::BTreeMap;

use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::head::RemoteId;
use crate::limits::{BUNDLE_INFO_BYTES_MAX, BUNDLE_SESSIONS_MAX};

/// The key of the readable manifest.
pub const INFO_KEY: &str = "bundle.json";
/// The schema of the readable manifest.
pub(crate) const INFO_SCHEMA: &str = "agent-trace/bundle-manifest/1";
const SCHEMA_START: &str = "agent-trace/bundle-manifest/";
/// What a cursor starts with when it is written as text.
const CURSOR_START: &str = "atc1-";

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleInfo {
    /// Which form this is.
    pub schema: String,
    /// Which bundle it is, 32 hex digits.
    pub id: String,
    /// The writer who made it.
    pub writer: String,
    /// The program that made it.
    pub program: String,
    /// When, RFC 3339.
    pub created: String,
    /// Events by the name of their kind.
    pub counts: BTreeMap<String, u64>,
    /// Objects.
    pub objects: u64,
    /// Bytes of the objects before compression.
    pub raw_bytes: u64,
    /// Bytes of the segments.
    pub segment_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Writers whose events are inside.
    pub writers: Vec<String>,
    /// The time of the oldest record, RFC 3339.
    pub first: Option<String>,
    /// The time of the newest record.
    pub last: Option<String>,
    /// How many sessions have something inside.
    pub sessions: u64,
    /// Sessions that have something inside, the first thousand by name.
    pub session_ids: Vec<String>,
    /// What was chosen, in words of the command line.
    pub selection: Vec<String>,
    /// What it builds on; absent where it stands alone.
    pub base: Option<BundleBase>,
    /// The events that are here once this bundle and its base are: a base for the next.
    pub cursor: String,
}

/// What a bundle builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleBase {
    /// The bundle, where it is one.
    pub id: Option<String>,
    /// How many events it takes to be there.
    pub events: u64,
    /// Which.
    pub cursor: String,
}

impl BundleInfo {
    /// The bytes: JSON on several lines, so that people can read it too.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::invalid("cannot write the manifest of a bundle").with_source(error))?;
        bytes.push(b'\n');
        if bytes.len() as u64 > BUNDLE_INFO_BYTES_MAX {
            return Err(Error::invalid(
                "the manifest of the bundle would be too long: export less, or without a base",
            ));
        }
        Ok(bytes)
    }

    /// Reads the manifest; members that are not known are passed over.
    pub fn decode(bytes: &[u8]) -> Result<BundleInfo> {
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
        }
        let damaged = |error| Error::corrupt("cannot read the manifest of the bundle").with_source(error);
        let Schema { schema } = serde_json::from_slice(bytes).map_err(damaged)?;
        if schema != INFO_SCHEMA {
            let kind =
                if schema.starts_with(SCHEMA_START) { ErrorKind::Unsupported } else { ErrorKind::Corrupt };
            return Err(Error::new(
                kind,
                "cannot read the manifest of the bundle: it has a schema of another version",
            ));
        }
        let info: BundleInfo = serde_json::from_slice(bytes).map_err(damaged)?;
        if info.session_ids.len() > BUNDLE_SESSIONS_MAX {
            return Err(Error::corrupt("cannot read the manifest of the bundle: it lists too many sessions"));
        }
        info.remote()?;
        decode_cursor(&info.cursor)?;
        if let Some(base) = &info.base {
            decode_cursor(&base.cursor)?;
        }
        Ok(info)
    }

    /// Its id as bytes.
    pub fn remote(&self) -> Result<RemoteId> {
        let mut id = [0; 16];
        if decode_hex(&self.id, &mut id) {
            Ok(id)
        } else {
            Err(Error::corrupt("cannot read the manifest of the bundle: its id is no id"))
        }
    }

    /// The events that it builds on.
    pub fn base_events(&self) -> Result<EventSet> {
        self.base.as_ref().map_or(Ok(EventSet::default()), |base| decode_cursor(&base.cursor))
    }
}

/// Counts by the names of kinds.
pub(crate) fn named_counts(counts: &BTreeMap<Kind, u64>) -> BTreeMap<String, u64> {
    let mut named = BTreeMap::new();
    // Kinds that this version does not know go by one name.
    for (kind, count) in counts.iter().filter(|(_, count)| **count > 0) {
        *named.entry(kind.name().to_owned()).or_default() += count;
    }
    named
}

/// A set of events as text.
pub fn encode_cursor(events: &EventSet) -> String {
    format!("{CURSOR_START}{}", encode_hex(&events.encode()))
}

/// Reads a set of events back.
pub fn decode_cursor(text: &str) -> Result<EventSet> {
    let wrong = || Error::invalid(format!("cannot read a cursor: expected `{CURSOR_START}` and hex digits"));
    let digits = text.strip_prefix(CURSOR_START).ok_or_else(wrong)?;
    if text.len() as u64 > BUNDLE_INFO_BYTES_MAX || digits.len() % 2 != 0 {
        return Err(wrong());
    }
    let mut bytes = vec![0; digits.len() / 2];
    if !decode_hex(digits, &mut bytes) {
        return Err(wrong());
    }
    EventSet::decode(&bytes)
}

/// Whether a text is meant as a cursor.
pub fn is_cursor(text: &str) -> bool {
    text.starts_with(CURSOR_START)
}
