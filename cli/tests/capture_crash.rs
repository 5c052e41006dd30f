//! Kills hooks, and commands that absorb, with SIGKILL at many of their system calls, and looks at what is left.
//!
//! After each kill the store is sound, the same event delivered again and the next command give what an undisturbed
//! run gives: no trace is lost, none is doubled, the transcript is whole. `AGENT_TRACE_KILL_POINTS` sets the points
//! for each group of calls, or `all`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use support::{PROGRAM, is_sound};

mod support;

const GROUPS: [&str; 7] = [
    "pwrite64",
    "openat",
    "rename,renameat,renameat2",
    "fsync,fdatasync",
    "unlink,unlinkat",
    "mkdir,mkdirat,flock",
    "statx,pread64,read",
];
const POINTS_PER_GROUP: usize = 6;

struct World {
    root: TempDir,
}

impl World {
    fn new() -> World {
        let world = World { root: tempfile::tempdir().unwrap() };
        for name in ["live/home", "live/repo", "live/agent"] {
            fs::create_dir_all(world.root.path().join(name)).unwrap();
        }
        let git = support::command("git", &world.path("repo"), &world.path("home"))
            .args(["init", "-q", "--template="])
            .status();
        assert!(git.unwrap().success());
        world.must(&["init"]);
        let projects = world.path("home/.agent-trace/projects");
        let data = fs::read_dir(projects).unwrap().next().unwrap().unwrap().path();
        fs::write(data.join("project-config.json"), r#"{"capture":{"flush":"manual"}}"#).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("live").join(name)
    }

    fn transcript(&self) -> PathBuf {
        self.path("agent/s1.jsonl")
    }

    fn command(&self, program: &str) -> Command {
        support::command(program, &self.path("repo"), &self.path("home"))
    }

    fn must(&self, args: &[&str]) -> String {
        let output = self.command(PROGRAM).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn payload(&self, event: &str, number: usize) -> Vec<u8> {
        json!({"session_id": "s1", "transcript_path": self.transcript(), "cwd": self.path("repo"),
            "hook_event_name": event, "tool_name": "Write", "tool_use_id": format!("toolu_{number}"),
            "tool_input": {"file_path": self.path("repo/a.py"), "content": format!("{number}\n")}})
        .to_string()
        .into_bytes()
    }

    fn record(&self, event: &str, number: usize) {
        let mut command = self.command(PROGRAM);
        command.arg("record");
        assert!(feed(command, &self.payload(event, number)).status.success());
    }

    /// A state of everything, to come back to.
    fn save(&self) {
        self.copy("live", "saved");
    }

    fn restore(&self) {
        fs::remove_dir_all(self.root.path().join("live")).unwrap();
        self.copy("saved", "live");
    }

    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.root.path().join(from), self.root.path().join(to));
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }

    fn under_strace(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.command("strace");
        command.args(["-f", "-qq"]).args(options).arg(PROGRAM).args(args);
        command
    }

    /// How often calls of a group are made by a run that is not disturbed.
    fn count(&self, group: &str, args: &[&str], payload: &[u8]) -> usize {
        let trace = self.root.path().join("trace");
        let calls = format!("trace={group}");
        let options = ["-o", trace.to_str().unwrap(), "-e", &calls];
        assert!(feed(self.under_strace(&options, args), payload).status.success());
        fs::read_to_string(trace).unwrap().lines().filter(|line| line.contains('(')).count()
    }

    fn kill(&self, group: &str, at: usize, args: &[&str], payload: &[u8]) {
        let (calls, inject) = (format!("trace={group}"), format!("inject={group}:signal=SIGKILL:when={at}"));
        feed(self.under_strace(&["-o", "/dev/null", "-e", &calls, "-e", &inject], args), payload);
    }

