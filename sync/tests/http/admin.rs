//! What only the admin may ask: what it lists, and that the routes are not there for others.

use agent_trace_sync::service::archive::Accounts as _;
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{Access, ROUTES};
use serde_json::Value;

use crate::client::{Answer, Ask};
use crate::service::{ADMIN, Service};

fn list(service: &Service, path: &str) -> Value {
    let answer = service.ask(&Ask::new("GET", path).header("X-Admin-Secret", ADMIN));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn column(page: &Value, name: &str) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
}

/// What may differ: the date and the id of the request.
fn comparable(mut answer: Answer) -> Answer {
    answer.headers.retain(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    answer
}

#[test]
fn hidden_routes_are_not_there_for_others_than_the_admin() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Admin]);
    let nowhere = comparable(service.ask(&Ask::new("GET", "/api/none")));
    assert_eq!(
        (nowhere.status, nowhere.text()),
        (404, "{\"code\":\"not_found\",\"error\":\"no such route\"}\n")
    );
    let hidden: Vec<_> = ROUTES.iter().filter(|route| route.access == Access::Hidden).collect();
    assert!(!hidden.is_empty());
    for route in hidden {
        for org in ["acme", "other", "none"] {
            let path = route.path.replace("{org}", org);
            for ask in [
                Ask::new(route.method, &path),
                Ask::new(route.method, format!("/at/acme/web{path}")),
                Ask::new("DELETE", &path),
                Ask::new(route.method, &path).token(&token),
                Ask::new(route.method, &path).token("at_none"),
                Ask::new(route.method, &path).header("X-Admin-Secret", ""),
                Ask::new(route.method, &path).header("X-Admin-Secret", &ADMIN[1..]),
                Ask::new(route.method, &path).header("X-Admin-Secret", token.clone()),
            ] {
                assert_eq!(comparable(service.ask(&ask)), nowhere, "{ask:?}");
            }
        }
    }
}

#[test]
fn the_admin_lists_orgs_and_the_projects_and_tokens_of_each() {
    let service = Service::start();
    let secret = service.token(0, Some("web"), &[Scope::Read, Scope::Write]);
    let _used = service.get("/api/v1/auth/whoami", &secret);
    let other = service.token(1, None, &[Scope::Admin]);
    let orgs = list(&service, "/api/admin/orgs");
    assert_eq!(
        (column(&orgs, "slug"), &orgs["next"]),
        (vec!["default".into(), "acme".into(), "other".into()], &Value::Null)
    );
    let rest = list(&service, &format!("/api/admin/orgs?after={}", column(&orgs, "id")[0]));
    assert_eq!(column(&rest, "slug"), ["acme", "other"]);
    // By slug and by id, newest first.
    for org in ["acme", &service.orgs[0]] {
        let projects = list(&service, &format!("/api/admin/orgs/{org}/projects"));
        assert_eq!(column(&projects, "project_id"), ["ops", "web"]);
        let tokens = list(&service, &format!("/api/admin/orgs/{org}/tokens"));
        let items = tokens["items"].as_array().unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(
            (&items[0]["project_id"], &items[0]["scopes"]),
            (&"web".into(), &serde_json::json!(["read", "write"]))
        );
        assert!(items[0]["last_used_at"].is_string() && items[0]["expires_at"].is_null(), "{tokens}");
        for secret in [&secret, &other] {
            assert!(!tokens.to_string().contains(secret.rsplit('_').nth(1).unwrap()), "{tokens}");
        }
    }
    let id = service.accounts.tokens(Some(&service.orgs[1])).unwrap()[0].id.clone();
    let ask = Ask::new("DELETE", format!("/api/v1/tokens/{}", id.as_str())).header("X-Admin-Secret", ADMIN);
    assert_eq!(service.ask(&ask).status, 200);
    let tokens = list(&service, "/api/admin/orgs/other/tokens");
    assert!(tokens["items"][0]["revoked_at"].is_string(), "{tokens}");
}

