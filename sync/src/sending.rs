//! Sending segments: whole ones as they are, others made while they are sent, those of a push that was cut used again.
//!
//! A segment that is made on the way has its name at the end only. Before it gets it, its footer is kept here, durably:
//! so the next push knows of every segment that arrived, and what is in it, without reading it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_trace_store::build::{Builder, Ended};
use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::log::Received;
use agent_trace_store::object::ObjectsFrame;
use agent_trace_store::progress::Progress;
use agent_trace_store::segment::LogTail;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Handle;
use agent_trace_store::{Error, ObjectId, Result, SegmentId, Store};

use crate::collect::{Source, chosen_events, collect};
use crate::cut::{Cut, goes, not_closed, plan};
use crate::head::RemoteId;
use crate::light::walk;
use crate::limits::CUT_BYTES_MIN;
use crate::remote::events_of;
use crate::select::{Pick, Selection};
use crate::state::{State, cache_dir};
use crate::tables::{Tables, forget_table, keep_table, stands_in, stray_tables};
use crate::transport::{Outlet, Upload};

/// A segment that is sent.
pub struct Outgoing {
    /// Its name.
    pub id: SegmentId,
    /// Its length.
    pub bytes: u64,
    /// How much of it was sent: nothing where it had arrived before.
    pub sent: u64,
    on_its_way: Option<Way>,
}

enum Way {
    /// As it is in the store.
    Whole(Arc<Sealed>),
    /// All its bytes are there, and its name is not.
    Made(Box<Ended<Box<dyn Upload>>>),
}

/// What one push has to send.
pub struct Sending<'a> {
    store: &'a Store,
    outlet: &'a dyn Outlet,
    id: RemoteId,
    tables: Tables,
    tail: LogTail,
    whole: Vec<Arc<Sealed>>,
    /// Segments that arrived in a push that was cut.
    arrived: Vec<Arc<Sealed>>,
    cuts: Vec<Cut>,
    /// What is gathered into new segments.
    rest: Vec<&'a Pick>,
    /// The events that go in segments that are made now.
    left: EventSet,
}

