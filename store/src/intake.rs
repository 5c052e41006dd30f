//! Taking data in: records and bodies become objects, grouped, compressed and appended in batches.
//!
//! One intake belongs to one thread; several work on one store at once. An object that the store holds is not
//! stored again, a record that it holds makes no second event, so taking the same data in again adds nothing.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use fastcdc::v2020::FastCDC;
use sha2::{Digest as _, Sha256};

use crate::env::File;
use crate::erased::Erased;
use crate::error::{Error, Result};
use crate::event::Fact;
use crate::frame::{Effort, Packer};
use crate::id::{IdSet, ObjectId, encode_hex};
use crate::kind::Kind;
use crate::limits::{
    BATCH_EVENTS_MAX, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_LEAST, CHUNK_BYTES_MAX, CHUNK_BYTES_MOST,
    CHUNK_FRAME_BYTES_TARGET, INTAKE_BYTES_MAX, KEY_BYTES_MAX, OBJECT_BYTES_MAX, RECIPE_DEPTH_MAX,
    RECORD_BYTES_MAX, RECORD_FRAME_BYTES_TARGET,
};
use crate::log::{Draft, Prepared};
use crate::object::{ObjectsBuilder, ObjectsFrame, Part, Recipe};
use crate::record::Facts;
use crate::scan::marks_of;
use crate::segments::SegmentSet;
use crate::store::Store;
use crate::time::Timestamp;

const READ_BYTES: usize = 1 << 20;

/// A transcript that a later one of the same conversation may extend.
#[derive(Clone)]
pub struct Base {
    /// Its content.
    pub id: ObjectId,
    /// Its length.
    pub bytes: u64,
    /// Its parts, and how deep recipes are nested below it.
    parts: Vec<Part>,
    depth: usize,
    /// The SHA-256 state after it, where this process has computed it.
    sha256: Option<Sha256>,
}

impl Base {
    /// A base from an object that is in the store.
    pub fn of(store: &Store, id: ObjectId) -> Result<Base> {
        let (parts, bytes) = store.leaves(&id)?;
        // How deep it really is matters little: a base that is read back is extended once and then flattened.
        Ok(Base { id, bytes, parts, depth: RECIPE_DEPTH_MAX - 1, sha256: None })
    }
}

/// A body that has been taken in.
#[derive(Clone)]
pub struct Body {
    /// The hash that names it.
    pub id: ObjectId,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256 in hex, by which other tools know it.
    pub sha256: String,
    /// What a longer version of it starts from.
    pub base: Base,
}

/// What has been taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Events that were appended.
    pub events: u64,
    /// Records that the store held already.
    pub known: u64,
    /// Bytes of new objects before compression.
    pub bytes: u64,
    /// Records that were not taken in, since they or their conversations are erased.
    pub erased: u64,
}

impl Taken {
    /// Adds what another intake has taken in.
    pub fn add(&mut self, other: Taken) {
        self.events += other.events;
        self.known += other.known;
        self.bytes += other.bytes;
        self.erased += other.erased;
    }
}

/// One thread's way into a store.
pub struct Intake<'a> {
    store: &'a Store,
    record_packer: Packer,
    chunk_packer: Packer,
    /// Traces, transcripts and summaries, which a push may hold back, apart from the rest.
    held: ObjectsBuilder,
    free: ObjectsBuilder,
    chunks: ObjectsBuilder,
    frames: Vec<ObjectsFrame>,
    drafts: Vec<Draft>,
    new: IdSet,
    waiting: Vec<(Range<usize>, Draft)>,
    /// The bytes of the records that wait.
    waiting_records: Vec<u8>,
    /// The segments that were there when the first waiting record was asked for.
    asked: Option<Arc<SegmentSet>>,
    /// What is not taken in.
    erased: Arc<Erased>,
    taken: Taken,
    buffer: Vec<u8>,
    rest: Vec<u8>,
}

