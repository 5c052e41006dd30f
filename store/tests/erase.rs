//! Erasing: the bytes are gone from every file, all else stays, whatever happens meanwhile.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

use agent_trace_store::compact;
use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::erase::{self, ErasePlan, Stays, Wanted};
use agent_trace_store::intake::{Base, Intake, Taken};
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Match};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::verify::{reindex, verify};
use agent_trace_store::{ErrorKind, Kind, ObjectId, Presence, Result, Store, Timestamp};

const DIR: &str = "/s";

/// Words that zstd cannot make shorter beyond recognition: each is looked for as it is and in every zstd frame.
fn secret(number: u32) -> String {
    format!("secret{:016x}", u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn trace(number: u32, conversation: &str) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"{conversation}"}}],"path":"src/f{}.rs"}}],"id":"{number:08x}-0000-4000-8000-000000000000","metadata":{{"session_id":"s-{conversation}"}},"note":"{}","timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        number % 5,
        secret(number),
        number % 60
    )
    .into_bytes()
}

fn record(intake: &mut Intake<'_>, kind: Kind, bytes: &[u8], bodies: &[ObjectId]) -> Result<()> {
    let facts = facts(kind, bytes)?;
    intake.record(kind, bytes, &facts, facts.time.unwrap_or(Timestamp::from_micros(0)), bodies)
}

fn add_trace(store: &Store, number: u32, conversation: &str) -> Result<Taken> {
    let mut intake = Intake::new(store);
    record(&mut intake, Kind::TRACE, &trace(number, conversation), &[])?;
    intake.finish()
}

/// A transcript whose lines hold the secrets of these numbers.
fn content(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let line = |number: u32| {
        let noise: String = (0..40u64)
            .map(|n| format!("{:x}", (u64::from(number) * 41 + n).wrapping_mul(0xd134_2543_de82_ef95)))
            .collect();
        format!("{{\"n\":{number},\"text\":\"{}\",\"noise\":\"{noise}\"}}\n", secret(number)).into_bytes()
    };
    numbers.flat_map(line).collect()
}

fn add_transcript(
    disk: &SimDisk,
    store: &Store,
    conversation: &str,
    content: &[u8],
    base: Option<&Base>,
) -> Result<(ObjectId, Base, Taken)> {
    let path = Path::new("/t.jsonl");
    disk.write_file(path, content);
    let file = store.env().fs.open(path).map_err(|error| agent_trace_store::Error::io("open", error))?;
    let mut intake = Intake::new(store);
    let body = intake.body(file.as_ref(), content.len() as u64, base)?;
    disk.remove_file(path);
    let said = TranscriptRecord {
        conversation_id: conversation.into(),
        session_id: Some(format!("s-{conversation}")),
        agent: None,
        content_sha256: body.sha256.clone(),
        size: body.bytes,
        created_at: Timestamp::from_micros(i64::try_from(content.len()).unwrap()),
        source: None,
    };
    record(&mut intake, Kind::TRANSCRIPT, &said.encode(), &[body.id])?;
    Ok((body.id, body.base, intake.finish()?))
}

