//! Builds the index anew from the segments, and saves what is good of damaged ones.
//!
//! A damaged segment is never repaired in place: what is good of it goes to a new one, and the file is moved to
//! `damaged/`. An event stays only with all its objects, here or noted elsewhere; one that is dropped here is no longer
//! held, so a pull brings it back. Where own events may have been lost, the store takes a new writer, so that no seq is used twice (I3). A
//! crash at any point leaves duplicates at most.

use std::collections::HashSet;
use std::path::Path;

use crate::build::{Builder, Built};
use crate::elsewhere::{self, Elsewhere};
use crate::env::LockMode;
use crate::erased::Erased;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::frame::{Effort, Packer};
use crate::id::{EventId, ObjectId, WriterId};
use crate::limits::LOCK_WAIT_MICROS_MAX;
use crate::lock::lock;
use crate::log::Received;
use crate::object::{Objects, ObjectsBuilder, ObjectsFrame, Stored};
use crate::progress::Progress;
use crate::scan::marks;
use crate::segment::{LogTail, Run, read_frame};
use crate::seqs::{EventSet, SeqSet};
use crate::store::Store;
use crate::verify::{Closure, Indexed, Survey, Surveyed, each_events, erased_in, events_of};
use crate::writer::Tip;

/// What a reindex has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReindexReport {
    /// Segments that are indexed now.
    pub segments: u64,
    /// Events that are indexed now.
    pub events: u64,
    /// Objects in these segments.
    pub objects: u64,
    /// Damaged segments by name, each with what was kept of it and what was lost.
    pub salvaged: Vec<String>,
}

/// Rebuilds the index; damaged segments are replaced by what is good of them.
pub fn reindex(store: &Store, progress: &dyn Progress) -> Result<ReindexReport> {
    // What the index still says of damaged segments helps; that it may be damaged itself is why it is built anew.
    let indexed = Indexed::read(store, &mut Vec::new())?;
    let surveyed = Surveyed::read(store, &indexed, progress)?;
    let notes = elsewhere::look(store.env(), store.dir())?;
    let damaged = {
        let plan = Plan::make(&surveyed.surveys, &notes.elsewhere, progress);
        plan.rewrites()
            || needs_writer(&surveyed, &held_after(&surveyed.surveys, &plan), &indexed, store.writer())
    };
    drop(surveyed);
    let mut salvaged = if damaged { salvage(store, &indexed, progress)? } else { Vec::new() };
    for bad in notes.bad {
        // After the events that only it allowed are gone: a crash in between must not make them damage for good.
        let name = bad.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        set_aside(store, &bad.path)?;
        salvaged.push(format!("{name}: a note of objects elsewhere, lost"));
    }
    store.index().delete()?;
    store.catch_up()?;
    crate::erase::complete_again(store, progress)?;
    let rows = store.index().read(|view| view.segments())?.unwrap_or_default();
    Ok(ReindexReport {
        segments: rows.len() as u64,
        events: rows.values().map(|row| u64::from(row.events)).sum(),
        objects: rows.values().map(|row| u64::from(row.objects)).sum(),
        salvaged,
    })
}

/// Which segments are to be replaced, and what is good.
struct Plan<'a> {
    closure: Closure<'a>,
    elsewhere: &'a Elsewhere,
    erased: Erased,
    /// By the number of the survey.
    rewrite: Vec<bool>,
    /// Recipes that put nothing together: segment, frame, slot.
    broken: HashSet<(u32, u32, u32)>,
}

impl<'a> Plan<'a> {
    fn make(surveys: &'a [Survey], elsewhere: &'a Elsewhere, progress: &dyn Progress) -> Plan<'a> {
        progress.start("objects", None);
        let closure = Closure::build(surveys, progress);
        progress.finish();
        let erased = erased_in(surveys, &closure);
        let mut rewrite: Vec<bool> =
            surveys.iter().map(|survey| survey.lost || !survey.faults.is_empty()).collect();
        let mut broken = HashSet::new();
        for entry in closure.broken() {
            rewrite[entry.segment as usize] = true;
            broken.insert((entry.segment, entry.frame, entry.slot));
        }
        let unclosed = each_events(surveys, |number, events| {
            events.iter().any(|(event, _)| !closed(&closure, elsewhere, &erased, event)).then_some(number)
        });
        for number in unclosed {
            rewrite[number] = true;
        }
        Plan { closure, elsewhere, erased, rewrite, broken }
    }

    fn closed(&self, event: &Event) -> bool {
        closed(&self.closure, self.elsewhere, &self.erased, event)
    }

    fn rewrites(&self) -> bool {
        self.rewrite.contains(&true)
    }
}

