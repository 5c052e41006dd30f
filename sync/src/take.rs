//! Taking in: what has been checked becomes part of the store.
//!
//! A large segment that is new as a whole is kept as it is; of others the new events go to the open segment. Taking the
//! same in again changes nothing. Knows nothing of where segments come from.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_trace_store::erase::{append, complete};
use agent_trace_store::event::Event;
use agent_trace_store::progress::Silent;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{
    Error, ErrorKind, EventId, Kind, ObjectId, Result, SegmentId, Store, Timestamp, WriterId,
};

use crate::accept::{
    ForkedIds, Numbered, adopt, append_objects, append_without, fork, give_way, goes_whole, new_events,
    runs_of, set_of, tips_for,
};
use crate::collect::{Bodies, bodies_of};
use crate::head::RemoteId;
use crate::manifest::segment_key;
use crate::receive::{Checked, Neighbours, Verdict, check, check_for_erases, check_without_bodies};
use crate::select::events_in;
use crate::state::{cache_dir, clear};

/// Which bytes of transcripts a pull brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transcripts {
    /// Those of new events.
    #[default]
    New,
    /// None: they stay elsewhere, to be fetched on demand.
    None,
    /// Those of new events, and all that are elsewhere and that the remote holds.
    All,
}

/// What a pull takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// Only records not before this instant.
    pub since: Option<Timestamp>,
    /// Which bytes of transcripts.
    pub transcripts: Transcripts,
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
    /// Transcripts whose bytes were left out.
    pub left_out: u64,
    /// Transcripts whose bytes were elsewhere and have been fetched.
    pub fetched: u64,
    /// Transcripts whose bytes are elsewhere still: this remote does not hold them.
    pub not_there: u64,
    /// Whether bytes of transcripts came that were not wanted, because the service cannot leave them out.
    pub cannot_leave_out: bool,
    /// Events of which something is erased: the events were taken, those bytes were not.
    pub erased: u64,
    /// Objects whose bytes were here and are gone now, since somebody has erased them.
    pub dropped: u64,
}

/// Logs of which a head on the remote has another event at a place than this store: their events here, by id.
pub(crate) fn forked_logs(
    store: &Store,
    held: &EventSet,
    tips: &[Tip],
    report: &mut PullReport,
) -> Result<ForkedIds> {
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
pub(crate) fn note_log(
    store: &Store,
    held: &EventSet,
    writer: &WriterId,
    forked: &mut ForkedIds,
) -> Result<()> {
    let ranges = held.log(writer).map(|log| log.ranges().to_vec()).unwrap_or_default();
    let log = EventSet::from_ranges(ranges.into_iter().map(|(first, last)| (*writer, first, last)));
    for event in events_in(store, &log)? {
        forked.entry((event.writer, event.seq)).or_default().insert(event.id());
    }
    Ok(())
}

/// Where what a remote holds becomes part of the store.
pub(crate) struct Taking<'a> {
    pub(crate) store: &'a Store,
    /// Where it comes from.
    pub(crate) remote: RemoteId,
    /// Whether bytes of transcripts may have been left out.
    pub(crate) bodies: Bodies,
    /// Only records not before this instant.
    pub(crate) since: Option<Timestamp>,
    /// Where segments lie until they are part of the store.
    pub(crate) inbox: PathBuf,
    /// How far logs go, by what the remote says.
    pub(crate) tips: BTreeMap<WriterId, Tip>,
    pub(crate) neighbours: Neighbours,
    pub(crate) held: EventSet,
    pub(crate) forked: ForkedIds,
    /// Where only bytes of transcripts are fetched whose events are here: which.
    pub(crate) wanted_bodies: Option<HashSet<ObjectId>>,
    /// Only events of this kind.
    pub(crate) only: Option<Kind>,
    /// Events that are asked for by id: they are not here, whatever stands at their places.
    pub(crate) asked: HashSet<EventId>,
    pub(crate) report: PullReport,
}

/// Where a segment lies until it has been checked.
pub(crate) fn inbox_path(inbox: &Path, id: &SegmentId) -> PathBuf {
    inbox.join(format!("{id}.seg"))
}