impl<'a> Intake<'a> {
    /// Starts taking data into a store.
    pub fn new(store: &'a Store) -> Intake<'a> {
        Intake {
            store,
            record_packer: Packer::new(Effort::FAST),
            chunk_packer: Packer::new(Effort::FAST_LONG),
            held: ObjectsBuilder::new(),
            free: ObjectsBuilder::new(),
            chunks: ObjectsBuilder::new(),
            frames: Vec::new(),
            drafts: Vec::new(),
            new: IdSet::default(),
            waiting: Vec::new(),
            waiting_records: Vec::new(),
            asked: None,
            erased: store.erased(),
            taken: Taken::default(),
            buffer: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Takes a record in, given as canonical JSON with the facts read from it; `bodies` are in the store or have been
    /// taken in here before.
    pub fn record(
        &mut self,
        kind: Kind,
        canonical: &[u8],
        facts: &Facts<'_>,
        time: Timestamp,
        bodies: &[ObjectId],
    ) -> Result<()> {
        if canonical.len() > RECORD_BYTES_MAX || facts.key.len() > KEY_BYTES_MAX {
            return Err(Error::invalid(format!("a {kind} is over its limit of {RECORD_BYTES_MAX} bytes")));
        }
        let id = ObjectId::of(canonical);
        let is_erased = |id: &ObjectId| self.erased.contains(id);
        if is_erased(&id) || bodies.iter().any(is_erased) || self.erased.covers(kind, facts) {
            self.taken.erased += 1;
            return Ok(());
        }
        if !self.new.insert(id) {
            self.taken.known += 1;
            return Ok(());
        }
        let mut objects = Vec::with_capacity(1 + bodies.len());
        objects.push(id);
        objects.extend_from_slice(bodies);
        let marks = marks_of(facts, &objects);
        let fact = Fact { kind, key: facts.key.clone().into_owned(), time, appended: time, objects };
        let start = self.waiting_records.len();
        self.waiting_records.extend_from_slice(canonical);
        self.waiting.push((start..self.waiting_records.len(), Draft { fact, marks }));
        if self.waiting.len() >= 256 {
            self.place_waiting()?;
        }
        Ok(())
    }

    /// Asks the store about the records that wait, together, and puts the new ones into frames.
    fn place_waiting(&mut self) -> Result<()> {
        let ids: Vec<ObjectId> = self.waiting.iter().map(|(_, draft)| draft.fact.objects[0]).collect();
        self.asked.get_or_insert_with(|| self.store.segments());
        let held = self.store.contains_all(&ids)?;
        for ((place, draft), held) in self.waiting.drain(..).zip(held) {
            if held {
                self.taken.known += 1;
                continue;
            }
            let canonical = &self.waiting_records[place];
            self.taken.bytes += canonical.len() as u64;
            let builder = match draft.fact.kind {
                Kind::LEDGER | Kind::COMMIT_LINK => &mut self.free,
                _ => &mut self.held,
            };
            if !builder.fits(canonical.len()) {
                self.frames.push(builder.finish(&mut self.record_packer));
            }
            builder.add(draft.fact.objects[0], canonical);
            if builder.raw_bytes() >= RECORD_FRAME_BYTES_TARGET {
                self.frames.push(builder.finish(&mut self.record_packer));
            }
            self.drafts.push(draft);
        }
        self.waiting_records.clear();
        let full = self.frames.iter().map(|objects| u64::from(objects.frame.raw_bytes)).sum::<u64>();
        if full >= INTAKE_BYTES_MAX || self.drafts.len() + 256 >= BATCH_EVENTS_MAX {
            self.append()?;
        }
        Ok(())
    }

    /// Takes a body in from a file of this length. Where it starts with all of `base`, only the rest is stored.
    pub fn body(&mut self, file: &dyn File, bytes: u64, base: Option<&Base>) -> Result<Body> {
        if bytes > OBJECT_BYTES_MAX {
            return Err(Error::invalid(format!("expected at most {OBJECT_BYTES_MAX} bytes, found {bytes}")));
        }
        if let Some(erased) = self.erased_body(file, bytes)? {
            return Ok(erased);
        }
        let base = base.filter(|base| !self.erased.contains(&base.id));
        let mut whole = blake3::Hasher::new();
        let mut sha256 = Sha256::new();
        let mut known = 0;
        let mut extended = None;
        if let Some(base) = base.filter(|base| base.bytes > 0 && base.bytes <= bytes) {
            // Only one of the two hashes is needed to compare; the other is kept from the last time if possible.
            let with_sha = base.sha256.is_none();
            read_through(file, 0, base.bytes, &mut self.buffer, &mut |part| {
                whole.update(part);
                if with_sha {
                    sha256.update(part);
                }
                Ok(())
            })?;
            let same = whole.finalize().as_bytes() == base.id.as_bytes();
            match (&base.sha256, same) {
                (Some(state), true) => sha256 = state.clone(),
                (Some(_), false) => {
                    read_through(file, 0, base.bytes, &mut self.buffer, &mut |part| {
                        sha256.update(part);
                        Ok(())
                    })?;
                }
                (None, _) => {}
            }
            known = base.bytes;
            extended = same.then_some(base);
        }
        let start = extended.map_or(0, |base| base.bytes);
        let mut parts = Vec::new();
        self.chunk_from(file, start, bytes, &mut parts, &mut |part, at| {
            let fresh = usize::try_from(known.saturating_sub(at)).unwrap_or(usize::MAX).min(part.len());
            whole.update(&part[fresh..]);
            sha256.update(&part[fresh..]);
        })?;
        let id = ObjectId::from_bytes(*whole.finalize().as_bytes());
        let (recipe_parts, depth) = match extended {
            Some(base) if base.depth + 1 < RECIPE_DEPTH_MAX && base.parts.len() > 1 => {
                let mut recipe = vec![Part { id: base.id, bytes: base.bytes }];
                recipe.extend_from_slice(&parts);
                (recipe, base.depth + 1)
            }
            Some(base) => (base.parts.iter().chain(&parts).copied().collect(), 0),
            None => (parts.clone(), 0),
        };
        let leaves = match extended {
            Some(base) => base.parts.iter().chain(&parts).copied().collect(),
            None => parts,
        };
        self.add_recipe(Recipe { id, bytes, parts: recipe_parts })?;
        let base = Base { id, bytes, parts: leaves, depth, sha256: Some(sha256.clone()) };
        Ok(Body { id, bytes, sha256: encode_hex(&sha256.finalize()), base })
    }

    /// Takes a part in that something live needs, even where it is erased by itself.
    pub fn part(&mut self, file: &dyn File, bytes: u64) -> Result<ObjectId> {
        let length = usize::try_from(bytes).ok().filter(|length| *length <= CHUNK_BYTES_MAX);
        let length = length.ok_or_else(|| {
            Error::invalid(format!("expected a part of at most {CHUNK_BYTES_MAX} bytes, found {bytes}"))
        })?;
        let mut part = vec![0; length];
        file.read_exact_at(&mut part, 0).map_err(shrunk)?;
        self.chunk(&part)
    }

    /// A body that is erased, of which nothing is to be stored: its parts are not either, so it is hashed first.
    fn erased_body(&mut self, file: &dyn File, bytes: u64) -> Result<Option<Body>> {
        if self.erased.is_empty() {
            return Ok(None);
        }
        let (mut whole, mut sha256) = (blake3::Hasher::new(), Sha256::new());
        read_through(file, 0, bytes, &mut self.buffer, &mut |part| {
            whole.update(part);
            sha256.update(part);
            Ok(())
        })?;
        let id = ObjectId::from_bytes(*whole.finalize().as_bytes());
        if !self.erased.contains(&id) {
            return Ok(None);
        }
        let base = Base { id, bytes, parts: Vec::new(), depth: 0, sha256: Some(sha256.clone()) };
        Ok(Some(Body { id, bytes, sha256: encode_hex(&sha256.finalize()), base }))
    }

    /// Cuts a file into chunks by content and stores those that are new; hands every byte over once.
    fn chunk_from(
        &mut self,
        file: &dyn File,
        start: u64,
        end: u64,
        parts: &mut Vec<Part>,
        hand_over: &mut dyn FnMut(&[u8], u64),
    ) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut rest = std::mem::take(&mut self.rest);
        rest.clear();
        let mut at = start;
        loop {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(READ_BYTES);
            buffer.resize(READ_BYTES, 0);
            file.read_exact_at(&mut buffer[..wanted], at).map_err(shrunk)?;
            hand_over(&buffer[..wanted], at);
            at += wanted as u64;
            rest.extend_from_slice(&buffer[..wanted]);
            let last = at == end;
            let mut used = 0;
            for chunk in FastCDC::new(&rest, CHUNK_BYTES_LEAST, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MOST) {
                // A cut near the end of what has been read may move once more is known.
                if !last && rest.len() - chunk.offset < CHUNK_BYTES_MOST {
                    break;
                }
                let bytes = &rest[chunk.offset..chunk.offset + chunk.length];
                parts.push(Part { id: self.chunk(bytes)?, bytes: bytes.len() as u64 });
                used = chunk.offset + chunk.length;
            }
            rest.drain(..used);
            if last {
                break;
            }
        }
        if start == end && parts.is_empty() && start == 0 {
            parts.push(Part { id: self.chunk(&[])?, bytes: 0 });
        }
        self.buffer = buffer;
        self.rest = rest;
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<ObjectId> {
        let id = ObjectId::of(bytes);
        if self.new.contains(&id) || self.store.contains(&id)? {
            return Ok(id);
        }
        if self.chunks.raw_bytes() + bytes.len() > CHUNK_FRAME_BYTES_TARGET || !self.chunks.fits(bytes.len())
        {
            self.frames.push(self.chunks.finish(&mut self.chunk_packer));
            let full = self.frames.iter().map(|objects| u64::from(objects.frame.raw_bytes)).sum::<u64>();
            if full >= 2 * INTAKE_BYTES_MAX {
                // A body may be larger than a batch; its chunks go ahead of the event that needs them.
                self.append()?;
            }
        }
        self.chunks.add(id, bytes);
        self.new.insert(id);
        self.taken.bytes += bytes.len() as u64;
        Ok(id)
    }

    fn add_recipe(&mut self, recipe: Recipe) -> Result<()> {
        // An object of one part is that part; its hash is the same.
        if recipe.parts.len() == 1 && recipe.parts[0].id == recipe.id {
            return Ok(());
        }
        if self.new.contains(&recipe.id) || self.store.contains(&recipe.id)? {
            return Ok(());
        }
        let bytes = recipe.encode().len();
        if !self.held.fits(bytes) {
            self.frames.push(self.held.finish(&mut self.record_packer));
        }
        self.new.insert(recipe.id);
        self.held.add_recipe(&recipe);
        Ok(())
    }

    /// Bytes that wait to be appended, before compression.
    pub fn waiting_bytes(&self) -> u64 {
        let frames: u64 = self.frames.iter().map(|objects| u64::from(objects.frame.raw_bytes)).sum();
        frames + (self.chunks.raw_bytes() + self.held.raw_bytes() + self.free.raw_bytes()) as u64
    }

    /// Appends what waits, if it has grown large enough to be worth a sync.
    pub fn append_if_large(&mut self) -> Result<()> {
        if self.waiting_bytes() >= INTAKE_BYTES_MAX { self.append() } else { Ok(()) }
    }

    /// Appends what waits; when this returns, it is durable.
    pub fn append(&mut self) -> Result<()> {
        let prepared = self.take()?;
        if prepared.is_empty() {
            // What the store held already is acknowledged too, and may have been left undurable by another process.
            return if self.taken.known > 0 { self.store.settle() } else { Ok(()) };
        }
        let offered = prepared.drafts.len() as u64;
        let appended = self.store.append(prepared)?.len() as u64;
        self.taken.events += appended;
        self.taken.known += offered - appended;
        Ok(())
    }

    /// Hands over what waits, for whoever appends it together with more.
    pub fn take(&mut self) -> Result<Prepared> {
        if !self.waiting.is_empty() {
            self.place_waiting()?;
        }
        for builder in [&mut self.held, &mut self.free] {
            if !builder.is_empty() {
                self.frames.push(builder.finish(&mut self.record_packer));
            }
        }
        if !self.chunks.is_empty() {
            self.frames.push(self.chunks.finish(&mut self.chunk_packer));
        }
        let prepared = Prepared {
            frames: std::mem::take(&mut self.frames),
            drafts: std::mem::take(&mut self.drafts),
            asked: self.asked.take(),
            ..Prepared::default()
        };
        self.new.clear();
        // What others erase meanwhile is not taken in from here on.
        self.erased = self.store.reload_erased()?;
        Ok(prepared)
    }

    /// Appends what waits and says what has been taken in.
    pub fn finish(mut self) -> Result<Taken> {
        self.append()?;
        Ok(self.taken)
    }
}

fn shrunk(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::invalid("the file became shorter while it was read"),
        _ => Error::io("cannot read the file", error),
    }
}

fn read_through(
    file: &dyn File,
    start: u64,
    end: u64,
    buffer: &mut Vec<u8>,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    buffer.resize(READ_BYTES, 0);
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(READ_BYTES);
        file.read_exact_at(&mut buffer[..wanted], at).map_err(shrunk)?;
        each(&buffer[..wanted])?;
        at += wanted as u64;
    }
    Ok(())
}
