//! Making a bundle: chosen events with all objects that they need, in a few large segments, under one head of this store's
//! writer.
//!
//! Frames that go whole are copied as they are, so a compacted store makes a small bundle; others are compressed anew. A
//! segment holds its own events' objects, or they stand in one before it, so a folder that was written so can be pulled from.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use agent_trace_store::build::Builder;
use agent_trace_store::event::Event;
use agent_trace_store::id::encode_hex;
use agent_trace_store::limits::{SEGMENT_BYTES_MAX, SEGMENT_EVENTS_TARGET, SEGMENT_NAMES_TARGET};
use agent_trace_store::object::Stored;
use agent_trace_store::progress::Progress;
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Handle;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, EventId, Kind, ObjectId, Result, SegmentId, Store, Timestamp};

use crate::bundle::base::{Base, bodies_of_base, writers_of};
use crate::bundle::choose::{Chosen, Wanted, choose};
use crate::bundle::info::{BundleInfo, INFO_KEY, INFO_SCHEMA, encode_cursor, named_counts};
use crate::collect::{Source, chosen_events, collect_into};
use crate::head::{Head, RemoteId};
use crate::light::walk;
use crate::limits::{
    BUNDLE_PORTION_BYTES_TARGET, BUNDLE_PORTION_EVENTS_TARGET, BUNDLE_SEGMENT_BYTES_TARGET,
    BUNDLE_SESSIONS_MAX, MANIFEST_SEGMENTS_MAX,
};
use crate::manifest::Manifest;
use crate::publish::note_own_tip;
use crate::remote::{FORMAT_KEY, encode_format};
use crate::select::sources;
use crate::state::State;
use crate::transport::{Transport, Upload};

/// What goes into a bundle.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// What is asked for.
    pub wanted: Wanted,
    /// What the reader has.
    pub base: Option<Base>,
    /// The same in words of the command line, for the readable manifest.
    pub selection: Vec<String>,
    /// The program, for the same.
    pub program: String,
}

/// What an export would write.
pub struct ExportPlan {
    chosen: Chosen,
    /// Events by kind.
    pub counts: BTreeMap<Kind, u64>,
}

impl ExportPlan {
    /// The events that go.
    pub fn events(&self) -> &EventSet {
        &self.chosen.events
    }

    /// Hands over the events that go, segment by segment.
    pub fn each(&self, each: &mut dyn FnMut(&Event) -> Result<()>) -> Result<()> {
        for (source, numbers) in &self.chosen.picks {
            for part in numbers.chunks(BUNDLE_PORTION_EVENTS_TARGET) {
                for (event, _, _) in chosen_events(source, part)? {
                    each(&event)?;
                }
            }
        }
        Ok(())
    }

    /// Events that cannot go, since bytes that they list are elsewhere.
    pub fn elsewhere(&self) -> u64 {
        self.chosen.elsewhere
    }

    /// Sessions that were asked for and of which nothing is here.
    pub fn unknown(&self) -> &[String] {
        &self.chosen.unknown
    }
}

/// Finds out what goes; writes nothing.
pub fn plan(store: &Store, options: &ExportOptions) -> Result<ExportPlan> {
    store.settle()?;
    let nothing = EventSet::default();
    let base = options.base.as_ref().map_or(&nothing, |base| &base.events);
    let chosen = choose(store, &options.wanted, base)?;
    let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
    for (source, numbers) in &chosen.picks {
        walk(source, numbers, |_, laid| {
            *counts.entry(laid.kind).or_default() += 1;
            Ok(())
        })?;
    }
    Ok(ExportPlan { chosen, counts })
}

/// Writes what was planned to where nothing is yet; the head comes last. Returns the readable manifest.
pub fn execute(
    store: &Store,
    plan: &ExportPlan,
    options: &ExportOptions,
    transport: &dyn Transport,
    progress: &dyn Progress,
) -> Result<BundleInfo> {
    let _busy = store.busy()?;
    let mut id: RemoteId = [0; 16];
    store.env().entropy.fill(&mut id);
    transport.write_once(FORMAT_KEY, encode_format(&id).as_bytes())?;
    progress.start("exporting", None);
    let mut writing = Writing::start(store, transport, progress);
    let facts = write_all(store, plan, options, &mut writing)?;
    progress.finish();
    let segments = std::mem::take(&mut writing.added);
    if segments.len() > MANIFEST_SEGMENTS_MAX {
        return Err(Error::invalid(format!(
            "the bundle would have more than {MANIFEST_SEGMENTS_MAX} segments"
        )));
    }
    let info = describe(store, plan, options, &id, &facts, &writing, &segments);
    let manifest = Manifest { added: segments, ..Manifest::default() }.encode();
    let manifest_id = Manifest::id(&manifest);
    transport.write(&Manifest::key(&manifest_id), &manifest)?;
    transport.write(INFO_KEY, &info.encode()?)?;
    let head = Head {
        remote: id,
        writer: store.writer(),
        generation: 1,
        previous: [0; 32],
        manifest: manifest_id,
        time: store.env().clock.now(),
        tips: tips(store, &plan.chosen.events)?,
    };
    transport.write(&Head::key(&store.writer()), &head.encode(&store.key()))?;
    Ok(info)
}

