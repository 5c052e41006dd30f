//! Push and pull by protocol 1, against a service with the habits of agent-trace-service 1.1.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use agent_trace_store::progress::Silent;
use agent_trace_store::{Kind, Store};
use agent_trace_sync::take::PullOptions;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::project::Shared;
use crate::server::{Request, Response, Server};
use crate::{add, add_transcript, full, ledger, noise, records, service, trace, world};

/// Rows by resource: key, arrival, record. All rows of one request get one time.
#[derive(Default)]
struct Rows {
    rows: BTreeMap<String, Vec<(String, String, Value)>>,
    blobs: BTreeMap<String, Vec<u8>>,
    posts: u64,
    takes_blobs: bool,
}

fn time(number: u64) -> String {
    format!("2026-03-01T00:{:02}:{:02}.000000+00:00", number / 60, number % 60)
}

impl Rows {
    fn answer(&mut self, request: &Request) -> Response {
        let path = request.path.as_str();
        if let Some(resource) = path.strip_prefix("/api/v1/sync/") {
            return match request.method.as_str() {
                "POST" => self.put(resource, &request.body),
                _ => self.page(resource, request),
            };
        }
        if let Some(sha256) = path.strip_prefix("/api/v1/blobs/") {
            return self
                .blobs
                .get(sha256)
                .map_or(Response::new(404, "{}"), |blob| Response::new(200, blob.clone()));
        }
        if path == "/api/v1/blobs" && self.takes_blobs {
            let sha256 = agent_trace_store::id::encode_hex(&Sha256::digest(&request.body));
            self.blobs.insert(sha256, request.body.clone());
            return Response::new(201, "{}");
        }
        if let Some(commit) = path.strip_prefix("/api/v1/ledgers/") {
            let found = self.rows["ledgers"].iter().find(|(key, _, _)| key == commit);
            return found
                .map_or(Response::new(404, "{}"), |(_, _, ledger)| Response::new(200, ledger.to_string()));
        }
        Response::new(404, "<html>not found</html>")
    }

    fn put(&mut self, resource: &str, body: &[u8]) -> Response {
        assert!(body.len() < 11 << 20, "the service would close the connection");
        if resource == "summaries" {
            return Response::new(404, "<html>");
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["project_id"], "web");
        self.posts += 1;
        let items = body["items"].as_array().unwrap();
        assert!(items.len() <= 500);
        for item in items {
            let key = match resource {
                "traces" => &item["id"],
                "conversations" => &item["conversation_id"],
                _ => &item["commit_sha"],
            };
            let key = key.as_str().unwrap().to_owned();
            if resource == "conversations"
                && item.get("content").is_none()
                && item.get("content_b64").is_none()
            {
                assert!(self.blobs.contains_key(item["content_sha256"].as_str().unwrap()));
            }
            let arrived = time(self.posts);
            if resource == "ledgers" {
                let link = json!({"commit_sha": key, "trace_ids": [], "files_changed": null});
                self.rows.entry("commit-links".into()).or_default().push((
                    key.clone(),
                    arrived.clone(),
                    link,
                ));
            }
            let rows = self.rows.entry(resource.to_owned()).or_default();
            rows.retain(|row| row.0 != key);
            rows.push((key, arrived, item.clone()));
        }
        Response::new(200, json!({"ok": true, "count": items.len()}).to_string())
    }

    fn page(&self, resource: &str, request: &Request) -> Response {
        let limit: usize = request.query["limit"].parse().unwrap();
        let since = request.query.get("since").cloned().unwrap_or_default();
        let moment = |text: &str| agent_trace_store::Timestamp::parse(text);
        let rows = self.rows.get(resource).into_iter().flatten();
        let rows: Vec<_> = rows.filter(|row| moment(&row.1) > moment(&since)).take(limit.min(1000)).collect();
        let newest = match resource {
            // The fault of that service: a ledger's own time.
            "ledgers" => rows.last().map(|_| "2026-02-01T00:00:00+00:00".to_owned()),
            _ => rows.last().map(|row| row.1.clone()),
        };
        let items: Vec<&Value> = rows.iter().map(|row| &row.2).collect();
        Response::new(200, json!({"items": items, "max_timestamp": newest}).to_string())
    }
}

fn start(takes_blobs: bool) -> (Arc<Mutex<Rows>>, Server) {
    let rows = Arc::new(Mutex::new(Rows { takes_blobs, ..Rows::default() }));
    let shared = Arc::clone(&rows);
    (rows, Server::start(move |request| shared.lock().unwrap().answer(request)))
}

#[test]
fn two_stores_converge_through_protocol_1() {
    for takes_blobs in [true, false] {
        let (disk, env, stores) = world(&["/a", "/b"]);
        let (rows, server) = start(takes_blobs);
        // Two requests of 500 come in the same moment as a page that is cut between them.
        add(&stores[0], Kind::TRACE, (0..1300).map(trace));
        add(&stores[0], Kind::LEDGER, (0..1100).map(ledger));
        let small = add_transcript(&disk, &stores[0], "conversation-1", "text\u{0}\u{1f600}".as_bytes());
        let odd = add_transcript(&disk, &stores[0], "conversation-2", b"\xff\xfe no text");
        let large = add_transcript(&disk, &stores[0], "conversation-3", &noise(600_000));
        let pushed = service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
        assert_eq!(pushed.refused, Vec::<String>::new());
        assert_eq!(pushed.sent.values().sum::<u64>(), 1300 + 1100 + 3);
        let posts = rows.lock().unwrap().posts;
        service(&env, &server).push(&stores[0], &full(), &Silent).unwrap();
        assert_eq!(rows.lock().unwrap().posts, posts, "nothing is sent twice");
        let pulled = service(&env, &server).pull(&stores[1], &PullOptions::default(), &Silent).unwrap();
        assert_eq!(pulled.refused, Vec::<String>::new());
        assert_eq!((pulled.taken[&Kind::TRACE], pulled.taken[&Kind::LEDGER]), (1300, 1100));
        for body in [small, odd, large] {
            assert_eq!(stores[1].read(&body).unwrap(), stores[0].read(&body).unwrap());
        }
        let before = records(&stores[1]).len();
        let pulled = service(&env, &server).pull(&stores[1], &PullOptions::default(), &Silent).unwrap();
        assert_eq!(pulled.taken, BTreeMap::new());
        assert_eq!(records(&stores[1]).len(), before);
        // What came from there is not sent back, and the first finds only links that it had not.
        service(&env, &server).push(&stores[1], &full(), &Silent).unwrap();
        assert_eq!(rows.lock().unwrap().posts, posts);
        let pulled = service(&env, &server).pull(&stores[0], &PullOptions::default(), &Silent).unwrap();
        assert_eq!(pulled.taken.keys().copied().collect::<Vec<_>>(), [Kind::COMMIT_LINK]);
    }
}

