//! Taking erased bytes off a remote: segments that hold some are replaced by others without them, at once.
//!
//! The new segments go there first, then a manifest that names them and says what they replace, then the own head; only
//! then the old ones are removed. Cut anywhere, the next push by anybody who knows of the erase goes on. A remote in
//! which all has been looked at costs nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_trace_store::build::Builder;
use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::erase::{Named, Removal, removal, rewrite};
use agent_trace_store::id::IdSet;
use agent_trace_store::limits::SEGMENTS_MAX;
use agent_trace_store::segments::Sealed;
use agent_trace_store::store::{Handle, Location, read_events};
use agent_trace_store::{Erased, Error, ErrorKind, Kind, ObjectId, Result, SegmentId, Store};

use crate::head::RemoteId;
use crate::manifest::segment_key;
use crate::remote::{Remote, events_of};
use crate::state::State;
use crate::tables::{forget_table, keep_table, remote_segment};

const VERSION: u8 = 1;

/// What of a remote has been looked at: a note that may be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What was erased when segments were looked through.
    fingerprint: [u8; 32],
    /// Segments without erased bytes, or that have been removed.
    clean: BTreeSet<SegmentId>,
    /// Segments whose erase events are here.
    taken: BTreeSet<SegmentId>,
}

fn side_key(remote: &RemoteId) -> Vec<u8> {
    let mut key = b"erase:".to_vec();
    key.extend_from_slice(remote);
    key
}

impl Looked {
    /// Reads the note; one that cannot be read says nothing.
    pub fn load(store: &Store, remote: &RemoteId) -> Result<Looked> {
        let bytes = store.index().read(|view| view.side(&side_key(remote)))?.flatten();
        Ok(bytes.and_then(|bytes| Looked::decode(&bytes).ok()).unwrap_or_default())
    }

    /// Writes the note.
    pub fn save(&self, store: &Store, remote: &RemoteId) -> Result<()> {
        let bytes = self.encode();
        store.index().write(|change| change.set_side(&side_key(remote), Some(&bytes)))
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(VERSION).put(&self.fingerprint);
        for set in [&self.clean, &self.taken] {
            encoder.u32(length_u32(set.len()));
            for id in set {
                encoder.put(id.as_bytes());
            }
        }
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Looked> {
        let mut decoder = Decoder::new("note of what was looked through", bytes);
        if decoder.u8()? != VERSION {
            return Err(decoder.error("of another version"));
        }
        let mut looked = Looked { fingerprint: decoder.array()?, ..Looked::default() };
        for set in [&mut looked.clean, &mut looked.taken] {
            for _ in 0..decoder.count(32, SEGMENTS_MAX * 16)? {
                set.insert(SegmentId::from_bytes(decoder.array()?));
            }
        }
        decoder.finish()?;
        Ok(looked)
    }

    /// Whether the erase events of a segment are here.
    pub fn has_taken(&self, id: &SegmentId) -> bool {
        self.taken.contains(id)
    }

    /// Notes that the erase events of a segment are here.
    pub fn add_taken(&mut self, id: SegmentId) {
        self.taken.insert(id);
    }
}

/// A hash of what is erased.
fn fingerprint(erased: &Erased) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    erased.acts().iter().for_each(|act| {
        hasher.update(act.event.as_bytes());
    });
    *hasher.finalize().as_bytes()
}

/// Segments that go in the place of others.
#[derive(Debug, Default)]
pub struct Instead {
    /// Those that are there now, with their lengths.
    pub added: Vec<(SegmentId, u64)>,
    /// Those whose place they take.
    pub replaces: Vec<SegmentId>,
}

/// What a push takes off a remote.
pub struct Withdrawal {
    looked: Looked,
    before: Looked,
    ids: IdSet,
    /// Live segments that hold something that is erased.
    concerned: Vec<(SegmentId, u64)>,
    /// Replaced segments that hold some and are still there.
    left: Vec<SegmentId>,
}

