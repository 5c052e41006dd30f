//! Uploads and pages of protocol 1: items become records with events of the service's own log.
//!
//! One upload is one batch in the store and one transaction of the arrivals. What is there already is told apart by what
//! answers for its key, so that most items cost no look into the store. A bad item is skipped; a pointer to bytes that
//! are nowhere refuses the upload. An item that is there already is acknowledged without a write.

use std::io;
use std::sync::{Arc, PoisonError};

use agent_trace_store::env::File;
use agent_trace_store::event::Fact;
use agent_trace_store::frame::{Effort, Packer};
use agent_trace_store::id::IdSet;
use agent_trace_store::intake::{Base, Intake};
use agent_trace_store::json::Canonicalizer;
use agent_trace_store::log::{Draft, Prepared};
use agent_trace_store::object::{ObjectsBuilder, ObjectsFrame};
use agent_trace_store::scan::object_prefix;
use agent_trace_store::segment::{LogTail, Run};
use agent_trace_store::{Error, ObjectId, Result, Seq, Store, Timestamp};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::archive::{ProjectArchive, Writing};
use super::arrivals::{self, ArrivedRun, Content, Mark};
use super::commit::Told;
use super::items::{Bytes, Parsed, Pointer, last_time, parse, parse_pointer};
use super::places::Places;
use super::winners::{
    Arrival, BodyRef, Times, Winner, has_state, key_hash, kind_of, rows, state_hash, winners,
};
use crate::limits::{
    BODIES_BYTES_TARGET, COMPARED_CONTENTS_MAX, ITEMS_FRAME_BYTES_TARGET, ITEMS_MAX, PAGE_ROWS_MAX,
};
use crate::service::archive::{Item, PageRow, Resource, Stored};
use crate::service::grant::TokenId;

/// What of a transcript is searched for its last time.
const TAIL_BYTES: u64 = 64 << 10;

impl ProjectArchive {
    /// Takes traces, ledgers, commit-links or summaries.
    pub(super) fn put_records(&self, resource: Resource, items: &[Item]) -> Result<Stored> {
        check_count(items)?;
        let parsed: Vec<std::result::Result<Parsed, String>> = items
            .par_iter()
            .map_init(Canonicalizer::new, |canonicalizer, item| parse(canonicalizer, resource, &item.json))
            .collect();
        let mut stored = Stored::default();
        let mut good = Vec::with_capacity(parsed.len());
        for (index, parsed) in parsed.into_iter().enumerate() {
            match parsed {
                Ok(parsed) => good.push(parsed),
                Err(reason) => stored.skipped.push((index, reason)),
            }
        }
        // Compressed before the lock of writers is taken; who was faster meanwhile sent some of the same at most.
        let expected = self.fresh(&self.seen().store, resource, &good)?;
        let frames = Frames::pack(&good, &expected);
        self.write(|writing| {
            let fresh = self.fresh(&writing.store, resource, &good)?;
            let new = fresh.iter().filter(|fresh| **fresh).count();
            stored.stored = new as u64;
            stored.known = (good.len() - new) as u64;
            if new == 0 {
                return Ok(());
            }
            let frames = if fresh == expected { frames } else { Frames::pack(&good, &fresh) };
            let now = self.env.clock.now();
            let mut told = Told::default();
            let mut drafts = Vec::with_capacity(new);
            for (parsed, _) in good.into_iter().zip(fresh).filter(|(_, fresh)| *fresh) {
                let time = parsed.time.unwrap_or(now);
                let key = key_hash(&parsed.key);
                told.arrivals.push(Arrival { resource, key, time, record: parsed.id, body: None });
                let objects = vec![parsed.id];
                let fact = Fact { kind: kind_of(resource), key: parsed.key, time, appended: now, objects };
                drafts.push(Draft { fact, marks: parsed.marks });
            }
            self.changing(writing, |writing| {
                let mut unit = Unit::begin(self);
                unit.append(writing, Prepared { frames, reissued: drafts, ..Prepared::default() }, None)?;
                unit.end(writing, &told, now)
            })
        })?;
        Ok(stored)
    }

