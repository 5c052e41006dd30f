//! Pull: what the remote's changed heads name is fetched, checked and taken in.
//!
//! Nothing is taken in before it has been checked, and repeating a pull changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_trace_store::progress::Progress;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, SegmentId, Store, Timestamp, WriterId};

use crate::accept::{
    ForkedIds, adopt, append, fork, give_way, goes_whole, new_events, runs_of, set_of, tips_for,
};
use crate::manifest::segment_key;
use crate::receive::{Checked, Neighbours, Verdict, check};
use crate::remote::{Remote, events_of, replay};
use crate::select::events_in;
use crate::state::{State, cache_dir, clear};
use crate::tables::remote_segment;

/// What a pull takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// Only records not before this instant.
    pub since: Option<Timestamp>,
    /// Count, take nothing.
    pub dry_run: bool,
}

/// What a pull has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullReport {
    /// Events taken, by kind.
    pub taken: BTreeMap<Kind, u64>,
    /// Segments read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Requests made of the remote.
    pub requests: u64,
    /// Logs that have forked (both sides are kept), and heads that went back.
    pub forks: Vec<String>,
    /// What was refused, with reasons; the rest was taken.
    pub refused: Vec<String>,
    /// Whether the store took a new writer, because events of its own log were written elsewhere.
    pub new_writer: bool,
}

/// Pulls.
pub fn pull(
    store: &Store,
    remote: &Remote,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<PullReport> {
    let Some(id) = remote.id() else {
        let place = remote.transport().place();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no remote in `{place}` yet")));
    };
    let _busy = store.busy()?;
    let _lock = remote.lock(store)?;
    store.catch_up()?;
    let mut state = remote.state(store)?;
    let before = state.clone();
    let replayed = replay(store, remote, &mut state)?;
    let mut report = PullReport::default();
    report.forks.extend(replayed.gone_back);
    report.refused.extend(replayed.refused);
    let mut held = store.held(&store.snapshot()?)?;
    let forked = forked_logs(store, &held, &replayed.tips, &mut report)?;
    let writers = forked.keys().map(|(writer, _)| *writer).collect();
    let wanted = wanted_segments(store, remote, &state, &held, &writers)?;
    if options.dry_run {
        for sealed in &wanted {
            count_new(sealed, &held, options, &mut report)?;
            held = held.union(&events_of(sealed));
        }
        report.requests = remote.transport().requests();
        return Ok(report);
    }
    let mut puller = Puller {
        store,
        remote,
        state: &state,
        options,
        inbox: cache_dir(store, &id)?.join("inbox"),
        neighbours: Neighbours::of(store.index())?,
        held,
        forked,
        report,
    };
    puller.take_all(wanted, progress)?;
    let mut report = puller.report;
    report.forks.sort_unstable();
    report.forks.dedup();
    store.catch_up()?;
    if state != before {
        remote.remember(store, &state)?;
    }
    report.requests = remote.transport().requests();
    Ok(report)
}

/// Live segments that hold events which are not here, by their footers.
fn wanted_segments(
    store: &Store,
    remote: &Remote,
    state: &State,
    held: &EventSet,
    forked: &BTreeSet<WriterId>,
) -> Result<Vec<Arc<Sealed>>> {
    let Some(id) = remote.id() else { return Ok(Vec::new()) };
    if state.has.minus(held).is_empty() && forked.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted = Vec::new();
    for (segment, bytes) in state.live_segments() {
        let sealed = remote_segment(store, remote.transport(), &id, segment, *bytes)?;
        let other_side = sealed.directory.runs.iter().any(|run| forked.contains(&run.writer));
        if other_side || !events_of(&sealed).minus(held).is_empty() {
            wanted.push(sealed);
        }
    }
    wanted.sort_by_key(|sealed| (sealed.header.created, sealed.id));
    Ok(wanted)
}

/// Logs of which a head on the remote has another event at a place than this store: their events here, by id.
fn forked_logs(store: &Store, held: &EventSet, tips: &[Tip], report: &mut PullReport) -> Result<ForkedIds> {
    let mut forked = ForkedIds::new();
    for tip in tips.iter().filter(|tip| held.contains(&tip.writer, tip.seq)) {
        let place = EventSet::from_ranges([(tip.writer, tip.seq.get(), tip.seq.get())]);
        let here = events_in(store, &place)?;
        if !here.is_empty() && here.iter().all(|event| event.id() != tip.event) {
            report.forks.push(fork(&tip.writer, tip.seq.get()));
            note_log(store, held, &tip.writer, &mut forked)?;
        }
    }
    Ok(forked)
}

/// Reads the ids of a log's events that are here.
fn note_log(store: &Store, held: &EventSet, writer: &WriterId, forked: &mut ForkedIds) -> Result<()> {
    let ranges = held.log(writer).map(|log| log.ranges().to_vec()).unwrap_or_default();
    let log = EventSet::from_ranges(ranges.into_iter().map(|(first, last)| (*writer, first, last)));
    for event in events_in(store, &log)? {
        forked.entry((event.writer, event.seq)).or_default().insert(event.id());
    }
    Ok(())
}

/// Counts without fetching; by kind only where a segment is new as a whole.
fn count_new(
    sealed: &Arc<Sealed>,
    held: &EventSet,
    options: &PullOptions,
    report: &mut PullReport,
) -> Result<()> {
    let events = events_of(sealed);
    let new = events.minus(held).len();
    if new == events.len() && options.since.is_none() {
        for (kind, count) in &sealed.directory.kinds {
            *report.taken.entry(*kind).or_default() += u64::from(*count);
        }
    } else {
        *report.taken.entry(Kind::from_number(0)).or_default() += new;
    }
    report.segments += 1;
    report.bytes += sealed.bytes;
    Ok(())
}

struct Puller<'a> {
    store: &'a Store,
    remote: &'a Remote,
    state: &'a State,
    options: &'a PullOptions,
    inbox: PathBuf,
    neighbours: Neighbours,
    held: EventSet,
    forked: ForkedIds,
    report: PullReport,
}

