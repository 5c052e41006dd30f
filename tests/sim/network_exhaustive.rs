//! One small workload over the network: every operation at the service fails once in each way there is, and everything
//! happens to every message. Nothing acknowledged is lost, and the same workload, run again, comes to its end.
//!
//! The default walks with a stride; `AGENT_TRACE_SIM_STRIDE=1` takes every step.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::progress::Silent;
use agent_trace_store::switches;
use agent_trace_store::verify::verify;
use agent_trace_store::{Error, ObjectId, Store};
use agent_trace_sync::client::Resource;
use agent_trace_sync::pull::PullOptions;
use agent_trace_sync::push::PushOptions;
use agent_trace_tests::{commit_link, lines};

use crate::check::Auditor;
use crate::exhaustive::{FIRST, SECOND, Way, append, batch, ways};
use crate::net::{Fate, Line, Who};
use crate::world::explain;
use crate::{alone, number};

const CASES: u64 = 500;
const FATES: [Fate; 7] = [
    Fate::Lost,
    Fate::Cut,
    Fate::Corrupted,
    Fate::Doubled,
    Fate::Unanswered,
    Fate::AnswerCut,
    Fate::AnswerCorrupted,
];

/// What happens once.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// An operation at the service fails.
    Operation(Way, u64),
    /// Something happens to a message, which is drawn by a seed where there is something to draw.
    Message(Fate, u64, u64),
}

/// What was acknowledged on the way.
#[derive(Default)]
struct Known {
    events: u64,
    records: BTreeSet<ObjectId>,
}

fn workload(disk: &SimDisk, line: &Line, known: &mut Known) -> Result<(), Error> {
    let env = disk.env();
    let full = PushOptions { full: true, ..PushOptions::default() };
    let first = Store::init(&env, Path::new(FIRST))?;
    append(&first, &batch(0))?;
    let service = line.service(&env, Who::Client(0));
    service.push(&first, &full, &Silent)?;
    known.records.extend(batch(0).into_keys());
    let items: Vec<Vec<u8>> = (700..704).map(commit_link).collect();
    line.client(&env, Who::Client(0)).put_items(Resource::CommitLinks, &items)?;
    known.records.extend(items.iter().map(|item| ObjectId::of(item)));
    // Much enough to go in several chunks, and to be kept as it is.
    let noise = lines(&mut agent_trace_tests::Random::new(7), 40_000);
    let large = crate::exhaustive::transcript("conversation-1", &noise);
    crate::exhaustive::append_transcript(&first, &large, &noise)?;
    append(&first, &batch(100))?;
    service.push(&first, &full, &Silent)?;
    known.records.extend(batch(100).into_keys());
    let second = Store::init(&env, Path::new(SECOND))?;
    line.service(&env, Who::Client(1)).pull(&second, &PullOptions::default(), &Silent)?;
    known.events = line.hold().host.reach()?.1;
    Ok(())
}

/// What was acknowledged lies at the service, by its raw bytes.
fn check_known(line: &Line, known: &Known, case: &str) {
    let mut net = line.hold();
    let listing = net.host.listing();
    let holding = Auditor::default().store(&net.host.disk, &net.host.store_dir());
    assert!(known.records.is_subset(&holding.records()), "{case}: what was acknowledged is lost");
    assert!(listing.seats.len() as u64 >= known.events, "{case}: positions went back");
    let is_there = listing.seats.iter().all(|seat| holding.events.contains_key(seat));
    assert!(is_there, "{case}: what has arrived is not there");
}

/// Both stores and the service hold the same, and verify.
fn check_whole(disk: &SimDisk, line: &Line, case: &str) {
    let env = disk.env();
    let sound = |error: Error| -> ! { panic!("{case}: {}", explain(&error)) };
    let there: BTreeSet<_> = line.hold().host.listing().seats.into_iter().collect();
    for (client, dir) in [FIRST, SECOND].into_iter().enumerate() {
        let store = Store::open(&env, Path::new(dir)).unwrap_or_else(|error| sound(error));
        let service = line.service(&env, Who::Client(client));
        service.pull(&store, &PullOptions::default(), &Silent).unwrap_or_else(|error| sound(error));
        let full = PushOptions { full: true, ..PushOptions::default() };
        let pushed = service.push(&store, &full, &Silent).unwrap_or_else(|error| sound(error));
        assert_eq!((pushed.segments, pushed.new_writer), (0, false), "{case}: nothing is left to push");
        let mine: BTreeSet<_> = Auditor::default().store(disk, Path::new(dir)).seats().into_keys().collect();
        assert!(mine == there, "{case}: `{dir}` holds {} events of {}", mine.len(), there.len());
        let report = verify(&store, &Silent).unwrap_or_else(|error| sound(error));
        assert_eq!(report.problems, Vec::new(), "{case}: `{dir}` does not verify");
    }
}

