//! Objects in a frame, and the recipe of an object that is stored in parts.
//!
//! Raw content of an objects frame:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | number of objects |
//! | 4, 1 each | bytes of the object's payload; form: 0 its bytes, 1 a recipe |
//! | | payloads, one after the other |
//!
//! A plain object's id is the hash of its payload and is not stored. A recipe is the payload of a large object:
//!
//! | bytes | field |
//! |---|---|
//! | 32 | id: the hash of the whole object |
//! | 8 | bytes of the whole object |
//! | 4 | number of parts |
//! | 32, 8 each | part: object id, bytes, not zero; a part may have a recipe itself, to a bounded depth |

use crate::codec::{Decoder, Encoder, length_u32};
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameKind, Packer};
use crate::id::ObjectId;
use crate::limits::{
    CHUNK_BYTES_MAX, FRAME_OBJECTS_MAX, FRAME_RAW_BYTES_MAX, OBJECT_BYTES_MAX, RECIPE_PARTS_MAX,
};

const PART_BYTES: usize = 40;
const ENTRY_BYTES: usize = 5;
const FORM_PLAIN: u8 = 0;
const FORM_RECIPE: u8 = 1;

/// One part of a large object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The object that holds the part.
    pub id: ObjectId,
    /// Its length.
    pub bytes: u64,
}

/// How a large object is put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The hash of the whole.
    pub id: ObjectId,
    /// The length of the whole.
    pub bytes: u64,
    /// The parts in order.
    pub parts: Vec<Part>,
}

impl Recipe {
    /// The payload in an objects frame.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.parts.len() <= RECIPE_PARTS_MAX, "I10: parts are counted when the recipe is made");
        assert!(self.bytes <= OBJECT_BYTES_MAX, "I10: the object is measured when the recipe is made");
        let mut encoder = Encoder::new();
        encoder.put(self.id.as_bytes()).u64(self.bytes).u32(length_u32(self.parts.len()));
        for part in &self.parts {
            encoder.put(part.id.as_bytes()).u64(part.bytes);
        }
        encoder.finish()
    }

    /// Reads a payload back; the lengths of the parts add up to that of the whole.
    pub fn decode(bytes: &[u8]) -> Result<Recipe> {
        let mut decoder = Decoder::new("recipe", bytes);
        let id = ObjectId::from_bytes(decoder.array()?);
        let total = decoder.u64()?;
        let count = decoder.count(PART_BYTES, RECIPE_PARTS_MAX)?;
        let mut parts = Vec::with_capacity(count);
        let mut sum = 0u64;
        for _ in 0..count {
            let part = Part { id: ObjectId::from_bytes(decoder.array()?), bytes: decoder.u64()? };
            sum = sum.saturating_add(part.bytes);
            if part.id == id {
                return Err(decoder.error("it is a part of itself"));
            }
            if part.bytes == 0 {
                // Recipes of nothing in recipes of nothing would take for ever to read.
                return Err(decoder.error("a part is empty"));
            }
            parts.push(part);
        }
        decoder.finish()?;
        if total > OBJECT_BYTES_MAX || sum != total {
            return Err(Error::corrupt(format!(
                "cannot decode recipe: expected parts of {total} bytes, found {sum}"
            )));
        }
        Ok(Recipe { id, bytes: total, parts })
    }
}

/// What a frame holds of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// All its bytes.
    Plain(&'a [u8]),
    /// The list of its parts.
    Recipe(Recipe),
}

/// What a frame holds of one object, not looked into.
#[derive(Clone, Copy, Debug)]
pub struct Laid<'a> {
    payload: &'a [u8],
    form: u8,
}

impl Laid<'_> {
    /// Its length in a frame.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Whether it is a recipe, which states its id.
    pub fn is_recipe(&self) -> bool {
        self.form == FORM_RECIPE
    }
}

/// Objects that will be compressed together.
#[derive(Debug, Default)]
pub struct ObjectsBuilder {
    entries: Vec<(u32, u8)>,
    ids: Vec<ObjectId>,
    payload: Vec<u8>,
    /// Kept from frame to frame: fresh megabytes cost page faults each time.
    raw: Vec<u8>,
}

/// A compressed frame of objects, with the ids of what is in it by slot.
#[derive(Clone, Debug)]
pub struct ObjectsFrame {
    /// The frame.
    pub frame: Frame,
    /// The objects in it.
    pub ids: Vec<ObjectId>,
}

impl ObjectsBuilder {
    /// Starts empty.
    pub fn new() -> ObjectsBuilder {
        ObjectsBuilder::default()
    }

    /// Whether an object of this size still fits.
    pub fn fits(&self, bytes: usize) -> bool {
        self.entries.len() < FRAME_OBJECTS_MAX
            && self.raw_bytes() + bytes + ENTRY_BYTES <= FRAME_RAW_BYTES_MAX
    }

    /// Adds an object; `id` is the hash of `bytes`, which the caller has just computed.
    pub fn add(&mut self, id: ObjectId, bytes: &[u8]) {
        assert!(bytes.len() <= CHUNK_BYTES_MAX, "I10: larger objects are stored by recipe");
        self.push(id, bytes, FORM_PLAIN);
    }

    /// Adds a recipe.
    pub fn add_recipe(&mut self, recipe: &Recipe) {
        self.push(recipe.id, &recipe.encode(), FORM_RECIPE);
    }

    /// Adds what another frame holds of an object, as it is.
    pub fn add_stored(&mut self, id: ObjectId, stored: &Laid<'_>) {
        self.push(id, stored.payload, stored.form);
    }

