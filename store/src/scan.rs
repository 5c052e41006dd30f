//! Reading a segment from front to back: batches, the torn tail, and damage.
//!
//! Recovery cuts only within the last batch (I8): a bad frame with a valid commit of a *later* batch behind it is
//! damage, because that batch was only written after the sync of the one before had returned. This module says
//! which; it changes nothing.

use std::collections::HashMap;

use memchr::memmem;

use crate::codec::Decoder;
use crate::env::File;
use crate::error::{Error, Result};
use crate::event::{Event, Fact, decode_events};
use crate::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, Frame, FrameHeader, FrameKey, FrameKind, Unpacker};
use crate::id::{EventId, ObjectId};
use crate::kind::Kind;
use crate::limits::{
    BATCH_RAW_BYTES_MAX, OBJECT_BYTES_MAX, RECIPE_DEPTH_MAX, RECIPE_PARTS_MAX, SEGMENT_BYTES_MAX,
    SEGMENT_EVENTS_MAX, SEGMENT_NAMES_MAX,
};
use crate::object::{Objects, Recipe, Stored};
use crate::record::{self, Name};
use crate::segment::{Commit, Contents, EventsPlace, LogTail, read_footer, read_frame};
use crate::table::{IdEntry, NameEntry};
use crate::time::Timestamp;
use crate::writer::{Tip, decode_tips};

const SEARCH_BYTES: usize = 1 << 20;
/// Bytes that are hashed at the most while a whole frame is looked for.
const SEARCH_BYTES_MAX: u64 = 256 << 20;

/// One committed batch as it lies in the file.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its frames, but for the commit, with their offsets.
    pub frames: Vec<(u64, Frame)>,
    /// Its end.
    pub commit: Commit,
    /// Where the next batch starts.
    pub end: u64,
    /// Whether a frame of it is damaged, so that what is here is not all.
    pub damaged: bool,
}

/// A frame, or bytes where one should be, that cannot be read.
#[derive(Debug)]
pub struct Damage {
    /// Where it starts.
    pub offset: u64,
    /// What is wrong.
    pub error: Error,
}

/// What stood at the end of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last commit ends the file.
    Clean,
    /// Bytes follow the last commit that were never acknowledged.
    Torn,
    /// A footer follows the last commit.
    Footer,
}

/// The result of reading a segment to its end.
#[derive(Debug)]
pub struct Scan {
    /// Where the last whole batch ends.
    pub end: u64,
    /// The number of the last whole batch.
    pub batch: u64,
    /// The own log after it.
    pub tail: LogTail,
    /// Events up to there.
    pub events: u32,
    /// What follows.
    pub ending: Ending,
    /// What is damaged before it.
    pub damage: Vec<Damage>,
}

/// Where a scan starts: at the header's end, or at a commit that is known.
#[derive(Clone, Copy, Debug)]
pub struct ScanStart {
    /// The offset of the next batch.
    pub offset: u64,
    /// The number of the batch before.
    pub batch: u64,
    /// The own log there.
    pub tail: LogTail,
    /// Events before.
    pub events: u32,
}

