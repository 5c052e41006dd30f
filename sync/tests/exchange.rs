//! Stores that exchange through a folder: all arrives, once, from everywhere, and what is held back goes later.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::intake::Intake;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Store, Timestamp};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::gate::{Gate, each_event};
use agent_trace_sync::pull::{PullOptions, PullReport, pull};
use agent_trace_sync::push::{PushOptions, PushReport, push, push_through};
use agent_trace_sync::remote::Remote;

mod support;

use support::{add, ledger, trace_id};

fn trace(number: u32) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"conversation-{number}"}}],"path":"src/f.rs"}}],"id":"{}","timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        trace_id(number),
        number % 60
    )
    .into_bytes()
}

fn add_transcript(disk: &SimDisk, store: &Store, conversation: &str, content: &[u8]) -> ObjectId {
    disk.write_file(Path::new("/t.jsonl"), content);
    let file = store.env().fs.open(Path::new("/t.jsonl")).unwrap();
    let mut intake = Intake::new(store);
    let body = intake.body(file.as_ref(), content.len() as u64, None).unwrap();
    let record = TranscriptRecord {
        conversation_id: conversation.into(),
        session_id: None,
        agent: None,
        content_sha256: body.sha256.clone(),
        size: body.bytes,
        created_at: Timestamp::from_micros(7),
        source: None,
    };
    let bytes = record.encode();
    let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap();
    intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
    intake.finish().unwrap();
    store.catch_up().unwrap();
    body.id
}

fn send(env: &Env, store: &Store, at: &str, options: &PushOptions) -> PushReport {
    let address = RemoteUrl::Folder(at.into());
    push(store, &Remote::open(env, &address, true).unwrap(), options, &Silent).unwrap()
}

fn full() -> PushOptions {
    PushOptions { full: true, ..PushOptions::default() }
}

fn fetch(env: &Env, store: &Store, at: &str) -> PullReport {
    let address = RemoteUrl::Folder(at.into());
    let remote = Remote::open(env, &address, false).unwrap();
    let report = pull(store, &remote, &PullOptions::default(), &Silent).unwrap();
    assert_eq!((&report.refused, &report.forks), (&Vec::new(), &Vec::new()));
    report
}

fn records(store: &Store) -> Vec<ObjectId> {
    let mut ids: Vec<ObjectId> = question::list(store, &store.snapshot().unwrap(), &Query::default())
        .unwrap()
        .iter()
        .map(|found| found.record())
        .collect();
    ids.sort_unstable();
    ids
}

fn world(names: &[&str]) -> (SimDisk, Env, Vec<Store>) {
    let disk = SimDisk::new(3);
    let env = disk.env();
    let stores = names.iter().map(|name| Store::init(&env, Path::new(name)).unwrap()).collect();
    (disk, env, stores)
}

#[test]
fn two_stores_converge_through_a_folder() {
    let (_disk, env, stores) = world(&["/a", "/b"]);
    add(&stores[0], Kind::TRACE, (0..500).map(trace));
    add(&stores[1], Kind::TRACE, (400..700).map(trace));
    let first = send(&env, &stores[0], "/remote", &full());
    assert_eq!(first.sent.values().sum::<u64>(), 500);
    send(&env, &stores[1], "/remote", &full());
    assert_eq!(fetch(&env, &stores[0], "/remote").taken.values().sum::<u64>(), 300);
    assert_eq!(fetch(&env, &stores[1], "/remote").taken.values().sum::<u64>(), 500);
    assert_eq!(records(&stores[0]), records(&stores[1]));
    assert_eq!(records(&stores[0]).len(), 700);
    for store in &stores {
        let again = send(&env, store, "/remote", &full());
        assert_eq!((again.sent.len(), again.segments), (0, 0), "an unchanged push sends nothing");
        assert!(again.requests < 12, "{}", again.requests);
        assert_eq!(fetch(&env, store, "/remote").segments, 0);
    }
}

