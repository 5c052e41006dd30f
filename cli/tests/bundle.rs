//! Bundles by the program: what it says of them, what it refuses, and the other forms of `export`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use support::{PROGRAM, array, check_example, is_sound, ledger_and_link, trace};

mod support;

const CONVERSATION: &str = "00000000-0000-4000-8000-0000000000c1";

struct World {
    root: TempDir,
}

struct Answer {
    status: i32,
    out: Vec<u8>,
    err: String,
}

impl World {
    /// A store `a` with records of every kind, and an empty one, `b`.
    fn new() -> World {
        let world = World::empty();
        let data = world.path("data");
        fs::create_dir_all(data.join("conversations/ab")).unwrap();
        let commit = "c".repeat(40);
        let id = |number: u32| format!("00000000-0000-4000-8000-{number:012x}");
        let traces: Vec<Value> = (1..=5)
            .map(|number| {
                let mut trace = trace(
                    &id(number),
                    &format!("2026-02-0{number}T00:00:00Z"),
                    "src/a.rs",
                    json!([{"id": CONVERSATION, "contributor": {"type": "ai"},
                        "ranges": [{"start_line": 1, "end_line": 2}]}]),
                );
                trace["metadata"] = json!({"session_id": format!("s{}", number % 2)});
                trace
            })
            .collect();
        let (ledger, link) = ledger_and_link(&commit, &id(1), "2026-02-03T00:00:00Z", "src/a.rs");
        let lines = |values: &[Value]| values.iter().map(|value| format!("{value}\n")).collect::<String>();
        fs::write(data.join("traces.jsonl"), lines(&traces)).unwrap();
        fs::write(data.join("ledgers.jsonl"), lines(&[ledger])).unwrap();
        fs::write(data.join("commit-links.jsonl"), lines(&[link])).unwrap();
        let sessions = world.path("sessions");
        fs::create_dir_all(&sessions).unwrap();
        let said = |text: &str, second: u32| {
            json!({"sessionId": "s1", "uuid": format!("u{second}"), "type": "user", "cwd": "/w",
                "timestamp": format!("2026-02-01T00:00:{second:02}Z"),
                "message": {"role": "user", "content": text}})
            .to_string()
                + "\n"
        };
        let first: String = (0..30).map(|second| said(&format!("<b>prompt</b> {second}"), second)).collect();
        fs::write(sessions.join("one.jsonl"), &first).unwrap();
        world.well("a", &["import", data.to_str().unwrap(), sessions.to_str().unwrap()]);
        fs::write(sessions.join("one.jsonl"), first + &said("and more", 31)).unwrap();
        world.well("a", &["import", sessions.to_str().unwrap()]);
        world
    }