/// Everything in every file, and everything that any zstd frame in it decodes to.
fn everywhere(disk: &SimDisk) -> Vec<u8> {
    let mut all = Vec::new();
    for path in disk.files() {
        let bytes = disk.read_file(&path).unwrap();
        for at in memchr_all(&bytes, &[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut decoder = zstd::stream::read::Decoder::new(&bytes[at..]).unwrap().single_frame();
            let mut raw = Vec::new();
            let _ = std::io::Read::read_to_end(&mut decoder, &mut raw);
            all.extend_from_slice(&raw);
        }
        all.extend_from_slice(&bytes);
    }
    all
}

fn memchr_all(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .collect()
}

/// Which of these secrets are anywhere.
fn found(disk: &SimDisk, numbers: std::ops::Range<u32>) -> BTreeSet<u32> {
    let all = everywhere(disk);
    let held: BTreeSet<&[u8]> =
        memchr_all(&all, b"secret").into_iter().filter_map(|at| all.get(at..at + 22)).collect();
    numbers.filter(|number| held.contains(secret(*number).as_bytes())).collect()
}

fn plan_conversation(store: &Store, conversation: &str) -> Result<ErasePlan> {
    let snapshot = store.snapshot()?;
    let mut wanted = Wanted::default();
    wanted.add_conversation(store, &snapshot, conversation)?;
    erase::plan(store, &wanted)
}

fn plan_object(store: &Store, id: ObjectId) -> Result<ErasePlan> {
    erase::plan(store, &Wanted { named: BTreeSet::from([id]), ..Wanted::default() })
}

fn sound(store: &Store) {
    let report = verify(store, &Silent).unwrap();
    assert_eq!(report.problems, [], "verify");
}

fn open(env: &Env) -> Store {
    Store::open(env, Path::new(DIR)).unwrap()
}

#[test]
fn a_conversation_goes_with_its_bytes_and_all_else_stays() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let store = Store::init(&env, Path::new(DIR)).unwrap();
    for number in 0..20 {
        add_trace(&store, number, if number < 10 { "gone" } else { "stays" }).unwrap();
    }
    let (one, base, _) = add_transcript(&disk, &store, "gone", &content(100..400), None).unwrap();
    store.seal().unwrap();
    let (two, _, _) = add_transcript(&disk, &store, "gone", &content(100..900), Some(&base)).unwrap();
    let (other, _, _) = add_transcript(&disk, &store, "stays", &content(1000..1300), None).unwrap();
    assert_eq!(found(&disk, 0..1300).len(), 20 + 800 + 300);
    let held = store.held(&store.snapshot().unwrap()).unwrap();

    let plan = plan_conversation(&store, "gone").unwrap();
    assert_eq!(plan.events[&Kind::TRACE], 10);
    assert_eq!(plan.events[&Kind::TRANSCRIPT], 2);
    assert_eq!(plan.others, 0);
    assert!(plan.bytes > content(100..900).len() as u64, "{plan:?}");
    assert!(plan.stays.is_empty());
    let (events, swept) = erase::execute(&store, &plan, Some("asked for"), &Silent).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(swept.objects, plan.present);

    let stays: BTreeSet<u32> = (10..20).chain(1000..1300).collect();
    assert_eq!(found(&disk, 0..1300), stays, "in files");
    for store in [&store, &open(&env)] {
        for id in [one, two, ObjectId::of(&trace(3, "gone"))] {
            let error = store.read(&id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("was erased on"), "{error}");
            assert!(
                matches!(store.presence(&id).unwrap(), Presence::Erased(act) if act.writer == store.writer())
            );
        }
        assert_eq!(store.read(&other).unwrap(), content(1000..1300));
        assert_eq!(store.read(&ObjectId::of(&trace(12, "stays"))).unwrap(), trace(12, "stays"));
        let snapshot = store.snapshot().unwrap();
        let key = "00000003-0000-4000-8000-000000000000";
        let resolved = question::resolve(store, &snapshot, key).unwrap();
        assert!(matches!(&resolved[..], [Match::Event(_)]), "the event stays");
        assert_eq!(store.held(&snapshot).unwrap().minus(&held).len(), 1, "the erase event");
        sound(store);
    }
    let report = verify(&store, &Silent).unwrap();
    assert_eq!(report.erased, 10 + 2 * 2);

    // It does not come back.
    let taken = add_trace(&store, 3, "gone").unwrap();
    assert_eq!((taken.events, taken.erased), (0, 1), "by its id");
    let taken = add_trace(&store, 77, "gone").unwrap();
    assert_eq!((taken.events, taken.erased), (0, 1), "by its conversation");
    let (_, _, taken) = add_transcript(&disk, &store, "other", &content(100..400), None).unwrap();
    assert_eq!((taken.events, taken.erased, taken.bytes), (0, 1, 0), "the same bytes by another name");
    let (_, _, taken) = add_transcript(&disk, &store, "gone", &content(2000..2001), None).unwrap();
    assert_eq!((taken.events, taken.erased), (0, 1));
    assert!(found(&disk, 0..1000).is_disjoint(&(0..10).chain(100..900).collect()));
    assert!(plan_conversation(&store, "gone").unwrap().is_empty(), "nothing is left");
    sound(&store);

    store.index().delete().unwrap();
    disk.remove_file(&Path::new(DIR).join("erased"));
    let store = open(&env);
    store.catch_up().unwrap();
    assert_eq!(store.erased().len(), plan.objects.len(), "the file is computed");
    reindex(&store, &Silent).unwrap();
    let plan = compact::plan(&store).unwrap();
    compact::execute(&store, &plan, &Silent).unwrap();
    sound(&store);
    assert_eq!(store.read(&other).unwrap(), content(1000..1300));
}

