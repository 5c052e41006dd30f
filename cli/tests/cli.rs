//! Each command from outside: output, JSON shape, exit status, bad input.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use support::{PROGRAM, array, check_example};

mod support;

const TRACE: &str = "5ce2bf05-fca1-4d2e-a9b0-000000000001";
const COMMIT: &str = "969467c30ace4f0e8d6b3b1c5a7f9e2d4c6b8a01";
const CONVERSATION: &str = "41013a8ff89bb6bff8f3adce7b4ec7dfeb5654506511afa72e5d20f0a62c9459";

/// A place of its own: home, working directory, nothing of the caller's environment that matters.
struct World {
    root: TempDir,
}

struct Answer {
    status: i32,
    out: String,
    bytes: Vec<u8>,
    err: String,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("home")).unwrap();
        World { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, program: &str, directory: &Path) -> Command {
        let mut command = support::command(program, directory, &self.path("home"));
        command.env("GIT_CEILING_DIRECTORIES", self.root.path().parent().unwrap()).env_remove("NO_COLOR");
        command
    }

    fn run_in<S: AsRef<OsStr>>(&self, directory: &Path, args: &[S]) -> Answer {
        answer(self.command(PROGRAM, directory).args(args).output().unwrap())
    }

    fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        self.run_in(self.root.path(), args)
    }

    /// Runs on the store `s`.
    fn on<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        let mut all = vec![OsStr::new("--store"), OsStr::new("s")];
        all.extend(args.iter().map(AsRef::as_ref));
        self.run(&all)
    }

    fn json<S: AsRef<OsStr>>(&self, args: &[S]) -> Value {
        let mut all = vec![OsStr::new("--json")];
        all.extend(args.iter().map(AsRef::as_ref));
        let answer = self.on(&all);
        assert_eq!(answer.err, "", "{:?}", answer.out);
        serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.out))
    }

    fn git(&self, directory: &Path, args: &[&str]) -> String {
        fs::create_dir_all(directory).unwrap();
        let config = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"];
        let output = self.command("git", directory).args(config).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn repository(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        self.git(&path, &["init", "-q", "."]);
        self.git(&path, &["commit", "-q", "--allow-empty", "-m", "first"]);
        path
    }

    /// A store `s` with a few records; two versions of a conversation.
    fn filled() -> World {
        let world = World::new();
        let data = world.path("data");
        fs::create_dir_all(&data).unwrap();
        let line = |value: Value| format!("{value}\n");
        fs::write(
            data.join("traces.jsonl"),
            line(trace(TRACE, "src/a.rs", 1)) + &line(trace(OTHER, "src/b.rs", 2)),
        )
        .unwrap();
        let ledger = json!({"version": "2.0", "commit_sha": COMMIT, "parent_sha": null,
            "created_at": "2026-02-03T12:00:00Z", "committed_at": "2026-02-03T12:00:00Z", "trace_ids": [TRACE],
            "files": {"src/a.rs": {"line_attributions": [{"start_line": 1, "end_line": 2, "trace_id": TRACE}]}}});
        fs::write(data.join("ledgers.jsonl"), line(ledger)).unwrap();
        let link = json!({"commit_sha": COMMIT, "parent_sha": null, "trace_ids": [TRACE],
            "files_changed": ["src/a.rs"], "created_at": "2026-02-03T12:00:01Z", "committed_at": "2026-02-03T12:00:00Z"});
        fs::write(data.join("commit-links.jsonl"), line(link)).unwrap();
        let summary = json!({"conversation_id": CONVERSATION, "summary": "red \u{1b}[31m\u{202e}", "created_at": "2026-02-05T00:00:00Z"});
        fs::write(data.join("session-summaries.jsonl"), line(summary)).unwrap();
        let sessions = world.path("sessions");
        fs::create_dir_all(&sessions).unwrap();
        let mut manifest = String::new();
        for (number, text) in transcripts().iter().enumerate() {
            fs::write(sessions.join(format!("{number}.jsonl")), text).unwrap();
            let entry = json!({"file": format!("{number}.jsonl"), "bytes": text.len(), "session_id": "s1",
                "agent": "Claude Code", "created_at": format!("2026-02-0{}T00:00:00Z", number + 1)});
            manifest.push_str(&line(entry));
        }
        fs::write(sessions.join("manifest.jsonl"), manifest).unwrap();
        world.on(&["init"]).well();
        let import = world.on(&["import", "data", "sessions"]);
        assert_eq!(import.status, 0, "{} {}", import.out, import.err);
        world
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let mut all = vec!["--json", "log"];
        all.extend(args);
        let answer = self.on(&all).well();
        answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const OTHER: &str = "5ce2bf05-fca1-4d2e-a9b0-000000000002";

fn trace(id: &str, path: &str, day: u32) -> Value {
    json!({"version": "2.0", "id": id, "timestamp": format!("2026-02-0{day}T10:00:00Z"),
        "tool": {"name": "claude-code"}, "files": [{"path": path, "conversations": [{"id": CONVERSATION,
        "contributor": {"type": "ai"}, "ranges": [{"start_line": 1, "end_line": 2}]}]}],
        "vcs": {"type": "git", "revision": COMMIT}, "metadata": {"session_id": "s1"}})
}

fn transcripts() -> [String; 2] {
    let line = |n: u32| {
        format!(
            "{{\"type\":\"user\",\"sessionId\":\"s1\",\"uuid\":\"u{n}\",\"timestamp\":\"2026-02-01T00:00:00Z\"}}\n"
        )
    };
    let first: String = (0..20).map(line).collect();
    let second = first.clone() + &(20..40).map(line).collect::<String>() + "not json \u{0}\n";
    [first, second]
}

fn answer(output: Output) -> Answer {
    Answer {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        bytes: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Answer {
    fn well(self) -> Answer {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    fn value(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }

    fn fails(self, status: i32, words: &[&str]) -> Answer {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "expected `{word}` in: {}", self.err);
        }
        self
    }
}

fn anchor(common: &Path) -> String {
    let text = fs::read_to_string(common.join("agent-trace-id")).unwrap();
    assert_eq!(text.len(), 36, "{text}");
    text.trim_end().to_owned()
}

// ---- init

#[test]
fn init_in_a_repository_makes_anchor_and_store() {
    let world = World::new();
    let repository = world.repository("r");
    let before = world.git(&repository, &["config", "--list", "--local"]);
    let first = world.run_in(&repository, &["init"]).well();
    let id = anchor(&repository.join(".git"));
    assert!(first.out.contains(&id), "{}", first.out);
    assert!(first.err.contains("hint:"), "{}", first.err);
    let data = world.path("home/.agent-trace/projects").join(&id);
    assert!(data.join("store/format").exists());
    let again = world.run_in(&repository, &["init"]).well();
    assert!(again.out.starts_with("Already initialised"), "{}", again.out);
    assert_eq!(anchor(&repository.join(".git")), id);
    assert_eq!(world.git(&repository, &["status", "--porcelain"]), "");
    assert_eq!(world.git(&repository, &["config", "--list", "--local"]), before);
    let names: Vec<String> = fs::read_dir(repository.join(".git"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("agent-trace"))
        .collect();
    assert_eq!(names, ["agent-trace-id"]);
    let document: Value =
        serde_json::from_str(&world.run_in(&repository, &["init", "--json"]).well().out).unwrap();
    assert_eq!(document["schema"], "agent-trace/init/1");
    assert_eq!((&document["project"], &document["created"]), (&json!(id), &json!(false)));
}

#[test]
fn init_agrees_wherever_in_the_repository_it_runs() {
    let world = World::new();
    let repository = world.repository("r");
    fs::create_dir_all(repository.join("a/b")).unwrap();
    world.run_in(&repository.join("a/b"), &["init"]).well();
    let id = anchor(&repository.join(".git"));
    let worktree = world.path("w");
    world.git(&repository, &["worktree", "add", "-q", worktree.to_str().unwrap()]);
    std::os::unix::fs::symlink(&repository, world.path("link")).unwrap();
    for place in [worktree, world.path("link"), world.path("link/a")] {
        let said = world.run_in(&place, &["init"]).well();
        assert!(
            said.out.contains(&id) && said.out.starts_with("Already"),
            "{}: {}",
            place.display(),
            said.out
        );
    }
    let from_elsewhere = world
        .command(PROGRAM, world.root.path())
        .env("GIT_DIR", repository.join(".git"))
        .arg("init")
        .output()
        .unwrap();
    assert!(answer(from_elsewhere).well().out.contains(&id));
    let by_option = world.run(&[OsStr::new("-C"), repository.as_os_str(), OsStr::new("status")]).well();
    assert!(by_option.out.contains(&id), "{}", by_option.out);
    fs::rename(&repository, world.path("moved")).unwrap();
    assert!(world.run_in(&world.path("moved"), &["status"]).well().out.contains(&id));
}

#[test]
fn submodules_and_bare_repositories_have_their_own_identity() {
    let world = World::new();
    let (outer, inner) = (world.repository("outer"), world.repository("inner"));
    world.git(&outer, &["submodule", "--quiet", "add", inner.to_str().unwrap(), "sub"]);
    world.run_in(&outer, &["init"]).well();
    world.run_in(&outer.join("sub"), &["init"]).well();
    let bare = world.path("bare.git");
    world.git(&bare, &["init", "-q", "--bare", "."]);
    world.run_in(&bare, &["init"]).well();
    let ids = [anchor(&outer.join(".git")), anchor(&outer.join(".git/modules/sub")), anchor(&bare)];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

#[test]
fn many_inits_at_once_agree() {
    let world = World::new();
    let repository = world.repository("r");
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = world.command(PROGRAM, &repository);
            command.args(["init", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let said: Vec<Value> = children
        .into_iter()
        .map(|child| serde_json::from_str(&answer(child.wait_with_output().unwrap()).well().out).unwrap())
        .collect();
    let id = anchor(&repository.join(".git"));
    for document in &said {
        assert_eq!((&document["project"], &document["writer"]), (&json!(id), &said[0]["writer"]));
    }
}

#[test]
fn init_finishes_what_a_dead_one_began() {
    let world = World::new();
    let repository = world.repository("r");
    let id = format!("at-{}", "a".repeat(32));
    fs::write(repository.join(".git/agent-trace-id"), format!("{id}\n")).unwrap();
    fs::write(repository.join(".git/.agent-trace-id.00.new"), "at-").unwrap();
    fs::create_dir_all(world.path("home/.agent-trace/projects").join(&id).join("store/segments")).unwrap();
    world.run_in(&repository, &["status"]).fails(9, &["hint: agent-trace init"]);
    assert!(world.run_in(&repository, &["init"]).well().out.contains(&id));
    assert!(!repository.join(".git/.agent-trace-id.00.new").exists());
    world.run_in(&repository, &["status"]).well();
    fs::write(repository.join(".git/agent-trace-id"), "garbage\n").unwrap();
    world.run_in(&repository, &["status"]).fails(2, &["agent-trace-id", "32 hex digits", "hint:"]);
}

#[test]
fn init_killed_anywhere_works_when_run_again() {
    let world = World::new();
    if world.command("strace", world.root.path()).arg("-V").output().is_err() {
        eprintln!("skipped: strace not given");
        return;
    }
    let calls = "openat,mkdir,pwrite64,rename,link,linkat,unlink";
    // Before a call that changes nothing all is as it is before the next one that does.
    let trace = world.path("calls");
    // The first of a home makes more than those after it.
    world.run_in(&world.repository("first"), &["init"]).well();
    let clean = ["-o", trace.to_str().unwrap(), "-e", &format!("trace={calls}"), PROGRAM, "init"];
    let repository = world.repository("clean");
    assert!(world.command("strace", &repository).args(clean).output().unwrap().status.success());
    let points = support::kill_points(&fs::read_to_string(&trace).unwrap());
    let mut kills = 0;
    for (name, number) in points {
        let when = format!("{name}:when={number}");
        let repository = world.repository(&format!("r {name} {number}"));
        let killed = world
            .command("strace", &repository)
            .args(["-o", "/dev/null", "-e"])
            .arg(format!("inject={name}:signal=KILL:when={number}"))
            .args([PROGRAM, "init"])
            .output()
            .unwrap();
        // A run may have a call or two less, and end well at the last points.
        kills += usize::from(!killed.status.success());
        let before = fs::read_to_string(repository.join(".git/agent-trace-id")).ok();
        world.run_in(&repository, &["init"]).well();
        let id = anchor(&repository.join(".git"));
        assert!(before.is_none_or(|before| before.trim_end() == id), "call {when}");
        assert!(world.run_in(&repository, &["status"]).well().out.contains(&id), "call {when}");
    }
    assert!(kills > 20, "too few calls were met: {kills}");
}

#[test]
fn init_names_the_data_of_a_peer() {
    let world = World::new();
    let repository = world.repository("r");
    let id = format!("at-{}", "b".repeat(32));
    fs::write(repository.join(".git/agent-trace-id"), format!("{id}\n")).unwrap();
    let home = world.path("elsewhere");
    let data = home.join("projects").join(&id);
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("traces.jsonl"), format!("{}\n", trace(TRACE, "a", 1))).unwrap();
    let run = |args: &[&str]| {
        let mut command = world.command(PROGRAM, &repository);
        answer(command.env("AGENT_TRACE_HOME", &home).args(args).output().unwrap())
    };
    let said = run(&["init"]).well();
    assert!(said.err.contains(&format!("hint: agent-trace import {}", data.display())), "{}", said.err);
    assert_eq!(
        serde_json::from_str::<Value>(&run(&["init", "--json"]).out).unwrap()["peer_data"],
        json!(data)
    );
    assert!(run(&["import", data.to_str().unwrap()]).well().out.contains("1 added"));
}

#[test]
fn outside_git_a_store_must_be_named() {
    let world = World::new();
    world.run(&["init"]).fails(2, &["no git repository", "hint:", "--store"]);
    world.run(&["status"]).fails(2, &["hint:"]);
    world.on(&["status"]).fails(9, &["no store", "hint: agent-trace --store", "init"]);
    assert!(world.on(&["init"]).well().out.starts_with("Initialised store"));
    assert!(world.on(&["init"]).well().out.starts_with("Already initialised"));
    fs::create_dir(world.path("full")).unwrap();
    fs::write(world.path("full/novel.txt"), "x").unwrap();
    world.run(&["--store", "full", "init"]).fails(2, &["novel.txt", "expected an empty directory"]);
    assert_eq!(fs::read_dir(world.path("full")).unwrap().count(), 1);
    let by_variable = world
        .command(PROGRAM, world.root.path())
        .env("AGENT_TRACE_STORE", "s")
        .args(["status", "--json"])
        .output()
        .unwrap();
    let document: Value = serde_json::from_str(&answer(by_variable).well().out).unwrap();
    assert_eq!((&document["project"], &document["events"]), (&Value::Null, &json!(0)));
    let repository = world.repository("r");
    world.run_in(&repository, &["log"]).fails(9, &["hint: agent-trace init"]);
}

// ---- import, log

#[test]
fn import_counts_and_reports_bad_lines() {
    let world = World::filled();
    let again = world.json(&["import", "data", "sessions"]);
    assert_eq!(again["schema"], "agent-trace/import/1");
    assert_eq!((&again["added"], &again["bad"]), (&json!(0), &json!([])));
    assert_eq!((&again["found"]["trace"], &again["found"]["transcript"]), (&json!(2), &json!(2)));
    let good = trace("5ce2bf05-fca1-4d2e-a9b0-000000000003", "c", 3);
    fs::create_dir(world.path("bad")).unwrap();
    fs::write(world.path("bad/traces.jsonl"), format!("{good}\n{{\"id\": \n")).unwrap();
    let dry = world.on(&["import", "--dry-run", "bad"]);
    assert!(dry.out.contains("[dry-run]"), "{}", dry.out);
    assert_eq!(world.lines(&["-n", "99"]).len(), 7);
    let bad = world.on(&["import", "bad"]).fails(3, &["traces.jsonl:2:"]);
    assert!(bad.out.contains("1 added"), "{}", bad.out);
    assert_eq!(world.lines(&["-n", "99"]).len(), 8);
    world.on(&["import", "nowhere"]).fails(9, &["nowhere"]);
    world.on(&["import", "--since", "soon", "data"]).fails(2, &["cannot read time `soon`"]);
    world.on(&["import"]).fails(2, &["PATH"]);
}

/// Lines that are JSON of a sort, and of which no canonical form says what they mean.
fn raw_lines() -> [Vec<u8>; 3] {
    let deep = format!("{}1{}", "{\"a\":[".repeat(90), "]}".repeat(90));
    let twice = r#"{"id":"5ce2bf05-fca1-4d2e-a9b0-00000000000a","id":"b",  "version":"2.0","files":[]}"#;
    [twice.as_bytes().to_vec(), deep.into_bytes(), b"{\"id\":\"\xff\xfe\",\"timestamp\":1}".to_vec()]
}

/// A store into which those lines came, with a record before and lines behind that are no JSON.
fn with_raw_lines() -> World {
    let world = World::new();
    let good = trace(TRACE, "src/a.rs", 1).to_string().into_bytes();
    let [twice, deep, bytes] = raw_lines();
    let not_json: [&[u8]; 3] = [b"{\"a\":1,\"a\":", b"no json", b"{\"a\":\xff}"];
    let file = [&[good.as_slice(), &twice, &deep, &bytes][..], &not_json].concat().join(&b'\n');
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/traces.jsonl"), file).unwrap();
    world.on(&["init"]).well();
    world
}

#[test]
fn lines_without_a_canonical_form_are_kept_as_raw_bytes_and_listed() {
    let world = with_raw_lines();
    let dry = world.on(&["--json", "import", "--dry-run", "data"]);
    assert_eq!((dry.status, &dry.value()["added"]), (3, &json!(4)), "{}", dry.out);
    let human = world.on(&["import", "--dry-run", "data"]);
    assert!(human.out.contains("3 left out, 3 kept as raw bytes"), "{}", human.out);
    for (added, known) in [(4, 0), (0, 4)] {
        let answer = world.on(&["--json", "import", "data"]);
        let import = answer.value();
        assert_eq!(answer.status, 3, "{import}");
        assert_eq!((&import["added"], &import["known"]), (&json!(added), &json!(known)), "{import}");
        assert_eq!((&import["found"]["trace"], &import["found"]["unknown"]), (&json!(1), &json!(3)));
        let listed: Vec<(u64, bool, bool)> = array(&import["bad"])
            .iter()
            .map(|bad| {
                let kept = bad["reason"].as_str().unwrap().ends_with("; kept as raw bytes");
                assert!(bad["file"].as_str().unwrap().ends_with("traces.jsonl"), "{bad}");
                (bad["line"].as_u64().unwrap(), bad["kept"] == json!(true), kept)
            })
            .collect();
        let expected = (2..=7).map(|line| (line, line < 5, line < 5)).collect::<Vec<_>>();
        assert_eq!(listed, expected, "{import}");
    }
    assert_eq!(world.lines(&[]).len(), 4);
    world
        .on(&["import", "data"])
        .fails(3, &["traces.jsonl:2: no canonical JSON: duplicate key", "nested too deeply"]);
}

#[test]
fn raw_bytes_are_found_shown_and_given_back() {
    let world = with_raw_lines();
    world.on(&["import", "data"]);
    let listed = world.lines(&["--kind", "unknown"]);
    assert_eq!(listed.len(), 3);
    let mut given = Vec::new();
    for head in &listed {
        let id = head["id"].as_str().unwrap();
        assert_eq!((&head["kind"], &head["key"]), (&json!("unknown"), &json!(id)), "{head}");
        let shown = world.json(&["show", &id[..16]]);
        assert_eq!(shown["records"][0]["id"], json!(id), "{shown}");
        assert_eq!(
            (&shown["records"][0]["record"], &shown["records"][0]["versions"]),
            (&json!(null), &json!(1))
        );
        assert!(world.on(&["show", id]).well().out.starts_with("unknown "));
        given.push(world.on(&["cat", &id[..12]]).well().bytes);
    }
    given.sort();
    let mut lines = raw_lines().to_vec();
    lines.sort();
    assert_eq!(given, lines);
    assert!(world.on(&["log"]).well().out.contains("unknown"));
    assert!(world.on(&["stats"]).well().out.contains("unknown"));
    assert_eq!(world.json(&["status"])["kinds"]["unknown"], json!(3));
    for again in [&["verify"][..], &["compact", "--yes"], &["reindex"], &["verify"]] {
        world.on(again).well();
    }
    assert_eq!(world.lines(&["--kind", "unknown"]), listed);
}

#[test]
fn raw_bytes_go_to_remotes_with_full_only() {
    let world = with_raw_lines();
    world.on(&["import", "data"]);
    let url = format!("file://{}", world.path("remote").display());
    world.on(&["remote", "add", "team", &url]).well();
    let plain = world.json(&["push"]);
    assert_eq!(
        (&plain["sent"]["unknown"], &plain["held_back"]["unknown"]),
        (&json!(null), &json!(3)),
        "{plain}"
    );
    let full = world.json(&["push", "--full"]);
    assert_eq!(full["sent"]["unknown"], json!(3), "{full}");
    let run = |args: &[&str]| world.run(&[&["--json", "--store", "other"], args].concat());
    let there = |args: &[&str]| run(args).well();
    there(&["init"]);
    there(&["remote", "add", "team", &url]);
    assert_eq!(there(&["pull"]).value()["taken"]["unknown"], json!(3));
    assert_eq!(there(&["verify"]).value()["ok"], json!(true));
    for line in raw_lines() {
        let id = agent_trace_store::ObjectId::of(&line).to_string();
        assert_eq!(there(&["cat", &id]).bytes, line);
    }
    assert_eq!(run(&["import", "data", "--dry-run"]).value()["added"], json!(0));
}

#[test]
fn log_lists_newest_first_and_filters() {
    let world = World::filled();
    let all = world.lines(&[]);
    let times: Vec<&str> = all.iter().map(|record| record["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    assert_eq!(all.len(), 7);
    for record in &all {
        assert_eq!(record["schema"], "agent-trace/log/1");
        for member in ["id", "event", "writer"] {
            assert_eq!(record[member].as_str().unwrap().len(), 64);
        }
        assert!(record["seq"].is_u64() && record["objects"].is_array() && record["paths"].is_array());
    }
    let count = |args: &[&str]| world.lines(args).len();
    assert_eq!(count(&["--kind", "trace"]), 2);
    assert_eq!(count(&["--kind", "conversations"]), 2);
    assert_eq!(count(&["--since", "2026-02-03"]), 3);
    assert_eq!(count(&["--until", "2026-02-01"]), 2);
    assert_eq!(count(&["--since", "2026-02-01T10:00:00Z", "--until", "2026-02-02T09:00:00+00:00"]), 2);
    assert_eq!(count(&["--path", "src/a.rs"]), 3);
    assert_eq!(count(&["--session", "s1", "--kind", "trace"]), 2);
    assert_eq!(count(&["--commit", COMMIT]), 4);
    assert_eq!(count(&["--commit", &COMMIT[..8], "--kind", "ledger"]), 1);
    assert_eq!(count(&["--limit", "3"]), 3);
    assert_eq!(count(&["--since", "1h"]), 0);
    world.on(&["log", "--kind", "novel"]).fails(2, &["cannot read kind `novel`", "transcript"]);
    world.on(&["log", "--since", "2026-02-30"]).fails(2, &["cannot read time"]);
    world.on(&["log", "--commit", "ffffffff"]).fails(9, &["ffffffff"]);
    let lines = world.on(&["log", "--kind", "trace"]).well().out;
    let first = lines.lines().next().unwrap();
    assert!(first.contains("2026-02-02 10:00:00  trace"), "{first}");
    assert!(first.contains("claude-code") && first.contains("src/b.rs"), "{first}");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let world = World::filled();
    let mut child = world
        .command(PROGRAM, world.root.path())
        .args(["--store", "s", "log"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    answer(child.wait_with_output().unwrap()).well();
}

// ---- show, cat

#[test]
fn show_takes_every_name_of_a_record() {
    let world = World::filled();
    let trace = &world.lines(&["--path", "src/a.rs", "--kind", "trace"])[0];
    let id = trace["id"].as_str().unwrap();
    for name in [id, &id[..12], TRACE, &TRACE.replace('-', "")] {
        let document = world.json(&["show", name]);
        assert_eq!(document["schema"], "agent-trace/show/1", "{name}");
        assert_eq!(document["records"][0]["record"]["id"], TRACE, "{name}");
        assert_eq!(document["records"][0]["id"], id, "{name}");
    }
    let commit = world.json(&["show", COMMIT]);
    let kinds: Vec<&Value> =
        commit["records"].as_array().unwrap().iter().map(|record| &record["kind"]).collect();
    assert_eq!(kinds, ["ledger", "commit-link"]);
    assert_eq!(world.json(&["show", &COMMIT[..10]])["records"].as_array().unwrap().len(), 2);
    world.on(&["show", "ffffffffffff"]).fails(9, &["nothing in this store", "hint:"]);
    world.on(&["show", "5c"]).fails(9, &["at least 4 digits"]);
    world.on(&["show", "5ce2bf05"]).fails(2, &["any of 2 things", TRACE, OTHER, "hint: give more digits"]);
    let shown = world.on(&["show", TRACE]).well().out;
    assert!(
        shown.contains("time     2026-02-01 10:00:00") && shown.contains("\"path\": \"src/a.rs\""),
        "{shown}"
    );
}

#[test]
fn what_is_stored_cannot_command_the_terminal() {
    let world = World::filled();
    let summary = &world.lines(&["--kind", "summary"])[0];
    let id = summary["id"].as_str().unwrap();
    for args in [&["show", id][..], &["--json", "show", id]] {
        let shown = world.on(args).well().out;
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
    }
    let record = &world.json(&["show", id])["records"][0]["record"];
    assert_eq!(record["summary"], "red \u{1b}[31m\u{202e}");
    world.on(&["show", "\u{1b}[2J"]).fails(9, &["\\u{1b}[2J"]);
}

#[test]
fn versions_of_a_conversation_are_one_thing() {
    let world = World::filled();
    let transcripts_found = world.lines(&["--kind", "transcript"]);
    let key = transcripts_found[0]["key"].as_str().unwrap();
    let one = world.json(&["show", key]);
    assert_eq!(one["records"].as_array().unwrap().len(), 1);
    assert_eq!((&one["records"][0]["versions"], &one["records"][0]["chosen"]), (&json!(2), &json!(true)));
    assert_eq!(one["records"][0]["record"]["size"], json!(transcripts()[1].len()));
    let all = world.json(&["show", key, "--all"]);
    assert_eq!(all["records"].as_array().unwrap().len(), 2);
    assert_eq!(all["records"][1]["chosen"], json!(false));
    assert!(world.on(&["show", key]).well().err.contains("1 other version"));
}

#[test]
fn cat_gives_the_exact_bytes() {
    let world = World::filled();
    for record in world.lines(&["--kind", "transcript"]) {
        let shown = world.json(&["show", record["id"].as_str().unwrap()]);
        let sha256 = shown["records"][0]["record"]["content_sha256"].as_str().unwrap().to_owned();
        let size = shown["records"][0]["record"]["size"].as_u64().unwrap();
        let text = transcripts().into_iter().find(|text| text.len() as u64 == size).unwrap();
        for name in
            [record["id"].as_str().unwrap(), record["objects"][1].as_str().unwrap(), &sha256, &sha256[..9]]
        {
            assert_eq!(world.on(&["cat", name]).well().bytes, text.as_bytes(), "{name}");
        }
        let key = record["key"].as_str().unwrap();
        assert_eq!(world.on(&["cat", key]).well().bytes, transcripts()[1].as_bytes());
    }
    let canonical = world.on(&["cat", TRACE]).well().out;
    assert!(
        canonical.starts_with(r#"{"files":[{"conversations""#) && canonical.ends_with('}'),
        "{canonical}"
    );
    world.on(&["cat", COMMIT]).fails(2, &["2 records", "ledger", "commit-link"]);
    world.on(&["cat", "ffffffffffff"]).fails(9, &["ffffffffffff"]);
}

// ---- status, stats, care

#[test]
fn status_counts_without_reading() {
    let world = World::filled();
    let status = world.json(&["status"]);
    assert_eq!(status["schema"], "agent-trace/status/1");
    assert_eq!(status["events"], 7);
    assert_eq!(status["kinds"]["transcript"], 2);
    assert_eq!(status["segments"], json!({"sealed": 0, "open": 1}));
    assert!(status["bytes"]["segments"].as_u64().unwrap() > 0 && status["objects"].as_u64().unwrap() >= 9);
    assert_eq!((&status["damaged"], &status["remotes"]), (&json!([]), &json!([])));
    let shown = world.on(&["status"]).well().out;
    assert!(shown.contains("records   7") && shown.contains("remotes   none"), "{shown}");
}

#[test]
fn stats_count_by_kind_agent_and_month() {
    let world = World::filled();
    let stats = world.json(&["stats"]);
    assert_eq!(stats["schema"], "agent-trace/stats/1");
    assert_eq!((&stats["records"], &stats["kinds"]["trace"]), (&json!(7), &json!(2)));
    assert_eq!(stats["agents"]["claude-code"], 2);
    assert_eq!(stats["months"]["2026-02"]["ledger"], 1);
    assert_eq!(stats["first"], "2026-02-01T00:00:00Z");
    assert!(world.on(&["stats"]).well().out.contains("by month"));
}

#[test]
fn verify_reindex_and_compact_say_what_they_did() {
    let world = World::filled();
    let verify = world.json(&["verify"]);
    assert_eq!((&verify["schema"], &verify["ok"]), (&json!("agent-trace/verify/1"), &json!(true)));
    assert_eq!(verify["problems"], json!([]));
    assert_eq!(verify["events"], 7);
    let reindex = world.json(&["reindex"]);
    assert_eq!((&reindex["schema"], &reindex["salvaged"]), (&json!("agent-trace/reindex/1"), &json!([])));
    assert_eq!(world.lines(&[]).len(), 7);
    world.on(&["compact"]).fails(2, &["no terminal", "hint: agent-trace compact --yes"]);
    let plan = world.json(&["compact", "--dry-run"]);
    assert_eq!((&plan["schema"], &plan["done"]), (&json!("agent-trace/compact/1"), &Value::Null));
    let done = world.json(&["compact", "--yes"]);
    assert!(done["done"]["bytes_after"].as_u64().unwrap() > 0, "{done}");
    assert_eq!(world.lines(&[]).len(), 7);
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    world.on(&["compact", "--yes"]).well();
}

#[test]
fn damage_is_found_and_ends_with_seven() {
    let world = World::filled();
    world.on(&["compact", "--yes"]).well();
    let mut files = Vec::new();
    find_files(&world.path("s/segments"), &mut files);
    let segment = files.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(segment).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x40;
    fs::write(segment, &bytes).unwrap();
    let verify = world.on(&["verify"]);
    assert_eq!(verify.status, 7, "{} {}", verify.out, verify.err);
    assert!(verify.out.contains("damaged"), "{}", verify.out);
    let document: Value = serde_json::from_str(&world.on(&["--json", "verify"]).out).unwrap();
    assert_eq!(document["ok"], json!(false));
    assert!(document["problems"][0]["code"].is_string() && document["problems"][0]["affects"].is_array());
    fs::write(segment, b"agent").unwrap();
    let status = world.on(&["status"]);
    assert_eq!(status.status, 7, "{} {}", status.out, status.err);
    assert!(status.out.contains("damaged"), "{}", status.out);
}

fn find_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { find_files(&path, files) } else { files.push(path) }
    }
}

// ---- remotes

#[test]
fn remotes_are_kept_with_what_is_not_known_of_them() {
    let world = World::filled();
    let url = |name: &str| format!("file://{}", world.path(name).display());
    world.on(&["push"]).fails(9, &["no remote", "hint: agent-trace remote add"]);
    world.on(&["remote", "list"]).well();
    world.on(&["remote", "add", "team", &url("team")]).well();
    let file = world.path("s/remotes.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(document, json!({"version": 1, "remotes": {"team": {"url": url("team")}}}));
    document["later"] = json!([1]);
    document["remotes"]["team"]["note"] = json!("x");
    fs::write(&file, document.to_string()).unwrap();
    world.on(&["remote", "add", "team", &url("other")]).fails(2, &["already", "set-url"]);
    world.on(&["remote", "add", "Team", &url("other")]).fails(2, &["cannot name a remote `Team`"]);
    world
        .on(&["remote", "add", "web", "https://x.example/a"])
        .fails(2, &["expected `https://<host>[:port]/<org>/<project>`"]);
    world.on(&["remote", "add", "web", "file://x"]).fails(2, &["expected `file:///path`"]);
    world.on(&["remote", "add", "data", &url("data")]).fails(2, &["is no remote"]);
    world.on(&["remote", "add", "spare", &url("spare")]).well();
    world.on(&["push"]).fails(9, &["no default", "spare, team"]);
    world.on(&["push", "--remote", "nobody"]).fails(9, &["no remote `nobody`", "spare, team"]);
    world.on(&["remote", "default", "team"]).well();
    world.on(&["remote", "rename", "team", "crew"]).well();
    world.on(&["remote", "set-url", "crew", &url("crew")]).well();
    world.on(&["remote", "remove", "spare"]).well();
    let shown = world.on(&["remote", "show", "crew"]).well().out;
    assert!(shown.contains(&url("crew")) && shown.contains("default  yes"), "{shown}");
    let listed = world.json(&["remote", "list"]);
    assert_eq!(listed["schema"], "agent-trace/remote/1");
    assert_eq!(
        (&listed["name"], &listed["default"], &listed["known"]),
        (&json!("crew"), &json!(true), &json!(false))
    );
    let document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&document["later"], &document["remotes"]["crew"]["note"]), (&json!([1]), &json!("x")));
    fs::write(&file, "{").unwrap();
    world.on(&["remote", "list"]).fails(2, &["remotes.json", "expected JSON"]);
}

#[test]
fn push_and_pull_carry_everything() {
    let world = World::filled();
    let url = format!("file://{}", world.path("team").display());
    world.on(&["remote", "add", "team", &url]).well();
    world.on(&["pull"]).fails(9, &["there is nothing at"]);
    let dry = world.on(&["push", "--dry-run"]).well();
    assert!(
        dry.out.starts_with("[dry-run] Pushed 1 trace(s), 1 ledger(s), 1 commit-link(s), "),
        "{}",
        dry.out
    );
    assert!(dry.out.contains("  (1 unattributed trace(s)"), "{}", dry.out);
    assert!(dry.out.contains("held back; use --full to push)"), "{}", dry.out);
    assert!(!world.path("team/heads").exists(), "a dry run writes nothing");
    world.on(&["push", "--only", "novel"]).fails(2, &["cannot read kind"]);
    let plain = world.json(&["push"]);
    assert_eq!((&plain["schema"], &plain["sent"]["trace"]), (&json!("agent-trace/push/1"), &json!(1)));
    let held = world.on(&["push"]).well();
    assert!(held.err.contains("hint: agent-trace push --full"), "{}", held.err);
    let full = world.on(&["push", "--full"]).well();
    assert!(
        full.out.starts_with("Pushed 1 trace(s), 0 ledger(s), 0 commit-link(s), 2 conversation(s)"),
        "{}",
        full.out
    );
    let status = world.json(&["status"]);
    assert_eq!(
        (
            &status["remotes"][0]["unpushed"],
            &status["remotes"][0]["held_back"],
            &status["remotes"][0]["known"]
        ),
        (&json!(0), &json!(0), &json!(true))
    );
    world.run(&["--store", "t", "init"]).well();
    world.run(&["--store", "t", "remote", "add", "team", &url]).well();
    let pulled = world.run(&["--store", "t", "pull"]).well();
    assert_eq!(
        pulled.out,
        "Pulled 2 trace(s), 1 ledger(s), 1 commit-link(s), 2 conversation(s), 1 summary(ies)\n"
    );
    let ids = |store: &str| {
        let answer = world.run(&["--store", store, "--json", "log"]).well();
        let mut ids: Vec<String> = answer
            .out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("s"), ids("t"));
    let sync = world.run(&["--store", "t", "--json", "sync"]).well();
    let sync: Value = serde_json::from_str(&sync.out).unwrap();
    assert_eq!((&sync["schema"], &sync["push"]["sent"]["trace"]), (&json!("agent-trace/sync/1"), &json!(0)));
    assert_eq!(sync["pull"]["forks"], json!([]));
}

// ---- the rest

#[test]
fn failures_are_json_where_json_is_asked_for() {
    let world = World::new();
    let check = |args: &[&str], exit: i64, kind: &str| {
        let answer = world.run(args);
        let document: Value = serde_json::from_str(&answer.err).unwrap_or_else(|_| panic!("{}", answer.err));
        assert_eq!(document["schema"], "agent-trace/error/1");
        assert_eq!((&document["exit"], &document["kind"]), (&json!(exit), &json!(kind)));
        assert_eq!(i64::from(answer.status), exit);
        assert!(document["message"].is_string() && document["causes"].is_array(), "{document}");
        assert_eq!(answer.out, "");
    };
    check(&["--json", "--store", "none", "status"], 9, "not-found");
    check(&["--json", "status"], 2, "invalid");
    check(&["--json", "novel"], 2, "invalid");
    check(&["--json", "-C", "nowhere", "status"], 2, "invalid");
}

#[test]
fn a_newer_format_is_refused() {
    let world = World::filled();
    let format = fs::read_to_string(world.path("s/format")).unwrap();
    fs::write(world.path("s/format"), format.replacen('1', "9", 1)).unwrap();
    world.on(&["status"]).fails(11, &["hint:"]);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.run(&["completions", shell]).well().out.contains("agent-trace"));
    }
    world.run(&["completions", "tcsh"]).fails(2, &["tcsh"]);
    assert!(world.run(&["man"]).well().out.contains(".TH"));
    world.run(&["man", "pages"]).well();
    for page in ["agent-trace.1", "agent-trace-push.1", "agent-trace-remote-add.1"] {
        assert!(fs::read_to_string(world.path("pages").join(page)).unwrap().contains(".SH"), "{page}");
    }
    assert!(world.run(&["--version"]).well().out.starts_with("agent-trace "));
    assert!(world.run(&["help"]).well().out.contains("tour"));
    world.run::<&str>(&[]).fails(2, &["Usage"]);
}

#[test]
fn the_reference_page_is_that_of_this_program() {
    let world = World::new();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let made = world.run(&["help-page"]).well().out;
    assert!(
        fs::read_to_string(page).unwrap_or_default() == made,
        "docs/cli.md is stale: cargo run -p agent-trace -- help-page > docs/cli.md"
    );
}

#[test]
fn every_json_shape_is_documented() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(manifest.join("../docs/json.md")).unwrap_or_default();
    let files = ["src/json.rs", "src/json/ask.rs", "src/json/key.rs"]
        .map(|file| fs::read_to_string(manifest.join(file)).unwrap());
    let source = files.concat();
    for schema in source.split('"').filter(|text| text.starts_with("agent-trace/")) {
        assert!(page.contains(&format!("`{schema}`")), "docs/json.md does not have `{schema}`");
    }
}

#[test]
fn the_examples_of_the_contract_are_true() {
    let world = World::filled();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md")).unwrap();
    let url = format!("file://{}", world.path("team").display());
    fs::create_dir(world.path("bad")).unwrap();
    fs::write(world.path("bad/traces.jsonl"), "{\"id\": \n").unwrap();
    let import = world.on(&["--json", "import", "data", "bad"]);
    check_example(&page, &serde_json::from_str(&import.out).unwrap());
    let failure = world.on(&["--json", "show", "zzzz"]);
    check_example(&page, &serde_json::from_str(&failure.err).unwrap());
    check_example(&page, &world.json(&["log", "-n", "1"]));
    check_example(&page, &world.json(&["show", TRACE]));
    check_example(&page, &world.json(&["remote", "add", "team", &url]));
    for args in [&["init"][..], &["push"], &["pull"], &["status"], &["stats"], &["verify"], &["reindex"]] {
        check_example(&page, &world.json(args));
    }
    for args in [&["hooks", "install", "--agent", "cursor"][..], &["hooks", "status", "--agent", "cursor"]] {
        check_example(&page, &world.json(args));
    }
    check_example(&page, &world.json(&["compact", "--yes"]));
    let sync = world.json(&["sync"]);
    check_example(&page, &sync["push"]);
    check_example(&page, &sync["pull"]);
}

#[test]
fn the_tour_holds() {
    let world = World::new();
    let temporary = world.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = world.command(PROGRAM, world.root.path());
    let tour = answer(command.env("TMPDIR", &temporary).arg("tour").output().unwrap()).well();
    assert!(tour.out.contains("$ agent-trace --store laptop init"), "{}", tour.out);
    assert!(tour.out.trim_end().ends_with("agent-trace init"), "{}", tour.out);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "the tour leaves nothing");
}
