//! What the client makes of answers that are no help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use agent_trace_store::ErrorKind;
use agent_trace_store::progress::Silent;
use agent_trace_sync::client::{Client, Scope};
use agent_trace_sync::take::PullOptions;

use crate::server::{Response, Server};
use crate::{full, service, world};

fn whoami(body: &str) -> Response {
    Response::new(200, body)
}

#[test]
fn a_token_for_something_else_is_refused() {
    let (_disk, env, _) = world(&[]);
    let check = |response: Response, expected: Result<Scope, (ErrorKind, &str)>| {
        let server = Server::start(move |_| response.clone());
        match (service(&env, &server).check_scope(), expected) {
            (Ok(Scope::Fits(_)), Ok(Scope::Fits(_))) | (Ok(Scope::Unsupported), Ok(Scope::Unsupported)) => {}
            (Err(error), Err((kind, part))) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.message().contains(part), "{error}");
                assert!(error.message().contains("/acme/web`"), "{error}");
            }
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    };
    check(whoami(r#"{"org_slug":"other"}"#), Err((ErrorKind::Denied, "`org_slug_mismatch`")));
    let bound = r#"{"org_slug":"acme","project_id_scope":"api"}"#;
    check(whoami(bound), Err((ErrorKind::Denied, "`project_scope_mismatch`")));
    check(Response::new(401, r#"{"error":"no"}"#), Err((ErrorKind::Denied, "`whoami_unauthorized`")));
    check(Response::new(500, "<html>"), Err((ErrorKind::Failed, "`whoami_failed`")));
    check(whoami("<html>"), Err((ErrorKind::Failed, "`whoami_failed`")));
    check(Response::new(404, ""), Ok(Scope::Unsupported));
    let fits = whoami(r#"{"org_slug":"acme","project_id_scope":null,"scopes":["read"],"more":1}"#);
    let server = Server::start(move |_| fits.clone());
    assert!(matches!(service(&env, &server).check_scope(), Ok(Scope::Fits(_))));
}

#[test]
fn statuses_become_kinds_and_only_what_may_pass_is_tried_again() {
    let (_disk, env, stores) = world(&["/a"]);
    let check = |status: u16, kind: ErrorKind, tries: usize| {
        let server = Server::start(move |_| Response::new(status, r#"{"error":"why","code":"x"}"#));
        let error = service(&env, &server).pull(&stores[0], &PullOptions::default(), &Silent).unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert_eq!(server.seen().len(), tries, "{status}");
    };
    check(400, ErrorKind::Invalid, 1);
    check(401, ErrorKind::Denied, 1);
    check(403, ErrorKind::Denied, 1);
    check(408, ErrorKind::Unavailable, 5);
    check(413, ErrorKind::Invalid, 1);
    check(426, ErrorKind::Unsupported, 1);
    check(429, ErrorKind::Unavailable, 5);
    check(500, ErrorKind::Failed, 1);
    check(503, ErrorKind::Unavailable, 5);
    check(507, ErrorKind::Full, 1);
}

#[test]
fn a_busy_service_is_waited_for() {
    let (_disk, env, _) = world(&[]);
    let count = Arc::new(AtomicU32::new(0));
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => {
            let mut response = Response::new(429, "");
            response.headers.push(("retry-after", "7".to_owned()));
            response
        }
        _ => whoami(r#"{"org_slug":"acme"}"#),
    });
    let before = env.clock.monotonic_micros();
    service(&env, &server).check_scope().unwrap();
    assert!(env.clock.monotonic_micros() - before >= 14_000_000, "it was not waited for");
    assert_eq!(server.seen().len(), 3);
    let hurried = Server::start(|_| {
        let mut response = Response::new(503, "");
        response.headers.push(("retry-after", "86400".to_owned()));
        response
    });
    assert!(service(&env, &hurried).check_scope().is_err());
    assert_eq!(hurried.seen().len(), 1);
}

#[test]
fn a_date_to_wait_for_is_taken_by_the_clock_of_the_service() {
    let (_disk, env, _) = world(&[]);
    // Neither is near what this machine takes for now.
    let dates = |after: &'static str| {
        let count = AtomicU32::new(0);
        Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let mut response = Response::new(503, "");
                response.headers.push(("date", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()));
                response.headers.push(("retry-after", after.to_owned()));
                response
            }
            _ => whoami(r#"{"org_slug":"acme"}"#),
        })
    };
    let soon = dates("Sun, 06 Nov 1994 08:49:57 GMT");
    let before = env.clock.monotonic_micros();
    service(&env, &soon).check_scope().unwrap();
    let waited = env.clock.monotonic_micros() - before;
    assert!((20_000_000..22_000_000).contains(&waited), "{waited}");
    // Too far off to be waited for.
    let late = dates("Sun, 06 Nov 1994 08:50:37 GMT");
    assert!(service(&env, &late).check_scope().is_err());
    assert_eq!(late.seen().len(), 1);
}

#[test]
fn no_redirect_is_followed() {
    let (_disk, env, stores) = world(&["/a"]);
    let elsewhere = Server::start(|_| whoami(r#"{"org_slug":"acme"}"#));
    for status in [301, 302, 307, 308] {
        let location = format!("{}/api/v1/auth/whoami", elsewhere.url);
        let server = Server::start(move |_| {
            let mut response = Response::new(status, "");
            response.headers.push(("location", location.clone()));
            response
        });
        let error = service(&env, &server).check_scope().unwrap_err();
        assert!(error.message().contains("no redirect is followed"), "{error}");
        service(&env, &server).push(&stores[0], &full(), &Silent).unwrap_err();
    }
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn answers_are_bounded_and_cut_ones_are_no_answers() {
    let (_disk, env, stores) = world(&["/a"]);
    let pull = |response: Response| {
        let server = Server::start(move |request| match request.path.as_str() {
            "/api/v2/caps" => Response::new(
                200,
                r#"{"protocols":[2],"name":"","version":"","limits":{"segment_bytes":1,"chunk_bytes":1,"ids":1,"segments":1}}"#,
            ),
            _ => response.clone(),
        });
        service(&env, &server).pull(&stores[0], &PullOptions::default(), &Silent).unwrap_err()
    };
    let mut huge = Response::new(200, "x");
    huge.headers.push(("content-length", "99999999999".to_owned()));
    assert!(pull(huge).message().contains("more than"));
    let mut short = Response::new(200, "x".repeat(100));
    short.cut = Some(50);
    assert_eq!(pull(short).kind(), ErrorKind::Unavailable);
    assert_eq!(pull(Response::new(200, "something else")).kind(), ErrorKind::Corrupt);
}

#[test]
fn nobody_there_is_unavailable() {
    let (_disk, env, _) = world(&[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}/acme/web");
    let address =
        agent_trace_sync::address::RemoteUrl::parse(&url, agent_trace_sync::address::Plaintext::Loopback);
    let Ok(agent_trace_sync::address::RemoteUrl::Service(url)) = address else { panic!("it is a service") };
    let error = Client::open(&env, &url, None).unwrap().check_scope().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&free.to_string()), "{error}");
}
