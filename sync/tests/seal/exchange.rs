//! Stores that exchange through an encrypted folder: all arrives as through a plain one, and nothing of it shows there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::{ErrorKind, Kind, ObjectId, Result, Store};
use agent_trace_sync::pull::{PullOptions, PullReport, pull};
use agent_trace_sync::push::{PushOptions, PushReport, push};
use agent_trace_sync::seal::names::Names;
use agent_trace_sync::transport::Transport;

use crate::support::{add, ledger, trace_id};
use crate::{access, remote};

fn trace(number: u32) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"conversation-{number}"}}],"path":"src/secret-name.rs"}}],"id":"{}","padding":"{}","timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        trace_id(number),
        "x".repeat((number as usize * 37) % 400),
        number % 60
    )
    .into_bytes()
}

struct World {
    disk: SimDisk,
    env: Env,
}

impl World {
    fn new() -> World {
        let disk = SimDisk::new(3);
        let env = disk.env();
        World { disk, env }
    }

    fn store(&self, name: &str) -> Store {
        Store::init(&self.env, Path::new(name)).unwrap()
    }

    fn try_push(&self, store: &Store, person: usize) -> Result<PushReport> {
        let access = access(store.dir().to_str().unwrap(), person);
        let options = PushOptions { full: true, ..PushOptions::default() };
        push(store, &remote(&self.env, &access, true)?, &options, &Silent)
    }

    fn push(&self, store: &Store) -> PushReport {
        self.try_push(store, 0).unwrap()
    }

    fn try_pull(&self, store: &Store) -> Result<PullReport> {
        let access = access(store.dir().to_str().unwrap(), 0);
        pull(store, &remote(&self.env, &access, false)?, &PullOptions::default(), &Silent)
    }

    fn pull(&self, store: &Store) -> PullReport {
        let report = self.try_pull(store).unwrap();
        assert_eq!((&report.refused, &report.forks), (&Vec::new(), &Vec::new()));
        report
    }

    fn files(&self, below: &str) -> Vec<PathBuf> {
        self.disk.files().into_iter().filter(|path| path.starts_with(below)).collect()
    }

    fn bytes(&self, below: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.files(below).into_iter();
        files.map(|path| (path.clone(), self.disk.read_file(&path).unwrap())).collect()
    }
}

fn records(store: &Store) -> BTreeSet<ObjectId> {
    let found = question::list(store, &store.snapshot().unwrap(), &Query::default()).unwrap();
    found.iter().map(|found| found.record()).collect()
}

#[test]
fn stores_converge_and_push_each_event_once() {
    let world = World::new();
    let (a, b) = (world.store("/a"), world.store("/b"));
    add(&a, Kind::TRACE, (0..500).map(trace));
    add(&b, Kind::TRACE, (400..700).map(trace));
    assert_eq!(world.push(&a).sent.values().sum::<u64>(), 500);
    world.push(&b);
    assert_eq!(world.pull(&a).taken.values().sum::<u64>(), 300);
    assert_eq!(world.pull(&b).taken.values().sum::<u64>(), 500);
    assert_eq!(records(&a), records(&b));
    for store in [&a, &b] {
        let again = world.push(store);
        assert_eq!((again.sent.len(), again.segments, again.bytes), (0, 0, 0), "nothing is sent again");
        assert!(again.requests < 16, "{}", again.requests);
        assert_eq!(world.pull(store).segments, 0);
    }
    // A third one that knows only the secret gets all, and has nothing to send.
    let c = world.store("/c");
    world.pull(&c);
    assert_eq!(records(&c), records(&a));
    assert_eq!(world.push(&c).segments, 0);
    let access = access("/a", 0);
    let remote = remote(&world.env, &access, false).unwrap();
    assert_eq!(remote.transport().list("heads").unwrap().len(), 2);
}

#[test]
fn many_pushes_make_chains_that_are_flattened() {
    let world = World::new();
    let (a, b) = (world.store("/a"), world.store("/b"));
    for number in 0..70 {
        add(&a, Kind::TRACE, [trace(number)]);
        world.push(&a);
    }
    world.pull(&b);
    assert_eq!(records(&a), records(&b));
    assert!(world.files("/remote/manifests").len() >= 70);
}