#[test]
fn what_a_live_transcript_shares_stays_and_an_erased_base_is_not_needed() {
    let disk = SimDisk::new(2);
    let env = disk.env();
    let store = Store::init(&env, Path::new(DIR)).unwrap();
    let (one, base, _) = add_transcript(&disk, &store, "c", &content(0..2000), None).unwrap();
    store.seal().unwrap();
    let (two, base, _) = add_transcript(&disk, &store, "c", &content(0..3000), Some(&base)).unwrap();
    store.seal().unwrap();
    let (three, _, _) = add_transcript(&disk, &store, "c", &content(0..3500), Some(&base)).unwrap();
    assert_eq!(store.leaves(&three).unwrap().1, content(0..3500).len() as u64);

    let plan = plan_object(&store, two).unwrap();
    assert_eq!(plan.events.len(), 0);
    erase::execute(&store, &plan, None, &Silent).unwrap();
    sound(&store);
    assert!(store.read(&two).is_err());
    assert_eq!(store.read(&one).unwrap(), content(0..2000));
    assert_eq!(store.read(&three).unwrap(), content(0..3500));
    assert!(store.locate(&two).unwrap().is_none(), "the base's recipe is gone");

    let plan = plan_object(&store, three).unwrap();
    erase::execute(&store, &plan, None, &Silent).unwrap();
    let all = found(&disk, 0..3500);
    assert!((0..2000).all(|number| all.contains(&number)), "what the first needs");
    assert!((3100..3500).all(|number| !all.contains(&number)), "what nothing needs");
    sound(&store);
    // The cut between two chunks need not be where the first ends, so a little of what followed it may be shared.
    assert_eq!(store.read(&one).unwrap(), content(0..2000));
    let (_, _, taken) = add_transcript(&disk, &store, "d", &content(0..3200), None).unwrap();
    assert_eq!(taken.events, 1, "parts of what is erased may come back with something else");
    sound(&store);
}

#[test]
fn what_others_list_stays_unless_it_is_named() {
    let disk = SimDisk::new(3);
    let store = Store::init(&disk.env(), Path::new(DIR)).unwrap();
    let (body, _, _) = add_transcript(&disk, &store, "a", &content(0..10), None).unwrap();
    let (same, _, _) = add_transcript(&disk, &store, "b", &content(0..10), None).unwrap();
    assert_eq!(body, same);
    let plan = plan_conversation(&store, "a").unwrap();
    assert_eq!(plan.stays.get(&body), Some(&Stays::Listed));
    erase::execute(&store, &plan, None, &Silent).unwrap();
    assert_eq!(store.read(&body).unwrap(), content(0..10));
    let plan = plan_object(&store, body).unwrap();
    erase::execute(&store, &plan, None, &Silent).unwrap();
    assert!(store.read(&body).is_err() && found(&disk, 0..10).is_empty());
    sound(&store);
    // An erase cannot be erased.
    let snapshot = store.snapshot().unwrap();
    let query = question::Query { kind: Some(Kind::ERASE), ..Default::default() };
    let erases = question::list(&store, &snapshot, &query).unwrap();
    assert_eq!(erases.len(), 2);
    assert!(plan_object(&store, erases[0].record()).unwrap().objects.is_empty());
}

