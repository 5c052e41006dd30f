//! Which objects are here, whether recipes put together what they name, and which events lack something (I1).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::survey::{Survey, text};
use crate::cache::FrameCache;
use crate::error::{Error, Result};
use crate::event::{Event, decode_events};
use crate::frame::{FrameKind, Unpacker};
use crate::id::{EventId, ObjectId};
use crate::limits::{OBJECT_BYTES_MAX, RECIPE_DEPTH_MAX, RECIPE_PARTS_MAX, VERIFY_PARTS_MAX};
use crate::object::{Objects, Recipe, Stored};
use crate::progress::Progress;
use crate::segment::read_frame;

/// An object of the store: the number of its segment and its place there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The object.
    pub(crate) id: ObjectId,
    /// The segment's number among the surveys.
    pub(crate) segment: u32,
    /// The offset of its frame.
    pub(crate) frame: u32,
    /// Its slot.
    pub(crate) slot: u32,
    bytes: u32,
    /// How deep recipes are nested: 0 for a plain object, [`BROKEN`] for what cannot be put together.
    height: u8,
}

const BROKEN: u8 = u8::MAX;
const UNKNOWN: u8 = u8::MAX - 1;

/// Why an object that is listed cannot be put together.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// The object that is missing or wrong.
    pub(crate) id: ObjectId,
    /// `closure` where it is missing, else `object`.
    pub(crate) code: &'static str,
    /// What is wrong.
    pub(crate) message: String,
}

/// All objects of some segments.
pub(crate) struct Closure<'a> {
    surveys: &'a [Survey],
    /// By the number of the survey, since two files have one nonce where one was put in the place of another.
    cache: FrameCache,
    /// Sorted by id.
    entries: Vec<Entry>,
    recipes: Vec<(usize, Recipe)>,
    /// Missing parts and false recipes.
    pub(crate) troubles: Vec<Trouble>,
}

