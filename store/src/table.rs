//! The sorted tables of a sealed segment: ids of objects and names of events, in pages of fixed size.
//!
//! A page is an uncompressed frame full of entries, so every page that is read is checked on its own. The first
//! eight bytes of each page's first entry stand in the directory as *fences*, so a look-up reads one page, rarely two.
//!
//! | table | entry |
//! |---|---|
//! | ids | 32 object id, 4 offset of the frame, 4 slot in the frame |
//! | names | 8 name prefix, 4 event number; the highest bit is set where the event cites the name |

use crate::error::{Error, Result};
use crate::id::ObjectId;

/// Bytes of one entry of the id table.
pub const ID_ENTRY_BYTES: usize = 40;
/// Entries in each page of the id table but the last.
pub const ID_PAGE_ENTRIES: usize = 100;
/// Bytes of one entry of the name table.
pub const NAME_ENTRY_BYTES: usize = 12;
/// Entries in each page of the name table but the last.
pub const NAME_PAGE_ENTRIES: usize = 333;

const CITES_BIT: u32 = 1 << 31;

/// Where an object stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdEntry {
    /// The object.
    pub id: ObjectId,
    /// The offset of the frame in the segment.
    pub frame: u32,
    /// The slot within the frame.
    pub slot: u32,
}

/// Under which name an event can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameEntry {
    /// The first bytes of the name: see `record::name_prefix`.
    pub prefix: [u8; 8],
    /// The number of the event among the segment's events.
    pub event: u32,
    /// Whether the event only refers to what has the name.
    pub cites: bool,
}

impl IdEntry {
    /// The entry's bytes.
    pub fn encode(&self) -> [u8; ID_ENTRY_BYTES] {
        let mut bytes = [0; ID_ENTRY_BYTES];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32..36].copy_from_slice(&self.frame.to_le_bytes());
        bytes[36..].copy_from_slice(&self.slot.to_le_bytes());
        bytes
    }

    /// Reads an entry of exactly the right length.
    pub fn decode(bytes: &[u8]) -> IdEntry {
        IdEntry {
            id: ObjectId::from_bytes(bytes[..32].try_into().expect("an entry has 40 bytes")),
            frame: u32::from_le_bytes(bytes[32..36].try_into().expect("an entry has 40 bytes")),
            slot: u32::from_le_bytes(bytes[36..40].try_into().expect("an entry has 40 bytes")),
        }
    }
}

impl NameEntry {
    /// The entry's bytes.
    pub fn encode(&self) -> [u8; NAME_ENTRY_BYTES] {
        assert!(self.event < CITES_BIT, "I10: events of a segment are bounded");
        let mut bytes = [0; NAME_ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.prefix);
        let event = self.event | if self.cites { CITES_BIT } else { 0 };
        bytes[8..].copy_from_slice(&event.to_le_bytes());
        bytes
    }

    /// Reads an entry of exactly the right length.
    pub fn decode(bytes: &[u8]) -> NameEntry {
        let event = u32::from_le_bytes(bytes[8..12].try_into().expect("an entry has 12 bytes"));
        NameEntry {
            prefix: bytes[..8].try_into().expect("an entry has 12 bytes"),
            event: event & !CITES_BIT,
            cites: event & CITES_BIT != 0,
        }
    }
}

/// The pages that may hold keys from `low` to `high`, by their fences.
pub fn pages(fences: &[[u8; 8]], low: &[u8; 8], high: &[u8; 8]) -> std::ops::Range<usize> {
    // The page before the first fence that is not below may end with equal keys.
    let first = fences.partition_point(|fence| fence < low).saturating_sub(1);
    let end = fences.partition_point(|fence| fence <= high);
    first..end.max(first)
}

/// The entries of one page, which must be whole.
pub fn entries<const N: usize>(page: &[u8]) -> Result<impl Iterator<Item = &[u8]> + '_> {
    if !page.len().is_multiple_of(N) {
        return Err(Error::corrupt("cannot decode table page: its length is no multiple of an entry"));
    }
    Ok(page.chunks_exact(N))
}
