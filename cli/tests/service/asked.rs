//! What commands ask a service before they trust it: `project create`, `remote add`, `push` and `doctor`, against the
//! real service and against ones that answer as the test says.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scripted::{Reply, Scripted};
use crate::world::{Answer, Machine, SECRET, Service};

const ADMIN: &str = "AGENT_TRACE_ADMIN_SECRET";
const BOTH: &[&str] = &["read", "write"];

fn service() -> (TempDir, Service) {
    let dir = TempDir::new().unwrap();
    let service = Service::start(&dir.path().join("data"));
    service.project("web");
    (dir, service)
}

/// A service that says this of every token, and is well.
fn says(whoami: &'static str) -> Scripted {
    Scripted::start(move |asked| match asked {
        "GET /health" => Reply(200, &[], "{}".to_owned()),
        "GET /api/v1/auth/whoami" => Reply(200, &[], whoami.to_owned()),
        _ => Reply(404, &[], String::new()),
    })
}

/// The states of the checks that `doctor` made of remotes, and their messages.
fn checks(doctor: &Value) -> Vec<(String, String, String)> {
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    let checks = doctor["checks"].as_array().unwrap().iter();
    let checks = checks.filter(|check| !check["remote"].is_null());
    checks.map(|check| (text(check, "check"), text(check, "state"), text(check, "message"))).collect()
}

/// Runs `doctor --json`, and says how it ended and what it found of one check.
fn finding(machine: &Machine, name: &str) -> (i32, String, String) {
    let answer = machine.run(&["doctor", "--json"]);
    let doctor = answer.json();
    assert_eq!(doctor["schema"], "agent-trace/doctor/1");
    assert_eq!(doctor["ok"], json!(answer.status == 0));
    let found = checks(&doctor).into_iter().filter(|(check, _, _)| check == name).collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "{name}: {doctor}");
    let (_, state, message) = found.into_iter().next().unwrap();
    (answer.status, state, message)
}

#[test]
fn projects_are_made_by_the_admin_and_by_tokens_that_may() {
    let (_dir, service) = service();
    let machine = Machine::new();
    let url = service.url("acme/new");
    let create = |variables: &[(&str, &str)], url: &str, more: &[&str]| -> Answer {
        machine.run_with(variables, &[&["project", "create", url], more].concat())
    };
    create(&[], &url, &[]).ends(2, &["without a token or the admin's secret", ADMIN]);
    create(&[(ADMIN, "wrong")], &url, &[]).ends(4, &["cannot create the project", "X-Admin-Secret"]);
    create(&[(ADMIN, SECRET)], &url, &["--name", "New", "--description", "What it is"])
        .ends(0, &["Created project new of acme", "remote add origin"]);
    // Once made, another try says so and changes nothing.
    create(&[(ADMIN, SECRET)], &url, &[]).ends(6, &["already exists"]);
    let made = create(&[(ADMIN, SECRET)], &service.url("acme/newer"), &["--json"]).well().json();
    assert_eq!((&made["schema"], &made["project_id"]), (&json!("agent-trace/project/1"), &json!("newer")));
    create(&[(ADMIN, SECRET)], &service.url("nobody/x"), &[]).ends(9, &["does not exist"]);
    // By tokens: of the org with the scope, without it, of one project, of another org.
    let may = service.token("acme", &json!(null), &["read", "write", "projects:write"]);
    let by = |token: &str, path: &str| {
        machine.input(&["project", "create", &service.url(path), "--token-stdin"], token)
    };
    by(&may, "acme/third").well();
    by(&may, "other/third").ends(4, &["org_slug_mismatch"]);
    by(&service.token("acme", &json!(null), BOTH), "acme/fourth").ends(4, &["projects:write"]);
    let bound = service.token("acme", &json!("web"), &["read", "projects:write"]);
    by(&bound, "acme/fourth").ends(4, &["org-scoped"]);
    by("at_nothing", "acme/fourth").ends(4, &["refuses the token"]);
    machine.run(&["project", "create", "file:///tmp/x"]).ends(2, &["the first push makes it"]);
    // `--create` beside a remote: the project may be there already.
    let add = |name: &str, path: &str| {
        machine.input(&["remote", "add", name, &service.url(path), "--create", "--token-stdin"], &may)
    };
    add("fifth", "acme/fifth").well();
    add("again", "acme/fifth").ends(0, &["is there already"]);
    machine.run(&["push", "--remote", "fifth"]).well();
}

