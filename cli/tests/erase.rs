//! `erase` from outside: a session goes from every file of every store and of the remote, and every answer says so.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use support::{PROGRAM, Random, check_example, is_sound, trace};

mod support;

struct World {
    root: TempDir,
    /// Digits that stand in the transcripts and nowhere else, too random to be stored shorter than half.
    secrets: Vec<String>,
}

struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: Output) -> Answer {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn well(self) -> Answer {
        assert_eq!(self.status, 0, "{}\n{}", self.out, self.err);
        self
    }

    fn fails(self, status: i32, words: &str) -> Answer {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert!(self.err.contains(words), "expected `{words}` in: {}", self.err);
        self
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.well().out).unwrap()
    }
}

fn trace_id(number: u32) -> String {
    format!("5ce2bf05-fca1-4d2e-a9b0-{number:012x}")
}

impl World {
    fn new() -> World {
        let mut world = World { root: tempfile::tempdir().unwrap(), secrets: Vec::new() };
        let data = world.path("data");
        fs::create_dir(&data).unwrap();
        let mut random = Random(7);
        let (mut manifest, mut traces) = (String::new(), String::new());
        for session in 0..2 {
            let secret = format!("SECRET{}", random.digits(40));
            let mut text = String::new();
            for line in 0..300 {
                let said = if line == 7 { secret.clone() } else { random.digits(160) };
                let line = json!({"type": "user", "sessionId": format!("s{session}"), "message": {"role": "user", "content": said}});
                text.push_str(&format!("{line}\n"));
            }
            world.secrets.push(secret);
            let file = format!("{session}.jsonl");
            fs::write(data.join(&file), &text).unwrap();
            let line = json!({"file": file, "bytes": text.len(), "session_id": format!("s{session}"),
                "agent": "Claude Code", "created_at": "2026-02-01T10:00:00Z"});
            manifest.push_str(&format!("{line}\n"));
        }
        for number in 0..20 {
            let path = if number < 5 { "src/a.rs" } else { "lib/b.rs" };
            traces.push_str(&format!(
                "{}\n",
                trace(&trace_id(number), "2026-02-01T11:00:00Z", path, json!([]))
            ));
        }
        fs::write(data.join("manifest.jsonl"), manifest).unwrap();
        fs::write(data.join("traces.jsonl"), traces).unwrap();
        for store in ["a", "b"] {
            world.run(store, &["init"]).well();
            let url = format!("file://{}", world.path("remote").display());
            world.run(store, &["remote", "add", "team", &url]).well();
        }
        world.run("a", &["import", "data"]).well();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, store: &str) -> Command {
        let mut command = support::command(PROGRAM, self.root.path(), &self.path("nobody"));
        command.env("AGENT_TRACE_HOME", self.path("home")).args(["--store", store]);
        command
    }

    fn run(&self, store: &str, args: &[&str]) -> Answer {
        Answer::of(self.command(store).args(args).output().unwrap())
    }

    fn json(&self, store: &str, args: &[&str]) -> Value {
        self.run(store, &[&["--json"], args].concat()).json()
    }

    /// Whether the store can still show this secret in any transcript.
    fn holds(&self, store: &str, secret: usize) -> bool {
        let log = self.run(store, &["--json", "log", "--kind", "transcript", "-n", "100"]).well().out;
        log.lines().any(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let body = line["objects"][1].as_str().unwrap().to_owned();
            let cat = self.run(store, &["cat", &body, "--offline"]);
            cat.status == 0 && cat.out.contains(&self.secrets[secret])
        })
    }

    fn sound(&self, store: &str) {
        let verified = self.json(store, &["verify"]);
        assert!(is_sound(&verified), "{verified}");
    }

    fn conversation(&self, session: &str) -> String {
        let log = self.run("a", &["--json", "log", "--kind", "transcript", "--session", session]).well().out;
        let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        line["key"].as_str().unwrap().to_owned()
    }
}

fn bytes_below(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(
            |entry| {
                if entry.path().is_dir() {
                    bytes_below(&entry.path())
                } else {
                    entry.metadata().unwrap().len()
                }
            },
        )
        .sum()
}

