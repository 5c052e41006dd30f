//! Which events a push sends: the difference to the remote, less what the filters hold back.
//!
//! Plain `push` holds back traces that no ledger names, transcripts and summaries that no sent trace names, and what
//! was kept as raw bytes, which nothing can name. What is held back is looked at again only when something arrives that
//! may free it, so the cost follows what is new. An event whose bytes are elsewhere goes nowhere until they are here.

use std::collections::{BTreeMap, HashMap, HashSet};

use agent_trace_store::event::Event;
use agent_trace_store::question::{self, Found};
use agent_trace_store::record::{Name, facts};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::{Handle, Snapshot};
use agent_trace_store::{Error, EventId, Kind, Result, Seq, Store, Timestamp, WriterId};
use rayon::prelude::*;

use crate::collect::{Source, chosen_events};
use crate::light::{Candidate, Ranges, take, walk};
use crate::limits::BULK_EVENTS_MIN;
use crate::named::{BulkNames, Names, conversation, is_body, prefix};
use crate::push::PushOptions;
use crate::state::State;

/// What of one segment is sent.
pub struct Pick {
    /// The segment.
    pub source: Source,
    /// The numbers of the events, sorted; `None` where all are sent and the segment may go as it is.
    pub numbers: Option<Vec<u32>>,
}

/// What a push sends and holds back.
#[derive(Default)]
pub struct Selection {
    /// What is sent, by segment.
    pub picks: Vec<Pick>,
    /// Events sent, by kind.
    pub sent: BTreeMap<Kind, u64>,
    /// Events held back because nothing names them, by kind, those of earlier pushes included.
    pub held_back: BTreeMap<Kind, u64>,
    /// Events that the remote lacks and that cannot be sent, since bytes that they list are elsewhere.
    pub elsewhere: u64,
    /// The events that are sent.
    pub events: EventSet,
    /// The events that are held back from now on, because nothing names them.
    pub held: EventSet,
    /// The events that need not be looked at again.
    pub evaluated: EventSet,
}

/// Chooses.
pub fn select(store: &Store, snapshot: &Snapshot, state: &State, options: &PushOptions) -> Result<Selection> {
    let mine = store.held(snapshot)?;
    let mine = mine.minus(&unsigned(store, state, &mine)?);
    let missing = mine.minus(&state.has);
    let sources = sources(store, snapshot)?;
    let away = without_bodies(store, &sources, &missing)?;
    let missing = missing.minus(&away);
    let elsewhere = away.len();
    if options.full && options.only.is_empty() && options.since.is_none() {
        return Ok(Selection { elsewhere, ..everything(&sources, &missing, mine)? });
    }
    let unseen = missing.minus(&state.held);
    let bulk = unseen.len() >= BULK_EVENTS_MIN as u64;
    // In bulk all that is held back is looked at again; else only what the new events may free.
    let candidates =
        if bulk || options.full || !options.only.is_empty() { missing.clone() } else { unseen.clone() };
    let mut chosen = read_candidates(&sources, &candidates, options.since)?;
    if !bulk {
        add_freed(store, snapshot, state, &sources, &mine, &mut chosen, options.since)?;
        chosen.drop_those_in(&away);
    }
    let names = if bulk || chosen.len() >= BULK_EVENTS_MIN {
        Some(BulkNames::read(store, &sources, &chosen.by_source)?)
    } else {
        None
    };
    let names = Names { store, snapshot, bulk: names };
    Ok(Selection { elsewhere, ..decide(state, options, &mine, &chosen, &names, sources)? })
}

/// Those of some events that list bytes that are elsewhere: a remote takes an event only with its objects.
pub(crate) fn without_bodies(store: &Store, sources: &[Source], missing: &EventSet) -> Result<EventSet> {
    let elsewhere = store.elsewhere()?;
    if elsewhere.is_empty() {
        return Ok(EventSet::default());
    }
    let (mut rest, mut away) = (missing.clone(), Ranges::default());
    for source in sources {
        let numbers = take(source, &mut rest)?;
        walk(source, &numbers, |_, laid| {
            if laid.kind == Kind::TRANSCRIPT && laid.objects().skip(1).any(|id| elsewhere.contains(&id)) {
                away.add(laid.writer, laid.seq.get());
            }
            Ok(())
        })?;
    }
    Ok(away.finish())
}

