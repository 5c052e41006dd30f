//! Notes by themselves, with git's real hooks: made when a commit is linked and sent after a push, where the project says
//! so and nowhere else.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use scratch::Scratch;
use serde_json::{Value, json};

mod scratch;
mod support;

const NOTES: &str = "refs/notes/agent-trace";
const PATIENCE: Duration = Duration::from_secs(60);

fn commit(scratch: &Scratch) -> String {
    scratch.git(&["add", "-A"]);
    scratch.git(&["commit", "-q", "-m", "step"]);
    scratch.git(&["rev-parse", "HEAD"])
}

fn note(scratch: &Scratch, commit: &str) -> Option<Value> {
    let answer = scratch.run(&["notes", "show", "--json", commit]);
    (answer.status == 0).then(|| answer.json()["note"].clone())
}

fn capture(scratch: &Scratch) -> Value {
    scratch.run(&["status", "--json"]).json()["capture"].clone()
}

fn wait(scratch: &Scratch, is_done: impl Fn(&Scratch) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_done(scratch) {
        assert!(Instant::now() < until, "{}", capture(scratch));
        sleep(Duration::from_millis(50));
    }
}

/// Waits until nothing waits and no flusher runs.
fn settle(scratch: &Scratch) {
    wait(scratch, |scratch| {
        let now = capture(scratch);
        now["waiting"] == 0 && now["flusher"] == false
    });
}

#[test]
fn a_commit_gets_its_note_where_the_project_says_so() {
    let mut scratch = Scratch::new();
    scratch.session("s1", &[("write two lines", &["call-1", "call-2"]), ("and a third", &["call-3"])]);
    scratch.agent("a.py", "", "first = compute(1)\n");
    let before = commit(&scratch);
    scratch.run(&["log"]).well();
    assert_eq!(note(&scratch, &before), None);
    scratch.run(&["config", "set", "notes.enabled", "on"]).well();
    scratch.agent("a.py", "first = compute(1)\n", "first = compute(1)\nsecond = compute(2)\n");
    scratch.agent("a.py", "second = compute(2)\n", "second = compute(2)\nthird = compute(3)\n");
    let after = commit(&scratch);
    // Whoever asks first links it, or the flusher does.
    scratch.run(&["log"]).well();
    let made = note(&scratch, &after).unwrap();
    assert_eq!((&made["version"], &made["stats"]["ai_lines"]), (&json!("2.0"), &json!(2)), "{made}");
    assert_eq!(made["trace_ids"].as_array().unwrap().len(), 2);
    assert_eq!(made["prompts"], Value::Null);
    assert_eq!(note(&scratch, &before), None, "only what is linked from now on");
    // What people asked for goes in only if it is wanted; each request once, in order.
    scratch.run(&["config", "set", "notes.include-prompts", "on"]).well();
    scratch.run(&["commit-link"]).well();
    assert_eq!(note(&scratch, &after).unwrap()["prompts"], json!(["write two lines", "and a third"]));
    let tip = scratch.git(&["rev-parse", NOTES]);
    scratch.run(&["commit-link"]).well();
    assert_eq!(scratch.git(&["rev-parse", NOTES]), tip, "again changes nothing");
    // A note of somebody else's on the commit is joined, not replaced.
    scratch.git(&[
        "notes",
        "--ref",
        "agent-trace",
        "add",
        "-f",
        "-m",
        "{\"trace_ids\":[\"t\"],\"theirs\":1}",
        &after,
    ]);
    scratch.run(&["commit-link"]).well();
    let joined = note(&scratch, &after).unwrap();
    assert_eq!(
        (&joined["theirs"], joined["trace_ids"].as_array().unwrap().len()),
        (&json!(1), 3),
        "{joined}"
    );
    // What was amended has a note of its own.
    scratch.human("a.py", "third = compute(3)\n", "third = compute(3)\nfourth = by_hand(4)\n");
    scratch.git(&["commit", "-q", "-a", "--amend", "-m", "amended"]);
    scratch.run(&["log"]).well();
    let amended = note(&scratch, "HEAD").unwrap();
    assert_eq!(amended["stats"], json!({"ai_lines": 2, "total_changed_lines": 3}));
}

#[test]
fn a_push_is_followed_by_notes_only_if_asked_and_is_never_harmed() {
    let mut scratch = Scratch::new();
    let remote = scratch.outside("remote.git");
    scratch.git(&["init", "-q", "--bare", remote.to_str().unwrap()]);
    scratch.git(&["remote", "add", "origin", remote.to_str().unwrap()]);
    scratch.run(&["config", "set", "notes.enabled", "on"]).well();
    scratch.agent("a.py", "", "first = compute(1)\n");
    commit(&scratch);
    scratch.run(&["log"]).well();
    let there = |scratch: &Scratch, name: &str| {
        scratch.git_in(&remote, &["for-each-ref", "--format=%(refname)", name])
    };
    scratch.git(&["push", "-q", "origin", "main"]);
    scratch.run(&["log"]).well();
    scratch.run(&["config", "set", "notes.push", "on"]).well();
    // To a URL no notes follow, since nothing of it is kept.
    let elsewhere = scratch.outside("elsewhere.git");
    scratch.git(&["init", "-q", "--bare", elsewhere.to_str().unwrap()]);
    scratch.git(&["push", "-q", &format!("file://{}", elsewhere.display()), "main"]);
    assert_eq!(there(&scratch, "refs/notes"), "");
    scratch.git(&["push", "-q", "origin", "main:again"]);
    wait(&scratch, |scratch| there(scratch, "refs/notes") == NOTES);
    assert_eq!(capture(&scratch)["failures"], json!([]));
    // A remote that takes no notes is told of once.
    let hook = remote.join("hooks/update");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\ncase $1 in refs/notes/*) exit 1;; esac\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    for number in 0..2 {
        scratch.agent("b.py", "", &format!("refused = compute({number})\n"));
        commit(&scratch);
        scratch.run(&["log"]).well();
        scratch.git(&["push", "-q", "origin", &format!("main:refused{number}")]);
        wait(&scratch, |scratch| capture(scratch)["failures"] != json!([]));
    }
    settle(&scratch);
    assert_eq!(there(&scratch, "refs/heads/refused1"), "refs/heads/refused1");
    assert_eq!(scratch.git_in(&elsewhere, &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    let failures = capture(&scratch)["failures"].clone();
    let said: Vec<&str> =
        failures.as_array().unwrap().iter().map(|failed| failed["message"].as_str().unwrap()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("`origin` does not take notes"), "{said:?}");
    // Nothing was left in git's settings.
    assert!(!scratch.git(&["config", "--local", "--list"]).contains("refs/notes"));
}
