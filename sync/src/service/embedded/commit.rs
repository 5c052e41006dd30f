//! A commit of protocol 2: uploaded segments are checked, and taken in all or none.
//!
//! ```text
//! check ─► note as pending ─► into the store ─► positions, answers, no pending (one transaction) ─► publish
//! ```
//!
//! A crash before the note leaves nothing; after it, the commit is finished when the archive is opened, from the uploads,
//! which are removed last. What was checked then need not be there a second time: events are new by what stands in the
//! store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::segment::Run;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Handle;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, SegmentId, Store, Timestamp, WriterId};

use super::archive::{ProjectArchive, Seen, Writing};
use super::arrivals::{self, ArrivedRun, Change, Content, Pending};
use super::erases;
use super::places::{Places, each_chosen, one_place};
use super::staging::parse_sha256;
use super::winners::{Arrival, BodyRef, KeyHash, Times, key_hash, resource_of, state_hash};
use crate::accept::{
    ForkedIds, Numbered, adopt, append, fork, give_way, goes_whole, new_events, runs_of, set_of, tips_for,
};
use crate::collect::{Source, chosen_events};
use crate::limits::{COMMIT_RUNS_MAX, COMMIT_SEGMENTS_MAX, SWEEP_AFTER_COMMITS, UPLOADS_KEPT_MICROS};
use crate::receive::{Neighbours, Verdict, check_among};
use crate::remote::events_of;
use crate::service::archive::{Committed, Resource};

/// A segment that has been checked and will be taken in.
struct Planned {
    path: PathBuf,
    sealed: Arc<Sealed>,
    /// Its new events. They are read again when they are taken in: all of a large commit would not fit into memory.
    numbers: Numbers,
    runs: Vec<Run>,
    tips: Vec<Tip>,
    /// Those of them that are to be appended, unless the file is kept as it is.
    loose: Option<Numbers>,
    /// Objects that it needs of other segments of the commit.
    borrowed: Vec<ObjectId>,
    /// Whether the segments up to this one need none of those behind it.
    unit_end: bool,
}

/// Numbers of events in a segment, as first and last of those that follow each other.
#[derive(Clone, Debug, Default)]
struct Numbers(Vec<(u32, u32)>);

impl Numbers {
    fn of(events: &[Numbered]) -> Numbers {
        let mut numbers = Numbers::default();
        for (_, _, number) in events {
            match numbers.0.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
                _ => numbers.0.push((*number, *number)),
            }
        }
        numbers
    }

    fn all(&self) -> Vec<u32> {
        self.0.iter().flat_map(|(first, last)| *first..=*last).collect()
    }
}

/// What a check of all segments found.
#[derive(Default)]
struct Plan {
    segments: Vec<Planned>,
    forks: BTreeSet<String>,
    refused: Vec<String>,
}

impl ProjectArchive {
    /// Checks and takes in, or says why not.
    pub(super) fn commit_batch(
        &self,
        uploads: &str,
        batch: &[u8; 16],
        segments: &[SegmentId],
        tips: &[Tip],
        may_erase: bool,
    ) -> Result<Committed> {
        if segments.len() > COMMIT_SEGMENTS_MAX || tips.len() > agent_trace_store::limits::WRITERS_MAX {
            return Err(Error::invalid(format!("expected at most {COMMIT_SEGMENTS_MAX} segments")));
        }
        if let Some(answer) = self.read(|transaction| arrivals::answer(transaction, batch))? {
            return Ok(answer);
        }
        self.write(|writing| {
            if let Some(answer) = self.read(|transaction| arrivals::answer(transaction, batch))? {
                return Ok(answer);
            }
            let plan = self.plan(writing, uploads, segments, tips, may_erase)?;
            if !plan.refused.is_empty() {
                let position = self.seen().position;
                return Ok(Committed { position, refused: plan.refused, ..Committed::default() });
            }
            let pending = Pending {
                batch: *batch,
                uploads: uploads.to_owned(),
                segments: plan.segments.iter().map(|planned| planned.sealed.id).collect(),
                tips: tips.to_vec(),
                forks: plan.forks.iter().cloned().collect(),
            };
            let answer = self.changing(writing, |writing| {
                if plan.segments.iter().any(|planned| !planned.runs.is_empty()) {
                    self.change(|change| change.set_pending(Some(&pending)))?;
                }
                self.take_in(writing, plan, &pending)
            })?;
            // What stays behind is swept after a day.
            let _ = segments.iter().try_for_each(|id| self.uploads.remove(uploads, id));
            self.sweep_sometimes(writing)?;
            Ok(answer)
        })
    }

