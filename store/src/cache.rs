//! Decoded frames that were read a moment ago, so that neighbours in a frame are not decompressed one by one.

use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::FRAME_CACHE_BYTES;
use crate::object::Objects;

type CacheKey = ([u8; 16], u32);

/// The most recently used objects frames, up to a number of bytes.
#[derive(Debug, Default)]
pub struct FrameCache {
    entries: Mutex<Vec<(CacheKey, Arc<Objects>)>>,
}

impl FrameCache {
    /// The frame of a segment at an offset, if it was used lately.
    pub fn get(&self, nonce: &[u8; 16], offset: u32) -> Option<Arc<Objects>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let index = entries.iter().position(|(key, _)| key == &(*nonce, offset))?;
        let entry = entries.remove(index);
        let objects = Arc::clone(&entry.1);
        entries.push(entry);
        Some(objects)
    }

    /// Lets go of all.
    pub fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Keeps a frame, and lets go of those used longest ago.
    pub fn put(&self, nonce: &[u8; 16], offset: u32, objects: Arc<Objects>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(((*nonce, offset), objects));
        while entries.len() > 1
            && entries.iter().map(|(_, objects)| objects.raw_bytes()).sum::<usize>() > FRAME_CACHE_BYTES
        {
            entries.remove(0);
        }
    }
}