/// A part of the work that one thread does.
enum Job<'a> {
    Cut(&'a Cut),
    Whole(&'a Arc<Sealed>),
    Rest,
}

impl<'a> Sending<'a> {
    /// Finds out what goes how. `tables` says which objects are there; asked only where it matters.
    pub fn prepare(
        store: &'a Store,
        outlet: &'a dyn Outlet,
        id: &RemoteId,
        state: &State,
        selection: &'a Selection,
        tables: &dyn Fn() -> Result<Tables>,
    ) -> Result<Sending<'a>> {
        let (mut whole, mut parts, mut rest): (Vec<(Arc<Sealed>, &Pick)>, _, _) =
            (Vec::new(), Vec::new(), Vec::new());
        for pick in &selection.picks {
            match (&pick.source.handle, &pick.numbers) {
                // Under a name that is replaced there nothing counts.
                (Handle::Sealed(sealed), None) if !state.replaced.contains(&sealed.id) => {
                    whole.push((Arc::clone(sealed), pick));
                }
                (Handle::Sealed(sealed), Some(numbers))
                    if sealed.bytes >= CUT_BYTES_MIN && numbers.len() * 2 >= pick.source.events as usize =>
                {
                    parts.push((Arc::clone(sealed), numbers.clone()));
                }
                _ => rest.push(pick),
            }
        }
        let whole = closed(store, whole, &mut rest, tables)?;
        let mut left =
            whole.iter().fold(selection.events.clone(), |left, sealed| left.minus(&events_of(sealed)));
        let arrived = arrived(store, outlet, id, state, &mut left)?;
        let tables = if parts.is_empty() && rest.is_empty() {
            Tables::empty()
        } else {
            // A footer that is kept lasts only where the directory does.
            let kept = cache_dir(store, id)?.join("tables");
            create_dir_durably(store.env(), &kept)
                .map_err(|error| Error::io(format!("cannot create `{}`", kept.display()), error))?;
            tables()?
        };
        let there = |id: &ObjectId| Ok(tables.contains(id)? || stands_in(&arrived, id)?);
        let mut cuts = plan(store, parts, &there, &|id| stands_in(&whole, id))?;
        if !arrived.is_empty() {
            // Their objects stay marked: what arrived may need some that did not.
            cuts.iter_mut().try_for_each(|cut| cut.retain(&left))?;
        }
        let tail = store.tail()?;
        Ok(Sending { store, outlet, id: *id, tables, tail, whole, arrived, cuts, rest, left })
    }

    /// About how much work it is.
    pub fn bytes(&self) -> u64 {
        let whole = self.whole.iter().chain(&self.arrived).map(|sealed| sealed.bytes);
        whole.chain(self.cuts.iter().map(Cut::bytes)).sum()
    }

    /// Sends everything, several segments at once: while one waits for the disk, another is made. Without `arrive` they
    /// get their names later.
    pub fn run(&self, arrive: bool, progress: &dyn Progress) -> Result<Vec<Outgoing>> {
        let cuts = self.cuts.iter().filter(|cut| !cut.is_empty());
        let mut jobs: Vec<Job<'_>> = cuts.map(Job::Cut).collect();
        // What takes long comes first, so that all threads end together.
        jobs.push(Job::Rest);
        jobs.extend(self.whole.iter().map(Job::Whole));
        let next = AtomicUsize::new(0);
        let take = || jobs.get(next.fetch_add(1, Ordering::Relaxed));
        let work_on = || -> Result<Vec<Outgoing>> {
            let mut outgoing = Vec::new();
            while let Some(job) = take() {
                let mut made = self.make(job)?;
                if arrive {
                    made.iter_mut().try_for_each(|segment| self.arrive(segment, progress))?;
                }
                outgoing.extend(made);
                if let Job::Cut(cut) = job {
                    progress.advance(cut.bytes());
                }
            }
            Ok(outgoing)
        };
        let work = || {
            // Where one fails, the others need not go on.
            work_on().inspect_err(|_| next.store(jobs.len(), Ordering::Relaxed))
        };
        // One more than there are cores, for the one that waits; alone in a simulation, where the order counts.
        let cores = rayon::current_num_threads();
        let many = (cores + 1).max(self.outlet.sends_at_once());
        let threads = if cores == 1 && self.outlet.sends_at_once() == 1 { 1 } else { many.min(jobs.len()) };
        let outgoing: Vec<Vec<Outgoing>> = if threads == 1 {
            vec![work()?]
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let joined = threads.into_iter().map(|thread| thread.join());
                joined
                    .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect::<Result<_>>()
            })?
        };
        let before = self.arrived.iter().map(|sealed| {
            progress.advance(sealed.bytes);
            Outgoing { id: sealed.id, bytes: sealed.bytes, sent: 0, on_its_way: None }
        });
        Ok(before.chain(outgoing.into_iter().flatten()).collect())
    }

    /// Makes a segment, or several; their bytes are there then, without names.
    fn make(&self, job: &Job<'_>) -> Result<Vec<Outgoing>> {
        match job {
            Job::Cut(cut) => {
                let mut builder = self.builder()?;
                cut.write(&mut builder)?;
                Ok(vec![made(builder.end()?)])
            }
            Job::Whole(sealed) => {
                let (id, bytes) = (sealed.id, sealed.bytes);
                Ok(vec![Outgoing { id, bytes, sent: 0, on_its_way: Some(Way::Whole(Arc::clone(sealed))) }])
            }
            Job::Rest => self.make_rest(),
        }
    }

    fn builder(&self) -> Result<Builder<Box<dyn Upload>>> {
        Ok(Builder::into(self.store.env(), self.outlet.create()?, self.tail))
    }

    /// Gathers what comes in small parts.
    fn make_rest(&self) -> Result<Vec<Outgoing>> {
        let mut outgoing = Vec::new();
        let mut sent: HashSet<ObjectId> = HashSet::new();
        let mut builder = None;
        for pick in &self.rest {
            let all: Vec<u32>;
            let numbers = match &pick.numbers {
                Some(numbers) => numbers,
                None => {
                    all = (0..pick.source.events).collect();
                    &all
                }
            };
            for numbers in portions(&pick.source, numbers)? {
                let events = chosen_events(&pick.source, &numbers)?;
                let known = |id: &ObjectId| Ok(sent.contains(id) || self.goes(id)?);
                let mut collected = collect(self.store, &[], &pick.source, events, &known)?;
                let left =
                    |received: &Received| self.left.contains(&received.event.writer, received.event.seq);
                // Nobody would fetch objects without events.
                if collected.frames.is_empty() || collected.events.iter().any(left) {
                    collected.events.retain(left);
                }
                self.add_frames(&collected.frames, &mut builder, &mut sent)?;
                if !collected.events.is_empty() {
                    let builder = self.started(&mut builder)?;
                    builder.received(&collected.events)?;
                }
                if let Some(full) = builder.take_if(|builder| builder.is_full()) {
                    outgoing.push(made(full.end()?));
                }
            }
        }
        if let Some(builder) = builder {
            outgoing.push(made(builder.end()?));
        }
        Ok(outgoing)
    }

    fn started<'b>(
        &self,
        builder: &'b mut Option<Builder<Box<dyn Upload>>>,
    ) -> Result<&'b mut Builder<Box<dyn Upload>>> {
        if builder.is_none() {
            *builder = Some(self.builder()?);
        }
        Ok(builder.as_mut().expect("made above"))
    }

    fn add_frames(
        &self,
        frames: &[ObjectsFrame],
        builder: &mut Option<Builder<Box<dyn Upload>>>,
        sent: &mut HashSet<ObjectId>,
    ) -> Result<()> {
        for frame in frames {
            sent.extend(frame.ids.iter().copied());
            self.started(builder)?.objects(frame)?;
        }
        Ok(())
    }

    /// Whether an object is there, or goes with what is not gathered.
    fn goes(&self, id: &ObjectId) -> Result<bool> {
        Ok(self.tables.contains(id)?
            || stands_in(&self.whole, id)?
            || stands_in(&self.arrived, id)?
            || goes(&self.cuts, id)?)
    }

    /// Sees to it that a segment is there under its name, durably.
    pub fn arrive(&self, segment: &mut Outgoing, progress: &dyn Progress) -> Result<()> {
        match segment.on_its_way.take() {
            None => Ok(()),
            Some(Way::Whole(sealed)) => {
                segment.sent = send(self.outlet, &sealed, progress)?;
                Ok(())
            }
            Some(Way::Made(ended)) => {
                // First, so that a segment that is there is known here.
                keep_table(self.store, &self.id, &ended)?;
                ended.sink.name(&ended.id)?;
                segment.sent = ended.bytes;
                Ok(())
            }
        }
    }
}

