//! The real service: told to stop, killed at any moment, started again.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::PROGRAM;
use tempfile::TempDir;

mod support;

const SECRET: &str = "the-admin-secret-of-the-tests";
const ROUNDS: usize = 6;

struct Service {
    child: Child,
    host: String,
    metrics: String,
}

impl Service {
    fn command(data: &Path) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("AGENT_TRACE_ADMIN_SECRET", SECRET);
        command
            .args(["--json", "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data"])
            .arg(data);
        command
    }

    fn start(data: &Path) -> Service {
        let mut child = Service::command(data).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&said["schema"], &said["admin_secret"]), (&"agent-trace/serve/1".into(), &Value::Null));
        let host = said["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        let metrics = said["metrics"].as_str().unwrap();
        let metrics = metrics.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
        Service { child, host, metrics }
    }

    /// The status and the body of an answer; nothing where the service went before it was whole.
    fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.host).ok()?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = match head.contains("chunked") {
            // One row is one chunk or more: lengths stand on lines of their own, and no row has a line break.
            true => {
                let chunks = body.strip_suffix("0\r\n\r\n")?;
                chunks.split("\r\n").skip(1).step_by(2).collect::<String>()
            }
            false => body.to_owned(),
        };
        Some((status, serde_json::from_str(&body).ok()?))
    }

    fn admin(&self, path: &str, body: &str) -> Value {
        let (status, body) = self.ask("POST", path, &format!("X-Admin-Secret: {SECRET}"), body).unwrap();
        assert_eq!(status, 201, "{body}");
        body
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    fn requests_in_progress(&self) -> bool {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        !page.contains("agent_trace_requests_in_progress 0\n")
    }

    /// All ids of traces, page by page.
    fn ids(&self, token: &str) -> Vec<String> {
        let (mut ids, mut since) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/sync/traces?project_id=web&limit=97{since}");
            let (status, page) = self.ask("GET", &path, token, "").unwrap();
            assert_eq!(status, 200, "{page}");
            ids.extend(
                page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
            );
            match page["max_timestamp"].as_str() {
                Some(last) => since = format!("&since={}", last.replace('+', "%2B")),
                None => return ids,
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a project and a token for it, as a header.
fn prepare(service: &Service) -> String {
    service.admin("/api/v1/projects", r#"{"project_id":"web","org_slug":"default"}"#);
    let token = service.admin("/api/v1/tokens", "{}");
    format!("Authorization: Bearer {}", token["token"].as_str().unwrap())
}

fn batch(client: usize, number: usize) -> (Vec<String>, String) {
    let ids: Vec<String> = (0..5).map(|at| format!("c{client}-{number}-{at}")).collect();
    let items: Vec<String> = ids
        .iter()
        .map(|id| format!(r#"{{"version":"2.0","id":"{id}","timestamp":"2026-01-01T00:00:00Z","files":[]}}"#))
        .collect();
    (ids, format!(r#"{{"project_id":"web","items":[{}]}}"#, items.join(",")))
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let first = Service::start(&data);
    let token = prepare(&first);
    drop(first);
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let service = Service::start(&data);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    let (service, token, stop) = (&service, &token, &stop);
                    scope.spawn(move || {
                        let mut done = Vec::new();
                        for number in 0.. {
                            let (ids, body) = batch(client, round * 1_000_000 + number);
                            match service.ask("POST", "/api/v1/sync/traces", token, &body) {
                                Some((200, answer)) if answer["count"] == 5 => done.extend(ids),
                                _ => break,
                            }
                            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                                break;
                            }
                        }
                        done
                    })
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(60 + 37 * round as u64));
            service.signal("-KILL");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            for client in clients {
                acknowledged.extend(client.join().unwrap());
            }
        });
    }
    let service = Service::start(&data);
    let ids = service.ids(&token);
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "a record is there twice");
    assert!(!acknowledged.is_empty());
    for id in &acknowledged {
        assert!(unique.contains(id), "`{id}` was acknowledged and is lost");
    }
    // A batch is there as a whole or not at all.
    assert_eq!(ids.len() % 5, 0);
    // The same again is no more.
    let (_, body) = batch(0, 0);
    assert_eq!(service.ask("POST", "/api/v1/sync/traces", &token, &body).unwrap().1["count"], 5);
    let more = usize::from(!unique.contains(&"c0-0-0".to_owned())) * 5;
    assert_eq!(service.ids(&token).len(), ids.len() + more);
}

#[test]
fn it_ends_well_when_it_is_told_to() {
    let dir = TempDir::new().unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut service = Service::start(&dir.path().join("data"));
        let mut open = TcpStream::connect(&service.host).unwrap();
        open.write_all(b"POST /api/v1/tokens/verify HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
            .unwrap();
        // An idle connection keeps nothing up.
        let _idle = TcpStream::connect(&service.host).unwrap();
        while !service.requests_in_progress() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        service.signal(signal);
        open.write_all(b"}").unwrap();
        let mut answer = String::new();
        open.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(service.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_data_folder_has_one_service() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let _service = Service::start(&data);
    let second = Service::command(&data).output().unwrap();
    assert_eq!(second.status.code(), Some(5), "{}", String::from_utf8_lossy(&second.stderr));
    let file = dir.path().join("secret");
    std::fs::write(&file, "x".repeat(5_000)).unwrap();
    let long =
        Service::command(&dir.path().join("other")).arg("--admin-secret-file").arg(&file).output().unwrap();
    assert_eq!(long.status.code(), Some(2));
    let half = Service::command(&data).args(["--tls-cert", "x"]).output().unwrap();
    assert_eq!(half.status.code(), Some(2));
}

/// Runs `admin` with the secret of the tests, or another.
fn admin(dir: &Path, secret: Option<&str>, args: &[&str]) -> (i32, Vec<Value>, String) {
    let mut command = support::command(PROGRAM, dir, dir);
    command.args(["--json", "admin"]).args(args);
    if let Some(secret) = secret {
        command.env("AGENT_TRACE_ADMIN_SECRET", secret);
    }
    let output = command.output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), lines, String::from_utf8(output.stderr).unwrap())
}

/// What may differ between two services: ids, times and secrets.
fn comparable(mut line: Value) -> Value {
    for (name, value) in line.as_object_mut().unwrap() {
        let is_own =
            name == "id" || name.ends_with("_at") || ["org_id", "prefix", "token"].contains(&name.as_str());
        if is_own && !value.is_null() {
            *value = "there".into();
        }
    }
    line
}

#[test]
fn admin_answers_the_same_on_the_folder_and_over_http() {
    let dir = TempDir::new().unwrap();
    let service = Service::start(&dir.path().join("data"));
    let url = format!("http://{}", service.host);
    let both = |args: &[&str]| {
        let folder = admin(dir.path(), None, &[args, &["--data", "folder"]].concat());
        let http = admin(dir.path(), Some(SECRET), &[args, &["--url", &url]].concat());
        assert_eq!((folder.0, folder.1.len()), (http.0, http.1.len()), "{args:?}: {folder:?} {http:?}");
        for (one, other) in folder.1.iter().zip(&http.1) {
            assert_eq!(comparable(one.clone()), comparable(other.clone()), "{args:?}");
        }
        (folder, http)
    };
    let status = |args: &[&str], status: i32| {
        let (folder, http) = both(args);
        assert_eq!(folder.0, status, "{args:?}: {} {}", folder.2, http.2);
        http.1
    };
    status(&["org", "create", "acme", "--name", "Acme"], 0);
    status(&["org", "create", "acme"], 0);
    status(&["org", "create", "Acme"], 2);
    status(&["org", "create", "acme", "--id", "11111111-2222-4333-8444-555555555555"], 6);
    status(&["project", "create", "web", "--org", "acme", "--name", "Web", "--description", "x"], 0);
    status(&["project", "create", "web", "--org", "acme"], 6);
    status(&["project", "create", "web", "--org", "none"], 9);
    status(&["project", "create", "we b"], 2);
    status(&["project", "create", "app"], 0);
    assert_eq!(status(&["org", "list"], 0).len(), 2);
    assert_eq!(status(&["project", "list"], 0).len(), 2);
    assert_eq!(status(&["project", "list", "--org", "acme"], 0).len(), 1);
    status(&["token", "create", "--scope", "none"], 2);
    status(&["token", "create", "--expires", "2020-01-01"], 2);
    status(&["token", "create", "--project", "We b"], 2);
    let made = status(
        &["token", "create", "--org", "acme", "--project", "web", "--expires", "30d", "--name", "ci"],
        0,
    );
    let token = made[0]["token"].as_str().unwrap().to_owned();
    let asked = |token: &str| {
        service.ask("GET", "/api/v1/auth/whoami", &format!("Authorization: Bearer {token}"), "").unwrap()
    };
    assert_eq!(asked(&token).1["org_slug"], "acme");
    status(&["token", "create", "--scope", "admin"], 0);
    status(&["token", "list", "--org", "default"], 0);
    let listed = admin(dir.path(), Some(SECRET), &["token", "list", "--url", &url]).1;
    assert_eq!(listed.len(), 2);
    assert!(listed[0]["last_used_at"].is_string() && listed[0]["token"].is_null(), "{listed:?}");
    status(&["token", "revoke", "0123456789abcdef"], 9);
    let id = made[0]["id"].as_str().unwrap();
    let revoke = |id: &str| admin(dir.path(), Some(SECRET), &["token", "revoke", id, "--url", &url]).0;
    assert_eq!((revoke(&format!("at_{id}")), revoke(&token), revoke("a/../b")), (0, 0, 9));
    assert_eq!(asked(&token).0, 401);
    status(&["project", "remove", "app"], 2);
    status(&["project", "remove", "app", "--yes"], 0);
    status(&["project", "remove", "app", "--yes"], 9);
    assert_eq!(status(&["project", "list"], 0).len(), 1);
}

#[test]
fn admin_over_http_needs_the_secret_and_a_service() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let service = Service::start(&data);
    let url = format!("http://{}", service.host);
    let fails = |secret: Option<&str>, args: &[&str], status: i32, word: &str| {
        let (found, lines, err) = admin(dir.path(), secret, args);
        assert_eq!((found, lines.len()), (status, 0), "{args:?}: {err}");
        assert!(err.contains(word), "expected `{word}` in: {err}");
        assert!(!err.contains(SECRET), "{err}");
    };
    for args in [["org", "list"], ["token", "list"], ["org", "create"], ["token", "revoke"]] {
        let name: &[&str] = if args[1] == "list" { &[] } else { &["acme"] };
        let args = [&args[..], name, &["--url", &url]].concat();
        fails(Some("another"), &args, 4, "admin's secret");
        fails(None, &args, 2, "AGENT_TRACE_ADMIN_SECRET");
    }
    std::fs::write(dir.path().join("secret"), format!("{SECRET}\n")).unwrap();
    let with_file = ["org", "list", "--url", &format!("{url}/acme/web"), "--secret-file", "secret"];
    assert_eq!(admin(dir.path(), None, &with_file).0, 0);
    // The folder is the service's own while it runs, and what to do instead is said.
    fails(Some(SECRET), &["org", "list", "--data", "data"], 5, "--url URL");
    fails(Some(SECRET), &["org", "list", "--data", "data", "--url", &url], 2, "--url");
    fails(Some(SECRET), &["org", "list"], 2, "--data");
    fails(Some(SECRET), &["org", "list", "--url", "http://example.test"], 2, "https");
    fails(Some(SECRET), &["org", "list", "--url", "file:///tmp"], 2, "service");
    fails(Some(SECRET), &["org", "list", "--url", &format!("{url}/one/two/three")], 2, "cannot take");
}

/// Sends a blob that nothing else is like; the status of the answer.
fn blob(service: &Service, token: &str, name: &str, bytes: usize) -> u16 {
    let body = name.repeat(bytes.div_ceil(name.len()));
    service.ask("POST", "/api/v1/blobs", token, &body).unwrap().0
}

#[test]
fn an_org_stays_within_its_quota_over_restarts_and_many_clients() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let org = |service: &Service, args: &[&str]| {
        let url = format!("http://{}", service.host);
        let (status, lines, err) =
            admin(dir.path(), Some(SECRET), &[&["org"], args, &["--url", &url]].concat());
        assert_eq!(status, 0, "{args:?}: {err}");
        lines[0].clone()
    };
    let used = |service: &Service| org(service, &["show", "default"])["used_bytes"].as_u64().unwrap();
    let service = Service::start(&data);
    let token = prepare(&service);
    let (_, body) = batch(0, 0);
    assert_eq!(service.ask("POST", "/api/v1/sync/traces", &token, &body).unwrap().0, 200);
    let quota = used(&service) + 3_500_000;
    assert_eq!(org(&service, &["set", "default", "--quota-bytes", &quota.to_string()])["quota_bytes"], quota);
    let sent: Vec<u16> = (0..5).map(|at| blob(&service, &token, &format!("a{at}"), 1_000_000)).collect();
    assert_eq!(sent, [201, 201, 201, 507, 507]);
    drop(service);
    // What is there counts after a restart too, on the folder as over HTTP.
    let (_, lines, _) = admin(dir.path(), None, &["org", "show", "default", "--data", "data"]);
    assert!(lines[0]["used_bytes"].as_u64().unwrap() <= quota, "{lines:?}");
    let service = Service::start(&data);
    assert_eq!(blob(&service, &token, "b", 1_000_000), 507);
    assert_eq!(service.ids(&token).len(), 5, "reading goes on");
    let quota = used(&service) + 5_000_000;
    org(&service, &["create", "default", "--quota-bytes", &quota.to_string()]);
    let stored: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (service, token) = (&service, &token);
                scope.spawn(move || {
                    let name = |at: &i32| format!("c{client}-{at}");
                    (0..4).filter(|at| blob(service, token, &name(at), 700_000) == 201).count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!((6..=7).contains(&stored), "{stored}");
    assert!(used(&service) <= quota, "{} of {quota}", used(&service));
    org(&service, &["set", "default", "--quota-bytes", "none"]);
    assert_eq!(blob(&service, &token, "d", 1_000_000), 201);
    assert_eq!(org(&service, &["list"])["quota_bytes"], Value::Null);
}

#[test]
fn a_push_over_the_quota_says_so() {
    let dir = TempDir::new().unwrap();
    let service = Service::start(&dir.path().join("data"));
    let token = prepare(&service);
    let token = token.strip_prefix("Authorization: Bearer ").unwrap();
    let run = |args: &[&str]| {
        let mut command = support::command(PROGRAM, dir.path(), dir.path());
        command.args(["--store", "store"]).args(args).env("TOKEN", token);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let trace = support::trace("one", "2026-01-01T00:00:00Z", "a.rs", Value::Array(vec![]));
    std::fs::write(dir.path().join("traces.jsonl"), format!("{trace}\n")).unwrap();
    let url = format!("http://{}/default/web", service.host);
    for args in [
        &["init"][..],
        &["import", "traces.jsonl"],
        &["remote", "add", "origin", &url, "--token-env", "TOKEN"],
    ] {
        let (status, err) = run(args);
        assert_eq!(status, 0, "{args:?}: {err}");
    }
    let host = format!("http://{}", service.host);
    let set = |quota| {
        admin(dir.path(), Some(SECRET), &["org", "set", "default", "--quota-bytes", quota, "--url", &host]).0
    };
    assert_eq!(set("1000"), 0);
    let (status, err) = run(&["push", "--full"]);
    assert_eq!(status, 13, "{err}");
    assert!(err.contains("quota_exceeded") && err.contains("hint: ask the admin"), "{err}");
    assert_eq!(set("none"), 0);
    let (status, err) = run(&["push", "--full"]);
    assert_eq!(status, 0, "{err}");
}