/// Finds out which segments of a remote hold erased bytes, by their footers.
pub fn look(store: &Store, remote: &Remote, id: &RemoteId, state: &State) -> Result<Option<Withdrawal>> {
    let erased = store.reload_erased()?;
    if erased.is_empty() {
        return Ok(None);
    }
    let before = Looked::load(store, id)?;
    let mut looked = before.clone();
    let now = fingerprint(&erased);
    if looked.fingerprint != now {
        looked.fingerprint = now;
        looked.clean.clear();
    }
    let ids: IdSet = erased.ids().copied().collect();
    let (mut concerned, mut left) = (Vec::new(), Vec::new());
    for (segment, bytes) in state.live_segments().filter(|(segment, _)| !looked.clean.contains(*segment)) {
        let sealed = remote_segment(store, remote.transport(), id, segment, *bytes)?;
        if holds(&sealed, &ids)? {
            concerned.push((*segment, *bytes));
        }
    }
    for segment in state.replaced.iter().filter(|segment| !looked.clean.contains(*segment)) {
        // It may be gone, as it should.
        if let Some(sealed) = open(remote, segment, None)?
            && holds(&sealed, &ids)?
        {
            left.push(*segment);
        }
    }
    let clean = state.live_segments().map(|(segment, _)| *segment).chain(state.replaced.iter().copied());
    let is_bad = |id: &SegmentId| left.contains(id) || concerned.iter().any(|(other, _)| other == id);
    looked.clean = clean.filter(|id| !is_bad(id)).collect();
    Ok(Some(Withdrawal { looked, before, ids, concerned, left }))
}

