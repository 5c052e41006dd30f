//! Segments of which a large part is sent: what is held back is cut out of them on the way.
//!
//! First all of them are gone through to mark the objects that their chosen events need; then each is written anew,
//! frame by frame, with its tables filtered rather than made again. Of what is held back nothing is written.

use std::collections::HashSet;
use std::sync::Arc;

use agent_trace_store::build::{Builder, Sink};
use agent_trace_store::event::cut_events;
use agent_trace_store::frame::{Effort, Packer, Unpacker};
use agent_trace_store::limits::{FRAME_OBJECTS_MAX, RECIPE_DEPTH_MAX};
use agent_trace_store::object::{Objects, ObjectsBuilder, ObjectsFrame, Stored};
use agent_trace_store::segment::{all_ids, all_names, read_frame};
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::{Handle, Location, missing, read_events_raw};
use agent_trace_store::table::{IdEntry, NameEntry};
use agent_trace_store::{Error, Kind, ObjectId, Result, Store};
use rayon::prelude::*;

use crate::collect::{GATHER_BYTES, Needed, Sizes, Source, gather};
use crate::light::walk;
use crate::tables::stands_in;

/// Frames larger than this hold parts of transcripts.
const RECORDS_BYTES_MAX: usize = 1 << 20;
/// Where there is no number.
const NONE: u32 = u32::MAX;

/// A segment of which a part is sent.
pub struct Cut {
    sealed: Arc<Sealed>,
    source: Source,
    /// The events that go, sorted.
    numbers: Vec<u32>,
    /// The number of each frame's first object; then how many there are.
    bases: Vec<u32>,
    /// Which objects go, by number.
    marks: Vec<bool>,
    /// Objects of other segments that go with them.
    strays: Strays,
}

#[derive(Default)]
struct Strays {
    frames: Needed,
    ids: HashSet<ObjectId>,
}

/// An object that is needed, whether it may have a recipe, and below how many recipes it stands.
type Want = (ObjectId, bool, usize);

/// Plans how to cut segments to the events with these numbers. `there` says which objects the remote has; `sent` which
/// go with other segments, for objects that do not stand in the segment that needs them.
pub fn plan(
    store: &Store,
    parts: Vec<(Arc<Sealed>, Vec<u32>)>,
    there: &(dyn Fn(&ObjectId) -> Result<bool> + Sync),
    sent: &dyn Fn(&ObjectId) -> Result<bool>,
) -> Result<Vec<Cut>> {
    let marked: Vec<(Cut, Vec<Want>)> = parts
        .into_par_iter()
        .with_max_len(1)
        .map(|(sealed, numbers)| mark(store, sealed, numbers, there))
        .collect::<Result<_>>()?;
    let (mut cuts, elsewhere): (Vec<Cut>, Vec<Vec<Want>>) = marked.into_iter().unzip();
    for (index, mut waiting) in elsewhere.into_iter().enumerate() {
        while let Some((id, body, depth)) = waiting.pop() {
            if there(&id)? || sent(&id)? || goes(&cuts, &id)? {
                continue;
            }
            // It goes with the first that needs it: nobody fetches a segment for its objects alone.
            let location = store.locate(&id)?.ok_or_else(|| missing(&id))?;
            let strays = &mut cuts[index].strays;
            let key = (*location.handle.nonce(), location.frame);
            let slots = strays.frames.entry(key).or_insert_with(|| (location.handle.clone(), Vec::new()));
            slots.1.push((location.slot, id));
            strays.ids.insert(id);
            if body {
                recipe_parts(store, &location, &id, depth, &mut waiting)?;
            }
        }
    }
    Ok(cuts)
}

