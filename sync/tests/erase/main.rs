//! What is erased on one machine goes from the remote and from every other store, and does not come back.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::erase::{self, Wanted};
use agent_trace_store::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, Frame, FrameHeader, FrameKind, Unpacker};
use agent_trace_store::intake::{Base, Intake};
use agent_trace_store::progress::Silent;
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::verify::verify;
use agent_trace_store::{Kind, ObjectId, Store, Timestamp};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::pull::{PullOptions, PullReport, pull};
use agent_trace_sync::push::{PushOptions, PushReport, push};
use agent_trace_sync::remote::Remote;

mod worlds;

fn secret(number: u32) -> String {
    format!("secret{:016x}", u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn record(store: &Store, kind: Kind, bytes: &[u8], bodies: &[ObjectId]) -> u64 {
    let mut intake = Intake::new(store);
    let facts = facts(kind, bytes).unwrap();
    intake.record(kind, bytes, &facts, facts.time.unwrap(), bodies).unwrap();
    intake.finish().unwrap().events
}

fn trace(number: u32, conversation: &str) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"{conversation}"}}],"path":"f.rs"}}],"id":"{number:08x}-0000-4000-8000-000000000000","note":"{}","timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        secret(number),
        number % 60
    )
    .into_bytes()
}

fn add_trace(store: &Store, number: u32, conversation: &str) {
    record(store, Kind::TRACE, &trace(number, conversation), &[]);
}

fn content(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let noise = |number: u32, n: u64| {
        format!("{:x}", (u64::from(number) * 41 + n).wrapping_mul(0xd134_2543_de82_ef95))
    };
    let line = |number: u32| {
        let noise: String = (0..40).map(|n| noise(number, n)).collect();
        format!("{{\"text\":\"{}\",\"noise\":\"{noise}\"}}\n", secret(number)).into_bytes()
    };
    numbers.flat_map(line).collect()
}

fn add_transcript(
    disk: &SimDisk,
    store: &Store,
    conversation: &str,
    numbers: std::ops::Range<u32>,
    base: Option<&Base>,
) -> (ObjectId, Base) {
    let content = content(numbers);
    disk.write_file(Path::new("/t.jsonl"), &content);
    let file = store.env().fs.open(Path::new("/t.jsonl")).unwrap();
    let mut intake = Intake::new(store);
    let body = intake.body(file.as_ref(), content.len() as u64, base).unwrap();
    intake.append().unwrap();
    disk.remove_file(Path::new("/t.jsonl"));
    let said = TranscriptRecord {
        conversation_id: conversation.into(),
        session_id: None,
        agent: None,
        content_sha256: body.sha256.clone(),
        size: body.bytes,
        created_at: Timestamp::from_micros(i64::try_from(content.len()).unwrap()),
        source: None,
    };
    record(store, Kind::TRANSCRIPT, &said.encode(), &[body.id]);
    (body.id, body.base)
}

/// Which secrets stand below a folder, as they are or in a frame.
fn found(disk: &SimDisk, below: &str) -> BTreeSet<u32> {
    let files = disk.files().into_iter().filter(|path| path.starts_with(below));
    files.flat_map(|path| found_in(&disk.read_file(&path).unwrap())).collect()
}

/// Which secrets stand in some bytes, as they are or in a frame.
fn found_in(bytes: &[u8]) -> BTreeSet<u32> {
    let mut all = bytes.to_vec();
    for at in memchr::memmem::find_iter(bytes, &FRAME_MAGIC) {
        all.extend(decoded(&bytes[at..]).unwrap_or_default());
    }
    let hits = memchr::memmem::find_iter(&all, b"secret");
    let words: BTreeSet<&[u8]> = hits.filter_map(|at| all.get(at..at + 22)).collect();
    words.into_iter().filter_map(number_of).collect()
}

