//! Limits, clients that behave badly, and the end of the service.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use agent_trace_store::id::encode_hex;
use agent_trace_sync::service::archive::Staging as _;
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::wire::{Part, PartReader};

use crate::client::{Ask, read};
use crate::fake::{EPOCH, sha256};
use crate::service::Service;

#[test]
fn too_much_is_refused_with_its_limit() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let post = |path: &str| Ask::new("POST", path).token(&token);
    let declared =
        |path: &str, length: u64| service.ask(&post(path).header("Content-Length", length.to_string()));
    let records = declared("/api/v1/sync/traces", (192 << 20) + 1);
    assert_eq!((records.status, records.json()["code"].as_str()), (413, Some("too_large")));
    let blob = declared("/api/v1/blobs", (1 << 30) + 1);
    assert_eq!(blob.text(), "{\"error\":\"blob too large: 1073741825 > 1073741824\"}\n");
    let form = Ask::new("POST", "/api/v1/tokens/verify").body(vec![b' '; (64 << 10) + 1]);
    assert_eq!(service.ask(&form).status, 413);
    let headers = Ask::new("GET", "/health").header("X-Long", "x".repeat(17 << 10));
    assert_eq!(service.ask(&headers).status, 431);
    let target = Ask::new("GET", format!("/health?{}", "x".repeat(17 << 10)));
    assert_eq!(service.ask(&target).status, 431);
    for encoding in ["gzip", "deflate", "zstd", "br", "gzip, identity"] {
        let coded = post("/api/v1/sync/traces").header("Content-Encoding", encoding).body("x");
        assert_eq!(service.ask(&coded).status, 415, "{encoding}");
    }
    let many = format!(r#"{{"project_id":"web","items":[{}1]}}"#, "1,".repeat(65_536));
    assert_eq!(service.ask(&post("/api/v1/sync/traces").body(many)).status, 413);
    let long = format!(
        r#"{{"project_id":"web","items":[{{"id":"long","x":"{}"}},{{"id":"short"}}]}}"#,
        "x".repeat(16 << 20)
    );
    let answer = service.ask(&post("/api/v1/sync/traces").body(long)).json();
    assert_eq!((answer["skipped"][0]["index"].as_u64(), answer["count"].as_u64()), (Some(0), Some(2)));
    assert_eq!(service.get("/api/v1/traces/short?project_id=web", &token).status, 200);
}

#[test]
fn bodies_beyond_the_memory_go_through_files() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    // Five of these are more than all bodies together may have in memory.
    let pad = "x".repeat(10 << 20);
    std::thread::scope(|scope| {
        for client in 0..5 {
            let (service, token, pad) = (&service, &token, &pad);
            scope.spawn(move || {
                let body = format!(
                    r#"{{"pad":"{pad}","items":[{{"id":"t{client}","timestamp":"x"}}],"project_id":"web"}}"#
                );
                let answer = service.post("/api/v1/sync/traces", token, &body);
                assert_eq!(answer.text(), "{\"count\":1,\"ok\":true}\n");
            });
        }
    });
    let page = service.get("/api/v1/sync/traces?project_id=web", &token).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 5);
    assert_eq!(std::fs::read_dir(service.dir.path().join("spool")).unwrap().count(), 0);
}

#[test]
fn a_token_that_asks_too_often_is_put_off() {
    let service = Service::start_with(1);
    let token = service.token(0, None, &[Scope::Read]);
    let other = service.token(0, None, &[Scope::Read]);
    let answers: Vec<_> = (0..20).map(|_| service.get("/api/v1/auth/whoami", &token)).collect();
    assert_eq!(answers[0].status, 200);
    let busy = answers.iter().find(|answer| answer.status == 429).expect("twenty at once are too many");
    assert_eq!((busy.header("retry-after"), busy.json()["code"].as_str()), (Some("1"), Some("busy")));
    assert_eq!(service.get("/api/v1/auth/whoami", &other).status, 200);
}

#[test]
fn a_blob_that_is_cut_is_not_there() {
    let service = Service::start();
    let (id, token) = service.token_until(0, None, &[Scope::Write], None);
    let ask = Ask::new("POST", "/api/v1/blobs").token(&token).header("Content-Length", "1000");
    let mut stream = TcpStream::connect(service.address).unwrap();
    stream.write_all(ask.head().as_bytes()).unwrap();
    stream.write_all(b"part").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    // Whether there is an answer or only an end is not promised.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(service.world.staged(&id, &sha256(b"part")).unwrap(), None);
}

#[test]
fn odd_requests_do_no_harm() {
    let service = Service::start();
    for bytes in [
        &b"\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense",
        b"POST /api/v1/sync/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /at/%2e%2e/%2e%2e/api/v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(service.address).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(Ask::new("GET", "/healthz").send(service.address).status, 200);
}

#[test]
fn what_was_begun_ends_and_pulls_are_cut() {
    let mut service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let bytes = vec![1; 100_000];
    let segment = blake3::hash(&bytes).to_string();
    let put = Ask::new("PUT", format!("/api/v2/acme/web/uploads/{segment}?offset=0")).token(&token);
    assert_eq!(service.ask(&put.header("X-Chunk-Blake3", segment.clone()).body(bytes)).status, 200);
    let mut commit = agent_trace_sync::wire::CommitRequest::default();
    commit.segments.push(agent_trace_store::SegmentId::parse(&segment).unwrap());
    let commit = Ask::new("POST", "/api/v2/acme/web/commit").token(&token).body(commit.encode());
    assert_eq!(service.ask(&commit).status, 200);

    // A pull that has no end, and an upload of which half is there.
    service.world.is_endless.store(true, Ordering::Relaxed);
    let pull = format!("/api/v2/acme/web/pull?epoch={}&after=0", encode_hex(&EPOCH));
    let mut pulling = TcpStream::connect(service.address).unwrap();
    pulling.write_all(Ask::new("GET", pull).token(&token).head().as_bytes()).unwrap();
    let mut first = [0; 1000];
    pulling.read_exact(&mut first).unwrap();
    let body = r#"{"project_id":"web","items":[{"id":"late"}]}"#;
    let post = Ask::new("POST", "/api/v1/sync/traces").token(&token).body(body);
    let mut posting = TcpStream::connect(service.address).unwrap();
    posting.write_all(post.head().as_bytes()).unwrap();
    posting.write_all(&body.as_bytes()[..20]).unwrap();
    while !Ask::new("GET", "/metrics")
        .send(service.metrics)
        .text()
        .contains("agent_trace_requests_in_progress 1\n")
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }

    service.stopper.stop();
    let mut rest = first.to_vec();
    pulling.read_to_end(&mut rest).unwrap();
    let answer = crate::client::parse(&rest, false);
    let mut reader = PartReader::new(answer.body.as_slice());
    let error = loop {
        match reader.read_part().unwrap() {
            Some(Part::Error(error)) => break error,
            Some(Part::Segment(_, _, mut file)) => {
                std::io::copy(&mut file, &mut std::io::sink()).unwrap();
            }
            Some(_) => {}
            None => panic!("the pull was not cut"),
        }
    };
    assert_eq!(error.code, "unavailable");
    posting.write_all(&body.as_bytes()[20..]).unwrap();
    assert_eq!(read(posting, false).text(), "{\"count\":1,\"ok\":true}\n");
    service.wait();
    assert!(TcpStream::connect(service.address).is_err());
}