/// Finds those of some segments that go whole and whose events need objects that would not go: neither with one of them, nor
/// are they there. A compaction puts bytes of transcripts and their events into different segments, and what two conversations
/// share stands with the first. Returns their places in the list, sorted.
pub fn not_closed(
    store: &Store,
    whole: &[Arc<Sealed>],
    there: &(dyn Fn(&ObjectId) -> Result<bool> + Sync),
) -> Result<Vec<usize>> {
    let needs: Vec<Vec<Want>> = whole
        .par_iter()
        .with_max_len(1)
        .map(|sealed| {
            let all = (0..sealed.directory.events).collect();
            Ok(mark(store, Arc::clone(sealed), all, &|_| Ok(false))?.1)
        })
        .collect::<Result<_>>()?;
    let mut goes: Vec<bool> = vec![true; whole.len()];
    loop {
        let before = goes.clone();
        let going: Vec<Arc<Sealed>> = whole
            .iter()
            .zip(&goes)
            .filter(|(_, goes)| **goes)
            .map(|(sealed, _)| Arc::clone(sealed))
            .collect();
        for (place, needs) in needs.iter().enumerate().filter(|(_, needs)| !needs.is_empty()) {
            goes[place] = goes[place] && all_go(store, needs, &going, there)?;
        }
        // One that does not go may have held what another needs.
        if goes == before {
            return Ok((0..whole.len()).filter(|place| !goes[*place]).collect());
        }
    }
}

/// Whether objects, and what they are put together of, stand in some segments or are there.
fn all_go(
    store: &Store,
    needs: &[Want],
    going: &[Arc<Sealed>],
    there: &(dyn Fn(&ObjectId) -> Result<bool> + Sync),
) -> Result<bool> {
    let (mut waiting, mut seen) = (needs.to_vec(), HashSet::new());
    while let Some((id, body, depth)) = waiting.pop() {
        if !seen.insert(id) || there(&id)? {
            continue;
        }
        if !stands_in(going, &id)? {
            return Ok(false);
        }
        if body {
            let location = store.locate(&id)?.ok_or_else(|| missing(&id))?;
            recipe_parts(store, &location, &id, depth, &mut waiting)?;
        }
    }
    Ok(true)
}

