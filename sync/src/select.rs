//! Which events a push sends: the difference to the remote, less what the filters hold back.
//!
//! Plain `push` holds back traces that no ledger names, transcripts and summaries that no sent trace names, and what
//! was kept as raw bytes, which nothing can name. What is held back is looked at again only when something arrives that
//! may free it, so the cost follows what is new.

use std::collections::{BTreeMap, HashMap, HashSet};

use agent_trace_store::event::Event;
use agent_trace_store::question::{self, Found};
use agent_trace_store::record::{Name, facts, name_prefix};
use agent_trace_store::segment::all_names;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::{Handle, Snapshot};
use agent_trace_store::table::NameEntry;
use agent_trace_store::{EventId, Kind, Result, Seq, Store, WriterId};

use crate::collect::{Source, chosen_events};
use crate::limits::BULK_EVENTS_MIN;
use crate::push::PushOptions;
use crate::state::State;

/// What of one segment is sent.
pub struct Pick {
    /// The segment.
    pub source: Source,
    /// The events, in order; `None` where all are sent and the segment may go as it is.
    pub events: Option<Vec<(Event, EventId, u32)>>,
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
    if options.full && options.only.is_empty() && options.since.is_none() {
        return everything(&sources, &missing, mine);
    }
    let unseen = missing.minus(&state.held);
    let bulk = unseen.len() >= BULK_EVENTS_MIN as u64;
    // In bulk all that is held back is looked at again; else only what the new events may free.
    let candidates =
        if bulk || options.full || !options.only.is_empty() { missing.clone() } else { unseen.clone() };
    let mut chosen = read_candidates(&sources, &candidates)?;
    if !bulk {
        add_freed(store, snapshot, state, &sources, &mine, &mut chosen)?;
    }
    let names = if bulk || chosen.len() >= BULK_EVENTS_MIN {
        Some(BulkNames::read(store, &sources, &chosen)?)
    } else {
        None
    };
    let names = Names { store, snapshot, bulk: names };
    decide(state, options, &mine, chosen, &names, sources)
}

/// Events of other writers beyond what those have signed: whoever pulled them would refuse them.
fn unsigned(store: &Store, state: &State, mine: &EventSet) -> Result<EventSet> {
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
fn sources(store: &Store, snapshot: &Snapshot) -> Result<Vec<Source>> {
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
    let mut ranges = Vec::new();
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
                ranges.extend_from_slice(&taken);
                rest = rest.minus(&EventSet::from_ranges(taken));
                selection.picks.push(Pick { source: source.clone(), events: None });
                continue;
            }
        }
        let chosen = read_source(source, &rest)?;
        if chosen.is_empty() {
            continue;
        }
        let taken: Vec<_> = chosen.iter().map(|(event, _, _)| place(event)).collect();
        for (event, _, _) in &chosen {
            *selection.sent.entry(event.fact.kind).or_default() += 1;
        }
        ranges.extend_from_slice(&taken);
        rest = rest.minus(&EventSet::from_ranges(taken));
        selection.picks.push(Pick { source: source.clone(), events: Some(chosen) });
    }
    selection.events = EventSet::from_ranges(ranges);
    selection.evaluated = mine;
    Ok(selection)
}

