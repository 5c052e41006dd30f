//! Taking a bundle in: all of it or nothing, also when the run is cut anywhere.
//!
//! ```text
//! hashes ─► quarantine ─► check each segment ─► conflicts, forks ─► one batch, or segments and a journal
//! ```
//!
//! Nothing of the store changes before all has been checked. What is small is appended in one batch; else segments are put
//! in place together (`store::adoption`). Taking the same in again changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use agent_trace_store::adoption::Quarantine;
use agent_trace_store::build::Builder;
use agent_trace_store::erase::append;
use agent_trace_store::index::Feed;
use agent_trace_store::limits::BATCH_RAW_BYTES_TARGET;
use agent_trace_store::log::Prepared;
use agent_trace_store::progress::Progress;
use agent_trace_store::segment::Run;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, SegmentId, Store};

use crate::accept::{ForkedIds, give_way, goes_whole, new_events, runs_of, set_of, tips_for};
use crate::bundle::check::{check_all, check_base, check_hashes};
use crate::bundle::conflicts::{Comparison, KeyConflict};
use crate::bundle::opened::Bundle;
use crate::collect::{Source, chosen_events, collect};
use crate::limits::{
    BUNDLE_BATCH_EVENTS_MAX, BUNDLE_FEED_EVENTS_MAX, BUNDLE_PORTION_EVENTS_TARGET, adopt_bytes_min,
};
use crate::remote::events_of;
use crate::tables::stands_in;
use crate::take::{PullOptions, PullReport, Taking, drop_erased, forked_logs};

/// What an import of a bundle has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Events taken, by kind; after a dry run, those that would be.
    pub taken: BTreeMap<Kind, u64>,
    /// Events that were here already.
    pub known: u64,
    /// Segments in the bundle.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Logs that have forked; both sides are kept.
    pub forks: Vec<String>,
    /// Keys under which another record was here; both are kept. The first of them.
    pub conflicts: Vec<KeyConflict>,
    /// How many there are.
    pub conflicts_count: u64,
    /// Whether the store took a new writer, because events of its own log were written elsewhere.
    pub new_writer: bool,
}

/// Takes a bundle in; with `dry_run` it is checked and counted, and nothing is written. What it erases is erased here
/// where `accept_erase` says so; else a bundle that erases is refused.
pub fn import(
    store: &Store,
    bundle: &Bundle,
    dry_run: bool,
    accept_erase: bool,
    progress: &dyn Progress,
) -> Result<ImportReport> {
    let _busy = if dry_run { None } else { store.busy()? };
    let quarantine = if dry_run { None } else { Some(Quarantine::open(store)?) };
    let taken = take(store, bundle, quarantine.as_ref(), accept_erase, progress);
    if let Some(quarantine) = quarantine {
        // After a failure, what is left there harms nobody: the next import removes it.
        let closed = quarantine.close(store);
        if taken.is_ok() {
            closed?;
        }
    }
    taken
}

/// What is known of a segment once it has been checked.
struct Plan {
    sealed: Arc<Sealed>,
    /// Its new events.
    numbers: Vec<u32>,
    runs: Vec<Run>,
    tips: Vec<Tip>,
    /// Whether the file may be kept as it is, as far as the segment itself says.
    goes_whole: bool,
    /// Objects that it has from others.
    borrowed: Vec<ObjectId>,
    /// Objects of erased conversations that no erase event names yet.
    covered: Vec<ObjectId>,
    feed: Option<Feed>,
}

fn take(
    store: &Store,
    bundle: &Bundle,
    quarantine: Option<&Quarantine>,
    accept_erase: bool,
    progress: &dyn Progress,
) -> Result<ImportReport> {
    bundle.check_size()?;
    store.catch_up()?;
    let snapshot = store.snapshot()?;
    let held = store.held(&snapshot)?;
    check_base(bundle, &held)?;
    let listed = bundle.segments.iter().map(|(id, bytes)| bundle.sealed(id, *bytes).map(Arc::new));
    let listed: Vec<Arc<Sealed>> = listed.collect::<Result<_>>()?;
    let mut report = ImportReport {
        segments: listed.len() as u64,
        bytes: listed.iter().map(|sealed| sealed.bytes).sum(),
        ..ImportReport::default()
    };
    let tips: Vec<Tip> = bundle.tips.values().copied().collect();
    let mut told = PullReport::default();
    let mut forked = forked_logs(store, &held, &tips, &mut told)?;
    progress.start("checking", Some(report.bytes));
    let is_known = |sealed: &Arc<Sealed>| events_of(sealed).minus(&held).is_empty();
    if forked.is_empty() && listed.iter().all(is_known) {
        check_hashes(bundle, &listed, progress)?;
        progress.finish();
        report.known = listed.iter().map(|sealed| u64::from(sealed.directory.events)).sum();
        return Ok(report);
    }
    let listed = match quarantine {
        Some(quarantine) => {
            listed.iter().map(|sealed| fetch(store, quarantine, sealed)).collect::<Result<_>>()?
        }
        None => listed,
    };
    let erases = quarantine.is_some() && take_erases(store, bundle, &listed, &held, accept_erase)?;
    let plans = check(store, bundle, &listed, held, &mut forked, &mut report, progress)?;
    progress.finish();
    report.forks.extend(told.forks);
    report.forks.sort_unstable();
    report.forks.dedup();
    if let Some(quarantine) = quarantine {
        let covered: BTreeSet<ObjectId> =
            plans.iter().flat_map(|plan| plan.covered.iter().copied()).collect();
        report.new_writer = commit(store, bundle, quarantine, &listed, plans)?;
        if !covered.is_empty() {
            // Later records of what is erased: they are named now, and their bytes go again.
            append(store, &covered, &BTreeSet::new(), store.env().clock.now(), None)?;
        }
        if erases || !covered.is_empty() {
            drop_erased(store)?;
        }
    }
    Ok(report)
}

