//! Bit rot: whatever happens to a file of a store, `verify` says so, no read serves wrong bytes, `reindex` repairs.
//!
//! `AGENT_TRACE_ROT_ROUNDS=N` multiplies the seeded rounds by N.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::ptr_arg, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Once;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::intake::Intake;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Match, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::verify::{Report, reindex, verify};
use agent_trace_store::{ErrorKind, EventId, Kind, ObjectId, Store, Timestamp, WriterId};

const DIR: &str = "/s";

/// Chance for the tests: the state of a SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

fn rounds(count: u64) -> u64 {
    let factor = std::env::var("AGENT_TRACE_ROT_ROUNDS").ok().and_then(|text| text.parse::<u64>().ok());
    count * factor.unwrap_or(1)
}

/// redb asserts what it reads; the store catches that, but the hook would fill the output.
fn hush_redb() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_none_or(|place| !place.file().contains("redb")) {
                before(info);
            }
        }));
    });
}

// ---- a store with something of everything

fn trace(number: u32) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"c{:02}"}}],"path":"src/f{}.rs"}}],"id":"{number:08x}-0000-4000-8000-000000000000","metadata":{{"session_id":"s{}"}},"timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        number % 7, number % 5, number % 3, number % 60
    )
    .into_bytes()
}

fn ledger(number: u32) -> Vec<u8> {
    format!(
        r#"{{"commit_sha":"{number:040x}","created_at":"2026-01-02T00:00:{:02}Z","files":{{}}}}"#,
        number % 60
    )
    .into_bytes()
}

struct Truth {
    objects: Vec<(ObjectId, Vec<u8>)>,
    events: HashMap<EventId, (WriterId, u64)>,
    keys: Vec<String>,
}

struct Growing<'a> {
    disk: &'a SimDisk,
    store: &'a Store,
    objects: Vec<(ObjectId, Vec<u8>)>,
    keys: Vec<String>,
    transcripts: BTreeMap<u32, Vec<u8>>,
}

impl Growing<'_> {
    fn records(&mut self, kind: Kind, numbers: std::ops::Range<u32>) {
        let mut intake = Intake::new(self.store);
        for number in numbers {
            let bytes = if kind == Kind::LEDGER { ledger(number) } else { trace(number) };
            let facts = facts(kind, &bytes).unwrap();
            intake.record(kind, &bytes, &facts, facts.time.unwrap_or(Timestamp::MIN), &[]).unwrap();
            self.keys.push(facts.key.clone().into_owned());
            self.objects.push((ObjectId::of(&bytes), bytes));
        }
        intake.finish().unwrap();
    }

    /// A conversation grows by so many lines.
    fn transcript(&mut self, conversation: u32, lines: u32) {
        let content = self.transcripts.entry(conversation).or_default();
        let before = (!content.is_empty()).then(|| ObjectId::of(content));
        let start = u32::try_from(content.len()).unwrap();
        for line in 0..lines {
            let noise = (start ^ line).wrapping_mul(2_654_435_761);
            content.extend_from_slice(
                format!("{{\"line\":{line},\"noise\":\"{noise:08x}{:08x}\"}}\n", !noise).as_bytes(),
            );
        }
        let content = content.clone();
        let path = Path::new("/t.jsonl");
        self.disk.write_file(path, &content);
        let file = self.store.env().fs.open(path).unwrap();
        let base = before.map(|id| agent_trace_store::intake::Base::of(self.store, id).unwrap());
        let mut intake = Intake::new(self.store);
        let body = intake.body(file.as_ref(), content.len() as u64, base.as_ref()).unwrap();
        let record = TranscriptRecord {
            conversation_id: format!("c{conversation:02}"),
            session_id: Some("s".into()),
            agent: None,
            content_sha256: body.sha256.clone(),
            size: body.bytes,
            created_at: Timestamp::from_micros(i64::from(start)),
            source: None,
        };
        let bytes = record.encode();
        let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap().into_owned();
        intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
        intake.finish().unwrap();
        self.objects.push((body.id, content));
        self.objects.push((ObjectId::of(&bytes), bytes));
        self.keys.push(facts.key.into_owned());
    }
}

