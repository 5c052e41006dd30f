//! Clients that are slow, or that send what no client should: each is answered or cut, none is waited for without end,
//! and what the service keeps for it is bounded. Waits are short here; what is counted is what the service has done.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent_trace_store::SegmentId;
use agent_trace_store::id::encode_hex;
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{ROUTES, Waits};
use agent_trace_sync::wire::CommitRequest;

use crate::client::{Answer, Ask, parse, read};
use crate::fake::EPOCH;
use crate::service::{ADMIN, Service};

/// A service that hardly waits, but long enough for an honest client on a busy machine.
fn hurried() -> Service {
    let short = Duration::from_secs(1);
    Service::start_waiting(100_000, Waits { headers: short, handshake: short, body: short, answer: short })
}

fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(service.address).unwrap();
    // A test that is not cut fails instead of hanging.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads to the end of the connection.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it is not cut"),
        _ => all,
    }
}

/// Sends as much as the service takes of something that has no end, and reads what it says.
fn endless(mut stream: TcpStream, mut piece: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let reader = stream.try_clone().unwrap();
    let answer = std::thread::spawn(move || rest(reader));
    while stream.write_all(&piece()).is_ok() {}
    answer.join().unwrap()
}

fn counter(service: &Service, name: &str) -> u64 {
    let page = Ask::new("GET", "/metrics").send(service.metrics);
    let line = page.text().lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until the service has let go of all connections.
fn let_go(service: &Service) {
    for _ in 0..3_000 {
        if counter(service, "agent_trace_connections") == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("connections are kept");
}

#[test]
fn who_does_not_come_to_a_request_is_cut() {
    let service = hurried();
    // Nothing at all, the beginning of what may be version 2, parts of a head, and a second request that does not come.
    let starts = [
        &b""[..],
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nS",
        b"\r\n",
        b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: ",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let service = &service;
    std::thread::scope(|scope| {
        for bytes in starts {
            scope.spawn(move || {
                let mut stream = connect(service);
                stream.write_all(bytes).unwrap();
                let said = rest(stream);
                assert!(!said.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&said));
            });
        }
        // One byte after the other, each in good time: of a head, and of what may become version 2.
        for start in [&b"GET / HTTP/1.1\r\nX: "[..], b""] {
            scope.spawn(move || {
                let mut stream = connect(service);
                stream.write_all(start).unwrap();
                let slow = if start.is_empty() { &b"PRI * HTTP/2.0\r\n\r\nS"[..] } else { b"" };
                let mut bytes = slow.iter().chain(std::iter::repeat(&b'x'));
                endless(stream, || {
                    std::thread::sleep(Duration::from_millis(100));
                    vec![*bytes.next().unwrap()]
                });
            });
        }
    });
    let_go(service);
}

#[test]
fn a_body_that_does_not_come_is_said_to_be_slow() {
    let service = hurried();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let (service, token) = (&service, &token);
    std::thread::scope(|scope| {
        for path in
            ["/api/v1/sync/traces", "/api/v1/blobs", "/api/v1/tokens/verify", "/api/v2/acme/web/commit"]
        {
            scope.spawn(move || halves(service, token, path));
        }
        // A byte now and then is too little in the long run.
        scope.spawn(move || {
            let ask =
                Ask::new("POST", "/api/v1/sync/traces").token(token).header("Content-Length", "1000000");
            let mut stream = connect(service);
            stream.write_all(ask.head().as_bytes()).unwrap();
            let said = endless(stream, || {
                std::thread::sleep(Duration::from_millis(20));
                b" ".to_vec()
            });
            assert_eq!(parse(&said, false).json()["code"], "slow");
        });
    });
    let_go(service);
    assert_eq!(counter(service, "agent_trace_requests_in_progress"), 0);
}

/// Sends half of a body, and then nothing more, or an end.
fn halves(service: &Service, token: &str, path: &str) {
    for framing in [("Content-Length", "1000"), ("Transfer-Encoding", "chunked")] {
        let ask = Ask::new("POST", path).token(token).header(framing.0, framing.1);
        let part = if framing.1 == "chunked" { "2\r\n{\"\r\n" } else { "{\"" };
        let mut stream = connect(service);
        stream.write_all(format!("{}{part}", ask.head()).as_bytes()).unwrap();
        let answer = read(stream, false);
        assert_eq!(answer.status, 408, "{path} {framing:?}: {answer:?}");
        assert_eq!(answer.json()["code"], "slow");
        let mut stream = connect(service);
        stream.write_all(format!("{}{part}", ask.head()).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let said = rest(stream);
        if !said.is_empty() {
            let answer = parse(&said, false);
            assert_eq!((answer.status, answer.json()["code"].as_str()), (408, Some("cut")), "{path}");
        }
    }
}

#[test]
fn a_body_without_end_is_refused_at_its_limit() {
    let service = hurried();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    for path in ["/api/v1/tokens/verify", "/api/v2/acme/web/reconcile", "/api/v1/projects"] {
        let before = counter(&service, "agent_trace_received_bytes_total");
        let ask = Ask::new("POST", path).token(&token).header("Transfer-Encoding", "chunked");
        let mut stream = connect(&service);
        stream.write_all(ask.head().as_bytes()).unwrap();
        let said = endless(stream, || chunk.clone());
        if !said.is_empty() {
            assert!([403, 413].contains(&parse(&said, false).status), "{path}");
        }
        let taken = counter(&service, "agent_trace_received_bytes_total") - before;
        assert!(taken < 16 << 20, "{path}: {taken} bytes are taken of what is refused");
    }
    let_go(&service);
}

#[test]
fn a_pull_that_nobody_reads_stops_and_is_cut() {
    let service = hurried();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let bytes = vec![1; 1_000_000];
    let segment = blake3::hash(&bytes).to_string();
    let put = Ask::new("PUT", format!("/api/v2/acme/web/uploads/{segment}?offset=0")).token(&token);
    assert_eq!(service.ask(&put.header("X-Chunk-Blake3", segment.clone()).body(bytes)).status, 200);
    let mut commit = CommitRequest::default();
    commit.segments.push(SegmentId::parse(&segment).unwrap());
    let commit = Ask::new("POST", "/api/v2/acme/web/commit").token(&token).body(commit.encode());
    assert_eq!(service.ask(&commit).status, 200);
    service.world.is_endless.store(true, Ordering::Relaxed);
    let pull = format!("/api/v2/acme/web/pull?epoch={}&after=0", encode_hex(&EPOCH));
    let pull = Ask::new("GET", pull).token(&token);
    let before = counter(&service, "agent_trace_sent_bytes_total");
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(&service)).collect();
    for stream in &mut streams {
        stream.write_all(pull.head().as_bytes()).unwrap();
        stream.read_exact(&mut [0; 1_000]).unwrap();
    }
    // They stay open here; the service lets go of them.
    let_go(&service);
    let sent = counter(&service, "agent_trace_sent_bytes_total") - before;
    let made = service.world.pulled.load(Ordering::Relaxed) as u64 * 1_000_000;
    // What went into sockets was not kept; beyond that there is a short queue for each.
    assert!(made <= sent + 4 * (2 << 20), "{made} bytes were made for {sent} that went");
    assert!(made < 4 * (64 << 20), "{made} bytes were made for nobody");
    assert_eq!(counter(&service, "agent_trace_requests_in_progress"), 0);
    drop(streams);
    assert_eq!(service.get("/api/v1/auth/whoami", &token).status, 200);
}

#[test]
fn lies_about_lengths_reach_nothing_else() {
    let service = hurried();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let send = |bytes: String| {
        let mut stream = connect(&service);
        stream.write_all(bytes.as_bytes()).unwrap();
        String::from_utf8(rest(stream)).unwrap()
    };
    let head = format!("POST /api/v1/sync/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    let item = |id: &str| format!(r#"{{"project_id":"web","items":[{{"id":"{id}","timestamp":"x"}}]}}"#);
    // What is behind the stated length is another request, and must be one.
    let (first, second) = (item("short"), item("behind"));
    let said = send(format!("{head}Content-Length: {}\r\n\r\n{first}{second}", first.len()));
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("HTTP/1.1 400 "), "{said}");
    assert_eq!(service.get("/api/v1/traces/short?project_id=web", &token).status, 200);
    assert_eq!(service.get("/api/v1/traces/behind?project_id=web", &token).status, 404);
    // Two lengths are no length: what a proxy takes for the body must not be a request here.
    let smuggled = "GET /api/v1/auth/whoami HTTP/1.1\r\nHost: x\r\n\r\n";
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 6\r\n".to_owned(),
        "Content-Length: 5, 6\r\n".to_owned(),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: 5x\r\n".to_owned(),
        "Content-Length: 99999999999999999999999\r\n".to_owned(),
        "Transfer-Encoding: gzip\r\n".to_owned(),
        "Transfer-Encoding: chunked, gzip\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
    ] {
        let said = send(format!("{head}{lengths}\r\n{smuggled}"));
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{lengths}: {said}");
        assert!(said.matches("HTTP/1.1 ").count() <= 1, "{lengths}: {said}");
    }
    // With both, chunks count, and the connection ends there or the length is refused.
    let said =
        send(format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"));
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    for chunk in ["-1\r\n", "x\r\n", "ffffffffffffffffff\r\n", "5\r\nabcdefg\r\n0\r\n\r\n"] {
        let said = send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}"));
        assert!(said.starts_with("HTTP/1.1 400 "), "{chunk:?}: {said}");
    }
    let_go(&service);
}

#[test]
fn old_and_eager_clients_are_served() {
    let service = hurried();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let items: Vec<String> = (0..300)
        .map(|at| format!(r#"{{"id":"t{at}","timestamp":"x","pad":"{}"}}"#, "y".repeat(500)))
        .collect();
    let body = format!(r#"{{"project_id":"web","items":[{}]}}"#, items.join(","));
    assert_eq!(service.post("/api/v1/sync/traces", &token, &body).status, 200);
    // By HTTP 1.0 no answer comes in chunks; it ends with the connection.
    let mut stream = connect(&service);
    let path = "/api/v1/sync/traces?project_id=web";
    write!(stream, "GET {path} HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let answer = read(stream, false);
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None));
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), 300);
    // Many requests at once on one connection are answered in order, with and without bodies.
    let mut stream = connect(&service);
    let mut all = String::new();
    for number in 0..50 {
        let end = if number == 49 { "Connection: close\r\n" } else { "" };
        let body = format!("{{\"token\":\"{number}\"}}");
        let length = body.len();
        all.push_str(&format!("GET /none/{number} HTTP/1.1\r\nHost: x\r\nX-Request-Id: g{number}\r\n\r\n"));
        all.push_str(&format!(
            "POST /api/v1/tokens/verify HTTP/1.1\r\nHost: x\r\nX-Request-Id: p{number}\r\n{end}Content-Length: {length}\r\n\r\n{body}"
        ));
    }
    stream.write_all(all.as_bytes()).unwrap();
    let said = String::from_utf8(rest(stream)).unwrap();
    let ids: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("x-request-id: ")).collect();
    let expected: Vec<String> =
        (0..50).flat_map(|number| [format!("g{number}"), format!("p{number}")]).collect();
    assert_eq!(ids, expected);
    // More headers than there may be.
    let many = (0..200).fold(Ask::new("GET", "/healthz"), |ask, at| ask.header(&format!("X-{at}"), "x"));
    assert_eq!(service.ask(&many).status, 431);
}