    /// Which records are not here yet, each of several that are the same but once.
    fn fresh(&self, store: &Store, resource: Resource, records: &[Parsed]) -> Result<Vec<bool>> {
        let keys: Vec<_> = records.iter().map(|parsed| key_hash(&parsed.key)).collect();
        let known = self.read(|transaction| winners(transaction, resource, &keys))?;
        let mut seen = IdSet::default();
        let is_fresh = |(parsed, known): (&Parsed, Option<Winner>)| {
            if !seen.insert(parsed.id) {
                return Ok(false);
            }
            match known {
                None => Ok(true),
                Some(winner) if winner.record() == parsed.id => Ok(false),
                // Another version answers; this one may have come before all the same.
                Some(_) => Ok(!store.contains(&parsed.id)?),
            }
        };
        records.iter().zip(known).map(is_fresh).collect()
    }

    /// Takes pointers to transcripts, with or without their bytes.
    pub(super) fn put_conversations(&self, token: &TokenId, items: &[Item]) -> Result<Stored> {
        check_count(items)?;
        let mut canonicalizer = Canonicalizer::new();
        let mut stored = Stored::default();
        let mut pointers = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match parse_pointer(&mut canonicalizer, &item.json) {
                Ok(pointer) => pointers.push((index, pointer)),
                Err(reason) => stored.skipped.push((index, reason)),
            }
        }
        for (_, pointer) in &pointers {
            if matches!(pointer.bytes, Bytes::Elsewhere)
                && self.staging.file(token, &pointer.sha256)?.is_none()
                && self.content_of(&pointer.sha256)?.is_none()
            {
                let missing = agent_trace_store::id::encode_hex(&pointer.sha256);
                return Ok(Stored { blob_missing: Some(missing), ..Stored::default() });
            }
        }
        let linked: Vec<[u8; 32]> = pointers.iter().map(|(_, pointer)| pointer.sha256).collect();
        self.write(|writing| {
            self.changing(writing, |writing| {
                let mut unit = Unit::begin(self);
                let mut told = Told::default();
                self.take_pointers(writing, token, pointers, &mut unit, &mut told, &mut stored)?;
                unit.end(writing, &told, self.env.clock.now())
            })
        })?;
        linked.iter().for_each(|sha256| self.staging.linked(token, sha256));
        stored.skipped.sort();
        Ok(stored)
    }

    fn take_pointers(
        &self,
        writing: &mut Writing,
        token: &TokenId,
        pointers: Vec<(usize, Pointer)>,
        unit: &mut Unit<'_>,
        told: &mut Told,
        stored: &mut Stored,
    ) -> Result<()> {
        let store = Arc::clone(&writing.store);
        let mut canonicalizer = Canonicalizer::new();
        let mut intake = Intake::new(&store);
        let mut drafts = Vec::new();
        let mut states = std::collections::BTreeSet::new();
        for (index, pointer) in pointers {
            let key = key_hash(&pointer.conversation);
            let state = state_hash(&key, &pointer.sha256);
            if !states.insert(state) || self.read(|transaction| has_state(transaction, &state))? {
                stored.known += 1;
                continue;
            }
            let before = Unit::mark(&store)?;
            let Some(taken) = self.take_body(&store, &mut intake, token, &pointer, &key)? else {
                return Err(Error::invalid("bytes that were staged are gone: send them again"));
            };
            let now = self.env.clock.now();
            let time = pointer.time.or(taken.last_time).unwrap_or(now);
            let parsed = match pointer.record(&mut canonicalizer, taken.body.bytes, time) {
                Ok(parsed) => parsed,
                Err(reason) => {
                    stored.skipped.push((index, reason));
                    continue;
                }
            };
            stored.stored += 1;
            told.contents.push((
                pointer.sha256,
                Content { object: taken.body.id, bytes: taken.body.bytes, computed: true },
            ));
            told.states.push(state);
            told.arrivals.push(Arrival {
                resource: Resource::Conversations,
                key,
                time,
                record: parsed.id,
                body: Some(taken.body),
            });
            // A body larger than a batch goes ahead of its event.
            let ahead = ahead_of(before, Unit::mark(&store)?);
            drafts.push(draft_of(parsed, taken.body.id, time, now));
            let large = intake.waiting_bytes() >= BODIES_BYTES_TARGET;
            if large || ahead.is_some() {
                let records = std::mem::take(&mut drafts);
                unit.append(writing, with_records(intake.take()?, records), ahead)?;
            }
        }
        if !drafts.is_empty() {
            unit.append(writing, with_records(intake.take()?, drafts), None)?;
        }
        Ok(())
    }

    /// Finds or takes the bytes that a pointer names.
    fn take_body(
        &self,
        store: &Store,
        intake: &mut Intake<'_>,
        token: &TokenId,
        pointer: &Pointer,
        key: &super::winners::KeyHash,
    ) -> Result<Option<TakenBody>> {
        if let Some((object, bytes)) = self.content_of(&pointer.sha256)? {
            return Ok(Some(TakenBody { body: BodyRef { id: object, bytes }, last_time: None }));
        }
        let (file, bytes): (Box<dyn File>, u64) = match &pointer.bytes {
            Bytes::Inline(bytes) => (Box::new(InMemory(bytes.clone())), bytes.len() as u64),
            Bytes::Elsewhere => match self.staging.file(token, &pointer.sha256)? {
                Some(staged) => staged,
                None => return Ok(None),
            },
        };
        let found = self.read(|transaction| winners(transaction, Resource::Conversations, &[*key]))?;
        let longest = found.into_iter().flatten().next().and_then(|winner| winner.longest);
        let base = match longest.filter(|(_, body)| body.bytes <= bytes && body.bytes > 0) {
            Some((_, body)) => Some(Base::of(store, body.id)?),
            None => None,
        };
        let body = intake.body(file.as_ref(), bytes, base.as_ref())?;
        if body.sha256 != agent_trace_store::id::encode_hex(&pointer.sha256) {
            return Err(Error::corrupt("staged bytes have changed since they were hashed"));
        }
        let mut tail = vec![0; usize::try_from(bytes.min(TAIL_BYTES)).expect("a tail is small")];
        let at = bytes - tail.len() as u64;
        file.read_exact_at(&mut tail, at).map_err(|error| Error::io("cannot read staged bytes", error))?;
        let body_ref = BodyRef { id: body.id, bytes: body.bytes };
        Ok(Some(TakenBody { body: body_ref, last_time: last_time(&tail) }))
    }

    /// The object that has a SHA-256. What a record of protocol 2 says of it is compared before it is believed.
    pub(super) fn content_of(&self, sha256: &[u8; 32]) -> Result<Option<(ObjectId, u64)>> {
        let found = self.read(|transaction| arrivals::content(transaction, sha256))?;
        let Some(content) = found.filter(|found| !self.seen().store.erased().contains(&found.object)) else {
            return Ok(None);
        };
        let compared = || self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if !content.computed && !compared().contains(sha256) {
            let mut hash = Sha256::new();
            self.seen().store.copy(&content.object, &mut |part| {
                hash.update(part);
                Ok(())
            })?;
            if <[u8; 32]>::from(hash.finalize()) != *sha256 {
                return Ok(None);
            }
            let mut compared = compared();
            if compared.len() >= COMPARED_CONTENTS_MAX {
                compared.clear();
            }
            compared.insert(*sha256);
        }
        Ok(Some((content.object, content.bytes)))
    }

    /// Rows of a resource after a time, oldest first.
    pub(super) fn rows_of(
        &self,
        resource: Resource,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<PageRow>> {
        let limit = limit.min(PAGE_ROWS_MAX);
        let found = self.read(|transaction| rows(transaction, resource, since, limit))?;
        let store = Arc::clone(&self.seen().store);
        let mut rows = Vec::with_capacity(found.len());
        for (arrived, record) in found {
            // What is erased is told to nobody any more.
            rows.extend(store.read_unless_erased(&record)?.map(|record| PageRow { arrived, record }));
        }
        Ok(rows)
    }

    /// The row under a key.
    pub(super) fn row_of(&self, resource: Resource, key: &str) -> Result<Option<PageRow>> {
        let found = self.read(|transaction| winners(transaction, resource, &[key_hash(key)]))?;
        let Some(winner) = found.into_iter().flatten().next() else { return Ok(None) };
        let record = self.seen().store.read_unless_erased(&winner.record())?;
        Ok(record.map(|record| PageRow { arrived: winner.arrived, record }))
    }

    /// Gives positions to own events that were appended before a crash and never acknowledged.
    pub(super) fn finish_put(&self, writing: &mut Writing) -> Result<()> {
        let seen = self.seen();
        let writer = self.read(arrivals::writer)?;
        let places = Places::of(&seen);
        let there = places.events();
        let mine = there.log(&writer).map(|log| log.ranges().to_vec()).unwrap_or_default();
        let mine = agent_trace_store::seqs::EventSet::from_ranges(
            mine.into_iter().map(|(first, last)| (writer, first, last)),
        );
        let left = mine.minus(&seen.held);
        if left.is_empty() || writer != writing.store.writer() {
            return Ok(());
        }
        let ids = places.ids_at(&left)?;
        let mut told = Told::default();
        let mut runs: Vec<Run> = Vec::new();
        let mut events = Vec::new();
        for (_, set) in left.logs() {
            for (first, last) in set.ranges() {
                for (source, number, count) in places.find(&writer, *first, *last) {
                    let numbers: Vec<u32> = (number..number + count).collect();
                    events.extend(crate::collect::chosen_events(&places.sources[source], &numbers)?);
                }
            }
        }
        events.sort_by_key(|(event, _, _)| event.seq);
        assert_eq!(events.len(), ids.len(), "I3: the own log does not fork");
        runs.extend(crate::accept::runs_of(&events));
        for (event, _, _) in &events {
            let fact = &event.fact;
            told.add(&writing.store, fact.kind, &fact.key, fact.time, &fact.objects)?;
        }
        self.changing(writing, |writing| {
            let mut unit = Unit::begin(self);
            // What went ahead of them is not known any more: as if all had.
            let start = Mark { created: Timestamp::MIN, nonce: [0; 16], offset: 0 };
            runs.iter().for_each(|run| unit.add(Run { first_event: 0, ..*run }, Some(start)));
            unit.end(writing, &told, self.env.clock.now())
        })
    }
}