/// Reads batch after batch from a known place and hands each over.
pub fn scan(
    file: &dyn File,
    key: &FrameKey,
    start: ScanStart,
    each: &mut dyn FnMut(Batch) -> Result<()>,
) -> Result<Scan> {
    let file_bytes = file.len().map_err(|error| Error::io("cannot read a segment's length", error))?;
    if file_bytes > SEGMENT_BYTES_MAX {
        return Err(Error::corrupt(format!(
            "a segment of {file_bytes} bytes is over the limit of {SEGMENT_BYTES_MAX}"
        )));
    }
    let mut state = Scan {
        end: start.offset,
        batch: start.batch,
        tail: start.tail,
        events: start.events,
        ending: Ending::Clean,
        damage: Vec::new(),
    };
    let mut at = start.offset;
    let mut frames = Vec::new();
    let mut suspected: Vec<Damage> = Vec::new();
    while at < file_bytes {
        let frame = match read_frame(file, key, at) {
            Ok(frame) => frame,
            // Only damage is passed over: an I/O error is no damage, nor is a frame of a newer format (I11).
            Err(error) if error.kind() != crate::ErrorKind::Corrupt => return Err(error),
            Err(error) => {
                suspected.push(Damage { offset: at, error });
                match next_frame(file, key, at + 1, file_bytes)? {
                    Some(offset) => at = offset,
                    None => break,
                }
                continue;
            }
        };
        let bytes = frame.file_bytes();
        match frame.kind {
            FrameKind::Commit => {
                let commit = Commit::decode(&frame.stored)?;
                let expected = state.batch + 1;
                let in_order = commit.batch == expected && suspected.is_empty();
                if !in_order && !confirms_damage(file, key, &commit, expected, at + bytes, file_bytes)? {
                    break;
                }
                if commit.batch < expected {
                    suspected.push(Damage {
                        offset: at,
                        error: Error::corrupt(format!(
                            "batch {} stands after batch {}",
                            commit.batch, state.batch
                        )),
                    });
                    at += bytes;
                    continue;
                }
                at += bytes;
                let damaged = !suspected.is_empty() || commit.batch != expected;
                if commit.batch != expected && suspected.is_empty() {
                    let error =
                        Error::corrupt(format!("batch {expected} is missing before batch {}", commit.batch));
                    suspected.push(Damage { offset: state.end, error });
                }
                state.damage.append(&mut suspected);
                state.end = at;
                state.batch = commit.batch;
                state.tail = commit.tail;
                state.events = commit.events;
                each(Batch { frames: std::mem::take(&mut frames), commit, end: at, damaged })?;
            }
            FrameKind::Objects | FrameKind::Events | FrameKind::Tips => {
                frames.push((at, frame));
                at += bytes;
            }
            FrameKind::Ids
            | FrameKind::Names
            | FrameKind::Filter
            | FrameKind::Directory
            | FrameKind::Trailer => {
                state.ending = Ending::Footer;
                state.damage.append(&mut suspected);
                return Ok(state);
            }
        }
    }
    if state.end < file_bytes {
        state.ending = Ending::Torn;
    }
    Ok(state)
}

/// The same for a segment that is not named as sealed: a footer in it was never acknowledged, so it may be torn.
pub fn scan_open(
    file: &dyn File,
    key: &FrameKey,
    start: ScanStart,
    each: &mut dyn FnMut(Batch) -> Result<()>,
) -> Result<Scan> {
    let mut scanned = scan(file, key, start, each)?;
    if scanned.ending == Ending::Footer && !scanned.damage.is_empty() {
        let bytes = file.len().map_err(|error| Error::io("cannot read a segment's length", error))?;
        let footer = read_footer(file, key, bytes).ok().flatten();
        if footer.is_none_or(|footer| footer.start <= scanned.end) {
            scanned.damage.retain(|damage| damage.offset < scanned.end);
        }
    }
    Ok(scanned)
}

/// Whether a commit that does not follow in order shows damage rather than a torn last batch: it is of a later
/// batch, or one of a later batch follows.
fn confirms_damage(
    file: &dyn File,
    key: &FrameKey,
    commit: &Commit,
    expected: u64,
    from: u64,
    file_bytes: u64,
) -> Result<bool> {
    if commit.batch > expected {
        return Ok(true);
    }
    let mut at = from;
    while let Some(offset) = next_frame(file, key, at, file_bytes)? {
        let frame = read_frame(file, key, offset)?;
        match frame.kind {
            FrameKind::Commit if Commit::decode(&frame.stored)?.batch > expected => return Ok(true),
            FrameKind::Ids | FrameKind::Directory | FrameKind::Trailer => return Ok(true),
            _ => at = offset + frame.file_bytes(),
        }
    }
    Ok(false)
}

