//! Receiving is checking (I7): a segment from elsewhere is believed in nothing before it becomes part of the store.
//!
//! Checked are its name, every frame, every object's hash, every event's id and place in its log, that no log goes
//! beyond what its writer signed, that every object an event needs is there, and that the footer says what is in it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use agent_trace_store::event::Event;
use agent_trace_store::index::{Feed, Index, SegmentRow};
use agent_trace_store::log::hash_file;
use agent_trace_store::object::Recipe;
use agent_trace_store::record::facts;
use agent_trace_store::scan::{Batch, Digest, Ending, Row, ScanStart, scan};
use agent_trace_store::segment::{Contents, HEADER_BYTES, Run, read_footer};
use agent_trace_store::segments::Sealed;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Erased, Error, EventId, Kind, ObjectId, Result, Seq, Store, WriterId};
use rayon::prelude::*;

use crate::collect::{Bodies, read_record};
use crate::tables::stands_in;

/// Batches that are taken apart at once.
const DIGEST_BATCHES: usize = 8;
/// The same in bytes before compression.
const DIGEST_BYTES: u64 = 48 << 20;

/// What is known of the logs here, to compare neighbours with.
#[derive(Clone, Default)]
pub struct Neighbours {
    ends: HashMap<(WriterId, u64), EventId>,
    starts: HashMap<(WriterId, u64), EventId>,
}

impl Neighbours {
    /// Reads the runs of a store.
    pub fn of(index: &Index) -> Result<Neighbours> {
        let mut neighbours = Neighbours::default();
        for (_, run) in index.read(|view| view.runs())?.unwrap_or_default() {
            neighbours.add(&run);
        }
        Ok(neighbours)
    }

    /// Adds a run that has been taken in.
    pub fn add(&mut self, run: &Run) {
        self.ends.insert((run.writer, run.seq_last()), run.last);
        self.starts.insert((run.writer, run.seq_first.get()), run.previous);
    }

    /// The same, where runs that follow each other are kept as one, so that what is kept does not grow with each.
    pub fn join(&mut self, run: &Run) {
        let start = run.seq_first.get();
        if self.ends.get(&(run.writer, start - 1)) == Some(&run.previous) {
            self.ends.remove(&(run.writer, start - 1));
        } else {
            self.starts.insert((run.writer, start), run.previous);
        }
        if self.starts.get(&(run.writer, run.seq_last() + 1)) == Some(&run.last) {
            self.starts.remove(&(run.writer, run.seq_last() + 1));
        } else {
            self.ends.insert((run.writer, run.seq_last()), run.last);
        }
    }

    /// Where a run does not fit its known neighbours, if it does not.
    fn misfit(&self, run: &Run) -> Option<(WriterId, u64)> {
        let fork = |seq: u64| Some((run.writer, seq));
        let before = self.ends.get(&(run.writer, run.seq_first.get() - 1));
        if before.is_some_and(|id| *id != run.previous) {
            return fork(run.seq_first.get());
        }
        let after = self.starts.get(&(run.writer, run.seq_last() + 1));
        if after.is_some_and(|id| *id != run.last) {
            return fork(run.seq_last() + 1);
        }
        // The same events again, but for one of them by another id.
        let same_end = self.ends.get(&(run.writer, run.seq_last()));
        let same_start = self.starts.get(&(run.writer, run.seq_first.get()));
        match (same_start, same_end) {
            (Some(id), _) if *id != run.previous => fork(run.seq_first.get()),
            (_, Some(id)) if *id != run.last => fork(run.seq_last()),
            _ => None,
        }
    }
}