/// Events of other writers beyond what those have signed: whoever pulled them would refuse them.
pub(crate) fn unsigned(store: &Store, state: &State, mine: &EventSet) -> Result<EventSet> {
    let mut signed: HashMap<WriterId, u64> =
        state.tips.iter().map(|(writer, tip)| (*writer, tip.seq.get())).collect();
    for tip in store.index().read(|view| view.tips())?.unwrap_or_default() {
        let known = signed.entry(tip.writer).or_default();
        *known = (*known).max(tip.seq.get());
    }
    let own = store.writer();
    let mut ranges = Vec::new();
    for (writer, log) in mine.logs().filter(|(writer, _)| **writer != own) {
        let first = signed.get(writer).map_or(1, |seq| seq + 1);
        ranges.extend(log.last().filter(|last| last.get() >= first).map(|last| (*writer, first, last.get())));
    }
    Ok(EventSet::from_ranges(ranges))
}

/// All segments with their events frames.
pub(crate) fn sources(store: &Store, snapshot: &Snapshot) -> Result<Vec<Source>> {
    let mut sources: Vec<Source> = snapshot.segments.sealed.iter().map(Source::sealed).collect();
    if let Some(open) = &snapshot.segments.open {
        let row = snapshot.rows.values().find(|row| row.nonce == open.header.nonce && row.id.is_none());
        if let Some(row) = row {
            let frames = store.index().read(|view| view.open_frames())?.unwrap_or_default();
            sources.push(Source { handle: Handle::Open(open.clone()), frames, events: row.events });
        }
    }
    Ok(sources)
}

/// A full push: whole segments where all of one is missing.
fn everything(sources: &[Source], missing: &EventSet, mine: EventSet) -> Result<Selection> {
    let mut selection = Selection::default();
    let mut rest = missing.clone();
    for source in sources {
        if let Handle::Sealed(sealed) = &source.handle {
            let runs = &sealed.directory.runs;
            let all = runs.iter().all(|run| {
                let log = rest.log(&run.writer);
                log.is_some_and(|log| log.contains_range(run.seq_first.get(), run.seq_last()))
            });
            let met = runs.iter().any(|run| {
                rest.log(&run.writer).is_some_and(|log| log.meets(run.seq_first.get(), run.seq_last()))
            });
            if !met {
                continue;
            }
            if all {
                for (kind, events) in &sealed.directory.kinds {
                    *selection.sent.entry(*kind).or_default() += u64::from(*events);
                }
                let taken: Vec<_> =
                    runs.iter().map(|run| (run.writer, run.seq_first.get(), run.seq_last())).collect();
                rest = rest.minus(&EventSet::from_ranges(taken));
                selection.picks.push(Pick { source: source.clone(), numbers: None });
                continue;
            }
        }
        let numbers = take(source, &mut rest)?;
        if numbers.is_empty() {
            continue;
        }
        walk(source, &numbers, |_, laid| {
            *selection.sent.entry(laid.kind).or_default() += 1;
            Ok(())
        })?;
        selection.picks.push(Pick { source: source.clone(), numbers: Some(numbers) });
    }
    // What was taken, and nothing that is in no segment.
    selection.events = missing.minus(&rest);
    selection.evaluated = mine;
    Ok(selection)
}