/// Whose secret it is.
fn number_of(word: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(word.get(6..)?).ok()?;
    let mixed = u64::from_str_radix(digits, 16).ok()?;
    // The inverse of the factor that spreads the numbers.
    let number = mixed.wrapping_mul(0xf1de_83e1_9937_733d).wrapping_sub(1);
    u32::try_from(number).ok().filter(|number| secret(*number).as_bytes() == word)
}

/// What a compressed frame holds that starts here, if one does.
fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = FrameHeader::decode(bytes.get(..FRAME_HEADER_BYTES)?.try_into().ok()?).ok()?;
    let end = usize::try_from(header.file_bytes()).ok()?;
    let stored = bytes.get(FRAME_HEADER_BYTES..end)?.to_vec();
    let frame = Frame {
        kind: FrameKind::Objects,
        compressed: bytes[5] == 1,
        raw_bytes: u32::from_le_bytes(bytes.get(12..16)?.try_into().ok()?),
        stored,
    };
    frame.into_raw(&mut Unpacker::new()).ok()
}

fn send(env: &Env, store: &Store) -> PushReport {
    let address = RemoteUrl::Folder("/remote".into());
    let options = PushOptions { full: true, ..PushOptions::default() };
    let report = push(store, &Remote::open(env, &address, true).unwrap(), &options, &Silent).unwrap();
    assert_eq!((&report.refused, &report.forks), (&Vec::new(), &Vec::new()));
    report
}

fn fetch(env: &Env, store: &Store) -> PullReport {
    let address = RemoteUrl::Folder("/remote".into());
    let remote = Remote::open(env, &address, false).unwrap();
    let report = pull(store, &remote, &PullOptions::default(), &Silent).unwrap();
    assert_eq!((&report.refused, &report.forks), (&Vec::new(), &Vec::new()));
    report
}

fn erase_conversation(store: &Store, conversation: &str) {
    let mut wanted = Wanted::default();
    wanted.add_conversation(store, &store.snapshot().unwrap(), conversation).unwrap();
    let plan = erase::plan(store, &wanted).unwrap();
    erase::execute(store, &plan, None, &Silent).unwrap();
}

fn erase_object(store: &Store, id: ObjectId) {
    let plan = erase::plan(store, &Wanted { named: BTreeSet::from([id]), ..Wanted::default() }).unwrap();
    erase::execute(store, &plan, None, &Silent).unwrap();
}

fn sound(stores: &[&Store]) {
    for store in stores {
        let report = verify(store, &Silent).unwrap();
        assert_eq!(report.problems, [], "{}", store.dir().display());
    }
}

fn world(names: &[&str]) -> (SimDisk, Env, Vec<Store>) {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let stores = names.iter().map(|name| Store::init(&env, Path::new(name)).unwrap()).collect();
    (disk, env, stores)
}

fn range(range: std::ops::Range<u32>) -> BTreeSet<u32> {
    range.collect()
}

#[test]
fn an_erase_travels_and_the_bytes_go_everywhere() {
    let (disk, env, stores) = world(&["/a", "/b", "/c"]);
    let [a, b, c] = &stores[..] else { unreachable!() };
    (0..10).for_each(|number| add_trace(a, number, if number < 5 { "gone" } else { "stays" }));
    add_transcript(&disk, a, "gone", 100..300, None);
    add_transcript(&disk, a, "stays", 1000..1100, None);
    let all: BTreeSet<u32> = (0..10).chain(100..300).chain(1000..1100).collect();
    let stays: BTreeSet<u32> = (5..10).chain(1000..1100).collect();
    send(&env, a);
    fetch(&env, b);
    assert_eq!(found(&disk, "/b"), all);
    assert_eq!(found(&disk, "/remote"), all);

    erase_conversation(a, "gone");
    assert_eq!(found(&disk, "/a"), stays);
    assert_eq!(send(&env, a).withdrawn, 1);
    assert_eq!(found(&disk, "/remote"), stays, "the remote");
    assert_eq!(send(&env, a).withdrawn, 0);

    // One that does not know yet puts nothing back.
    add_trace(b, 20, "stays");
    send(&env, b);
    let stays: BTreeSet<u32> = stays.into_iter().chain([20]).collect();
    assert_eq!(found(&disk, "/remote"), stays, "after a push by one that did not know");
    let report = fetch(&env, b);
    assert!(report.dropped > 0 || found(&disk, "/b") == stays);
    assert_eq!(found(&disk, "/b"), stays);
    fetch(&env, a);

    // A new one gets the events, and what stays.
    let report = fetch(&env, c);
    assert_eq!(report.erased, 5 + 1);
    assert_eq!(found(&disk, "/c"), stays);
    let held = |store: &Store| store.held(&store.snapshot().unwrap()).unwrap();
    assert_eq!(held(a), held(c));
    assert_eq!(held(b), held(c));
    assert_eq!(record(c, Kind::TRACE, &trace(1, "gone"), &[]), 0);
    let requests = fetch(&env, c).requests;
    assert_eq!(fetch(&env, c).requests, requests, "an unchanged pull costs the same");
    assert_eq!(fetch(&env, c).segments, 0);
    sound(&[a, b, c]);
}