/// A segment that has been checked.
pub struct Checked {
    /// The segment.
    pub sealed: Arc<Sealed>,
    /// Its events with their numbers.
    pub events: Vec<(Event, EventId, u32)>,
    /// Events that nobody signed, or that do not fit: they are not taken.
    pub unsigned: HashSet<u32>,
    /// Logs that have forked, and where.
    pub forks: Vec<(WriterId, u64)>,
    /// Tips that came in the segment, verified.
    pub tips: Vec<Tip>,
    /// Objects that neither it nor the store has, but others that were checked with it, by what their tables say.
    pub borrowed: Vec<ObjectId>,
    /// Bytes of transcripts that were left out, and are not in the store.
    pub absent: HashSet<ObjectId>,
    /// Whether something that is erased is in it, or is listed by its events: then it is not kept as it is.
    pub holds_erased: bool,
    /// Objects of its events that belong to erased conversations and that no erase event names yet.
    pub covered: BTreeSet<ObjectId>,
    /// Whether the footer says what is in it, so that the file may be kept as it is.
    pub footer_holds: bool,
    /// What the index learns by it, where the file may be kept and there is an index.
    pub feed: Option<Feed>,
}

/// What is wrong with a segment.
pub enum Verdict {
    /// Nothing.
    Good(Box<Checked>),
    /// These objects are not here yet; another segment may bring them.
    Incomplete(Vec<ObjectId>),
}

/// Checks a segment that lies in this store's directory but is not part of it yet.
pub fn check(
    store: &Store,
    sealed: &Arc<Sealed>,
    tips: &BTreeMap<WriterId, Tip>,
    neighbours: &Neighbours,
) -> Result<Verdict> {
    check_with(store, sealed, &[], &store.erased(), tips, neighbours, Bodies::Along, For::Index)
}

/// The same, where the bytes of transcripts may have been left out; what is there is checked none the less.
pub fn check_without_bodies(
    store: &Store,
    sealed: &Arc<Sealed>,
    tips: &BTreeMap<WriterId, Tip>,
    neighbours: &Neighbours,
) -> Result<Verdict> {
    check_with(store, sealed, &[], &store.erased(), tips, neighbours, Bodies::LeftOut, For::Index)
}

/// The same for the erase events of a segment alone: what others list may have been erased by them.
pub fn check_for_erases(
    store: &Store,
    sealed: &Arc<Sealed>,
    tips: &BTreeMap<WriterId, Tip>,
    neighbours: &Neighbours,
) -> Result<Verdict> {
    check_with(store, sealed, &[], &store.erased(), tips, neighbours, Bodies::Along, For::Erases)
}

/// What a segment is checked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Its events, and what the index learns by them.
    Index,
    /// Its events.
    Events,
    /// Only its erase events.
    Erases,
}

/// The same, where objects may also stand in other segments that are being checked, and more is erased than the store
/// knows.
pub fn check_among(
    store: &Store,
    sealed: &Arc<Sealed>,
    others: &[Arc<Sealed>],
    erased: &Erased,
    tips: &BTreeMap<WriterId, Tip>,
    neighbours: &Neighbours,
) -> Result<Verdict> {
    check_with(store, sealed, others, erased, tips, neighbours, Bodies::Along, For::Events)
}

