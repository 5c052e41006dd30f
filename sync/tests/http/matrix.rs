//! The tenant matrix: every route, asked by every kind of token, for what is there, what is elsewhere and what never was,
//! over real accounts and archives. "Not yours" and "not there" are the same answer, by the same work.

use std::collections::BTreeSet;

use agent_trace_store::id::encode_hex;
use agent_trace_store::{EventId, ObjectId, SegmentId, WriterId};
use agent_trace_sync::service::archive::{Accounts as _, ArrivalRun};
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{Access, ROUTES, Route};
use agent_trace_sync::wire::{CommitRequest, FetchRequest, HoldsRequest, ReconcileRequest};

use crate::client::{Answer, Ask};
use crate::fake::sha256;
use crate::real::{Names, Real, batch};

const ALL: &[Scope] = &[Scope::Read, Scope::Write, Scope::ProjectsWrite];

/// Somebody who asks.
struct Who {
    name: &'static str,
    secret: Option<String>,
    is_valid: bool,
    org: usize,
    bound: Option<&'static str>,
    scopes: &'static [Scope],
}

impl Who {
    fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Everybody. Those of `acme` come first: what they must not see has not been opened by anybody then.
fn everybody(service: &Real) -> Vec<Who> {
    let mut all = Vec::new();
    let mut add = |name, secret, is_valid, (org, bound, scopes)| {
        all.push(Who { name, secret, is_valid, org, bound, scopes });
    };
    let soon = service.disk.now().plus_micros(1_000_000);
    let (revoked_id, revoked) = service.token(0, None, ALL, None);
    assert!(service.accounts.revoke_token(&revoked_id).unwrap());
    let expired = service.token(0, None, ALL, Some(soon)).1;
    service.disk.advance(2_000_000);
    let nobody = (0, None, &[][..]);
    add("no token", None, false, nobody);
    add("a token that never was", Some(format!("{}0", &revoked[..revoked.len() - 1])), false, nobody);
    add("garbage", Some("garbage".to_owned()), false, nobody);
    add("revoked", Some(revoked), false, nobody);
    add("expired", Some(expired), false, nobody);
    for (name, org, bound, scopes) in [
        ("org-wide", 0, None, ALL),
        ("bound", 0, Some("web"), ALL),
        ("read-only", 0, None, &[Scope::Read][..]),
        ("write-only", 0, None, &[Scope::Write][..]),
        ("bound and read-only", 0, Some("web"), &[Scope::Read][..]),
        ("bound to another project", 0, Some("ops"), ALL),
        ("of another org", 1, None, ALL),
        ("bound in another org", 1, Some("theirs"), ALL),
    ] {
        add(name, Some(service.token(org, bound, scopes, None).1), true, (org, bound, scopes));
    }
    all
}

/// Names of nothing, as long as those of something.
fn never(org: &str, project: &str) -> Names {
    Names {
        org: org.to_owned(),
        project: project.to_owned(),
        key: format!("{:040x}", 0xdead),
        blob: sha256(b"never"),
        object: ObjectId::of(b"never"),
        segment: SegmentId::from_bytes([9; 32]),
        event: EventId::of(b"never"),
        run: ArrivalRun { writer: WriterId::from_bytes([9; 32]), seq_first: 1, count: 3 },
        epoch: [9; 16],
    }
}

/// What a route is asked for with these names. A route that is not here fails the test: it must be thought of.
fn ask(route: &Route, names: &Names) -> Ask {
    let Names { org, project, key, object, segment, .. } = names;
    let blob = encode_hex(&names.blob);
    let cursor = format!("epoch={}&after=0", encode_hex(&names.epoch));
    let by_project = format!("project_id={project}");
    let items = |item: String| format!(r#"{{"project_id":"{project}","items":[{item}]}}"#).into_bytes();
    let v2 = |path: &str| format!("/api/v2/{org}/{project}/{path}");
    let chunk = segment.to_string().into_bytes();
    let (path, body) = match (route.method, route.path) {
        ("GET", "/" | "/health" | "/healthz" | "/readyz" | "/api/openapi.json")
        | ("GET", "/api/v1/version" | "/api/v1/auth/whoami" | "/api/v1/projects" | "/api/v1/tokens")
        | ("GET", "/api/v2/caps") => (route.path.to_owned(), vec![]),
        ("POST", "/api/v1/orgs") => (route.path.to_owned(), format!(r#"{{"slug":"{org}"}}"#).into()),
        ("POST", "/api/v1/tokens") => {
            (route.path.to_owned(), format!(r#"{{"project_id":"{project}"}}"#).into())
        }
        ("POST", "/api/v1/tokens/verify") => {
            (route.path.to_owned(), format!(r#"{{"token":"{key}"}}"#).into())
        }
        ("DELETE", "/api/v1/tokens/{id}") => (format!("/api/v1/tokens/{key}"), vec![]),
        ("POST", "/api/v1/projects") => {
            (route.path.to_owned(), format!(r#"{{"project_id":"{project}","org_slug":"{org}"}}"#).into())
        }
        ("GET", "/api/v1/projects/{project}") => (format!("/api/v1/projects/{project}"), vec![]),
        ("DELETE", "/api/v1/projects/{project}") => {
            (format!("/api/v1/projects/{project}"), format!(r#"{{"org_slug":"{org}"}}"#).into())
        }
        ("GET", "/api/v1/sync/traces" | "/api/v1/sync/ledgers" | "/api/v1/sync/commit-links")
        | ("GET", "/api/v1/sync/conversations" | "/api/v1/sync/summaries") => {
            (format!("{}?{by_project}", route.path), vec![])
        }
        ("POST", "/api/v1/sync/traces") => {
            (route.path.to_owned(), items(format!(r#"{{"id":"{key}","timestamp":"2026-01-01T00:00:00Z"}}"#)))
        }
        ("POST", "/api/v1/sync/ledgers" | "/api/v1/sync/commit-links") => {
            (route.path.to_owned(), items(format!(r#"{{"commit_sha":"{key}"}}"#)))
        }
        ("POST", "/api/v1/sync/conversations") => (
            route.path.to_owned(),
            items(format!(r#"{{"conversation_id":"{key}","content_sha256":"{blob}","size":9}}"#)),
        ),
        ("POST", "/api/v1/sync/summaries") => {
            (route.path.to_owned(), items(format!(r#"{{"conversation_id":"{key}","summary":"x"}}"#)))
        }
        ("GET", "/api/v1/traces/{id}" | "/api/v1/ledgers/{id}" | "/api/v1/conversations/{*id}") => {
            let path = route.path.replace("{*id}", key).replace("{id}", key);
            (format!("{path}?{by_project}"), vec![])
        }
        ("HEAD" | "GET", "/api/v1/blobs/{sha256}") => (format!("/api/v1/blobs/{blob}"), vec![]),
        ("POST", "/api/v1/blobs") => (route.path.to_owned(), b"bytes".to_vec()),
        ("GET", "/api/v2/{org}/{project}/arrivals") => (v2(&format!("arrivals?{cursor}")), vec![]),
        ("GET", "/api/v2/{org}/{project}/pull") => (v2(&format!("pull?{cursor}")), vec![]),
        ("POST", "/api/v2/{org}/{project}/reconcile") => {
            (v2("reconcile"), ReconcileRequest { first: 0, count: 2, position: 0 }.encode())
        }
        ("POST", "/api/v2/{org}/{project}/fetch") => {
            (v2("fetch"), FetchRequest { runs: vec![names.run], ids: vec![names.event] }.encode())
        }
        ("POST", "/api/v2/{org}/{project}/holds") => {
            (v2("holds"), HoldsRequest { ids: vec![*object] }.encode())
        }
        ("GET", "/api/v2/{org}/{project}/uploads/{segment}") => (v2(&format!("uploads/{segment}")), vec![]),
        ("PUT", "/api/v2/{org}/{project}/uploads/{segment}") => {
            (v2(&format!("uploads/{segment}?offset=0")), chunk.clone())
        }
        ("POST", "/api/v2/{org}/{project}/commit") => {
            let commit = CommitRequest { batch: batch(), segments: vec![*segment], tips: vec![] };
            (v2("commit"), commit.encode())
        }
        ("GET", "/api/v2/{org}/{project}/objects/{id}") => (v2(&format!("objects/{object}")), vec![]),
        ("GET", "/api/admin/orgs") => (route.path.to_owned(), vec![]),
        ("GET", path) if path.starts_with("/api/admin/orgs/{org}") => (path.replace("{org}", org), vec![]),
        ("PATCH", "/api/admin/orgs/{org}") => {
            (format!("/api/admin/orgs/{org}"), br#"{"quota_bytes":null}"#.to_vec())
        }
        (method, path) => panic!("the matrix does not know {method} {path}"),
    };
    let ask = Ask::new(route.method, path).body(body);
    if route.method == "PUT" { ask.header("X-Chunk-Blake3", blake3::hash(&chunk).to_string()) } else { ask }
}

/// The routes as the description has them, each as `METHOD path`.
fn described() -> BTreeSet<String> {
    let description: serde_json::Value =
        serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let paths = description["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| (path, method)))
        .map(|(path, method)| format!("{} {path}", method.to_ascii_uppercase()))
        .collect()
}

/// Standing alone, and below the names of what is asked for.
fn spellings(route: &Route, ask: Ask, names: &Names) -> Vec<Ask> {
    let mut all = vec![ask.clone()];
    if route.path.starts_with("/api/") {
        let path = format!("/at/{}/{}{}", names.org, names.project, ask.path);
        all.push(Ask { path, ..ask });
    }
    all
}

fn with(ask: Ask, who: &Who) -> Ask {
    match &who.secret {
        Some(secret) => ask.token(secret),
        None => ask,
    }
}

/// The answer without date and request id, and without what these requests themselves said.
fn comparable(answer: Answer, names: [&Names; 2]) -> Answer {
    names.into_iter().fold(answer, without)
}

fn without(mut answer: Answer, names: &Names) -> Answer {
    answer.headers.retain(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    if let Ok(text) = String::from_utf8(answer.body.clone()) {
        let said = [
            encode_hex(&names.blob),
            names.object.to_string(),
            names.segment.to_string(),
            names.segment.short().to_string(),
            names.key.clone(),
            format!("'{}'", names.project),
            format!("'{}'", names.org),
            format!("\"got\":\"{}\"", names.org),
        ];
        let text = said.iter().fold(text, |text, said| text.replace(said, &"#".repeat(said.len())));
        answer.body = text.into_bytes();
    }
    answer
}

/// Whether what a route does depends on a project, a key or a hash that it is given.
fn is_of_a_project(route: &Route) -> bool {
    route.path.contains("{project}")
        || route.path.contains("/sync/")
        || route.path.contains("{id}")
        || route.path.contains("{*id}")
}

/// The status of an answer about `acme/web` and what is in it.
fn expected(route: &Route, who: &Who) -> u16 {
    let reaches = who.org == 0 && who.bound.is_none_or(|bound| bound == "web");
    // By version 1 a project is one of the token's own org, whatever others have.
    let is_named_alone = route.path.starts_with("/api/v1/") && who.bound.is_some();
    let out_of_reach = if who.org == 0 || is_named_alone { 403 } else { 404 };
    let scope = match route.access {
        Access::Open if route.path.ends_with("/verify") => return 401,
        Access::Open => return 200,
        Access::Admin => return 403,
        Access::Hidden => return 404,
        Access::AdminOrToken | Access::Token(_) if !who.is_valid => return 401,
        Access::AdminOrToken => {
            let may = who.bound.is_none() && who.allows(Scope::ProjectsWrite) && who.org == 0;
            return if may { 409 } else { 403 };
        }
        Access::Token(scope) => scope,
    };
    if scope.is_some_and(|scope| !who.allows(scope)) {
        return 403;
    }
    match (route.method, route.path) {
        (_, "/api/v1/auth/whoami" | "/api/v1/projects") => 200,
        ("POST", "/api/v1/blobs") => 201,
        (_, "/api/v1/blobs/{sha256}") => {
            if reaches {
                200
            } else {
                404
            }
        }
        _ => {
            if reaches {
                200
            } else {
                out_of_reach
            }
        }
    }
}

/// The same below `/at/acme/web`: who may not go there is told so first.
fn expected_at(route: &Route, who: &Who) -> u16 {
    let is_kept_out = who.is_valid && (who.org != 0 || who.bound.is_some_and(|bound| bound != "web"));
    let alone = expected(route, who);
    let asks_for_token = matches!(route.access, Access::Token(_) | Access::AdminOrToken);
    let lacks = matches!(route.access, Access::Token(Some(scope)) if !who.allows(scope));
    if !is_kept_out || !asks_for_token || lacks || route.path.ends_with("/whoami") {
        return alone;
    }
    if who.org == 0 { 403 } else { 404 }
}

/// Somebody else's, and nobody's, for one who asks; the last of `acme` are of the own project.
fn pairs(who: &Who, own: &Names, ops: &Names, theirs: &Names) -> Vec<(Names, Names)> {
    let named = |names: &Names, org: &str, project: &str| Names {
        org: org.to_owned(),
        project: project.to_owned(),
        ..names.clone()
    };
    if who.org == 1 {
        return vec![
            (own.clone(), never("none", "web")),
            (named(own, "other", "web"), never("other", "nob")),
            (named(ops, "acme", "ops"), never("acme", "nob")),
        ];
    }
    let mut pairs = vec![
        (theirs.clone(), never("nobod", "nobody")),
        (named(theirs, "acme", "theirs"), never("acme", "nobody")),
    ];
    match who.bound {
        Some("ops") => pairs.push((own.clone(), never("acme", "nob"))),
        Some(_) => pairs.push((ops.clone(), never("acme", "nob"))),
        None => {}
    }
    if who.bound != Some("ops") {
        pairs.push((named(theirs, "acme", "web"), never("acme", "web")));
    }
    pairs
}

#[test]
fn nobody_learns_of_others_on_any_route() {
    let service = Real::start();
    let own = service.fill(0, "web", &format!("{:040x}", 1), b"of the own project");
    let ops = service.fill(0, "ops", &format!("{:040x}", 2), b"of the other project");
    let theirs = service.fill(1, "theirs", &format!("{:040x}", 3), b"of the other org, a little longer");
    let everybody = everybody(&service);
    // From here on no archive is open but those that are asked for.
    let service = service.restarted();
    let routes: BTreeSet<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.method, route.path.replace("{*", "{"))).collect();
    assert_eq!(routes, described(), "the matrix goes through all routes that are described");
    let foreign = service.accounts.project(&service.orgs[1], "theirs").unwrap().unwrap();
    for who in &everybody {
        if who.org == 0 {
            assert!(service.accounts.archive_at_hand(&foreign).is_none(), "before {}", who.name);
        }
        for route in ROUTES {
            check_what_is_there(&service, route, who, &own);
        }
        // Now the archives that they may read are open, and no others.
        let looked = Ask::new("HEAD", format!("/api/v1/blobs/{}", encode_hex(&sha256(b"nowhere"))));
        assert_ne!(service.ask(&with(looked, who)).status, 200);
        // The open routes are told of nothing that could be somebody's.
        let closed = ROUTES.iter().filter(|route| route.access != Access::Open);
        // What is written into the own project under these names is there from then on.
        let (asks, changes): (Vec<_>, Vec<_>) =
            closed.partition(|route| ["GET", "HEAD"].contains(&route.method));
        for route in asks.into_iter().chain(changes) {
            for (elsewhere, nowhere) in pairs(who, &own, &ops, &theirs) {
                check_pair(&service, route, who, &elsewhere, &nowhere);
            }
        }
    }
}

fn check_what_is_there(service: &Real, route: &Route, who: &Who, own: &Names) {
    // It would be gone, and what follows needs it.
    if route.method == "DELETE" && route.path.contains("{project}") && expected(route, who) == 409 {
        return;
    }
    let mut names = own.clone();
    if route.method == "PUT" {
        names.segment = SegmentId::from_bytes(*blake3::hash(who.name.as_bytes()).as_bytes());
    }
    let spellings = spellings(route, ask(route, &names), &names);
    for (ask, expected) in spellings.into_iter().zip([expected, expected_at].map(|by| by(route, who))) {
        let answer = service.ask(&with(ask.clone(), who));
        // The second of two pushes of the same bytes is told that they are there.
        let is_well =
            answer.status == expected || (route.method == "PUT" && answer.status == 409 && expected == 200);
        assert!(is_well, "{}: {} {}: {expected}, not {answer:?}", who.name, ask.method, ask.path);
    }
}

fn check_pair(service: &Real, route: &Route, who: &Who, elsewhere: &Names, nowhere: &Names) {
    let is_own =
        who.org == 0 && elsewhere.org == "acme" && elsewhere.project == "web" && who.bound != Some("ops");
    if is_own && route.method == "DELETE" {
        // That would be the own project, and what follows needs it.
        return;
    }
    let makes_projects = route.access == Access::AdminOrToken && route.method == "POST";
    let all = spellings(route, ask(route, elsewhere), elsewhere);
    for (at, one) in all.into_iter().enumerate() {
        let other = spellings(route, ask(route, nowhere), nowhere).swap_remove(at);
        let (one, one_work) = service.ask_counted(&with(one, who));
        let (other, other_work) = service.ask_counted(&with(other, who));
        if makes_projects && one.status == 201 {
            // It is the own org's from now on, as the other is.
            assert_eq!(other.status, 201);
            for names in [elsewhere, nowhere] {
                assert!(service.accounts.delete_project(&service.orgs[who.org], &names.project).unwrap());
            }
            continue;
        }
        let (one, other) = (comparable(one, [elsewhere, nowhere]), comparable(other, [elsewhere, nowhere]));
        let what = format!(
            "{}: {} {} of {}/{}",
            who.name, route.method, route.path, elsewhere.org, elsewhere.project
        );
        assert_eq!(one, other, "{what}");
        // Within the own project it depends on what is there: a hash may come to lie beside another of the own.
        assert!(is_own || one_work == other_work, "{what}: {one_work} and {other_work} times the disk");
        if !is_own && is_of_a_project(route) {
            assert!([401, 403, 404].contains(&one.status), "{what}: {one:?}");
        }
        if who.name == "org-wide" && route.method == "GET" && route.path.contains("id}") {
            assert_eq!(one.status, 404, "{what}: nobody has written there yet");
        }
        if !who.is_valid && !matches!(route.access, Access::Admin | Access::Hidden) {
            assert_eq!(one.status, 401, "{what}");
        }
    }
}

#[test]
fn a_hash_grants_nothing() {
    let service = Real::start();
    let own = service.fill(0, "web", &format!("{:040x}", 1), b"of the own project");
    let theirs = service.fill(1, "theirs", &format!("{:040x}", 3), b"of the other org");
    let token = service.token(0, None, ALL, None).1;
    let staged = b"staged by another token";
    for (org, bound) in [(1, None), (0, Some("web")), (0, None)] {
        let other = service.token(org, bound, ALL, None).1;
        assert_eq!(service.ask(&Ask::new("POST", "/api/v1/blobs").token(&other).body(*staged)).status, 201);
        let own = Ask::new("HEAD", format!("/api/v1/blobs/{}", encode_hex(&sha256(staged)))).token(&other);
        assert_eq!(service.ask(&own).status, 200);
    }
    let ask = |ask: Ask| service.ask(&ask.token(&token));
    for hash in [theirs.blob, sha256(staged)] {
        let hex = encode_hex(&hash);
        for prefix in ["", "/at/acme/web"] {
            for method in ["HEAD", "GET"] {
                assert_eq!(ask(Ask::new(method, format!("{prefix}/api/v1/blobs/{hex}"))).status, 404);
            }
            let pointer = format!(
                r#"{{"project_id":"web","items":[{{"conversation_id":"c","content_sha256":"{hex}","size":3}}]}}"#
            );
            let refused = ask(Ask::new("POST", format!("{prefix}/api/v1/sync/conversations")).body(pointer));
            assert_eq!((refused.status, &refused.json()["content_sha256"]), (400, &hex.clone().into()));
        }
    }
    let v2 = |path: &str| format!("/api/v2/acme/web/{path}");
    assert_eq!(ask(Ask::new("GET", v2(&format!("objects/{}", theirs.object)))).status, 404);
    let uploaded = ask(Ask::new("GET", v2(&format!("uploads/{}", theirs.segment))));
    assert_eq!(uploaded.text(), "{\"offset\":0}\n");
    // A commit of what others have sent takes nothing, also beside what is the own.
    for segments in [vec![theirs.segment], vec![own.segment, theirs.segment]] {
        let commit = CommitRequest { batch: batch(), segments, tips: vec![] };
        let refused = ask(Ask::new("POST", v2("commit")).body(commit.encode()));
        assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("refused")));
    }
    let page = ask(Ask::new("GET", "/api/v1/sync/conversations?project_id=web")).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "only the own");
    // What was sent and not committed is nobody's but the sender's.
    let half = b"a segment that is not whole".to_vec();
    let put = Ask::new("PUT", v2(&format!("uploads/{}?offset=0", SegmentId::from_bytes([5; 32]))));
    let put = put.header("X-Chunk-Blake3", blake3::hash(&half).to_string()).body(half);
    let other = service.token(0, Some("web"), ALL, None).1;
    assert_eq!(service.ask(&put.token(&other)).status, 200);
    let seen = ask(Ask::new("GET", v2(&format!("uploads/{}", SegmentId::from_bytes([5; 32])))));
    assert_eq!(seen.text(), "{\"offset\":0}\n");
}