fn check_count(items: &[Item]) -> Result<()> {
    if items.len() > ITEMS_MAX {
        return Err(Error::invalid(format!("expected at most {ITEMS_MAX} items, found {}", items.len())));
    }
    Ok(())
}

/// A body that is in the store or goes there with the next batch.
struct TakenBody {
    body: BodyRef,
    last_time: Option<Timestamp>,
}

fn draft_of(parsed: Parsed, body: ObjectId, time: Timestamp, now: Timestamp) -> (Vec<u8>, Draft) {
    let mut marks = parsed.marks;
    marks.names.push((object_prefix(&body), false));
    let kind = kind_of(Resource::Conversations);
    let fact = Fact { kind, key: parsed.key, time, appended: now, objects: vec![parsed.id, body] };
    (parsed.canonical, Draft { fact, marks })
}

/// A batch of bodies with the records that name them.
fn with_records(mut bodies: Prepared, records: Vec<(Vec<u8>, Draft)>) -> Prepared {
    let mut frames = Frames::new();
    for (canonical, draft) in &records {
        frames.add(draft.fact.objects[0], canonical);
    }
    bodies.frames.extend(frames.finish());
    bodies.reissued = records.into_iter().map(|(_, draft)| draft).collect();
    bodies
}

/// Records that become frames.
struct Frames {
    packer: Packer,
    builder: ObjectsBuilder,
    frames: Vec<ObjectsFrame>,
}