#[test]
fn nothing_of_it_shows_on_the_remote() {
    let world = World::new();
    let a = world.store("/a");
    add(&a, Kind::TRACE, (0..300).map(trace));
    add(&a, Kind::LEDGER, (0..20).map(|number| ledger(number, [number])));
    world.push(&a);
    let writer = a.writer();
    let mut words: Vec<Vec<u8>> = [
        "ATHEAD",
        "ATMANIF",
        "ATSEGMNT",
        "ATFR",
        "ATKEYRNG",
        "conversation",
        "secret-name",
        "timestamp",
        "trace",
        "ledger",
        "commit_sha",
        "src/",
        &trace_id(7),
        &writer.to_string(),
        &writer.short(),
    ]
    .iter()
    .map(|word| word.as_bytes().to_vec())
    .collect();
    words.push(writer.as_bytes().to_vec());
    words.push(b"\x28\xb5\x2f\xfd".to_vec());
    words.extend(
        records(&a).iter().take(20).flat_map(|id| {
            [id.as_bytes().to_vec(), id.to_string().into_bytes(), id.as_bytes()[..8].to_vec()]
        }),
    );
    words.extend(a.segments().sealed.iter().map(|sealed| sealed.id.to_string().into_bytes()));
    for (path, bytes) in world.bytes("/remote") {
        let name = path.to_str().unwrap().as_bytes();
        for word in &words {
            let stands = |bytes: &[u8]| bytes.windows(word.len()).any(|window| window == word);
            let is_text = word.iter().all(u8::is_ascii_graphic);
            assert!(!stands(name), "{} shows {}", path.display(), String::from_utf8_lossy(word));
            // Four bytes that are no text stand somewhere in ciphertext by chance.
            if (is_text || word.len() >= 8) && !path.ends_with("format") {
                assert!(!stands(&bytes), "{} holds {}", path.display(), String::from_utf8_lossy(word));
            }
        }
        assert!(!path.to_str().unwrap().contains("/.new-"), "{} was left aside", path.display());
    }
}

