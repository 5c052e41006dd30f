//! What hooks and transcripts may meet: nonsense, full disks, closed pipes, huge payloads, files that shrink, go and change.
//!
//! Costs are measured as system calls and bytes by strace, never as time.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use support::PROGRAM;

mod support;

struct World {
    root: TempDir,
}

impl World {
    fn new() -> World {
        let world = World { root: tempfile::tempdir().unwrap() };
        for name in ["home", "repo", "agent"] {
            fs::create_dir(world.path(name)).unwrap();
        }
        let git = support::command("git", &world.path("repo"), &world.path("home"))
            .args(["init", "-q", "--template="])
            .status();
        assert!(git.unwrap().success());
        world.must(&["init"]);
        fs::write(world.data().join("project-config.json"), r#"{"capture":{"flush":"manual"}}"#).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn data(&self) -> PathBuf {
        let projects = self.path("home/.agent-trace/projects");
        fs::read_dir(projects).unwrap().next().unwrap().unwrap().path()
    }

    fn transcript(&self) -> PathBuf {
        self.path("agent/.claude/projects/p/s1.jsonl")
    }

    fn write_transcript(&self, content: &[u8]) {
        fs::create_dir_all(self.transcript().parent().unwrap()).unwrap();
        fs::write(self.transcript(), content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = support::command(PROGRAM, &self.path("repo"), &self.path("home"));
        command.args(args);
        command
    }

    fn must(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str::<Value>(&self.must(&["status", "--json"])).unwrap()["capture"].clone()
    }

    fn payload(&self, tool_use: &str, content: &str) -> Value {
        json!({"session_id": "s1", "transcript_path": self.transcript(), "cwd": self.path("repo"),
            "hook_event_name": "PostToolUse", "tool_name": "Write", "tool_use_id": tool_use,
            "tool_input": {"file_path": self.path("repo/a.py"), "content": content}})
    }

    fn record(&self, tool_use: &str) {
        fs::write(self.path("repo/a.py"), "a\n").unwrap();
        let output = feed(self.command(&["record"]), self.payload(tool_use, "a\n").to_string().as_bytes());
        assert!(is_silent(&output), "{output:?}");
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let text = self.must(&["log", "--json", "--kind", kind, "--limit", "100000"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What answers for each conversation, longest first.
    fn transcripts(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<String> =
            self.log("transcript").iter().map(|head| head["key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys.dedup();
        let mut all: Vec<Vec<u8>> =
            keys.iter().map(|key| self.command(&["cat", key]).output().unwrap().stdout).collect();
        all.sort_by_key(|content| std::cmp::Reverse(content.len()));
        all
    }

    fn said(&self, word: &str) -> bool {
        self.status()["failures"].to_string().contains(word)
    }
}

fn feed(mut command: Command, payload: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(payload);
    child.wait_with_output().unwrap()
}

fn is_silent(output: &Output) -> bool {
    output.status.code() == Some(0) && output.stdout.is_empty()
}

fn lines(from: usize, to: usize) -> Vec<u8> {
    let line = |number| {
        format!(
            "{{\"type\":\"user\",\"sessionId\":\"s1\",\"uuid\":\"u{number}\",\"text\":\"{}\"}}\n",
            "x".repeat(400)
        )
    };
    (from..to).map(line).collect::<String>().into_bytes()
}

#[test]
fn hooks_end_well_and_silently_whatever_they_are_given() {
    let world = World::new();
    let payload = world.payload("t", "x").to_string();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_member = format!("{{\"session_id\":\"s\",\"tool_input\":{deep}}}");
    let payloads: [&[u8]; 12] = [
        b"",
        b"\0",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{",
        b"{\"session_id\":7,\"cwd\":[],\"tool_input\":\"x\"}",
        b"{\"cwd\":\"\\u0000/x\",\"hook_event_name\":\"PostToolUse\"}",
        b"{\"transcript_path\":\"/dev/zero\",\"session_id\":\"s\",\"hook_event_name\":\"Stop\"}",
        deep.as_bytes(),
        deep_member.as_bytes(),
        payload.as_bytes(),
    ];
    let commands: [&[&str]; 12] = [
        &["record"],
        &["record", "--agent"],
        &["record", "--agent", "nobody"],
        &["record", "--no-such", "x", "-z"],
        &["record", "--agent=codex", "{\"type\":"],
        &["hook"],
        &["hook", "no-such"],
        &["hook", "post-rewrite"],
        &["hook", "pre-push", "x", "y", "--z"],
        &["hook", "post-commit", "--unknown"],
        &["-q", "record"],
        &["--json", "hook", "post-commit"],
    ];
    for args in commands {
        for payload in payloads {
            let output = feed(world.command(args), payload);
            assert!(is_silent(&output), "{args:?}: {output:?}");
        }
    }
    world.must(&["log"]);
    world.must(&["verify"]);
}

#[test]
fn hooks_end_well_without_home_directory_or_stdin() {
    let world = World::new();
    let payload = world.payload("t", "x").to_string();
    let mut homeless = world.command(&["record"]);
    homeless.env_remove("HOME").env_remove("AGENT_TRACE_HOME");
    assert!(is_silent(&feed(homeless, payload.as_bytes())));
    let mut elsewhere = world.command(&["record"]);
    elsewhere.env("AGENT_TRACE_HOME", "/dev/null/x");
    assert!(is_silent(&feed(elsewhere, payload.as_bytes())));
    let gone = world.path("gone");
    fs::create_dir(&gone).unwrap();
    let script = format!("cd '{0}' && rmdir '{0}' && exec '{PROGRAM}' \"$@\"", gone.display());
    for redirect in ["", " <&-", " >&-", " <&- >&- 2>&-"] {
        fs::create_dir_all(&gone).unwrap();
        for hook in ["record", "hook post-commit"] {
            let script = script.replace("\"$@\"", hook);
            let mut shell = support::command("sh", world.root.path(), &world.path("home"));
            shell.arg("-c").arg(format!("{script}{redirect}"));
            assert!(is_silent(&feed(shell, payload.as_bytes())), "{hook}{redirect}");
            fs::create_dir_all(&gone).unwrap();
        }
    }
}

#[test]
fn a_pipe_on_which_nobody_writes_does_not_hold_a_hook() {
    let world = World::new();
    let mut child = world.command(&["record"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(world.payload("t1", "a\n").to_string().as_bytes()).unwrap();
    // The pipe stays open; the payload is whole all the same.
    assert!(child.wait().unwrap().success());
    drop(stdin);
    assert_eq!(world.log("trace").len(), 1);
}

#[test]
fn files_that_would_make_a_reader_wait_are_not_opened() {
    let world = World::new();
    let fifo = world.path("agent/fifo");
    assert!(Command::new("mkfifo").arg(&fifo).arg(world.path("repo/pipe")).status().unwrap().success());
    let mut payload = world.payload("t1", "a\n");
    payload["transcript_path"] = json!(fifo);
    payload["tool_input"]["file_path"] = json!(world.path("repo/pipe"));
    assert!(is_silent(&feed(world.command(&["record"]), payload.to_string().as_bytes())));
    world.must(&["log"]);
}

#[test]
fn a_payload_over_the_limit_is_cut_off_and_its_transcript_is_taken() {
    let world = World::new();
    world.write_transcript(&lines(0, 3));
    let payload = world.payload("t1", &"y".repeat(17 << 20)).to_string();
    let output = feed(world.command(&["record"]), payload.as_bytes());
    assert!(is_silent(&output), "{output:?}");
    assert!(world.log("trace").is_empty());
    assert_eq!(world.transcripts(), [lines(0, 3)]);
    assert_eq!(world.status()["odd"], 1);
}

#[test]
fn a_hook_takes_at_most_64_mb_of_memory() {
    let world = World::new();
    fs::create_dir_all(world.transcript().parent().unwrap()).unwrap();
    // 500 MB, of which 100 MB are one line; nothing of it is on the disk.
    let sparse = fs::File::create(world.transcript()).unwrap();
    sparse.set_len(500 << 20).unwrap();
    fs::write(world.path("repo/a.py"), vec![b'z'; 4 << 20]).unwrap();
    let patch =
        format!("*** Begin Patch\n*** Add File: a.py\n{}*** End Patch\n", "+word\n".repeat(2_500_000));
    let payloads = [
        world.payload("t1", &"y".repeat(15 << 20)),
        world.payload("t2", &"\u{e9}\n".repeat(3 << 20)),
        json!({"session_id": "s1", "turn_id": "t", "transcript_path": world.transcript(), "cwd": world.path("repo"),
            "hook_event_name": "PostToolUse", "tool_name": "apply_patch", "tool_use_id": "t3",
            "tool_input": {"command": patch}}),
    ];
    for payload in payloads {
        let file = world.path("payload");
        fs::write(&file, payload.to_string()).unwrap();
        // The peak is that of the process itself, as the system counts it.
        let script = "import resource,subprocess,sys\n\
            subprocess.run(sys.argv[2:], stdin=open(sys.argv[1]), check=True)\n\
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
        let mut python = support::command("python3", &world.path("repo"), &world.path("home"));
        let output = python.args(["-c", script]).arg(&file).arg(PROGRAM).arg("record").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let kib: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert!(kib < 64_000, "{kib} KiB");
    }
    assert_eq!(world.status()["waiting"], 3);
}

/// The system calls of a hook by name, and the bytes it reads and writes.
fn cost(world: &World, tool_use: &str) -> (usize, u64) {
    let trace = world.path("strace");
    let mut command = support::command("strace", &world.path("repo"), &world.path("home"));
    command.args(["-f", "-qq", "-o"]).arg(&trace).arg(PROGRAM).arg("record");
    let output = feed(command, world.payload(tool_use, "a\n").to_string().as_bytes());
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(trace).unwrap();
    let moved = |line: &str| {
        let is_io = ["read(", "pread64(", "write(", "pwrite64("].iter().any(|name| line.contains(name));
        let result = line.rsplit_once("= ").and_then(|(_, result)| result.trim().parse::<u64>().ok());
        if is_io { result.unwrap_or(0) } else { 0 }
    };
    (text.lines().count(), text.lines().map(moved).sum())
}

#[test]
fn a_hook_costs_the_same_with_one_session_and_a_thousand_a_short_transcript_and_a_long_one() {
    let world = World::new();
    world.write_transcript(&lines(0, 2));
    world.record("t0");
    world.log("trace");
    let (calls, bytes) = cost(&world, "t1");
    // A thousand sessions, as their marks, their traces' numbers and their entries tell.
    let spool = world.data().join("spool");
    let entry = fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let entry = entry.into_iter().find(|path| path.extension().is_some_and(|name| name == "entry")).unwrap();
    for number in 0..1000 {
        fs::write(spool.join("tails").join(format!("{number:032x}")), b"x").unwrap();
        fs::copy(&entry, spool.join(format!("{number:016x}-{number:016x}.entry"))).unwrap();
    }
    let (many_calls, many_bytes) = cost(&world, "t2");
    assert!(
        many_calls <= calls + 8 && many_bytes <= bytes + 4096,
        "{calls} {bytes}: {many_calls} {many_bytes}"
    );
    // 500 MB, of which none was taken before.
    fs::File::options().write(true).open(world.transcript()).unwrap().set_len(500 << 20).unwrap();
    let (long_calls, long_bytes) = cost(&world, "t3");
    assert!(long_calls <= calls + 16 && long_bytes <= bytes + (3 << 20), "{long_calls} {long_bytes}");
}

#[test]
fn an_event_is_synced_before_the_hook_ends_where_that_is_wanted() {
    let world = World::new();
    let syncs = |tool_use: &str| {
        let trace = world.path("strace");
        let mut command = support::command("strace", &world.path("repo"), &world.path("home"));
        command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,rename", "-o"]).arg(&trace);
        command.arg(PROGRAM).arg("record");
        assert!(is_silent(&feed(command, world.payload(tool_use, "a\n").to_string().as_bytes())));
        let text = fs::read_to_string(trace).unwrap();
        let names = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.split('(').next());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(syncs("t1"), ["rename"]);
    let settings = r#"{"capture":{"flush":"manual"},"hooks":{"fsync":true}}"#;
    fs::write(world.data().join("project-config.json"), settings).unwrap();
    // The bytes, then the name, then the directory.
    assert_eq!(syncs("t2"), ["fdatasync", "rename", "fsync"]);
}

#[test]
fn a_full_disk_is_told_of_and_the_next_event_is_taken() {
    let world = World::new();
    world.write_transcript(&lines(0, 3));
    world.record("t0");
    for call in ["pwrite64", "rename", "openat"] {
        for when in 1..60 {
            let mut command = support::command("strace", &world.path("repo"), &world.path("home"));
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:error=ENOSPC:when={when}+")]);
            command.arg(PROGRAM).arg("record");
            let output = feed(command, world.payload("t1", "a\n").to_string().as_bytes());
            // Before it begins, a program that cannot open its libraries does not run.
            let has_run = output.status.code() != Some(127);
            assert!(!has_run || is_silent(&output), "{call} {when}: {output:?}");
            if call != "openat" && when > 4 {
                break;
            }
        }
    }
    assert!(!listing(&world.data().join("spool")).iter().any(|name| name.ends_with(".new")), "left-overs");
    world.record("t2");
    let keys = world.log("trace").len();
    assert!((2..=3).contains(&keys), "{keys} traces");
    assert!(world.said("No space left"), "{}", world.status());
    assert!(world.must(&["doctor"]).contains("No space left"));
}

fn listing(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_transcript_that_grows_is_one_conversation() {
    let world = World::new();
    for count in [1, 4, 9, 200] {
        world.write_transcript(&lines(0, count));
        world.record(&format!("t{count}"));
        assert_eq!(world.transcripts(), [lines(0, count)]);
    }
    // Half a line is taken as it is, and completed later.
    let whole = lines(0, 201);
    world.write_transcript(&whole[..whole.len() - 100]);
    world.record("half");
    world.write_transcript(&whole);
    world.record("whole");
    assert_eq!(world.transcripts(), [whole]);
}

#[test]
fn a_transcript_that_is_cut_short_costs_nothing_that_was_held() {
    let world = World::new();
    world.write_transcript(&lines(0, 50));
    world.record("t1");
    assert_eq!(world.transcripts(), [lines(0, 50)]);
    world.write_transcript(&lines(0, 20));
    world.record("t2");
    assert_eq!(world.transcripts(), [lines(0, 50)]);
    assert!(world.said("was cut short"), "{}", world.status());
    // It goes on where it was, as some agents do after a crash.
    world.write_transcript(&lines(0, 60));
    world.record("t3");
    assert_eq!(world.transcripts(), [lines(0, 60)]);
}

#[test]
fn a_transcript_that_is_deleted_is_held_up_to_the_last_event() {
    let world = World::new();
    world.write_transcript(&lines(0, 50));
    world.record("t1");
    world.log("trace");
    for count in [60, 70] {
        world.write_transcript(&lines(0, count));
        world.record(&format!("t{count}"));
    }
    fs::remove_file(world.transcript()).unwrap();
    world.record("gone");
    assert_eq!(world.transcripts(), [lines(0, 70)]);
    assert!(world.said("is gone"), "{}", world.status());
    assert_eq!(world.log("trace").len(), 4);
}

#[test]
fn a_transcript_that_was_never_seen_by_the_flusher_is_put_together_from_events() {
    let world = World::new();
    for count in [10, 20, 2_000, 6_000] {
        world.write_transcript(&lines(0, count));
        world.record(&format!("t{count}"));
        world.record(&format!("u{count}"));
    }
    world.write_transcript(b"");
    let held = world.transcripts();
    assert_eq!(held.len(), 1);
    assert!(
        lines(0, 6_000).starts_with(&held[0]) && held[0].len() > lines(0, 2_000).len(),
        "{}",
        held[0].len()
    );
}

#[test]
fn a_transcript_that_is_replaced_by_a_shorter_one_does_not_take_its_place() {
    let world = World::new();
    world.write_transcript(&lines(0, 50));
    world.record("t1");
    world.log("trace");
    // What came in between exists in an entry only.
    world.write_transcript(&lines(0, 55));
    world.record("t2");
    fs::remove_file(world.transcript()).unwrap();
    world.write_transcript(&lines(100, 110));
    world.record("t3");
    assert_eq!(world.transcripts(), [lines(0, 55), lines(100, 110)]);
    // It grows past the first one, and stays the second one.
    world.write_transcript(&lines(100, 200));
    world.record("t4");
    assert_eq!(world.transcripts(), [lines(100, 200), lines(0, 55)]);
    assert_eq!(world.log("transcript").len(), 4);
}

#[test]
fn a_transcript_that_is_rewritten_keeps_both_versions() {
    let world = World::new();
    world.write_transcript(b"{\"sessionId\":\"s1\",\"messages\":[1]}");
    world.record("t1");
    world.log("trace");
    let longer = b"{\"sessionId\":\"s1\",\"messages\":[1,2,3]}";
    world.write_transcript(longer);
    world.record("t2");
    assert_eq!(world.transcripts(), [longer.to_vec()]);
    assert_eq!(world.log("transcript").len(), 2);
    // The same bytes again are nothing new.
    world.record("t3");
    world.log("trace");
    assert_eq!(world.log("transcript").len(), 2);
}