#[test]
fn what_comes_later_of_an_erased_conversation_goes_too() {
    let (disk, env, stores) = world(&["/a", "/b", "/c"]);
    let [a, b, c] = &stores[..] else { unreachable!() };
    let (_, _) = add_transcript(&disk, a, "gone", 100..200, None);
    send(&env, a);
    fetch(&env, b);
    erase_conversation(a, "gone");
    // Meanwhile the other goes on with it, and pushes before it hears of that; the first has not pushed yet.
    add_transcript(&disk, b, "gone", 100..400, None);
    add_trace(b, 1, "gone");
    add_trace(b, 2, "stays");
    send(&env, b);
    assert!(found(&disk, "/remote").contains(&300));
    let report = fetch(&env, a);
    assert_eq!(report.erased, 2, "a transcript and a trace");
    assert_eq!(found(&disk, "/a"), range(2..3));
    send(&env, a);
    assert_eq!(found(&disk, "/remote"), range(2..3));
    fetch(&env, b);
    assert_eq!(found(&disk, "/b"), range(2..3));
    fetch(&env, c);
    assert_eq!(found(&disk, "/c"), range(2..3));
    sound(&[a, b, c]);
    // Nobody has anything to say any more.
    for store in [a, b, c] {
        send(&env, store);
    }
    for store in [a, b, c] {
        fetch(&env, store);
    }
    for store in [a, b, c] {
        assert_eq!(send(&env, store).segments, 0);
    }
}

#[test]
fn a_base_that_is_erased_leaves_what_grew_from_it_whole_on_the_remote() {
    let (disk, env, stores) = world(&["/a", "/b", "/c"]);
    let [a, b, c] = &stores[..] else { unreachable!() };
    let (one, base) = add_transcript(&disk, a, "c", 0..1500, None);
    send(&env, a);
    let (two, base) = add_transcript(&disk, a, "c", 0..2500, Some(&base));
    send(&env, a);
    let (three, _) = add_transcript(&disk, a, "c", 0..3000, Some(&base));
    send(&env, a);
    fetch(&env, b);
    erase_object(a, two);
    assert!(send(&env, a).withdrawn > 0);
    fetch(&env, b);
    fetch(&env, c);
    for store in [a, b, c] {
        assert!(store.read(&two).is_err());
        assert_eq!(store.read(&one).unwrap(), content(0..1500));
        assert_eq!(store.read(&three).unwrap(), content(0..3000));
    }
    sound(&[a, b, c]);
    erase_object(c, three);
    send(&env, c);
    assert!(found(&disk, "/remote").is_disjoint(&range(2600..3000)));
    for store in [a, b] {
        fetch(&env, store);
        assert!(found(&disk, store.dir().to_str().unwrap()).is_disjoint(&range(2600..3000)));
        assert_eq!(store.read(&one).unwrap(), content(0..1500));
    }
    sound(&[a, b, c]);
}
