//! The power is cut, or an operation fails, at every operation of one small workload: what was acknowledged is there,
//! nothing is half visible, and the same workload comes to its end when it is run again.

use std::path::Path;

use agent_trace_store::env::sim::{FaultKind, Repeat, SimDisk};
use agent_trace_store::{Error, Kind, ObjectId};
use agent_trace_sync::service::archive::{Archive, Item, Resource, Staging};
use agent_trace_sync::service::embedded::ProjectArchive;

use crate::client::{Client, batch, ledger, lines, noise, sha256, token, traces};
use crate::{PROJECT, check_positions, open};

/// Steps that are walked over, so that a run of all tests stays short; `AGENT_TRACE_SIM_STRIDE=1` takes every one.
fn stride() -> u64 {
    std::env::var("AGENT_TRACE_SIM_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

/// What was acknowledged on the way.
#[derive(Default)]
struct Known {
    steps: Vec<u32>,
    position: u64,
}

/// The stores that push are made once, on a disk that does not fail.
struct Pushed {
    disk: SimDisk,
    small: Client,
    large: Client,
}

fn pushed() -> Pushed {
    let disk = SimDisk::new(31);
    let mut small = Client::new(&disk, "/small");
    small.add(Kind::TRACE, traces(100..110));
    small.add_transcript("c", &lines(1, 60_000)[..50_000]);
    small.add_transcript("c", &lines(1, 60_000));
    let mut large = Client::new(&disk, "/large");
    large.add_transcript("l", &noise(2, (4 << 20) + 100_000));
    large.add(Kind::TRACE, traces(200..203));
    Pushed { disk, small, large }
}

fn push(archive: &ProjectArchive, client: &Client, batch: u8) -> Result<(), Error> {
    let segments = client.segments();
    for id in &segments {
        let bytes = client.read(id);
        let mut at = archive.uploaded(&token(), id)?;
        while at < bytes.len() as u64 {
            let from = usize::try_from(at).unwrap();
            let to = bytes.len().min(from + (3 << 20));
            at = archive.upload(&token(), id, at, &bytes[from..to])?;
        }
    }
    let committed = archive.commit(&token(), &[batch; 16], &segments, &[client.tip()])?;
    assert_eq!(committed.refused, Vec::<String>::new());
    Ok(())
}

fn workload(archive: &ProjectArchive, pushed: &Pushed, known: &mut Known) -> Result<(), Error> {
    let mut done = |step: u32, archive: &ProjectArchive| {
        known.steps.push(step);
        known.position = archive.reach().unwrap().position;
    };
    archive.put(&token(), Resource::Traces, &batch(traces(0..5)))?;
    done(0, archive);
    push(archive, &pushed.small, 1)?;
    done(1, archive);
    let text = lines(3, 30_000);
    archive.stage(&token(), &mut text.as_slice(), 1 << 20)?;
    let sha = ObjectId::from_bytes(sha256(&text));
    let pointer = format!(r#"{{"conversation_id":"v1","content_sha256":"{sha}"}}"#);
    archive.put(&token(), Resource::Conversations, &[Item { json: pointer.into_bytes() }])?;
    done(2, archive);
    push(archive, &pushed.large, 2)?;
    done(3, archive);
    archive.put(&token(), Resource::Ledgers, &batch([ledger(1, "2026-02-01T00:00:00Z", &[1])]))?;
    done(4, archive);
    Ok(())
}

/// How many records of each step are visible.
fn visible(archive: &ProjectArchive) -> [usize; 5] {
    let one = |resource, key: &str| usize::from(archive.one(resource, key).unwrap().is_some());
    let traces = |range: std::ops::Range<u32>| {
        range.map(|number| one(Resource::Traces, &crate::client::trace_id(number))).sum::<usize>()
    };
    [
        traces(0..5),
        traces(100..110) + one(Resource::Conversations, "c"),
        one(Resource::Conversations, "v1"),
        traces(200..203) + one(Resource::Conversations, "l"),
        one(Resource::Ledgers, &format!("{:040x}", 1)),
    ]
}

const WHOLE: [usize; 5] = [5, 11, 1, 4, 1];

fn check(disk: &SimDisk, known: &Known, case: &str) {
    let archive = ProjectArchive::open(&disk.env(), Path::new(PROJECT))
        .unwrap_or_else(|error| panic!("{case}: {}", explain(&error)));
    let seen = visible(&archive);
    for (step, (seen, whole)) in seen.iter().zip(WHOLE).enumerate() {
        assert!(*seen == 0 || *seen == whole, "{case}: step {step} is half visible: {seen} of {whole}");
    }
    for step in &known.steps {
        let index = usize::try_from(*step).unwrap();
        assert_eq!(seen[index], WHOLE[index], "{case}: step {step} was acknowledged and is not there");
    }
    check_positions(&archive);
    assert!(archive.reach().unwrap().position >= known.position, "{case}: positions went back");
    let mut client = Client::new(disk, "/checker");
    client.pull(&archive, 0);
    let rows: usize = [Resource::Traces, Resource::Ledgers]
        .into_iter()
        .map(|resource| archive.page(resource, None, 1000).unwrap().len())
        .sum();
    let records = client.records().len();
    let transcripts = client.transcripts().len();
    assert_eq!(rows, records - transcripts, "{case}: both protocols show the same");
}

fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn finish(disk: &SimDisk, pushed: &Pushed, case: &str) {
    let archive = open(disk);
    workload(&archive, pushed, &mut Known::default())
        .unwrap_or_else(|error| panic!("{case}: {}", explain(&error)));
    assert_eq!(visible(&archive), WHOLE, "{case}");
    check_positions(&archive);
    assert_eq!(archive.reach().unwrap().position, 5 + 12 + 1 + 4 + 1, "{case}: nothing is there twice");
}

fn operations(pushed: &Pushed) -> u64 {
    let disk = pushed.disk.snapshot(1);
    let before = disk.operations();
    workload(&open(&disk), pushed, &mut Known::default()).unwrap();
    disk.operations() - before
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let pushed = pushed();
    let count = operations(&pushed);
    let mut cuts = 0;
    for step in (0..count).step_by(usize::try_from(stride()).unwrap()) {
        let case = format!("cut at operation {step} of {count}");
        let disk = pushed.disk.snapshot(step + 100);
        disk.crash_at(disk.operations() + step);
        let mut known = Known::default();
        let run = ProjectArchive::open(&disk.env(), Path::new(PROJECT))
            .and_then(|archive| workload(&archive, &pushed, &mut known));
        cuts += u64::from(run.is_err());
        if !disk.is_powered() {
            disk.restart();
        }
        // Steps of the check are not to be cut.
        disk.clear_faults();
        check(&disk, &known, &case);
        finish(&disk, &pushed, &case);
    }
    assert!(cuts * stride() + 2 * stride() > count / 2, "{cuts} of {count}");
}

#[test]
fn a_failure_of_any_operation_is_survived_without_a_restart() {
    let pushed = pushed();
    let count = operations(&pushed);
    let kinds = [FaultKind::Eio, FaultKind::Enospc, FaultKind::ShortWrite, FaultKind::SyncFail];
    for step in (0..count).step_by(usize::try_from(stride()).unwrap()) {
        let kind = kinds[usize::try_from(step / stride() % 4).unwrap()];
        let case = format!("{kind:?} at operation {step} of {count}");
        let disk = pushed.disk.snapshot(step + 900);
        disk.fail_at(disk.operations() + step, kind, Repeat::Once);
        let mut known = Known::default();
        let Ok(archive) = ProjectArchive::open(&disk.env(), Path::new(PROJECT)) else {
            disk.clear_faults();
            finish(&disk, &pushed, &case);
            continue;
        };
        let _ = workload(&archive, &pushed, &mut known);
        disk.clear_faults();
        // The same service goes on.
        workload(&archive, &pushed, &mut known).unwrap_or_else(|error| panic!("{case}: {}", explain(&error)));
        assert_eq!(visible(&archive), WHOLE, "{case}");
        drop(archive);
        check(&disk, &known, &case);
        finish(&disk, &pushed, &case);
    }
}

#[test]
fn a_project_answers_again_when_what_failed_for_a_while_is_over() {
    let pushed = pushed();
    let count = operations(&pushed);
    for step in (0..count).step_by(usize::try_from(4 * stride()).unwrap()) {
        let case = format!("failing from operation {step} of {count}");
        let disk = pushed.disk.snapshot(step + 700);
        let archive = open(&disk);
        disk.fail_at(disk.operations() + step, FaultKind::Eio, Repeat::FromThenOn);
        let _ = workload(&archive, &pushed, &mut Known::default());
        // Opening anew fails too.
        let _ = workload(&archive, &pushed, &mut Known::default());
        disk.clear_faults();
        archive.arrivals(0).unwrap_or_else(|error| panic!("{case}: {}", explain(&error)));
        let again = workload(&archive, &pushed, &mut Known::default());
        again.unwrap_or_else(|error| panic!("{case}: {}", explain(&error)));
        assert_eq!(visible(&archive), WHOLE, "{case}");
    }
}

#[test]
fn a_commit_that_was_begun_is_finished_days_later() {
    let pushed = pushed();
    let count = operations(&pushed);
    for step in (0..count).step_by(usize::try_from(stride()).unwrap()) {
        let case = format!("cut at operation {step} of {count}");
        let disk = pushed.disk.snapshot(step + 300);
        disk.crash_at(disk.operations() + step);
        let mut known = Known::default();
        let run = ProjectArchive::open(&disk.env(), Path::new(PROJECT));
        let _ = run.and_then(|archive| workload(&archive, &pushed, &mut known));
        if !disk.is_powered() {
            disk.restart();
        }
        disk.clear_faults();
        disk.advance(3 * 86_400_000_000);
        check(&disk, &known, &case);
        finish(&disk, &pushed, &case);
    }
}