/// Three sealed segments and an open one of several batches, all indexed.
fn full_store(seed: u64) -> (SimDisk, Truth) {
    hush_redb();
    let disk = SimDisk::new(seed);
    let env = disk.env();
    let store = Store::init(&env, Path::new(DIR)).unwrap();
    let mut growing =
        Growing { disk: &disk, store: &store, objects: vec![], keys: vec![], transcripts: BTreeMap::new() };
    for part in 0..4u32 {
        growing.records(Kind::TRACE, part * 12..part * 12 + 6);
        growing.transcript(part % 2, 2_000);
        growing.records(Kind::LEDGER, part * 4..part * 4 + 4);
        growing.transcript(2, 300);
        growing.records(Kind::TRACE, part * 12 + 6..part * 12 + 12);
        if part < 3 {
            store.seal().unwrap();
        }
    }
    let (objects, keys) = (growing.objects, growing.keys);
    store.catch_up().unwrap();
    let snapshot = store.snapshot().unwrap();
    let found = question::list(&store, &snapshot, &Query::default()).unwrap();
    let events = found.iter().map(|found| (found.id, (found.event.writer, found.event.seq.get()))).collect();
    drop(store);
    disk.settle();
    (disk, Truth { objects, events, keys })
}

fn segment_files(disk: &SimDisk, open: bool) -> Vec<PathBuf> {
    let is_open = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("open-");
    let mut files = disk.files();
    files.retain(|path| path.starts_with("/s/segments") && is_open(path) == open);
    files
}

// ---- what must hold whatever was damaged

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// `verify` names it.
    Reported,
    /// Reported, or everything is still right.
    ReportedOrHarmless,
}

/// How much is done after `verify`, which is cheap: the more rounds, the rarer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Depth {
    Verify,
    Read,
    Repair,
}

fn check(disk: &SimDisk, truth: &Truth, expect: Expect, depth: Depth, what: &str) {
    let env = disk.env();
    let store = match Store::open(&env, Path::new(DIR)) {
        Ok(store) => store,
        Err(error) => {
            let told = [ErrorKind::Corrupt, ErrorKind::NotFound, ErrorKind::Unsupported];
            assert!(told.contains(&error.kind()), "{what}: {error:?}");
            return;
        }
    };
    let report = verify(&store, &Silent).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    if report.problems.is_empty() {
        assert!(expect == Expect::ReportedOrHarmless, "{what}: not reported");
        assert!(no_wrong_answers(&store, truth, what), "{what}: neither reported nor harmless");
    } else if depth >= Depth::Read {
        no_wrong_answers(&store, truth, what);
    }
    drop(store);
    if depth < Depth::Repair {
        return;
    }
    repair(&env, truth, &report, what);
}

fn repair(env: &Env, truth: &Truth, report: &Report, what: &str) {
    let store = Store::open(env, Path::new(DIR)).unwrap();
    let done = reindex(&store, &Silent).unwrap_or_else(|error| panic!("{what}: {error:?}, {report:?}"));
    drop(store);
    let store = Store::open(env, Path::new(DIR)).unwrap();
    let after = verify(&store, &Silent).unwrap();
    assert!(
        after.problems.is_empty(),
        "{what}: after reindex {done:?}: {:?}\nbefore: {:?}",
        after.problems,
        report.problems
    );
    no_wrong_answers(&store, truth, what);
    writing_goes_on(&store, truth, what);
    drop(store);
    check_clean(env, what);
}