#[test]
fn equal_contents_are_unequal_there() {
    // Two worlds from one seed but for what has been drawn before: same store, same writer, same secret, same key.
    let world = World::new();
    let a = world.store("/a");
    add(&a, Kind::TRACE, (0..300).map(trace));
    world.push(&a);
    let before = world.bytes("/remote");
    let blocks = |files: &[(PathBuf, Vec<u8>)]| {
        let files = files.iter().filter(|(path, _)| !path.ends_with("format"));
        files
            .flat_map(|(_, bytes)| bytes.chunks(64).map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let all = blocks(&before);
    let once: BTreeSet<&Vec<u8>> = all.iter().collect();
    assert_eq!(once.len(), all.len(), "no block stands twice, though records are alike");
    // The same once more: as if the remote had been lost.
    for path in world.files("/remote").into_iter().chain(world.files("/a/remotes")) {
        let is_kept = path.ends_with("format") || path.starts_with("/remote/keys");
        assert!(is_kept || world.disk.remove_file(&path), "{}", path.display());
    }
    let again = world.store("/again");
    add(&again, Kind::TRACE, (0..300).map(trace));
    world.push(&again);
    let other = blocks(&world.bytes("/remote/segments"));
    let segments = blocks(
        &before.into_iter().filter(|(path, _)| path.starts_with("/remote/segments")).collect::<Vec<_>>(),
    );
    let segments: BTreeSet<Vec<u8>> = segments.into_iter().collect();
    assert!(other.iter().all(|block| !segments.contains(block)), "equal plaintext, equal ciphertext");
}

#[test]
fn what_is_known_of_names_can_be_learned_again() {
    let world = World::new();
    let (a, b) = (world.store("/a"), world.store("/b"));
    add(&a, Kind::TRACE, (0..200).map(trace));
    world.push(&a);
    world.pull(&b);
    for path in world.files("/a/remotes").into_iter().chain(world.files("/b/remotes")) {
        if path.ends_with("names") {
            world.disk.remove_file(&path);
        }
    }
    add(&a, Kind::TRACE, (200..250).map(trace));
    add(&b, Kind::TRACE, (300..310).map(trace));
    world.push(&a);
    world.push(&b);
    world.pull(&b);
    world.pull(&a);
    assert_eq!(records(&a), records(&b));
    // One that is damaged counts as lost.
    let names = world.files("/a/remotes").into_iter().find(|path| path.ends_with("names")).unwrap();
    world.disk.flip_bit(&names, 60, 2);
    add(&b, Kind::TRACE, (310..320).map(trace));
    world.push(&b);
    world.pull(&a);
    assert_eq!(records(&a), records(&b));
}

#[test]
fn what_nobody_with_the_key_has_sealed_is_not_taken() {
    let world = World::new();
    let (a, b) = (world.store("/a"), world.store("/b"));
    add(&a, Kind::TRACE, (0..50).map(trace));
    world.push(&a);
    // Garbage among the heads is named, and the rest is taken.
    let junk = format!("/remote/heads/{}", "ab".repeat(32));
    world.disk.write_file(Path::new(&junk), &[7; 3000]);
    let report = world.try_pull(&b).unwrap();
    assert_eq!(report.refused.len(), 1, "{:?}", report.refused);
    assert_eq!(records(&a), records(&b));
    // A head of another remote that is sealed with the same secret.
    world.disk.remove_file(Path::new(&junk));
    let head = world.files("/remote/heads").pop().unwrap();
    let sealed = world.disk.read_file(&head).unwrap();
    world.disk.write_file(Path::new(&junk), &sealed);
    assert_eq!(world.try_pull(&b).unwrap().refused.len(), 1, "a head under another name");
    world.disk.remove_file(Path::new(&junk));
    // A head that anybody could have written stops all.
    let plain = World::new();
    let c = plain.store("/a");
    add(&c, Kind::TRACE, (0..5).map(trace));
    let address = agent_trace_sync::address::RemoteUrl::Folder("/remote".into());
    let open = agent_trace_sync::remote::Remote::open(&plain.env, &address, true).unwrap();
    push(&c, &open, &PushOptions { full: true, ..PushOptions::default() }, &Silent).unwrap();
    let (name, bytes) = plain.bytes("/remote/heads").pop().unwrap();
    world.disk.write_file(&name, &bytes);
    let before = world.disk.trace_hash();
    let error = world.try_pull(&b).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert_eq!(world.try_push(&a, 0).unwrap_err().kind(), ErrorKind::Locked);
    let _ = before;
    // And a sealed one on a plain remote is refused there.
    plain.disk.write_file(&PathBuf::from(&junk), &sealed);
    let open = agent_trace_sync::remote::Remote::open(&plain.env, &address, false).unwrap();
    let other = plain.store("/other");
    let report = pull(&other, &open, &PullOptions::default(), &Silent).unwrap();
    assert_eq!(report.refused.len(), 1, "{:?}", report.refused);
}

#[test]
fn damage_and_exchanged_files_are_refused() {
    let world = World::new();
    let a = world.store("/a");
    add(&a, Kind::TRACE, (0..200).map(trace));
    world.push(&a);
    add(&a, Kind::TRACE, (200..400).map(trace));
    world.push(&a);
    let segments = world.bytes("/remote/segments");
    assert_eq!(segments.len(), 2);
    // Two segments under each other's names.
    world.disk.write_file(&segments[0].0, &segments[1].1);
    world.disk.write_file(&segments[1].0, &segments[0].1);
    let b = world.store("/b");
    let report = world.try_pull(&b).unwrap();
    assert_eq!(report.refused.len(), 2, "{:?}", report.refused);
    assert!(records(&b).is_empty());
    // One bit.
    world.disk.write_file(&segments[0].0, &segments[0].1);
    world.disk.write_file(&segments[1].0, &segments[1].1);
    for byte in [0, 9, 20, 40, 500, segments[0].1.len() - 5] {
        world.disk.write_file(&segments[0].0, &segments[0].1);
        world.disk.flip_bit(&segments[0].0, byte, 3);
        let fresh = world.store(&format!("/fresh-{byte}"));
        match world.try_pull(&fresh) {
            Ok(report) => assert_eq!(report.refused.len(), 1, "byte {byte}: {:?}", report.refused),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Locked | ErrorKind::Unsupported), "{error}")
            }
        }
        assert!(records(&fresh).len() <= 200);
    }
    world.disk.write_file(&segments[0].0, &segments[0].1);
    world.pull(&b);
    assert_eq!(records(&a), records(&b));
}