/// Finds the next whole frame at or after an offset.
pub fn next_frame(file: &dyn File, key: &FrameKey, from: u64, file_bytes: u64) -> Result<Option<u64>> {
    let mut window = vec![0; SEARCH_BYTES];
    let mut budget = SEARCH_BYTES_MAX;
    let mut at = from;
    while at + 4 <= file_bytes {
        let length = usize::try_from(file_bytes - at).unwrap_or(usize::MAX).min(SEARCH_BYTES);
        file.read_exact_at(&mut window[..length], at)
            .map_err(|error| Error::io("cannot search a damaged segment", error))?;
        for found in memmem::find_iter(&window[..length], &FRAME_MAGIC) {
            let offset = at + found as u64;
            // What only looks like a header may make us read and hash much, again and again.
            let Ok(bytes) = frame_bytes(file, offset) else { continue };
            budget = budget.checked_sub(bytes).ok_or_else(|| {
                Error::corrupt(format!("too much behind byte {from} looks like frames and is none"))
            })?;
            if read_frame(file, key, offset).is_ok() {
                return Ok(Some(offset));
            }
        }
        at += (length - 3) as u64;
    }
    Ok(None)
}

/// How many bytes a frame at this offset would take, by its header alone.
fn frame_bytes(file: &dyn File, offset: u64) -> Result<u64> {
    let mut header = [0; FRAME_HEADER_BYTES];
    file.read_exact_at(&mut header, offset)
        .map_err(|error| Error::io("cannot search a damaged segment", error))?;
    Ok(FrameHeader::decode(&header)?.file_bytes())
}

/// Under what an event is to be found: derived from its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Prefixes of its names; true where it only cites them.
    pub names: Vec<([u8; 8], bool)>,
    /// What it can be listed by.
    pub terms: Vec<Term>,
}

/// A property that events are listed by, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub [u8; 8]);

impl Term {
    /// All events.
    pub const ALL: Term = Term([0; 8]);

    /// Events of a kind; all unknown ones are found together.
    pub fn kind(kind: Kind) -> Term {
        let kind = if kind.is_known() { kind } else { Kind::UNKNOWN };
        Term([0, 0, 0, 0, 0, 0, 1, kind.number()])
    }

    /// Events of an agent's session.
    pub fn session(session: &str) -> Term {
        Term::hashed(b's', session)
    }

    /// Events that concern a file.
    pub fn path(path: &str) -> Term {
        Term::hashed(b'p', path)
    }

    fn hashed(sort: u8, text: &str) -> Term {
        // Most texts are short, and hashing one short piece is several times faster than a hasher with state.
        let mut short = [0; 128];
        short[0] = sort;
        let hash = match short.get_mut(1..=text.len()) {
            Some(room) => {
                room.copy_from_slice(text.as_bytes());
                blake3::hash(&short[..=text.len()])
            }
            None => blake3::Hasher::new().update(&[sort]).update(text.as_bytes()).finalize(),
        };
        Term(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }
}

/// Derives an event's marks from its record; a record that cannot be read is found by its key and objects alone.
pub fn marks(fact: &Fact, record: &[u8]) -> Marks {
    let facts = if fact.kind.is_known() { record::facts(fact.kind, record).ok() } else { None };
    match facts {
        Some(facts) => marks_of(&facts, &fact.objects),
        None => {
            let mut marks = Marks::default();
            marks.names.push((record::name_prefix(&fact.key), false));
            marks.names.extend(fact.objects.iter().map(|id| (object_prefix(id), false)));
            marks
        }
    }
}

/// The prefix under which the events that list an object are found.
pub fn object_prefix(id: &ObjectId) -> [u8; 8] {
    id.as_bytes()[..8].try_into().expect("an id has 32 bytes")
}

/// The marks of a record whose facts have been read and whose event lists these objects.
pub fn marks_of(facts: &record::Facts<'_>, objects: &[ObjectId]) -> Marks {
    let mut marks = Marks {
        names: Vec::with_capacity(1 + objects.len() + facts.names.len()),
        terms: Vec::with_capacity(usize::from(facts.session.is_some()) + facts.paths.len()),
    };
    marks.names.push((record::name_prefix(&facts.key), false));
    marks.names.extend(objects.iter().map(|id| (object_prefix(id), false)));
    for name in &facts.names {
        marks.names.push(match name {
            Name::Is(name) => (record::name_prefix(name), false),
            Name::Cites(name) => (record::name_prefix(name), true),
        });
    }
    marks.terms.extend(facts.session.iter().map(|session| Term::session(session)));
    marks.terms.extend(facts.paths.iter().map(|path| Term::path(path)));
    marks
}

/// One event's entry in the time-ordered index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The event's time.
    pub time: Timestamp,
    /// The event's number in its segment.
    pub event: u32,
    /// The event's kind.
    pub kind: Kind,
    /// What else it is listed by.
    pub terms: Vec<Term>,
}