/// Whether all objects of an event are here, erased, or left out on purpose; its record is never left out.
fn closed(closure: &Closure<'_>, elsewhere: &Elsewhere, erased: &Erased, event: &Event) -> bool {
    let (record, bodies) = event.fact.objects.split_first().expect("an event lists its record");
    let here = |id: &ObjectId| closure.holds(id) || erased.contains(id);
    here(record) && bodies.iter().all(|id| here(id) || elsewhere.contains(id))
}

/// The events that stay.
fn held_after(surveys: &[Survey], plan: &Plan<'_>) -> EventSet {
    let kept = each_events(surveys, |_, events| {
        let kept = events.iter().filter(|(event, _)| plan.closed(event));
        Some(kept.map(|(event, _)| (event.writer, event.seq.get(), event.seq.get())).collect::<Vec<_>>())
    });
    EventSet::from_ranges(kept.into_iter().flatten())
}

/// Whether own events that are not kept may have been written: then their seqs must not be used again.
fn needs_writer(surveyed: &Surveyed, held: &EventSet, indexed: &Indexed, own: WriterId) -> bool {
    let surveys = &surveyed.surveys;
    let tails = surveys.iter().flat_map(Survey::tails).filter(|tail| tail.writer == own).map(|tail| tail.seq);
    let runs =
        surveys.iter().filter_map(|survey| survey.directory.as_ref()).flat_map(|directory| &directory.runs);
    let runs = runs.filter(|run| run.writer == own).map(Run::seq_last);
    let known = tails.chain(runs).max().unwrap_or(0).max(indexed.seq_last(&own));
    let nothing = SeqSet::default();
    let held = held.log(&own).unwrap_or(&nothing);
    let last = held.last().map_or(0, crate::Seq::get).max(known);
    (last > 0 && !held.contains_range(1, last))
        || surveys.iter().any(|survey| ends_in_damage(survey, surveys))
}

/// Whether a segment may have held newer own events than anything that can still be read tells of.
fn ends_in_damage(survey: &Survey, surveys: &[Survey]) -> bool {
    if !survey.lost || survey.directory.is_some() {
        return false;
    }
    let Some(header) = &survey.header else { return true };
    let last_fault = survey.faults.iter().map(|fault| fault.place.map_or(u64::MAX, |place| place.0)).max();
    let followed = survey.commits.last().is_some_and(|(end, _)| last_fault.is_some_and(|fault| fault < *end));
    let later = surveys.iter().filter_map(|other| other.header.as_ref());
    !followed
        && !later
            .into_iter()
            .any(|other| other.created > header.created && other.tail.writer == header.tail.writer)
}