    fn sweep_sometimes(&self, writing: &mut Writing) -> Result<()> {
        writing.commits += 1;
        if !writing.commits.is_multiple_of(SWEEP_AFTER_COMMITS) {
            return Ok(());
        }
        let before = self.env.clock.now().plus_micros(-UPLOADS_KEPT_MICROS);
        self.changing(writing, |_| self.change(|change| change.sweep(before)))?;
        self.uploads.sweep()
    }

    /// Checks all segments of a commit.
    fn plan(
        &self,
        writing: &mut Writing,
        uploads: &str,
        segments: &[SegmentId],
        tips: &[Tip],
        may_erase: bool,
    ) -> Result<Plan> {
        let mut plan = Plan::default();
        let signed = signed(&writing.tips, tips, &mut plan.refused);
        let seen = self.seen();
        let opened = self.open_uploads(&seen, uploads, segments, &mut plan.refused)?;
        if !plan.refused.is_empty() {
            return Ok(plan);
        }
        self.check_all(&seen, &writing.neighbours, opened, &signed, seen.held.clone(), &mut plan)?;
        if plan.refused.is_empty() && !may_erase {
            let uploads: Vec<Arc<Sealed>> =
                plan.segments.iter().map(|planned| Arc::clone(&planned.sealed)).collect();
            if let Some(what) = erases::read(&writing.store, &uploads)?.foreign(&writing.store, &uploads)? {
                let message = format!(
                    "erasing {what}, which another has written, needs a token with the scope `erase`"
                );
                return Err(Error::new(ErrorKind::Denied, message));
            }
        }
        if plan.refused.is_empty() {
            find_forks(&seen, tips, &mut plan)?;
            in_order(&mut plan)?;
        } else {
            plan.segments.clear();
        }
        Ok(plan)
    }