/// A batch taken apart, every object hashed, every event's id computed.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    /// Where each object stands.
    pub ids: Vec<IdEntry>,
    /// Objects that have a recipe, with their parts.
    pub recipes: Vec<Recipe>,
    /// Those of them of which all parts stand in the batch and put together what they should, where that was asked for.
    pub proved: Vec<ObjectId>,
    /// Raw bytes of the objects frames.
    pub raw_bytes: u64,
    /// Offsets of the objects frames.
    pub objects_frames: Vec<u32>,
    /// Events frames: offset and number of events.
    pub events_frames: Vec<(u32, u32)>,
    /// The events with their ids and marks.
    pub events: Vec<(Event, EventId, Marks)>,
    /// Tips frames.
    pub tips_frames: Vec<u32>,
    /// The tips in them.
    pub tips: Vec<Tip>,
}

/// An offset in a segment, which is bounded.
pub fn offset_u32(offset: u64) -> u32 {
    u32::try_from(offset).expect("segments are bounded by limits")
}

/// Takes a batch apart. `fetch` finds a record that stands in an earlier batch; where `prove` is set, recipes are put
/// together as long as their parts are at hand.
pub fn digest(
    batch: &Batch,
    unpacker: &mut Unpacker,
    fetch: &dyn Fn(&ObjectId) -> Result<Vec<u8>>,
    prove: bool,
) -> Result<Digest> {
    let mut digest = Digest::default();
    let raw = batch.raw_bytes();
    if raw > BATCH_RAW_BYTES_MAX {
        return Err(Error::corrupt(format!(
            "a batch of {raw} bytes is over the limit of {BATCH_RAW_BYTES_MAX}"
        )));
    }
    let mut decoded: Vec<Objects> = Vec::new();
    let mut places: HashMap<ObjectId, (usize, usize)> = HashMap::new();
    for (offset, frame) in &batch.frames {
        let at = |error: Error| error.context(format!("frame at byte {offset} cannot be decoded"));
        let raw = frame.clone().into_raw(unpacker).map_err(at)?;
        match frame.kind {
            FrameKind::Objects => {
                let objects = Objects::decode(raw).map_err(at)?;
                digest.raw_bytes += objects.raw_bytes() as u64;
                digest.objects_frames.push(offset_u32(*offset));
                for slot in 0..objects.len() {
                    let (id, stored) = objects.get_with_id(slot).map_err(at)?;
                    digest.ids.push(IdEntry {
                        id,
                        frame: offset_u32(*offset),
                        slot: crate::codec::length_u32(slot),
                    });
                    match stored {
                        Stored::Plain(_) => {
                            places.insert(id, (decoded.len(), slot));
                        }
                        Stored::Recipe(recipe) => digest.recipes.push(recipe),
                    }
                }
                decoded.push(objects);
            }
            FrameKind::Events => {
                let events = decode_events(&raw).map_err(at)?;
                digest.events_frames.push((offset_u32(*offset), crate::codec::length_u32(events.len())));
                digest.events.extend(events.into_iter().map(|(event, id)| (event, id, Marks::default())));
            }
            FrameKind::Tips => {
                digest.tips_frames.push(offset_u32(*offset));
                let mut decoder = Decoder::new("tips frame", &raw);
                digest.tips.extend(decode_tips(&mut decoder).map_err(at)?);
                decoder.finish().map_err(at)?;
            }
            _ => {
                return Err(Error::corrupt(format!("frame at byte {offset}: it does not belong in a batch")));
            }
        }
    }
    for (event, _, event_marks) in &mut digest.events {
        let record = event.fact.objects[0];
        let here = places.get(&record).map(|(frame, slot)| decoded[*frame].get(*slot));
        *event_marks = match here {
            Some(Ok(Stored::Plain(bytes))) => marks(&event.fact, bytes),
            _ => match fetch(&record) {
                Ok(bytes) => marks(&event.fact, &bytes),
                // A missing record is damage that `verify` names; the event is still found by its key.
                Err(_) => marks(&event.fact, &[]),
            },
        };
    }
    if prove {
        let recipes: HashMap<ObjectId, &Recipe> =
            digest.recipes.iter().map(|recipe| (recipe.id, recipe)).collect();
        let at_hand = AtHand { decoded: &decoded, places: &places, recipes: &recipes };
        digest.proved =
            digest.recipes.iter().filter(|recipe| at_hand.proves(recipe)).map(|recipe| recipe.id).collect();
    }
    Ok(digest)
}

