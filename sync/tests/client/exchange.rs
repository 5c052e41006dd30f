//! Push and pull by protocol 2.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use agent_trace_store::progress::Silent;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, Kind, Store};
use agent_trace_sync::gate::Gate;
use agent_trace_sync::take::PullOptions;

use crate::project::{Project, Shared};
use crate::server::{Request, Response, Server};
use crate::{add, add_transcript, full, ledger, noise, records, service, trace, world};

fn start(project: &Shared) -> Server {
    let project = Arc::clone(project);
    Server::start(move |request| project.lock().unwrap().answer(request))
}

#[test]
fn two_stores_converge_and_nothing_new_takes_two_requests() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let server = start(&Shared::default());
    add(&stores[0], Kind::TRACE, (0..300).map(trace));
    add(&stores[1], Kind::TRACE, (200..400).map(trace));
    let content = noise(700_000);
    let body = add_transcript(&disk, &stores[0], "conversation-1", &content);
    let pushed = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    assert_eq!(pushed.sent.values().sum::<u64>(), 301);
    service(&env, &server).push(&stores[1], &full(), &Silent).unwrap();
    for store in &stores {
        let pulled = service(&env, &server).pull(store, &PullOptions::default(), &Silent).unwrap();
        assert_eq!((&pulled.refused, &pulled.forks), (&Vec::new(), &Vec::new()));
    }
    assert_eq!(records(&stores[0]), records(&stores[1]));
    assert_eq!(stores[1].read(&body).unwrap(), content);
    for store in &stores {
        let again = service(&env, &server);
        again.check_scope().unwrap();
        let pushed = again.push(store, &full(), &Silent).unwrap();
        assert_eq!((pushed.sent.len(), pushed.requests), (0, 2));
        let pulled = service(&env, &server).pull(store, &PullOptions::default(), &Silent).unwrap();
        assert_eq!((pulled.taken.len(), pulled.requests), (0, 1));
    }
    // One new trace: arrivals, one upload, one commit.
    add(&stores[0], Kind::TRACE, [trace(900)]);
    let pushed = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    assert_eq!((pushed.sent[&Kind::TRACE], pushed.requests), (1, 3));
    let seen = server.seen();
    assert_eq!(seen.last().unwrap(), "POST /api/v2/acme/web/commit");
    assert!(seen.iter().rev().nth(1).unwrap().starts_with("PUT /api/v2/acme/web/uploads/"));
    assert_eq!(seen.iter().rev().nth(2).unwrap(), "GET /api/v2/acme/web/arrivals");
    let pulled = service(&env, &server).pull(&stores[1], &PullOptions::default(), &Silent).unwrap();
    assert_eq!(pulled.taken[&Kind::TRACE], 1);
    assert_eq!(server.last().headers["authorization"], "Bearer at_secret-of-acme");
}

#[test]
fn plain_push_holds_back_and_a_grown_transcript_sends_its_tail() {
    let (disk, env, stores) = world(&["/a"]);
    let server = start(&Shared::default());
    add(&stores[0], Kind::TRACE, (0..10).map(trace));
    add(&stores[0], Kind::LEDGER, [ledger(1)]);
    let pushed = service(&env, &server).push(&stores[0], &Default::default(), &Silent).unwrap();
    assert_eq!((pushed.sent[&Kind::LEDGER], pushed.held_back[&Kind::TRACE]), (1, 10));
    let mut content = noise(900_000);
    add_transcript(&disk, &stores[0], "conversation-1", &content);
    service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    content.extend_from_slice(b"one more line\n");
    add_transcript(&disk, &stores[0], "conversation-1", &content);
    let pushed = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    assert_eq!(pushed.sent[&Kind::TRANSCRIPT], 1);
    assert!(pushed.bytes < 300_000, "{} bytes for a few more", pushed.bytes);
}

#[test]
fn a_commit_whose_answer_is_lost_is_repeated_and_counts_once() {
    let (_disk, env, stores) = world(&["/a", "/b"]);
    let project = Shared::default();
    let lost = Arc::new(AtomicU32::new(0));
    let (shared, count) = (Arc::clone(&project), Arc::clone(&lost));
    let server = Server::start(move |request: &Request| {
        let mut response = shared.lock().unwrap().answer(request);
        if request.path.ends_with("/commit") && count.fetch_add(1, Ordering::Relaxed) < 2 {
            response.headers.push(("content-length", "100000".to_owned()));
            response.cut = Some(0);
            response.status = 503;
        }
        response
    });
    add(&stores[0], Kind::TRACE, (0..40).map(trace));
    let pushed = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    assert_eq!(pushed.sent[&Kind::TRACE], 40);
    assert_eq!(project.lock().unwrap().counts(), (40, 1));
    service(&env, &server).pull(&stores[1], &PullOptions::default(), &Silent).unwrap();
    assert_eq!(records(&stores[0]), records(&stores[1]));
}

