//! Taking chosen events out of a segment, with the objects they need: as frames that can be put elsewhere.
//!
//! A frame that is needed whole is copied as it is; of others the needed objects are compressed anew. Used by both
//! directions: for what a push sends, and for the part of a received segment that is new here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use agent_trace_store::event::Event;
use agent_trace_store::frame::{Effort, Packer, Unpacker};
use agent_trace_store::limits::RECIPE_DEPTH_MAX;
use agent_trace_store::log::Received;
use agent_trace_store::object::{ObjectsBuilder, ObjectsFrame, Stored};
use agent_trace_store::scan::{Marks, marks};
use agent_trace_store::segment::{EventsPlace, all_ids, all_names, read_frame};
use agent_trace_store::segments::Sealed;
use agent_trace_store::store::{Handle, Location, missing, read_events};
use agent_trace_store::{Error, EventId, Kind, ObjectId, Result, Store};
use rayon::prelude::*;

/// Objects from frames of which little is needed are gathered in frames of about this size.
pub(crate) const GATHER_BYTES: usize = 256 << 10;
/// Frames that are read at once.
const GATHER_FRAMES: usize = 16;

/// Whether the bytes of transcripts go along with their events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bodies {
    /// They do.
    #[default]
    Along,
    /// They are left out, to be fetched on demand. Records never are, nor what kinds list that this version does not know.
    LeftOut,
}

impl Bodies {
    /// The objects that are left out of what goes with these events.
    pub fn left_out<'e>(self, events: impl Iterator<Item = &'e Event> + Clone) -> HashSet<ObjectId> {
        if self == Bodies::Along {
            return HashSet::new();
        }
        let mut ids: HashSet<ObjectId> = events.clone().flat_map(bodies_of).copied().collect();
        for event in events {
            let bodies = bodies_of(event).len();
            for needed in &event.fact.objects[..event.fact.objects.len() - bodies] {
                ids.remove(needed);
            }
        }
        ids
    }
}

/// The objects of an event that are bytes of a transcript: those that may be left out.
pub fn bodies_of(event: &Event) -> &[ObjectId] {
    if event.fact.kind == Kind::TRANSCRIPT { &event.fact.objects[1..] } else { &[] }
}

/// Events with the objects that they need and that are not known already.
#[derive(Debug, Default)]
pub struct Collected {
    /// The objects.
    pub frames: Vec<ObjectsFrame>,
    /// The events, in the order of the segment.
    pub events: Vec<Received>,
}

/// A segment to collect from.
#[derive(Clone)]
pub struct Source {
    /// The segment.
    pub handle: Handle,
    /// Its events frames.
    pub frames: Vec<EventsPlace>,
    /// How many events it has.
    pub events: u32,
}

impl Source {
    /// A sealed segment.
    pub fn sealed(sealed: &Arc<Sealed>) -> Source {
        Source {
            frames: sealed.directory.events_frames.clone(),
            events: sealed.directory.events,
            handle: Handle::Sealed(Arc::clone(sealed)),
        }
    }
}

/// Reads the chosen events, whose numbers are sorted.
pub fn chosen_events(source: &Source, numbers: &[u32]) -> Result<Vec<(Event, EventId, u32)>> {
    let mut ends = source.frames.iter().skip(1).map(|place| place.first_event).collect::<Vec<_>>();
    ends.push(source.events);
    let wanted: Vec<(EventsPlace, &[u32])> = source
        .frames
        .iter()
        .zip(ends)
        .map(|(place, end)| {
            let from = numbers.partition_point(|number| *number < place.first_event);
            let to = numbers.partition_point(|number| *number < end);
            (*place, &numbers[from..to.max(from)])
        })
        .filter(|(_, numbers)| !numbers.is_empty())
        .collect();
    let read: Vec<Vec<(Event, EventId, u32)>> = wanted
        .into_par_iter()
        .map(|(place, numbers)| {
            let events = read_events(&source.handle, place.offset)?;
            numbers
                .iter()
                .map(|number| {
                    let (event, id) = events.get((number - place.first_event) as usize).ok_or_else(|| {
                        Error::corrupt("an events frame is shorter than its directory says")
                    })?;
                    Ok((event.clone(), *id, *number))
                })
                .collect()
        })
        .collect::<Result<_>>()?;
    Ok(read.into_iter().flatten().collect())
}

/// Collects events, given with their numbers in order. `extra` are segments that are not in the store yet; `known`
/// says which objects need not go along.
pub fn collect(
    store: &Store,
    extra: &[Arc<Sealed>],
    source: &Source,
    events: Vec<(Event, EventId, u32)>,
    known: &(dyn Fn(&ObjectId) -> Result<bool> + Sync),
) -> Result<Collected> {
    let mut frames = Vec::new();
    let events = collect_into(store, extra, source, events, known, &mut |frame| {
        frames.push(frame);
        Ok(())
    })?;
    Ok(Collected { frames, events })
}

