//! The store from outside: what is appended comes back, after reopening too.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::intake::Intake;
use agent_trace_store::question::{self, Match, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::{Kind, ObjectId, Store, Timestamp};

fn trace(number: u32) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"c{:02}"}}],"path":"src/f{}.rs"}}],"id":"{number:08x}-0000-4000-8000-000000000000","metadata":{{"session_id":"s{}"}},"timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        number % 7, number % 5, number % 3, number % 60
    )
    .into_bytes()
}

fn append_traces(store: &Store, numbers: std::ops::Range<u32>) -> u64 {
    let mut intake = Intake::new(store);
    for number in numbers {
        let bytes = trace(number);
        let facts = facts(Kind::TRACE, &bytes).unwrap();
        intake.record(Kind::TRACE, &bytes, &facts, facts.time.unwrap(), &[]).unwrap();
    }
    intake.finish().unwrap().events
}

fn count(store: &Store, query: &Query) -> usize {
    question::list(store, &store.snapshot().unwrap(), query).unwrap().len()
}

fn check_all(env: &Env, records: u32) {
    let store = Store::open(env, Path::new("/s")).unwrap();
    assert_eq!(count(&store, &Query::default()), records as usize);
    for number in 0..records {
        let bytes = trace(number);
        assert_eq!(store.read(&ObjectId::of(&bytes)).unwrap(), bytes);
    }
    let snapshot = store.snapshot().unwrap();
    let session = Query { session: Some("s1".into()), ..Query::default() };
    assert_eq!(count(&store, &session), (0..records).filter(|n| n % 3 == 1).count());
    let path = Query { path: Some("src/f4.rs".into()), limit: Some(3), ..Query::default() };
    assert_eq!(count(&store, &path), 3);
    let found = question::resolve(&store, &snapshot, "00000003-0000-4000-8000-000000000000").unwrap();
    assert!(matches!(&found[..], [Match::Event(found)] if found.record() == ObjectId::of(&trace(3))));
    assert_eq!(question::resolve(&store, &snapshot, "00000003").unwrap().len(), 1);
    assert_eq!(
        question::resolve(&store, &snapshot, &ObjectId::of(&trace(5)).to_string()[..10]).unwrap().len(),
        1
    );
    let keys: Vec<String> =
        [7, 0, records - 1, records, 7].map(|n| format!("{n:08x}-0000-4000-8000-000000000000")).to_vec();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found = question::keyed(&store, &snapshot, Kind::TRACE, &keys).unwrap();
    for (key, found) in keys.iter().zip(&found) {
        let one = question::named(&store, &snapshot, key, false).unwrap();
        let ids = |found: &[question::Found]| found.iter().map(|found| found.id).collect::<Vec<_>>();
        assert_eq!(ids(found), ids(&one), "{key}");
    }
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 0, 1]);
    assert!(question::keyed(&store, &snapshot, Kind::LEDGER, &keys).unwrap().iter().all(Vec::is_empty));
    assert_eq!(store.held(&snapshot).unwrap().len(), u64::from(records));
}

#[test]
fn records_come_back_open_reopened_sealed_and_without_index() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let store = Store::init(&env, Path::new("/s")).unwrap();
    assert_eq!(append_traces(&store, 0..300), 300);
    assert_eq!(append_traces(&store, 0..310), 10);
    check_all(&env, 310);
    drop(store);
    check_all(&env, 310);
    let store = Store::open(&env, Path::new("/s")).unwrap();
    assert_eq!(append_traces(&store, 300..400), 90);
    check_all(&env, 400);
    store.seal().unwrap();
    check_all(&env, 400);
    assert_eq!(append_traces(&store, 300..410), 10);
    check_all(&env, 410);
    store.index().delete().unwrap();
    check_all(&env, 410);
}

#[test]
fn a_growing_transcript_comes_back_at_every_length() {
    let disk = SimDisk::new(2);
    let env = disk.env();
    let store = Store::init(&env, Path::new("/s")).unwrap();
    let mut intake = Intake::new(&store);
    let mut content: Vec<u8> = Vec::new();
    let mut bodies = Vec::new();
    let mut base = None;
    for step in 0u32..40 {
        for line in 0..200u32 {
            content.extend_from_slice(
                format!("{{\"step\":{step},\"line\":{}}}\n", line.wrapping_mul(2_654_435_761)).as_bytes(),
            );
        }
        if step == 20 {
            content[100] = b'X';
        }
        disk.write_file(Path::new("/t.jsonl"), &content);
        let file = env.fs.open(Path::new("/t.jsonl")).unwrap();
        let body = intake.body(file.as_ref(), content.len() as u64, base.as_ref()).unwrap();
        let record = TranscriptRecord {
            conversation_id: "c".into(),
            session_id: Some("s".into()),
            agent: None,
            content_sha256: body.sha256.clone(),
            size: body.bytes,
            created_at: Timestamp::from_micros(i64::from(step)),
            source: None,
        };
        let bytes = record.encode();
        let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap();
        intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
        bodies.push((body.id, content.clone()));
        base = Some(body.base);
        if step % 8 == 7 {
            intake.append().unwrap();
        }
    }
    intake.finish().unwrap();
    store.catch_up().unwrap();
    for (id, content) in bodies {
        assert_eq!(id, ObjectId::of(&content));
        assert!(store.read(&id).unwrap() == content);
    }
}

#[test]
fn compaction_keeps_everything_and_a_second_one_has_nothing_to_do() {
    use agent_trace_store::compact;
    use agent_trace_store::progress::Silent;
    let disk = SimDisk::new(4);
    let env = disk.env();
    let store = Store::init(&env, Path::new("/s")).unwrap();
    for part in 0..6 {
        append_traces(&store, part * 50..part * 50 + 60);
        store.seal().unwrap();
    }
    append_traces(&store, 310..320);
    let plan = compact::plan(&store).unwrap();
    assert_eq!(plan.events, 320);
    let report = compact::execute(&store, &plan, &Silent).unwrap();
    assert!(report.bytes_after < report.bytes_before, "{report:?}");
    assert_eq!(report.segments, 1);
    check_all(&env, 320);
    assert_eq!(compact::plan(&store).unwrap().segments, 0);
    append_traces(&store, 320..330);
    check_all(&env, 330);
    let plan = compact::plan(&store).unwrap();
    assert_eq!((plan.segments, plan.events), (1, 10));
    compact::execute(&store, &plan, &Silent).unwrap();
    check_all(&env, 330);
}