#[test]
fn a_session_goes_everywhere_and_answers_say_so() {
    let world = World::new();
    let conversation = world.conversation("s0");
    world.run("a", &["push", "--full"]).well();
    world.run("b", &["pull"]).well();
    assert!(world.holds("b", 0) && world.holds("b", 1));
    let before = bytes_below(&world.path("remote"));

    world.run("a", &["erase"]).fails(2, "");
    world.run("a", &["erase", "nothing-is-called-so"]).fails(9, "nothing in this store");
    let planned = world.json("a", &["erase", "s0", "--dry-run"]);
    assert_eq!(planned["plan"]["conversations"], json!([conversation]));
    assert_eq!((&planned["plan"]["records"]["transcript"], &planned["done"]), (&json!(1), &json!(null)));
    assert!(planned["plan"]["bytes"].as_u64().unwrap() > 40_000, "{planned}");
    let asked = world.run("a", &["erase", "s0"]).fails(2, "there is no terminal");
    assert!(asked.out.contains("To erase: 1 record(s)"), "{}", asked.out);
    assert!(world.holds("a", 0), "nothing was erased yet");

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let erased = world.json("a", &["erase", "s0", "--yes", "--reason", "asked for by the customer"]);
    check_example(&fs::read_to_string(page).unwrap(), &erased);
    assert_eq!(erased["done"]["objects"], planned["plan"]["present"]);
    assert!(!world.holds("a", 0) && world.holds("a", 1));
    world.sound("a");
    let shown = world.run("a", &["show", &conversation]).well();
    assert!(shown.out.contains("erased") && shown.out.contains("by writer"), "{}", shown.out);
    let shown = world.json("a", &["show", &conversation]);
    assert!(shown["records"][0]["erased"]["time"].is_string(), "{shown}");
    assert_eq!(shown["records"][0]["record"], json!(null));
    world.run("a", &["cat", &conversation]).fails(9, "was erased on");
    let log = world.run("a", &["log", "--kind", "transcript"]).well();
    assert_eq!(log.out.matches("erased 20").count(), 1, "{}", log.out);
    let erases = world.run("a", &["--json", "log", "--kind", "erase"]).well();
    let id = serde_json::from_str::<Value>(&erases.out).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(world.run("a", &["show", &id]).well().out.contains("asked for by the customer"));
    world.run("a", &["erase", &id, "--yes"]).fails(2, "cannot be erased");

    world.run("a", &["push"]).well();
    assert!(bytes_below(&world.path("remote")) < before - 20_000, "the remote has dropped it");
    world.run("b", &["pull"]).well();
    assert!(!world.holds("b", 0) && world.holds("b", 1));
    world.sound("b");
    // What was erased is not taken in again.
    for store in ["a", "b"] {
        world.run(store, &["import", "data"]).well();
        assert!(!world.holds(store, 0), "{store}");
        world.sound(store);
    }
}

#[test]
fn records_go_by_path_and_by_age() {
    let world = World::new();
    let planned = world.json("a", &["erase", "--path", "src/**", "--dry-run"]);
    assert_eq!(planned["plan"]["records"]["trace"], json!(5));
    world.run("a", &["erase", "--path", "src/**", "--yes"]).well();
    world.run("a", &["show", &trace_id(2)]).well();
    assert!(world.run("a", &["show", &trace_id(2)]).well().out.contains("erased"));
    assert!(!world.run("a", &["show", &trace_id(7)]).well().out.contains("erased"));
    let planned = world.json("a", &["erase", "--older-than", "2026-02-01T10:30:00Z", "--dry-run"]);
    assert_eq!(planned["plan"]["records"]["trace"], json!(0));
    assert_eq!(planned["plan"]["records"]["transcript"], json!(2));
    world.run("a", &["erase", "--older-than", "2026-03-01T00:00:00Z", "--yes"]).well();
    assert!(!world.holds("a", 0) && !world.holds("a", 1));
    let again = world.json("a", &["erase", "--older-than", "2026-03-01T00:00:00Z", "--yes"]);
    assert_eq!(again["done"], json!(null), "nothing is left");
    world.sound("a");
}
