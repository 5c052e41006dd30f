//! Bodies on demand: what is left out of a pull is noted, is not damage, goes to no other remote, and comes when asked for.

use std::path::Path;
use std::sync::Arc;

use agent_trace_store::compact;
use agent_trace_store::env::sim::{FaultKind, Repeat, SimDisk};
use agent_trace_store::env::{Env, os_env};
use agent_trace_store::intake::{Base, Intake};
use agent_trace_store::progress::Silent;
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::verify::{reindex, verify};
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Presence, Store, Timestamp};
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::exchange::Exchange;
use agent_trace_sync::take::{PullOptions, PullReport, Transcripts};
use agent_trace_sync::token::Token;

use crate::project::Shared;
use crate::server::{Response, Server};
use crate::{add, add_transcript, full, ledger, records, service, trace, world};

/// A remote by its URL, and the token for it.
#[derive(Clone)]
struct At {
    url: String,
    token: Option<String>,
}

impl At {
    fn open(&self, env: &Env, create: bool) -> Exchange {
        let address = RemoteUrl::parse(&self.url, Plaintext::Loopback).unwrap();
        let token = self.token.as_ref().map(|token| Token::parse(token).unwrap());
        Exchange::open(env, &address, token, create).unwrap()
    }

    fn push(&self, store: &Store) -> agent_trace_sync::push::PushReport {
        self.open(store.env(), true).push(store, &full(), &Silent).unwrap()
    }

    fn pull(&self, store: &Store, transcripts: Transcripts) -> PullReport {
        let options = PullOptions { transcripts, ..PullOptions::default() };
        let report = self.open(store.env(), false).pull(store, &options, &Silent).unwrap();
        assert_eq!((&report.refused, &report.forks), (&vec![], &vec![]));
        report
    }
}

fn folder(name: &str) -> At {
    At { url: format!("file:///{name}"), token: None }
}

/// The same for a folder and for a service.
fn each_kind(test: impl Fn(&At)) {
    test(&folder("remote"));
    let dir = tempfile::tempdir().unwrap();
    let (url, token) = crate::real::start(&dir);
    test(&At { url, token: Some(token) });
}

/// Bytes that do not compress.
fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
    content
}

/// A transcript that is stored as the one before and a tail.
fn grow_transcript(disk: &SimDisk, store: &Store, before: ObjectId, content: &[u8]) -> ObjectId {
    disk.write_file(Path::new("/t.jsonl"), content);
    let file = store.env().fs.open(Path::new("/t.jsonl")).unwrap();
    let mut intake = Intake::new(store);
    let base = Base::of(store, before).unwrap();
    let body = intake.body(file.as_ref(), content.len() as u64, Some(&base)).unwrap();
    let record = TranscriptRecord {
        conversation_id: "c1".into(),
        session_id: None,
        agent: None,
        content_sha256: body.sha256.clone(),
        size: body.bytes,
        created_at: Timestamp::from_micros(9),
        source: None,
    };
    let bytes = record.encode();
    let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap();
    intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
    intake.finish().unwrap();
    store.catch_up().unwrap();
    body.id
}

fn sound(store: &Store, elsewhere: u64) {
    let report = verify(store, &Silent).unwrap();
    assert_eq!((report.problems, report.elsewhere), (vec![], elsewhere));
}

/// Traces, a ledger and two transcripts in `/a` and on the remote.
fn filled(at: &At, disk: &SimDisk, store: &Store) -> [(ObjectId, Vec<u8>); 2] {
    add(store, Kind::TRACE, (0..40).map(trace));
    add(store, Kind::LEDGER, [ledger(1)]);
    let contents = [noise(1, 700_000), noise(2, 300_000)];
    let bodies = ["c1", "c2"].map(|name| name.to_owned());
    let ids = [0, 1].map(|n| add_transcript(disk, store, &bodies[n], &contents[n]));
    at.push(store);
    let [first, second] = contents;
    [(ids[0], first), (ids[1], second)]
}