    fn push(&mut self, id: ObjectId, payload: &[u8], form: u8) {
        assert!(self.fits(payload.len()), "I10: the caller starts a new frame when this one is full");
        self.entries.push((length_u32(payload.len()), form));
        self.ids.push(id);
        self.payload.extend_from_slice(payload);
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Length of the frame's content so far.
    pub fn raw_bytes(&self) -> usize {
        4 + self.entries.len() * ENTRY_BYTES + self.payload.len()
    }

    /// Compresses what there is and starts anew.
    pub fn finish(&mut self, packer: &mut Packer) -> ObjectsFrame {
        self.raw.clear();
        self.raw.extend_from_slice(&length_u32(self.entries.len()).to_le_bytes());
        for (bytes, form) in self.entries.drain(..) {
            self.raw.extend_from_slice(&bytes.to_le_bytes());
            self.raw.push(form);
        }
        self.raw.extend_from_slice(&self.payload);
        self.payload.clear();
        let frame = packer.frame(FrameKind::Objects, &self.raw);
        ObjectsFrame { frame, ids: std::mem::take(&mut self.ids) }
    }
}

/// The content of an objects frame, checked once, read by slot.
#[derive(Clone, Debug)]
pub struct Objects {
    raw: Vec<u8>,
    entries: Vec<(u32, u8)>,
}

impl Objects {
    /// Checks the table of a frame's raw content.
    pub fn decode(raw: Vec<u8>) -> Result<Objects> {
        let mut decoder = Decoder::new("objects frame", &raw);
        let count = decoder.count(ENTRY_BYTES, FRAME_OBJECTS_MAX)?;
        let mut entries = Vec::with_capacity(count);
        let mut start = 4 + count * ENTRY_BYTES;
        for _ in 0..count {
            let bytes = decoder.u32()? as usize;
            let form = decoder.u8()?;
            if form > FORM_RECIPE {
                return Err(decoder.error("an object has an unknown form"));
            }
            // Compared with what is left, so that false lengths cannot add up to more than there is.
            if form == FORM_PLAIN && bytes > CHUNK_BYTES_MAX || bytes > raw.len() - start {
                return Err(decoder.error("an object is over its limit"));
            }
            entries.push((length_u32(start), form));
            start += bytes;
        }
        if start != raw.len() {
            return Err(decoder.error("the lengths do not add up"));
        }
        Ok(Objects { raw, entries })
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Length of the content.
    pub fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// The object in a slot, whose hash is not compared here.
    pub fn get(&self, slot: usize) -> Result<Stored<'_>> {
        let Laid { payload, form } = self.laid(slot)?;
        Ok(if form == FORM_PLAIN { Stored::Plain(payload) } else { Stored::Recipe(Recipe::decode(payload)?) })
    }

    /// What lies in a slot, to be put elsewhere as it is.
    pub fn laid(&self, slot: usize) -> Result<Laid<'_>> {
        let Some((start, form)) = self.entries.get(slot).copied() else {
            return Err(Error::corrupt(format!("cannot read objects frame: there is no slot {slot}")));
        };
        let end = self.entries.get(slot + 1).map_or(self.raw.len(), |entry| entry.0 as usize);
        Ok(Laid { payload: &self.raw[start as usize..end], form })
    }

    /// The object in a slot with its id; a plain object's id is computed, a recipe's is the one it states.
    pub fn get_with_id(&self, slot: usize) -> Result<(ObjectId, Stored<'_>)> {
        let stored = self.get(slot)?;
        let id = match &stored {
            Stored::Plain(bytes) => ObjectId::of(bytes),
            Stored::Recipe(recipe) => recipe.id,
        };
        Ok((id, stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Effort, Unpacker};

    #[test]
    fn objects_come_back_by_slot() {
        let mut builder = ObjectsBuilder::new();
        let bodies: [&[u8]; 4] = [b"", b"a", &[7; 4096], b"the end"];
        for body in bodies {
            builder.add(ObjectId::of(body), body);
        }
        let part = Part { id: ObjectId::of(b"a"), bytes: 1 };
        let recipe = Recipe { id: ObjectId::of(b"aa"), bytes: 2, parts: vec![part, part] };
        builder.add_recipe(&recipe);
        let packed = builder.finish(&mut Packer::new(Effort::FAST));
        assert!(builder.is_empty());
        let objects = Objects::decode(packed.frame.into_raw(&mut Unpacker::new()).unwrap()).unwrap();
        for (slot, body) in bodies.iter().enumerate() {
            assert_eq!(objects.get_with_id(slot).unwrap(), (packed.ids[slot], Stored::Plain(body)));
        }
        assert_eq!(objects.get(4).unwrap(), Stored::Recipe(recipe));
        assert!(objects.get(5).is_err());
    }

    #[test]
    fn a_recipe_whose_parts_do_not_add_up_is_refused() {
        let part = Part { id: ObjectId::of(b"a"), bytes: 1 };
        let mut recipe = Recipe { id: ObjectId::of(b"aa"), bytes: 2, parts: vec![part, part] };
        assert_eq!(Recipe::decode(&recipe.encode()).unwrap(), recipe);
        recipe.bytes = 3;
        assert!(Recipe::decode(&recipe.encode()).is_err());
        recipe.bytes = 2;
        recipe.parts[0].id = recipe.id;
        assert!(Recipe::decode(&recipe.encode()).is_err());
    }

    #[test]
    fn false_counts_are_found_before_anything_is_allocated() {
        for raw in
            [vec![255; 4], vec![255; 64], vec![1, 0, 0, 0], vec![1, 0, 0, 0, 9, 0, 0, 0, 0], vec![0; 3]]
        {
            assert!(Objects::decode(raw).is_err());
        }
    }
}