/// Reads everything that was ever there; true if all of it still is.
fn no_wrong_answers(store: &Store, truth: &Truth, what: &str) -> bool {
    let mut complete = true;
    for (id, bytes) in &truth.objects {
        match store.read(id) {
            Ok(read) => assert!(read == *bytes, "{what}: object {id} came back wrong"),
            Err(_) => complete = false,
        }
    }
    let Ok(snapshot) = store.snapshot() else { return false };
    match question::list(store, &snapshot, &Query::default()) {
        Ok(found) => {
            complete &= found.len() == truth.events.len();
            for found in found {
                assert!(truth.events.contains_key(&found.id), "{what}: a false event");
            }
        }
        Err(_) => complete = false,
    }
    for key in truth.keys.iter().step_by(7) {
        match question::resolve(store, &snapshot, key) {
            Ok(matches) => {
                complete &= !matches.is_empty();
                for found in matches {
                    let Match::Event(found) = found else { panic!("{what}: an object for a key") };
                    assert!(truth.events.contains_key(&found.id), "{what}: a false event");
                    assert_eq!(found.event.fact.key, *key, "{what}");
                }
            }
            Err(_) => complete = false,
        }
    }
    complete
}

/// New records are taken, and no seq that was used means another event (I3).
fn writing_goes_on(store: &Store, truth: &Truth, what: &str) {
    let used: HashMap<(WriterId, u64), EventId> =
        truth.events.iter().map(|(id, place)| (*place, *id)).collect();
    let mut intake = Intake::new(store);
    for number in 1000..1003 {
        let bytes = trace(number);
        let facts = facts(Kind::TRACE, &bytes).unwrap();
        intake.record(Kind::TRACE, &bytes, &facts, facts.time.unwrap(), &[]).unwrap();
    }
    assert_eq!(intake.finish().unwrap().events, 3, "{what}");
    let snapshot = store.snapshot().unwrap();
    for found in question::list(store, &snapshot, &Query::default()).unwrap() {
        let place = (found.event.writer, found.event.seq.get());
        assert!(used.get(&place).is_none_or(|id| *id == found.id), "{what}: seq {} used twice", place.1);
    }
}

fn check_clean(env: &Env, what: &str) -> Report {
    let store = Store::open(env, Path::new(DIR)).unwrap();
    let report = verify(&store, &Silent).unwrap();
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
    report
}

// ---- the damages

type Damage = fn(&mut Random, &mut Vec<u8>);
type Files = fn(&SimDisk) -> Vec<PathBuf>;

fn flip(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    bytes[at] ^= 1 << random.below(8);
}

fn zero(random: &mut Random, bytes: &mut Vec<u8>) {
    let length = [512, 1024, 4096][random.below(3)];
    let at = random.below(bytes.len()) / 512 * 512;
    let end = (at + length).min(bytes.len());
    bytes[at..end].fill(0);
}

fn cut(random: &mut Random, bytes: &mut Vec<u8>) {
    let length = random.below(bytes.len());
    bytes.truncate(length);
}

/// The places of frames: their magic, with the length that follows it.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 128;
    while at + 32 <= bytes.len() && &bytes[at..at + 4] == b"ATFR" {
        let length = 32 + u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        found.push((at, length));
        at += length;
    }
    found
}

fn swap(random: &mut Random, bytes: &mut Vec<u8>) {
    let frames = frames(bytes);
    let first = random.below(frames.len() - 1);
    let second = first + 1 + random.below(frames.len() - first - 1);
    let ((a, a_length), (b, b_length)) = (frames[first], frames[second]);
    let mut swapped = bytes[..a].to_vec();
    swapped.extend_from_slice(&bytes[b..b + b_length]);
    swapped.extend_from_slice(&bytes[a + a_length..b]);
    swapped.extend_from_slice(&bytes[a..a + a_length]);
    swapped.extend_from_slice(&bytes[b + b_length..]);
    *bytes = swapped;
}

fn run(seed: u64, count: u64, files: Files, damage: Damage, expect: Expect) {
    let (disk, truth) = full_store(seed);
    let files = files(&disk);
    for round in 0..rounds(count) {
        let mut random = Random(seed << 32 | round);
        let copy = disk.snapshot(round);
        let file = &files[random.below(files.len())];
        let before = copy.read_file(file).unwrap();
        let mut bytes = before.clone();
        damage(&mut random, &mut bytes);
        if bytes == before {
            continue;
        }
        copy.write_file(file, &bytes);
        let depth = match round % 16 {
            0 => Depth::Repair,
            1..4 => Depth::Read,
            _ => Depth::Verify,
        };
        check(&copy, &truth, expect, depth, &format!("seed {seed} round {round} {}", file.display()));
    }
}