impl<'a> Taking<'a> {
    /// Prepares; `tips` are how far logs go by what the remote says, `changed` those of them that are new.
    pub(crate) fn start(
        store: &'a Store,
        id: &RemoteId,
        options: &PullOptions,
        tips: BTreeMap<WriterId, Tip>,
        changed: &[Tip],
        mut report: PullReport,
    ) -> Result<Taking<'a>> {
        let held = store.held(&store.snapshot()?)?;
        let forked = forked_logs(store, &held, changed, &mut report)?;
        let inbox = cache_dir(store, id)?.join("inbox");
        let bodies = match options.transcripts {
            Transcripts::None => Bodies::LeftOut,
            Transcripts::New | Transcripts::All => Bodies::Along,
        };
        Ok(Taking {
            store,
            remote: *id,
            bodies,
            since: options.since,
            inbox,
            tips,
            neighbours: Neighbours::of(store.index())?,
            held,
            forked,
            wanted_bodies: None,
            only: None,
            asked: HashSet::new(),
            report,
        })
    }

    /// Notes logs of which these tips stand elsewhere than here.
    pub(crate) fn note_forks(&mut self, tips: &[Tip]) -> Result<()> {
        let forked = forked_logs(self.store, &self.held, tips, &mut self.report)?;
        for (place, ids) in forked {
            self.forked.entry(place).or_default().extend(ids);
        }
        Ok(())
    }

    /// Writers whose logs have forked.
    pub(crate) fn forked_writers(&self) -> BTreeSet<WriterId> {
        self.forked.keys().map(|(writer, _)| *writer).collect()
    }

    /// Empties the inbox: what a pull that was cut left there may not be durable.
    pub(crate) fn clear(&self) -> Result<()> {
        clear(self.store, &self.inbox)
    }

    /// Where a segment lies until it is part of the store.
    pub(crate) fn path(&self, id: &SegmentId) -> PathBuf {
        inbox_path(&self.inbox, id)
    }

    /// Refuses what needs an object that is nowhere.
    pub(crate) fn refuse_incomplete(&mut self, id: &SegmentId, missing: &[ObjectId]) {
        let key = segment_key(id);
        let missing = missing.first().map(ObjectId::short).unwrap_or_default();
        self.report.refused.push(format!("`{key}` needs object `{missing}`, which is nowhere"));
    }

    /// What has been taken.
    pub(crate) fn end(mut self) -> Result<PullReport> {
        self.clear()?;
        self.report.forks.sort_unstable();
        self.report.forks.dedup();
        self.report.dropped = drop_erased(self.store)?;
        if self.report.left_out > 0 {
            self.store.tidy_elsewhere()?;
        }
        Ok(self.report)
    }

    /// Takes a segment of the inbox in, or says which objects it lacks.
    pub(crate) fn take(&mut self, path: &Path, sealed: &Arc<Sealed>) -> Result<Option<Vec<ObjectId>>> {
        let check = match self.bodies {
            Bodies::Along => check,
            Bodies::LeftOut => check_without_bodies,
        };
        if sealed.directory.kinds.contains_key(&Kind::ERASE) && self.wanted_bodies.is_none() {
            self.take_erases(sealed)?;
        }
        let mut checked = check(self.store, sealed, &self.tips, &self.neighbours);
        if let Ok(Verdict::Good(good)) = &checked
            && !good.covered.is_empty()
        {
            // Named before anything of it is here, and for all others too.
            let now = self.store.env().clock.now();
            append(self.store, &good.covered, &BTreeSet::new(), now, None)?;
            self.store.catch_up()?;
            checked = check(self.store, sealed, &self.tips, &self.neighbours);
        }
        let checked = match checked {
            Ok(Verdict::Good(checked)) => *checked,
            Ok(Verdict::Incomplete(missing)) => return Ok(Some(missing)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                self.refuse(&sealed.id, &error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if let Some(wanted) = &self.wanted_bodies {
            let lists = |event: &Event| bodies_of(event).iter().any(|id| wanted.contains(id));
            let events = checked.events.iter().filter(|(event, _, _)| lists(event)).cloned().collect();
            append_objects(self.store, &self.inbox, sealed, events)?;
            return Ok(None);
        }
        for (writer, seq) in &checked.forks {
            self.report.forks.push(fork(writer, *seq));
            note_log(self.store, &self.held, writer, &mut self.forked)?;
        }
        if !checked.unsigned.is_empty() {
            let count = checked.unsigned.len();
            let key = segment_key(&sealed.id);
            self.report.refused.push(format!("`{key}`: {count} events that their writer has not signed"));
        }
        self.accept(path, checked)?;
        Ok(None)
    }

    /// Takes the erase events of a segment first: others of its events may lack what they name.
    pub(crate) fn take_erases(&mut self, sealed: &Arc<Sealed>) -> Result<()> {
        let checked = match check_for_erases(self.store, sealed, &self.tips, &self.neighbours) {
            Ok(Verdict::Good(checked)) => *checked,
            // The whole is checked next, which says what is wrong with it.
            Ok(Verdict::Incomplete(_)) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut events = new_events(&checked, &self.held, &self.forked);
        events.retain(|(event, _, _)| event.fact.kind == Kind::ERASE);
        if events.is_empty() || !checked.forks.is_empty() {
            return Ok(());
        }
        let runs = runs_of(&events);
        self.report.new_writer |= give_way(self.store, &runs)?;
        *self.report.taken.entry(Kind::ERASE).or_default() += events.len() as u64;
        let tips = tips_for(&runs, &self.tips, &checked.tips);
        append_without(self.store, &self.inbox, &checked.sealed, &[], events, tips, &HashSet::new())?;
        self.held = self.held.union(&set_of(&runs));
        runs.iter().for_each(|run| self.neighbours.add(run));
        self.store.catch_up()
    }

    /// Refuses a segment.
    pub(crate) fn refuse(&mut self, id: &SegmentId, error: &Error) {
        self.report.refused.push(format!("`{}`: {error}", segment_key(id)));
    }

    /// Adds events that are asked for and stand at places of others, the sides of a fork; says whether there are any.
    fn add_asked(&mut self, checked: &Checked, events: &mut Vec<Numbered>) -> bool {
        let count = events.len();
        let signed = checked.events.iter().filter(|(_, _, number)| !checked.unsigned.contains(number));
        for (event, id, number) in signed {
            if !self.asked.remove(id) || events[..count].binary_search_by_key(number, |new| new.2).is_ok() {
                continue;
            }
            self.report.forks.push(fork(&event.writer, event.seq.get()));
            events.push((event.clone(), *id, *number));
        }
        let is_fork = events.len() > count;
        events.sort_unstable_by_key(|(_, _, number)| *number);
        is_fork
    }

    /// Notes where the bytes are that these events lack: durably, before the events are here (I1).
    fn note_absent(&mut self, events: &[Numbered], absent: &HashSet<ObjectId>) -> Result<()> {
        let lacks = |event: &Event| bodies_of(event).iter().any(|id| absent.contains(id));
        let ids: Vec<ObjectId> = events
            .iter()
            .flat_map(|(event, _, _)| bodies_of(event))
            .filter(|id| absent.contains(id))
            .copied()
            .collect();
        self.report.left_out += events.iter().filter(|(event, _, _)| lacks(event)).count() as u64;
        self.store.note_elsewhere(&self.remote, &ids)
    }

    /// Makes the new events of a checked segment part of the store.
    fn accept(&mut self, path: &Path, mut checked: Checked) -> Result<()> {
        let mut events = new_events(&checked, &self.held, &self.forked);
        let is_fork = self.add_asked(&checked, &mut events);
        if let Some(since) = self.since {
            events.retain(|(event, _, _)| event.fact.time >= since || event.fact.kind == Kind::ERASE);
        }
        if let Some(only) = self.only {
            events.retain(|(event, _, _)| event.fact.kind == only);
        }
        if events.is_empty() {
            return Ok(());
        }
        self.note_absent(&events, &checked.absent)?;
        let runs = runs_of(&events);
        self.report.new_writer |= give_way(self.store, &runs)?;
        let tips = tips_for(&runs, &self.tips, &checked.tips);
        let erased = self.store.erased();
        let erases = events.iter().any(|(event, _, _)| event.fact.kind == Kind::ERASE);
        for (event, id, _) in &events {
            self.report.erased += u64::from(event.fact.objects.iter().any(|id| erased.contains(id)));
            *self.report.taken.entry(event.fact.kind).or_default() += 1;
            if let Some(ids) = self.forked.get_mut(&(event.writer, event.seq)) {
                ids.insert(*id);
            }
        }
        if !is_fork && goes_whole(&events, &checked) {
            adopt(self.store, path, &checked.sealed.id, tips, checked.feed.take())?;
        } else {
            append_without(self.store, &self.inbox, &checked.sealed, &[], events, tips, &checked.absent)?;
        }
        self.held = self.held.union(&set_of(&runs));
        runs.iter().for_each(|run| self.neighbours.add(run));
        if erases {
            // From here on it is not taken in; what waits for it need not wait any more.
            self.store.catch_up()?;
        }
        Ok(())
    }
}

/// Carries out what erase events that have come say; returns how many objects went.
pub(crate) fn drop_erased(store: &Store) -> Result<u64> {
    store.catch_up()?;
    match complete(store, &Silent) {
        // Somebody compacts or erases just now; whoever opens the store next carries it out.
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(0),
        done => Ok(done?.objects),
    }
}