/// Replaces damaged segments under locks that keep writers and compaction away.
fn salvage(store: &Store, indexed: &Indexed, progress: &dyn Progress) -> Result<Vec<String>> {
    // In the order in which compaction takes them.
    let take = |name| lock(store.env(), &store.dir().join(name), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX);
    let locks = [take("compact.lock")?, take("lock")?];
    crate::replace::sweep(store)?;
    let surveyed = Surveyed::read(store, indexed, progress)?;
    let surveys = &surveyed.surveys;
    // While nothing is appended: what an event may lack was noted before it.
    let notes = elsewhere::look(store.env(), store.dir())?;
    let plan = Plan::make(surveys, &notes.elsewhere, progress);
    let mut kept = Kept::of_untouched(surveys, &plan);
    let (mut salvaged, mut built) = (Vec::new(), Vec::new());
    for (number, survey) in surveys.iter().enumerate().filter(|(number, _)| plan.rewrite[*number]) {
        let mut builder =
            Builder::new(store.env(), &store.dir().join("tmp"), tail_of(survey, store.writer()))?;
        let counts = copy_good(surveys, number, &plan, &mut kept, &mut builder)?;
        salvaged.push(counts.describe(survey));
        built.extend(finish(builder)?);
    }
    let renew = needs_writer(&surveyed, &held_after(surveys, &plan), indexed, store.writer());
    built.extend(save_tips(store, surveys, &plan, indexed, renew)?);
    for built in &built {
        store.adopt(&built.path, &built.id)?;
    }
    // Before the damaged files go: a crash in between must not forget that a new writer is needed.
    if renew {
        store.replace_writer()?;
    }
    for (survey, _) in surveys.iter().zip(&plan.rewrite).filter(|(_, rewrite)| **rewrite) {
        set_aside(store, &survey.source.path)?;
    }
    drop(locks);
    store.refresh()?;
    Ok(salvaged)
}

fn tail_of(survey: &Survey, own: WriterId) -> LogTail {
    survey.tails().last().unwrap_or(LogTail::empty(own))
}

fn finish(builder: Builder) -> Result<Option<Built>> {
    if builder.is_empty() {
        builder.discard();
        return Ok(None);
    }
    builder.finish().map(Some)
}

/// What is in segments that stay, or has been copied.
struct Kept {
    events: HashSet<EventId>,
    objects: HashSet<ObjectId>,
}

impl Kept {
    fn of_untouched(surveys: &[Survey], plan: &Plan<'_>) -> Kept {
        let events = each_events(surveys, |number, events| {
            (!plan.rewrite[number]).then(|| events.into_iter().map(|(_, id)| id).collect::<Vec<_>>())
        });
        let untouched = surveys.iter().zip(&plan.rewrite).filter(|(_, rewrite)| !**rewrite);
        let objects = untouched.flat_map(|(survey, _)| survey.objects.iter().map(|object| object.id));
        Kept { events: events.into_iter().flatten().collect(), objects: objects.collect() }
    }
}

/// What was copied of one segment.
#[derive(Default)]
struct Counts {
    objects: u64,
    events: u64,
    dropped: u64,
}

impl Counts {
    fn describe(&self, survey: &Survey) -> String {
        let name = survey.source.path.file_name().unwrap_or_default().to_string_lossy();
        let (objects, events) = (survey.objects.len() as u64, u64::from(survey.contents.events));
        let listed = survey
            .directory
            .as_ref()
            .map(|directory| (u64::from(directory.objects), u64::from(directory.events)));
        let commit = survey.commits.last().map_or(0, |(_, commit)| u64::from(commit.events));
        let (all_objects, all_events) = listed.unwrap_or((objects, commit));
        let lost_events = all_events.saturating_sub(events) + self.dropped;
        let lost_objects = all_objects.saturating_sub(objects);
        let lost = match listed {
            None if survey.lost => format!("at least {lost_events} events and an unknown number of objects"),
            _ => format!("{lost_objects} objects and {lost_events} events"),
        };
        format!("{name}: {} objects and {} events copied, {lost} lost", self.objects, self.events)
    }
}

/// Copies what is good of one segment and nowhere else yet.
fn copy_good(
    surveys: &[Survey],
    number: usize,
    plan: &Plan<'_>,
    kept: &mut Kept,
    builder: &mut Builder,
) -> Result<Counts> {
    let survey = &surveys[number];
    let segment = u32::try_from(number).expect("segments of a store are bounded by limits");
    let mut counts = Counts::default();
    let mut packer = Packer::new(Effort::FAST_LONG);
    for frame in &survey.contents.objects_frames {
        let objects = plan.closure.objects(segment, *frame)?;
        if let Some(objects) = good_objects(survey, *frame, &objects, &mut packer, |slot, id| {
            !plan.broken.contains(&(segment, *frame, slot)) && kept.objects.insert(id)
        })? {
            counts.objects += objects.ids.len() as u64;
            builder.objects(&objects)?;
        }
    }
    for place in &survey.contents.events_frames {
        let mut received = Vec::new();
        for (event, id) in events_of(survey, place.offset)? {
            if !plan.closed(&event) {
                counts.dropped += 1;
            } else if kept.events.insert(id) {
                let record = plan.closure.plain(&event.fact.objects[0]).unwrap_or_default();
                let marks = marks(&event.fact, &record);
                received.push(Received { event, id, marks });
            }
        }
        counts.events += received.len() as u64;
        builder.received(&received)?;
    }
    let tips: Vec<Tip> = survey.tips.iter().map(|(_, tip)| *tip).filter(|tip| tip.verify().is_ok()).collect();
    builder.tips(&tips)?;
    Ok(counts)
}

