//! `stats`: records by kind, agent and month. Reads every record once, segment by segment.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use agent_trace_store::store::{Handle, Snapshot, read_events};
use agent_trace_store::{Kind, ObjectId, Result, Store, Timestamp, record};
use rayon::prelude::*;

use super::{Context, lines, status, zone};
use crate::args::{self, LinesBy};
use crate::json;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time;
use crate::ui::{self, Ui};

/// Records that are read at once.
const BATCH_RECORDS: usize = 4096;

pub(super) fn run(context: &Context, args: &args::Stats) -> Result<Done, Failure> {
    let (place, store) = context.open_current()?;
    let snapshot = store.snapshot()?;
    let mut tally = Tally::default();
    {
        let progress = context.ui.progress();
        let total = snapshot.segments.sealed.iter().map(|sealed| sealed.directory.raw_bytes).sum();
        progress.start("reading", Some(total));
        each_frame(&store, &snapshot, &mut |events| {
            progress.advance(tally.add(&store, events)?);
            Ok(())
        })?;
        progress.finish();
    }
    let raw = snapshot.rows.values().map(|row| row.raw_bytes).sum();
    let bytes = status::bytes_of(&store, &snapshot, raw)?;
    let mut stats = tally.into_stats(bytes);
    let ways = if args.by.is_empty() { &[LinesBy::Agent, LinesBy::Model][..] } else { &args.by };
    // A store outside git knows its commits only by their ledgers.
    let directory = place.project.as_ref().map(|_| context.settings.directory.as_path());
    let counts = lines::count(&store, &snapshot, directory, ways, &zone())?;
    stats.lines = counts.into_iter().map(|(way, lines)| (way.name(), lines)).collect();
    if context.ui.is_json() {
        context.ui.json(&stats)?;
    } else {
        print(&context.ui, &stats)?;
    }
    Ok(Done::Well)
}

/// What is counted of one event.
struct Counted {
    kind: Kind,
    time: Timestamp,
    record: ObjectId,
}