/// All of these: `others` may hold objects, `bodies` may be absent, and the index may want to learn.
#[expect(clippy::too_many_arguments, reason = "what is checked, and all that it is checked against")]
pub(crate) fn check_with(
    store: &Store,
    sealed: &Arc<Sealed>,
    others: &[Arc<Sealed>],
    erased: &Erased,
    tips: &BTreeMap<WriterId, Tip>,
    neighbours: &Neighbours,
    bodies: Bodies,
    wanted: For,
) -> Result<Verdict> {
    let is_indexed = wanted == For::Index;
    let hash = hash_file(sealed.file.as_ref(), sealed.bytes)?;
    if hash != sealed.id {
        return Err(Error::corrupt(format!(
            "expected the hash `{}`, found `{}`",
            sealed.id.short(),
            hash.short()
        )));
    }
    let mut extra = vec![Arc::clone(sealed)];
    extra.extend(others.iter().filter(|other| other.id != sealed.id).cloned());
    let (digests, end) = take_apart(store, sealed, &extra)?;
    let (covered, holds_erased) = (covered(store, &extra, &digests, erased)?, holds_erased(&digests, erased));
    let (mut borrowed, absent) = match wanted {
        For::Erases => Default::default(),
        _ => missing_objects(store, &digests, bodies, erased)?,
    };
    let mut nowhere = Vec::new();
    for id in &borrowed {
        if !stands_in(&extra[1..], id)? {
            nowhere.push(*id);
        }
    }
    if !nowhere.is_empty() {
        return Ok(Verdict::Incomplete(nowhere));
    }
    borrowed.shrink_to_fit();
    if wanted != For::Erases {
        check_recipes(store, &extra, &digests, erased)?;
    }
    let mut contents = Contents::default();
    let mut events = Vec::new();
    let mut received_tips = Vec::new();
    let mut rows = Vec::new();
    for digest in digests {
        for tip in &digest.tips {
            tip.verify()?;
            received_tips.push(*tip);
        }
        let first = contents.events;
        events.extend(
            digest.events.iter().zip(first..).map(|((event, id, _), number)| (event.clone(), *id, number)),
        );
        let more = contents.absorb(digest)?;
        if is_indexed {
            rows.extend(more);
        }
    }
    if contents.events != end.events {
        let found = contents.events;
        return Err(Error::corrupt(format!("its commits count {} events, found {found}", end.events)));
    }
    let forks = contents.runs.iter().filter_map(|run| neighbours.misfit(run)).collect();
    let unsigned = unsigned(&events, tips, &received_tips);
    let footer_holds = footer_holds(sealed, &contents, end.offset)?;
    let feed = (is_indexed && footer_holds).then(|| feed(sealed, &end, rows, received_tips.clone()));
    Ok(Verdict::Good(Box::new(Checked {
        sealed: Arc::clone(sealed),
        events,
        unsigned,
        forks,
        tips: received_tips,
        borrowed,
        absent,
        holds_erased,
        covered,
        footer_holds,
        feed,
    })))
}

/// What the index learns by a segment whose directory says what is in it.
fn feed(sealed: &Sealed, end: &ScanStart, rows: Vec<Row>, tips: Vec<Tip>) -> Feed {
    let directory = &sealed.directory;
    let row = SegmentRow {
        nonce: sealed.header.nonce,
        id: Some(sealed.id),
        end: end.offset,
        batch: end.batch,
        events: directory.events,
        objects: directory.objects,
        raw_bytes: directory.raw_bytes,
        tail: end.tail,
        kinds: directory.kinds.clone(),
    };
    Feed { row, rows, runs: directory.runs.clone(), tips, open: None }
}

/// Takes all batches apart, several at once; any damage refuses the segment. Says where it ends, too.
fn take_apart(
    store: &Store,
    sealed: &Arc<Sealed>,
    extra: &[Arc<Sealed>],
) -> Result<(Vec<Digest>, ScanStart)> {
    let start = ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail: sealed.header.tail, events: 0 };
    let mut digests = Vec::new();
    let mut waiting: Vec<Batch> = Vec::new();
    let mut flush = |waiting: &mut Vec<Batch>| -> Result<()> {
        digests.extend(store.digest_all_with(extra, waiting, true)?);
        waiting.clear();
        Ok(())
    };
    let scanned = scan(sealed.file.as_ref(), &sealed.key, start, &mut |batch| {
        waiting.push(batch);
        let raw: u64 = waiting.iter().map(Batch::raw_bytes).sum();
        if waiting.len() >= DIGEST_BATCHES || raw >= DIGEST_BYTES { flush(&mut waiting) } else { Ok(()) }
    })?;
    flush(&mut waiting)?;
    if let Some(damage) = scanned.damage.into_iter().next() {
        return Err(damage.error);
    }
    if scanned.ending != Ending::Footer {
        return Err(Error::corrupt("the segment has no footer"));
    }
    let end =
        ScanStart { offset: scanned.end, batch: scanned.batch, tail: scanned.tail, events: scanned.events };
    Ok((digests, end))
}

