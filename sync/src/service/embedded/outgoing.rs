//! What a pull brings: whole segments where all of one is wanted, segments built for it where part of one is.
//!
//! Events go in the order of their arrival. A mark of what is reached comes only where the client has all that the
//! events up to there need: at the end of what was taken in together. Of an object that stands in an earlier batch than
//! the events that are sent, the client has it, since it holds all that arrived before; the others go along.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_trace_store::build::{Builder, Sink};
use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::segment::{LogTail, Run};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::{Handle, Location};
use agent_trace_store::{Error, EventId, ObjectId, Result, SegmentId, Timestamp};

use super::archive::{ProjectArchive, Seen};
use super::arrivals::{self, ArrivedRun, Mark};
use super::places::{Places, each_event_of};
use crate::collect::{chosen_events, collect_into};
use crate::limits::{PART_TIPS_MAX, QUESTION_IDS_MAX, RUNS_MAX, pull_events_target};
use crate::remote::events_of;
use crate::service::archive::{ArrivalRun, Bodies, Part};

/// Rows that are read of the arrivals at once.
const ROWS_MAX: usize = 4_096;

/// Whoever takes the parts.
type Each<'e> = &'e mut dyn FnMut(Part<'_>) -> Result<()>;

impl ProjectArchive {
    /// Sends what arrived after a position, up to what is seen.
    pub(super) fn send_after(&self, seen: &Seen, after: u64, bodies: Bodies, each: Each<'_>) -> Result<()> {
        let position = seen.position;
        if after < position {
            let start = self.read(|transaction| arrivals::unit_start(transaction, after))?;
            let before = self.read(|transaction| arrivals::arrived_until(transaction, start - 1))?;
            let places = Places::of(seen);
            let wanted = seen.held.minus(&before);
            self.send_tips(&wanted, each)?;
            let mut sending = Outgoing::new(self, seen, &places, wanted, bodies);
            self.read(|transaction| {
                arrivals::each_run(transaction, start, |arrived| {
                    if arrived.apart.is_some() {
                        sending.part(&arrived.run);
                    }
                    Ok(arrived.position <= position)
                })
            })?;
            let mut next = start;
            while next <= position {
                let rows = self.rows_from(next, position)?;
                let Some(last) = rows.last() else { break };
                next = last.last() + 1;
                rows.iter().try_for_each(|arrived| sending.add(arrived, each))?;
            }
            sending.flush(each)?;
        }
        each(Part::Reached(position))
    }

    fn rows_from(&self, from: u64, until: u64) -> Result<Vec<ArrivedRun>> {
        let mut rows = Vec::new();
        self.read(|transaction| {
            arrivals::each_run(transaction, from, |arrived| {
                if arrived.position > until || rows.len() == ROWS_MAX {
                    return Ok(false);
                }
                rows.push(arrived);
                Ok(true)
            })
        })?;
        Ok(rows)
    }

    fn send_tips(&self, wanted: &EventSet, each: Each<'_>) -> Result<()> {
        let tips = self.read(arrivals::tips)?;
        let named: Vec<_> = wanted.logs().filter_map(|(writer, _)| tips.get(writer)).copied().collect();
        named.chunks(PART_TIPS_MAX).try_for_each(|tips| each(Part::Tips(tips)))
    }

    /// Sends chosen events with all that they need.
    pub(super) fn send_chosen(
        &self,
        seen: &Seen,
        runs: &[ArrivalRun],
        ids: &[EventId],
        bodies: Bodies,
        each: Each<'_>,
    ) -> Result<()> {
        if runs.len() > RUNS_MAX || ids.len() > QUESTION_IDS_MAX {
            return Err(Error::invalid(format!(
                "expected at most {RUNS_MAX} runs and {QUESTION_IDS_MAX} ids"
            )));
        }
        let asked = EventSet::from_ranges(runs.iter().filter_map(|run| {
            let last = run.seq_first.checked_add(run.count)?.checked_sub(1)?;
            (run.seq_first > 0 && run.count > 0).then_some((run.writer, run.seq_first, last))
        }));
        let wanted = asked.minus(&asked.minus(&seen.held));
        let places = Places::of(seen);
        let mut chosen = vec![Vec::new(); places.sources.len()];
        for (writer, set) in wanted.logs() {
            for (first, last) in set.ranges() {
                for (source, number, count) in places.find(writer, *first, *last) {
                    chosen[source].extend(number..number + count);
                }
            }
        }
        let mut named = find_ids(seen, &places, ids, &mut chosen)?;
        named = named.union(&wanted);
        self.send_tips(&named, each)?;
        let mut sending = Outgoing::new(self, seen, &places, named, bodies);
        sending.everything = true;
        for (source, mut numbers) in chosen.into_iter().enumerate() {
            numbers.sort_unstable();
            numbers.dedup();
            for part in numbers.chunks(pull_events_target()) {
                sending.loose.push((source, part.to_vec()));
                sending.flush(each)?;
            }
        }
        Ok(())
    }
}

/// Finds events by id. No table has their ids, so they are looked for in all that is there, the newest segments first:
/// what a client lacks came last more often than not, and the search ends with the last id.
fn find_ids(seen: &Seen, places: &Places, ids: &[EventId], chosen: &mut [Vec<u32>]) -> Result<EventSet> {
    if ids.is_empty() {
        return Ok(EventSet::default());
    }
    let mut ids: std::collections::HashSet<&EventId> = ids.iter().collect();
    let mut found = Vec::new();
    for (source, chosen) in places.sources.iter().zip(chosen).rev() {
        if ids.is_empty() {
            break;
        }
        each_event_of(source, &mut |number, laid, id| {
            if ids.contains(id) && seen.held.contains(&laid.writer, laid.seq) {
                ids.remove(id);
                chosen.push(number);
                found.push((laid.writer, laid.seq.get(), laid.seq.get()));
            }
            Ok(())
        })?;
    }
    Ok(EventSet::from_ranges(found))
}

/// One stream.
struct Outgoing<'a> {
    archive: &'a ProjectArchive,
    seen: &'a Seen,
    places: &'a Places,
    /// All that is to be sent in the whole stream.
    wanted: EventSet,
    /// Which segments went as they are.
    went_whole: Vec<bool>,
    /// Which may not: they hold events whose objects went ahead of them into other segments.
    parted: Vec<bool>,
    /// Events that go into a built segment: by source, their numbers.
    loose: Vec<(usize, Vec<u32>)>,
    /// From where on objects of the loose events may stand elsewhere than in their batches.
    apart: Option<Mark>,
    /// Whether something went since the last mark of what is reached.
    unmarked: bool,
    /// Whether the client may lack any object of events that went before.
    everything: bool,
    /// Whether bytes of transcripts go along.
    bodies: Bodies,
}