#[test]
fn what_is_left_out_is_noted_and_fetched_when_it_is_asked_for() {
    each_kind(|at| {
        let (disk, env, stores) = world(&["/a", "/b"]);
        let [(first, content), (second, other)] = filled(at, &disk, &stores[0]);
        let b = &stores[1];
        let pulled = at.pull(b, Transcripts::None);
        assert_eq!(
            (pulled.left_out, pulled.taken[&Kind::TRANSCRIPT], pulled.cannot_leave_out),
            (2, 2, false)
        );
        assert!(pulled.bytes < 30_000, "{} bytes for records alone", pulled.bytes);
        assert_eq!(records(&stores[0]), records(b));
        sound(b, 2);
        let here = at.open(&env, false).id().unwrap();
        assert_eq!(b.presence(&first).unwrap(), Presence::Elsewhere(vec![here]));
        assert_eq!(b.read(&first).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(at.pull(b, Transcripts::None).taken.len(), 0, "it is pulled once");
        // One of them.
        let brought = at.open(&env, false).bring(b, &[first], &Silent).unwrap();
        assert_eq!((brought.objects, brought.bytes, brought.not_there), (1, 700_000, vec![]));
        assert_eq!(
            (b.read(&first).unwrap() == content, b.presence(&first).unwrap()),
            (true, Presence::Present)
        );
        sound(b, 1);
        // The rest.
        let pulled = at.pull(b, Transcripts::All);
        assert_eq!((pulled.taken.len(), pulled.fetched, pulled.not_there), (0, 1, 0));
        assert_eq!(b.read(&second).unwrap(), other);
        sound(b, 0);
        assert!(b.elsewhere().unwrap().is_empty());
        let notes = disk.files().into_iter().filter(|path| path.starts_with("/b/elsewhere")).count();
        assert_eq!(notes, 0, "notes that are behind go");
        assert_eq!(at.push(b).sent.len(), 0);
    });
}

#[test]
fn notes_survive_the_index_a_reindex_and_a_compaction() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let at = folder("remote");
    let bodies = filled(&at, &disk, &stores[0]);
    at.pull(&stores[1], Transcripts::None);
    drop(stores);
    assert!(disk.remove_file(Path::new("/b/index.redb")));
    let b = Store::open(&env, Path::new("/b")).unwrap();
    sound(&b, 2);
    let report = reindex(&b, &Silent).unwrap();
    assert_eq!((report.salvaged, report.events), (vec![], 43));
    let plan = compact::plan(&b).unwrap();
    compact::execute(&b, &plan, &Silent).unwrap();
    sound(&b, 2);
    assert_eq!(b.elsewhere().unwrap().len(), 2);
    assert_eq!(at.pull(&b, Transcripts::All).fetched, 2);
    for (id, content) in &bodies {
        assert!(b.read(id).unwrap() == *content);
    }
    sound(&b, 0);
}

#[test]
fn a_damaged_note_is_named_and_a_reindex_and_a_pull_mend_the_store() {
    let (disk, _env, stores) = world(&["/a", "/b"]);
    let at = folder("remote");
    let bodies = filled(&at, &disk, &stores[0]);
    let b = &stores[1];
    at.pull(b, Transcripts::None);
    let notes: Vec<_> = disk.files().into_iter().filter(|path| path.starts_with("/b/elsewhere")).collect();
    assert!(notes.iter().all(|note| disk.flip_bit(note, 40, 3)));
    let report = verify(b, &Silent).unwrap();
    let codes: Vec<&str> = report.problems.iter().map(|problem| problem.code).collect();
    assert_eq!(
        (codes.iter().filter(|code| **code == "elsewhere").count(), report.elsewhere),
        (notes.len(), 0)
    );
    assert_eq!(codes.iter().filter(|code| **code == "closure").count(), 2);
    assert_eq!(b.elsewhere().unwrap_err().kind(), ErrorKind::Corrupt);
    let salvaged = reindex(b, &Silent).unwrap().salvaged;
    assert!(salvaged.iter().any(|line| line.contains("note")), "{salvaged:?}");
    sound(b, 0);
    // The two events that nothing vouched for are gone, and come back with their bytes.
    assert_eq!(at.pull(b, Transcripts::New).taken[&Kind::TRANSCRIPT], 2);
    for (id, content) in &bodies {
        assert!(b.read(id).unwrap() == *content);
    }
    sound(b, 0);
}

#[test]
fn a_transcript_that_grew_comes_whole_though_its_beginning_was_left_out() {
    each_kind(|at| {
        let (disk, _env, stores) = world(&["/a", "/b"]);
        let [(first, mut content), _] = filled(at, &disk, &stores[0]);
        at.pull(&stores[1], Transcripts::None);
        content.extend_from_slice(b"one more line\n");
        let grown = grow_transcript(&disk, &stores[0], first, &content);
        add(&stores[0], Kind::TRACE, (100..110).map(trace));
        at.push(&stores[0]);
        let pulled = at.pull(&stores[1], Transcripts::New);
        assert_eq!((pulled.taken[&Kind::TRANSCRIPT], pulled.taken[&Kind::TRACE]), (1, 10));
        assert!(stores[1].read(&grown).unwrap() == content);
        assert_eq!(verify(&stores[1], &Silent).unwrap().problems, vec![]);
        // And the other way round: what is here is not left out.
        content.extend_from_slice(b"and another\n");
        let grown = grow_transcript(&disk, &stores[0], grown, &content);
        at.push(&stores[0]);
        let pulled = at.pull(&stores[1], Transcripts::None);
        assert_eq!((pulled.taken[&Kind::TRANSCRIPT], pulled.left_out), (1, 1));
        at.pull(&stores[1], Transcripts::All);
        assert!(stores[1].read(&grown).unwrap() == content);
        sound(&stores[1], 0);
    });
}