/// Runs the workload with one event; false if it ended before.
fn run_case(event: Event) -> bool {
    let case = format!("{event:?}");
    switches::make_small(true);
    let seed = match event {
        Event::Operation(_, at) => at,
        Event::Message(_, _, seed) => seed,
    };
    let (disk, line) = (SimDisk::new(seed), Line::plain(seed));
    let before = {
        let mut net = line.hold();
        let (operations, observations) = (net.host.disk.operations(), net.host.disk.observations());
        match event {
            Event::Operation(way, at) => way.set(&net.host.disk, at, operations, observations),
            Event::Message(fate, message, _) => net.fated = Some((message, fate)),
        }
        net.host.disk.faults_hit()
    };
    let mut known = Known::default();
    let result = workload(&disk, &line, &mut known);
    let hit = {
        let mut net = line.hold();
        net.is_calm = true;
        let is_hit = net.host.disk.faults_hit() > before || !net.host.disk.is_powered();
        is_hit || net.counts.power_cuts > 0 || matches!(event, Event::Message(..))
    };
    if let Err(error) = &result {
        assert!(hit, "{case}: it failed without a fault: {}", explain(error));
    }
    check_known(&line, &known, &case);
    // What was acknowledged after the fault must survive a power cut too.
    line.hold().host.cut_power();
    check_known(&line, &known, &case);
    workload(&disk, &line, &mut known).unwrap_or_else(|error| panic!("{case}, again: {}", explain(&error)));
    line.hold().host.cut_power();
    check_known(&line, &known, &case);
    check_whole(&disk, &line, &case);
    switches::make_small(false);
    hit
}

/// Operations and observations at the service, and messages, where nothing fails.
fn quiet_run() -> (u64, u64, u64) {
    switches::make_small(true);
    let (disk, line) = (SimDisk::new(0), Line::plain(0));
    let before = line.hold().host.disk.operations();
    let observed = line.hold().host.disk.observations();
    workload(&disk, &line, &mut Known::default()).unwrap();
    switches::make_small(false);
    let net = line.hold();
    (net.host.disk.operations() - before, net.host.disk.observations() - observed, net.counts.messages)
}

#[test]
fn every_operation_and_every_message_may_fail() {
    let (operations, observations, messages) = alone(quiet_run);
    let ways = ways();
    let all = operations * (ways.len() as u64 - 1) + observations;
    let stride = number("AGENT_TRACE_SIM_STRIDE", all.div_ceil(CASES));
    let mut events = Vec::new();
    for (number, way) in (0u64..).zip(&ways) {
        let end = if matches!(way, Way::Observe(_)) { observations } else { operations };
        let offset = number * stride / ways.len() as u64;
        events.extend(
            (offset..end).step_by(usize::try_from(stride).unwrap()).map(|at| Event::Operation(*way, at)),
        );
    }
    for message in 1..=messages {
        events.extend(FATES.iter().map(|fate| Event::Message(*fate, message, message * 31)));
    }
    let (next, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        alone(|| {
            while let Some(event) = events.get(next.fetch_add(1, Ordering::Relaxed)) {
                let ran = std::panic::catch_unwind(|| run_case(*event));
                let is_hit = ran.unwrap_or_else(|panic| crate::exhaustive::fail(event, panic.as_ref()));
                hits.fetch_add(usize::from(is_hit), Ordering::Relaxed);
            }
        });
    };
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let hits = hits.into_inner();
    eprintln!("{hits} of {} cases were hit, {messages} messages, stride {stride}", events.len());
    assert!(hits * 3 > events.len(), "most faults must hit");
}
