//! Events of a segment as they lie there: enough to choose by, without copies of their text, and without their ids where
//! those are not asked for.
//!
//! A push looks at every event that a remote lacks; as whole events, those of a large store would fill the memory.

use std::collections::HashSet;

use agent_trace_store::event::{Laid, walk_events};
use agent_trace_store::frame::Unpacker;
use agent_trace_store::segment::{EventsPlace, Run};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::{Handle, read_events_raw};
use agent_trace_store::{Error, EventId, Result, Seq, WriterId};

use crate::collect::Source;

/// Goes through chosen events of a segment, by their sorted numbers.
pub fn walk(
    source: &Source,
    numbers: &[u32],
    mut each: impl FnMut(u32, &Laid<'_>) -> Result<()>,
) -> Result<()> {
    let mut unpacker = Unpacker::new();
    let mut rest = numbers;
    for (index, place) in source.frames.iter().enumerate() {
        let end = source.frames.get(index + 1).map_or(source.events, |next| next.first_event);
        let (here, after) = rest.split_at(rest.partition_point(|number| *number < end));
        rest = after;
        if here.is_empty() {
            continue;
        }
        let raw = read_events_raw(&source.handle, place.offset, &mut unpacker)?;
        let mut wanted = here.iter().peekable();
        let mut number = place.first_event;
        walk_events(&raw, |laid| {
            if wanted.next_if(|wanted| **wanted == number).is_some() {
                each(number, &laid)?;
            }
            number += 1;
            Ok(())
        })?;
        if wanted.peek().is_some() {
            return Err(Error::corrupt("an events frame is shorter than its directory says"));
        }
    }
    Ok(())
}

/// Hands over the events of one frame of a segment with their numbers and ids.
pub fn each_id(
    source: &Source,
    place: &EventsPlace,
    unpacker: &mut Unpacker,
    each: &mut dyn FnMut(u32, &Laid<'_>, &EventId) -> Result<()>,
) -> Result<()> {
    let raw = read_events_raw(&source.handle, place.offset, unpacker)?;
    let (mut number, mut last, mut encoding) = (place.first_event, EventId::NONE, Vec::new());
    walk_events(&raw, |laid| {
        let previous = laid.starts.unwrap_or(last);
        last = laid.id(&previous, &mut encoding);
        each(number, &laid, &last)?;
        number += 1;
        Ok(())
    })
}

/// Takes the events of a segment out of a set, and returns their numbers, sorted.
pub fn take(source: &Source, rest: &mut EventSet) -> Result<Vec<u32>> {
    let (mut numbers, mut ranges) = (Vec::new(), Ranges::default());
    match &source.handle {
        Handle::Sealed(sealed) => {
            for run in &sealed.directory.runs {
                take_run(run, rest, &mut numbers, &mut ranges);
            }
        }
        Handle::Open(_) => {
            let all: Vec<u32> = (0..source.events).collect();
            walk(source, &all, |number, laid| {
                if rest.contains(&laid.writer, laid.seq) {
                    numbers.push(number);
                    ranges.add(laid.writer, laid.seq.get());
                }
                Ok(())
            })?;
        }
    }
    numbers.sort_unstable();
    let taken = ranges.finish();
    if taken.len() < numbers.len() as u64 {
        // The same place in a log twice, as in a log that has forked: the first counts.
        let mut seen = HashSet::new();
        let mut first = Vec::new();
        walk(source, &numbers, |number, laid| {
            if seen.insert((laid.writer, laid.seq)) {
                first.push(number);
            }
            Ok(())
        })?;
        numbers = first;
    }
    *rest = rest.minus(&taken);
    Ok(numbers)
}

fn take_run(run: &Run, rest: &EventSet, numbers: &mut Vec<u32>, ranges: &mut Ranges) {
    let Some(log) = rest.log(&run.writer) else { return };
    let (first, last) = (run.seq_first.get(), run.seq_last());
    let ranged = log.ranges();
    let from = ranged.partition_point(|range| range.1 < first);
    for range in ranged[from..].iter().take_while(|range| range.0 <= last) {
        let (low, high) = (range.0.max(first), range.1.min(last));
        let step = |seq: u64| u32::try_from(seq - first).expect("a run is as long as its count");
        numbers.extend((step(low)..=step(high)).map(|step| run.first_event + step));
        ranges.add_range(run.writer, low, high);
    }
}

/// Events that are noted one by one, mostly in the order of their logs.
#[derive(Default)]
pub struct Ranges {
    ranges: Vec<(WriterId, u64, u64)>,
}

impl Ranges {
    /// Adds an event.
    pub fn add(&mut self, writer: WriterId, seq: u64) {
        self.add_range(writer, seq, seq);
    }

    fn add_range(&mut self, writer: WriterId, first: u64, last: u64) {
        match self.ranges.last_mut() {
            Some(range) if range.0 == writer && range.2 + 1 == first => range.2 = last,
            _ => self.ranges.push((writer, first, last)),
        }
    }

    /// The events as a set.
    pub fn finish(self) -> EventSet {
        EventSet::from_ranges(self.ranges)
    }
}

/// An event that may be sent, as small as it can be.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The name by which others refer to it, shortened; zero where nobody does.
    pub prefix: [u8; 8],
    /// Its place in its log.
    pub seq: Seq,
    /// Its number in its segment.
    pub number: u32,
    /// Whose log it is in, as a number.
    pub writer: u32,
    /// The kind of its record.
    pub kind: agent_trace_store::Kind,
    /// Whether a filter for time lets it pass.
    pub in_time: bool,
}