#[test]
fn a_relay_keeps_the_origin_of_every_event() {
    let (_disk, env, stores) = world(&["/a", "/b", "/c"]);
    add(&stores[0], Kind::TRACE, (0..50).map(trace));
    send(&env, &stores[0], "/first", &full());
    fetch(&env, &stores[1], "/first");
    add(&stores[1], Kind::TRACE, (50..60).map(trace));
    send(&env, &stores[1], "/second", &full());
    fetch(&env, &stores[2], "/second");
    assert_eq!(records(&stores[2]).len(), 60);
    let held = stores[2].held(&stores[2].snapshot().unwrap()).unwrap();
    assert_eq!(held.log(&stores[0].writer()).unwrap().len(), 50);
    assert_eq!(held.log(&stores[1].writer()).unwrap().len(), 10);
}

#[test]
fn a_plain_push_holds_back_what_nothing_names_and_sends_it_once_something_does() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let store = &stores[0];
    add(store, Kind::TRACE, (0..20).map(trace));
    let body = add_transcript(&disk, store, "conversation-3", &b"{\"line\":1}\n".repeat(9_000));
    add(store, Kind::LEDGER, [ledger(1, [0, 1, 2])]);
    let report = send(&env, store, "/remote", &PushOptions::default());
    assert_eq!(report.sent.get(&Kind::TRACE), Some(&3));
    assert_eq!(report.sent.get(&Kind::LEDGER), Some(&1));
    assert_eq!(report.held_back.get(&Kind::TRACE), Some(&17));
    assert_eq!(report.held_back.get(&Kind::TRANSCRIPT), Some(&1));
    let report = send(&env, store, "/remote", &PushOptions::default());
    assert_eq!((report.sent.len(), report.held_back.get(&Kind::TRACE)), (0, Some(&17)));
    add(store, Kind::LEDGER, [ledger(2, [3, 4])]);
    let report = send(&env, store, "/remote", &PushOptions::default());
    assert_eq!(report.sent.get(&Kind::TRACE), Some(&2));
    assert_eq!(
        report.sent.get(&Kind::TRANSCRIPT),
        Some(&1),
        "the transcript follows the trace that names it"
    );
    assert_eq!(report.held_back.get(&Kind::TRACE), Some(&15));
    assert_eq!(fetch(&env, &stores[1], "/remote").taken.values().sum::<u64>(), 8);
    assert_eq!(stores[1].read(&body).unwrap(), b"{\"line\":1}\n".repeat(9_000));
    let report = send(&env, store, "/remote", &full());
    assert_eq!(report.sent.get(&Kind::TRACE), Some(&15));
    assert!(report.held_back.is_empty());
}

#[test]
fn a_pulled_ledger_frees_what_was_held_back() {
    let (_disk, env, stores) = world(&["/a", "/b"]);
    add(&stores[0], Kind::TRACE, (0..3).map(trace));
    assert_eq!(send(&env, &stores[0], "/remote", &PushOptions::default()).sent.len(), 0);
    add(&stores[1], Kind::LEDGER, [ledger(1, [2])]);
    send(&env, &stores[1], "/remote", &PushOptions::default());
    fetch(&env, &stores[0], "/remote");
    let report = send(&env, &stores[0], "/remote", &PushOptions::default());
    assert_eq!(report.sent.get(&Kind::TRACE), Some(&1));
}

#[test]
fn filters_skip_for_now_and_a_later_plain_push_sends_the_rest() {
    let (_disk, env, stores) = world(&["/a"]);
    let store = &stores[0];
    add(store, Kind::TRACE, (0..4).map(trace));
    add(store, Kind::LEDGER, [ledger(1, [0, 1])]);
    let only = PushOptions { only: vec![Kind::LEDGER], ..PushOptions::default() };
    let report = send(&env, store, "/remote", &only);
    assert_eq!((report.sent.get(&Kind::LEDGER), report.sent.get(&Kind::TRACE)), (Some(&1), None));
    let report = send(&env, store, "/remote", &PushOptions::default());
    assert_eq!(report.sent.get(&Kind::TRACE), Some(&2));
}