/// The events of a segment that are in a set; of a sealed one only frames that may hold some are read.
fn read_source(source: &Source, wanted: &EventSet) -> Result<Vec<(Event, EventId, u32)>> {
    let numbers: Vec<u32> = match &source.handle {
        Handle::Sealed(sealed) => {
            let mut numbers = Vec::new();
            for run in &sealed.directory.runs {
                let Some(log) = wanted.log(&run.writer) else { continue };
                let all = log.contains_range(run.seq_first.get(), run.seq_last());
                numbers.extend(
                    (0..run.count)
                        .filter(|step| {
                            let seq = Seq::new(run.seq_first.get() + u64::from(*step));
                            all || seq.is_some_and(|seq| log.contains(seq))
                        })
                        .map(|step| run.first_event + step),
                );
            }
            numbers.sort_unstable();
            numbers
        }
        Handle::Open(_) => (0..source.events).collect(),
    };
    let mut events = chosen_events(source, &numbers)?;
    events.retain(|(event, _, _)| wanted.contains(&event.writer, event.seq));
    Ok(events)
}

/// Reads the events of a set.
pub fn events_in(store: &Store, wanted: &EventSet) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for source in sources(store, &store.snapshot()?)? {
        events.extend(read_source(&source, wanted)?.into_iter().map(|(event, _, _)| event));
    }
    Ok(events)
}

/// The events that are decided on.
#[derive(Default)]
struct Chosen {
    /// By segment.
    by_source: Vec<Vec<Candidate>>,
    /// The writers that candidates name by number.
    writers: Vec<WriterId>,
    /// The keys of candidates, by segment and number, where there are few of them.
    keys: HashMap<(usize, u32), String>,
}

impl Chosen {
    fn len(&self) -> usize {
        self.by_source.iter().map(Vec::len).sum()
    }

    /// Adds an event of a segment.
    fn add(&mut self, index: usize, number: u32, event: &Event, since: Option<Timestamp>) {
        let known = self.writers.iter().position(|writer| *writer == event.writer);
        let writer = known.unwrap_or_else(|| {
            self.writers.push(event.writer);
            self.writers.len() - 1
        });
        let fact = &event.fact;
        self.by_source[index].push(Candidate {
            prefix: prefix(fact.kind, &fact.key),
            seq: event.seq,
            number,
            writer: agent_trace_store::codec::length_u32(writer),
            kind: fact.kind,
            in_time: fact.kind == Kind::ERASE || since.is_none_or(|since| fact.time >= since),
        });
        self.keys.insert((index, number), fact.key.clone());
    }

    /// Drops candidates that cannot be sent.
    fn drop_those_in(&mut self, set: &EventSet) {
        let Chosen { by_source, writers, .. } = self;
        for part in by_source {
            part.retain(|candidate| !set.contains(&writers[candidate.writer as usize], candidate.seq));
        }
    }

    /// All candidates with the numbers of their segments.
    fn each(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        self.by_source.iter().enumerate().flat_map(|(index, part)| part.iter().map(move |one| (index, one)))
    }

    fn writer(&self, candidate: &Candidate) -> WriterId {
        self.writers[candidate.writer as usize]
    }

    /// The name under which a candidate is looked up.
    fn name(&self, sources: &[Source], index: usize, candidate: &Candidate) -> Result<String> {
        if let Some(key) = self.keys.get(&(index, candidate.number)) {
            return Ok(conversation(candidate.kind, key).to_owned());
        }
        let mut name = String::new();
        walk(&sources[index], &[candidate.number], |_, laid| {
            conversation(laid.kind, laid.key).clone_into(&mut name);
            Ok(())
        })?;
        Ok(name)
    }
}