    fn empty() -> World {
        let world = World { root: tempfile::tempdir().unwrap() };
        world.well("a", &["init"]);
        world.well("b", &["init"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, store: &str, args: &[&str]) -> std::process::Command {
        let mut command = support::command(PROGRAM, self.root.path(), self.root.path());
        command.args(["--store", store]).args(args);
        command
    }

    fn run(&self, store: &str, args: &[&str]) -> Answer {
        let output = self.command(store, args).output().unwrap();
        Answer {
            status: output.status.code().unwrap(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn well(&self, store: &str, args: &[&str]) -> Answer {
        let answer = self.run(store, args);
        assert_eq!(answer.status, 0, "{args:?}: {}{}", String::from_utf8_lossy(&answer.out), answer.err);
        answer
    }

    fn json(&self, store: &str, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        serde_json::from_slice(&self.well(store, &args).out).unwrap()
    }

    /// The failure that is told of, which has this status.
    fn failure(&self, store: &str, args: &[&str], status: i32) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let answer = self.run(store, &args);
        assert_eq!(answer.status, status, "{args:?}: {}", answer.err);
        serde_json::from_str(answer.err.lines().last().unwrap()).unwrap()
    }

    /// The ids of all records.
    fn records(&self, store: &str) -> Vec<String> {
        let log = self.well(store, &["log", "-n", "100000", "--json"]);
        let lines = String::from_utf8(log.out).unwrap();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        let mut ids: Vec<String> = lines.lines().map(id).collect();
        ids.sort();
        ids
    }
}

#[test]
fn a_bundle_goes_from_store_to_store() {
    let world = World::new();
    let exported = world.json("a", &["export", "all.atb"]);
    assert_eq!(
        exported["counts"],
        json!({"trace": 5, "ledger": 1, "commit-link": 1, "transcript": 2, "summary": 0, "erase": 0})
    );
    let shown = world.json("b", &["bundle", "show", "all.atb"]);
    assert_eq!((&shown["id"], &shown["manifest"]["cursor"]), (&exported["id"], &exported["cursor"]));
    assert_eq!(world.json("b", &["bundle", "verify", "all.atb"])["ok"], json!(true));
    let before = world.records("b");
    let counted = world.json("b", &["import", "all.atb", "--dry-run"]);
    assert_eq!((&counted["added"], world.records("b")), (&json!(9), before));
    let imported = world.json("b", &["import", "all.atb"]);
    assert_eq!((&imported["added"], &imported["known"]), (&json!(9), &json!(0)));
    assert_eq!(world.records("a"), world.records("b"));
    assert!(is_sound(&world.json("b", &["verify"])));
    let again = world.json("b", &["import", "all.atb"]);
    assert_eq!((&again["added"], &again["known"]), (&json!(0), &json!(9)));
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md")).unwrap();
    for answer in [&exported, &shown, &imported, &world.json("b", &["bundle", "verify", "all.atb"])] {
        check_example(&page, answer);
    }
    let text = String::from_utf8(world.well("b", &["bundle", "show", "all.atb"]).out).unwrap();
    assert!(text.contains("trace") && text.contains("s1") && text.contains("everything"), "{text}");
}

#[test]
fn a_bundle_goes_through_a_pipe() {
    let world = World::new();
    let bytes = world.well("a", &["export", "-"]).out;
    assert_eq!(&bytes[..8], b"ATBUNDLE");
    let feed = |bytes: &[u8]| {
        let mut child = world
            .command("b", &["import", "-", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A reader that refuses early closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        child.wait_with_output().unwrap()
    };
    assert_eq!(feed(b"no bundle").status.code(), Some(2));
    assert_eq!(feed(&bytes[..bytes.len() / 2]).status.code(), Some(7));
    assert_eq!(world.records("b"), Vec::<String>::new());
    assert_eq!(feed(&bytes).status.code(), Some(0));
    assert_eq!(world.records("a"), world.records("b"));
    assert_eq!(fs::read_dir(world.path("b/tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.path("a/tmp")).unwrap().count(), 0);
    world.failure("a", &["export", "-"], 2);
}

#[test]
fn a_folder_is_imported_and_pulled_from() {
    let world = World::new();
    world.well("a", &["export", "out", "--folder"]);
    assert!(world.path("out/bundle.json").exists());
    world.failure("a", &["export", "out", "--folder"], 2);
    assert_eq!(world.json("b", &["import", "out"])["added"], json!(9));
    world.well("c", &["init"]);
    world.well("c", &["remote", "add", "box", &format!("file://{}", world.path("out").display())]);
    world.well("c", &["pull"]);
    assert_eq!(world.records("c"), world.records("a"));
    // A folder that somebody pushed to is a bundle too.
    world.well("a", &["remote", "add", "team", &format!("file://{}", world.path("team").display())]);
    world.well("a", &["push", "--full"]);
    world.well("d", &["init"]);
    assert_eq!(world.json("d", &["import", "team"])["added"], json!(9));
    let leftovers: Vec<_> = fs::read_dir(world.root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".new-"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn what_is_chosen_goes_and_nothing_else() {
    let world = World::new();
    let count = |args: &[&str]| {
        let all: Vec<&str> = ["export", "some.atb"].iter().chain(args).copied().collect();
        let counts = world.json("a", &all)["counts"].clone();
        ["trace", "ledger", "commit-link", "transcript"].map(|kind| counts[kind].as_u64().unwrap())
    };
    // Traces 1, 3 and 5; the commit that holds the first; and the session's transcripts.
    assert_eq!(count(&["--session", "s1"]), [3, 1, 1, 2]);
    assert_eq!(count(&["--session", "s0"]), [2, 0, 0, 0]);
    assert_eq!(count(&["--session", "s0", "--session", "s1"]), [5, 1, 1, 2]);
    assert_eq!(count(&["--commit", &"c".repeat(40)]), [1, 1, 1, 0]);
    assert_eq!(count(&["--since", "2026-02-04T00:00:00Z"]), [2, 0, 0, 0]);
    world.failure("a", &["export", "none.atb", "--session", "nobody"], 9);
    assert!(!world.path("none.atb").exists());
    world.failure("a", &["export", "none.atb", "--commit", "-x"], 2);
    symlink("/dev/null", world.path("link")).unwrap();
    world.failure("a", &["export", "link"], 2);
    world.failure("a", &["export", "--agent-trace", "link"], 2);
    assert_eq!(world.run("a", &["export"]).status, 2);
    assert_eq!(world.json("a", &["export", "none.atb", "--dry-run"])["counts"]["trace"], json!(5));
    assert!(!world.path("none.atb").exists());
}

#[test]
fn a_chain_of_bundles_is_taken_in_order_only() {
    let world = World::new();
    let first = world.json("a", &["export", "first.atb"]);
    let shown = world.well("a", &["bundle", "show", "first.atb", "--json"]).out;
    fs::write(world.path("first.json"), shown).unwrap();
    fs::write(
        world.path("more.jsonl"),
        trace("00000000-0000-4000-8000-0000000000ff", "2026-03-01T00:00:00Z", "b.rs", json!([])).to_string(),
    )
    .unwrap();
    world.well("a", &["import", "more.jsonl"]);
    for base in ["first.atb", "first.json", first["cursor"].as_str().unwrap()] {
        let second = world.json("a", &["export", "second.atb", "--base", base]);
        assert_eq!(second["counts"]["trace"], json!(1), "{base}");
    }
    world.well("a", &["export", "second.atb", "--base", "first.atb"]);
    let failure = world.failure("b", &["import", "second.atb"], 9);
    assert!(failure["message"].as_str().unwrap().contains(first["id"].as_str().unwrap()), "{failure}");
    assert_eq!(world.records("b"), Vec::<String>::new());
    world.well("b", &["import", "first.atb", "second.atb"]);
    assert_eq!(world.records("a"), world.records("b"));
    world.failure("a", &["export", "x.atb", "--base", "more.jsonl"], 2);
}

#[test]
fn what_is_no_bundle_or_a_hostile_one_is_refused() {
    let world = World::new();
    world.well("a", &["export", "all.atb"]);
    let bytes = fs::read(world.path("all.atb")).unwrap();
    fs::write(world.path("cut.atb"), &bytes[..bytes.len() - 1]).unwrap();
    for args in [&["import", "cut.atb"][..], &["bundle", "show", "cut.atb"], &["bundle", "verify", "cut.atb"]]
    {
        world.failure("b", args, 7);
    }
    world.failure("b", &["bundle", "verify", "data/traces.jsonl"], 2);
    world.well("a", &["export", "out", "--folder"]);
    let segment = fs::read_dir(world.path("out/segments")).unwrap().next().unwrap().unwrap().path();
    let elsewhere = world.path("elsewhere");
    fs::rename(&segment, &elsewhere).unwrap();
    world.failure("b", &["import", "out"], 7);
    symlink(&elsewhere, &segment).unwrap();
    world.failure("b", &["import", "out"], 2);
    assert_eq!(world.records("b"), Vec::<String>::new());
    assert!(is_sound(&world.json("b", &["verify"])));
    world.failure("b", &["import", "all.atb", "--since", "1d"], 2);
    // No store is needed to look.
    let output = support::command(PROGRAM, world.root.path(), world.root.path())
        .args(["bundle", "verify", "all.atb"])
        .env("GIT_CEILING_DIRECTORIES", world.root.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn another_record_under_a_key_is_told_of() {
    let world = World::new();
    let other = trace("00000000-0000-4000-8000-000000000001", "2026-01-01T00:00:00Z", "other.rs", json!([]));
    fs::write(world.path("other.jsonl"), other.to_string()).unwrap();
    world.well("b", &["import", "other.jsonl"]);
    world.well("a", &["export", "all.atb"]);
    let imported = world.json("b", &["import", "all.atb"]);
    let told = &imported["bundles"][0];
    assert_eq!((&told["conflicts_count"], &told["conflicts"][0]["kind"]), (&json!(1), &json!("trace")));
    assert_eq!(
        array(&world.json("b", &["show", "--all", "00000000-0000-4000-8000-000000000001"])["records"]).len(),
        2,
        "both are kept"
    );
    assert_eq!(world.records("b").len(), 10);
}

#[test]
fn the_layout_of_the_peer_comes_back_as_the_same_records() {
    let world = World::new();
    let written = world.json("a", &["export", "--jsonl", "layout"]);
    assert_eq!((&written["counts"]["transcript"], &written["skipped"]), (&json!(2), &json!(0)));
    world.well("b", &["import", "layout"]);
    assert_eq!(world.records("a"), world.records("b"));
    world.failure("a", &["export", "--jsonl", "layout"], 2);
}

#[test]
fn agent_trace_records_can_be_taken_in_again() {
    let world = World::new();
    world.well("a", &["export", "--agent-trace", "traces.json"]);
    let text = fs::read_to_string(world.path("traces.json")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert!(
        lines.iter().all(|line| line["version"] == json!("0.1.0")
            && line["files"][0]["conversations"][0]["url"].is_string())
    );
    assert_eq!(world.json("b", &["import", "traces.json"])["found"]["trace"], json!(5));
}

#[test]
fn pages_hold_what_was_said_and_run_nothing() {
    let world = World::new();
    for (option, index) in [("--html", "index.html"), ("--markdown", "index.md")] {
        let dir = format!("pages{option}");
        let written = world.json("a", &["export", option, &dir]);
        assert_eq!(written["counts"]["transcript"], json!(1), "one page for a conversation");
        let files: Vec<PathBuf> =
            fs::read_dir(world.path(&dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2);
        let page = files.iter().find(|path| !path.ends_with(index)).unwrap();
        let text = fs::read_to_string(page).unwrap();
        assert!(text.contains("and more") && text.contains("s1"), "{text}");
        if option == "--html" {
            assert!(text.contains("&lt;b&gt;prompt&lt;/b&gt; 3") && !text.contains("<b>"), "{text}");
        }
        let index = fs::read_to_string(world.path(&dir).join(index)).unwrap();
        assert!(index.contains(page.file_name().unwrap().to_str().unwrap()), "{index}");
    }
}

/// Over real transcripts; `AGENT_TRACE_CORPUS` says where they are.
#[test]
fn real_transcripts_come_back() {
    let Some(corpus) = std::env::var_os("AGENT_TRACE_CORPUS") else {
        println!("skipped: corpus not given");
        return;
    };
    let world = World::empty();
    let corpus = Path::new(&corpus).join("entire-cli");
    world.well("a", &["import", corpus.to_str().unwrap(), "--no-progress"]);
    let sizes = ["fresh.atb", "compact.atb"].map(|name| {
        if name == "compact.atb" {
            world.well("a", &["compact", "--yes"]);
        }
        // A real transcript quotes a secret.
        world.well("a", &["export", name, "--allow-sensitive"]);
        fs::metadata(world.path(name)).unwrap().len()
    });
    println!("fresh {} MB, compacted {} MB", sizes[0] / 1_000_000, sizes[1] / 1_000_000);
    assert!(sizes[0] <= 46_000_000 && sizes[1] <= 36_000_000, "{sizes:?}");
    for (store, name) in [("b", "fresh.atb"), ("c", "compact.atb")] {
        world.well(store, &["init"]);
        world.well(store, &["import", name]);
        assert_eq!(world.records(store), world.records("a"));
        assert!(is_sound(&world.json(store, &["verify"])));
    }
}