#[test]
fn a_service_that_is_well_passes_all_checks_of_doctor() {
    let (_dir, service) = service();
    let token = service.token("acme", &json!("web"), BOTH);
    let machine = Machine::with_remote(&service.url("acme/web"), &token);
    let doctor = machine.run(&["doctor", "--json"]).well().json();
    let found = checks(&doctor);
    let names: Vec<&str> = found.iter().map(|(check, _, _)| check.as_str()).collect();
    assert_eq!(names, ["url", "dns", "reach", "clock", "scope"]);
    assert!(found.iter().all(|(_, state, _)| state == "ok"), "{found:?}");
    assert!(found[4].2.contains("read, write"), "{found:?}");
    let said = machine.run(&["doctor"]).ends(0, &["OK  origin: scope", "OK  origin: clock"]);
    assert!(!said.out.contains("XX") && !said.out.contains("!!"), "{}", said.out);
    assert!(!said.out.contains(&token), "a token is never shown");
}

#[test]
fn doctor_names_what_keeps_a_remote_from_working() {
    let (_dir, service) = service();
    let token = service.token("acme", &json!("web"), BOTH);
    let at = |url: &str, token: &str| Machine::with_remote(url, token);
    let check = |machine: &Machine, name: &str, status: i32, state: &str, words: &str| {
        let found = finding(machine, name);
        assert_eq!((found.0, found.1.as_str()), (status, state), "{name}: {}", found.2);
        assert!(found.2.contains(words), "{name}: {}", found.2);
    };
    // A name that nobody has: a proxy might know it, but nothing answers.
    let nowhere = at("https://nobody.invalid/acme/web", &token);
    check(&nowhere, "dns", 1, "warning", "cannot be resolved");
    check(&nowhere, "reach", 1, "bad", "cannot connect");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(&at(&format!("http://{free}/acme/web"), &token), "reach", 1, "bad", "cannot connect");
    check(&at(&service.url("acme/web"), "at_nothing"), "scope", 1, "bad", "whoami_unauthorized");
    check(&at(&service.url("acme/other"), &token), "scope", 1, "bad", "project_scope_mismatch");
    check(&at(&service.url("other/web"), &token), "scope", 1, "bad", "org_slug_mismatch");
    let sick = Scripted::start(|_| Reply(503, &[("Retry-After", "0")], String::new()));
    check(&at(&format!("{}/acme/web", sick.url), &token), "reach", 1, "bad", "status 503");
    let moved = Scripted::start(|_| Reply(301, &[("Location", "https://elsewhere.invalid/")], String::new()));
    check(&at(&format!("{}/acme/web", moved.url), &token), "scope", 1, "bad", "no redirect is followed");
    // People are told the same.
    nowhere.run(&["doctor"]).ends(1, &["XX  origin: reach", "!!  origin: dns"]);
}