/// The objects of a batch, whose hashes have been compared.
struct AtHand<'a> {
    decoded: &'a [Objects],
    places: &'a HashMap<ObjectId, (usize, usize)>,
    recipes: &'a HashMap<ObjectId, &'a Recipe>,
}

impl AtHand<'_> {
    /// Whether a recipe puts together what its id says. One that needs what is not at hand is not proved; nor is one that
    /// is false, which whoever looks at it again then says.
    fn proves(&self, recipe: &Recipe) -> bool {
        let (mut whole, mut parts) = (blake3::Hasher::new(), 0);
        self.put_together(recipe, 0, &mut parts, &mut whole) == Some(recipe.bytes)
            && recipe.bytes <= OBJECT_BYTES_MAX
            && whole.finalize().as_bytes() == recipe.id.as_bytes()
    }

    fn put_together(
        &self,
        recipe: &Recipe,
        depth: usize,
        parts: &mut usize,
        whole: &mut blake3::Hasher,
    ) -> Option<u64> {
        let mut sum = 0u64;
        for part in &recipe.parts {
            *parts += 1;
            if depth >= RECIPE_DEPTH_MAX || *parts > RECIPE_PARTS_MAX {
                return None;
            }
            let bytes = match (self.places.get(&part.id), self.recipes.get(&part.id)) {
                (Some((frame, slot)), _) => match self.decoded[*frame].get(*slot) {
                    Ok(Stored::Plain(bytes)) => {
                        whole.update(bytes);
                        bytes.len() as u64
                    }
                    _ => return None,
                },
                // Compared before anything is hashed, so that false lengths cost nothing.
                (None, Some(base)) if base.bytes == part.bytes => {
                    self.put_together(base, depth + 1, parts, whole)?
                }
                _ => return None,
            };
            if bytes != part.bytes {
                return None;
            }
            sum += bytes;
        }
        Some(sum)
    }
}

impl Batch {
    /// Bytes of its frames after decompression.
    pub fn raw_bytes(&self) -> u64 {
        self.frames.iter().map(|(_, frame)| u64::from(frame.raw_bytes)).sum()
    }
}

impl Contents {
    /// Adds a batch, and returns its events' rows for the index.
    pub fn absorb(&mut self, digest: Digest) -> Result<Vec<Row>> {
        let names = digest.events.iter().map(|(_, _, marks)| marks.names.len()).sum::<usize>();
        let events = self.events as usize + digest.events.len();
        if self.names.len() + names > SEGMENT_NAMES_MAX || events > SEGMENT_EVENTS_MAX as usize {
            return Err(Error::corrupt("a segment holds more events or names than its limit"));
        }
        self.raw_bytes += digest.raw_bytes;
        self.ids.extend(digest.ids);
        self.objects_frames.extend(digest.objects_frames);
        self.tips_frames.extend(digest.tips_frames);
        let mut first_event = self.events;
        for (offset, count) in digest.events_frames {
            self.events_frames.push(EventsPlace { first_event, offset });
            first_event += count;
        }
        let mut rows = Vec::with_capacity(digest.events.len());
        for (event, id, marks) in digest.events {
            let number = self.events;
            self.names.extend(marks.names.iter().map(|(prefix, cites)| NameEntry {
                prefix: *prefix,
                event: number,
                cites: *cites,
            }));
            rows.push(Row {
                time: event.fact.time,
                event: number,
                kind: event.fact.kind,
                terms: marks.terms,
            });
            self.add_event(&event, id);
        }
        Ok(rows)
    }
}