/// What the crash test does; returns how far it came.
fn workload(disk: &SimDisk, env: &Env, reached: &mut u32) -> Result<()> {
    let store = Store::init(env, Path::new(DIR))?;
    for number in 0..4 {
        add_trace(&store, number, if number < 2 { "gone" } else { "stays" })?;
    }
    let (_, base, _) = add_transcript(disk, &store, "gone", &content(100..120), None)?;
    store.seal()?;
    add_transcript(disk, &store, "gone", &content(100..140), Some(&base))?;
    add_transcript(disk, &store, "stays", &content(200..210), None)?;
    *reached = 1;
    let plan = plan_conversation(&store, "gone")?;
    erase::execute(&store, &plan, None, &Silent)?;
    *reached = 2;
    add_trace(&store, 4, "stays")?;
    Ok(())
}

fn gone() -> BTreeSet<u32> {
    (0..2).chain(100..140).collect()
}

/// After a cut: the store opens and is sound; if the erase was decided, the bytes go; what stays is there.
fn check_after(disk: &SimDisk, reached: u32, what: &str) {
    disk.restart();
    let env = disk.env();
    let Ok(store) = Store::open(&env, Path::new(DIR)) else {
        assert_eq!(reached, 0, "{what}: it does not open");
        return;
    };
    store.catch_up().unwrap();
    drop(store);
    let store = open(&env);
    sound(&store);
    let left = found(disk, 0..300);
    if reached == 2 || !store.erased().is_empty() {
        assert!(left.is_disjoint(&gone()), "{what}: {reached} {left:?}");
    }
    if reached > 0 {
        let stays: BTreeSet<u32> = (2..4).chain(200..210).collect();
        assert!(stays.is_subset(&left), "{what}: {left:?}");
        assert_eq!(store.read(&ObjectId::of(&trace(3, "stays"))).unwrap(), trace(3, "stays"));
        let plan = plan_conversation(&store, "gone").unwrap();
        erase::execute(&store, &plan, None, &Silent).unwrap();
        assert!(found(disk, 0..300).is_disjoint(&gone()), "{what}: again");
        assert_eq!(store.erased().acts().len(), 1, "{what}: the same is not said twice");
        sound(&store);
    }
    let tmp: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with("/s/tmp") && path.to_string_lossy().contains("build-"))
        .collect();
    assert!(reached == 0 || tmp.is_empty(), "{what}: {tmp:?}");
}

#[test]
fn a_cut_anywhere_leaves_a_store_that_goes_on() {
    let operations = {
        let disk = SimDisk::new(7);
        let mut reached = 0;
        workload(&disk, &disk.env(), &mut reached).unwrap();
        assert_eq!(reached, 2);
        disk.operations()
    };
    let stride = std::env::var("AGENT_TRACE_SIM_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for operation in (0..operations).step_by(stride) {
        let disk = SimDisk::new(7);
        disk.crash_at(operation);
        let mut reached = 0;
        let done = workload(&disk, &disk.env(), &mut reached);
        assert!(done.is_err() || disk.is_powered());
        check_after(&disk, reached, &format!("power cut at operation {operation}"));
    }
}

