//! The unmodified agent-trace-cli 0.1.3 from PyPI against our service, alone and together with our own program.
//!
//! `AGENT_TRACE_PEER` names its executable; `tests/run.sh` installs it. Without it these tests say so and pass.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

use std::collections::BTreeSet;

use layout::{Layout, Size, sha256};
use serde_json::json;
use world::{ADMIN, Machine, Service, text};

use support::PROGRAM;

mod layout;
#[path = "../support/mod.rs"]
mod support;
mod world;

/// Up to 256 KiB the peer sends transcripts within JSON, larger ones as they are; its own service takes 11 MiB at most.
const BOUNDARY: usize = 256 << 10;
/// More than 500 of each, which is a page of the peer.
const LARGE: Size = Size {
    commits: 640,
    unattributed: 90,
    transcripts: &[
        1,
        2,
        3,
        900,
        40_000,
        41_000,
        BOUNDARY - 1,
        BOUNDARY,
        BOUNDARY + 1,
        BOUNDARY + 2,
        700_000,
        3_000_000,
        12_500_000,
    ],
    summaries: 40,
};
const SMALL: Size = Size {
    commits: 30,
    unattributed: 7,
    transcripts: &[50, 5_000, 300_000, BOUNDARY, 600_000],
    summaries: 9,
};

fn peer() -> Option<String> {
    let peer = std::env::var("AGENT_TRACE_PEER").ok();
    if peer.is_none() {
        eprintln!("skipped: peer not given");
    }
    peer
}

#[test]
fn one_peer_pushes_and_another_pulls_all_of_it() {
    let Some(peer) = peer() else { return };
    let service = Service::start();
    let remote = service.project("web");
    // One of them reaches it as behind a gateway.
    let gateway = (service.url("at/acme/web"), remote.1.clone());
    let (from, to) = (Machine::new(&peer, &remote), Machine::new(&peer, &gateway));
    let mut layout = Layout::generate(1, LARGE);
    layout.write(&from.data());
    let said = from.run(&["push"]);
    assert!(
        said.contains(
            "Pushed 1280 trace(s), 640 ledger(s), 640 commit-link(s), 13 conversation(s), 40 summary(ies)"
        ),
        "{said}"
    );
    to.run(&["pull"]);
    Layout::read(&to.data()).assert_is(&layout.attributed(), "a first pull");
    let said = from.run(&["push"]);
    assert!(
        said.contains("Pushed 0 trace(s), 0 ledger(s), 0 commit-link(s), 0 conversation(s), 0 summary(ies)"),
        "{said}"
    );
    from.run(&["push", "--full"]);
    grow(&mut layout);
    layout.merge(&Layout::generate(2, SMALL));
    layout.write(&from.data());
    from.run(&["push", "--full"]);
    to.run(&["pull"]);
    Layout::read(&to.data()).assert_is(&layout, "a second pull");
    let said = to.run(&["pull"]);
    assert!(
        said.contains("Pulled 0 trace(s), 0 ledger(s), 0 commit-link(s), 0 conversation(s), 0 summary(ies)"),
        "{said}"
    );
}

#[test]
fn transcripts_within_one_request_may_be_large_together() {
    let Some(peer) = peer() else { return };
    let service = Service::start();
    let remote = service.project("large");
    let (from, to) = (Machine::new(&peer, &remote), Machine::new(&peer, &remote));
    // 80 of them are 20 MiB in one request.
    let layout = Layout::generate(3, Size { transcripts: &[BOUNDARY; 80], ..SMALL });
    layout.write(&from.data());
    from.run(&["push", "--full"]);
    to.run(&["pull"]);
    Layout::read(&to.data()).assert_is(&layout, "the pull");
}

#[test]
fn the_peer_and_ours_converge_on_one_project() {
    let Some(peer) = peer() else { return };
    let service = Service::start();
    let remote = service.project("mixed");
    let mut all = Layout::generate(4, LARGE);
    let first = Machine::new(&peer, &remote);
    all.write(&first.data());
    first.run(&["push", "--full"]);

    let ours = Machine::new(PROGRAM, &remote);
    ours.run(&["pull"]);
    assert_holds(&ours, &all, "our pull of what the peer pushed");
    let more = Layout::generate(5, SMALL);
    let folder = ours.folder("more");
    more.write(&folder);
    ours.run(&["import", text(&folder)]);
    ours.run(&["push", "--full"]);
    all.merge(&more);

    first.run(&["pull"]);
    Layout::read(&first.data()).assert_is(&all, "the first peer after our push");
    let second = Machine::new(&peer, &remote);
    second.run(&["pull"]);
    Layout::read(&second.data()).assert_is(&all, "a new peer after our push");

    // And once more in the other direction, with conversations that grew.
    grow(&mut all);
    all.write(&second.data());
    second.run(&["push", "--full"]);
    ours.run(&["pull"]);
    assert_holds(&ours, &all, "our second pull");
    first.run(&["pull"]);
    Layout::read(&first.data()).assert_is(&all, "the first peer after the second's push");
    let new = Machine::new(PROGRAM, &remote);
    new.run(&["pull"]);
    assert_holds(&new, &all, "our pull into an empty store");
    let sent = &ours.json(&["push", "--full"])[0]["sent"];
    assert!(sent.as_object().unwrap().values().all(|count| count == 0), "nothing is left to send: {sent}");
}