/// The same, where the frames are handed over as they are made; returns the events.
pub fn collect_into(
    store: &Store,
    extra: &[Arc<Sealed>],
    source: &Source,
    events: Vec<(Event, EventId, u32)>,
    known: &(dyn Fn(&ObjectId) -> Result<bool> + Sync),
    put: &mut dyn FnMut(ObjectsFrame) -> Result<()>,
) -> Result<Vec<Received>> {
    let (needed, sizes) = closure(store, extra, source, &events, known)?;
    gather_into(needed, &sizes, put)?;
    with_marks(store, extra, source, events)
}

/// The needed slots of one frame, and the segment that it is in.
pub(crate) type Slots = (Handle, Vec<(u32, ObjectId)>);

/// How many objects frames have, where that is known, by segment and offset.
pub(crate) type Sizes = HashMap<([u8; 16], u32), u32>;

/// Frames by segment and offset.
pub(crate) type Needed = BTreeMap<([u8; 16], u32), Slots>;

/// Where the objects stand that the events need, by frame.
fn closure(
    store: &Store,
    extra: &[Arc<Sealed>],
    source: &Source,
    events: &[(Event, EventId, u32)],
    known: &(dyn Fn(&ObjectId) -> Result<bool> + Sync),
) -> Result<(Needed, Sizes)> {
    // Most objects stand in the same segment as their events; its table is read once instead of searched often.
    let mut table: HashMap<ObjectId, (u32, u32)> = HashMap::new();
    let mut sizes = Sizes::new();
    if let (Handle::Sealed(sealed), true) = (&source.handle, events.len() > 64) {
        let ids = all_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory)?;
        for entry in ids {
            let size: &mut u32 = sizes.entry((sealed.header.nonce, entry.frame)).or_default();
            *size = (*size).max(entry.slot + 1);
            table.insert(entry.id, (entry.frame, entry.slot));
        }
    }
    let locate = |id: &ObjectId| -> Result<Location> {
        if let Some((frame, slot)) = table.get(id) {
            return Ok(Location { handle: source.handle.clone(), frame: *frame, slot: *slot });
        }
        store.locate_with(extra, id)?.ok_or_else(|| missing(id))
    };
    let mut needed = Needed::new();
    let mut seen = HashSet::new();
    let mut waiting: Vec<(ObjectId, bool, usize)> = Vec::new();
    let erased = store.erased();
    for (event, _, _) in events {
        let body = event.fact.kind == Kind::TRANSCRIPT || !Kind::KNOWN.contains(&event.fact.kind);
        // What is erased goes nowhere; a part of something live does, whoever names it.
        let live = listed(event).iter().rev().filter(|id| !erased.contains(id) || takes_erased());
        waiting.extend(live.map(|id| (*id, body, 0)));
        while let Some((id, body, depth)) = waiting.pop() {
            if !seen.insert(id) || known(&id)? {
                continue;
            }
            let location = locate(&id)?;
            let key = (*location.handle.nonce(), location.frame);
            if body {
                // Only bodies have recipes; records are always stored whole.
                let objects = store.objects(&location.handle, location.frame)?;
                if let Stored::Recipe(recipe) = objects.get(location.slot as usize)? {
                    if depth >= RECIPE_DEPTH_MAX {
                        return Err(Error::corrupt(format!(
                            "the recipe of object `{}` is too deep",
                            id.short()
                        )));
                    }
                    waiting.extend(recipe.parts.iter().map(|part| (part.id, true, depth + 1)));
                }
            }
            needed.entry(key).or_insert_with(|| (location.handle, Vec::new())).1.push((location.slot, id));
        }
    }
    Ok((needed, sizes))
}

/// A planted fault, for showing that the simulation finds it.
fn takes_erased() -> bool {
    #[cfg(feature = "sim")]
    if agent_trace_store::switches::planted(agent_trace_store::switches::Fault::TakeErased) {
        return true;
    }
    false
}

/// The objects that an event needs.
fn listed(event: &Event) -> &[ObjectId] {
    #[cfg(feature = "sim")]
    if agent_trace_store::switches::planted(agent_trace_store::switches::Fault::SkipClosure) {
        return &event.fact.objects[..1];
    }
    &event.fact.objects
}

/// Reads the needed objects.
pub(crate) fn gather(needed: Needed, sizes: &Sizes) -> Result<Vec<ObjectsFrame>> {
    let mut gathered = Vec::new();
    gather_into(needed, sizes, &mut |frame| {
        gathered.push(frame);
        Ok(())
    })?;
    Ok(gathered)
}

