//! Version 1 as its clients know it: bodies, statuses, the order of checks, pages, blobs.

use std::sync::atomic::Ordering;

use agent_trace_store::id::encode_hex;
use agent_trace_sync::service::archive::Accounts;
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::limits::BLOB_ARCHIVES_OPENED_MAX;

use crate::client::{Answer, Ask};
use crate::fake::sha256;
use crate::service::{ADMIN, Service};

#[track_caller]
fn check(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.text()), (status, format!("{body}\n").as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

fn admin(service: &Service, method: &str, path: &str, body: &str) -> Answer {
    service.ask(&Ask::new(method, path).header("X-Admin-Secret", ADMIN).body(body))
}

#[test]
fn the_service_says_what_it_is() {
    let service = Service::start();
    let get = |path: &str| service.ask(&Ask::new("GET", path));
    let root = get("/").json();
    assert_eq!(
        (root["name"].as_str(), root["version"].as_str()),
        (Some("agent-trace-service"), Some("1.1.0"))
    );
    assert_eq!(get("/health").json()["db"], "connected");
    assert_eq!(get("/api/v1/version").json()["name"], "agent-trace-service");
    assert_eq!(get("/healthz").text(), "ok\n");
    assert_eq!(get("/readyz").text(), "ready\n");
    assert_eq!(get("/api/v2/caps").json()["protocols"], serde_json::json!([1, 2]));
    assert_eq!(get("/nothing").status, 404);
    let wrong = service.ask(&Ask::new("PATCH", "/api/v1/projects"));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST, GET")));
    let id = service.ask(&Ask::new("GET", "/health").header("X-Request-Id", "mine-1"));
    assert_eq!(id.header("x-request-id"), Some("mine-1"));
    let odd = service.ask(&Ask::new("GET", "/health").header("X-Request-Id", "a b\"c"));
    assert_eq!(odd.header("x-request-id").map(str::len), Some(32));
}

#[test]
fn orgs_and_tokens() {
    let service = Service::start();
    check(&admin(&service, "POST", "/api/v1/orgs", "{}"), 400, r#"{"error":"slug is required"}"#);
    let made = admin(&service, "POST", "/api/v1/orgs", r#"{"slug":"new","name":"New"}"#);
    assert_eq!((made.status, made.json()["name"].as_str()), (201, Some("New")));
    let again = admin(&service, "POST", "/api/v1/orgs", r#"{"slug":"new"}"#);
    assert_eq!((again.status, again.json()), (200, made.json()));
    let odd = admin(&service, "POST", "/api/v1/orgs", r#"{"slug":"new","id":"x"}"#);
    check(&odd, 400, r#"{"code":"invalid_id","error":"id must be a UUID"}"#);
    let other = r#"{"slug":"new","id":"{12345678-1234-1234-1234-1234567890AB}"}"#;
    let taken = admin(&service, "POST", "/api/v1/orgs", other);
    assert_eq!((taken.status, taken.json()["code"].as_str()), (409, Some("org_slug_conflict")));

    let org = made.json()["id"].as_str().unwrap().to_owned();
    let body = format!(r#"{{"org_id":"{org}","name":"ci","project_id":null}}"#);
    let token = admin(&service, "POST", "/api/v1/tokens", &body);
    assert_eq!(token.status, 201);
    let token = token.json();
    assert_eq!(token["scopes"], serde_json::json!(["read", "write"]));
    let secret = token["token"].as_str().unwrap();
    let whoami = service.get("/api/v1/auth/whoami", secret);
    let expected =
        format!(r#"{{"org_id":"{org}","org_slug":"new","project_id_scope":null,"scopes":["read","write"]}}"#);
    check(&whoami, 200, &expected);
    let verify = |body: &str| service.ask(&Ask::new("POST", "/api/v1/tokens/verify").body(body));
    assert_eq!(verify(&format!(r#"{{"token":"{secret}"}}"#)).json()["valid"], true);
    check(&verify("{}"), 400, r#"{"error":"token is required"}"#);
    check(&verify(r#"{"token":"at_x"}"#), 401, r#"{"error":"Invalid or revoked token","valid":false}"#);

    let listed = admin(&service, "GET", &format!("/api/v1/tokens?org_id={org}"), "");
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 1);
    assert!(!listed.text().contains(secret));
    let path = format!("/api/v1/tokens/{}", token["id"].as_str().unwrap());
    check(&admin(&service, "DELETE", &path, ""), 200, r#"{"ok":true}"#);
    check(&service.get("/api/v1/auth/whoami", secret), 401, r#"{"error":"Invalid or revoked token"}"#);
    assert_eq!(admin(&service, "DELETE", "/api/v1/tokens/ffffffffffffffff", "").status, 404);
    for body in [r#"{"scopes":"read"}"#, r#"{"scopes":["nonsense"]}"#, r#"{"scopes":[1]}"#, r#"{"name":7}"#] {
        assert_eq!(admin(&service, "POST", "/api/v1/tokens", body).status, 400, "{body}");
    }
    assert_eq!(admin(&service, "POST", "/api/v1/tokens", r#"{"org_id":"none"}"#).status, 404);
}

#[test]
fn projects_are_made_listed_and_removed() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::ProjectsWrite]);
    let post = |token: &str, body: &str| service.post("/api/v1/projects", token, body);
    let made = post(&token, r#"{"project_id":"new","org_slug":"acme","description":"é"}"#);
    assert_eq!((made.status, made.json()["project_id"].as_str()), (201, Some("new")));
    assert!(made.text().contains(r#""description":"\u00e9""#));
    let again = post(&token, r#"{"project_id":"new"}"#);
    check(&again, 409, r#"{"code":"project_exists","error":"Project 'new' already exists in this org"}"#);
    check(&post(&token, "{}"), 400, r#"{"error":"project_id is required"}"#);
    assert_eq!(post(&token, r#"{"project_id":"Bad Slug"}"#).json()["code"], "invalid_slug");
    let other = post(&token, r#"{"project_id":"x","org_slug":"other"}"#);
    let nobody = post(&token, r#"{"project_id":"x","org_slug":"nobody"}"#);
    assert_eq!((other.status, nobody.status), (403, 403));
    assert_eq!(other.json()["expected"], "acme");
    assert_eq!(other.text().replace("other", "nobody"), nobody.text());
    for weak in
        [service.token(0, None, &[Scope::Write]), service.token(0, Some("web"), &[Scope::ProjectsWrite])]
    {
        assert_eq!(post(&weak, r#"{"project_id":"x"}"#).status, 403);
    }
    assert_eq!(service.ask(&Ask::new("POST", "/api/v1/projects").body("{}")).status, 401);
    // A wrong secret falls through to the token.
    let both = Ask::new("POST", "/api/v1/projects").token(&token).header("X-Admin-Secret", "wrong");
    assert_eq!(service.ask(&both.body(r#"{"project_id":"second"}"#)).status, 201);
    let by_admin = |body: &str| admin(&service, "POST", "/api/v1/projects", body);
    assert_eq!(by_admin(r#"{"project_id":"third","org_slug":"acme"}"#).status, 201);
    assert_eq!(by_admin(r#"{"project_id":"x","org_slug":"none"}"#).json()["code"], "org_not_found");
    let mixed = format!(r#"{{"project_id":"x","org_slug":"acme","org_id":"{}"}}"#, service.orgs[1]);
    assert_eq!(by_admin(&mixed).json()["code"], "org_slug_mismatch");

    let listed = service.get("/api/v1/projects", &token).json();
    let slugs: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| &item["project_id"]).collect();
    assert_eq!(slugs[..2], ["third", "second"]);
    assert_eq!(service.get("/api/v1/projects/new", &token).json()["org_id"], service.orgs[0].as_str());
    check(&service.get("/api/v1/projects/none", &token), 404, r#"{"error":"Project not found"}"#);
    let delete = |path: &str| service.ask(&Ask::new("DELETE", path).token(&token));
    let gone = delete("/api/v1/projects/new");
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    assert_eq!(delete("/api/v1/projects/new").json()["code"], "project_not_found");
    assert_eq!(delete("/api/v1/projects/theirs").status, 404);
    assert_eq!(service.get("/api/v1/sync/traces?project_id=new", &token).status, 404);
}

#[test]
fn the_project_is_guarded_in_order() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let bound = service.token(0, Some("web"), &[Scope::Read, Scope::Write]);
    let required = r#"{"error":"project_id is required"}"#;
    for resource in ["traces", "ledgers", "commit-links", "conversations", "summaries"] {
        let path = format!("/api/v1/sync/{resource}");
        check(&service.get(&path, &token), 400, required);
        check(&service.get(&format!("{path}?project_id="), &token), 400, required);
        for body in ["", "{", "[]", "nonsense", "{\"items\":[]}", "{\"project_id\":7}", "\u{feff}{}"] {
            check(&service.post(&path, &token, body), 400, required);
        }
        let answer = service.post(&path, &bound, r#"{"project_id":"nobodys","items":[]}"#);
        check(&answer, 403, r#"{"error":"Token is not scoped to this project"}"#);
        let answer = service.post(&path, &token, r#"{"project_id":"nobodys","items":[]}"#);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("project_not_found")));
        let list = r#"{"error":"items must be a list"}"#;
        check(&service.post(&path, &token, r#"{"project_id":"web","items":{}}"#), 400, list);
        let early = service.post(&path, &bound, r#"{"project_id":"nobodys","items":{}}"#);
        assert_eq!(early.status, if resource == "traces" { 400 } else { 403 });
        check(&service.post(&path, &token, r#"{"project_id":"web"}"#), 200, r#"{"count":0,"ok":true}"#);
        let cut = service.post(&format!("{path}?project_id=web"), &token, r#"{"items":[{"id""#);
        assert_eq!((cut.status, cut.json()["code"].as_str()), (400, Some("invalid")));
        for query in ["limit=-1", "limit=x", "limit=1.0", "since=yesterday", "since=2026"] {
            assert_eq!(service.get(&format!("{path}?project_id=web&{query}"), &token).status, 400, "{query}");
        }
    }
}

#[test]
fn a_bad_item_is_skipped_and_listed() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let body = format!(
        r#"{{"items":[{{"id":"a","t":1.50}},7,{{"x":1}},{{"id":"b","id":"c"}},{{"id":"d","deep":{deep}}},{{"id":"é"}}],
           "project_id":"web"}}"#
    );
    let answer = service.post("/api/v1/sync/traces", &token, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!((answer["count"].as_u64(), answer["skipped_count"].as_u64()), (Some(6), Some(4)));
    let skipped: Vec<_> =
        answer["skipped"].as_array().unwrap().iter().map(|item| item["index"].as_u64()).collect();
    assert_eq!(skipped, [Some(1), Some(2), Some(3), Some(4)]);
    let page = service.get("/api/v1/sync/traces?project_id=web", &token);
    let text = page.text();
    assert!(
        text.starts_with(r#"{"items":[{"id":"a","t":1.50},{"id":"\u00e9"}],"max_timestamp":"20"#),
        "{text}"
    );
    assert!(text.ends_with("+00:00\"}\n"), "{text}");
    check(
        &service.get("/api/v1/traces/%C3%A9?project_id=web", &token),
        200,
        &format!(
            r#"{{"trace":{{"id":"\u00e9"}},"user_id":"{}"}}"#,
            service.accounts.book().authenticate(&token).unwrap().token.as_str()
        ),
    );
    assert_eq!(service.get("/api/v1/traces/none?project_id=web", &token).status, 404);
    assert_eq!(service.get("/api/v1/traces/%ff?project_id=web", &token).status, 400);
}

#[test]
fn pages_follow_each_other_to_the_end() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let items: Vec<String> = (0..730).map(|at| format!(r#"{{"commit_sha":"{at:04}"}}"#)).collect();
    let body = format!(r#"{{"project_id":"web","items":[{}]}}"#, items.join(","));
    assert_eq!(service.post("/api/v1/sync/ledgers", &token, &body).json()["count"], 730);
    for (limit, expected) in [("", 500), ("&limit=300", 300), ("&limit=100", 100), ("&limit=5000", 730)] {
        let (mut since, mut seen) = (String::new(), Vec::new());
        loop {
            let page =
                service.get(&format!("/api/v1/sync/ledgers?project_id=web{limit}{since}"), &token).json();
            let items = page["items"].as_array().unwrap();
            if seen.is_empty() {
                assert_eq!(items.len(), expected);
            }
            seen.extend(items.iter().map(|item| item["commit_sha"].as_str().unwrap().to_owned()));
            match page["max_timestamp"].as_str() {
                // As Python's `urlencode` has it.
                Some(last) => since = format!("&since={}", last.replace('+', "%2B").replace(':', "%3A")),
                None => break,
            }
            assert!(seen.len() <= 730);
        }
        assert_eq!(seen, (0..730).map(|at| format!("{at:04}")).collect::<Vec<_>>());
    }
    let none = service.get("/api/v1/sync/ledgers?project_id=web&limit=0", &token);
    check(&none, 200, r#"{"items":[],"max_timestamp":null}"#);
}

#[test]
fn blobs_come_back_as_they_were_and_belong_to_their_token() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let colleague = service.token(0, None, &[Scope::Read, Scope::Write]);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| ((at * 31) >> 3).to_le_bytes()[0]).collect();
    let sha = encode_hex(&sha256(&bytes));
    let path = format!("/api/v1/blobs/{sha}");
    let head = |token: &str| service.ask(&Ask::new("HEAD", path.as_str()).token(token)).status;
    assert_eq!(head(&token), 404);
    let sent = service.ask(&Ask::new("POST", "/api/v1/blobs").token(&token).body(bytes.clone()));
    check(&sent, 201, &format!(r#"{{"sha256":"{sha}","size":3000000}}"#));
    // Staged: there for who sent it, and for nobody else.
    assert_eq!((head(&token), head(&colleague)), (200, 404));
    check(&service.get(&path, &colleague), 404, r#"{"error":"Blob not found"}"#);
    let pointer = format!(
        r#"{{"project_id":"web","items":[{{"conversation_id":"c","content_sha256":"{sha}","size":3000000}}]}}"#
    );
    let stolen = service.post("/api/v1/sync/conversations", &colleague, &pointer);
    let missing = "Referenced blob is missing; upload it via POST /api/v1/blobs first";
    check(&stolen, 400, &format!(r#"{{"content_sha256":"{sha}","error":"{missing}"}}"#));
    // Named by a pointer: there for who may read the project.
    check(&service.post("/api/v1/sync/conversations", &token, &pointer), 200, r#"{"count":1,"ok":true}"#);
    assert_eq!(head(&colleague), 200);
    let got = service.get(&path, &colleague);
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/octet-stream")));
    assert!(got.body == bytes);
    assert_eq!(head(&service.token(1, None, &[Scope::Admin])), 404);
    let row = service.get("/api/v1/sync/conversations?project_id=web", &colleague).json();
    assert_eq!(row["items"][0]["size"], 3_000_000);
    assert_eq!(row["items"][0].get("content"), None);
    let whole = service.get("/api/v1/conversations/c?project_id=web", &colleague).json();
    assert_eq!((whole["content"].as_str(), whole["size"].as_u64()), (None, Some(3_000_000)));
    assert_eq!(whole["content_b64"].as_str().map(str::len), Some(4_000_000));
    let empty = Ask::new("POST", "/api/v1/blobs").token(&token);
    check(&service.ask(&empty), 400, r#"{"error":"Empty body"}"#);
    let chunked = empty.header("Transfer-Encoding", "chunked");
    check(&service.ask(&chunked.clone().body("0\r\n\r\n")), 400, r#"{"error":"Empty body"}"#);
    let sent = service.ask(&chunked.body("3\r\nabc\r\n0\r\n\r\n"));
    assert_eq!((sent.status, sent.json()["size"].as_u64()), (201, Some(3)));
    assert_eq!(service.get("/api/v1/blobs/xyz", &token).status, 404);
}

#[test]
fn a_hash_that_nobody_has_does_not_open_every_project() {
    let service = Service::start();
    let (writer, bytes) = (service.token(0, None, &[Scope::Read, Scope::Write]), b"of the first project");
    let token = service.token(0, None, &[Scope::Read]);
    let sha = encode_hex(&sha256(bytes));
    let staged = service.ask(&Ask::new("POST", "/api/v1/blobs").token(&writer).body(bytes.to_vec()));
    assert_eq!(staged.status, 201);
    let pointer = format!(
        r#"{{"project_id":"web","items":[{{"conversation_id":"c","content_sha256":"{sha}","size":20}}]}}"#
    );
    assert_eq!(service.post("/api/v1/sync/conversations", &writer, &pointer).status, 200);
    for number in 0..100 {
        service.accounts.create_project(&service.orgs[0], &format!("p{number}"), None, None).unwrap();
    }
    let opened = || service.world.opened.load(Ordering::Relaxed);
    let ask = |path: &str, token: &str| {
        let before = opened();
        let status = service.ask(&Ask::new("HEAD", path).token(token)).status;
        (status, opened() - before)
    };
    let none = format!("/api/v1/blobs/{}", encode_hex(&sha256(b"nobody's")));
    let (status, count) = ask(&none, &token);
    assert_eq!(status, 404);
    assert!((1..=BLOB_ARCHIVES_OPENED_MAX).contains(&count), "{count} archives opened");
    // The newest projects stand first, but what is open is looked at before any is opened.
    let there = format!("/api/v1/blobs/{sha}");
    assert_eq!(ask(&there, &token), (200, 0));
    // Where the project is named it is the only one.
    assert!(ask(&format!("/at/acme/p3{none}"), &token).1 <= 1);
    assert_eq!(ask(&format!("/at/acme/p3{there}"), &token).0, 404);
    assert_eq!(ask(&there, &service.token(0, Some("p1"), &[Scope::Read])).0, 404);
}

#[test]
fn small_transcripts_stand_in_their_rows() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Read, Scope::Write]);
    let body = r#"{"project_id":"web","conversation_contents":[{"conversation_id":"a/b","content":"x\u2028\n\ud83d\ude00"}]}"#;
    assert_eq!(service.post("/api/v1/sync/conversations", &token, body).status, 200);
    let page = service.get("/api/v1/sync/conversations?project_id=web", &token).json();
    assert_eq!(page["items"][0]["content"], "x\u{2028}\n\u{1f600}");
    assert_eq!(page["items"][0]["updated_at"], page["max_timestamp"]);
    let whole = service.get("/api/v1/conversations/a/b?project_id=web", &token);
    let sha = encode_hex(&sha256("x\u{2028}\n\u{1f600}".as_bytes()));
    check(
        &whole,
        200,
        &format!(
            r#"{{"content":"x\u2028\n\ud83d\ude00","content_b64":null,"content_sha256":"{sha}","conversation_id":"a/b","size":9}}"#
        ),
    );
}