/// Reads what is needed of the events of a set, each once.
fn read_candidates(sources: &[Source], candidates: &EventSet, since: Option<Timestamp>) -> Result<Chosen> {
    let mut rest = candidates.clone();
    let numbers: Vec<Vec<u32>> = sources
        .iter()
        .map(|source| if rest.is_empty() { Ok(Vec::new()) } else { take(source, &mut rest) })
        .collect::<Result<_>>()?;
    let writers: Vec<WriterId> = candidates.logs().map(|(writer, _)| *writer).collect();
    let few = candidates.len() < BULK_EVENTS_MIN as u64;
    type Part = (Vec<Candidate>, Vec<(u32, String)>);
    let parts: Vec<Part> = sources
        .par_iter()
        .zip(numbers)
        .map(|(source, numbers)| {
            let mut part = Part::default();
            part.0.reserve_exact(numbers.len());
            // Events of one writer follow each other.
            let mut writer = 0;
            walk(source, &numbers, |number, laid| {
                if writers[writer] != laid.writer {
                    writer = writers.binary_search(&laid.writer).map_err(|_| {
                        Error::corrupt("a segment's events are not those that its directory names")
                    })?;
                }
                part.0.push(Candidate {
                    prefix: prefix(laid.kind, laid.key),
                    seq: laid.seq,
                    number,
                    writer: agent_trace_store::codec::length_u32(writer),
                    kind: laid.kind,
                    in_time: laid.kind == Kind::ERASE || since.is_none_or(|since| laid.time >= since),
                });
                if few {
                    part.1.push((number, laid.key.to_owned()));
                }
                Ok(())
            })?;
            Ok(part)
        })
        .collect::<Result<_>>()?;
    let mut chosen = Chosen { writers, ..Chosen::default() };
    for (index, (part, keys)) in parts.into_iter().enumerate() {
        chosen.by_source.push(part);
        chosen.keys.extend(keys.into_iter().map(|(number, key)| ((index, number), key)));
    }
    Ok(chosen)
}

/// Adds held-back events that something new may free: traces that a new ledger names, transcripts and summaries of
/// conversations that a new trace names.
fn add_freed(
    store: &Store,
    snapshot: &Snapshot,
    state: &State,
    sources: &[Source],
    mine: &EventSet,
    chosen: &mut Chosen,
    since: Option<Timestamp>,
) -> Result<()> {
    let unseen = mine.minus(&state.evaluated);
    if unseen.is_empty() || state.held.is_empty() {
        return Ok(());
    }
    let mut seen: HashSet<(WriterId, Seq)> =
        chosen.each().map(|(_, candidate)| (chosen.writer(candidate), candidate.seq)).collect();
    let mut waiting: Vec<Event> = Vec::new();
    for source in sources {
        waiting.extend(read_source(source, &unseen)?.into_iter().map(|(event, _, _)| event));
    }
    while let Some(event) = waiting.pop() {
        let frees: &[Kind] = match event.fact.kind {
            Kind::LEDGER => &[Kind::TRACE],
            Kind::TRACE => &[Kind::TRANSCRIPT, Kind::SUMMARY],
            _ => continue,
        };
        let Some(record) = store.read_unless_erased(&event.fact.objects[0])? else { continue };
        let Ok(facts) = facts(event.fact.kind, &record) else { continue };
        for name in facts.names {
            let Name::Cites(name) = name else { continue };
            let mut found = question::named(store, snapshot, &name, false)?;
            if frees.contains(&Kind::SUMMARY) {
                found.extend(question::named(store, snapshot, &name, true)?);
            }
            for Found { event, handle, number, .. } in found {
                let held = state.held.contains(&event.writer, event.seq);
                if frees.contains(&event.fact.kind) && held && seen.insert((event.writer, event.seq)) {
                    let index = sources.iter().position(|source| source.handle.nonce() == handle.nonce());
                    if let Some(index) = index {
                        chosen.add(index, number, &event, since);
                        waiting.push(event);
                    }
                }
            }
        }
    }
    Ok(())
}

/// What becomes of a candidate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sent,
    Held,
    Skipped,
}