#[test]
fn what_is_elsewhere_goes_to_no_other_remote_before_it_is_here() {
    each_kind(|at| {
        let (disk, _env, stores) = world(&["/a", "/b", "/c"]);
        let bodies = filled(at, &disk, &stores[0]);
        let (b, other) = (&stores[1], folder("other"));
        at.pull(b, Transcripts::None);
        assert_eq!(at.push(b).elsewhere, 0, "where it came from it needs no sending");
        for pushed in [other.push(b), other.push(b)] {
            assert_eq!((pushed.elsewhere, pushed.sent.get(&Kind::TRANSCRIPT)), (2, None));
        }
        other.pull(&stores[2], Transcripts::New);
        assert_eq!(records(&stores[2]).len(), 41);
        sound(&stores[2], 0);
        at.pull(b, Transcripts::All);
        let pushed = other.push(b);
        assert_eq!((pushed.elsewhere, pushed.sent[&Kind::TRANSCRIPT]), (0, 2));
        other.pull(&stores[2], Transcripts::New);
        for (id, content) in &bodies {
            assert!(stores[2].read(id).unwrap() == *content);
        }
    });
}

#[test]
fn a_remote_that_does_not_hold_a_body_says_so() {
    each_kind(|at| {
        let (disk, _env, stores) = world(&["/a", "/b"]);
        filled(at, &disk, &stores[0]);
        let b = &stores[1];
        at.pull(b, Transcripts::None);
        let other = folder("other");
        other.push(b);
        let pulled = other.pull(b, Transcripts::All);
        assert_eq!((pulled.fetched, pulled.not_there), (0, 2));
        assert_eq!(b.elsewhere().unwrap().len(), 2);
        let nowhere = ObjectId::of(b"nowhere");
        let brought = at.open(b.env(), false).bring(b, &[nowhere], &Silent).unwrap();
        assert_eq!((brought.objects, brought.not_there), (0, vec![nowhere]));
    });
}