fn sealed(disk: &SimDisk) -> Vec<PathBuf> {
    segment_files(disk, false)
}

fn open(disk: &SimDisk) -> Vec<PathBuf> {
    segment_files(disk, true)
}

fn index(_: &SimDisk) -> Vec<PathBuf> {
    vec![PathBuf::from("/s/index.redb")]
}

#[test]
fn flipped_bits_are_reported() {
    run(1, 160, sealed, flip, Expect::Reported);
    run(2, 120, open, flip, Expect::Reported);
}

#[test]
fn flipped_bits_in_the_index_are_reported_or_harmless() {
    run(3, 140, index, flip, Expect::ReportedOrHarmless);
}

#[test]
fn zeroed_blocks_are_reported() {
    run(4, 72, sealed, zero, Expect::Reported);
    run(5, 48, open, zero, Expect::Reported);
    run(6, 60, index, zero, Expect::ReportedOrHarmless);
}

#[test]
fn cut_files_are_reported() {
    run(7, 72, sealed, cut, Expect::Reported);
    run(8, 72, open, cut, Expect::Reported);
    run(9, 48, index, cut, Expect::ReportedOrHarmless);
}

#[test]
fn swapped_frames_are_reported() {
    run(10, 60, sealed, swap, Expect::Reported);
    run(11, 40, open, swap, Expect::Reported);
}

#[test]
fn small_files_that_are_damaged_are_reported_or_harmless() {
    let small =
        |_: &SimDisk| ["format", "writer.key", "instance"].map(|name| Path::new(DIR).join(name)).to_vec();
    run(12, 60, small, flip, Expect::ReportedOrHarmless);
    run(13, 12, small, zero, Expect::ReportedOrHarmless);
    run(14, 24, small, cut, Expect::ReportedOrHarmless);
}

#[test]
fn files_that_are_exchanged_or_gone_are_reported() {
    let (disk, truth) = full_store(15);
    let files: Vec<PathBuf> = sealed(&disk).into_iter().chain(open(&disk)).collect();
    for to in &files {
        for from in files.iter().filter(|from| *from != to) {
            let copy = disk.snapshot(1);
            copy.write_file(to, &disk.read_file(from).unwrap());
            let what = format!("{} in the place of {}", from.display(), to.display());
            check(&copy, &truth, Expect::Reported, Depth::Repair, &what);
        }
        let copy = disk.snapshot(1);
        assert!(copy.remove_file(to));
        check(&copy, &truth, Expect::Reported, Depth::Repair, &format!("{} is gone", to.display()));
    }
    for name in ["index.redb", "format", "writer.key", "instance"] {
        let copy = disk.snapshot(1);
        assert!(copy.remove_file(&Path::new(DIR).join(name)));
        check(&copy, &truth, Expect::ReportedOrHarmless, Depth::Repair, &format!("{name} is gone"));
    }
}

/// Nothing but the segments is left to tell of what was there.
#[test]
fn damage_is_repaired_without_an_index() {
    let (disk, truth) = full_store(16);
    assert!(disk.remove_file(Path::new("/s/index.redb")));
    for round in 0..rounds(16) {
        let mut random = Random(16 << 32 | round);
        let copy = disk.snapshot(round);
        let file = &sealed(&disk)[random.below(3)];
        let mut bytes = disk.read_file(file).unwrap();
        zero(&mut random, &mut bytes);
        copy.write_file(file, &bytes);
        check(&copy, &truth, Expect::Reported, Depth::Repair, &format!("round {round}, {}", file.display()));
    }
}