fn decide(
    state: &State,
    options: &PushOptions,
    mine: &EventSet,
    chosen: &Chosen,
    names: &Names<'_>,
    sources: Vec<Source>,
) -> Result<Selection> {
    let wanted = |kind: Kind| {
        options.only.is_empty()
            // What is erased is erased, whatever else goes.
            || kind == Kind::ERASE
            || options.only.contains(&kind)
            // The transcripts and summaries that sent traces name go with them.
            || options.only.contains(&Kind::TRACE) && is_body(kind)
    };
    let verdict = |candidate: &Candidate, qualifies: &dyn Fn() -> Result<bool>| {
        Ok(if !wanted(candidate.kind) || !candidate.in_time {
            Verdict::Skipped
        } else if qualifies()? {
            Verdict::Sent
        } else {
            Verdict::Held
        })
    };
    let judge = |bodies: bool, qualifies: &(dyn Fn(usize, &Candidate) -> Result<bool> + Sync)| {
        let by_source = chosen.by_source.par_iter().enumerate();
        by_source
            .map(|(index, part)| {
                let part = part.iter().filter(|candidate| is_body(candidate.kind) == bodies);
                part.map(|candidate| verdict(candidate, &|| qualifies(index, candidate))).collect()
            })
            .collect::<Result<Vec<Vec<Verdict>>>>()
    };
    let records = judge(false, &|index, candidate| {
        let name = || chosen.name(&sources, index, candidate);
        Ok(options.full
            || match candidate.kind {
                Kind::TRACE => names.ledger_names(&candidate.prefix, &name)?,
                // Nothing can name it, and it may say as much as a trace.
                Kind::UNKNOWN => false,
                _ => true,
            })
    })?;
    let mut sent = Ranges::default();
    let others = chosen.each().filter(|(_, candidate)| !is_body(candidate.kind));
    for ((_, candidate), verdict) in others.zip(records.iter().flatten()) {
        if *verdict == Verdict::Sent {
            sent.add(chosen.writer(candidate), candidate.seq.get());
        }
    }
    let sent = sent.finish();
    let there = |writer: &WriterId, seq: Seq| state.has.contains(writer, seq) || sent.contains(writer, seq);
    // `--only conversations` sends those of traces that are there already, or all with `--full`.
    let alone = |kind: Kind| options.full && (options.only.is_empty() || options.only.contains(&kind));
    let bodies = judge(true, &|index, candidate| {
        let name = || chosen.name(&sources, index, candidate);
        Ok(alone(candidate.kind) || names.trace_names(&candidate.prefix, &name, &there)?)
    })?;
    let (mut records, mut bodies) = (records.iter().flatten(), bodies.iter().flatten());
    let verdicts: Vec<Verdict> = chosen
        .each()
        .filter_map(|(_, candidate)| if is_body(candidate.kind) { bodies.next() } else { records.next() })
        .copied()
        .collect();
    Ok(assemble(state, mine, chosen, &verdicts, sources))
}

fn assemble(
    state: &State,
    mine: &EventSet,
    chosen: &Chosen,
    verdicts: &[Verdict],
    sources: Vec<Source>,
) -> Selection {
    let mut selection = Selection { held_back: state.held_kinds.clone(), ..Selection::default() };
    let mut by_source: Vec<Vec<u32>> = vec![Vec::new(); sources.len()];
    let (mut sent, mut held, mut skipped) = (Ranges::default(), Ranges::default(), Ranges::default());
    for ((index, candidate), verdict) in chosen.each().zip(verdicts) {
        let (kind, writer) = (candidate.kind, chosen.writer(candidate));
        let was_held = state.held.contains(&writer, candidate.seq);
        let count = selection.held_back.entry(kind).or_default();
        if *verdict == Verdict::Held {
            *count += u64::from(!was_held);
        } else {
            *count = count.saturating_sub(u64::from(was_held));
        }
        let set = match verdict {
            Verdict::Sent => {
                *selection.sent.entry(kind).or_default() += 1;
                by_source[index].push(candidate.number);
                &mut sent
            }
            Verdict::Held => &mut held,
            Verdict::Skipped => &mut skipped,
        };
        set.add(writer, candidate.seq.get());
    }
    selection.held_back.retain(|_, count| *count > 0);
    for (source, mut numbers) in sources.into_iter().zip(by_source) {
        if numbers.is_empty() {
            continue;
        }
        numbers.sort_unstable();
        let whole = matches!(source.handle, Handle::Sealed(_)) && numbers.len() == source.events as usize;
        selection.picks.push(Pick { source, numbers: (!whole).then_some(numbers) });
    }
    let skipped = skipped.finish();
    selection.events = sent.finish();
    selection.held = state.held.union(&held.finish()).minus(&selection.events).minus(&skipped);
    selection.evaluated = mine.minus(&skipped);
    selection
}