/// Takes the erase events of a bundle first: others of its events may lack what they name. Says whether there were any.
fn take_erases(
    store: &Store,
    bundle: &Bundle,
    listed: &[Arc<Sealed>],
    held: &EventSet,
    accept: bool,
) -> Result<bool> {
    let erases = |sealed: &&Arc<Sealed>| {
        sealed.directory.kinds.contains_key(&Kind::ERASE) && !events_of(sealed).minus(held).is_empty()
    };
    let erasing: Vec<&Arc<Sealed>> = listed.iter().filter(erases).collect();
    if erasing.is_empty() {
        return Ok(false);
    }
    if !accept {
        return Err(Error::invalid("the bundle erases what may be in this store"));
    }
    let (options, told) = (PullOptions::default(), PullReport::default());
    let mut taking = Taking::start(store, &bundle.id, &options, bundle.tips.clone(), &[], told)?;
    taking.clear()?;
    erasing.into_iter().try_for_each(|sealed| taking.take_erases(sealed))?;
    taking.clear()?;
    Ok(true)
}

/// Copies a segment into the quarantine, durably.
fn fetch(store: &Store, quarantine: &Quarantine, listed: &Sealed) -> Result<Arc<Sealed>> {
    let path = quarantine.path(&listed.id);
    let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
    let target = store.env().fs.create(&path, true).map_err(doing)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < listed.bytes {
        let length = usize::try_from(listed.bytes - at).unwrap_or(usize::MAX).min(buffer.len());
        listed.file.read_exact_at(&mut buffer[..length], at).map_err(crate::bundle::container::unread)?;
        target.write_all_at(&buffer[..length], at).map_err(doing)?;
        at += length as u64;
    }
    target.sync().map_err(doing)?;
    Sealed::open(store.env(), &path, listed.id).map(Arc::new)
}

/// Checks all segments, and finds out what of each is new. Fails where anything is wrong.
fn check(
    store: &Store,
    bundle: &Bundle,
    listed: &[Arc<Sealed>],
    mut held: EventSet,
    forked: &mut ForkedIds,
    report: &mut ImportReport,
    progress: &dyn Progress,
) -> Result<Vec<Plan>> {
    let snapshot = store.snapshot()?;
    let mut comparison = Comparison::default();
    let mut plans = Vec::new();
    let mut feed_events = 0;
    let found = check_all(store, bundle, listed, progress, &mut |place, mut checked| {
        for (writer, _) in &checked.forks {
            crate::take::note_log(store, &held, writer, forked)?;
        }
        let events = new_events(&checked, &held, forked);
        report.known += (checked.events.len() - events.len()) as u64;
        let runs = runs_of(&events);
        for (event, id, _) in &events {
            let fact = &event.fact;
            *report.taken.entry(fact.kind).or_default() += 1;
            comparison.note(fact.kind, &fact.key, &fact.objects);
            if let Some(ids) = forked.get_mut(&(event.writer, event.seq)) {
                ids.insert(*id);
            }
        }
        comparison.flush(store, &snapshot, listed)?;
        held = held.union(&set_of(&runs));
        if events.is_empty() {
            return Ok(());
        }
        let is_fork = runs.iter().any(|run| forked.contains_key(&(run.writer, run.seq_first)));
        feed_events += events.len() as u64;
        plans.push(Plan {
            sealed: Arc::clone(&listed[place]),
            numbers: events.iter().map(|(_, _, number)| *number).collect(),
            goes_whole: !is_fork && goes_whole(&events, &checked),
            runs,
            tips: std::mem::take(&mut checked.tips),
            feed: checked.feed.take().filter(|_| feed_events <= BUNDLE_FEED_EVENTS_MAX),
            borrowed: std::mem::take(&mut checked.borrowed),
            covered: checked.covered.iter().copied().collect(),
        });
        Ok(())
    })?;
    if let Some(first) = found.missing.first() {
        let (count, short) = (found.missing.len(), first.short());
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the bundle needs {count} object(s) that are neither in it nor in this store, as `{short}`"
            ),
        ));
    }
    report.forks.extend(found.forks);
    (report.conflicts, report.conflicts_count) = comparison.finish();
    Ok(plans)
}

