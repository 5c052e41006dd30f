//! Large segments of which a part is held back: the rest arrives, what is held back does not, and a push that is cut
//! sends nothing twice.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::frame::Unpacker;
use agent_trace_store::object::Objects;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::segment::{all_ids, all_names, read_frame};
use agent_trace_store::segments::Sealed;
use agent_trace_store::verify::verify;
use agent_trace_store::{Error, Kind, ObjectId, SegmentId, Store};
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::push::{PushOptions, PushReport, push};
use agent_trace_sync::remote::Remote;

mod support;

use support::{add, ledger, trace_id};

/// As many make a segment that is worth cutting.
const TRACES: u32 = 6_000;

fn trace(number: u32) -> Vec<u8> {
    // Digits that do not compress, as in real traces.
    let noise: String = (0..3u8)
        .map(|part| ObjectId::of(&[&number.to_le_bytes()[..], &[part]].concat()).to_string())
        .collect();
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"c-{number}"}}],"path":"src/f.rs"}}],"id":"{}","noise":"{noise}","timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        trace_id(number),
        number % 60
    )
    .into_bytes()
}

fn is_held(number: u32) -> bool {
    number % 10 == 7
}

/// A store with two segments of traces; a ledger names nine in ten of them.
fn world() -> SimDisk {
    let disk = SimDisk::new(5);
    let store = Store::init(&disk.env(), Path::new("/a")).unwrap();
    for part in 0..2 {
        add(&store, Kind::TRACE, (part * TRACES..(part + 1) * TRACES).map(trace));
        store.seal().unwrap();
    }
    let named = (0..2 * TRACES).filter(|number| !is_held(*number));
    add(&store, Kind::LEDGER, [ledger(1, named)]);
    disk
}

fn send(env: &Env, store: &Store, options: &PushOptions) -> Result<PushReport, Error> {
    push(
        store,
        &Remote::open(env, &RemoteUrl::parse("file:///remote", Plaintext::Loopback)?, true)?,
        options,
        &Silent,
    )
}

fn fetch(env: &Env, dir: &str) -> BTreeSet<ObjectId> {
    let store = Store::init(env, Path::new(dir)).unwrap();
    let remote =
        Remote::open(env, &RemoteUrl::parse("file:///remote", Plaintext::Loopback).unwrap(), false).unwrap();
    let report = pull(&store, &remote, &PullOptions::default(), &Silent).unwrap();
    assert_eq!((&report.refused, &report.forks), (&Vec::new(), &Vec::new()));
    assert_eq!(verify(&store, &Silent).unwrap().problems, Vec::new());
    let found = question::list(&store, &store.snapshot().unwrap(), &Query::default()).unwrap();
    found.iter().map(|found| found.record()).collect()
}

fn remote_segments(disk: &SimDisk) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        path.starts_with("/remote/segments") && !path.file_name().unwrap().to_string_lossy().starts_with('.')
    };
    disk.files().into_iter().filter(named).collect()
}

fn expected(wanted: impl Fn(u32) -> bool) -> BTreeSet<ObjectId> {
    let traces = (0..2 * TRACES).filter(|number| wanted(*number)).map(|number| ObjectId::of(&trace(number)));
    let first = ledger(1, (0..2 * TRACES).filter(|number| !is_held(*number)));
    traces.chain([ObjectId::of(&first)]).collect()
}

#[test]
fn nothing_of_what_is_held_back_leaves_and_the_rest_arrives() {
    let disk = world();
    let env = disk.env();
    let store = Store::open(&env, Path::new("/a")).unwrap();
    let report = send(&env, &store, &PushOptions::default()).unwrap();
    let held = u64::from(2 * TRACES / 10);
    assert_eq!(report.sent.get(&Kind::TRACE), Some(&(u64::from(2 * TRACES) - held)));
    assert_eq!(report.held_back.get(&Kind::TRACE), Some(&held));
    assert_eq!(report.segments, 3, "two that are cut, and one for the ledger");

    let mut objects = 0;
    for path in remote_segments(&disk) {
        let id = SegmentId::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let sealed = Sealed::open(&env, &path, id).unwrap();
        assert_eq!(agent_trace_store::log::hash_file(sealed.file.as_ref(), sealed.bytes).unwrap(), id);
        let names = all_names(sealed.file.as_ref(), &sealed.key, &sealed.directory).unwrap();
        assert!(names.iter().all(|name| name.event < sealed.directory.events));
        let ids = all_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory).unwrap();
        let ids: BTreeSet<ObjectId> = ids.iter().map(|entry| entry.id).collect();
        let mut there = 0;
        for offset in &sealed.directory.objects_frames {
            let frame = read_frame(sealed.file.as_ref(), &sealed.key, u64::from(*offset)).unwrap();
            let content = Objects::decode(frame.into_raw(&mut Unpacker::new()).unwrap()).unwrap();
            for slot in 0..content.len() {
                let (id, _) = content.get_with_id(slot).unwrap();
                assert!(ids.contains(&id), "the table lists what is there");
                there += 1;
            }
        }
        assert_eq!(there, ids.len());
        objects += there;
    }
    assert_eq!(objects as u64, u64::from(2 * TRACES) - held + 1);
    assert_eq!(fetch(&env, "/b"), expected(|number| !is_held(number)));

    add(&store, Kind::LEDGER, [ledger(2, (0..2 * TRACES).filter(|number| is_held(*number)))]);
    let report = send(&env, &store, &PushOptions::default()).unwrap();
    assert_eq!(report.sent.get(&Kind::TRACE), Some(&held));
    assert!(report.held_back.is_empty());
    assert!(fetch(&env, "/c").is_superset(&expected(|_| true)));
}

#[test]
fn what_arrived_before_a_push_was_cut_is_not_sent_again() {
    let disk = world();
    let mut case = 0;
    let mut taken_up = 0;
    loop {
        case += 5;
        let disk = disk.snapshot(case);
        let env = disk.env();
        let store = Store::open(&env, Path::new("/a")).unwrap();
        disk.crash_at(disk.operations() + case);
        let done = send(&env, &store, &PushOptions::default()).is_ok();
        drop(store);
        disk.clear_faults();
        if !disk.is_powered() {
            disk.restart();
        }
        let env = disk.env();
        let before = remote_segments(&disk);
        taken_up += u32::from(!done && !before.is_empty());
        let store = Store::open(&env, Path::new("/a")).unwrap();
        let report = send(&env, &store, &PushOptions::default()).unwrap();
        let after = remote_segments(&disk);
        assert!(before.iter().all(|path| after.contains(path)));
        assert_eq!(report.segments, (after.len() - before.len()) as u64);
        assert_eq!(after.len(), 3, "none was made twice, cut at {case}");
        if case % 4 == 0 || done {
            assert_eq!(fetch(&env, "/b"), expected(|number| !is_held(number)));
        }
        if done {
            break;
        }
    }
    assert!(taken_up > 0, "some push was cut after a segment had arrived");
}