#[test]
fn a_copied_store_takes_a_new_writer() {
    let (disk, env, stores) = world(&["/a"]);
    add(&stores[0], Kind::TRACE, (0..5).map(trace));
    disk.copy_tree(Path::new("/a"), Path::new("/copy")).unwrap();
    let copy = Store::open(&env, Path::new("/copy")).unwrap();
    assert_ne!(copy.writer(), stores[0].writer());
    add(&copy, Kind::TRACE, (5..8).map(trace));
    add(&stores[0], Kind::TRACE, (8..11).map(trace));
    send(&env, &stores[0], "/remote", &full());
    send(&env, &copy, "/remote", &full());
    fetch(&env, &stores[0], "/remote");
    assert_eq!(records(&stores[0]).len(), 11);
}

#[test]
fn a_store_that_was_moved_by_copying_still_pushes_what_it_had() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    add(&stores[0], Kind::TRACE, (0..5).map(trace));
    disk.copy_tree(Path::new("/a"), Path::new("/moved")).unwrap();
    let moved = Store::open(&env, Path::new("/moved")).unwrap();
    assert_eq!(send(&env, &moved, "/remote", &full()).sent.get(&Kind::TRACE), Some(&5));
    assert_eq!(fetch(&env, &stores[1], "/remote").taken.values().sum::<u64>(), 5);
}

#[test]
fn a_restored_store_replaces_nothing_and_goes_on_under_a_new_writer() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    add(&stores[0], Kind::TRACE, (0..5).map(trace));
    send(&env, &stores[0], "/remote", &full());
    // What a backup of that moment holds.
    let saved: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with("/a"))
        .map(|path| (disk.read_file(&path).unwrap(), path))
        .collect();
    add(&stores[0], Kind::TRACE, (5..8).map(trace));
    send(&env, &stores[0], "/remote", &full());
    let writer = stores[0].writer();
    drop(stores);
    for path in disk.files().into_iter().filter(|path| path.starts_with("/a")) {
        disk.remove_file(&path);
    }
    for (content, path) in saved {
        disk.write_file(&path, &content);
    }
    let restored = Store::open(&env, Path::new("/a")).unwrap();
    assert_eq!(restored.writer(), writer, "nothing shows yet that it was restored");
    add(&restored, Kind::TRACE, (8..9).map(trace));
    let report = send(&env, &restored, "/remote", &full());
    assert!(report.new_writer);
    assert_ne!(restored.writer(), writer);
    let other = Store::open(&env, Path::new("/b")).unwrap();
    let address = RemoteUrl::Folder("/remote".into());
    let remote = Remote::open(&env, &address, false).unwrap();
    pull(&other, &remote, &PullOptions::default(), &Silent).unwrap();
    assert!(records(&other).len() >= 8, "what was pushed before the backup was restored is still there");
}

#[test]
fn a_fork_is_reported_and_both_sides_are_kept() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    add(&stores[0], Kind::TRACE, (0..5).map(trace));
    let saved: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with("/a"))
        .map(|path| (disk.read_file(&path).unwrap(), path))
        .collect();
    add(&stores[0], Kind::TRACE, (5..8).map(trace));
    send(&env, &stores[0], "/first", &full());
    for path in disk.files().into_iter().filter(|path| path.starts_with("/a")) {
        disk.remove_file(&path);
    }
    for (content, path) in saved {
        disk.write_file(&path, &content);
    }
    // The same writer, restored in place, gives the same seqs to other events, and tells another remote of them.
    let restored = Store::open(&env, Path::new("/a")).unwrap();
    add(&restored, Kind::TRACE, (10..13).map(trace));
    send(&env, &restored, "/second", &full());
    let store = &stores[1];
    fetch(&env, store, "/first");
    let remote = Remote::open(&env, &RemoteUrl::Folder("/second".into()), false).unwrap();
    let report = pull(store, &remote, &PullOptions::default(), &Silent).unwrap();
    assert_eq!(report.forks.len(), 1, "{:?}", report.forks);
    let ids = records(store);
    for number in (0..8).chain(10..13) {
        assert!(ids.contains(&ObjectId::of(&trace(number))), "{number}");
    }
}