/// Reads the needed objects, several frames at once.
fn gather_into(needed: Needed, sizes: &Sizes, put: &mut dyn FnMut(ObjectsFrame) -> Result<()>) -> Result<()> {
    let frames: Vec<(u32, Slots)> = needed.into_iter().map(|((_, offset), slots)| (offset, slots)).collect();
    let mut loose = ObjectsBuilder::new();
    let mut packer = Packer::new(Effort::FAST);
    for part in frames.chunks(GATHER_FRAMES) {
        let taken: Vec<Taken> = part
            .par_iter()
            .map_init(
                || (Packer::new(Effort::FAST), Unpacker::new()),
                |(packer, unpacker), (offset, (handle, slots))| {
                    let size = sizes.get(&(*handle.nonce(), *offset)).copied();
                    take(handle, *offset, slots, size, packer, unpacker)
                },
            )
            .collect::<Result<_>>()?;
        for taken in taken {
            match taken {
                Taken::Frame(frame) => put(frame)?,
                Taken::Loose(objects) => {
                    for (id, bytes, recipe) in objects {
                        let full = !loose.fits(bytes.len()) || loose.raw_bytes() + bytes.len() > GATHER_BYTES;
                        if full && !loose.is_empty() {
                            put(loose.finish(&mut packer))?;
                        }
                        match recipe {
                            Some(recipe) => loose.add_recipe(&recipe),
                            None => loose.add(id, &bytes),
                        }
                    }
                }
            }
        }
    }
    if !loose.is_empty() {
        put(loose.finish(&mut packer))?;
    }
    Ok(())
}

type Loose = (ObjectId, Vec<u8>, Option<agent_trace_store::object::Recipe>);

enum Taken {
    Frame(ObjectsFrame),
    Loose(Vec<Loose>),
}

/// Takes the needed slots of one frame.
fn take(
    handle: &Handle,
    offset: u32,
    slots: &[(u32, ObjectId)],
    size: Option<u32>,
    packer: &mut Packer,
    unpacker: &mut Unpacker,
) -> Result<Taken> {
    let mut slots = slots.to_vec();
    slots.sort_unstable();
    let frame = read_frame(handle.file(), handle.key(), u64::from(offset))?;
    if size.is_some_and(|size| size as usize == slots.len()) {
        // Needed whole: its checksum has been compared, and who receives it compares every hash.
        let ids = slots.iter().map(|(_, id)| *id).collect();
        return Ok(Taken::Frame(ObjectsFrame { frame, ids }));
    }
    let objects = agent_trace_store::object::Objects::decode(frame.clone().into_raw(unpacker)?)?;
    if slots.len() == objects.len() {
        let ids = slots.iter().map(|(_, id)| *id).collect();
        return Ok(Taken::Frame(ObjectsFrame { frame, ids }));
    }
    let mut builder = ObjectsBuilder::new();
    let mut loose = Vec::new();
    let mut bytes = 0;
    for (slot, id) in &slots {
        match objects.get(*slot as usize)? {
            Stored::Plain(plain) => {
                if ObjectId::of(plain) != *id {
                    return Err(Error::corrupt(format!(
                        "object `{id}` is damaged: its bytes do not have its hash"
                    )));
                }
                bytes += plain.len();
                loose.push((*id, plain.to_vec(), None));
            }
            Stored::Recipe(recipe) if recipe.id == *id => loose.push((*id, Vec::new(), Some(recipe))),
            Stored::Recipe(_) => {
                return Err(Error::corrupt(format!("object `{id}` has the recipe of another")));
            }
        }
    }
    if bytes < GATHER_BYTES / 2 {
        return Ok(Taken::Loose(loose));
    }
    for (id, bytes, recipe) in &loose {
        match recipe {
            Some(recipe) => builder.add_recipe(recipe),
            None => builder.add(*id, bytes),
        }
    }
    Ok(Taken::Frame(builder.finish(packer)))
}

/// Adds the names under which the events are found.
fn with_marks(
    store: &Store,
    extra: &[Arc<Sealed>],
    source: &Source,
    events: Vec<(Event, EventId, u32)>,
) -> Result<Vec<Received>> {
    let mut names: HashMap<u32, Marks> = HashMap::new();
    // A table of names is enough for a segment that is built, not for the index, which also lists by session and path.
    if let (Handle::Sealed(sealed), true) = (&source.handle, extra.is_empty() && events.len() > 64) {
        let wanted: HashSet<u32> = events.iter().map(|(_, _, number)| *number).collect();
        for entry in all_names(sealed.file.as_ref(), &sealed.key, &sealed.directory)? {
            if wanted.contains(&entry.event) {
                names.entry(entry.event).or_default().names.push((entry.prefix, entry.cites));
            }
        }
    }
    events
        .into_iter()
        .map(|(event, id, number)| {
            let marks = match names.remove(&number) {
                Some(marks) => marks,
                None if store.erased().contains(&event.fact.objects[0]) => marks(&event.fact, &[]),
                None => marks(&event.fact, &read_record(store, extra, &event.fact.objects[0])?),
            };
            Ok(Received { event, id, marks })
        })
        .collect()
}

/// Reads a record, in segments that are not in the store yet or in the store.
pub fn read_record(store: &Store, extra: &[Arc<Sealed>], id: &ObjectId) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.copy_with(extra, id, &mut |part| {
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    Ok(bytes)
}
