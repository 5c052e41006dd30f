//! Reading a store: what there is at one moment, where things stand, objects and events by id and place.
//!
//! No lock is taken and every hash is compared. A segment that is sealed or compacted away meanwhile shows as missing,
//! upon which the directory is looked at again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::*;

/// Looks at directory and index until they fit each other.
const LOOKS_MAX: u32 = 8;

impl Store {
    /// What a reader sees now. The index is brought up to date first, unless little is missing and another process
    /// is at work that will do it.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut snapshot = self.look()?;
        let missing: usize = snapshot.unindexed.iter().map(|part| part.events.len()).sum();
        let many = missing > UNINDEXED_EVENTS_MAX as usize;
        if missing > 0 && (many || !self.somebody_is_busy()) {
            self.catch_up()?;
            snapshot = self.look()?;
        }
        Ok(snapshot)
    }

    fn look(&self) -> Result<Snapshot> {
        let mut segments = self.refresh()?;
        let (mut rows, mut born);
        let mut looks = 0;
        loop {
            (rows, born) = self.index.read(|view| Ok((view.segments()?, view.born()?)))?.unwrap_or_default();
            // What was sealed or compacted between the two looks is in the index and not in the set.
            let behind = rows.values().any(|row| match &row.id {
                Some(id) => segments.get(id).is_none(),
                None => !segments.holds(&row.nonce),
            });
            looks += 1;
            if !behind || looks == LOOKS_MAX {
                break;
            }
            segments = self.refresh()?;
        }
        let by_nonce: HashMap<[u8; 16], &SegmentRow> = rows.values().map(|row| (row.nonce, row)).collect();
        let mut unindexed = Vec::new();
        for sealed in &segments.sealed {
            let row = by_nonce.get(&sealed.header.nonce);
            if row.is_none_or(|row| row.id.is_none()) {
                let first = row.map_or(0, |row| row.events);
                unindexed.push(unindexed_sealed(sealed, first)?);
            }
        }
        if let Some(open) = &segments.open {
            let row = by_nonce.get(&open.header.nonce).copied();
            if let Some(part) = unindexed_open(open, row)? {
                unindexed.push(part);
            }
        }
        Ok(Snapshot { segments, rows, unindexed: Arc::new(unindexed), born })
    }

    /// Whether what a snapshot knows of the index still goes together with what is read from it: nothing has been
    /// sealed, compacted or indexed anew since. An open segment that has grown changes nothing.
    pub fn is_current(&self, snapshot: &Snapshot) -> Result<bool> {
        let read = self.index.read(|view| Ok((view.segments()?, view.born()?)))?;
        let (rows, born) = read.unwrap_or_default();
        let shape = |rows: &BTreeMap<u32, SegmentRow>| -> Vec<(u32, [u8; 16], bool)> {
            rows.iter().map(|(number, row)| (*number, row.nonce, row.id.is_some())).collect()
        };
        Ok(born == snapshot.born && shape(&rows) == shape(&snapshot.rows))
    }

    /// Whether the store holds an object. Look-ups of absent objects are cheap after [`Store::prepare_bulk`].
    pub fn contains(&self, id: &ObjectId) -> Result<bool> {
        Ok(self.contains_all(std::slice::from_ref(id))?[0])
    }

    /// Whether the store holds each of these objects, asked together.
    pub fn contains_all(&self, ids: &[ObjectId]) -> Result<Vec<bool>> {
        let set = self.segments();
        let open = open_ids::current(&self.published);
        let mut held = open.as_ref().map_or_else(|| vec![false; ids.len()], |open| open.holds_all(ids));
        for (id, held) in ids.iter().zip(&mut held) {
            *held = *held || set.find(id)?.is_some();
        }
        let known = |nonce: &[u8; 16]| open.as_ref().is_some_and(|open| open.whole && open.nonce == *nonce);
        let whole = set.open.as_ref().is_none_or(|open| known(&open.header.nonce));
        if !whole && !held.iter().all(|held| *held) {
            // What another process appended is in the index, or not yet anywhere but in the segment.
            self.log().read_whole(&|| self.open_row(), &|id| self.record_before(id))?;
            if let Some(open) = open_ids::current(&self.published) {
                for (held, here) in held.iter_mut().zip(open.holds_all(ids)) {
                    *held = *held || here;
                }
            }
        }
        Ok(held)
    }

    /// Reads what makes look-ups of many absent objects cheap: the filters of all sealed segments, and all of the
    /// open one.
    pub fn prepare_bulk(&self) -> Result<()> {
        self.log().read_whole(&|| self.open_row(), &|id| self.record_before(id))?;
        self.bulk.store(true, Ordering::Relaxed);
        self.refresh().map(|_| ())
    }

    /// Finds an object.
    pub fn locate(&self, id: &ObjectId) -> Result<Option<Location>> {
        let sealed = |set: &SegmentSet| -> Result<Option<Location>> {
            let found = set.find(id)?;
            Ok(found.map(|(sealed, entry)| Location {
                handle: Handle::Sealed(sealed),
                frame: entry.frame,
                slot: entry.slot,
            }))
        };
        let set = self.segments();
        if let Some(location) = self.known_open(id, &set) {
            return Ok(Some(location));
        }
        if let Some(location) = sealed(&set)? {
            return Ok(Some(location));
        }
        if let Some(location) = self.locate_open(id, &set)? {
            return Ok(Some(location));
        }
        // Sealed, appended or compacted since the directory was last looked at.
        let set = self.refresh()?;
        if let Some(location) = sealed(&set)? {
            return Ok(Some(location));
        }
        self.locate_open(id, &set)
    }

    /// Where an object stands in the open segment, as far as this process knows without asking.
    fn known_open(&self, id: &ObjectId, set: &SegmentSet) -> Option<Location> {
        let open = set.open.as_ref()?;
        let place = |(frame, slot)| Location { handle: Handle::Open(Arc::clone(open)), frame, slot };
        let published = open_ids::current(&self.published).filter(|known| known.path == open.path);
        if let Some(found) = published.and_then(|known| known.get(id)) {
            return Some(place(found));
        }
        let tables = self.open_tables.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.as_ref().filter(|tables| tables.nonce == open.header.nonce)?;
        tables.ids.get(id).copied().map(place)
    }

    fn locate_open(&self, id: &ObjectId, set: &SegmentSet) -> Result<Option<Location>> {
        let Some(open) = &set.open else { return Ok(None) };
        let handle = Handle::Open(Arc::clone(open));
        let mut tables = self.open_tables(&open.header.nonce, None);
        let mut place = tables.as_ref().and_then(|tables| tables.ids.get(id).copied());
        if place.is_none() {
            let rows = self.index.read(|view| view.segments()).ok().flatten().unwrap_or_default();
            let grown = rows.into_values().find(|row| row.nonce == open.header.nonce).map(|row| row.end);
            if grown.is_some() && tables.as_ref().map(|tables| tables.row.end) != grown {
                tables = self.open_tables(&open.header.nonce, grown);
                place = tables.as_ref().and_then(|tables| tables.ids.get(id).copied());
            }
        }
        if let Some((frame, slot)) = place {
            return Ok(Some(Location { handle, frame, slot }));
        }
        let Some(part) = unindexed_open(open, tables.as_ref().map(|tables| &tables.row))? else {
            return Ok(None);
        };
        for frame in part.objects_frames {
            let objects = self.objects(&handle, frame)?;
            for slot in 0..objects.len() {
                if objects.get_with_id(slot)?.0 == *id {
                    let slot = crate::codec::length_u32(slot);
                    return Ok(Some(Location { handle, frame, slot }));
                }
            }
        }
        Ok(None)
    }

    /// What the index says of the open segment with this nonce, up to `end` at least if that is asked for. A damaged
    /// index must not keep what is whole from being read: then nothing is known, and the segment is looked through.
    fn open_tables(&self, nonce: &[u8; 16], end: Option<u64>) -> Option<Arc<OpenTables>> {
        let mut cached = self.open_tables.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |tables: &&Arc<OpenTables>| tables.nonce == *nonce && end.is_none_or(|end| tables.row.end >= end);
        if let Some(tables) = cached.as_ref().filter(fits) {
            return Some(Arc::clone(tables));
        }
        let read = self.index.read(|view| {
            // What was open when the directory was last looked at may have been sealed since.
            if !view.is_open(nonce)? {
                return Ok(None);
            }
            let rows = view.segments()?;
            let Some(row) = rows.into_values().find(|row| row.nonce == *nonce) else { return Ok(None) };
            let ids = view.open_ids(&[0; 32], &[255; 32])?;
            let ids = ids.into_iter().map(|entry| (entry.id, (entry.frame, entry.slot))).collect();
            Ok(Some(OpenTables { nonce: *nonce, ids, frames: view.open_frames()?, row }))
        });
        let read = read.ok().flatten().flatten().map(Arc::new);
        if read.is_some() {
            cached.clone_from(&read);
        }
        read
    }

    /// The decoded events frame of a segment at an offset.
    fn events_frame(&self, handle: &Handle, offset: u32) -> Result<Arc<Vec<(Event, EventId)>>> {
        let mut kept = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(nonce, at, _)| nonce == handle.nonce() && *at == offset);
        if let Some((_, _, events)) = found {
            return Ok(Arc::clone(events));
        }
        let events = Arc::new(read_events(handle, offset)?);
        kept.push_back((*handle.nonce(), offset, Arc::clone(&events)));
        if kept.len() > EVENTS_FRAMES_KEPT {
            kept.pop_front();
        }
        Ok(events)
    }

    /// The decoded objects frame of a segment at an offset.
    pub fn objects(&self, handle: &Handle, offset: u32) -> Result<Arc<Objects>> {
        if let Some(objects) = self.cache.get(handle.nonce(), offset) {
            return Ok(objects);
        }
        let in_segment = |error: Error| {
            error.context(format!("cannot read segment `{}`", handle.path(&self.dir).display()))
        };
        let frame = read_frame(handle.file(), handle.key(), u64::from(offset)).map_err(in_segment)?;
        if frame.kind != FrameKind::Objects {
            return Err(in_segment(Error::corrupt(format!("frame at byte {offset}: expected objects"))));
        }
        let raw = frame.into_raw(&mut Unpacker::new()).map_err(in_segment)?;
        let objects = Arc::new(Objects::decode(raw).map_err(in_segment)?);
        self.cache.put(handle.nonce(), offset, Arc::clone(&objects));
        Ok(objects)
    }

    /// Reads an object whole and verifies its hash.
    pub fn read(&self, id: &ObjectId) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(id, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Hands an object over in parts, each verified before it is handed over; the whole is verified at the end.
    pub fn copy(&self, id: &ObjectId, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.copy_with(&[], id, sink)
    }

    /// The same, where segments that are not in the store yet are looked into first.
    pub fn copy_with(
        &self,
        extra: &[Arc<Sealed>],
        id: &ObjectId,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.refuse_erased(id)?;
        self.copy_part_with(extra, id, sink)
    }

    /// The same for an object that something live is put together of: it may be erased by itself.
    pub fn copy_part_with(
        &self,
        extra: &[Arc<Sealed>],
        id: &ObjectId,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (parts, bytes) = self.leaves_with(extra, id)?;
        let single = parts.len() == 1 && parts[0].id == *id;
        let mut whole = blake3::Hasher::new();
        let mut sum = 0u64;
        for part in parts {
            self.with_plain(extra, &part.id, &mut |bytes| {
                if bytes.len() as u64 != part.bytes {
                    return Err(mismatch(id));
                }
                sum += part.bytes;
                if !single {
                    whole.update(bytes);
                }
                sink(bytes)
            })?;
        }
        if !single && (sum != bytes || whole.finalize().as_bytes() != id.as_bytes()) && !checks_skipped() {
            return Err(mismatch(id));
        }
        Ok(())
    }

    /// Puts an object together and compares its hash and length; its parts are not hashed one by one.
    pub fn prove_with(&self, extra: &[Arc<Sealed>], id: &ObjectId) -> Result<()> {
        let (parts, bytes) = self.leaves_with(extra, id)?;
        let (mut whole, mut sum) = (blake3::Hasher::new(), 0u64);
        for part in parts {
            let location = self.locate_with(extra, &part.id)?.ok_or_else(|| missing(&part.id))?;
            let objects = self.objects(&location.handle, location.frame)?;
            match objects.get(location.slot as usize)? {
                Stored::Plain(plain) if plain.len() as u64 == part.bytes => whole.update(plain),
                _ => return Err(mismatch(id)),
            };
            sum += part.bytes;
        }
        if (sum != bytes || whole.finalize().as_bytes() != id.as_bytes()) && !checks_skipped() {
            return Err(mismatch(id));
        }
        Ok(())
    }

    /// The plain objects that an object is put together from, in order, and its length.
    pub fn leaves(&self, id: &ObjectId) -> Result<(Vec<Part>, u64)> {
        self.leaves_with(&[], id)
    }

    fn leaves_with(&self, extra: &[Arc<Sealed>], id: &ObjectId) -> Result<(Vec<Part>, u64)> {
        let mut leaves = Vec::new();
        let total = self.leaves_into(extra, id, None, 0, &mut leaves)?;
        Ok((leaves, total))
    }

    /// Finds an object, in segments that are not in the store yet or in the store.
    pub fn locate_with(&self, extra: &[Arc<Sealed>], id: &ObjectId) -> Result<Option<Location>> {
        for sealed in extra {
            if let Some(entry) = sealed.find(id)? {
                let handle = Handle::Sealed(Arc::clone(sealed));
                return Ok(Some(Location { handle, frame: entry.frame, slot: entry.slot }));
            }
        }
        self.locate(id)
    }

    fn leaves_into(
        &self,
        extra: &[Arc<Sealed>],
        id: &ObjectId,
        bytes: Option<u64>,
        depth: usize,
        leaves: &mut Vec<Part>,
    ) -> Result<u64> {
        if depth > RECIPE_DEPTH_MAX {
            return Err(Error::corrupt(format!("the recipe of object `{}` is too deep", id.short())));
        }
        let location = self.locate_with(extra, id)?.ok_or_else(|| missing(id))?;
        let objects = self.objects(&location.handle, location.frame)?;
        let total = match objects.get(location.slot as usize)? {
            Stored::Plain(plain) => {
                leaves.push(Part { id: *id, bytes: plain.len() as u64 });
                plain.len() as u64
            }
            Stored::Recipe(recipe) => {
                if recipe.id != *id {
                    return Err(mismatch(id));
                }
                for part in &recipe.parts {
                    self.leaves_into(extra, &part.id, Some(part.bytes), depth + 1, leaves)?;
                }
                recipe.bytes
            }
        };
        if bytes.is_some_and(|bytes| bytes != total)
            || total > OBJECT_BYTES_MAX
            || leaves.len() > RECIPE_PARTS_MAX
        {
            return Err(mismatch(id));
        }
        Ok(total)
    }

    /// Hands a plain object's bytes over after comparing their hash.
    pub(super) fn with_plain(
        &self,
        extra: &[Arc<Sealed>],
        id: &ObjectId,
        work: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let location = self.locate_with(extra, id)?.ok_or_else(|| missing(id))?;
        let objects = self.objects(&location.handle, location.frame)?;
        let Stored::Plain(bytes) = objects.get(location.slot as usize)? else { return Err(mismatch(id)) };
        if !checks_skipped() && ObjectId::of(bytes) != *id {
            return Err(mismatch(id));
        }
        work(bytes)
    }

    /// Reads an event by its place.
    pub fn event(&self, handle: &Handle, number: u32, row: Option<&SegmentRow>) -> Result<(Event, EventId)> {
        let place = match handle {
            Handle::Sealed(sealed) => sealed.directory.locate_event(number),
            Handle::Open(_) => {
                let holds = |tables: &Arc<OpenTables>| number < tables.row.events;
                let tables = self.open_tables(handle.nonce(), row.map(|row| row.end)).filter(holds);
                // The index may have seen more of the segment than whoever asks.
                let tables =
                    tables.or_else(|| self.open_tables(handle.nonce(), Some(u64::MAX)).filter(holds));
                tables.and_then(|tables| crate::segment::locate_event(&tables.frames, number))
            }
        };
        let broken = || {
            let path = handle.path(&self.dir);
            Error::corrupt(format!("segment `{}` has no event number {number}", path.display()))
        };
        let (offset, slot) = place.ok_or_else(broken)?;
        self.events_frame(handle, offset)?.get(slot).cloned().ok_or_else(broken)
    }

    /// What the open segment holds now, where this process has written or read all of it; see [`Store::prepare_bulk`].
    pub fn open_part(&self) -> Result<Option<OpenPart>> {
        let part = {
            let log = self.log();
            let Some(open) = log.open_contents() else { return Ok(None) };
            open
        };
        let here = |set: &SegmentSet| set.open.clone().filter(|open| open.header.nonce == part.nonce);
        let open = match here(&self.segments()) {
            Some(open) => Some(open),
            None => here(&self.refresh()?),
        };
        let gone = || Error::new(ErrorKind::NotFound, "the open segment is gone");
        Ok(Some(OpenPart {
            file: open.ok_or_else(gone)?,
            frames: part.frames,
            runs: part.runs,
            events: part.events,
            end: part.end,
        }))
    }

    /// The events that the store holds.
    pub fn held(&self, snapshot: &Snapshot) -> Result<EventSet> {
        let runs = self.index.read(|view| view.runs())?.unwrap_or_default();
        let indexed = runs.iter().map(|(_, run)| (run.writer, run.seq_first.get(), run.seq_last()));
        let rest = snapshot.unindexed.iter().flat_map(|part| &part.events);
        let rest = rest.map(|(event, _, _)| (event.writer, event.seq.get(), event.seq.get()));
        Ok(EventSet::from_ranges(indexed.chain(rest)))
    }
}