#[test]
fn a_push_that_is_cut_sends_no_segment_again() {
    let world = World::new();
    let a = world.store("/a");
    add(&a, Kind::TRACE, (0..10).map(trace));
    world.push(&a);
    add(&a, Kind::TRACE, (10..300).map(trace));
    // Until the head was to be written: everything but the head has arrived then.
    let mut arrived = 0;
    for operation in (1..2_000).step_by(3) {
        let copy = World { disk: world.disk.snapshot(operation), env: world.env.clone() };
        let copy = World { env: copy.disk.env(), disk: copy.disk };
        let store = Store::open(&copy.env, Path::new("/a")).unwrap();
        copy.disk.crash_at(copy.disk.operations() + operation);
        if copy.try_push(&store, 0).is_ok() {
            assert!(arrived > 0, "no cut was between segment and head");
            return;
        }
        copy.disk.clear_faults();
        copy.disk.restart();
        let env = copy.disk.env();
        let copy = World { env, disk: copy.disk };
        let store = Store::open(&copy.env, Path::new("/a")).unwrap();
        let before = copy.files("/remote/segments").len();
        let report = copy.push(&store);
        assert!(!report.new_writer);
        if report.segments == 0 && report.sent.values().sum::<u64>() > 0 {
            arrived += 1;
            assert_eq!(copy.files("/remote/segments").len(), before);
        }
        let b = copy.store("/b");
        copy.pull(&b);
        assert_eq!(records(&b), records(&store), "operation {operation}");
        let left: Vec<_> = copy
            .files("/remote")
            .into_iter()
            .filter(|path| path.to_str().unwrap().contains(".new"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    panic!("the push never came to its end");
}

#[test]
fn whoever_clears_up_sees_plain_names_and_can_remove() {
    let world = World::new();
    let a = world.store("/a");
    add(&a, Kind::TRACE, (0..200).map(trace));
    world.push(&a);
    let access = access("/a", 0);
    let remote = remote(&world.env, &access, false).unwrap();
    let id = remote.id().unwrap();
    let state = agent_trace_sync::state::State::load(&a, &id).unwrap();
    let transport: &dyn Transport = remote.transport();
    let garbage = format!("/remote/segments/{}", "cd".repeat(32));
    world.disk.write_file(Path::new(&garbage), b"nobody names it");
    let named: BTreeSet<String> = state.segments.keys().map(ToString::to_string).collect();
    let listed: BTreeSet<String> =
        transport.survey("segments").unwrap().into_iter().map(|it| it.name).collect();
    assert!(listed.is_superset(&named) && listed.len() == named.len() + 1, "{listed:?} {named:?}");
    transport.remove(&format!("segments/{}", "cd".repeat(32))).unwrap();
    assert!(world.disk.read_file(Path::new(&garbage)).is_none());
    for segment in &named {
        transport.remove(&format!("segments/{segment}")).unwrap();
    }
    assert!(world.files("/remote/segments").is_empty());
    drop(remote);
    let kept = Names::load(&world.env, &access.path(&id, "names"));
    assert!(state.segments.keys().all(|segment| kept.of(segment).is_empty()), "what is removed is forgotten");
    let remote = crate::remote(&world.env, &access, false).unwrap();
    let transport: &dyn Transport = remote.transport();
    let manifest = agent_trace_store::id::encode_hex(&state.heads[&a.writer()].manifest);
    let listed: Vec<String> = transport.survey("manifests").unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(listed, std::slice::from_ref(&manifest));
    transport.remove(&format!("manifests/{manifest}")).unwrap();
    assert!(world.files("/remote/manifests").is_empty());
    transport.remove(&format!("heads/{}", a.writer())).unwrap();
    assert!(world.files("/remote/heads").is_empty());
}