#[test]
fn the_last_batch_of_an_open_segment_may_be_torn_silently() {
    let (disk, truth) = full_store(17);
    assert!(disk.remove_file(Path::new("/s/index.redb")));
    let file = open(&disk).remove(0);
    let bytes = disk.read_file(&file).unwrap();
    let commits: Vec<usize> = frames(&bytes)
        .into_iter()
        .filter(|(at, _)| bytes[at + 4] == 4)
        .map(|(at, length)| at + length)
        .collect();
    let before = commits[commits.len() - 2];
    for cut in (before..bytes.len()).step_by(37) {
        let copy = disk.snapshot(1);
        assert!(copy.truncate(&file, cut));
        let store = Store::open(&copy.env(), Path::new(DIR)).unwrap();
        assert_eq!(verify(&store, &Silent).unwrap().problems, [], "{cut}");
        no_wrong_answers(&store, &truth, "torn");
    }
}

/// A sealing that was cut short leaves a footer that nobody may believe, whole or torn.
#[test]
fn an_unnamed_footer_is_no_damage() {
    let (disk, truth) = full_store(24);
    let before = segment_files(&disk, true).remove(0);
    let start = disk.read_file(&before).unwrap().len();
    let copy = disk.snapshot(1);
    let store = Store::open(&copy.env(), Path::new(DIR)).unwrap();
    store.seal().unwrap();
    drop(store);
    let named = sealed(&copy).into_iter().find(|path| !sealed(&disk).contains(path)).unwrap();
    let bytes = copy.read_file(&named).unwrap();
    for (from, to) in
        [(start, start), (start, start + 40), (start + 100, start + 200), (start, bytes.len() - 48)]
    {
        let torn = disk.snapshot(2);
        let mut bytes = bytes.clone();
        bytes[from..to].fill(0);
        torn.write_file(&before, &bytes);
        check_clean(&torn.env(), "torn footer");
        let store = Store::open(&torn.env(), Path::new(DIR)).unwrap();
        assert!(no_wrong_answers(&store, &truth, "torn footer"));
        writing_goes_on(&store, &truth, "torn footer");
        drop(store);
        check_clean(&torn.env(), "torn footer, written to");
    }
}

#[test]
fn problems_name_the_place_and_the_records() {
    let (disk, _) = full_store(18);
    let file = sealed(&disk).remove(0);
    let bytes = disk.read_file(&file).unwrap();
    let (at, length) = frames(&bytes)[0];
    assert!(disk.flip_bit(&file, at + length - 1, 3));
    let store = Store::open(&disk.env(), Path::new(DIR)).unwrap();
    let report = verify(&store, &Silent).unwrap();
    let frame = report.problems.iter().find(|problem| problem.code == "frame").unwrap();
    assert_eq!(frame.what, format!("{} at byte {at}", file.display()));
    assert!(!frame.affects.is_empty(), "{report:?}");
    assert!(report.problems.iter().any(|problem| problem.code == "closure"), "{report:?}");
    assert!(report.problems.iter().all(|problem| problem.affects.len() <= 21));
}

#[test]
fn clean_stores_of_every_shape_verify_clean() {
    let disk = SimDisk::new(19);
    let env = disk.env();
    let store = Store::init(&env, Path::new(DIR)).unwrap();
    let counts = |report: &Report| (report.segments, report.events, report.unconfirmed);
    assert_eq!(counts(&check_clean(&env, "empty")), (0, 0, 0));
    let mut growing =
        Growing { disk: &disk, store: &store, objects: vec![], keys: vec![], transcripts: BTreeMap::new() };
    growing.records(Kind::TRACE, 0..10);
    let report = check_clean(&env, "open, not indexed");
    assert_eq!((report.objects, counts(&report)), (10, (1, 10, 0)));
    store.catch_up().unwrap();
    check_clean(&env, "open, indexed");
    growing.records(Kind::LEDGER, 0..3);
    assert_eq!(counts(&check_clean(&env, "open, half indexed")), (1, 13, 0));
    store.seal().unwrap();
    assert_eq!(counts(&check_clean(&env, "sealed")), (1, 13, 0));
    growing.transcript(1, 4_000);
    growing.transcript(1, 4_000);
    assert_eq!(counts(&check_clean(&env, "sealed and open")), (2, 15, 0));
    store.index().delete().unwrap();
    check_clean(&env, "no index");
    let done = reindex(&store, &Silent).unwrap();
    assert_eq!((done.segments, done.events, done.salvaged.len()), (2, 15, 0));
    check_clean(&env, "reindexed");
    let writer = store.writer();
    growing.transcript(1, 100);
    store.renew_writer().unwrap();
    assert_ne!(store.writer(), writer);
    check_clean(&env, "a new writer");
    growing.records(Kind::TRACE, 20..30);
    assert_eq!(counts(&check_clean(&env, "logs of two writers")), (3, 26, 0));
}