impl<'a> Closure<'a> {
    /// Lists the objects of surveys, and puts every recipe together once.
    pub(crate) fn build(surveys: &'a [Survey], progress: &dyn Progress) -> Closure<'a> {
        let mut entries: Vec<Entry> = Vec::with_capacity(surveys.iter().map(|one| one.objects.len()).sum());
        for (segment, survey) in (0u32..).zip(surveys) {
            entries.extend(survey.objects.iter().map(|object| Entry {
                id: object.id,
                segment,
                frame: object.frame,
                slot: object.slot,
                bytes: object.bytes,
                height: if object.recipe { UNKNOWN } else { 0 },
            }));
        }
        entries.par_sort_unstable_by_key(|entry| {
            (entry.id, entry.height, entry.segment, entry.frame, entry.slot)
        });
        let cache = FrameCache::default();
        let mut closure = Closure { surveys, cache, entries, recipes: Vec::new(), troubles: Vec::new() };
        closure.read_recipes();
        closure.measure();
        closure.put_together(progress);
        closure
    }

    /// Whether an object is here and can be put together.
    pub(crate) fn holds(&self, id: &ObjectId) -> bool {
        self.best(id).is_some()
    }

    /// All places of an object.
    pub(crate) fn places(&self, id: &ObjectId) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.id < *id);
        let count = self.entries[start..].iter().take_while(|entry| entry.id == *id).count();
        &self.entries[start..start + count]
    }

    fn best(&self, id: &ObjectId) -> Option<usize> {
        let start = self.entries.partition_point(|entry| entry.id < *id);
        let here = self.entries[start..].iter().take_while(|entry| entry.id == *id);
        here.zip(start..).find(|(entry, _)| entry.height < UNKNOWN).map(|(_, number)| number)
    }

    /// Recipes that put nothing together, by segment, frame and slot.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.height >= UNKNOWN)
    }

    /// The objects in a frame.
    pub(crate) fn objects(&self, segment: u32, frame: u32) -> Result<Arc<Objects>> {
        let survey = &self.surveys[segment as usize];
        let number = u128::from(segment).to_le_bytes();
        if let Some(objects) = self.cache.get(&number, frame) {
            return Ok(objects);
        }
        let key = survey.key().ok_or_else(|| Error::corrupt("a segment without a header has no frames"))?;
        let read = read_frame(survey.source.file.as_ref(), &key, u64::from(frame))?;
        let objects = Arc::new(Objects::decode(read.into_raw(&mut Unpacker::new())?)?);
        self.cache.put(&number, frame, Arc::clone(&objects));
        Ok(objects)
    }

    /// Reads a plain object, which has been hashed before.
    pub(crate) fn plain(&self, id: &ObjectId) -> Result<Vec<u8>> {
        let broken = || Error::corrupt(format!("object `{}` cannot be read", id.short()));
        let entry = self.best(id).map(|number| self.entries[number]).ok_or_else(broken)?;
        let objects = self.objects(entry.segment, entry.frame)?;
        match objects.get(entry.slot as usize)? {
            Stored::Plain(bytes) => Ok(bytes.to_vec()),
            Stored::Recipe(_) => Err(broken()),
        }
    }

    fn read_recipes(&mut self) {
        let mut found: Vec<(usize, Entry)> =
            self.entries.iter().copied().enumerate().filter(|(_, entry)| entry.height == UNKNOWN).collect();
        found.sort_unstable_by_key(|(_, entry)| (entry.segment, entry.frame, entry.slot));
        let mut recipes = Vec::with_capacity(found.len());
        for (number, entry) in found {
            let objects = self.objects(entry.segment, entry.frame);
            match objects.and_then(|objects| match objects.get(entry.slot as usize)? {
                Stored::Recipe(recipe) => Ok(recipe),
                Stored::Plain(_) => Err(Error::corrupt("expected a recipe")),
            }) {
                Ok(recipe) => recipes.push((number, recipe)),
                Err(error) => {
                    self.entries[number].height = BROKEN;
                    self.troubles.push(Trouble { id: entry.id, code: "object", message: text(&error) });
                }
            }
        }
        self.recipes = recipes;
    }

    /// Finds out how deep each recipe is: one more than the deepest of its parts.
    fn measure(&mut self) {
        let mut rest: Vec<usize> = (0..self.recipes.len()).collect();
        for _ in 0..RECIPE_DEPTH_MAX {
            let heights: Vec<Option<u8>> =
                rest.par_iter().map(|number| self.height(&self.recipes[*number].1)).collect();
            let before = rest.len();
            let mut left = Vec::new();
            for (number, height) in rest.into_iter().zip(heights) {
                match height {
                    Some(height) => self.entries[self.recipes[number].0].height = height,
                    None => left.push(number),
                }
            }
            rest = left;
            if rest.len() == before {
                break;
            }
        }
        let mut missing: BTreeMap<ObjectId, ObjectId> = BTreeMap::new();
        for number in rest {
            let (entry, recipe) = &self.recipes[number];
            self.entries[*entry].height = BROKEN;
            let absent: Vec<ObjectId> =
                recipe.parts.iter().map(|part| part.id).filter(|id| self.places(id).is_empty()).collect();
            if absent.is_empty() && recipe.parts.iter().all(|part| self.best(&part.id).is_some()) {
                let message = "its recipe is nested too deep, or its parts have other lengths".to_owned();
                self.troubles.push(Trouble { id: recipe.id, code: "object", message });
            }
            for id in absent {
                missing.entry(id).or_insert(recipe.id);
            }
        }
        self.troubles.extend(missing.into_iter().map(|(id, of)| Trouble {
            id,
            code: "closure",
            message: format!("it is missing, but a part of object `{of}`"),
        }));
    }

    fn height(&self, recipe: &Recipe) -> Option<u8> {
        let mut height = 0;
        for part in &recipe.parts {
            let entry = &self.entries[self.best(&part.id)?];
            if u64::from(entry.bytes) != part.bytes {
                return None;
            }
            height = height.max(entry.height);
        }
        let height = height + 1;
        (usize::from(height) <= RECIPE_DEPTH_MAX && recipe.bytes <= OBJECT_BYTES_MAX).then_some(height)
    }

    /// Hashes what the recipes put together. Recipes that start alike are hashed alike, so the common start is read
    /// once.
    fn put_together(&mut self, progress: &dyn Progress) {
        let by_entry: HashMap<usize, usize> =
            self.recipes.iter().enumerate().map(|(number, (entry, _))| (*entry, number)).collect();
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, (entry, _)) in self.recipes.iter().enumerate() {
            if self.entries[*entry].height < UNKNOWN {
                groups.entry(self.first_leaf(*entry, &by_entry)).or_default().push(number);
            }
        }
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        groups.sort_unstable();
        let this = &*self;
        let false_ones: Vec<usize> =
            groups.par_iter().flat_map_iter(|group| this.false_recipes(group, &by_entry, progress)).collect();
        for number in false_ones {
            let (entry, recipe) = &self.recipes[number];
            self.entries[*entry].height = BROKEN;
            let message = "what its recipe puts together does not have its hash".to_owned();
            self.troubles.push(Trouble { id: recipe.id, code: "object", message });
        }
        self.spread();
    }

    /// Recipes of which a part has turned out to be false are false too.
    fn spread(&mut self) {
        for _ in 0..=RECIPE_DEPTH_MAX {
            let broken: Vec<usize> = self
                .recipes
                .iter()
                .filter(|(entry, recipe)| {
                    self.entries[*entry].height < UNKNOWN
                        && recipe.parts.iter().any(|part| self.best(&part.id).is_none())
                })
                .map(|(entry, _)| *entry)
                .collect();
            if broken.is_empty() {
                return;
            }
            for entry in broken {
                self.entries[entry].height = BROKEN;
            }
        }
    }

    fn first_leaf(&self, mut entry: usize, by_entry: &HashMap<usize, usize>) -> usize {
        for _ in 0..=RECIPE_DEPTH_MAX {
            let Some(number) = by_entry.get(&entry) else { return entry };
            let first = self.recipes[*number].1.parts.first().and_then(|part| self.best(&part.id));
            let Some(first) = first else { return entry };
            entry = first;
        }
        entry
    }

    /// The recipes of a group that are false.
    fn false_recipes(
        &self,
        group: &[usize],
        by_entry: &HashMap<usize, usize>,
        progress: &dyn Progress,
    ) -> Vec<usize> {
        let mut found = Vec::new();
        let mut laid: Vec<(Vec<usize>, usize)> = Vec::new();
        let mut parts = 0;
        for number in group {
            let mut leaves = Vec::new();
            if !self.lay_out(self.recipes[*number].0, by_entry, &mut leaves) {
                found.push(*number);
                continue;
            }
            parts += leaves.len();
            laid.push((leaves, *number));
            if parts > VERIFY_PARTS_MAX {
                found.extend(self.hash_all(&mut laid, progress));
                parts = 0;
            }
        }
        found.extend(self.hash_all(&mut laid, progress));
        found
    }

    fn lay_out(&self, entry: usize, by_entry: &HashMap<usize, usize>, leaves: &mut Vec<usize>) -> bool {
        let Some(number) = by_entry.get(&entry) else {
            leaves.push(entry);
            return leaves.len() <= RECIPE_PARTS_MAX;
        };
        let parts = &self.recipes[*number].1.parts;
        parts
            .iter()
            .all(|part| self.best(&part.id).is_some_and(|entry| self.lay_out(entry, by_entry, leaves)))
    }

    /// Hashes objects that are laid out as parts, each common start once.
    fn hash_all(&self, laid: &mut Vec<(Vec<usize>, usize)>, progress: &dyn Progress) -> Vec<usize> {
        laid.sort_unstable();
        let common = |a: &[usize], b: &[usize]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let mut states: Vec<(usize, blake3::Hasher)> = vec![(0, blake3::Hasher::new())];
        let mut found = Vec::new();
        for (index, (leaves, number)) in laid.iter().enumerate() {
            let kept = index.checked_sub(1).map_or(0, |before| common(&laid[before].0, leaves));
            states.retain(|(length, _)| *length <= kept);
            let (mut length, mut hasher) = states.last().cloned().unwrap_or((0, blake3::Hasher::new()));
            let next = laid.get(index + 1).map_or(0, |(after, _)| common(leaves, after));
            let mut readable = true;
            while length < leaves.len() && readable {
                readable = self.update(&mut hasher, &self.entries[leaves[length]], progress);
                length += 1;
                if length == next {
                    states.push((length, hasher.clone()));
                }
            }
            if !readable || hasher.finalize().as_bytes() != self.recipes[*number].1.id.as_bytes() {
                found.push(*number);
            }
        }
        laid.clear();
        found
    }

    fn update(&self, hasher: &mut blake3::Hasher, entry: &Entry, progress: &dyn Progress) -> bool {
        progress.advance(u64::from(entry.bytes));
        let Ok(objects) = self.objects(entry.segment, entry.frame) else { return false };
        let Ok(Stored::Plain(bytes)) = objects.get(entry.slot as usize) else { return false };
        hasher.update(bytes);
        true
    }

    /// The plain parts that objects come down to.
    pub(crate) fn leaves(&self, ids: impl Iterator<Item = ObjectId>) -> Vec<ObjectId> {
        let recipes: HashMap<ObjectId, &Recipe> =
            self.recipes.iter().map(|(_, recipe)| (recipe.id, recipe)).collect();
        let (mut waiting, mut seen) = (ids.collect::<Vec<_>>(), std::collections::HashSet::new());
        let mut leaves = Vec::new();
        while let Some(id) = waiting.pop() {
            if seen.insert(id) {
                match recipes.get(&id) {
                    Some(recipe) => waiting.extend(recipe.parts.iter().map(|part| part.id)),
                    None => leaves.push(id),
                }
            }
        }
        leaves
    }

    /// Adds to what is wrong, by object, the recipes that it concerns through their parts.
    pub(crate) fn taints(&self, mut causes: HashMap<ObjectId, Vec<usize>>) -> HashMap<ObjectId, Vec<usize>> {
        if causes.is_empty() {
            return causes;
        }
        for _ in 0..=RECIPE_DEPTH_MAX {
            let mut changed = false;
            for (_, recipe) in &self.recipes {
                let mut reasons: Vec<usize> =
                    recipe.parts.iter().filter_map(|part| causes.get(&part.id)).flatten().copied().collect();
                reasons.sort_unstable();
                reasons.dedup();
                if reasons.is_empty() {
                    continue;
                }
                let known = causes.entry(recipe.id).or_default();
                let before = known.len();
                known.extend(reasons);
                known.sort_unstable();
                known.dedup();
                changed |= known.len() > before;
            }
            if !changed {
                break;
            }
        }
        causes
    }
}