/// Objects that events or recipes need and that are neither in the segment nor in the store; apart from them, those that
/// may be left out.
fn missing_objects(
    store: &Store,
    digests: &[Digest],
    bodies: Bodies,
    erased: &Erased,
) -> Result<(Vec<ObjectId>, HashSet<ObjectId>)> {
    #[cfg(feature = "sim")]
    if agent_trace_store::switches::planted(agent_trace_store::switches::Fault::SkipClosure) {
        return Ok((Vec::new(), HashSet::new()));
    }
    let here: HashSet<ObjectId> =
        digests.iter().flat_map(|digest| digest.ids.iter().map(|entry| entry.id)).collect();
    let events = digests.iter().flat_map(|digest| &digest.events);
    let listed = events.flat_map(|(event, _, _)| event.fact.objects.iter().copied());
    let listed = listed.filter(|id| !erased.contains(id));
    let recipes = needed_recipes(digests, erased);
    let parts = recipes.iter().flat_map(|recipe| recipe.parts.iter().map(|part| part.id));
    let mut elsewhere: Vec<ObjectId> = listed.chain(parts).filter(|id| !here.contains(id)).collect();
    elsewhere.sort_unstable();
    elsewhere.dedup();
    let held = store.contains_all(&elsewhere)?;
    let lacked = elsewhere.into_iter().zip(held).filter(|(_, held)| !held).map(|(id, _)| id);
    let events = digests.iter().flat_map(|digest| digest.events.iter().map(|(event, _, _)| event));
    let mut left_out = bodies.left_out(events);
    for recipe in recipes {
        // What is put together here needs its parts.
        recipe.parts.iter().for_each(|part| {
            left_out.remove(&part.id);
        });
    }
    let (absent, missing): (Vec<ObjectId>, Vec<ObjectId>) = lacked.partition(|id| left_out.contains(id));
    Ok((missing, absent.into_iter().collect()))
}

/// Puts every object that comes in parts together and compares its hash, but for those of which all parts stood in one
/// batch, since that is done already.
fn check_recipes(store: &Store, extra: &[Arc<Sealed>], digests: &[Digest], erased: &Erased) -> Result<()> {
    let proved: HashSet<ObjectId> = digests.iter().flat_map(|digest| digest.proved.iter().copied()).collect();
    let recipes = needed_recipes(digests, erased);
    let rest: Vec<ObjectId> =
        recipes.iter().map(|recipe| recipe.id).filter(|id| !proved.contains(id)).collect();
    rest.par_iter().try_for_each(|id| store.prove_with(extra, id))
}

/// The recipes that matter: all but those of erased objects that nothing live is put together of.
fn needed_recipes<'d>(digests: &'d [Digest], erased: &Erased) -> Vec<&'d Recipe> {
    let all = digests.iter().flat_map(|digest| &digest.recipes);
    if erased.is_empty() {
        return all.collect();
    }
    let (bases, mut waiting): (Vec<&Recipe>, Vec<&Recipe>) =
        all.partition(|recipe| erased.contains(&recipe.id));
    let bases: HashMap<ObjectId, &Recipe> = bases.into_iter().map(|recipe| (recipe.id, recipe)).collect();
    let mut needed = Vec::new();
    let mut seen = HashSet::new();
    while let Some(recipe) = waiting.pop() {
        waiting.extend(
            recipe
                .parts
                .iter()
                .filter_map(|part| bases.get(&part.id).filter(|base| seen.insert(base.id)).copied()),
        );
        needed.push(recipe);
    }
    needed
}