#[test]
fn the_peer_is_let_in_and_kept_out_as_by_its_own_service() {
    let Some(peer) = peer() else { return };
    let service = Service::start();
    let (url, token) = service.project("web");
    let machine = Machine::new(&peer, &(url.clone(), token.clone()));
    let check = |variable: (&str, &str), arguments: &[&str], status: i32, words: &str| {
        let (found, said) = machine.outcome(variable, arguments);
        assert!(
            found == status && said.contains(words),
            "{arguments:?}: {found}, not {status} and {words}: {said}"
        );
    };
    let no = ("NOTHING", "");
    let (_, said) = machine.outcome(no, &["doctor"]);
    assert!(said.contains("Remote 'origin' responds at"), "{said}");
    assert!(said.contains("token matches URL (token org='acme', project-scoped to 'web')"), "{said}");
    // Other organisations and projects, and tokens that are none.
    let other = |path: &str, token: &str| {
        ["remote", "add", "x", &service.url(path), "--token", token].map(str::to_owned)
    };
    let refused = |path: &str, token: &str, words: &str| {
        let arguments = other(path, token);
        check(no, &arguments.each_ref().map(String::as_str), 1, words);
    };
    refused("zzz/web", &token, "Token belongs to org 'acme'");
    refused("acme/other", &token, "Token is scoped to project 'web'");
    refused("acme/web", "at_nothing", "remote add: ");
    // Projects by the admin's secret and by a token.
    let new = service.url("acme/new");
    check(ADMIN, &["project", "create", &new, "--name", "New"], 0, "\"project_id\": \"new\"");
    check(ADMIN, &["project", "create", &new], 2, "");
    check((ADMIN.0, "wrong"), &["project", "create", &service.url("acme/none")], 1, "");
    let maker = service.token(&json!(null), &["read", "write", "projects:write"]);
    let newer = service.url("acme/newer");
    check(
        no,
        &["remote", "add", "newer", &newer, "--token", &maker, "--create"],
        0,
        "Registered project 'newer'",
    );
    check(no, &["remote", "add", "again", &newer, "--token", &maker, "--create"], 0, "already exists");
    // A token that may only read, and a project that is not there: the peer ends with 0, and says what was wrong.
    Layout::generate(6, SMALL).write(&machine.data());
    let reader = service.token(&json!("web"), &["read"]);
    check(no, &["remote", "add", "reader", &url, "--token", &reader], 0, "");
    check(no, &["push", "--remote", "reader"], 0, "Error: traces: HTTP Error 403");
    check(no, &["remote", "add", "absent", &service.url("acme/absent"), "--token", &maker], 0, "");
    check(no, &["push", "--remote", "absent"], 0, "Error: traces: HTTP Error 404");
    check(
        no,
        &["push", "--remote", "origin", "--full"],
        0,
        "Pushed 67 trace(s), 30 ledger(s), 30 commit-link(s)",
    );
}

/// Lets every other conversation grow.
fn grow(layout: &mut Layout) {
    for body in layout.transcripts.values_mut().step_by(2) {
        body.extend_from_slice(b"{\"type\":\"user\",\"text\":\"one more\"}\n");
    }
}

/// Our store holds exactly these records, and the bytes of the transcripts.
fn assert_holds(machine: &Machine, layout: &Layout, what: &str) {
    let log = machine.json(&["log", "--limit", "1000000"]);
    let records = log.iter().filter(|row| row["kind"] != "transcript");
    let found: BTreeSet<&str> = records.map(|row| row["id"].as_str().unwrap()).collect();
    let expected = layout.record_ids();
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    let foreign: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && foreign.is_empty(),
        "{what}: missing {missing:?}, not expected {foreign:?}"
    );
    for (id, body) in &layout.transcripts {
        assert!(machine.cat(&sha256(body)) == *body, "{what}: conversation {id} by its hash");
        assert!(machine.cat(id) == *body, "{what}: conversation {id} by its name");
    }
}