    /// Checks what must hold after everything has been delivered and absorbed.
    fn check(&self, traces: &[usize], transcript: &[u8], context: &str) {
        let text = self.must(&["log", "--json", "--limit", "1000"]);
        let heads: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut found: Vec<Value> = heads
            .iter()
            .filter(|head| head["kind"] == "trace")
            .map(|head| serde_json::from_str(&self.must(&["cat", head["id"].as_str().unwrap()])).unwrap())
            .collect();
        found.sort_by_key(|trace| trace["metadata"]["edit_sequence"].as_u64());
        let calls: Vec<String> =
            found.iter().map(|trace| trace["metadata"]["tool_use_id"].as_str().unwrap().to_owned()).collect();
        let expected: Vec<String> = traces.iter().map(|number| format!("toolu_{number}")).collect();
        assert_eq!(calls, expected, "{context}: {found:?}");
        let sequences: Vec<u64> =
            found.iter().map(|trace| trace["metadata"]["edit_sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences, (0..traces.len() as u64).collect::<Vec<_>>(), "{context}");
        let key = heads.iter().find(|head| head["kind"] == "transcript").unwrap()["key"].as_str().unwrap();
        let held = self.command(PROGRAM).args(["cat", key]).output().unwrap().stdout;
        assert!(held == transcript, "{context}: {} bytes of {}", held.len(), transcript.len());
        let verified: Value = serde_json::from_str(&self.must(&["verify", "--json"])).unwrap();
        assert!(is_sound(&verified), "{context}: {verified}");
        let capture =
            serde_json::from_str::<Value>(&self.must(&["status", "--json"])).unwrap()["capture"].clone();
        assert_eq!((&capture["waiting"], &capture["odd"]), (&json!(0), &json!(0)), "{context}: {capture}");
    }
}

fn feed(mut command: Command, payload: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(payload);
    child.wait_with_output().unwrap()
}

fn lines(count: usize) -> Vec<u8> {
    (0..count)
        .map(|number| format!("{{\"type\":\"user\",\"uuid\":\"u{number}\"}}\n"))
        .collect::<String>()
        .into_bytes()
}

fn points(count: usize) -> Vec<usize> {
    let wanted = match std::env::var("AGENT_TRACE_KILL_POINTS") {
        Ok(points) if points == "all" => count,
        Ok(points) => points.parse().unwrap(),
        Err(_) => POINTS_PER_GROUP,
    };
    let mut points: Vec<usize> =
        (1..=wanted.min(count)).map(|point| point * count / wanted.min(count)).collect();
    points.dedup();
    points
}

fn put(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
}

#[test]
fn a_hook_can_be_killed_anywhere() {
    let world = World::new();
    put(&world.transcript(), &lines(10));
    put(&world.path("repo/a.py"), b"0\n");
    world.record("PostToolUse", 0);
    world.must(&["log"]);
    put(&world.transcript(), &lines(20));
    world.save();
    let payload = world.payload("PostToolUse", 1);
    for group in GROUPS {
        world.restore();
        for at in points(world.count(group, &["record"], &payload)) {
            let context = format!("record killed at {group}:{at}");
            world.restore();
            world.kill(group, at, &["record"], &payload);
            world.must(&["status"]);
            // The agent goes on; the transcript with it.
            put(&world.transcript(), &lines(30));
            world.record("PostToolUse", 1);
            put(&world.transcript(), &lines(31));
            fs::remove_file(world.transcript()).unwrap();
            world.check(&[0, 1], &lines(30), &context);
        }
    }
}

#[test]
fn absorbing_can_be_killed_anywhere_and_killed_again() {
    let world = World::new();
    put(&world.transcript(), &lines(10));
    put(&world.path("repo/a.py"), b"0\n");
    world.record("PostToolUse", 0);
    world.must(&["log"]);
    for number in 1..4 {
        world.record("PreToolUse", number);
        put(&world.path("repo/a.py"), format!("{number}\n").as_bytes());
        put(&world.transcript(), &lines(10 + number * 10));
        world.record("PostToolUse", number);
        world.record("PostToolUse", number);
    }
    // What entries took is all that is left of the transcript.
    fs::remove_file(world.transcript()).unwrap();
    world.save();
    for group in GROUPS {
        world.restore();
        for at in points(world.count(group, &["log"], b"")) {
            let context = format!("log killed at {group}:{at}");
            world.restore();
            world.kill(group, at, &["log"], b"");
            if at % 2 == 0 {
                world.kill(group, at / 2 + 1, &["log"], b"");
            }
            world.check(&[0, 1, 2, 3], &lines(40), &context);
        }
    }
}