/// How far the logs go of which something is inside, signed by their writers.
fn tips(store: &Store, events: &EventSet) -> Result<Vec<Tip>> {
    let mut state = State::default();
    note_own_tip(store, &mut state)?;
    Ok(state.tips.into_values().filter(|tip| events.log(&tip.writer).is_some()).collect())
}

/// What the readable manifest says beside counts.
#[derive(Default)]
struct Seen {
    sessions: BTreeSet<String>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Seen {
    fn note(&mut self, store: &Store, events: &[(Event, EventId, u32)]) -> Result<()> {
        for (event, _, _) in events {
            let fact = &event.fact;
            self.first = Some(self.first.map_or(fact.time, |first| first.min(fact.time)));
            self.last = Some(self.last.map_or(fact.time, |last| last.max(fact.time)));
            let session = match fact.kind {
                Kind::TRACE => {
                    let record = store.read(&fact.objects[0])?;
                    facts(fact.kind, &record)
                        .ok()
                        .and_then(|facts| facts.session.map(|session| session.into_owned()))
                }
                Kind::TRANSCRIPT => TranscriptRecord::decode(&store.read(&fact.objects[0])?)
                    .ok()
                    .and_then(|record| record.session_id),
                _ => None,
            };
            self.sessions.extend(session);
        }
        Ok(())
    }
}

/// Writes all segments: transcripts first, in the order in which their bytes stand, then records.
fn write_all(
    store: &Store,
    plan: &ExportPlan,
    options: &ExportOptions,
    writing: &mut Writing<'_>,
) -> Result<Seen> {
    let picks = &plan.chosen.picks;
    let mut seen = Seen::default();
    let (mut with_bodies, mut records): (Vec<Bodied>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
    for (index, (source, numbers)) in picks.iter().enumerate() {
        let (mut bodied, mut plain) = (Vec::new(), Vec::new());
        walk(source, numbers, |number, laid| {
            if laid.objects().count() > 1 {
                bodied.push(number)
            } else {
                plain.push(number)
            }
            Ok(())
        })?;
        records.push(plain);
        for (event, id, number) in chosen_events(source, &bodied)? {
            with_bodies.push(Bodied::of(store, index, (event, id, number))?);
        }
    }
    if let Some(base) = options.base.as_ref().filter(|base| !base.events.is_empty()) {
        let keys: HashSet<String> =
            with_bodies.iter().map(|bodied| bodied.event.0.fact.key.clone()).collect();
        let all = sources(store, &store.snapshot()?)?;
        writing.sent = bodies_of_base(store, &all, &base.events, &keys)?;
    }
    with_bodies.sort_by_key(|bodied| (bodied.place, bodied.event.0.fact.time));
    let mut with_bodies = with_bodies.into_iter().peekable();
    while with_bodies.peek().is_some() {
        let mut portion: BTreeMap<usize, Vec<(Event, EventId, u32)>> = BTreeMap::new();
        let mut bytes = 0;
        while bytes < BUNDLE_PORTION_BYTES_TARGET
            && let Some(next) = with_bodies.next()
        {
            bytes += next.bytes;
            portion.entry(next.source).or_default().push(next.event);
        }
        for (index, mut events) in portion {
            events.sort_unstable_by_key(|(_, _, number)| *number);
            seen.note(store, &events)?;
            writing.add(&picks[index].0, events)?;
        }
        writing.close_if_large()?;
    }
    for ((source, _), numbers) in picks.iter().zip(records) {
        for part in numbers.chunks(BUNDLE_PORTION_EVENTS_TARGET) {
            let events = chosen_events(source, part)?;
            seen.note(store, &events)?;
            writing.add(source, events)?;
            writing.close_if_large()?;
        }
    }
    writing.close()?;
    Ok(seen)
}

/// An event with bytes of a transcript, and where those stand.
struct Bodied {
    /// The segment of the last part, and the frame in it.
    place: (i64, [u8; 16], u32),
    /// About how many bytes it brings that those before did not.
    bytes: u64,
    source: usize,
    event: (Event, EventId, u32),
}

impl Bodied {
    fn of(store: &Store, source: usize, event: (Event, EventId, u32)) -> Result<Bodied> {
        let (mut place, mut bytes) = ((0, [0; 16], 0), 0);
        for id in &event.0.fact.objects[1..] {
            // One that is not here is told of by whoever collects the objects.
            let Some(location) = store.locate(id)? else { continue };
            let objects = store.objects(&location.handle, location.frame)?;
            let mut at = location.clone();
            match objects.get(location.slot as usize)? {
                Stored::Plain(plain) => bytes += plain.len() as u64,
                Stored::Recipe(recipe) => {
                    // A transcript that has grown starts with what was there before.
                    let before = recipe.parts.first().map_or(0, |part| part.bytes);
                    bytes += recipe.bytes - before.min(recipe.bytes);
                    if let Some(last) = recipe.parts.last()
                        && let Some(location) = store.locate(&last.id)?
                    {
                        at = location;
                    }
                }
            }
            let created = match &at.handle {
                Handle::Sealed(sealed) => sealed.header.created.micros(),
                Handle::Open(_) => i64::MAX,
            };
            place = (created, *at.handle.nonce(), at.frame);
        }
        Ok(Bodied { place, bytes, source, event })
    }
}

/// Segments that are being written.
struct Writing<'a> {
    store: &'a Store,
    transport: &'a dyn Transport,
    progress: &'a dyn Progress,
    builder: Option<Builder<Box<dyn Upload>>>,
    names: usize,
    /// Objects that are in the bundle already, or that the base has.
    sent: HashSet<ObjectId>,
    added: Vec<(SegmentId, u64)>,
    objects: u64,
    raw_bytes: u64,
}

impl<'a> Writing<'a> {
    fn start(store: &'a Store, transport: &'a dyn Transport, progress: &'a dyn Progress) -> Writing<'a> {
        Writing {
            store,
            transport,
            progress,
            builder: None,
            names: 0,
            sent: HashSet::new(),
            added: Vec::new(),
            objects: 0,
            raw_bytes: 0,
        }
    }

    /// Adds events of one segment with what they need.
    fn add(&mut self, source: &Source, events: Vec<(Event, EventId, u32)>) -> Result<()> {
        if self.builder.is_none() {
            let upload = self.transport.create()?;
            self.builder = Some(Builder::into(self.store.env(), upload, self.store.tail()?));
        }
        let builder = self.builder.as_mut().expect("made above");
        let (sent, mut new) = (&self.sent, Vec::new());
        let (mut raw_bytes, progress) = (0, self.progress);
        let known = |id: &ObjectId| Ok(sent.contains(id));
        let received = collect_into(self.store, &[], source, events, &known, &mut |frame| {
            raw_bytes += u64::from(frame.frame.raw_bytes);
            progress.advance(frame.frame.file_bytes());
            new.extend_from_slice(&frame.ids);
            builder.objects(&frame)
        })?;
        builder.received(&received)?;
        self.names += received.iter().map(|received| received.marks.names.len()).sum::<usize>();
        self.objects += new.len() as u64;
        self.raw_bytes += raw_bytes;
        self.sent.extend(new);
        Ok(())
    }

    fn close_if_large(&mut self) -> Result<()> {
        let is_large = self.builder.as_ref().is_some_and(|builder| {
            builder.bytes() >= BUNDLE_SEGMENT_BYTES_TARGET || builder.events() >= SEGMENT_EVENTS_TARGET
        });
        if is_large || self.names >= SEGMENT_NAMES_TARGET { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        self.names = 0;
        let Some(builder) = self.builder.take() else { return Ok(()) };
        if builder.bytes() > SEGMENT_BYTES_MAX / 4 * 3 {
            return Err(Error::invalid(format!(
                "a transcript does not fit a bundle: a segment would have {} bytes",
                builder.bytes()
            )));
        }
        let ended = builder.end()?;
        let (id, bytes) = (ended.id, ended.bytes);
        ended.sink.name(&id)?;
        self.added.push((id, bytes));
        Ok(())
    }
}

fn describe(
    store: &Store,
    plan: &ExportPlan,
    options: &ExportOptions,
    id: &RemoteId,
    seen: &Seen,
    writing: &Writing<'_>,
    segments: &[(SegmentId, u64)],
) -> BundleInfo {
    let events = &plan.chosen.events;
    let base = options.base.as_ref();
    let all = base.map_or_else(|| events.clone(), |base| base.events.union(events));
    BundleInfo {
        schema: INFO_SCHEMA.to_owned(),
        id: encode_hex(id),
        writer: store.writer().to_string(),
        program: options.program.clone(),
        created: store.env().clock.now().to_string(),
        counts: named_counts(&plan.counts),
        objects: writing.objects,
        raw_bytes: writing.raw_bytes,
        segment_bytes: segments.iter().map(|(_, bytes)| bytes).sum(),
        segments: segments.len() as u64,
        writers: writers_of(events),
        first: seen.first.map(|time| time.to_string()),
        last: seen.last.map(|time| time.to_string()),
        sessions: seen.sessions.len() as u64,
        session_ids: seen.sessions.iter().take(BUNDLE_SESSIONS_MAX).cloned().collect(),
        selection: options.selection.clone(),
        base: base.map(Base::said),
        cursor: encode_cursor(&all),
    }
}
