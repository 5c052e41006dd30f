//! A cursor that is lost: what differs is found and sent, and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::progress::Silent;
use agent_trace_store::{Kind, Store};
use agent_trace_sync::push::PushReport;
use agent_trace_sync::take::{PullOptions, PullReport};
use agent_trace_sync::wire::{Cursor, FetchRequest, ReconcileRequest, Symbol, SymbolsBody};

use crate::project::Shared;
use crate::server::{Request, Response, Server};
use crate::{add, full, records, service, trace, world};

const ALIKE: u32 = 3_000;

/// A server that notes how long the answers to comparisons are.
fn start(project: &Shared) -> (Server, Arc<AtomicUsize>) {
    let (project, bytes) = (Arc::clone(project), Arc::new(AtomicUsize::new(0)));
    let noted = Arc::clone(&bytes);
    let server = Server::start(move |request| {
        let response = project.lock().unwrap().answer(request);
        if request.path.ends_with("/reconcile") {
            noted.fetch_add(response.body.len(), Ordering::Relaxed);
        }
        response
    });
    (server, bytes)
}

fn pull(env: &Env, server: &Server, store: &Store) -> PullReport {
    let report = service(env, server).pull(store, &PullOptions::default(), &Silent).unwrap();
    assert_eq!(report.refused, Vec::<String>::new());
    report
}

fn push(env: &Env, server: &Server, store: &Store) -> PushReport {
    service(env, server).push(store, &full(), &Silent).unwrap()
}

/// Both have `ALIKE` traces; then `/b` has sent 40 more, and `/a` holds 20 that it has not sent.
fn differ(env: &Env, server: &Server, stores: &[Store]) {
    add(&stores[0], Kind::TRACE, (0..ALIKE).map(trace));
    push(env, server, &stores[0]);
    pull(env, server, &stores[1]);
    add(&stores[1], Kind::TRACE, (10_000..10_040).map(trace));
    push(env, server, &stores[1]);
    add(&stores[0], Kind::TRACE, (20_000..20_020).map(trace));
}

/// The first store without all that it remembered.
pub fn without_index(disk: &SimDisk, env: &Env, stores: Vec<Store>) -> (Store, Store) {
    let mut stores = stores.into_iter();
    drop(stores.next());
    let store = reopened(disk, env);
    (store, stores.next().unwrap())
}

pub fn reopened(disk: &SimDisk, env: &Env) -> Store {
    let index = |path: &Path| path.starts_with("/a") && path.ends_with("index.redb");
    let files: Vec<_> = disk.files().into_iter().filter(|path| index(path)).collect();
    assert_eq!(files.len(), 1);
    disk.remove_file(&files[0]);
    let store = Store::open(env, Path::new("/a")).unwrap();
    store.catch_up().unwrap();
    store
}

fn calls(server: &Server, from: usize) -> Vec<String> {
    let seen = server.seen().split_off(from);
    seen.into_iter().map(|call| call.rsplit('/').next().unwrap().to_owned()).collect()
}

fn listed_from_the_first(request: &Request) -> bool {
    request.path.ends_with("/arrivals") && request.query.get("after").is_some_and(|after| after == "0")
}

#[test]
fn a_pull_without_a_cursor_asks_for_what_differs() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let (server, bytes) = start(&Shared::default());
    differ(&env, &server, &stores);
    let (a, b) = without_index(&disk, &env, stores);
    let (from, bytes_before) = (server.seen().len(), bytes.load(Ordering::Relaxed));
    let pulled = pull(&env, &server, &a);
    assert_eq!(pulled.taken[&Kind::TRACE], 40);
    assert_eq!(calls(&server, from), ["caps", "arrivals", "reconcile", "fetch"]);
    let asked = FetchRequest::decode(&server.last().body).unwrap();
    assert_eq!((asked.runs.len(), asked.ids.len()), (0, 40));
    let cost = bytes.load(Ordering::Relaxed) - bytes_before;
    assert!(cost < 256 * 48 + 128, "{cost} bytes for a difference of 60 in {ALIKE}");
    // What is remembered now is exact.
    assert_eq!(pull(&env, &server, &a).taken.len(), 0);
    let from = server.seen().len();
    assert_eq!(push(&env, &server, &a).sent[&Kind::TRACE], 20);
    assert_eq!(push(&env, &server, &a).sent.len(), 0);
    assert!(!calls(&server, from).contains(&"fetch".to_owned()));
    assert_eq!(pull(&env, &server, &b).taken[&Kind::TRACE], 20);
    assert_eq!(records(&a), records(&b));
}

