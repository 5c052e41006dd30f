//! The tenant rule: what is not the token's and what does not exist get the same answer, on every route.

use agent_trace_store::id::encode_hex;
use agent_trace_store::{ObjectId, SegmentId, Timestamp};
use agent_trace_sync::service::archive::Accounts as _;
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{Access, ROUTES, Route};
use agent_trace_sync::wire::{CommitRequest, FetchRequest, HoldsRequest, ReconcileRequest};

use crate::client::{Answer, Ask};
use crate::fake::{EPOCH, sha256};
use crate::service::{ADMIN, Service};

const BYTES: &[u8] = b"a transcript of one tenant";

/// The names of one thing of each kind: the token's, another's, nobody's.
struct Names {
    org: &'static str,
    project: &'static str,
    /// A key of a record, and the hash of a blob.
    key: &'static str,
    blob: [u8; 32],
    object: ObjectId,
}

fn own() -> Names {
    Names { org: "acme", project: "web", key: "mine", blob: sha256(BYTES), object: ObjectId::of(BYTES) }
}

/// Fills a project as its tenant does.
fn fill(service: &Service, org: usize, project: &str, key: &str, bytes: &[u8]) {
    let token = service.token(org, None, &[Scope::Write]);
    let text = std::str::from_utf8(bytes).unwrap();
    for (resource, item) in [
        ("traces", format!(r#"{{"id":"{key}","timestamp":"2026-01-01T00:00:00Z"}}"#)),
        ("ledgers", format!(r#"{{"commit_sha":"{key}"}}"#)),
        ("conversations", format!(r#"{{"conversation_id":"{key}","content":"{text}"}}"#)),
    ] {
        let body = format!(r#"{{"project_id":"{project}","items":[{item}]}}"#);
        let answer = service.post(&format!("/api/v1/sync/{resource}"), &token, &body);
        assert_eq!((answer.status, answer.text()), (200, "{\"count\":1,\"ok\":true}\n"));
    }
}

/// A request to a route that would do something with these names.
fn ask(route: &Route, names: &Names) -> Ask {
    let segment = SegmentId::from_bytes([3; 32]).to_string();
    let path = route
        .path
        .replace("{org}", names.org)
        .replace("{project}", names.project)
        .replace("{sha256}", &encode_hex(&names.blob))
        .replace("{segment}", &segment);
    let path = match route.path {
        path if path.ends_with("/objects/{id}") => path_of(names).replace("{id}", &names.object.to_string()),
        _ => path.replace("{*id}", names.key).replace("{id}", names.key),
    };
    let query = match route.path {
        path if path.contains("/uploads/") => "?offset=0".to_owned(),
        path if path.ends_with("/arrivals") || path.ends_with("/pull") => {
            format!("?epoch={}&after=0", encode_hex(&EPOCH))
        }
        path if path.starts_with("/api/v1/") && route.method == "GET" => {
            format!("?project_id={}", names.project)
        }
        _ => String::new(),
    };
    let body = match route.path {
        path if path.ends_with("/reconcile") => ReconcileRequest { first: 0, count: 1, position: 0 }.encode(),
        path if path.ends_with("/fetch") => FetchRequest::default().encode(),
        path if path.ends_with("/holds") => HoldsRequest { ids: vec![names.object] }.encode(),
        path if path.ends_with("/commit") => CommitRequest::default().encode(),
        path if path.ends_with("/blobs") => b"bytes".to_vec(),
        _ if route.method == "PUT" => b"bytes".to_vec(),
        _ if route.method == "POST" => format!(r#"{{"project_id":"{}","items":[]}}"#, names.project).into(),
        _ => Vec::new(),
    };
    let ask = Ask::new(route.method, format!("{path}{query}")).body(body);
    match route.method {
        "PUT" => ask.header("X-Chunk-Blake3", blake3::hash(b"bytes").to_string()),
        _ => ask,
    }
}

fn path_of(names: &Names) -> String {
    format!("/api/v2/{}/{}/objects/{{id}}", names.org, names.project)
}

/// What may differ: the date, the id of the request, and the name that the request itself gave.
fn comparable(mut answer: Answer, names: &Names) -> Answer {
    answer.headers.retain(|(name, _)| !["date", "x-request-id", "content-length"].contains(&name.as_str()));
    if let Ok(text) = std::str::from_utf8(&answer.body) {
        answer.body = text.replace(&format!("'{}'", names.project), "'<project>'").into_bytes();
    }
    answer
}

/// Routes whose answer depends on what a project holds.
fn project_routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| matches!(route.access, Access::Token(Some(_))))
}

#[test]
fn nobody_learns_of_others() {
    let service = Service::start();
    fill(&service, 0, "web", "mine", BYTES);
    fill(&service, 1, "theirs", "other", b"of the other org");
    fill(&service, 0, "ops", "op", b"of the other project");
    let (blob, object) = (sha256(b"of the other org"), ObjectId::of(b"of the other org"));
    let never = (sha256(b"never"), ObjectId::of(b"never"));
    // Where each thing is, seen by a token of `acme` or of `acme/web`: somebody else's, and nobody's.
    let pairs = [
        (
            Names { org: "acme", project: "theirs", key: "other", blob, object },
            Names { org: "acme", project: "nobodys", key: "none", blob: never.0, object: never.1 },
        ),
        (
            Names { org: "other", project: "theirs", key: "other", blob, object },
            Names { org: "nobody", project: "theirs", key: "none", blob: never.0, object: never.1 },
        ),
        // Within the own project, keys and hashes of others.
        (
            Names { org: "acme", project: "web", key: "other", blob, object },
            Names { org: "acme", project: "web", key: "none", blob: never.0, object: never.1 },
        ),
    ];
    let scopes = [Scope::Read, Scope::Write, Scope::ProjectsWrite];
    for token in [service.token(0, None, &scopes), service.token(0, Some("web"), &scopes)] {
        for route in project_routes() {
            for (elsewhere, nowhere) in &pairs {
                // What a token writes into its own project it may see.
                if elsewhere.org == nowhere.org && elsewhere.project == "web" && route.method == "PUT" {
                    continue;
                }
                let [one, two] = [elsewhere, nowhere]
                    .map(|names| comparable(service.ask(&ask(route, names).token(&token)), names));
                assert_eq!(one, two, "{} {}", route.method, route.path);
                let named = [route.path.contains("{project}"), route.path.contains("/sync/")];
                if named.contains(&true) && elsewhere.project != "web" {
                    assert!([403, 404].contains(&one.status), "{} {}: {one:?}", route.method, route.path);
                }
            }
        }
    }
}

#[test]
fn a_bound_token_reaches_its_project_only() {
    let service = Service::start();
    fill(&service, 0, "ops", "op", b"of the other project");
    let token = service.token(0, Some("web"), &[Scope::Read, Scope::Write]);
    let (blob, object) = (sha256(b"of the other project"), ObjectId::of(b"of the other project"));
    for route in project_routes() {
        let names = Names { org: "acme", project: "ops", key: "op", blob, object };
        let answer = service.ask(&ask(route, &names).token(&token));
        let expected: &[u16] = match route.path {
            "/api/v1/projects" | "/api/v1/blobs" => &[200, 201],
            "/api/v1/blobs/{sha256}" => &[404],
            _ => &[403],
        };
        assert!(expected.contains(&answer.status), "{} {}: {answer:?}", route.method, route.path);
    }
    assert_eq!(service.get("/api/v1/projects", &token).json()["items"].as_array().unwrap().len(), 1);
    let head = service.ask(&Ask::new("HEAD", format!("/api/v1/blobs/{}", encode_hex(&blob))).token(&token));
    assert_eq!(head.status, 404);
}

#[test]
fn scopes_are_kept() {
    let service = Service::start();
    fill(&service, 0, "web", "mine", BYTES);
    let read = service.token(0, None, &[Scope::Read]);
    let write = service.token(0, None, &[Scope::Write]);
    let admin = service.token(0, None, &[Scope::Admin]);
    for route in project_routes() {
        let Access::Token(Some(scope)) = route.access else { continue };
        let (has, lacks) = if scope == Scope::Read { (&read, &write) } else { (&write, &read) };
        let refused = service.ask(&ask(route, &own()).token(lacks));
        assert_eq!(refused.status, 403, "{} {}", route.method, route.path);
        assert_eq!(refused.json()["code"], "scope");
        for token in [has, &admin] {
            let answer = service.ask(&ask(route, &own()).token(token));
            assert!(answer.status < 300, "{} {}: {answer:?}", route.method, route.path);
        }
    }
}

#[test]
fn without_a_valid_token_all_is_the_same() {
    let service = Service::start();
    fill(&service, 0, "web", "mine", BYTES);
    let scopes = [Scope::Admin];
    let (revoked_id, revoked) = service.token_until(0, None, &scopes, None);
    assert!(service.accounts.revoke_token(&revoked_id).unwrap());
    let soon = Timestamp::from_micros(1_000_000 + agent_trace_store::env::os_env().clock.now().micros());
    let (_, expired) = service.token_until(0, None, &scopes, Some(soon));
    while service.accounts.authenticate(&expired).unwrap().is_some() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let unknown = format!("{}x", &revoked[..revoked.len() - 1]);
    let nowhere =
        Names { org: "nobody", project: "nobodys", key: "none", blob: [0; 32], object: ObjectId::of(b"-") };
    for route in ROUTES.iter().filter(|route| matches!(route.access, Access::Token(_))) {
        let mut answers = Vec::new();
        for names in [own(), nowhere_of(&nowhere)] {
            let ask = ask(route, &names);
            for text in [&revoked, &expired, &unknown, "x", "at_ x", &"x".repeat(5000)] {
                answers.push(comparable(service.ask(&ask.clone().token(text)), &names));
            }
            let none = service.ask(&ask);
            let basic = service.ask(&ask.clone().header("Authorization", "Basic eA=="));
            assert_eq!(none.status, 401, "{} {}", route.method, route.path);
            assert_eq!(comparable(none, &names), comparable(basic, &names));
            let empty = service.ask(&ask.clone().header("Authorization", "Bearer"));
            assert_eq!(comparable(empty, &names), comparable(service.ask(&ask), &names));
        }
        assert_eq!(answers[0].status, 401, "{} {}", route.method, route.path);
        if route.method != "HEAD" {
            assert_eq!(answers[0].json()["error"], "Invalid or revoked token");
            assert_eq!(answers[0].json().get("code").is_some(), route.path.starts_with("/api/v2/"));
        }
        let different = answers.iter().find(|answer| **answer != answers[0]);
        assert_eq!(different, None, "{} {}", route.method, route.path);
    }
}

fn nowhere_of(names: &Names) -> Names {
    Names { org: names.org, project: names.project, key: names.key, blob: names.blob, object: names.object }
}

#[test]
fn admin_routes_take_the_admins_secret_only() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Admin]);
    for route in ROUTES.iter().filter(|route| route.access == Access::Admin) {
        let path = route.path.replace("{id}", "0123456789abcdef");
        let ask = Ask::new(route.method, path).body(if route.method == "POST" { "{}" } else { "" });
        let answers = [
            service.ask(&ask),
            service.ask(&ask.clone().token(&token)),
            service.ask(&ask.clone().header("X-Admin-Secret", "")),
            service.ask(&ask.clone().header("X-Admin-Secret", &ADMIN[1..])),
            service.ask(&ask.clone().header("X-Admin-Secret", "x".repeat(10_000))),
            service.ask(&ask.clone().header("X-Admin-Secret", token.clone())),
        ];
        for answer in answers {
            assert_eq!(answer.status, 403, "{} {}", route.method, route.path);
            assert_eq!(answer.text(), "{\"error\":\"Admin secret required\"}\n");
        }
        assert_ne!(service.ask(&ask.clone().header("X-Admin-Secret", ADMIN)).status, 403);
    }
}

#[test]
fn a_prefix_narrows_what_a_token_reaches() {
    let service = Service::start();
    fill(&service, 0, "web", "mine", BYTES);
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let bound = service.token(0, Some("web"), &[Scope::Read, Scope::Write]);
    let status = |token: &str, path: &str| service.get(path, token).status;
    for token in [&token, &bound] {
        assert_eq!(status(token, "/at/acme/web/api/v1/sync/traces"), 200);
        assert_eq!(status(token, "/at/acme/web/api/v1/sync/traces?project_id=web"), 200);
        assert_eq!(status(token, "/at/acme/web/api/v1/traces/mine?project_id=web"), 200);
        assert_eq!(status(token, "/at/acme/web/api/v2/acme/web/arrivals"), 200);
        assert_eq!(status(token, "/at/acme/web/api/v1/sync/traces?project_id=ops"), 403);
        assert_eq!(status(token, "/at/acme/web/api/v2/acme/ops/arrivals"), 403);
        assert_eq!(status(token, "/at/other/web/api/v2/acme/web/arrivals"), 404);
        assert_eq!(status(token, "/at/other/web/api/v1/sync/traces"), 404);
        assert_eq!(status(token, "/at/nobody/web/api/v1/sync/traces"), 404);
        // Who asks who he is learns it wherever he asks, so that a client can say what is wrong.
        assert_eq!(service.get("/at/other/web/api/v1/auth/whoami", token).json()["org_slug"], "acme");
    }
    assert_eq!(status(&token, "/at/acme/nobodys/api/v1/sync/traces"), 404);
    assert_eq!(status(&bound, "/at/acme/nobodys/api/v1/sync/traces"), 403);
    assert_eq!(status(&bound, "/at/acme/ops/api/v1/sync/traces"), 403);
}