#[test]
fn a_full_disk_is_no_reason_to_keep_what_is_erased() {
    let disk = SimDisk::new(9);
    let env = disk.env();
    let store = Store::init(&env, Path::new(DIR)).unwrap();
    for part in 0..4u32 {
        add_transcript(&disk, &store, &format!("c{part}"), &content(part * 1000..part * 1000 + 700), None)
            .unwrap();
        store.seal().unwrap();
    }
    let used: u64 = disk.files().iter().map(|path| disk.read_file(path).unwrap().len() as u64).sum();
    disk.set_capacity(Some(used));
    assert_eq!(add_trace(&store, 1, "x").unwrap_err().kind(), ErrorKind::Full);
    drop(store);
    let store = open(&env);
    let plan = plan_conversation(&store, "c1").unwrap();
    erase::execute(&store, &plan, None, &Silent).unwrap();
    assert!(found(&disk, 1000..1700).is_empty());
    let store = open(&env);
    sound(&store);
    add_trace(&store, 1, "x").unwrap();
    assert!(disk.read_file(&Path::new(DIR).join("reserve")).is_some(), "the reserve is kept back again");
}

#[test]
fn what_is_evicted_is_elsewhere_and_comes_back() {
    let disk = SimDisk::new(11);
    let env = disk.env();
    let store = Store::init(&env, Path::new(DIR)).unwrap();
    let (one, base, _) = add_transcript(&disk, &store, "a", &content(0..600), None).unwrap();
    store.seal().unwrap();
    let (two, _, _) = add_transcript(&disk, &store, "a", &content(0..900), Some(&base)).unwrap();
    let (other, _, _) = add_transcript(&disk, &store, "b", &content(2000..2300), None).unwrap();
    let remote = [7; 16];
    // A grown transcript keeps what it shares.
    erase::evict(&store, &remote, &BTreeSet::from([one]), &Silent).unwrap();
    assert_eq!(store.presence(&one).unwrap(), Presence::Elsewhere(vec![remote]));
    assert_eq!(store.read(&two).unwrap(), content(0..900));
    let swept = erase::evict(&store, &remote, &BTreeSet::from([one, two]), &Silent).unwrap();
    assert!(swept.objects > 0 && swept.bytes_after < swept.bytes_before);
    let store = open(&env);
    for body in [one, two] {
        assert_eq!(store.presence(&body).unwrap(), Presence::Elsewhere(vec![remote]));
    }
    assert!(found(&disk, 0..900).is_empty());
    assert_eq!(store.read(&other).unwrap(), content(2000..2300));
    sound(&store);
    assert_eq!(verify(&store, &Silent).unwrap().elsewhere, 2);
    let (again, _, _) = add_transcript(&disk, &store, "c", &content(0..600), None).unwrap();
    assert_eq!(store.read(&again).unwrap(), content(0..600));
    sound(&store);
}

#[test]
fn an_eviction_that_is_cut_leaves_bytes_or_a_note() {
    let work = |disk: &SimDisk, env: &Env, ready: &mut bool| -> Result<()> {
        let store = Store::init(env, Path::new(DIR))?;
        let (one, base, _) = add_transcript(disk, &store, "a", &content(0..60), None)?;
        store.seal()?;
        let (two, _, _) = add_transcript(disk, &store, "a", &content(0..90), Some(&base))?;
        *ready = true;
        erase::evict(&store, &[7; 16], &BTreeSet::from([one, two]), &Silent).map(|_| ())
    };
    let operations = {
        let disk = SimDisk::new(12);
        work(&disk, &disk.env(), &mut false).unwrap();
        disk.operations()
    };
    for operation in (0..operations).step_by(5) {
        let disk = SimDisk::new(12);
        disk.crash_at(operation);
        let mut ready = false;
        let _ = work(&disk, &disk.env(), &mut ready);
        disk.restart();
        if !ready {
            continue;
        }
        let env = disk.env();
        let store = open(&env);
        store.catch_up().unwrap();
        sound(&store);
        for body in [content(0..60), content(0..90)] {
            match store.presence(&ObjectId::of(&body)).unwrap() {
                Presence::Present => assert_eq!(store.read(&ObjectId::of(&body)).unwrap(), body),
                presence => assert_eq!(presence, Presence::Elsewhere(vec![[7; 16]]), "cut at {operation}"),
            }
        }
    }
}