/// Makes all that is new part of the store in one step; says whether the store took a new writer for it.
fn commit(
    store: &Store,
    bundle: &Bundle,
    quarantine: &Quarantine,
    listed: &[Arc<Sealed>],
    mut plans: Vec<Plan>,
) -> Result<bool> {
    let runs: Vec<Run> = plans.iter().flat_map(|plan| plan.runs.iter().copied()).collect();
    if runs.is_empty() {
        return Ok(false);
    }
    let came: Vec<Tip> = plans.iter().flat_map(|plan| plan.tips.iter().copied()).collect();
    let tips = tips_for(&runs, &bundle.tips, &came);
    let new_writer = give_way(store, &runs)?;
    let mut whole: Vec<Arc<Sealed>> = Vec::new();
    for plan in &mut plans {
        let all_there = |ids: &[ObjectId]| -> Result<bool> {
            for id in ids {
                if !stands_in(&whole, id)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        plan.goes_whole = plan.goes_whole && all_there(&plan.borrowed)?;
        if plan.goes_whole {
            whole.push(Arc::clone(&plan.sealed));
        }
    }
    let mut parts = Parts {
        store,
        quarantine,
        listed,
        whole: &whole,
        waiting: Prepared::default(),
        raw: 0,
        builder: None,
        built: Vec::new(),
        sent: HashSet::new(),
    };
    for plan in plans.iter().filter(|plan| !plan.goes_whole) {
        parts.add(plan)?;
    }
    if whole.is_empty() && parts.builder.is_none() && parts.built.is_empty() {
        store.append(Prepared { tips, ..parts.waiting })?;
        store.catch_up()?;
        return Ok(new_writer);
    }
    let built = parts.finish()?;
    // The signed tips first: without them the events would count as nobody's. Alone they say nothing about any record.
    store.append(Prepared { tips, ..Prepared::default() })?;
    let segments: Vec<SegmentId> = whole.iter().map(|sealed| sealed.id).chain(built).collect();
    quarantine.adopt(store, &segments)?;
    let feeds = plans.iter_mut().filter(|plan| plan.goes_whole).filter_map(|plan| plan.feed.take());
    store.index_known(feeds.collect())?;
    store.catch_up()?;
    Ok(new_writer)
}

/// What does not go as whole segments: gathered for one batch, or, where it is much, built into segments.
struct Parts<'a> {
    store: &'a Store,
    quarantine: &'a Quarantine,
    listed: &'a [Arc<Sealed>],
    whole: &'a [Arc<Sealed>],
    waiting: Prepared,
    raw: u64,
    builder: Option<Builder>,
    built: Vec<SegmentId>,
    /// Objects that are gathered or built.
    sent: HashSet<ObjectId>,
}

impl Parts<'_> {
    fn add(&mut self, plan: &Plan) -> Result<()> {
        let source = Source::sealed(&plan.sealed);
        for part in plan.numbers.chunks(BUNDLE_PORTION_EVENTS_TARGET) {
            let events = chosen_events(&source, part)?;
            let (store, sent, whole) = (self.store, &self.sent, self.whole);
            let known =
                |id: &ObjectId| Ok(sent.contains(id) || stands_in(whole, id)? || store.contains(id)?);
            // First the segment itself, so that what stands in several is taken from nearby.
            let mut extra = vec![Arc::clone(&plan.sealed)];
            extra.extend(self.listed.iter().filter(|other| other.id != plan.sealed.id).cloned());
            let collected = collect(store, &extra, &source, events, &known)?;
            for frame in collected.frames {
                self.sent.extend(frame.ids.iter().copied());
                self.raw += u64::from(frame.frame.raw_bytes);
                self.waiting.frames.push(frame);
            }
            self.waiting.received.extend(collected.events);
            let is_small = self.waiting.file_bytes() < adopt_bytes_min()
                && self.waiting.received.len() <= BUNDLE_BATCH_EVENTS_MAX
                && self.raw <= BATCH_RAW_BYTES_TARGET;
            if !is_small || self.builder.is_some() || !self.built.is_empty() {
                self.pour()?;
            }
        }
        Ok(())
    }

    /// Moves what waits into a segment.
    fn pour(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        if self.builder.is_none() {
            let (env, dir) = (self.store.env(), self.quarantine.dir());
            self.builder = Some(Builder::new(env, dir, self.store.tail()?)?);
        }
        let builder = self.builder.as_mut().expect("made above");
        waiting.frames.iter().try_for_each(|frame| builder.objects(frame))?;
        builder.received(&waiting.received)?;
        if builder.is_full() { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        let Some(builder) = self.builder.take() else { return Ok(()) };
        let built = builder.finish()?;
        let path = self.quarantine.path(&built.id);
        let doing = |error| Error::io(format!("cannot name `{}`", path.display()), error);
        self.store.env().fs.rename(&built.path, &path).map_err(doing)?;
        self.built.push(built.id);
        Ok(())
    }

    /// The segments that have been built.
    fn finish(mut self) -> Result<Vec<SegmentId>> {
        self.pour()?;
        self.close()?;
        Ok(self.built)
    }
}