    fn open_uploads(
        &self,
        seen: &Seen,
        uploads: &str,
        segments: &[SegmentId],
        refused: &mut Vec<String>,
    ) -> Result<Vec<(PathBuf, Arc<Sealed>)>> {
        let (mut opened, mut runs) = (Vec::new(), 0);
        let mut named = HashSet::new();
        for id in segments.iter().filter(|id| named.insert(**id)) {
            match self.uploads.segment(uploads, id) {
                Ok(Some((path, sealed))) => {
                    runs += sealed.directory.runs.len();
                    if runs > COMMIT_RUNS_MAX {
                        refused.push(format!(
                            "the commit holds more than {COMMIT_RUNS_MAX} runs of events; commit fewer segments at once"
                        ));
                        return Ok(Vec::new());
                    }
                    opened.push((path, Arc::new(sealed)));
                }
                Ok(None) => {
                    let known = seen.segments.get(id).is_some()
                        || self.read(|transaction| arrivals::taken(transaction, id))?.is_some();
                    if !known {
                        refused.push(format!("segment `{}` has not been uploaded", id.short()));
                    }
                }
                Err(error) if is_refusal(&error) => {
                    self.refuse(uploads, id, &error, refused)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// Notes why a segment is refused; what was uploaded of it goes, so that it can be sent anew.
    fn refuse(&self, uploads: &str, id: &SegmentId, error: &Error, refused: &mut Vec<String>) -> Result<()> {
        refused.push(format!("segment `{}`: {error}", id.short()));
        self.uploads.remove(uploads, id)
    }

    /// Checks segments one by one; those behind see what those before bring.
    fn check_all(
        &self,
        seen: &Seen,
        neighbours: &Neighbours,
        opened: Vec<(PathBuf, Arc<Sealed>)>,
        signed: &BTreeMap<WriterId, Tip>,
        mut held: EventSet,
        plan: &mut Plan,
    ) -> Result<()> {
        let all: Vec<Arc<Sealed>> = opened.iter().map(|(_, sealed)| Arc::clone(sealed)).collect();
        let erased = erases::read(&seen.store, &all)?.all;
        let places = Places::of(seen);
        let mut neighbours = neighbours.clone();
        let mut ids = ForkedIds::new();
        for (path, sealed) in opened {
            // A place that is taken already may be taken by another event: only ids tell.
            let mine = events_of(&sealed);
            ids.extend(places.ids_at(&mine.minus(&mine.minus(&held)))?);
            let checked = match check_among(&seen.store, &sealed, &all, &erased, signed, &neighbours) {
                Ok(Verdict::Good(checked)) => checked,
                Ok(Verdict::Incomplete(missing)) => {
                    let id = sealed.id.short();
                    let missing = missing[0].short();
                    plan.refused.push(format!("segment `{id}` needs object `{missing}`, which is nowhere"));
                    continue;
                }
                Err(error) if is_refusal(&error) => {
                    plan.refused.push(format!("segment `{}`: {error}", sealed.id.short()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let id = sealed.id.short();
            if !checked.unsigned.is_empty() {
                let count = checked.unsigned.len();
                plan.refused.push(format!("segment `{id}`: {count} events that their writer has not signed"));
                continue;
            }
            if !checked.footer_holds {
                plan.refused.push(format!("segment `{id}`: its footer does not say what is in it"));
                continue;
            }
            for (event, id, _) in &checked.events {
                if ids.get(&(event.writer, event.seq)).is_some_and(|known| !known.contains(id)) {
                    plan.forks.insert(fork(&event.writer, event.seq.get()));
                }
            }
            plan.forks.extend(checked.forks.iter().map(|(writer, seq)| fork(writer, *seq)));
            let events = new_events(&checked, &held, &ids);
            let runs = runs_of(&events);
            for (event, id, _) in &events {
                if let Some(ids) = ids.get_mut(&(event.writer, event.seq)) {
                    ids.insert(*id);
                }
            }
            held = held.union(&set_of(&runs));
            runs.iter().for_each(|run| neighbours.join(run));
            plan.segments.push(Planned {
                path,
                numbers: Numbers::of(&events),
                tips: tips_for(&runs, signed, &checked.tips),
                runs,
                loose: (!goes_whole(&events, &checked)).then(|| Numbers::of(&events)),
                borrowed: checked.borrowed,
                sealed,
                unit_end: true,
            });
        }
        Ok(())
    }

    /// Finishes a commit that was begun before a crash.
    pub(super) fn finish_pending(&self, writing: &mut Writing, pending: &Pending) -> Result<()> {
        let seen = self.seen();
        let places = Places::of(&seen);
        let there = places.events();
        let mut plan = Plan { forks: pending.forks.iter().cloned().collect(), ..Plan::default() };
        let signed = signed(&writing.tips, &pending.tips, &mut plan.refused);
        let mut opened = Vec::new();
        for id in &pending.segments {
            if let Some((path, sealed)) = self.uploads.segment(&pending.uploads, id)? {
                opened.push((path, Arc::new(sealed)));
            } else if let Some(sealed) = seen.segments.get(id) {
                // Kept as it is before the crash: its events are in the store, and have no positions.
                plan.segments.push(adopted(sealed));
            } else {
                let id = id.short();
                let message = format!("cannot finish a commit that was begun: segment `{id}` is gone");
                return Err(Error::corrupt(message));
            }
        }
        // New is what has no position. Of that, what is in the store already is not appended again.
        let kept = plan.segments.iter().map(|planned| set_of(&planned.runs));
        let held = kept.fold(seen.held.clone(), |held, kept| held.union(&kept));
        self.check_all(&seen, &writing.neighbours, opened, &signed, held, &mut plan)?;
        if !plan.refused.is_empty() {
            let reasons = plan.refused.join("; ");
            return Err(Error::corrupt(format!("cannot finish a commit that was begun: {reasons}")));
        }
        let order = |planned: &Planned| pending.segments.iter().position(|id| *id == planned.sealed.id);
        plan.segments.sort_by_key(order);
        let begun = there.minus(&seen.held);
        let ids = places.ids_at(&begun)?;
        for planned in &mut plan.segments {
            let mine = set_of(&planned.runs);
            if planned.loose.is_none()
                && seen.segments.get(&planned.sealed.id).is_none()
                && mine.minus(&begun).len() < mine.len()
            {
                planned.loose = Some(planned.numbers.clone());
            }
            if let Some(loose) = &mut planned.loose {
                let mut events = chosen_events(&Source::sealed(&planned.sealed), &loose.all())?;
                events.retain(|(event, id, _)| {
                    !ids.get(&(event.writer, event.seq)).is_some_and(|there| there.contains(id))
                });
                *loose = Numbers::of(&events);
            }
        }
        in_order(&mut plan)?;
        self.changing(writing, |writing| self.take_in(writing, plan, pending))?;
        let _ = pending.segments.iter().try_for_each(|id| self.uploads.remove(&pending.uploads, id));
        Ok(())
    }

    /// Takes all segments into the store, then gives their events positions.
    fn take_in(&self, writing: &mut Writing, plan: Plan, pending: &Pending) -> Result<Committed> {
        let store = Arc::clone(&writing.store);
        let others: Vec<Arc<Sealed>> =
            plan.segments.iter().map(|planned| Arc::clone(&planned.sealed)).collect();
        let mut renewed = false;
        for planned in &plan.segments {
            renewed |= give_way(&store, &planned.runs)?;
            match &planned.loose {
                None if planned.runs.is_empty() || store.segments().get(&planned.sealed.id).is_some() => {}
                None => adopt(&store, &planned.path, &planned.sealed.id, planned.tips.clone(), None)?,
                Some(loose) if loose.0.is_empty() => {}
                Some(loose) => {
                    let (sealed, tips) = (&planned.sealed, planned.tips.clone());
                    let events = chosen_events(&Source::sealed(sealed), &loose.all())?;
                    append(&store, &self.aside(), sealed, &others, events, tips)?;
                }
            }
        }
        if plan.segments.iter().any(|planned| erases::erases(&planned.sealed)) {
            // Before the commit counts: one that is cut is finished, and this with it.
            erases::carry_out(&store)?;
        }
        let now = self.env.clock.now();
        let arrived = positions(self.seen().position, &plan.segments);
        let answer = Committed {
            position: arrived.last().map_or(self.seen().position, ArrivedRun::last),
            taken: arrived.iter().map(|arrived| u64::from(arrived.run.count)).sum(),
            forks: pending.forks.clone(),
            refused: Vec::new(),
        };
        let tips =
            newer(&writing.tips, plan.segments.iter().flat_map(|planned| &planned.tips).chain(&pending.tips));
        self.change(|change| {
            let mut times = Times::new(change, now)?;
            arrived.iter().try_for_each(|arrived| change.add_run(arrived))?;
            tips.values().try_for_each(|tip| change.set_tip(tip))?;
            // One segment after the other: what all of a commit tell would not fit into memory.
            for planned in &plan.segments {
                told_of(&store, planned)?.write(change, &store, &mut times)?;
            }
            times.finish(change)?;
            for planned in &plan.segments {
                change.set_taken(&planned.sealed.id, planned.sealed.bytes, now)?;
            }
            change.set_answer(&pending.batch, now, &answer)?;
            if renewed {
                // Somebody has seen events of this project that are not here: it was restored from an older copy.
                change.set_history(&self.fresh_epoch(), store.writer())?;
            }
            change.set_pending(None)
        })?;
        writing.tips.extend(tips);
        if renewed {
            writing.tail = store.tail()?;
        }
        self.publish(writing, &arrived)?;
        Ok(answer)
    }
}

/// Whether an error says that a segment is bad, and not that the service is.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Invalid)
}

/// The newest tips, with those that came; a bad signature refuses.
fn signed(
    known: &BTreeMap<WriterId, Tip>,
    came: &[Tip],
    refused: &mut Vec<String>,
) -> BTreeMap<WriterId, Tip> {
    let mut signed = known.clone();
    for tip in came {
        let newest = signed.get(&tip.writer);
        if newest == Some(tip) {
            continue;
        }
        match tip.verify() {
            Ok(()) if newest.is_none_or(|newest| newest.seq < tip.seq) => {
                signed.insert(tip.writer, *tip);
            }
            Ok(()) => {}
            Err(error) => refused.push(error.to_string()),
        }
    }
    signed
}

/// Those of some tips that go farther than the known ones, the newest of each log.
fn newer<'t>(
    known: &BTreeMap<WriterId, Tip>,
    came: impl Iterator<Item = &'t Tip>,
) -> BTreeMap<WriterId, Tip> {
    let mut newer: BTreeMap<WriterId, Tip> = BTreeMap::new();
    for tip in came {
        let best = newer.get(&tip.writer).or_else(|| known.get(&tip.writer));
        if best.is_none_or(|best| best.seq < tip.seq) {
            newer.insert(tip.writer, *tip);
        }
    }
    newer
}

/// Tips that state another event at a place than is there show a fork.
fn find_forks(seen: &Seen, tips: &[Tip], plan: &mut Plan) -> Result<()> {
    let places = Places::of(seen);
    for tip in tips.iter().filter(|tip| seen.held.contains(&tip.writer, tip.seq)) {
        let here = places.ids_at(&one_place(tip.writer, tip.seq))?;
        if here.values().any(|ids| !ids.contains(&tip.event)) {
            plan.forks.insert(fork(&tip.writer, tip.seq.get()));
        }
    }
    Ok(())
}

/// Puts segments in an order in which each needs only those before it, as far as that can be.
fn in_order(plan: &mut Plan) -> Result<()> {
    let mut waiting = std::mem::take(&mut plan.segments);
    loop {
        let (count, mut stuck) = (waiting.len(), Vec::new());
        for planned in waiting {
            match is_served(&planned, &plan.segments)? {
                true => plan.segments.push(planned),
                false => stuck.push(planned),
            }
        }
        if stuck.is_empty() || stuck.len() == count {
            plan.segments.extend(circle(stuck));
            return Ok(());
        }
        waiting = stuck;
    }
}

/// Whether all that a segment borrows stands in those before it.
fn is_served(planned: &Planned, before: &[Planned]) -> Result<bool> {
    for id in &planned.borrowed {
        let mut found = false;
        for other in before {
            found = found || other.sealed.find(id)?.is_some();
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Segments that need each other: nobody has all that they need before the last.
fn circle(mut segments: Vec<Planned>) -> Vec<Planned> {
    let count = segments.len();
    for planned in segments.iter_mut().take(count.saturating_sub(1)) {
        planned.unit_end = false;
    }
    segments
}

/// A segment of the store as one of which nothing is to be taken in any more.
fn adopted(sealed: &Arc<Sealed>) -> Planned {
    Planned {
        path: PathBuf::new(),
        sealed: Arc::clone(sealed),
        numbers: Numbers(sealed.directory.events.checked_sub(1).map(|last| (0, last)).into_iter().collect()),
        runs: sealed.directory.runs.clone(),
        tips: Vec::new(),
        loose: None,
        borrowed: Vec::new(),
        unit_end: true,
    }
}

/// Gives the events of segments the next positions.
fn positions(newest: u64, segments: &[Planned]) -> Vec<ArrivedRun> {
    let mut position = newest + 1;
    let mut arrived: Vec<ArrivedRun> = Vec::new();
    for planned in segments {
        for run in &planned.runs {
            let run = Run { first_event: 0, ..*run };
            arrived.push(ArrivedRun { position, run, unit_end: false, apart: None });
            position += u64::from(run.count);
        }
        if planned.unit_end
            && let Some(last) = arrived.last_mut()
        {
            last.unit_end = true;
        }
    }
    if let Some(last) = arrived.last_mut() {
        last.unit_end = true;
    }
    arrived
}

/// What new events tell protocol 1.
#[derive(Default)]
pub(super) struct Told {
    pub arrivals: Vec<Arrival>,
    pub contents: Vec<([u8; 32], Content)>,
    pub states: Vec<KeyHash>,
}

impl Told {
    /// Writes it.
    pub(super) fn write(&self, change: &Change<'_>, store: &Store, times: &mut Times) -> Result<()> {
        change.arrive(store, &self.arrivals, times)?;
        change.add_states(&self.states)?;
        self.contents.iter().try_for_each(|(sha256, content)| change.set_content(sha256, *content))
    }

    /// Adds an event.
    pub(super) fn add(
        &mut self,
        store: &Store,
        kind: Kind,
        key: &str,
        time: Timestamp,
        objects: &[ObjectId],
    ) -> Result<()> {
        let Some(resource) = resource_of(kind) else { return Ok(()) };
        let erased = store.erased();
        if objects.iter().any(|id| erased.contains(id)) {
            // Nobody is told of it any more.
            return Ok(());
        }
        let key = key_hash(key);
        let record = objects[0];
        let mut body = None;
        if let (Resource::Conversations, Some(object)) = (resource, objects.get(1)) {
            let (_, bytes) = store.leaves(object)?;
            body = Some(BodyRef { id: *object, bytes });
            // A record that cannot be read is kept, and serves nobody as a name.
            let read = TranscriptRecord::decode(&store.read(&record)?).ok();
            let sha256 = read.and_then(|read| parse_sha256(&read.content_sha256));
            if let Some(sha256) = sha256 {
                self.contents.push((sha256, Content { object: *object, bytes, computed: false }));
                self.states.push(state_hash(&key, &sha256));
            }
        }
        self.arrivals.push(Arrival { resource, key, time, record, body });
        Ok(())
    }
}

fn told_of(store: &Store, planned: &Planned) -> Result<Told> {
    let mut told = Told::default();
    let source = match store.segments().get(&planned.sealed.id) {
        Some(sealed) => Source::sealed(sealed),
        None => {
            Source { handle: Handle::Sealed(Arc::clone(&planned.sealed)), ..Source::sealed(&planned.sealed) }
        }
    };
    each_chosen(&source, &planned.numbers.all(), &mut |laid| {
        let objects: Vec<ObjectId> = laid.objects().collect();
        told.add(store, laid.kind, laid.key, laid.time, &objects)
    })?;
    Ok(told)
}
