//! Every operation of one small workload fails once, in each way there is; nothing acknowledged is lost, and the same
//! workload, run again where nothing fails, comes to its end.
//!
//! The default walks with a stride, another offset for each way; `AGENT_TRACE_SIM_STRIDE=1` takes every step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::{FaultKind, Repeat, SimDisk};
use agent_trace_store::intake::Intake;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::verify::verify;
use agent_trace_store::{Error, Kind, ObjectId, Store, Timestamp};
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::push::{PushOptions, push};
use agent_trace_sync::remote::Remote;
use agent_trace_sync::seal::Access;
use agent_trace_tests::{MemoryFile, ledger, summary, trace};

use crate::check::Auditor;
use crate::exchange::address;
use crate::lens::secret;
use crate::world::{REMOTE, explain};
use crate::{alone, number};

const CASES: u64 = 700;
pub(crate) const FIRST: &str = "/home/first";
pub(crate) const SECOND: &str = "/home/second";

/// A way in which an operation fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    PowerCut,
    Fail(FaultKind, Repeat),
    Observe(FaultKind),
}

impl Way {
    /// Lets an operation of a disk fail so, counted from where it is now.
    pub(crate) fn set(self, disk: &SimDisk, at: u64, operations: u64, observations: u64) {
        match self {
            Way::PowerCut => disk.crash_at(operations + at),
            Way::Fail(kind, repeat) => disk.fail_at(operations + at, kind, repeat),
            Way::Observe(kind) => disk.fail_observation_at(observations + at, kind, Repeat::Once),
        }
    }
}

pub(crate) fn ways() -> Vec<Way> {
    let mut ways = vec![Way::PowerCut, Way::PowerCut, Way::Observe(FaultKind::Eio)];
    for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::ShortWrite, FaultKind::SyncFail] {
        ways.extend([Way::Fail(kind, Repeat::Once), Way::Fail(kind, Repeat::FromThenOn)]);
    }
    ways
}

pub(crate) fn batch(first: u64) -> BTreeMap<ObjectId, (Kind, Vec<u8>)> {
    let records = [
        (Kind::TRACE, trace(first, "conversation-1")),
        (Kind::TRACE, trace(first + 1, "conversation-1")),
        (Kind::LEDGER, ledger(first, &[first])),
        (Kind::SUMMARY, summary(first, "conversation-1")),
    ];
    records.into_iter().map(|(kind, bytes)| (ObjectId::of(&bytes), (kind, bytes))).collect()
}

/// What was acknowledged on the way.
#[derive(Default)]
struct Known {
    first: BTreeSet<ObjectId>,
    second: BTreeSet<ObjectId>,
}

pub(crate) fn append(store: &Store, records: &BTreeMap<ObjectId, (Kind, Vec<u8>)>) -> Result<(), Error> {
    let mut intake = Intake::new(store);
    for (kind, bytes) in records.values() {
        let about = facts(*kind, bytes)?;
        intake.record(*kind, bytes, &about, about.time.expect("records have times"), &[])?;
    }
    intake.finish().map(|_| ())
}

/// The record of a transcript.
pub(crate) fn transcript(conversation: &str, content: &[u8]) -> TranscriptRecord {
    TranscriptRecord {
        conversation_id: conversation.to_owned(),
        session_id: None,
        agent: None,
        content_sha256: String::new(),
        size: content.len() as u64,
        created_at: Timestamp::from_micros(1_770_000_000_000_000),
        source: None,
    }
}

/// Appends a transcript.
pub(crate) fn append_transcript(
    store: &Store,
    record: &TranscriptRecord,
    content: &[u8],
) -> Result<(), Error> {
    let mut intake = Intake::new(store);
    let body = intake.body(&MemoryFile(content.to_vec()), content.len() as u64, None)?;
    let record = TranscriptRecord { content_sha256: body.sha256.clone(), ..record.clone() };
    let bytes = record.encode();
    let about = facts(Kind::TRANSCRIPT, &bytes)?;
    intake.record(Kind::TRANSCRIPT, &bytes, &about, record.created_at, &[body.id])?;
    intake.finish().map(|_| ())
}

/// The remote, as the store in a directory opens it.
fn open(env: &Env, store: &str, create: bool, encrypted: bool) -> Result<Remote, Error> {
    let access = encrypted.then(|| Access { secret: secret(), cache: Path::new(store).join("remotes") });
    Remote::open_with(env, &address(), create, access.as_ref())
}

fn workload(env: &Env, known: &mut Known, encrypted: bool) -> Result<(), Error> {
    let first = Store::init(env, Path::new(FIRST))?;
    append(&first, &batch(0))?;
    known.first.extend(batch(0).into_keys());
    first.catch_up()?;
    first.seal()?;
    append(&first, &batch(100))?;
    known.first.extend(batch(100).into_keys());
    let full = PushOptions { full: true, ..PushOptions::default() };
    push(&first, &open(env, FIRST, true, encrypted)?, &full, &Silent)?;
    let second = Store::init(env, Path::new(SECOND))?;
    pull(&second, &open(env, SECOND, false, encrypted)?, &PullOptions::default(), &Silent)?;
    known.second.extend(known.first.iter().copied());
    Ok(())
}

