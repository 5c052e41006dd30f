//! The auditor: reads stores and the remote from the raw bytes on the disk, past every reading path of the store.
//!
//! Shares with the store only the decoders of frames, events and heads. Changes nothing, not even the trace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::event::{Event, decode_events};
use agent_trace_store::frame::{FrameKey, FrameKind, Unpacker};
use agent_trace_store::id::encode_hex;
use agent_trace_store::object::{Objects, Recipe, Stored};
use agent_trace_store::scan::{Ending, ScanStart, scan, scan_open};
use agent_trace_store::segment::{HEADER_BYTES, SegmentHeader};
use agent_trace_store::{EventId, ObjectId, WriterId};
use agent_trace_sync::head::Head;
use agent_trace_sync::manifest::{Manifest, NO_MANIFEST, segment_key};
use agent_trace_tests::MemoryFile;

use crate::lens::Lens;

/// Where an event stands: whose log, and its number there.
pub(crate) type Seat = (WriterId, u64);

/// What one segment file holds, every object hashed and every event's id computed.
pub(crate) struct Segment {
    events: Vec<(Event, EventId)>,
    objects: Vec<ObjectId>,
    recipes: Vec<Recipe>,
    ending: Ending,
    damage: Vec<String>,
}

/// What a store or remote holds.
#[derive(Default)]
pub(crate) struct Holding {
    /// Its events.
    pub(crate) events: BTreeMap<Seat, (Rc<Event>, EventId)>,
    /// Its objects, each with all that its recipe needs.
    pub(crate) objects: BTreeSet<ObjectId>,
    /// Whether the open segment, if there is one, ends at a commit.
    pub(crate) clean: bool,
}

impl Holding {
    /// The records of all events.
    pub(crate) fn records(&self) -> BTreeSet<ObjectId> {
        self.events.values().map(|(event, _)| event.fact.objects[0]).collect()
    }

    /// Where its events stand, with their ids.
    pub(crate) fn seats(&self) -> BTreeMap<Seat, EventId> {
        self.events.iter().map(|(seat, (_, id))| (*seat, *id)).collect()
    }
}

/// Reads segments, each content once.
#[derive(Default)]
pub(crate) struct Auditor {
    parsed: HashMap<([u8; 32], bool), Rc<Segment>>,
    lens: Option<Lens>,
}

impl Auditor {
    /// One that reads plain remotes, or encrypted ones.
    pub(crate) fn new(encrypted: bool) -> Auditor {
        Auditor { lens: encrypted.then(Lens::default), ..Auditor::default() }
    }

    /// What the segments of a store hold. Damage, doubled events, misfits and missing objects fail.
    pub(crate) fn store(&mut self, disk: &SimDisk, dir: &Path) -> Holding {
        let segments = dir.join("segments");
        let mut holding = Holding { clean: true, ..Holding::default() };
        let mut recipes = Vec::new();
        // A compaction that was cut has put the new segments in place; who opens the store next removes the old.
        let compacting = disk.read_file(&dir.join("compact.journal")).is_some();
        for path in disk.files().into_iter().filter(|path| path.starts_with(&segments)) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let Some(stem) = name.strip_suffix(".seg") else { continue };
            let bytes = disk.read_file(&path).expect("it is listed");
            let hash = *blake3::hash(&bytes).as_bytes();
            let open = stem.starts_with("open-");
            let segment = self.parse(hash, bytes, open);
            let place = path.display().to_string();
            assert!(segment.damage.is_empty(), "I4: `{place}` is damaged: {:?}", segment.damage);
            if open {
                holding.clean = segment.ending == Ending::Clean;
            } else {
                assert_eq!(encode_hex(&hash), stem, "the name of a sealed segment is its hash");
                assert_eq!(segment.ending, Ending::Footer, "`{place}` has no footer");
            }
            add(&mut holding, &mut recipes, &segment, &place, !compacting);
        }
        close(&mut holding, recipes, &dir.display().to_string());
        holding
    }

    /// What the heads of a remote name, but for those of some writers.
    pub(crate) fn remote(&mut self, disk: &SimDisk, dir: &Path, but: &BTreeSet<WriterId>) -> Holding {
        let mut holding = Holding { clean: true, ..Holding::default() };
        let (mut recipes, mut added) = (Vec::new(), BTreeSet::new());
        let heads = dir.join("heads");
        if let Some(lens) = &mut self.lens {
            lens.turn(disk, dir);
        }
        for path in disk.files().into_iter().filter(|path| path.starts_with(&heads)) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name.starts_with('.') {
                continue;
            }
            let mut bytes = disk.read_file(&path).expect("it is listed");
            let mut name = name;
            if let Some(lens) = &self.lens {
                (name, bytes) = lens.head(&name, &bytes);
            }
            let head = Head::decode(&bytes).unwrap_or_else(|error| panic!("head `{name}`: {error}"));
            assert_eq!(head.writer.to_string(), name, "a head lies under its writer's name");
            if but.contains(&head.writer) {
                continue;
            }
            let mut next = head.manifest;
            while next != NO_MANIFEST {
                let key =
                    self.lens.as_ref().map_or_else(|| Manifest::key(&next), |lens| lens.manifest_key(&next));
                let path = dir.join(key);
                let bytes = disk.read_file(&path);
                let mut bytes =
                    bytes.unwrap_or_else(|| panic!("I2: `{}` is named but absent", path.display()));
                let mut names = Vec::new();
                if let Some(lens) = &self.lens {
                    (bytes, names) = lens.manifest(&next, &bytes);
                }
                let manifest = Manifest::decode(&next, &bytes).unwrap_or_else(|error| panic!("{error}"));
                for (number, (id, length)) in manifest.added.iter().enumerate() {
                    let there = self.lens.as_ref().map(|_| names[number]);
                    if !added.insert((*id, there)) {
                        continue;
                    }
                    let path = dir.join(segment_key(&there.map_or(*id, |there| there.name)));
                    let place = path.display().to_string();
                    let bytes = disk.read_file(&path);
                    let mut bytes = bytes.unwrap_or_else(|| panic!("I2: `{place}` is named but absent"));
                    if let (Some(lens), Some(there)) = (&mut self.lens, there) {
                        match lens.segment(id.as_bytes(), &there, &bytes) {
                            Some(content) => bytes = content,
                            None => {
                                let segment = Rc::clone(&self.parsed[&(*id.as_bytes(), false)]);
                                add(&mut holding, &mut recipes, &segment, &place, false);
                                continue;
                            }
                        }
                    }
                    assert_eq!(bytes.len() as u64, *length, "`{place}` has the length its manifest says");
                    let hash = *blake3::hash(&bytes).as_bytes();
                    assert_eq!(&hash, id.as_bytes(), "`{place}` has its hash");
                    let segment = self.parse(hash, bytes, false);
                    assert!(segment.damage.is_empty(), "`{place}`: {:?}", segment.damage);
                    assert_eq!(segment.ending, Ending::Footer, "`{place}` has a footer");
                    // Two writers may have put the same event there.
                    add(&mut holding, &mut recipes, &segment, &place, false);
                }
                next = manifest.previous;
            }
            for tip in &head.tips {
                tip.verify().unwrap_or_else(|error| panic!("a tip of head `{name}`: {error}"));
            }
        }
        close(&mut holding, recipes, "the remote");
        holding
    }

    fn parse(&mut self, hash: [u8; 32], bytes: Vec<u8>, open: bool) -> Rc<Segment> {
        let parsed = self.parsed.entry((hash, open)).or_insert_with(|| Rc::new(parse(bytes, open)));
        Rc::clone(parsed)
    }
}