// ---- several logs

use agent_trace_store::event::Event;
use agent_trace_store::frame::{Effort, Packer};
use agent_trace_store::log::{Prepared, Received};
use agent_trace_store::object::ObjectsBuilder;
use agent_trace_store::scan::marks;

/// All events of a store as they would arrive at another, with their records.
fn outgoing(store: &Store) -> (Vec<Received>, Vec<Vec<u8>>) {
    let snapshot = store.snapshot().unwrap();
    let mut found = question::list(store, &snapshot, &Query::default()).unwrap();
    found.sort_by_key(|found| (found.event.writer, found.event.seq));
    let records: Vec<Vec<u8>> = found.iter().map(|found| store.read(&found.record()).unwrap()).collect();
    let received = found.into_iter().zip(&records).map(|(found, record)| Received {
        marks: marks(&found.event.fact, record),
        event: found.event,
        id: found.id,
    });
    (received.collect(), records)
}

fn receive(
    store: &Store,
    received: Vec<Received>,
    records: &[Vec<u8>],
    tips: Vec<agent_trace_store::writer::Tip>,
) {
    let mut builder = ObjectsBuilder::new();
    for record in records {
        builder.add(ObjectId::of(record), record);
    }
    let frames = vec![builder.finish(&mut Packer::new(Effort::FAST))];
    store.append(Prepared { frames, received, tips, ..Prepared::default() }).unwrap();
}

fn two_stores(seed: u64) -> (SimDisk, Store, Store) {
    let disk = SimDisk::new(seed);
    let stores = [DIR, "/other"].map(|dir| Store::init(&disk.env(), Path::new(dir)).unwrap());
    let [one, other] = stores;
    for (store, numbers) in [(&one, 0..8), (&other, 8..20)] {
        let mut growing =
            Growing { disk: &disk, store, objects: vec![], keys: vec![], transcripts: BTreeMap::new() };
        growing.records(Kind::TRACE, numbers);
    }
    (disk, one, other)
}

fn codes(store: &Store) -> Vec<&'static str> {
    verify(store, &Silent).unwrap().problems.iter().map(|problem| problem.code).collect()
}

fn tip(store: &Store, event: &Event, id: EventId) -> agent_trace_store::writer::Tip {
    store.key().tip(event.seq, id)
}

#[test]
fn foreign_logs_need_a_signature_and_may_have_gaps() {
    let (disk, one, other) = two_stores(20);
    let (received, records) = outgoing(&other);
    let newest = tip(&other, &received[11].event, received[11].id);
    receive(&one, received[2..5].to_vec(), &records[2..5], vec![]);
    assert_eq!(codes(&one), ["event"], "no tip covers it");
    receive(&one, received[7..].to_vec(), &records[7..], vec![newest]);
    let report = check_clean(&disk.env(), "signed");
    assert_eq!((report.unconfirmed, report.events), (2, 16));
    one.seal().unwrap();
    one.catch_up().unwrap();
    // The tip survives the loss of its frame, since the index has it too.
    let file = sealed(&disk).remove(0);
    let bytes = disk.read_file(&file).unwrap();
    let (at, _) = frames(&bytes).into_iter().find(|(at, _)| bytes[at + 4] == 3).unwrap();
    assert!(disk.flip_bit(&file, at + 40, 1));
    let one = Store::open(&disk.env(), Path::new(DIR)).unwrap();
    assert!(codes(&one).contains(&"frame"));
    let done = reindex(&one, &Silent).unwrap();
    assert_eq!((done.events, done.salvaged.len()), (16, 1), "{done:?}");
    assert_eq!(check_clean(&disk.env(), "salvaged").events, 16);
}