/// Whether an object goes with one of these segments.
pub fn goes(cuts: &[Cut], id: &ObjectId) -> Result<bool> {
    for cut in cuts {
        if cut.strays.ids.contains(id) {
            return Ok(true);
        }
        if let Some(entry) = cut.sealed.find(id)?
            && cut.marks[cut.number(&entry)?]
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds what an object is put together of, if it is stored so.
fn recipe_parts(
    store: &Store,
    location: &Location,
    id: &ObjectId,
    depth: usize,
    waiting: &mut Vec<Want>,
) -> Result<()> {
    let objects = store.objects(&location.handle, location.frame)?;
    if let Stored::Recipe(recipe) = objects.get(location.slot as usize)? {
        if depth >= RECIPE_DEPTH_MAX {
            return Err(Error::corrupt(format!("the recipe of object `{}` is too deep", id.short())));
        }
        waiting.extend(recipe.parts.iter().map(|part| (part.id, true, depth + 1)));
    }
    Ok(())
}

/// Marks the objects of a segment that some of its events need; returns also those that do not stand in it.
fn mark(
    store: &Store,
    sealed: Arc<Sealed>,
    numbers: Vec<u32>,
    there: &(dyn Fn(&ObjectId) -> Result<bool> + Sync),
) -> Result<(Cut, Vec<Want>)> {
    let ids = all_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory)?;
    let source = Source::sealed(&sealed);
    let bases = bases(&sealed.directory.objects_frames, &ids)?;
    let marks = vec![false; bases.last().copied().unwrap_or_default() as usize];
    let mut cut = Cut { sealed, source, numbers, bases, marks, strays: Strays::default() };
    if !ids.is_sorted_by_key(|entry| entry.id) {
        return Err(Error::corrupt("the id table of a segment is not sorted"));
    }
    let table = IdTable::new(ids);
    let handle = Handle::Sealed(Arc::clone(&cut.sealed));
    let mut elsewhere = Vec::new();
    let mut waiting: Vec<Want> = Vec::new();
    let (source, numbers) = (cut.source.clone(), std::mem::take(&mut cut.numbers));
    let erased = store.erased();
    walk(&source, &numbers, |_, laid| {
        let body = laid.kind == Kind::TRANSCRIPT || !Kind::KNOWN.contains(&laid.kind);
        waiting.extend(laid.objects().filter(|id| !erased.contains(id)).map(|id| (id, body, 0)));
        while let Some((id, body, depth)) = waiting.pop() {
            let Some(entry) = table.find(&id) else {
                elsewhere.push((id, body, depth));
                continue;
            };
            let number = cut.number(entry)?;
            if cut.marks[number] || there(&id)? {
                continue;
            }
            cut.marks[number] = true;
            if body {
                // Only bodies have recipes; records are always stored whole.
                let location = Location { handle: handle.clone(), frame: entry.frame, slot: entry.slot };
                recipe_parts(store, &location, &id, depth, &mut waiting)?;
            }
        }
        Ok(())
    })?;
    cut.numbers = numbers;
    Ok((cut, elsewhere))
}

/// The number of each frame's first object, where the objects of all frames are counted through.
fn bases(frames: &[u32], ids: &[IdEntry]) -> Result<Vec<u32>> {
    let mut bases = vec![0; frames.len() + 1];
    for entry in ids {
        let frame = frames.binary_search(&entry.frame).map_err(|_| misplaced())?;
        if entry.slot as usize >= FRAME_OBJECTS_MAX {
            return Err(misplaced());
        }
        bases[frame + 1] = bases[frame + 1].max(entry.slot + 1);
    }
    let mut sum = 0u32;
    for base in &mut bases {
        sum = sum.checked_add(*base).filter(|sum| *sum < NONE).ok_or_else(misplaced)?;
        *base = sum;
    }
    Ok(bases)
}

fn misplaced() -> Error {
    Error::corrupt("the id table of a segment names places that are not there")
}

/// A sorted table of ids, with where those begin that start with the same two bytes.
struct IdTable {
    entries: Vec<IdEntry>,
    starts: Vec<u32>,
}

impl IdTable {
    fn new(entries: Vec<IdEntry>) -> IdTable {
        let mut starts = vec![0u32; (1 << 16) + 1];
        for entry in &entries {
            starts[IdTable::bucket(&entry.id) + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        IdTable { entries, starts }
    }

    fn bucket(id: &ObjectId) -> usize {
        let bytes = id.as_bytes();
        usize::from(bytes[0]) << 8 | usize::from(bytes[1])
    }

    fn find(&self, id: &ObjectId) -> Option<&IdEntry> {
        let bucket = IdTable::bucket(id);
        let (from, to) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let entries = &self.entries[from..to];
        entries.binary_search_by(|entry| entry.id.cmp(id)).ok().map(|place| &entries[place])
    }
}

impl Cut {
    /// The length of the segment that is cut.
    pub fn bytes(&self) -> u64 {
        self.sealed.bytes
    }

    /// Keeps only events of a set, unless objects would be left without any: those nobody would fetch.
    pub fn retain(&mut self, set: &EventSet) -> Result<()> {
        let mut kept = Vec::with_capacity(self.numbers.len());
        walk(&self.source, &self.numbers, |number, laid| {
            if set.contains(&laid.writer, laid.seq) {
                kept.push(number);
            }
            Ok(())
        })?;
        if !kept.is_empty() || self.strays.ids.is_empty() && !self.marks.contains(&true) {
            self.numbers = kept;
        }
        Ok(())
    }

    /// Whether nothing of it goes.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    fn number(&self, entry: &IdEntry) -> Result<usize> {
        let frame =
            self.sealed.directory.objects_frames.binary_search(&entry.frame).map_err(|_| misplaced())?;
        let number =
            self.bases[frame].checked_add(entry.slot).filter(|number| *number < self.bases[frame + 1]);
        number.map(|number| number as usize).ok_or_else(misplaced)
    }

    /// Writes what goes into a segment that is being built.
    pub fn write<S: Sink>(&self, builder: &mut Builder<S>) -> Result<()> {
        let strays = gather(self.strays.frames.clone(), &Sizes::new())?;
        strays.iter().try_for_each(|frame| builder.objects(frame))?;
        let mut packers = Packers::default();
        self.write_objects(builder, &mut packers)?;
        let ranks = self.write_events(builder, &mut packers)?;
        let names = all_names(self.sealed.file.as_ref(), &self.sealed.key, &self.sealed.directory)?;
        builder.names(names.into_iter().filter_map(|entry| {
            let event = ranks.get(entry.event as usize).copied().filter(|rank| *rank != NONE)?;
            Some(NameEntry { event, ..entry })
        }));
        Ok(())
    }

    /// Objects are not hashed here: the checksum of each frame has just been compared, the hash of each object was when
    /// it was put there, and whoever receives it compares it again. That an id stands for these bytes and no others is
    /// what the id table says, whose pages have a checksum as well, and which `receive` compares with the frames before
    /// it keeps a segment of others (I5).
    fn write_objects<S: Sink>(&self, builder: &mut Builder<S>, packers: &mut Packers) -> Result<()> {
        let mut ids = vec![ObjectId::from_bytes([0; 32]); self.marks.len()];
        for entry in all_ids(self.sealed.file.as_ref(), &self.sealed.key, &self.sealed.directory)? {
            ids[self.number(&entry)?] = entry.id;
        }
        let mut unpacker = Unpacker::new();
        let mut loose = ObjectsBuilder::new();
        for (index, offset) in self.sealed.directory.objects_frames.iter().enumerate() {
            let (first, end) = (self.bases[index] as usize, self.bases[index + 1] as usize);
            let needed = self.marks[first..end].iter().filter(|mark| **mark).count();
            if needed == 0 {
                continue;
            }
            let frame = read_frame(self.sealed.file.as_ref(), &self.sealed.key, u64::from(*offset))?;
            let whole = (needed == end - first).then(|| frame.clone());
            let objects = Objects::decode(frame.into_raw(&mut unpacker)?)?;
            // The table may know less than there is, so the frame itself is counted.
            if let Some(frame) = whole.filter(|_| objects.len() == needed) {
                builder.objects(&ObjectsFrame { frame, ids: ids[first..end].to_vec() })?;
                continue;
            }
            for number in (first..end).filter(|number| self.marks[*number]) {
                let slot = number - first;
                let laid = objects.laid(slot)?;
                if laid.is_recipe() && objects.get_with_id(slot)?.0 != ids[number] {
                    return Err(Error::corrupt(format!(
                        "object `{}` has the recipe of another",
                        ids[number]
                    )));
                }
                if !loose.fits(laid.bytes()) {
                    builder.objects(&packers.finish(&mut loose))?;
                }
                loose.add_stored(ids[number], &laid);
            }
            if loose.raw_bytes() >= GATHER_BYTES / 2 {
                builder.objects(&packers.finish(&mut loose))?;
            }
        }
        if !loose.is_empty() {
            builder.objects(&packers.finish(&mut loose))?;
        }
        Ok(())
    }

    /// Returns the new number of each event.
    fn write_events<S: Sink>(&self, builder: &mut Builder<S>, packers: &mut Packers) -> Result<Vec<u32>> {
        let mut ranks = vec![NONE; self.source.events as usize];
        for (rank, number) in (0..).zip(&self.numbers) {
            ranks[*number as usize] = rank;
        }
        let mut unpacker = Unpacker::new();
        let mut taken = 0;
        for place in &self.source.frames {
            let raw = read_events_raw(&self.source.handle, place.offset, &mut unpacker)?;
            let wanted =
                |event| ranks.get((place.first_event + event) as usize).is_some_and(|rank| *rank != NONE);
            let events = cut_events(&raw, wanted)?;
            taken += events.kinds.len();
            if !events.kinds.is_empty() {
                builder.cut(&events, packers.quick())?;
            }
        }
        if taken != self.numbers.len() {
            return Err(Error::corrupt("an events frame is shorter than its directory says"));
        }
        Ok(ranks)
    }
}

/// Compressors, made when they are needed.
#[derive(Default)]
struct Packers {
    quick: Option<Packer>,
    long: Option<Packer>,
}

impl Packers {
    fn quick(&mut self) -> &mut Packer {
        self.quick.get_or_insert_with(|| Packer::new(Effort::QUICK))
    }

    fn finish(&mut self, objects: &mut ObjectsBuilder) -> ObjectsFrame {
        let packer = if objects.raw_bytes() > RECORDS_BYTES_MAX {
            self.long.get_or_insert_with(|| Packer::new(Effort::FAST_LONG))
        } else {
            self.quick()
        };
        objects.finish(packer)
    }
}