impl Puller<'_> {
    /// Takes segments in. One may need objects that another brings, so those that lack some are tried again.
    fn take_all(&mut self, wanted: Vec<Arc<Sealed>>, progress: &dyn Progress) -> Result<()> {
        // What a pull that was cut left there may not be durable.
        clear(self.store, &self.inbox)?;
        progress.start("pulling", Some(wanted.iter().map(|sealed| sealed.bytes).sum()));
        let mut waiting = wanted;
        loop {
            let count = waiting.len();
            let mut incomplete: Vec<(Arc<Sealed>, ObjectId)> = Vec::new();
            for sealed in waiting {
                if let Some(missing) = self.take(&sealed, progress)? {
                    incomplete.push((sealed, missing));
                }
            }
            if incomplete.is_empty() || incomplete.len() == count {
                for (sealed, missing) in incomplete {
                    let key = segment_key(&sealed.id);
                    let reason = format!("`{key}` needs object `{}`, which is nowhere", missing.short());
                    self.report.refused.push(reason);
                }
                break;
            }
            waiting = incomplete.into_iter().map(|(sealed, _)| sealed).collect();
        }
        progress.finish();
        clear(self.store, &self.inbox)
    }

    /// Takes one segment in, or says which object it lacks.
    fn take(&mut self, listed: &Arc<Sealed>, progress: &dyn Progress) -> Result<Option<ObjectId>> {
        let (path, sealed) = match self.fetch(listed, progress) {
            Ok(fetched) => fetched,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.refuse(&listed.id, &error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let checked = match check(self.store, &sealed, &self.state.tips, &self.neighbours) {
            Ok(Verdict::Good(checked)) => checked,
            Ok(Verdict::Incomplete(missing)) => return Ok(Some(missing)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                self.refuse(&sealed.id, &error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        for (writer, seq) in &checked.forks {
            self.report.forks.push(fork(writer, *seq));
            note_log(self.store, &self.held, writer, &mut self.forked)?;
        }
        if !checked.unsigned.is_empty() {
            let count = checked.unsigned.len();
            let key = segment_key(&sealed.id);
            self.report.refused.push(format!("`{key}`: {count} events that their writer has not signed"));
        }
        self.accept(&path, &checked)?;
        Ok(None)
    }

    fn refuse(&mut self, id: &SegmentId, error: &Error) {
        self.report.refused.push(format!("`{}`: {error}", segment_key(id)));
    }

    /// Copies a segment into the inbox, unless this pull has done so.
    fn fetch(&mut self, listed: &Arc<Sealed>, progress: &dyn Progress) -> Result<(PathBuf, Arc<Sealed>)> {
        let path = self.inbox.join(format!("{}.seg", listed.id));
        let fs = &self.store.env().fs;
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        if fs.metadata(&path).is_ok() {
            if let Ok(sealed) = Sealed::open(self.store.env(), &path, listed.id) {
                progress.advance(sealed.bytes);
                return Ok((path, Arc::new(sealed)));
            }
            fs.remove(&path).map_err(doing)?;
        }
        let source = self
            .remote
            .transport()
            .open(&segment_key(&listed.id))?
            .ok_or_else(|| Error::corrupt("the remote names it, but it is not there"))?;
        let target = fs.create(&path, true).map_err(doing)?;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < listed.bytes {
            let length = usize::try_from(listed.bytes - at).unwrap_or(usize::MAX).min(buffer.len());
            source
                .read_exact_at(&mut buffer[..length], at)
                .map_err(|error| Error::corrupt("it is shorter than its manifest says").with_source(error))?;
            target.write_all_at(&buffer[..length], at).map_err(doing)?;
            at += length as u64;
            progress.advance(length as u64);
        }
        target.sync().map_err(doing)?;
        self.report.segments += 1;
        self.report.bytes += listed.bytes;
        Ok((path.clone(), Arc::new(Sealed::open(self.store.env(), &path, listed.id)?)))
    }

    /// Makes the new events of a checked segment part of the store.
    fn accept(&mut self, path: &Path, checked: &Checked) -> Result<()> {
        let mut events = new_events(checked, &self.held, &self.forked);
        if let Some(since) = self.options.since {
            events.retain(|(event, _, _)| event.fact.time >= since);
        }
        if events.is_empty() {
            return Ok(());
        }
        let runs = runs_of(&events);
        self.report.new_writer |= give_way(self.store, &runs)?;
        let tips = tips_for(&runs, &self.state.tips, &checked.tips);
        for (event, id, _) in &events {
            *self.report.taken.entry(event.fact.kind).or_default() += 1;
            if let Some(ids) = self.forked.get_mut(&(event.writer, event.seq)) {
                ids.insert(*id);
            }
        }
        if goes_whole(&events, checked) {
            adopt(self.store, path, &checked.sealed.id, tips)?;
        } else {
            append(self.store, &self.inbox, &checked.sealed, &[], events, tips)?;
        }
        self.held = self.held.union(&set_of(&runs));
        runs.iter().for_each(|run| self.neighbours.add(run));
        Ok(())
    }
}