fn parse(bytes: Vec<u8>, open: bool) -> Segment {
    let mut segment = Segment {
        events: Vec::new(),
        objects: Vec::new(),
        recipes: Vec::new(),
        ending: Ending::Clean,
        damage: Vec::new(),
    };
    let file = MemoryFile(bytes);
    let header = match SegmentHeader::read(&file) {
        Ok(header) => header,
        Err(error) => {
            segment.damage.push(error.to_string());
            return segment;
        }
    };
    let key = FrameKey::new(&header.nonce);
    let start = ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail: header.tail, events: 0 };
    let mut unpacker = Unpacker::new();
    let scan = if open { scan_open } else { scan };
    let scanned = scan(&file, &key, start, &mut |batch| {
        for (_, frame) in batch.frames {
            match frame.kind {
                FrameKind::Objects => {
                    let objects = Objects::decode(frame.into_raw(&mut unpacker)?)?;
                    for slot in 0..objects.len() {
                        let (id, stored) = objects.get_with_id(slot)?;
                        segment.objects.push(id);
                        if let Stored::Recipe(recipe) = stored {
                            segment.recipes.push(recipe);
                        }
                    }
                }
                FrameKind::Events => segment.events.extend(decode_events(&frame.into_raw(&mut unpacker)?)?),
                _ => {}
            }
        }
        Ok(())
    });
    match scanned {
        Ok(scanned) => {
            segment.ending = scanned.ending;
            segment.damage.extend(scanned.damage.iter().map(|damage| damage.error.to_string()));
        }
        Err(error) => segment.damage.push(error.to_string()),
    }
    segment
}

fn add(holding: &mut Holding, recipes: &mut Vec<Recipe>, segment: &Segment, place: &str, once: bool) {
    holding.objects.extend(segment.objects.iter().copied());
    recipes.extend(segment.recipes.iter().cloned());
    for (event, id) in &segment.events {
        let seat = (event.writer, event.seq.get());
        if let Some((_, other)) = holding.events.insert(seat, (Rc::new(event.clone()), *id)) {
            assert_eq!(other, *id, "I3: seq {} of writer `{}` has two ids", seat.1, seat.0.short());
            assert!(
                !once,
                "I3: seq {} of writer `{}` stands twice, last in `{place}`",
                seat.1,
                seat.0.short()
            );
        }
    }
}

/// Checks that what was gathered is closed (I1) and chained (I3).
fn close(holding: &mut Holding, recipes: Vec<Recipe>, place: &str) {
    for recipe in &recipes {
        for part in &recipe.parts {
            assert!(holding.objects.contains(&part.id), "I1: {place} lacks a part of a recipe");
        }
    }
    let mut before: Option<(&Seat, EventId)> = None;
    for (seat, (event, id)) in &holding.events {
        for object in &event.fact.objects {
            let (writer, seq) = (seat.0.short(), seat.1);
            assert!(holding.objects.contains(object), "I1: {place} lacks an object of `{writer}` seq {seq}");
        }
        if let Some((_, previous)) = before.filter(|(other, _)| other.0 == seat.0 && other.1 + 1 == seat.1) {
            assert_eq!(event.previous, previous, "I3: {place}: the chain breaks at seq {}", seat.1);
        }
        before = Some((seat, *id));
    }
}
