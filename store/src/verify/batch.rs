//! One batch taken apart as `scan::digest` does it, but frame by frame, so that one bad frame costs only itself.

use std::collections::HashMap;

use super::survey::{Fault, ObjectAt, Survey, text};
use crate::codec::{Decoder, length_u32};
use crate::error::Result;
use crate::event::decode_events;
use crate::frame::{Frame, FrameKind, Unpacker};
use crate::id::ObjectId;
use crate::object::{Objects, Stored};
use crate::scan::{Digest, Marks, marks, offset_u32};
use crate::store::Store;
use crate::table::{IdEntry, NameEntry};
use crate::writer::{Tip, decode_tips};

/// A batch taken apart.
#[derive(Default)]
pub(super) struct Taken {
    digest: Digest,
    objects: Vec<ObjectAt>,
    tips: Vec<(u32, Tip)>,
    pub(super) faults: Vec<Fault>,
    /// Events whose record is not in the batch, with the marks that they have if it is found elsewhere.
    loose: Vec<(usize, Marks)>,
    /// Events whose record is erased.
    erased: Vec<usize>,
}

impl Taken {
    /// Decodes every frame, hashes every object and finds every event's marks.
    pub(super) fn of(store: &Store, frames: Vec<(u64, Frame)>, unpacker: &mut Unpacker) -> Taken {
        let mut taken = Taken::default();
        let mut decoded: Vec<Objects> = Vec::new();
        let mut places = HashMap::new();
        for (offset, frame) in frames {
            let end = offset + frame.file_bytes();
            let result = taken.frame(offset, frame, unpacker, &mut decoded, &mut places);
            if let Err(error) = result {
                taken.faults.push(Fault { code: "frame", place: Some((offset, end)), message: text(&error) });
            }
        }
        taken.mark(store, &decoded, &places);
        taken
    }

    fn frame(
        &mut self,
        offset: u64,
        frame: Frame,
        unpacker: &mut Unpacker,
        decoded: &mut Vec<Objects>,
        places: &mut HashMap<ObjectId, (usize, usize)>,
    ) -> Result<()> {
        let (kind, end, at) = (frame.kind, offset + frame.file_bytes(), offset_u32(offset));
        let raw = frame.into_raw(unpacker)?;
        match kind {
            FrameKind::Objects => {
                let objects = Objects::decode(raw)?;
                self.digest.raw_bytes += objects.raw_bytes() as u64;
                self.digest.objects_frames.push(at);
                for slot in 0..objects.len() {
                    match objects.get_with_id(slot) {
                        Ok((id, stored)) => {
                            if matches!(stored, Stored::Plain(_)) {
                                places.insert(id, (decoded.len(), slot));
                            }
                            self.object(id, &stored, at, length_u32(slot));
                        }
                        Err(error) => {
                            let message = format!("the object in slot {slot}: {}", text(&error));
                            self.faults.push(Fault { code: "object", place: Some((offset, end)), message });
                        }
                    }
                }
                decoded.push(objects);
            }
            FrameKind::Events => {
                let events = decode_events(&raw)?;
                self.digest.events_frames.push((at, length_u32(events.len())));
                self.digest
                    .events
                    .extend(events.into_iter().map(|(event, id)| (event, id, Marks::default())));
            }
            _ => {
                let tips = decode_tips(&mut Decoder::new("tips frame", &raw))?;
                self.digest.tips_frames.push(at);
                self.tips.extend(tips.into_iter().map(|tip| (at, tip)));
            }
        }
        Ok(())
    }

    fn object(&mut self, id: ObjectId, stored: &Stored<'_>, frame: u32, slot: u32) {
        let (bytes, recipe) = match stored {
            Stored::Plain(bytes) => (length_u32(bytes.len()), false),
            Stored::Recipe(recipe) => (u32::try_from(recipe.bytes).unwrap_or(u32::MAX), true),
        };
        self.digest.ids.push(IdEntry { id, frame, slot });
        self.objects.push(ObjectAt { id, frame, slot, bytes, recipe });
    }

    fn mark(&mut self, store: &Store, decoded: &[Objects], places: &HashMap<ObjectId, (usize, usize)>) {
        for (number, (event, _, event_marks)) in self.digest.events.iter_mut().enumerate() {
            let record = event.fact.objects[0];
            let here = places.get(&record).map(|(frame, slot)| decoded[*frame].get(*slot));
            if let Some(Ok(Stored::Plain(bytes))) = here {
                *event_marks = marks(&event.fact, bytes);
                continue;
            }
            *event_marks = marks(&event.fact, &[]);
            if store.erased().contains(&record) {
                self.erased.push(number);
            } else if let Ok(bytes) = store.read(&record) {
                self.loose.push((number, marks(&event.fact, &bytes)));
            }
        }
    }

    /// Adds it to what is known of its segment.
    pub(super) fn add_to(self, survey: &mut Survey) {
        let before = survey.contents.events;
        survey.objects.extend(self.objects);
        survey.tips.extend(self.tips);
        survey.faults.extend(self.faults);
        for (number, marks) in self.loose {
            let event = before + length_u32(number);
            let names = marks.names.iter();
            let names = names.map(|(prefix, cites)| NameEntry { prefix: *prefix, event, cites: *cites });
            survey.loose_names.extend(names);
        }
        survey.erased_events.extend(self.erased.into_iter().map(|number| before + length_u32(number)));
        match survey.contents.absorb(self.digest) {
            Ok(rows) => survey.times.extend(rows.iter().map(|row| row.time.micros())),
            Err(error) => survey.faults.push(Fault { code: "frame", place: None, message: text(&error) }),
        }
    }
}
