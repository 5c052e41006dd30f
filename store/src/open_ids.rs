//! What the open segment holds, as the appending side of this process has read it, for readers that must not wait
//! for an append in progress.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::id::{IdMap, ObjectId};

/// Where the objects of one open segment stand: offset of the frame, slot.
#[derive(Debug)]
pub struct OpenIds {
    /// The segment's file.
    pub path: PathBuf,
    /// The segment's nonce.
    pub nonce: [u8; 16],
    /// Whether the segment was read from its start.
    pub whole: bool,
    places: RwLock<IdMap<(u32, u32)>>,
}

impl OpenIds {
    /// Starts with nothing read.
    pub fn new(path: PathBuf, nonce: [u8; 16], whole: bool) -> Arc<OpenIds> {
        Arc::new(OpenIds { path, nonce, whole, places: RwLock::default() })
    }

    /// Where an object stands.
    pub fn get(&self, id: &ObjectId) -> Option<(u32, u32)> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// Whether each of these objects is there.
    pub fn holds_all(&self, ids: &[ObjectId]) -> Vec<bool> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        ids.iter().map(|id| places.contains_key(id)).collect()
    }

    /// Adds objects; those that are known keep their place.
    pub fn add(&self, entries: impl IntoIterator<Item = (ObjectId, (u32, u32))>) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        for (id, place) in entries {
            places.entry(id).or_insert(place);
        }
    }
}

/// Where the appending side puts the ids of the segment that is open now.
pub type Published = Arc<RwLock<Option<Arc<OpenIds>>>>;

/// The ids of the segment that is open now, if it has been read.
pub fn current(published: &Published) -> Option<Arc<OpenIds>> {
    published.read().unwrap_or_else(PoisonError::into_inner).clone()
}