impl Frames {
    fn new() -> Frames {
        Frames { packer: Packer::new(Effort::FAST), builder: ObjectsBuilder::new(), frames: Vec::new() }
    }

    fn add(&mut self, id: ObjectId, bytes: &[u8]) {
        if !self.builder.fits(bytes.len()) {
            self.frames.push(self.builder.finish(&mut self.packer));
        }
        self.builder.add(id, bytes);
        if self.builder.raw_bytes() >= ITEMS_FRAME_BYTES_TARGET {
            self.frames.push(self.builder.finish(&mut self.packer));
        }
    }

    fn finish(mut self) -> Vec<ObjectsFrame> {
        if !self.builder.is_empty() {
            self.frames.push(self.builder.finish(&mut self.packer));
        }
        self.frames
    }

    /// Packs chosen records, several frames at once.
    fn pack(records: &[Parsed], wanted: &[bool]) -> Vec<ObjectsFrame> {
        let chosen: Vec<&Parsed> =
            records.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(parsed, _)| parsed).collect();
        let mut groups: Vec<&[&Parsed]> = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, parsed) in chosen.iter().enumerate() {
            bytes += parsed.canonical.len();
            if bytes >= ITEMS_FRAME_BYTES_TARGET || index + 1 == chosen.len() {
                groups.push(&chosen[start..=index]);
                (start, bytes) = (index + 1, 0);
            }
        }
        let packed: Vec<Vec<ObjectsFrame>> = groups
            .into_par_iter()
            .map(|group| {
                let mut frames = Frames::new();
                group.iter().for_each(|parsed| frames.add(parsed.id, &parsed.canonical));
                frames.finish()
            })
            .collect();
        packed.into_iter().flatten().collect()
    }
}