fn set_quota(service: &Service, org: &str, quota: &str) -> Answer {
    let ask =
        Ask::new("PATCH", format!("/api/admin/orgs/{org}")).body(format!(r#"{{"quota_bytes":{quota}}}"#));
    let length = ask.body.len().to_string();
    service.ask(&ask.header("X-Admin-Secret", ADMIN).header("Content-Length", length))
}

#[test]
fn a_quota_is_a_whole_number_or_null() {
    let service = Service::start();
    for (quota, found) in [("1000", 1000.into()), ("0", 0.into()), ("null", Value::Null)] {
        let answer = set_quota(&service, "acme", quota);
        assert_eq!((answer.status, &answer.json()["quota_bytes"]), (200, &found), "{answer:?}");
        assert_eq!(list(&service, "/api/admin/orgs/acme")["quota_bytes"], found);
    }
    for quota in ["-1", "1.5", "\"7\"", "[]", "true"] {
        assert_eq!(set_quota(&service, "acme", quota).status, 400, "{quota}");
    }
    assert_eq!(set_quota(&service, "none", "1").json()["code"], "org_not_found");
}

#[test]
fn nothing_goes_over_the_quota_of_an_org() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let other = service.token(1, None, &[Scope::Read, Scope::Write]);
    assert_eq!(set_quota(&service, "acme", "6000000").status, 200);
    let blob = |token: &str, number: u8, bytes: usize| {
        service.ask(&Ask::new("POST", "/api/v1/blobs").token(token).body(vec![number; bytes]))
    };
    assert_eq!(blob(&token, 1, 5_000_000).status, 201);
    let records = r#"{"project_id":"web","items":[{"id":"a"}]}"#;
    assert_eq!(service.post("/api/v1/sync/traces", &token, records).status, 200);
    let over = blob(&token, 2, 1_000_000);
    assert_eq!((over.status, &over.json()["code"]), (507, &"quota_exceeded".into()));
    assert!(over.header("retry-after").is_none());
    assert_eq!(blob(&other, 2, 1_000_000).status, 201, "an organisation has a quota of its own");
    // A body whose length is not said is counted as it comes.
    let piece = vec![3; 1 << 20];
    let mut body = Vec::new();
    for _ in 0..8 {
        body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(&piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let chunked = |token: &str| {
        let ask = Ask::new("POST", "/api/v1/blobs").token(token).header("Transfer-Encoding", "chunked");
        service.ask(&ask.body(body.clone())).status
    };
    assert_eq!((chunked(&token), chunked(&other)), (507, 201));
    let chunk = vec![4; 1_000_000];
    let upload = Ask::new("PUT", format!("/api/v2/acme/web/uploads/{}?offset=0", "ab".repeat(32)))
        .token(&token)
        .header("X-Chunk-Blake3", blake3::hash(&chunk).to_string())
        .body(chunk);
    assert_eq!(service.ask(&upload).json()["code"], "quota_exceeded");
    let many = format!(r#"{{"project_id":"web","items":[{{"id":"b","x":"{}"}}]}}"#, "x".repeat(1_100_000));
    assert_eq!(service.post("/api/v1/sync/traces", &token, &many).status, 507);
    // What is there already can be read, and asked for.
    assert_eq!(service.get("/api/v1/sync/traces?project_id=web", &token).status, 200);
    let metrics = Ask::new("GET", "/metrics").send(service.metrics);
    assert!(
        metrics.text().contains("agent_trace_limited_total{limit=\"org_bytes\"} 4\n"),
        "{}",
        metrics.text()
    );
    assert_eq!(set_quota(&service, "acme", "null").status, 200);
    assert_eq!(service.ask(&upload).status, 200);
}

#[test]
fn the_tokens_of_an_org_share_its_requests() {
    let service = Service::start_with(1);
    let tokens: Vec<String> = (0..20).map(|_| service.token(0, None, &[Scope::Read])).collect();
    let status = |token: &str| service.get("/api/v1/auth/whoami", token).status;
    let answers: Vec<u16> =
        tokens.iter().flat_map(|token| (0..4).map(|_| status(token)).collect::<Vec<_>>()).collect();
    assert!(answers.contains(&200) && answers.contains(&429), "{answers:?}");
    let metrics = Ask::new("GET", "/metrics").send(service.metrics);
    assert!(!metrics.text().contains("agent_trace_limited_total{limit=\"org_requests\"} 0\n"));
    assert!(metrics.text().contains("agent_trace_limited_total{limit=\"token_requests\"} 0\n"));
    let other = service.token(1, None, &[Scope::Read]);
    assert_eq!(status(&other), 200);
}