/// Bytes that do not compress.
fn noise(seed: u32, bytes: u32) -> Vec<u8> {
    let mixed = |number: u32| {
        let mixed = (number ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761);
        (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519) ^ (mixed >> 13)
    };
    (0..bytes / 4).flat_map(|number| mixed(number).to_le_bytes()).collect()
}

#[test]
fn what_a_compaction_has_put_apart_goes_together() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    for conversation in 0..4 {
        add_transcript(
            &disk,
            &stores[0],
            &format!("conversation-{conversation}"),
            &noise(conversation, 10 << 20),
        );
    }
    let plan = agent_trace_store::compact::plan(&stores[0]).unwrap();
    agent_trace_store::compact::execute(&stores[0], &plan, &Silent).unwrap();
    let alone = |sealed: &std::sync::Arc<agent_trace_store::segments::Sealed>| sealed.directory.events == 0;
    assert!(stores[0].refresh().unwrap().sealed.iter().any(alone), "a segment of bytes without events");
    send(&env, &stores[0], "/remote", &full());
    fetch(&env, &stores[1], "/remote");
    assert_eq!(records(&stores[0]), records(&stores[1]));
    assert_eq!(records(&stores[1]).len(), 4);
}

#[test]
fn what_two_conversations_share_goes_with_the_one_that_is_sent() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let shared = noise(1, 1 << 20);
    add_transcript(&disk, &stores[0], "held-back", &shared);
    stores[0].seal().unwrap();
    add(&stores[0], Kind::TRACE, [trace(1)]);
    add(&stores[0], Kind::LEDGER, [ledger(1, [1])]);
    let mut forked = shared.clone();
    forked.extend_from_slice(b"and more");
    add_transcript(&disk, &stores[0], "conversation-1", &forked);
    stores[0].seal().unwrap();
    let report = send(&env, &stores[0], "/remote", &PushOptions::default());
    assert_eq!((report.sent.values().sum::<u64>(), report.held_back.values().sum::<u64>()), (3, 1));
    fetch(&env, &stores[1], "/remote");
    assert_eq!(records(&stores[1]).len(), 3);
}

/// Notes which traces would leave, and refuses.
#[derive(Default)]
struct Closed(std::cell::RefCell<Vec<Vec<String>>>);

impl Gate for Closed {
    fn ask(&self, store: &Store, leaving: &EventSet) -> agent_trace_store::Result<()> {
        let mut keys = Vec::new();
        each_event(store, leaving, &mut |laid, _| {
            keys.push(laid.key.to_owned());
            Ok(())
        })?;
        assert_eq!(keys.len() as u64, leaving.len());
        self.0.borrow_mut().push(keys);
        Err(Error::new(ErrorKind::Refused, "not this"))
    }
}

#[test]
fn a_gate_is_asked_for_all_that_would_leave_before_any_of_it_does() {
    let (_disk, env, stores) = world(&["/a", "/b"]);
    let store = &stores[0];
    add(store, Kind::TRACE, (0..30).map(trace));
    let through = |gate: &dyn Gate| {
        let address = RemoteUrl::Folder("/remote".into());
        push_through(store, &Remote::open(&env, &address, true).unwrap(), &full(), gate, &Silent)
    };
    let segments = || env.fs.list(Path::new("/remote/segments")).unwrap().len();
    for _ in 0..2 {
        let gate = Closed::default();
        assert_eq!(through(&gate).unwrap_err().kind(), ErrorKind::Refused);
        let asked = gate.0.into_inner();
        assert_eq!((asked.len(), asked[0].len()), (1, 30));
        assert_eq!(segments(), 0, "nothing has left");
    }
    send(&env, store, "/remote", &full());
    // Only what is new is asked about.
    add(store, Kind::TRACE, (30..35).map(trace));
    let gate = Closed::default();
    through(&gate).unwrap_err();
    assert_eq!(gate.0.into_inner()[0].len(), 5);
    assert_eq!(fetch(&env, &stores[1], "/remote").taken.values().sum::<u64>(), 30);
    send(&env, store, "/remote", &full());
    let gate = Closed::default();
    let _ = through(&gate);
    assert!(gate.0.into_inner().iter().flatten().next().is_none(), "nothing is left to ask about");
}