fn holds(sealed: &Sealed, ids: &IdSet) -> Result<bool> {
    sealed.load_filter()?;
    for id in ids {
        if sealed.find(id)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens a segment where it lies on the remote; nothing where it is not there, or is none.
fn open(remote: &Remote, id: &SegmentId, bytes: Option<u64>) -> Result<Option<Arc<Sealed>>> {
    let Some(file) = remote.transport().open(&segment_key(id))? else { return Ok(None) };
    let found = file.len().map_err(|error| Error::io("cannot look at a segment on the remote", error))?;
    match Sealed::from_file(file, bytes.unwrap_or(found), *id) {
        Err(error) if error.kind() == ErrorKind::Corrupt && bytes.is_none() => Ok(None),
        sealed => sealed.map(|sealed| Some(Arc::new(sealed))),
    }
}

impl Withdrawal {
    /// Whether a manifest is needed.
    pub fn replaces(&self) -> bool {
        !self.concerned.is_empty()
    }

    /// Makes the segments that go in the place of others, and sends them.
    pub fn send(&mut self, store: &Store, remote: &Remote, id: &RemoteId, state: &State) -> Result<Instead> {
        let mut instead = Instead::default();
        if self.concerned.is_empty() {
            return Ok(instead);
        }
        let shelf = Shelf::of(store, remote, id, state)?;
        let removal = shelf.removal(store, &self.concerned, &self.ids)?;
        for (listed, sealed) in shelf.listed.iter().zip(&shelf.opened) {
            // What is only a part of something live stays, and is no reason to write a segment anew.
            if !removal.concerns(listed)? {
                self.looked.clean.insert(listed.id);
                continue;
            }
            let mut builder = Builder::into(store.env(), remote.transport().create()?, store.tail()?);
            rewrite(sealed, &removal, &mut builder)?;
            let ended = builder.end()?;
            keep_table(store, id, &ended)?;
            ended.sink.name(&ended.id)?;
            instead.added.push((ended.id, ended.bytes));
            instead.replaces.push(listed.id);
        }
        self.looked.clean.extend(instead.added.iter().map(|(id, _)| *id));
        self.left.extend(&instead.replaces);
        Ok(instead)
    }

    /// Removes what is replaced, once the own head says so, and notes what has been looked through.
    pub fn finish(mut self, store: &Store, remote: &Remote, id: &RemoteId) -> Result<()> {
        for segment in &self.left {
            remote.transport().remove(&segment_key(segment))?;
            match forget_table(store, id, segment) {
                // The store may have had the segment itself.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.looked.clean.insert(*segment);
        }
        if self.looked != self.before {
            self.looked.save(store, id)?;
        }
        Ok(())
    }
}

/// The live segments of a remote, by their footers and opened there.
struct Shelf {
    listed: Vec<Arc<Sealed>>,
    opened: Vec<Arc<Sealed>>,
    /// Segments with events that are not here.
    foreign: Vec<Arc<Sealed>>,
}

impl Shelf {
    fn of(store: &Store, remote: &Remote, id: &RemoteId, state: &State) -> Result<Shelf> {
        let held = store.held(&store.snapshot()?)?;
        let mut shelf = Shelf { listed: Vec::new(), opened: Vec::new(), foreign: Vec::new() };
        for (segment, bytes) in state.live_segments() {
            let listed = remote_segment(store, remote.transport(), id, segment, *bytes)?;
            let absent = || Error::corrupt("the remote names it, but it is not there");
            let opened = open(remote, segment, Some(*bytes))?.ok_or_else(absent)?;
            if !events_of(&listed).minus(&held).is_empty() {
                shelf.foreign.push(Arc::clone(&opened));
            }
            shelf.listed.push(listed);
            shelf.opened.push(opened);
        }
        Ok(shelf)
    }

    /// What goes of the remote. An event of this store or of the remote makes what it lists live.
    fn removal(&self, store: &Store, concerned: &[(SegmentId, u64)], ids: &IdSet) -> Result<Removal> {
        let is_concerned = |sealed: &Arc<Sealed>| concerned.iter().any(|(id, _)| *id == sealed.id);
        let theirs = self.theirs(ids)?;
        let locate = |id: &ObjectId| -> Result<Option<Location>> {
            // Elsewhere the same object may be put together in another way: of what is erased, and of what may have it
            // as its base, the remote's own recipe counts.
            if theirs.contains(id) {
                return self.find(id);
            }
            match store.locate(id)? {
                Some(location) => Ok(Some(location)),
                None => self.find(id),
            }
        };
        let mut segments: Vec<Arc<Sealed>> =
            self.opened.iter().filter(|sealed| is_concerned(sealed)).cloned().collect();
        let mut known: BTreeSet<SegmentId> = segments.iter().map(|sealed| sealed.id).collect();
        let mut roots = store.segments().sealed.clone();
        for sealed in &self.foreign {
            if known.insert(sealed.id) {
                roots.push(Arc::clone(sealed));
            }
        }
        for id in &theirs {
            let place =
                self.opened.iter().zip(&self.listed).find_map(|(opened, listed)| match listed.find(id) {
                    Ok(Some(_)) => Some(Arc::clone(opened)),
                    _ => None,
                });
            if let Some(sealed) = place.filter(|sealed| known.insert(sealed.id)) {
                segments.push(sealed);
            }
        }
        removal(store, &locate, &segments, &roots, &Named { ids })
    }

    /// Erased objects, and live transcripts of the same conversations.
    fn theirs(&self, ids: &IdSet) -> Result<BTreeSet<ObjectId>> {
        let mut theirs: BTreeSet<ObjectId> = ids.iter().copied().collect();
        let mut keys: BTreeSet<String> = BTreeSet::new();
        let mut bodies: Vec<(String, Vec<ObjectId>)> = Vec::new();
        for sealed in
            self.opened.iter().filter(|sealed| sealed.directory.kinds.contains_key(&Kind::TRANSCRIPT))
        {
            let handle = Handle::Sealed(Arc::clone(sealed));
            for place in &sealed.directory.events_frames {
                for (event, _) in read_events(&handle, place.offset)? {
                    if event.fact.kind != Kind::TRANSCRIPT {
                        continue;
                    }
                    let of = event.fact.objects[1..].to_vec();
                    if of.iter().any(|id| ids.contains(id)) {
                        keys.insert(event.fact.key.clone());
                    }
                    bodies.push((event.fact.key, of));
                }
            }
        }
        for (key, of) in bodies {
            if keys.contains(&key) {
                theirs.extend(of);
            }
        }
        Ok(theirs)
    }

    fn find(&self, id: &ObjectId) -> Result<Option<Location>> {
        for (listed, opened) in self.listed.iter().zip(&self.opened) {
            if let Some(entry) = listed.find(id)? {
                let handle = Handle::Sealed(Arc::clone(opened));
                return Ok(Some(Location { handle, frame: entry.frame, slot: entry.slot }));
            }
        }
        Ok(None)
    }
}