/// One upload on its way in: own events that are durable in the store and have no positions yet.
struct Unit<'a> {
    archive: &'a ProjectArchive,
    position: u64,
    arrived: Vec<ArrivedRun>,
}

impl<'a> Unit<'a> {
    fn begin(archive: &'a ProjectArchive) -> Unit<'a> {
        Unit { archive, position: archive.seen().position, arrived: Vec::new() }
    }

    /// Up to where the open segment goes; nothing where there is none.
    fn mark(store: &Store) -> Result<Option<Mark>> {
        Ok(store.open_part()?.map(|open| Mark {
            created: open.file.header.created,
            nonce: open.file.header.nonce,
            offset: open.end,
        }))
    }

    /// Appends a batch of own events.
    fn append(&mut self, writing: &mut Writing, batch: Prepared, ahead: Option<Mark>) -> Result<()> {
        let store = &writing.store;
        let before = writing.tail;
        let count = batch.reissued.len();
        let ids = store.append(batch)?;
        assert_eq!(ids.len(), count, "each draft becomes an event");
        let Some(last) = ids.last() else { return Ok(()) };
        let seq_first = Seq::new(before.seq + 1).expect("one more than a count is not zero");
        let count = agent_trace_store::codec::length_u32(ids.len());
        let run = Run {
            writer: before.writer,
            seq_first,
            count,
            previous: before.event,
            last: *last,
            first_event: 0,
        };
        writing.tail = LogTail { writer: before.writer, seq: run.seq_last(), event: *last };
        self.add(run, ahead);
        Ok(())
    }

    fn add(&mut self, run: Run, apart: Option<Mark>) {
        let position = self.arrived.last().map_or(self.position, ArrivedRun::last) + 1;
        self.arrived.push(ArrivedRun { position, run, unit_end: true, apart });
    }

    /// Gives what was appended its positions, and makes it visible.
    fn end(self, writing: &mut Writing, told: &Told, now: Timestamp) -> Result<()> {
        let Some(last) = self.arrived.last() else { return Ok(()) };
        let run = &last.run;
        let seq = Seq::new(run.seq_last()).expect("a run is not empty");
        let tip = writing.store.key().tip(seq, run.last);
        self.archive.change(|change| {
            let mut times = Times::new(change, now)?;
            self.arrived.iter().try_for_each(|arrived| change.add_run(arrived))?;
            change.set_tip(&tip)?;
            told.write(change, &writing.store, &mut times)?;
            times.finish(change)
        })?;
        writing.tips.insert(tip.writer, tip);
        self.archive.publish(writing, &self.arrived)
    }
}

/// From where on something was appended between two looks at the open segment.
fn ahead_of(before: Option<Mark>, after: Option<Mark>) -> Option<Mark> {
    match (before, after) {
        (before, after) if before == after => None,
        (Some(before), _) => Some(before),
        (None, after) => after.map(|after| Mark { nonce: [0; 16], offset: 0, ..after }),
    }
}

/// Bytes in memory that read as a file.
struct InMemory(Vec<u8>);

impl File for InMemory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let length = buffer.len().min(self.0.len() - start);
        buffer[..length].copy_from_slice(&self.0[start..start + length]);
        Ok(length)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