/// Whether something that is erased is in a segment, or is listed by its events.
fn holds_erased(digests: &[Digest], erased: &Erased) -> bool {
    let is_erased = |digest: &Digest| {
        digest.ids.iter().any(|entry| erased.contains(&entry.id))
            || digest
                .events
                .iter()
                .any(|(event, _, _)| event.fact.objects.iter().any(|id| erased.contains(id)))
    };
    !erased.is_empty() && digests.iter().any(is_erased)
}

/// The objects of events that belong to erased conversations, as far as they are not erased themselves.
fn covered(
    store: &Store,
    extra: &[Arc<Sealed>],
    digests: &[Digest],
    erased: &Erased,
) -> Result<BTreeSet<ObjectId>> {
    let mut covered = BTreeSet::new();
    for (event, _, marks) in digests.iter().flat_map(|digest| &digest.events) {
        let record = event.fact.objects[0];
        if !erased.may_cover(event, marks) || erased.contains(&record) {
            continue;
        }
        // Names are compared by prefixes, so the record has the last word; a transcript's key is compared whole.
        let is_covered = event.fact.kind == Kind::TRANSCRIPT
            || read_record(store, extra, &record).is_ok_and(|record| {
                facts(event.fact.kind, &record).is_ok_and(|facts| erased.covers(event.fact.kind, &facts))
            });
        if is_covered {
            covered.extend(event.fact.objects.iter().filter(|id| !erased.contains(id)));
        }
    }
    Ok(covered)
}

/// Events beyond what their writers signed, and events at a signed place with another id.
fn unsigned(
    events: &[(Event, EventId, u32)],
    tips: &BTreeMap<WriterId, Tip>,
    received: &[Tip],
) -> HashSet<u32> {
    #[cfg(feature = "sim")]
    if agent_trace_store::switches::planted(agent_trace_store::switches::Fault::SkipReceipt) {
        return HashSet::new();
    }
    let mut signed: HashMap<WriterId, (Seq, EventId)> =
        tips.iter().map(|(writer, tip)| (*writer, (tip.seq, tip.event))).collect();
    for tip in received {
        let known = signed.entry(tip.writer).or_insert((tip.seq, tip.event));
        if tip.seq > known.0 {
            *known = (tip.seq, tip.event);
        }
    }
    events
        .iter()
        .filter(|(event, id, _)| match signed.get(&event.writer) {
            Some((seq, tip)) => event.seq > *seq || event.seq == *seq && id != tip,
            None => true,
        })
        .map(|(_, _, number)| *number)
        .collect()
}

/// Whether the footer is the one that these contents have.
fn footer_holds(sealed: &Sealed, contents: &Contents, end: u64) -> Result<bool> {
    let made = Fresh(contents.footer(&sealed.key, end), end);
    let bytes = end + made.0.len() as u64;
    let Some(fresh) = read_footer(&made, &sealed.key, bytes)? else { return Ok(false) };
    if fresh.directory != sealed.directory {
        return Ok(false);
    }
    // The tables are stored as they are, so they are compared as bytes; the directory has been compared decoded.
    let tables = usize::try_from(fresh.directory.filter_at - end).unwrap_or(usize::MAX);
    let mut theirs = vec![0; tables.min(made.0.len())];
    sealed
        .file
        .read_exact_at(&mut theirs, end)
        .map_err(|error| Error::io("cannot read the footer of a segment", error))?;
    let filter =
        agent_trace_store::segment::Filter::read(sealed.file.as_ref(), &sealed.key, &sealed.directory)?;
    let ours = agent_trace_store::segment::Filter::read(&made, &sealed.key, &fresh.directory)?;
    Ok(theirs == made.0[..tables] && filter == ours)
}

/// A footer in memory, addressed as if it stood in its file.
struct Fresh(Vec<u8>, u64);

impl agent_trace_store::env::File for Fresh {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.1 + self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let Some(from) = offset.checked_sub(self.1).and_then(|from| usize::try_from(from).ok()) else {
            return Ok(0);
        };
        let rest = self.0.get(from..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }
}