fn place(event: &Event) -> (WriterId, u64, u64) {
    (event.writer, event.seq.get(), event.seq.get())
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

type Chosen = (usize, Event, EventId, u32);

fn read_candidates(sources: &[Source], candidates: &EventSet) -> Result<Vec<Chosen>> {
    let mut chosen = Vec::new();
    let mut seen = HashSet::new();
    if candidates.is_empty() {
        return Ok(chosen);
    }
    for (index, source) in sources.iter().enumerate() {
        for (event, id, number) in read_source(source, candidates)? {
            if seen.insert((event.writer, event.seq)) {
                chosen.push((index, event, id, number));
            }
        }
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
    chosen: &mut Vec<Chosen>,
) -> Result<()> {
    let unseen = mine.minus(&state.evaluated);
    if unseen.is_empty() || state.held.is_empty() {
        return Ok(());
    }
    let mut seen: HashSet<(WriterId, Seq)> =
        chosen.iter().map(|(_, event, _, _)| (event.writer, event.seq)).collect();
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
        let record = store.read(&event.fact.objects[0])?;
        let Ok(facts) = facts(event.fact.kind, &record) else { continue };
        for name in facts.names {
            let Name::Cites(name) = name else { continue };
            let mut found = question::named(store, snapshot, &name, false)?;
            if frees.contains(&Kind::SUMMARY) {
                found.extend(question::named(store, snapshot, &name, true)?);
            }
            for Found { event, id, handle, number } in found {
                let held = state.held.contains(&event.writer, event.seq);
                if frees.contains(&event.fact.kind) && held && seen.insert((event.writer, event.seq)) {
                    let index = sources.iter().position(|source| source.handle.nonce() == handle.nonce());
                    if let Some(index) = index {
                        waiting.push(event.clone());
                        chosen.push((index, event, id, number));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Who names what.
struct Names<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    bulk: Option<BulkNames>,
}

/// The names that ledgers and traces cite, all at once.
struct BulkNames {
    by_ledgers: HashSet<[u8; 8]>,
    by_traces: HashMap<[u8; 8], Vec<(WriterId, Seq)>>,
    /// Prefixes that several of the chosen keys have: for them the whole names are compared, one by one.
    shared: HashSet<[u8; 8]>,
}

impl BulkNames {
    fn read(store: &Store, sources: &[Source], chosen: &[Chosen]) -> Result<BulkNames> {
        let shared = shared_prefixes(chosen);
        let mut names = BulkNames { by_ledgers: HashSet::new(), by_traces: HashMap::new(), shared };
        for source in sources {
            let all: Vec<u32> = (0..source.events).collect();
            let events = chosen_events(source, &all)?;
            for entry in source_names(store, source)? {
                let Some((event, _, _)) = events.get(entry.event as usize).filter(|_| entry.cites) else {
                    continue;
                };
                match event.fact.kind {
                    Kind::LEDGER => {
                        names.by_ledgers.insert(entry.prefix);
                    }
                    Kind::TRACE => {
                        names.by_traces.entry(entry.prefix).or_default().push((event.writer, event.seq));
                    }
                    _ => {}
                }
            }
        }
        Ok(names)
    }
}

fn source_names(store: &Store, source: &Source) -> Result<Vec<NameEntry>> {
    match &source.handle {
        Handle::Sealed(sealed) => all_names(sealed.file.as_ref(), &sealed.key, &sealed.directory),
        Handle::Open(_) => {
            Ok(store.index().read(|view| view.open_names(&[0; 8], &[255; 8]))?.unwrap_or_default())
        }
    }
}

/// Prefixes of names that differ later.
fn shared_prefixes(chosen: &[Chosen]) -> HashSet<[u8; 8]> {
    let mut first: HashMap<[u8; 8], &str> = HashMap::with_capacity(chosen.len());
    let mut shared = HashSet::new();
    for (_, event, _, _) in chosen {
        let name = conversation(event);
        if *first.entry(name_prefix(name)).or_insert(name) != name {
            shared.insert(name_prefix(name));
        }
    }
    shared
}

impl Names<'_> {
    /// The names all at once, where they are known so and this name cannot be taken for another.
    fn bulk(&self, prefix: &[u8; 8]) -> Option<&BulkNames> {
        self.bulk.as_ref().filter(|names| !names.shared.contains(prefix))
    }

    /// Whether a ledger names a trace.
    fn ledger_names(&self, trace: &str) -> Result<bool> {
        let prefix = name_prefix(trace);
        if let Some(names) = self.bulk(&prefix) {
            return Ok(names.by_ledgers.contains(&prefix));
        }
        let citing = question::named(self.store, self.snapshot, trace, true)?;
        Ok(citing.iter().any(|found| found.event.fact.kind == Kind::LEDGER))
    }

    /// Whether one of some traces names a conversation.
    fn trace_names(&self, conversation: &str, traces: &dyn Fn(&WriterId, Seq) -> bool) -> Result<bool> {
        let prefix = name_prefix(conversation);
        if let Some(names) = self.bulk(&prefix) {
            let citing = names.by_traces.get(&prefix);
            return Ok(citing.is_some_and(|citing| citing.iter().any(|(writer, seq)| traces(writer, *seq))));
        }
        let citing = question::named(self.store, self.snapshot, conversation, true)?;
        Ok(citing.iter().any(|found| {
            found.event.fact.kind == Kind::TRACE && traces(&found.event.writer, found.event.seq)
        }))
    }
}

/// The conversation that a transcript or summary belongs to.
fn conversation(event: &Event) -> &str {
    let key = event.fact.key.as_str();
    // A summary's key is the conversation and a time, with a colon between.
    match event.fact.kind {
        Kind::SUMMARY => key.split_once(':').map_or(key, |(conversation, _)| conversation),
        _ => key,
    }
}

fn decide(
    state: &State,
    options: &PushOptions,
    mine: &EventSet,
    chosen: Vec<Chosen>,
    names: &Names<'_>,
    sources: Vec<Source>,
) -> Result<Selection> {
    let mut sent: HashSet<(WriterId, Seq)> = HashSet::new();
    let wanted = |kind: Kind| {
        options.only.is_empty()
            || options.only.contains(&kind)
            // The transcripts and summaries that sent traces name go with them.
            || options.only.contains(&Kind::TRACE) && matches!(kind, Kind::TRANSCRIPT | Kind::SUMMARY)
    };
    let in_time = |event: &Event| options.since.is_none_or(|since| event.fact.time >= since);
    let (mut held, mut skipped) = (Vec::new(), Vec::new());
    let is_body = |kind| matches!(kind, Kind::TRANSCRIPT | Kind::SUMMARY);
    let mut verdict = |event: &Event, qualifies: bool, sent: &mut HashSet<(WriterId, Seq)>| {
        if !wanted(event.fact.kind) || !in_time(event) {
            skipped.push(place(event));
        } else if qualifies {
            sent.insert((event.writer, event.seq));
        } else {
            held.push(place(event));
        }
    };
    for (_, event, _, _) in chosen.iter().filter(|(_, event, _, _)| !is_body(event.fact.kind)) {
        let qualifies = options.full
            || match event.fact.kind {
                Kind::TRACE => names.ledger_names(&event.fact.key)?,
                // Nothing can name it, and it may say as much as a trace.
                Kind::UNKNOWN => false,
                _ => true,
            };
        verdict(event, qualifies, &mut sent);
    }
    // `--only conversations` sends those of traces that are there already, or all with `--full`.
    let alone = |kind: Kind| options.full && (options.only.is_empty() || options.only.contains(&kind));
    for (_, event, _, _) in chosen.iter().filter(|(_, event, _, _)| is_body(event.fact.kind)) {
        let there =
            |writer: &WriterId, seq: Seq| state.has.contains(writer, seq) || sent.contains(&(*writer, seq));
        let qualifies = alone(event.fact.kind) || names.trace_names(conversation(event), &there)?;
        verdict(event, qualifies, &mut sent);
    }
    Ok(assemble(
        state,
        mine,
        chosen,
        sent,
        EventSet::from_ranges(held),
        &EventSet::from_ranges(skipped),
        sources,
    ))
}

fn assemble(
    state: &State,
    mine: &EventSet,
    chosen: Vec<Chosen>,
    sent: HashSet<(WriterId, Seq)>,
    held: EventSet,
    skipped: &EventSet,
    sources: Vec<Source>,
) -> Selection {
    let mut selection = Selection { held_back: state.held_kinds.clone(), ..Selection::default() };
    let mut by_source: BTreeMap<usize, Vec<(Event, EventId, u32)>> = BTreeMap::new();
    for (index, event, id, number) in chosen {
        let kind = event.fact.kind;
        let was_held = state.held.contains(&event.writer, event.seq);
        let count = selection.held_back.entry(kind).or_default();
        if sent.contains(&(event.writer, event.seq)) || skipped.contains(&event.writer, event.seq) {
            *count = count.saturating_sub(u64::from(was_held));
        } else {
            *count += u64::from(!was_held);
        }
        if sent.contains(&(event.writer, event.seq)) {
            *selection.sent.entry(kind).or_default() += 1;
            by_source.entry(index).or_default().push((event, id, number));
        }
    }
    selection.held_back.retain(|_, count| *count > 0);
    for (index, mut events) in by_source {
        let source = sources[index].clone();
        events.sort_unstable_by_key(|(_, _, number)| *number);
        let whole = matches!(source.handle, Handle::Sealed(_)) && events.len() == source.events as usize;
        selection.picks.push(Pick { source, events: (!whole).then_some(events) });
    }
    selection.events =
        EventSet::from_ranges(sent.iter().map(|(writer, seq)| (*writer, seq.get(), seq.get())));
    selection.held = state.held.union(&held).minus(&selection.events).minus(skipped);
    selection.evaluated = mine.minus(skipped);
    selection
}
