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