#[test]
fn doctor_warns_of_what_may_be_a_mistake() {
    let warned = |machine: &Machine, name: &str, words: &str| {
        let found = finding(machine, name);
        assert_eq!((found.0, found.1.as_str()), (0, "warning"), "{name}: {}", found.2);
        assert!(found.2.contains(words), "{name}: {}", found.2);
    };
    // A clock of 1994, and a service that is too old to say who the token is for.
    let late = Scripted::start(|asked| match asked {
        "GET /health" => Reply(200, &[("Date", "Sun, 06 Nov 1994 08:49:37 GMT")], "{}".to_owned()),
        _ => Reply(404, &[], String::new()),
    });
    let machine = Machine::with_remote(&format!("{}/acme/web", late.url), "at_x");
    warned(&machine, "clock", "ahead of the service's");
    warned(&machine, "scope", "whoami_unsupported");
    let early = Scripted::start(|asked| match asked {
        "GET /health" => Reply(200, &[("Date", "Tue, 01 Jan 2999 00:00:00 GMT")], "{}".to_owned()),
        _ => Reply(200, &[], r#"{"org_slug":"acme"}"#.to_owned()),
    });
    let machine = Machine::with_remote(&format!("{}/acme/web", early.url), "at_x");
    warned(&machine, "clock", "behind the service's");
    // Plain http to another machine is refused, and where it was asked for, named.
    let machine = Machine::new();
    let add = |more: &[&str]| {
        let arguments = ["remote", "add", "origin", "http://nobody.invalid/acme/web", "--no-check"];
        machine.run(&[&arguments, more].concat())
    };
    add(&[]).ends(2, &["--insecure-http"]);
    add(&["--insecure-http"]).ends(0, &["insecure http"]);
    let found = finding(&machine, "tls");
    assert_eq!(found.1, "warning");
    machine.run(&["status"]).ends(0, &["insecure http"]);
}

#[test]
fn doctor_mends_the_rights_of_secrets_where_it_is_asked_to() {
    let well = says(r#"{"org_slug":"acme"}"#);
    let machine = Machine::with_remote(&format!("{}/acme/web", well.url), "at_secret");
    let config = machine.path("home/config.json");
    let mode = || std::fs::metadata(&config).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
    let states = |answer: &Answer| -> Vec<String> {
        let doctor = answer.json();
        let checks = doctor["checks"].as_array().unwrap().iter();
        let modes = checks.filter(|check| check["check"] == "modes");
        modes.map(|check| check["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(&machine.run(&["doctor", "--json"])), ["bad", "ok"]);
    assert_eq!(mode(), 0o644, "nothing is changed without being asked");
    // The third is the key of the privacy gate, which the first run has made.
    assert_eq!(states(&machine.run(&["doctor", "--json", "--fix"])), ["fixed", "ok", "ok"]);
    assert_eq!(mode(), 0o600);
    assert_eq!(states(&machine.run(&["doctor", "--json"])), ["ok", "ok", "ok"]);
}

#[test]
fn a_token_for_something_else_is_refused_before_anything_is_kept_or_sent() {
    let (_dir, service) = service();
    let bound = service.token("acme", &json!("web"), BOTH);
    let check = |url: &str, token: &str, code: &str, sees: Option<&Scripted>| {
        let machine = Machine::new();
        let add = |more: &[&str]| {
            machine.input(&[&["remote", "add", "origin", url, "--token-stdin"], more].concat(), token)
        };
        add(&[]).ends(4, &[code]);
        assert_eq!(machine.run(&["remote", "list"]).well().out, "", "nothing is kept");
        // Added unseen, the push finds it, and pushes nothing.
        add(&["--no-check"]).well();
        machine.run(&["push"]).ends(4, &[code, "remote set-token origin"]);
        machine.run(&["sync"]).ends(4, &[code]);
        for asked in sees.iter().flat_map(|scripted| scripted.seen()) {
            assert_eq!(asked, "GET /api/v1/auth/whoami");
        }
    };
    check(&service.url("other/web"), &bound, "org_slug_mismatch", None);
    check(&service.url("acme/other"), &bound, "project_scope_mismatch", None);
    check(&service.url("acme/web"), "at_nothing", "whoami_unauthorized", None);
    let other = says(r#"{"org_slug":"other","scopes":["read"]}"#);
    check(&format!("{}/acme/web", other.url), "at_x", "org_slug_mismatch", Some(&other));
    let api = says(r#"{"org_slug":"acme","project_id_scope":"api"}"#);
    check(&format!("{}/acme/web", api.url), "at_x", "project_scope_mismatch", Some(&api));
    // What an org calls itself does not reach the terminal as it is.
    let odd = says("{\"org_slug\":\"x\\u001b[31m\"}");
    let machine = Machine::new();
    let url = format!("{}/acme/web", odd.url);
    let said = machine.input(&["remote", "add", "origin", &url, "--token-stdin"], "at_x");
    assert!(!said.ends(4, &["org_slug_mismatch"]).err.contains('\u{1b}'));
}

#[test]
fn a_service_that_cannot_say_who_a_token_is_for_is_warned_of_and_used() {
    // One that knows protocol 1 without `whoami`, and takes what it is given.
    let old = Scripted::start(|asked| match asked.split('?').next().unwrap() {
        "POST /api/v1/sync/traces" => Reply(200, &[], r#"{"count":1,"ok":true}"#.to_owned()),
        _ => Reply(404, &[], "<html>".to_owned()),
    });
    let machine = Machine::new();
    let url = format!("{}/acme/web", old.url);
    machine
        .input(&["remote", "add", "origin", &url, "--token-stdin"], "at_x")
        .ends(0, &["whoami_unsupported", "Added remote origin"]);
    std::fs::write(
        machine.path("traces.jsonl"),
        r#"{"version":"2.0","id":"one","timestamp":"2026-01-01T00:00:00Z","files":[]}"#,
    )
    .unwrap();
    machine.run(&["import", "traces.jsonl"]).well();
    machine.run(&["push", "--full"]).ends(0, &["whoami_unsupported", "Pushed 1 trace(s)"]);
    assert!(old.seen().contains(&"POST /api/v1/sync/traces".to_owned()), "{:?}", old.seen());
    // Where nobody answers at all the token cannot be checked; the remote is kept all the same, and the push says so.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}/acme/web");
    machine
        .input(&["remote", "add", "gone", &url, "--token-stdin"], "at_x")
        .ends(0, &["was not checked", "cannot connect"]);
    machine.run(&["push", "--remote", "gone"]).ends(5, &["cannot connect", "run the same command again"]);
}