/// Hands over the events of each frame.
fn each_frame(
    store: &Store,
    snapshot: &Snapshot,
    work: &mut dyn FnMut(Vec<Counted>) -> Result<()>,
) -> Result<()> {
    let counted = |event: &agent_trace_store::event::Event| Counted {
        kind: event.fact.kind,
        time: event.fact.time,
        record: event.fact.objects[0],
    };
    let mut read = |handle: &Handle, offset: u32| {
        let events = read_events(handle, offset)?;
        work(events.iter().map(|(event, _)| counted(event)).collect())
    };
    for sealed in &snapshot.segments.sealed {
        let handle = Handle::Sealed(sealed.clone());
        for place in &sealed.directory.events_frames {
            read(&handle, place.offset)?;
        }
    }
    if let Some(open) = &snapshot.segments.open {
        let is_indexed = snapshot.rows.values().any(|row| row.nonce == open.header.nonce);
        let frames = store.index().read(|view| view.open_frames())?.unwrap_or_default();
        for place in frames.iter().filter(|_| is_indexed) {
            read(&Handle::Open(open.clone()), place.offset)?;
        }
    }
    for part in snapshot.unindexed.iter().filter(|part| matches!(part.handle, Handle::Open(_))) {
        for events in part.events.chunks(BATCH_RECORDS) {
            work(events.iter().map(|(event, _, _)| counted(event)).collect())?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    seen: HashSet<(Kind, ObjectId)>,
    kinds: BTreeMap<Kind, u64>,
    agents: BTreeMap<String, u64>,
    months: BTreeMap<String, BTreeMap<Kind, u64>>,
    span: Option<(Timestamp, Timestamp)>,
}

impl Tally {
    /// Counts events whose record was not counted yet; returns the bytes of those records.
    fn add(&mut self, store: &Store, mut events: Vec<Counted>) -> Result<u64> {
        events.retain(|event| self.seen.insert((event.kind, event.record)));
        let agents: Vec<(u64, Option<String>)> =
            events.par_iter().map(|event| agent(store, event)).collect::<Result<_>>()?;
        let zone = zone();
        let mut bytes = 0;
        for (event, (record_bytes, agent)) in events.iter().zip(agents) {
            bytes += record_bytes;
            *self.kinds.entry(event.kind).or_default() += 1;
            *self.agents.entry(agent.unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
            *self.months.entry(time::month(event.time, &zone)).or_default().entry(event.kind).or_default() +=
                1;
            let (first, last) = self.span.unwrap_or((event.time, event.time));
            self.span = Some((first.min(event.time), last.max(event.time)));
        }
        Ok(bytes)
    }

    fn into_stats(self, bytes: json::Bytes) -> json::Stats {
        json::Stats {
            schema: json::STATS,
            records: self.kinds.values().sum(),
            kinds: json::counts(&self.kinds),
            agents: self.agents,
            months: self.months.iter().map(|(month, kinds)| (month.clone(), json::counts(kinds))).collect(),
            lines: BTreeMap::new(),
            first: self.span.map(|(first, _)| first.to_string()),
            last: self.span.map(|(_, last)| last.to_string()),
            bytes,
        }
    }
}

/// A record's length and its agent. Ledgers and commit-links are not made by an agent.
fn agent(store: &Store, event: &Counted) -> Result<(u64, Option<String>)> {
    if matches!(event.kind, Kind::LEDGER | Kind::COMMIT_LINK | Kind::ERASE) {
        return Ok((0, Some("git".to_owned())));
    }
    let bytes = store.read_unless_erased(&event.record)?.unwrap_or_default();
    let agent = record::facts(event.kind, &bytes).ok().and_then(|facts| facts.agent).map(Cow::into_owned);
    Ok((bytes.len() as u64, agent))
}

fn print(ui: &Ui, stats: &json::Stats) -> Result<()> {
    ui.line(format_args!("{} records", ui.strong(ui::number(stats.records))))?;
    for kind in Kind::KNOWN.into_iter().chain([Kind::UNKNOWN]) {
        let count = stats.kinds.get(kind.name()).copied().unwrap_or(0);
        if count > 0 {
            ui.line(format_args!("  {:<20} {:>9}", kind.name(), ui::number(count)))?;
        }
    }
    let mut agents: Vec<(&String, &u64)> = stats.agents.iter().collect();
    agents.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    if !agents.is_empty() {
        ui.line(ui.strong("by agent"))?;
    }
    for (agent, count) in agents {
        ui.line(format_args!("  {:<20} {:>9}", sanitize::line(agent), ui::number(*count)))?;
    }
    if !stats.months.is_empty() {
        ui.line(ui.strong("by month"))?;
    }
    for (month, kinds) in &stats.months {
        let known = Kind::KNOWN.into_iter().chain([Kind::UNKNOWN]).filter_map(|kind| {
            let count = kinds.get(kind.name()).copied().filter(|count| *count > 0)?;
            Some(format!("{} {kind}", ui::number(count)))
        });
        let words: Vec<String> = known.collect();
        let sum: u64 = kinds.values().sum();
        ui.line(format_args!("  {month:<20} {:>9}  {}", ui::number(sum), ui.faint(words.join(", "))))?;
    }
    for (way, lines) in stats.lines.iter().filter(|(_, lines)| !lines.is_empty()) {
        ui.line(ui.strong(format_args!("lines by {way}")))?;
        let mut lines: Vec<(&String, &u64)> = lines.iter().collect();
        if *way != LinesBy::Month.name() {
            lines.sort_by(|one, two| two.1.cmp(one.1).then(one.0.cmp(two.0)));
        }
        for (name, count) in lines {
            ui.line(format_args!("  {:<28} {:>9}", sanitize::line(name), ui::number(*count)))?;
        }
    }
    let bytes = &stats.bytes;
    let stored = bytes.segments + bytes.index;
    let percent = stored.saturating_mul(100).checked_div(bytes.raw).unwrap_or(0);
    ui.line(ui.strong("bytes"))?;
    ui.line(format_args!("  {:<20} {:>9}", "as they are", ui::bytes(bytes.raw)))?;
    ui.line(format_args!("  {:<20} {:>9}  ({percent} %)", "on disk", ui::bytes(stored)))?;
    Ok(())
}