/// Reads the events of a frame of a surveyed segment; they were good a moment ago.
pub(crate) fn events_of(survey: &Survey, offset: u32) -> Result<Vec<(Event, EventId)>> {
    let key = survey.key().ok_or_else(|| Error::corrupt("a segment without a header has no frames"))?;
    let frame = read_frame(survey.source.file.as_ref(), &key, u64::from(offset))?;
    if frame.kind != FrameKind::Events {
        return Err(Error::corrupt(format!("frame at byte {offset}: expected events")));
    }
    decode_events(&frame.into_raw(&mut Unpacker::new())?)
}

/// Hands all events of the surveys over, a frame at a time, and collects what is made of them in order.
pub(crate) fn each_events<T: Send>(
    surveys: &[Survey],
    work: impl Fn(usize, Vec<(Event, EventId)>) -> Option<T> + Sync,
) -> Vec<T> {
    let frames: Vec<(usize, u32)> = surveys
        .iter()
        .enumerate()
        .flat_map(|(number, survey)| {
            survey.contents.events_frames.iter().map(move |place| (number, place.offset))
        })
        .collect();
    // What cannot be read again is damage that the survey would have seen; a race with it loses a report at most.
    frames
        .par_iter()
        .filter_map(|(number, offset)| {
            events_of(&surveys[*number], *offset).ok().and_then(|events| work(*number, events))
        })
        .collect()
}