#[test]
fn a_push_that_was_cut_goes_on_with_the_same_commit() {
    for takes_it in [false, true] {
        let (_disk, env, stores) = world(&["/a"]);
        let project = Shared::default();
        let down = Arc::new(Mutex::new(true));
        let batches = Arc::new(Mutex::new(Vec::new()));
        let (shared, is_down, noted) = (Arc::clone(&project), Arc::clone(&down), Arc::clone(&batches));
        let server = Server::start(move |request: &Request| {
            if request.path.ends_with("/commit") {
                noted.lock().unwrap().push(request.body.clone());
                if *is_down.lock().unwrap() {
                    if takes_it {
                        shared.lock().unwrap().answer(request);
                    }
                    return Response::new(503, r#"{"error":"draining","code":"unavailable"}"#);
                }
            }
            shared.lock().unwrap().answer(request)
        });
        add(&stores[0], Kind::TRACE, (0..40).map(trace));
        let error = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        *down.lock().unwrap() = false;
        let store = Store::open(&env, Path::new("/a")).unwrap();
        service(&env, &server).push(&store, &full(), &Silent).unwrap();
        assert_eq!(project.lock().unwrap().counts(), (40, 1));
        let batches = batches.lock().unwrap();
        assert!(batches.iter().all(|batch| *batch == batches[0]), "another commit was made");
        let again = service(&env, &server).push(&store, &full(), &Silent).unwrap();
        assert_eq!((again.sent.len(), again.requests), (0, 1));
    }
}

#[test]
fn a_stream_that_is_cut_goes_on_and_one_that_was_changed_is_refused() {
    let (_disk, env, stores) = world(&["/a", "/b", "/c"]);
    let project = Shared::default();
    let cuts = Arc::new(AtomicU32::new(0));
    let (shared, count) = (Arc::clone(&project), Arc::clone(&cuts));
    let server = Server::start(move |request: &Request| {
        let mut response = shared.lock().unwrap().answer(request);
        if request.path.ends_with("/pull") && count.fetch_add(1, Ordering::Relaxed) == 0 {
            response.cut = Some(response.body.len() - 60);
        }
        response
    });
    for part in 0..3 {
        add(&stores[0], Kind::TRACE, (part * 100..part * 100 + 50).map(trace));
        service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    }
    service(&env, &server).pull(&stores[1], &PullOptions::default(), &Silent).unwrap();
    assert_eq!(records(&stores[0]), records(&stores[1]));
    project.lock().unwrap().spoils = true;
    let pulled = service(&env, &server).pull(&stores[2], &PullOptions::default(), &Silent).unwrap();
    assert_eq!(pulled.refused.len(), 3, "{:?}", pulled.refused);
    assert!(records(&stores[2]).is_empty());
    project.lock().unwrap().spoils = false;
    service(&env, &server).pull(&stores[2], &PullOptions::default(), &Silent).unwrap();
    assert_eq!(records(&stores[0]), records(&stores[2]));
}

#[test]
fn a_restored_store_takes_a_new_writer() {
    let (disk, env, stores) = world(&["/a"]);
    let server = start(&Shared::default());
    add(&stores[0], Kind::TRACE, (0..10).map(trace));
    service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    // What a backup of that moment holds.
    let files = || disk.files().into_iter().filter(|path| path.starts_with("/a")).collect::<Vec<_>>();
    let saved: Vec<_> = files().into_iter().map(|path| (disk.read_file(&path).unwrap(), path)).collect();
    add(&stores[0], Kind::TRACE, (10..20).map(trace));
    service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    drop(stores);
    for path in files() {
        disk.remove_file(&path);
    }
    for (content, path) in saved {
        disk.write_file(&path, &content);
    }
    let store = Store::open(&env, Path::new("/a")).unwrap();
    add(&store, Kind::TRACE, (30..35).map(trace));
    let before = store.writer();
    let pushed = service(&env, &server).push(&store, &full(), &Silent).unwrap();
    assert!(pushed.new_writer);
    assert_ne!(store.writer(), before);
    let other = Store::init(&env, Path::new("/other")).unwrap();
    service(&env, &server).pull(&other, &PullOptions::default(), &Silent).unwrap();
    assert_eq!(records(&other).len(), 25);
}

#[test]
fn another_history_is_learned_anew() {
    let (_disk, env, stores) = world(&["/a", "/b"]);
    let project = Shared::default();
    let server = start(&project);
    add(&stores[0], Kind::TRACE, (0..10).map(trace));
    service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    // A service that starts from nothing: what is here goes there again.
    *project.lock().unwrap() = Project::with_epoch([7; 16]);
    let pushed = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    assert_eq!((pushed.sent[&Kind::TRACE], pushed.gone_back.len()), (10, 1));
    // The same history under another name: nothing is sent or taken twice.
    project.lock().unwrap().epoch = [8; 16];
    let pushed = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
    assert_eq!(pushed.sent.len(), 0);
    service(&env, &server).pull(&stores[1], &PullOptions::default(), &Silent).unwrap();
    assert_eq!(records(&stores[0]), records(&stores[1]));
}

/// Refuses everything.
struct Closed;

impl Gate for Closed {
    fn ask(&self, _store: &Store, leaving: &EventSet) -> agent_trace_store::Result<()> {
        Err(Error::new(ErrorKind::Refused, format!("{} events", leaving.len())))
    }
}

#[test]
fn what_a_gate_refuses_is_not_uploaded() {
    let (_disk, env, stores) = world(&["/a"]);
    let server = start(&Shared::default());
    add(&stores[0], Kind::TRACE, (0..10).map(trace));
    let refused = service(&env, &server).push_through(&stores[0], &full(), &Closed, &Silent).unwrap_err();
    assert_eq!((refused.kind(), refused.message()), (ErrorKind::Refused, "10 events"));
    let seen = server.seen();
    assert!(
        !seen.iter().any(|request| request.starts_with("PUT") || request.ends_with("commit")),
        "{seen:?}"
    );
    service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
}