#[test]
fn rows_of_one_moment_are_not_lost_between_pages() {
    let (_disk, env, stores) = world(&["/a"]);
    let (rows, server) = start(true);
    let all = (0..1600u32).map(|number| {
        (
            number.to_string(),
            time(u64::from(1 + number / 400)),
            serde_json::from_slice(&trace(number)).unwrap(),
        )
    });
    rows.lock().unwrap().rows.insert("traces".into(), all.collect());
    let pulled = service(&env, &server).pull(&stores[0], &PullOptions::default(), &Silent).unwrap();
    assert_eq!(pulled.taken[&Kind::TRACE], 1600);
}

#[test]
fn what_arrived_before_a_failure_stays() {
    let (_disk, env, stores) = world(&["/a"]);
    let server = Server::start(|request| match request.path.as_str() {
        "/api/v1/sync/traces" => {
            let item: Value = serde_json::from_slice(&trace(1)).unwrap();
            Response::new(200, json!({"items": [item], "max_timestamp": time(1)}).to_string())
        }
        "/api/v2/caps" => Response::new(404, ""),
        _ => Response::new(500, "<html>"),
    });
    assert!(service(&env, &server).pull(&stores[0], &PullOptions::default(), &Silent).is_err());
    let store = Store::open(&env, std::path::Path::new("/a")).unwrap();
    assert_eq!(records(&store).len(), 1);
}

#[test]
fn a_service_that_was_upgraded_is_spoken_to_by_protocol_2() {
    let (disk, env, stores) = world(&["/a", "/b", "/moved"]);
    let (rows, project) = (Arc::new(Mutex::new(Rows::default())), Shared::default());
    let speaks_2 = Arc::new(AtomicBool::new(false));
    let (shared, moved, speaks) = (Arc::clone(&rows), Arc::clone(&project), Arc::clone(&speaks_2));
    let server = Server::start(move |request| match speaks.load(Ordering::Relaxed) {
        true => moved.lock().unwrap().answer(request),
        false => shared.lock().unwrap().answer(request),
    });
    let push = |store: &Store| service(&env, &server).push(store, &full(), &Silent);
    let pull = |store: &Store| service(&env, &server).pull(store, &PullOptions::default(), &Silent);
    add(&stores[0], Kind::TRACE, (0..40).map(trace));
    let content = noise(200_000);
    add_transcript(&disk, &stores[0], "conversation-1", &content);
    push(&stores[0]).unwrap();
    pull(&stores[1]).unwrap();
    let posts = rows.lock().unwrap().posts;
    push(&stores[0]).unwrap();
    let asked = |path: &str| server.seen().iter().filter(|seen| seen.ends_with(path)).count();
    assert_eq!((asked("/api/v2/caps"), rows.lock().unwrap().posts), (3, posts), "asked each time");
    // The new service has taken over what the old one held, but for two traces.
    add(&stores[2], Kind::TRACE, (0..38).map(trace));
    add_transcript(&disk, &stores[2], "conversation-1", &content);
    let shared = Arc::clone(&project);
    let direct = Server::start(move |request| shared.lock().unwrap().answer(request));
    service(&env, &direct).push(&stores[2], &full(), &Silent).unwrap();
    speaks_2.store(true, Ordering::Relaxed);
    add(&stores[0], Kind::TRACE, [trace(90)]);
    let pushed = push(&stores[0]).unwrap();
    assert_eq!(pushed.sent, BTreeMap::from([(Kind::TRACE, 3)]), "what is there is not sent again");
    assert_eq!(rows.lock().unwrap().posts, posts);
    let again = push(&stores[0]).unwrap();
    assert_eq!((again.sent.len(), again.requests), (0, 1), "and it is not asked any more");
    for store in [&stores[1], &stores[0]] {
        pull(store).unwrap();
        assert_eq!(pull(store).unwrap().taken, BTreeMap::new());
    }
    let (first, second) = (records(&stores[0]), records(&stores[1]));
    assert_eq!(first.len(), 42);
    // The second has the transcript's record as protocol 1 told it too, with a time of its own.
    assert!(first.iter().all(|record| second.contains(record)) && second.len() <= 43);
    // It goes back: one command fails and says so, the next goes on from where protocol 1 was.
    speaks_2.store(false, Ordering::Relaxed);
    let error = pull(&stores[1]).unwrap_err();
    assert!(error.to_string().contains("no longer speaks"), "{error}");
    assert_eq!(pull(&stores[1]).unwrap().taken, BTreeMap::new());
    let since = server.seen_queries("/api/v1/sync/traces");
    assert!(since.last().unwrap().contains_key("since"), "the cursors of protocol 1 are lost");
}