#[test]
fn forks_are_found_within_and_across_segments() {
    for sealed in [false, true] {
        let (disk, _one, other) = two_stores(21);
        // One writer in two places: only a copy of the disk itself can do that.
        let copy = disk.snapshot(1);
        let twin = Store::open(&copy.env(), Path::new("/other")).unwrap();
        for (disk, store, numbers) in [(&disk, &other, 20..24), (&copy, &twin, 30..33)] {
            let mut growing =
                Growing { disk, store, objects: vec![], keys: vec![], transcripts: BTreeMap::new() };
            growing.records(Kind::TRACE, numbers);
        }
        if sealed {
            other.seal().unwrap();
        }
        let (received, records) = outgoing(&twin);
        assert_eq!(codes(&other), [] as [&str; 0]);
        receive(&other, received[..12].to_vec(), &records[..12], vec![]);
        assert_eq!(codes(&other), [] as [&str; 0], "the same events twice are no fork");
        receive(&other, received[12..14].to_vec(), &records[12..14], vec![]);
        let found = codes(&other);
        assert!(!found.is_empty() && found.iter().all(|code| *code == "fork"), "{found:?}");
    }
}

// ---- repair that is cut short

#[test]
fn a_crash_while_repairing_loses_nothing() {
    let (disk, truth) = full_store(22);
    let file = sealed(&disk).remove(0);
    let bytes = disk.read_file(&file).unwrap();
    let (at, length) = frames(&bytes)[1];
    assert!(disk.flip_bit(&file, at + length - 1, 3));
    let start = disk.operations();
    let whole = disk.snapshot(0);
    let store = Store::open(&whole.env(), Path::new(DIR)).unwrap();
    let done = reindex(&store, &Silent).unwrap();
    let operations = whole.operations() - start;
    for round in 0..rounds(16) {
        let copy = disk.snapshot(round);
        copy.crash_at(start + round * operations / rounds(16));
        let store = Store::open(&copy.env(), Path::new(DIR)).unwrap();
        let _ = reindex(&store, &Silent);
        copy.crash();
        let env = copy.env();
        let store = Store::open(&env, Path::new(DIR)).unwrap();
        reindex(&store, &Silent).unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        drop(store);
        let report = check_clean(&env, &format!("round {round}"));
        assert!(report.events >= done.events, "round {round}");
        let store = Store::open(&env, Path::new(DIR)).unwrap();
        no_wrong_answers(&store, &truth, &format!("round {round}"));
        writing_goes_on(&store, &truth, &format!("round {round}"));
        let kept = copy.files().into_iter().any(|path| {
            copy.read_file(&path)
                .is_some_and(|now| path.starts_with("/s/damaged") && now.len() == bytes.len())
        });
        assert!(kept, "round {round}: the damaged file is kept");
    }
}

#[test]
fn a_compacted_store_verifies_clean() {
    let (disk, truth) = full_store(23);
    let env = disk.env();
    let store = Store::open(&env, Path::new(DIR)).unwrap();
    store.seal().unwrap();
    let plan = agent_trace_store::compact::plan(&store).unwrap();
    agent_trace_store::compact::execute(&store, &plan, &Silent).unwrap();
    drop(store);
    assert_eq!(check_clean(&env, "compacted").events, truth.events.len() as u64);
    let store = Store::open(&env, Path::new(DIR)).unwrap();
    assert!(no_wrong_answers(&store, &truth, "compacted"));
    assert_eq!(reindex(&store, &Silent).unwrap().salvaged.len(), 0);
    check_clean(&env, "compacted and reindexed");
}