/// JSON that is none, or not what is expected, and what only looks like much.
fn odd_bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "", "null", "1", "\"x\"", "[]", "{", "{}", "{}{}", "[[[", "\u{feff}{}", "{\"items\":[]", "{\"items\"}",
        r#"{"project_id":5,"items":5}"#,
        r#"{"project_id":["web"],"items":{}}"#,
        r#"{"project_id":"web","items":"x"}"#,
        r#"{"project_id":"web","items":null}"#,
        r#"{"project_id":"web","items":[null,true,1,"x",[],{}]}"#,
        r#"{"project_id":"web","items":[{"id":1,"timestamp":2,"files":"x","commit_sha":[],"conversation_id":{}}]}"#,
        r#"{"project_id":"web","items":[{"id":"","timestamp":"","commit_sha":"","conversation_id":""}]}"#,
        r#"{"project_id":"web","items":[{"id":"a","id":"b"}],"items":[]}"#,
        r#"{"project_id":"web","items":[{"conversation_id":"c","content":5,"content_b64":"%%%"}]}"#,
        r#"{"project_id":"web","items":[{"conversation_id":"c","content_sha256":"zz","size":-1}]}"#,
        r#"{"project_id":"web","items":[{"conversation_id":"c","content_sha256":5,"size":1e999}]}"#,
        r#"{"project_id":"../../x","org_slug":"../..","slug":"\u0000","id":"x","unknown":{"a":[1,2]}}"#,
        r#"{"project_id":"web","items":[{"id":"\ud800"}]}"#,
        r#"{"token":{"a":1},"slug":[],"org_id":0,"scopes":"read","expires_at":1}"#,
        r#"{"scopes":["root"],"expires_at":"yesterday","name":"\u0007"}"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.push(b"{\"project_id\":\"web\",\"items\":[{\"id\":\"\xff\xfe\"}]}".to_vec());
    bodies.push(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec());
    bodies.push(b"\x28\xb5\x2f\xfd\x04\x00".to_vec());
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [127, 128, 129, 60_000] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            bodies.push(format!(r#"{{"project_id":"web","items":[{deep}]}}"#).into());
            bodies.push(format!(r#"{{"x":{deep},"project_id":"web","items":[]}}"#).into());
            bodies.push(deep.into());
        }
        bodies.push(open.repeat(100_000).into());
    }
    bodies
}

#[test]
fn odd_bodies_are_answered_on_every_route() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write, Scope::ProjectsWrite]);
    let hash = "ab".repeat(32);
    for route in ROUTES.iter().filter(|route| ["POST", "PUT", "DELETE"].contains(&route.method)) {
        let path = route
            .path
            .replace("/{project}/", "/web/")
            .replace("{org}", "acme")
            .replace("{project}", "nobodys")
            .replace("{segment}", &format!("{hash}?offset=0"))
            .replace("{id}", "x");
        for body in odd_bodies() {
            for kind in [None, Some("text/html"), Some("application/json; charset=utf-16")] {
                let ask = Ask::new(route.method, path.clone()).token(&token).header("X-Admin-Secret", ADMIN);
                let ask = ask.header("X-Chunk-Blake3", blake3::hash(&body).to_string()).body(body.clone());
                let ask = kind.into_iter().fold(ask, |ask, kind| ask.header("Content-Type", kind));
                let answer: Answer = service.ask(&ask);
                let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
                assert!(answer.status < 500, "{} {path} {shown}: {answer:?}", route.method);
                if answer.status >= 400 {
                    assert!(
                        answer.json()["error"].is_string(),
                        "{} {path} {shown}: {answer:?}",
                        route.method
                    );
                }
            }
        }
    }
    assert_eq!(service.get("/healthz", &token).status, 200);
    let whole = r#"{"project_id":"web","items":[{"id":"well","timestamp":"x"}]}"#;
    assert_eq!(service.post("/api/v1/sync/traces", &token, whole).text(), "{\"count\":1,\"ok\":true}\n");
}