#[test]
fn a_push_without_a_cursor_sends_what_is_not_there() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let project = Shared::default();
    let (server, _) = start(&project);
    differ(&env, &server, &stores);
    let (a, b) = without_index(&disk, &env, stores);
    let from = server.seen().len();
    let pushed = push(&env, &server, &a);
    assert_eq!((pushed.sent[&Kind::TRACE], pushed.new_writer), (20, false));
    assert_eq!(project.lock().unwrap().position, u64::from(ALIKE) + 60);
    assert_eq!(push(&env, &server, &a).sent.len(), 0);
    // What only the service holds is still known by its ids.
    assert_eq!(pull(&env, &server, &a).taken[&Kind::TRACE], 40);
    assert_eq!(push(&env, &server, &a).sent.len(), 0);
    assert_eq!(pull(&env, &server, &a).taken.len(), 0);
    assert_eq!(calls(&server, from).iter().filter(|call| *call == "reconcile").count(), 1);
    assert!(!server.requests()[from..].iter().any(listed_from_the_first));
    assert_eq!(pull(&env, &server, &b).taken[&Kind::TRACE], 20);
    assert_eq!(records(&a), records(&b));
}

#[test]
fn what_came_by_another_way_is_not_sent_back() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let project = Shared::default();
    let (server, _) = start(&project);
    differ(&env, &server, &stores);
    let (a, b) = without_index(&disk, &env, stores);
    assert_eq!(push(&env, &server, &a).sent[&Kind::TRACE], 20);
    // Another service, that holds all of `/b`.
    let (other, _) = start(&Shared::default());
    push(&env, &other, &b);
    assert_eq!(pull(&env, &other, &a).taken[&Kind::TRACE], 40);
    assert_eq!(push(&env, &server, &a).sent.len(), 0);
    assert_eq!(pull(&env, &server, &a).taken.len(), 0);
    assert_eq!(project.lock().unwrap().position, u64::from(ALIKE) + 60);
}

#[test]
fn another_history_is_compared() {
    let (_disk, env, stores) = world(&["/a", "/b"]);
    let project = Shared::default();
    let (server, _) = start(&project);
    differ(&env, &server, &stores);
    project.lock().unwrap().epoch = [8; 16];
    let from = server.seen().len();
    let pushed = push(&env, &server, &stores[0]);
    assert_eq!((pushed.sent[&Kind::TRACE], pushed.gone_back.len()), (20, 1));
    assert_eq!(calls(&server, from)[..3], ["arrivals", "arrivals", "reconcile"]);
    assert_eq!(pull(&env, &server, &stores[0]).taken[&Kind::TRACE], 40);
    assert_eq!(pull(&env, &server, &stores[1]).taken[&Kind::TRACE], 20);
    assert_eq!(records(&stores[0]), records(&stores[1]));
    assert!(!server.requests()[from..].iter().any(listed_from_the_first));
}

