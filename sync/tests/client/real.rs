//! The client against the service itself, with the embedded archive.

use std::sync::Arc;

use agent_trace_store::Kind;
use agent_trace_store::env::{Env, os_env};
use agent_trace_store::progress::Silent;
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::service::archive::{Accounts, NewToken};
use agent_trace_sync::service::embedded::{AdminSecret, Embedded};
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{Backend, Config, Server};
use agent_trace_sync::service_remote::Service;
use agent_trace_sync::take::PullOptions;
use agent_trace_sync::token::Token;

use crate::compare::{reopened, without_index};
use crate::{add, add_transcript, full, ledger, noise, records, trace, world};

/// Runs as long as the test's process.
pub fn start(dir: &tempfile::TempDir) -> (String, String) {
    let (url, tokens) = start_with(dir, &[&[Scope::Read, Scope::Write]]);
    (url, tokens[0].clone())
}

/// The same with a token for each of these sets of scopes.
pub fn start_with(dir: &tempfile::TempDir, scopes: &[&[Scope]]) -> (String, Vec<String>) {
    let env = os_env();
    let (accounts, staging) = Embedded::open(&env, &dir.path().join("data")).unwrap();
    let secret = AdminSecret::parse("the-admin-secret-of-the-tests").unwrap();
    accounts.book().admit_admin(Some(&secret)).unwrap();
    let org_id = accounts.put_org("acme", None, None).unwrap().0.id;
    accounts.create_project(&org_id, "web", None, None).unwrap();
    let token = |scopes: &&[Scope]| {
        let (org_id, scopes) = (org_id.clone(), scopes.to_vec());
        let new = NewToken { org_id, project: Some("web".to_owned()), scopes, name: None, expires_at: None };
        accounts.create_token(&new).unwrap().1.expose().to_owned()
    };
    let tokens = scopes.iter().map(token).collect();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics: None,
        tls: None,
        spool: dir.path().join("spool"),
        requests_per_second: 100_000,
    };
    let server = Server::bind(&config, Backend { env, accounts: Arc::new(accounts), staging }).unwrap();
    let url = format!("http://{}/acme/web", server.address());
    std::thread::spawn(move || server.run());
    (url, tokens)
}

pub fn client(env: &Env, (url, token): &(String, String)) -> Service {
    let RemoteUrl::Service(url) = RemoteUrl::parse(url, Plaintext::Loopback).unwrap() else {
        panic!("it is a service")
    };
    Service::open(env, &url, Some(Token::parse(token).unwrap())).unwrap()
}

#[test]
fn a_lost_cursor_is_found_again_by_what_differs() {
    for pushes_first in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let at = start(&dir);
        let (disk, env, stores) = world(&["/a", "/b"]);
        add(&stores[0], Kind::TRACE, (0..2_000).map(trace));
        client(&env, &at).push(&stores[0], &full(), &Silent).unwrap();
        client(&env, &at).pull(&stores[1], &PullOptions::default(), &Silent).unwrap();
        add(&stores[1], Kind::TRACE, (10_000..10_040).map(trace));
        let content = noise(600_000);
        let body = add_transcript(&disk, &stores[1], "conversation-1", &content);
        client(&env, &at).push(&stores[1], &full(), &Silent).unwrap();
        add(&stores[0], Kind::LEDGER, (0..20).map(ledger));
        let (a, b) = without_index(&disk, &env, stores);
        let push = || client(&env, &at).push(&a, &full(), &Silent).unwrap();
        let pull = || client(&env, &at).pull(&a, &PullOptions::default(), &Silent).unwrap();
        let check_push = || {
            let pushed = push();
            assert_eq!((pushed.sent.values().sum::<u64>(), pushed.new_writer), (20, false));
            assert_eq!(push().sent.len(), 0);
        };
        if pushes_first {
            check_push();
        }
        let pulled = pull();
        assert_eq!(
            (pulled.taken.values().sum::<u64>(), &pulled.refused, &pulled.forks),
            (41, &vec![], &vec![])
        );
        if !pushes_first {
            // What it speaks, how far it goes, symbols, and what differs.
            assert_eq!(pulled.requests, 4);
            check_push();
        }
        assert_eq!((pull().taken.len(), push().sent.len(), pull().requests), (0, 0, 1));
        assert_eq!(a.read(&body).unwrap(), content);
        client(&env, &at).pull(&b, &PullOptions::default(), &Silent).unwrap();
        assert_eq!(records(&a), records(&b));
    }
}

#[test]
fn a_restored_store_without_its_index_takes_a_new_writer() {
    let dir = tempfile::tempdir().unwrap();
    let at = start(&dir);
    let (disk, env, stores) = world(&["/a", "/b"]);
    add(&stores[0], Kind::TRACE, (0..2_000).map(trace));
    client(&env, &at).push(&stores[0], &full(), &Silent).unwrap();
    let files = || disk.files().into_iter().filter(|path| path.starts_with("/a")).collect::<Vec<_>>();
    let saved: Vec<_> = files().into_iter().map(|path| (disk.read_file(&path).unwrap(), path)).collect();
    add(&stores[0], Kind::TRACE, (10_000..10_010).map(trace));
    client(&env, &at).push(&stores[0], &full(), &Silent).unwrap();
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
    let pushed = client(&env, &at).push(&a, &full(), &Silent).unwrap();
    assert_eq!((pushed.new_writer, pushed.sent[&Kind::TRACE]), (true, 5));
    for store in [&a, &b] {
        let pulled = client(&env, &at).pull(store, &PullOptions::default(), &Silent).unwrap();
        assert_eq!(records(store).len(), 2_015, "{:?} {pulled:?}", store.dir());
    }
    assert_eq!(client(&env, &at).push(&a, &full(), &Silent).unwrap().sent.len(), 0);
}

#[test]
fn a_push_without_the_index_does_not_take_the_store_for_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let at = start(&dir);
    let (disk, env, stores) = world(&["/a", "/b"]);
    add(&stores[0], Kind::TRACE, (0..3).map(trace));
    client(&env, &at).push(&stores[0], &full(), &Silent).unwrap();
    add(&stores[0], Kind::TRACE, (3..5).map(trace));
    let (a, _) = without_index(&disk, &env, stores);
    let pushed = client(&env, &at).push(&a, &full(), &Silent).unwrap();
    assert_eq!((pushed.new_writer, pushed.sent[&Kind::TRACE]), (false, 2));
}