impl<'a> Outgoing<'a> {
    fn new(
        archive: &'a ProjectArchive,
        seen: &'a Seen,
        places: &'a Places,
        wanted: EventSet,
        bodies: Bodies,
    ) -> Outgoing<'a> {
        Outgoing {
            archive,
            seen,
            places,
            wanted,
            went_whole: vec![false; places.sources.len()],
            parted: vec![false; places.sources.len()],
            loose: Vec::new(),
            apart: None,
            unmarked: false,
            everything: false,
            bodies,
        }
    }

    /// Keeps the segments that hold a run from going as they are.
    fn part(&mut self, run: &Run) {
        for (source, _, _) in self.places.find(&run.writer, run.seq_first.get(), run.seq_last()) {
            self.parted[source] = true;
        }
    }

    /// Adds the events of one row.
    fn add(&mut self, arrived: &ArrivedRun, each: Each<'_>) -> Result<()> {
        let run = &arrived.run;
        for (source, number, count) in self.places.find(&run.writer, run.seq_first.get(), run.seq_last()) {
            if self.went_whole[source] {
                continue;
            }
            if self.goes_whole(source) {
                self.flush(each)?;
                self.send_whole(source, each)?;
            } else {
                self.add_loose(source, number, count);
            }
        }
        self.apart = match (self.apart, arrived.apart) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if !arrived.unit_end {
            return Ok(());
        }
        let waiting: usize = self.loose.iter().map(|(_, numbers)| numbers.len()).sum();
        if waiting >= pull_events_target() {
            self.flush(each)?;
        }
        if self.loose.is_empty() && self.unmarked {
            self.unmarked = false;
            each(Part::Reached(arrived.last()))?;
        }
        Ok(())
    }

    /// Whether all of a segment is to be sent, so that it may go as it is. Without bodies none does: one that names no
    /// transcript may hold parts of those that others name.
    fn goes_whole(&self, source: usize) -> bool {
        if self.bodies == Bodies::LeftOut {
            return false;
        }
        let Some(sealed) = self.places.sealed(source) else { return false };
        !self.parted[source] && events_of(sealed).minus(&self.wanted).is_empty()
    }

    fn send_whole(&mut self, source: usize, each: Each<'_>) -> Result<()> {
        let sealed = Arc::clone(self.places.sealed(source).expect("only sealed segments go whole"));
        self.went_whole[source] = true;
        self.unmarked = true;
        each(Part::Segment(&sealed.id, sealed.bytes, sealed.file.as_ref()))
    }

    fn add_loose(&mut self, source: usize, number: u32, count: u32) {
        match self.loose.iter_mut().find(|(known, _)| *known == source) {
            Some((_, numbers)) => numbers.extend(number..number + count),
            None => self.loose.push((source, (number..number + count).collect())),
        }
    }

    /// Builds segments of the loose events and sends them.
    fn flush(&mut self, each: Each<'_>) -> Result<()> {
        let loose = std::mem::take(&mut self.loose);
        let apart = self.apart.take();
        if loose.is_empty() {
            return Ok(());
        }
        self.unmarked = true;
        let store = &self.seen.store;
        let env = &self.archive.env;
        let mut builder: Option<Builder<Scratch>> = None;
        for (source, mut numbers) in loose {
            numbers.sort_unstable();
            numbers.dedup();
            let source = &self.places.sources[source];
            let nonce = *source.handle.nonce();
            let start = batch_start(source, numbers[0]);
            let events = chosen_events(source, &numbers)?;
            let left_out = self.bodies.left_out(events.iter().map(|(event, _, _)| event));
            let known = |id: &ObjectId| {
                if left_out.contains(id) {
                    return Ok(true);
                }
                // Whoever left bodies out before may lack parts of others.
                if self.everything || self.bodies == Bodies::LeftOut {
                    return Ok(false);
                }
                let Some(place) = store.locate(id)? else { return Ok(false) };
                let here = *place.handle.nonce() == nonce && place.frame >= start;
                Ok(!here && apart.is_none_or(|apart| mark_of(&place) < apart))
            };
            let mut building = match builder.take() {
                Some(building) => building,
                None => Builder::into(env, Scratch::create(env, &self.archive.aside())?, self.tail()),
            };
            let events =
                collect_into(store, &[], source, events, &known, &mut |frame| building.objects(&frame))?;
            building.received(&events)?;
            builder = Some(building);
            if let Some(full) = builder.take_if(|building| building.is_full()) {
                send_built(full, each)?;
            }
        }
        builder.map_or(Ok(()), |building| send_built(building, each))
    }

    /// A built segment states nothing about the own log: it is not kept here.
    fn tail(&self) -> LogTail {
        LogTail::empty(self.seen.store.writer())
    }
}