#[test]
fn symbols_that_lie_end_in_a_list() {
    type Lie = fn(&Request, &mut SymbolsBody);
    let lies: [Lie; 5] = [
        |_, body| body.symbols.iter_mut().for_each(|symbol| symbol.count = 1),
        |_, body| body.symbols = vec![Symbol { sum: [9; 32], checks: 7, count: 5 }],
        |_, body| body.symbols.iter_mut().for_each(|symbol| *symbol = Symbol::default()),
        |_, body| body.size += 1,
        |request, body| {
            let wanted = ReconcileRequest::decode(&request.body).unwrap();
            body.taken_at.position += wanted.first;
            body.symbols.truncate(1);
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let (disk, env, stores) = world(&["/a", "/b"]);
        let project = Shared::default();
        let server = Server::start(move |request| {
            let mut response = project.lock().unwrap().answer(request);
            if request.path.ends_with("/reconcile") {
                let mut body = SymbolsBody::decode(&response.body).unwrap();
                lie(request, &mut body);
                response.body = body.encode();
            }
            response
        });
        differ(&env, &server, &stores);
        let (a, b) = without_index(&disk, &env, stores);
        let from = server.seen().len();
        assert_eq!(pull(&env, &server, &a).taken[&Kind::TRACE], 40, "lie {number}");
        let asked = calls(&server, from).iter().filter(|call| *call == "reconcile").count();
        assert!((1..=16).contains(&asked), "lie {number}: asked {asked} times");
        assert!(server.requests()[from..].iter().any(listed_from_the_first), "lie {number}");
        assert_eq!(push(&env, &server, &a).sent[&Kind::TRACE], 20, "lie {number}");
        pull(&env, &server, &b);
        assert_eq!(records(&a), records(&b));
    }
}

#[test]
fn ids_that_the_service_does_not_hold_are_forgotten() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let project = Shared::default();
    let shared = Arc::clone(&project);
    // It says that it holds an event more, and never sends it.
    let server = Server::start(move |request| {
        let response = shared.lock().unwrap().answer(request);
        if !request.path.ends_with("/reconcile") {
            return response;
        }
        let wanted = ReconcileRequest::decode(&request.body).unwrap();
        let mut body = SymbolsBody::decode(&response.body).unwrap();
        let cursor: Cursor = body.taken_at;
        let ghost = agent_trace_store::EventId::from_bytes([3; 32]);
        let more = agent_trace_sync::reconcile::answer(&wanted, cursor, [ghost].into_iter());
        body.size += 1;
        for (symbol, more) in body.symbols.iter_mut().zip(more.symbols) {
            symbol.sum.iter_mut().zip(more.sum).for_each(|(sum, byte)| *sum ^= byte);
            symbol.checks ^= more.checks;
            symbol.count += more.count;
        }
        Response::new(200, body.encode())
    });
    differ(&env, &server, &stores);
    let (a, _) = without_index(&disk, &env, stores);
    assert_eq!(pull(&env, &server, &a).taken[&Kind::TRACE], 40);
    let from = server.seen().len();
    assert_eq!(pull(&env, &server, &a).taken.len(), 0);
    assert_eq!(calls(&server, from), ["arrivals"]);
}

#[test]
fn a_store_that_shares_little_is_given_the_list() {
    let (_disk, env, stores) = world(&["/a", "/b", "/c"]);
    let (server, bytes) = start(&Shared::default());
    differ(&env, &server, &stores);
    add(&stores[2], Kind::TRACE, (0..200).map(trace));
    assert_eq!(pull(&env, &server, &stores[2]).taken[&Kind::TRACE], u64::from(ALIKE) + 40);
    assert_eq!(bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_restored_store_without_its_index_takes_a_new_writer() {
    let (disk, env, stores) = world(&["/a", "/b"]);
    let (server, _) = start(&Shared::default());
    add(&stores[0], Kind::TRACE, (0..ALIKE).map(trace));
    push(&env, &server, &stores[0]);
    let files = || disk.files().into_iter().filter(|path| path.starts_with("/a")).collect::<Vec<_>>();
    let saved: Vec<_> = files().into_iter().map(|path| (disk.read_file(&path).unwrap(), path)).collect();
    add(&stores[0], Kind::TRACE, (10_000..10_010).map(trace));
    push(&env, &server, &stores[0]);
    let mut stores = stores.into_iter();
    drop(stores.next());
    for path in files() {
        disk.remove_file(&path);
    }
    for (content, path) in &saved {
        disk.write_file(path, content);
    }
    let (a, b) = (reopened(&disk, &env), stores.next().unwrap());
    add(&a, Kind::TRACE, (20_000..20_005).map(trace));
    let before = a.writer();
    let pushed = push(&env, &server, &a);
    // Said again is only what is not there.
    assert_eq!((pushed.new_writer, pushed.sent[&Kind::TRACE]), (true, 5));
    assert_ne!(a.writer(), before);
    pull(&env, &server, &b);
    assert_eq!(records(&b).len(), ALIKE as usize + 15);
}