#[test]
fn a_service_that_cannot_leave_transcripts_out_sends_them() {
    let project = Shared::default();
    let shared = Arc::clone(&project);
    let server = Server::start(move |request| {
        let mut response = shared.lock().unwrap().answer(request);
        if request.path == "/api/v2/caps" {
            let text = String::from_utf8(response.body).unwrap();
            assert!(text.contains(r#""features":["no_transcripts"],"#), "{text}");
            response.body = text.replace(r#""features":["no_transcripts"],"#, "").into_bytes();
        }
        response
    });
    let (disk, env, stores) = world(&["/a", "/b"]);
    let content = noise(1, 400_000);
    let body = add_transcript(&disk, &stores[0], "c1", &content);
    service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    let options = PullOptions { transcripts: Transcripts::None, ..PullOptions::default() };
    let pulled = service(&env, &server).pull(&stores[1], &options, &Silent).unwrap();
    assert_eq!((pulled.cannot_leave_out, pulled.left_out), (true, 0));
    assert!(stores[1].read(&body).unwrap() == content);
}

#[test]
fn a_service_of_protocol_1_is_asked_for_nothing() {
    let server = Server::start(|_| Response::new(404, ""));
    let (_disk, env, stores) = world(&["/a"]);
    let options = PullOptions { transcripts: Transcripts::None, ..PullOptions::default() };
    let error = service(&env, &server).pull(&stores[0], &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(server.seen(), ["GET /api/v2/caps"]);
}

#[test]
fn bytes_that_are_not_those_of_the_object_are_refused() {
    let project = Shared::default();
    let shared = Arc::clone(&project);
    let server = Server::start(move |request| match request.path.contains("/objects/") {
        true => Response::new(200, "something else"),
        false => shared.lock().unwrap().answer(request),
    });
    let (_disk, env, stores) = world(&["/a"]);
    let id = ObjectId::of(b"wanted");
    let error = service(&env, &server).bring(&stores[0], &[id], &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!stores[0].contains(&id).unwrap());
}

/// What a crash may cut: a pull that leaves transcripts out, one body fetched, then the rest.
fn lazily(env: &Env, at: &At, first: ObjectId) -> Result<(), Error> {
    let address = RemoteUrl::parse(&at.url, Plaintext::Loopback)?;
    let store = Store::init(env, Path::new("/b"))?;
    let pull = |transcripts| {
        let options = PullOptions { transcripts, ..PullOptions::default() };
        Exchange::open(env, &address, None, false)?.pull(&store, &options, &Silent).map(drop)
    };
    pull(Transcripts::None)?;
    Exchange::open(env, &address, None, false)?.bring(&store, &[first], &Silent)?;
    pull(Transcripts::All)
}

#[test]
fn an_event_is_never_here_without_its_bytes_or_a_note() {
    let at = folder("remote");
    let (disk, env, stores) = world(&["/a"]);
    add(&stores[0], Kind::TRACE, (0..3).map(trace));
    let contents = [noise(1, 60_000), noise(2, 40_000)];
    let first = add_transcript(&disk, &stores[0], "c1", &contents[0]);
    let second = add_transcript(&disk, &stores[0], "c2", &contents[1]);
    at.push(&stores[0]);
    drop(stores);
    drop(env);
    disk.settle();
    let quiet = disk.snapshot(0);
    let before = quiet.operations();
    lazily(&quiet.env(), &at, first).unwrap();
    let operations = quiet.operations() - before;
    assert!(operations > 60, "{operations}");
    let faults = [None, Some(FaultKind::Eio), Some(FaultKind::Enospc), Some(FaultKind::SyncFail)];
    for (offset, fault) in (0..).zip(faults) {
        // A cut at every write; a disk that fails is like the one before it for many of them.
        let stride = if fault.is_none() { 1 } else { 7 };
        for at_operation in (offset..operations).step_by(stride) {
            let case = format!("{fault:?} at operation {at_operation}");
            let disk = disk.snapshot(at_operation);
            let place = disk.operations() + at_operation;
            match fault {
                None => disk.crash_at(place),
                Some(kind) => disk.fail_at(place, kind, Repeat::FromThenOn),
            }
            let cut = lazily(&disk.env(), &at, first);
            let hit = disk.faults_hit() > 0 || !disk.is_powered();
            assert!(cut.is_ok() || hit, "{case}: {cut:?}");
            disk.clear_faults();
            if disk.is_powered() {
                disk.crash();
            } else {
                disk.restart();
            }
            if let Ok(store) = Store::open(&disk.env(), Path::new("/b")) {
                assert_eq!(verify(&store, &Silent).unwrap().problems, vec![], "{case}");
            }
            lazily(&disk.env(), &at, first).unwrap_or_else(|error| panic!("{case}, again: {error:?}"));
            let store = Store::open(&disk.env(), Path::new("/b")).unwrap();
            for (id, content) in [first, second].iter().zip(&contents) {
                assert!(store.read(id).unwrap() == *content, "{case}");
            }
            let report = verify(&store, &Silent).unwrap();
            assert_eq!((report.problems, report.elsewhere), (vec![], 0), "{case}");
        }
    }
}

#[test]
fn the_world_outside_is_the_same() {
    // The service of these tests runs on real files: a store beside it leaves out and fetches as well.
    let dir = tempfile::tempdir().unwrap();
    let (url, token) = crate::real::start(&dir);
    let at = At { url, token: Some(token) };
    let (disk, _env, stores) = world(&["/a"]);
    let [(first, content), _] = filled(&at, &disk, &stores[0]);
    let store = Store::init(&os_env(), &dir.path().join("store")).unwrap();
    at.pull(&store, Transcripts::None);
    sound(&store, 2);
    at.open(store.env(), false).bring(&store, &[first], &Silent).unwrap();
    assert!(store.read(&first).unwrap() == content);
}

#[test]
fn many_bodies_come_from_a_service_in_one_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (url, token) = crate::real::start(&dir);
    let at = At { url, token: Some(token) };
    let (disk, _env, stores) = world(&["/a", "/b"]);
    let mut content = noise(1, 400_000);
    let mut grown = vec![(add_transcript(&disk, &stores[0], "c1", &content), content.clone())];
    for state in 0..20u8 {
        content.extend_from_slice(&noise(100 + state, 1_000));
        let before = grown.last().unwrap().0;
        grown.push((grow_transcript(&disk, &stores[0], before, &content), content.clone()));
    }
    at.push(&stores[0]);
    at.pull(&stores[1], Transcripts::None);
    sound(&stores[1], 21);
    let pulled = at.pull(&stores[1], Transcripts::All);
    assert_eq!((pulled.fetched, pulled.not_there, pulled.taken.len()), (21, 0, 0));
    assert!(pulled.requests < 5, "{} requests", pulled.requests);
    assert!(pulled.bytes < 600_000, "{} bytes for 8 MB that share 0.4", pulled.bytes);
    for (id, content) in &grown {
        assert!(stores[1].read(id).unwrap() == *content);
    }
    sound(&stores[1], 0);
    assert_eq!(at.push(&stores[1]).sent.len(), 0);
}