/// Both stores hold what was acknowledged, by their raw bytes.
fn check_known(disk: &SimDisk, known: &Known, encrypted: bool, case: &str) {
    let mut auditor = Auditor::new(encrypted);
    for (dir, acked) in [(FIRST, &known.first), (SECOND, &known.second)] {
        let records = auditor.store(disk, Path::new(dir)).records();
        assert!(acked.is_subset(&records), "{case}: `{dir}` lost what was acknowledged");
    }
    if disk.read_file(&Path::new(REMOTE).join("format")).is_some() {
        let remote = auditor.remote(disk, Path::new(REMOTE), &BTreeSet::new());
        let mine = auditor.store(disk, Path::new(FIRST)).seats();
        assert!(remote.seats().iter().all(|(seat, id)| mine.get(seat) == Some(id)), "{case}: I6 is broken");
    }
}

/// Everything is there, reads back and verifies; pushing and pulling again moves nothing.
fn check_whole(disk: &SimDisk, encrypted: bool, case: &str) {
    let env = disk.env();
    let sound = |error: Error| -> ! { panic!("{case}: {}", explain(&error)) };
    let all: BTreeMap<ObjectId, (Kind, Vec<u8>)> = batch(0).into_iter().chain(batch(100)).collect();
    for dir in [FIRST, SECOND] {
        let store = Store::open(&env, Path::new(dir)).unwrap_or_else(|error| sound(error));
        let snapshot = store.snapshot().unwrap_or_else(|error| sound(error));
        let found = question::list(&store, &snapshot, &Query::default()).unwrap_or_else(|error| sound(error));
        assert_eq!(found.len(), all.len(), "{case}: `{dir}` lists all records, each once");
        for found in &found {
            let bytes = store.read(&found.record()).unwrap_or_else(|error| sound(error));
            assert!(bytes == all[&found.record()].1, "{case}: a record is read wrong");
        }
        let report = verify(&store, &Silent).unwrap_or_else(|error| sound(error));
        assert_eq!(report.problems, Vec::new(), "{case}: `{dir}` does not verify");
        let remote = open(&env, dir, false, encrypted).unwrap_or_else(|error| sound(error));
        let full = PushOptions { full: true, ..PushOptions::default() };
        let pushed = push(&store, &remote, &full, &Silent).unwrap_or_else(|error| sound(error));
        assert_eq!((pushed.segments, pushed.new_writer), (0, false), "{case}: nothing is left to push");
        let pulled =
            pull(&store, &remote, &PullOptions::default(), &Silent).unwrap_or_else(|error| sound(error));
        assert_eq!((pulled.taken.len(), pulled.refused.len()), (0, 0), "{case}: nothing is left to pull");
    }
}

/// Runs the workload with one fault; false if it ended before.
fn run_case(way: Way, at: u64, encrypted: bool) -> bool {
    let case = format!("{way:?} at operation {at}");
    let disk = SimDisk::new(at);
    way.set(&disk, at, 0, 0);
    let mut known = Known::default();
    let result = workload(&disk.env(), &mut known, encrypted);
    let hit = disk.faults_hit() > 0 || !disk.is_powered();
    if let Err(error) = &result {
        assert!(hit, "{case}: it failed without a fault: {}", explain(error));
    }
    disk.clear_faults();
    if !disk.is_powered() {
        disk.restart();
    }
    check_known(&disk, &known, encrypted, &case);
    // What was acknowledged after the fault must survive a power cut too.
    disk.crash();
    check_known(&disk, &known, encrypted, &case);
    let again = workload(&disk.env(), &mut known, encrypted);
    again.unwrap_or_else(|error| panic!("{case}, again: {}", explain(&error)));
    disk.crash();
    check_known(&disk, &known, encrypted, &case);
    check_whole(&disk, encrypted, &case);
    hit
}

/// Ends the test, and says which case failed.
pub(crate) fn fail(case: &dyn std::fmt::Debug, panic: &(dyn std::any::Any + Send)) -> ! {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text");
    eprintln!("{case:?}: {text}");
    panic!("{case:?}");
}

#[test]
fn every_operation_may_fail() {
    every_operation(false);
}

#[test]
fn every_operation_may_fail_where_the_remote_is_encrypted() {
    every_operation(true);
}

fn every_operation(encrypted: bool) {
    let quiet_run = || {
        let disk = SimDisk::new(0);
        workload(&disk.env(), &mut Known::default(), encrypted).unwrap();
        (disk.operations(), disk.observations())
    };
    let (operations, observations) = alone(quiet_run);
    let ways = ways();
    let all = operations * (ways.len() as u64 - 1) + observations;
    let stride = number("AGENT_TRACE_SIM_STRIDE", all.div_ceil(if encrypted { CASES / 2 } else { CASES }));
    let mut cases = Vec::new();
    for (number, way) in (0u64..).zip(&ways) {
        let end = if matches!(way, Way::Observe(_)) { observations } else { operations };
        let offset = number * stride / ways.len() as u64;
        cases.extend((offset..end).step_by(usize::try_from(stride).unwrap()).map(|at| (*way, at)));
    }
    let (next, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        alone(|| {
            while let Some((way, at)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Said here, since a panic in a thread of a pool may be told without its message.
                let ran = std::panic::catch_unwind(|| run_case(*way, *at, encrypted));
                if ran.unwrap_or_else(|panic| fail(&(*way, *at), panic.as_ref())) {
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    };
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let hits = hits.into_inner();
    eprintln!("{hits} of {} cases were hit, stride {stride}", cases.len());
    assert!(hits * 3 > cases.len(), "most faults must hit");
}