/// The segments that may go as they are, with each other and what is there; others join what is gathered.
fn closed<'a>(
    store: &Store,
    whole: Vec<(Arc<Sealed>, &'a Pick)>,
    rest: &mut Vec<&'a Pick>,
    tables: &dyn Fn() -> Result<Tables>,
) -> Result<Vec<Arc<Sealed>>> {
    let segments: Vec<Arc<Sealed>> = whole.iter().map(|(sealed, _)| Arc::clone(sealed)).collect();
    let mut open = not_closed(store, &segments, &|_| Ok(false))?;
    if !open.is_empty() {
        // Only then does it matter what is there.
        let tables = tables()?;
        open = not_closed(store, &segments, &|id| tables.contains(id))?;
    }
    let is_open = |place: &usize| open.binary_search(place).is_ok();
    rest.extend(whole.iter().enumerate().filter(|(place, _)| is_open(place)).map(|(_, (_, pick))| *pick));
    let closed = segments.into_iter().enumerate().filter(|(place, _)| !is_open(place));
    Ok(closed.map(|(_, sealed)| sealed).collect())
}

/// Numbers of events in portions of which the objects fit the memory; those with bytes of transcripts weigh more.
fn portions(source: &Source, numbers: &[u32]) -> Result<Vec<Vec<u32>>> {
    let (mut portions, mut weight) = (vec![Vec::new()], 0);
    walk(source, numbers, |number, laid| {
        if weight >= PORTION_WEIGHT {
            portions.push(Vec::new());
            weight = 0;
        }
        weight += if laid.objects().count() > 1 { BODY_WEIGHT } else { 1 };
        portions.last_mut().expect("there is one").push(number);
        Ok(())
    })?;
    Ok(portions)
}

/// What is gathered at once, in records; and how many of those a transcript counts for.
const PORTION_WEIGHT: usize = 8_192;
const BODY_WEIGHT: usize = 128;

fn made(ended: Ended<Box<dyn Upload>>) -> Outgoing {
    Outgoing { id: ended.id, bytes: ended.bytes, sent: 0, on_its_way: Some(Way::Made(Box::new(ended))) }
}

/// Segments that an earlier push made, that no head names, and whose events are all to be sent; their events are taken
/// from `left`. The footers that are kept of others are removed.
fn arrived(
    store: &Store,
    outlet: &dyn Outlet,
    id: &RemoteId,
    state: &State,
    left: &mut EventSet,
) -> Result<Vec<Arc<Sealed>>> {
    let mut found = Vec::new();
    for sealed in stray_tables(store, id, state)? {
        let events = events_of(&sealed);
        let wanted = !events.is_empty() && events.minus(left).is_empty();
        if wanted && outlet.keep_segment(&sealed.id, sealed.bytes)? {
            *left = left.minus(&events);
            found.push(sealed);
        } else {
            forget_table(store, id, &sealed.id)?;
        }
    }
    Ok(found)
}

/// Sends a segment of the store, unless it is there; returns the bytes sent.
fn send(outlet: &dyn Outlet, sealed: &Sealed, progress: &dyn Progress) -> Result<u64> {
    if outlet.keep_segment(&sealed.id, sealed.bytes)? {
        // It arrived in an earlier push that was cut before its head.
        progress.advance(sealed.bytes);
        return Ok(0);
    }
    let sent = |bytes| progress.advance(bytes);
    outlet.send(&sealed.id, sealed.file.as_ref(), sealed.bytes, &sent)?;
    Ok(sealed.bytes)
}