/// Where the batch starts that an event is in: behind the events before it.
fn batch_start(source: &crate::collect::Source, number: u32) -> u32 {
    let after = source.frames.partition_point(|place| place.first_event <= number);
    after.checked_sub(2).map_or(0, |before| source.frames[before].offset)
}

fn mark_of(place: &Location) -> Mark {
    let created: Timestamp = match &place.handle {
        Handle::Sealed(sealed) => sealed.header.created,
        Handle::Open(open) => open.header.created,
    };
    Mark { created, nonce: *place.handle.nonce(), offset: u64::from(place.frame) }
}

fn send_built(builder: Builder<Scratch>, each: Each<'_>) -> Result<()> {
    let ended = builder.end()?;
    let (id, bytes): (SegmentId, u64) = (ended.id, ended.bytes);
    each(Part::Segment(&id, bytes, ended.sink.file.as_ref()))
}

/// A file that is removed when it has been sent; nothing of it needs to last.
struct Scratch {
    env: Env,
    path: PathBuf,
    file: Box<dyn File>,
    written: u64,
}

impl Scratch {
    fn create(env: &Env, dir: &Path) -> Result<Scratch> {
        let mut nonce = [0; 16];
        env.entropy.fill(&mut nonce);
        let path = dir.join(format!("pull-{}", encode_hex(&nonce)));
        let doing = |error| Error::io(format!("cannot create `{}`", path.display()), error);
        let file = env.fs.create(&path, true).map_err(doing)?;
        Ok(Scratch { env: env.clone(), path, file, written: 0 })
    }
}

impl Sink for Scratch {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, self.written)
            .map_err(|error| Error::io(format!("cannot write `{}`", self.path.display()), error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn discard(self) {}
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is removed when the archive is opened.
        let _ = self.env.fs.remove(&self.path);
    }
}