/// The objects of a frame that are to be kept: the frame as it is, or another one with some of them.
fn good_objects(
    survey: &Survey,
    offset: u32,
    objects: &Objects,
    packer: &mut Packer,
    mut keep: impl FnMut(u32, ObjectId) -> bool,
) -> Result<Option<ObjectsFrame>> {
    let mut ids = Vec::with_capacity(objects.len());
    let mut some = ObjectsBuilder::new();
    for slot in 0..objects.len() {
        // What cannot be read was reported by the survey, and is left behind.
        let Ok((id, stored)) = objects.get_with_id(slot) else { continue };
        if !keep(crate::codec::length_u32(slot), id) {
            continue;
        }
        ids.push(id);
        match stored {
            Stored::Plain(bytes) => some.add(id, bytes),
            Stored::Recipe(recipe) => some.add_recipe(&recipe),
        }
    }
    if ids.is_empty() {
        return Ok(None);
    }
    if ids.len() < objects.len() {
        return Ok(Some(some.finish(packer)));
    }
    let key = survey.key().ok_or_else(|| Error::corrupt("a segment without a header has no frames"))?;
    let frame = read_frame(survey.source.file.as_ref(), &key, u64::from(offset))?;
    Ok(Some(ObjectsFrame { frame, ids }))
}

/// Tips that only the index still has, and, where the own log ends here, a last one of our own for it.
fn save_tips(
    store: &Store,
    surveys: &[Survey],
    plan: &Plan<'_>,
    indexed: &Indexed,
    renew: bool,
) -> Result<Option<Built>> {
    let in_segments = |tip: &Tip| {
        surveys
            .iter()
            .flat_map(|survey| &survey.tips)
            .any(|(_, other)| other.writer == tip.writer && other.seq >= tip.seq)
    };
    let mut tips: Vec<Tip> =
        indexed.tips.iter().copied().filter(|tip| tip.verify().is_ok() && !in_segments(tip)).collect();
    let own = store.writer();
    let newest = each_events(surveys, |_, events| {
        let own = events.into_iter().filter(|(event, _)| event.writer == own && plan.closed(event));
        own.map(|(event, id)| (event.seq, id)).max()
    });
    if let Some((seq, id)) = newest.into_iter().max().filter(|_| renew) {
        tips.push(store.key().tip(seq, id));
    }
    if tips.is_empty() {
        return Ok(None);
    }
    let mut builder = Builder::new(store.env(), &store.dir().join("tmp"), LogTail::empty(own))?;
    builder.tips(&tips)?;
    finish(builder)
}

/// Moves a damaged file out of the way; it is never deleted.
fn set_aside(store: &Store, path: &Path) -> Result<()> {
    let (env, dir) = (store.env(), store.dir().join("damaged"));
    let doing = |error| Error::io(format!("cannot set damaged file `{}` aside", path.display()), error);
    env.fs.create_dir_all(&dir).map_err(doing)?;
    env.fs.sync_dir(store.dir()).map_err(doing)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut aside = dir.join(&name);
    let mut copies = 1u32;
    while env.fs.metadata(&aside).is_ok() {
        aside = dir.join(format!("{name}.{copies}"));
        copies += 1;
    }
    env.fs.rename(path, &aside).map_err(doing)?;
    env.fs.sync_dir(&dir).map_err(doing)?;
    env.fs.sync_dir(path.parent().unwrap_or(store.dir())).map_err(doing)
}
