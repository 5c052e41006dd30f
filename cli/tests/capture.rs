//! Capture from outside: `record` and `hook` as agents and git call them, and what the store holds afterwards.
//!
//! Each test has its own home and repository. Unless it is about the flusher, that is off, and `log` absorbs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use support::PROGRAM;

mod support;

/// A repository with a store, a home, and a transcript of Claude Code.
struct World {
    root: TempDir,
}

impl World {
    fn new() -> World {
        let world = World { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(world.home()).unwrap();
        fs::create_dir_all(world.repository()).unwrap();
        world.git(&["init", "-q", "-b", "main", "--template="]);
        world.git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]);
        world.must(&["init"]);
        world.settings(json!({"capture": {"flush": "manual"}}));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn repository(&self) -> PathBuf {
        self.path("repo")
    }

    fn data(&self) -> PathBuf {
        let projects = self.home().join(".agent-trace/projects");
        let mut entries = fs::read_dir(projects).unwrap();
        entries.next().unwrap().unwrap().path()
    }

    fn spool(&self) -> PathBuf {
        self.data().join("spool")
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(self.spool()).map(|entries| entries.collect()).unwrap_or_else(|_| Vec::new());
        let paths = entries.into_iter().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "entry")).collect();
        paths.sort();
        paths
    }

    fn settings(&self, value: Value) {
        fs::write(self.data().join("project-config.json"), value.to_string()).unwrap();
    }

    fn transcript(&self) -> PathBuf {
        self.home().join(".claude/projects/-repo/s1.jsonl")
    }

    fn write_transcript(&self, content: &[u8]) {
        fs::create_dir_all(self.transcript().parent().unwrap()).unwrap();
        fs::write(self.transcript(), content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = support::command(PROGRAM, &self.repository(), &self.home());
        for name in ["CLAUDE_PROJECT_DIR", "CURSOR_PROJECT_DIR", "CURSOR_TRANSCRIPT_PATH", "CODEX_HOME"] {
            command.env_remove(name);
        }
        command.args(args);
        command
    }

    fn git(&self, args: &[&str]) -> Output {
        let output = support::command("git", &self.repository(), &self.home()).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {output:?}");
        output
    }

    fn must(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Records a payload, as an agent does, and checks what every hook promises.
    fn record(&self, payload: &[u8]) -> Output {
        self.hook(&["record"], payload)
    }

    fn hook(&self, args: &[&str], payload: &[u8]) -> Output {
        let output = feed(self.command(args), payload);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        output
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let text = self.must(&["log", "--json", "--kind", kind, "--limit", "100000"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The traces, oldest edit first.
    fn traces(&self) -> Vec<Value> {
        let keys = self.log("trace").into_iter().map(|head| head["key"].as_str().unwrap().to_owned());
        let mut traces: Vec<Value> =
            keys.map(|key| serde_json::from_str(&self.must(&["cat", &key])).unwrap()).collect();
        traces.sort_by_key(|trace| trace["metadata"]["edit_sequence"].as_u64());
        traces
    }

    /// What the store holds of the session's transcripts: the answer of each conversation.
    fn transcripts(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<String> =
            self.log("transcript").into_iter().map(|head| head["key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys.dedup();
        keys.iter().map(|key| self.command(&["cat", key]).output().unwrap().stdout).collect()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.must(&["status", "--json"])).unwrap()
    }

    fn payload(&self, event: &str, tool_use: &str, file: &str, content: &str) -> Value {
        json!({"session_id": "s1", "transcript_path": self.transcript(), "cwd": self.repository(),
            "hook_event_name": event, "tool_name": "Write", "tool_use_id": tool_use,
            "tool_input": {"file_path": self.repository().join(file), "content": content}})
    }

    /// Writes a file and records that the agent did.
    fn edit(&self, tool_use: &str, file: &str, content: &str) {
        let path = self.repository().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self.record(self.payload("PostToolUse", tool_use, file, content).to_string().as_bytes());
    }
}

fn feed(mut command: Command, payload: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read to the end closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(payload);
    child.wait_with_output().unwrap()
}

fn line(number: usize) -> String {
    format!(
        "{{\"type\":\"assistant\",\"sessionId\":\"s1\",\"uuid\":\"u{number}\",\"version\":\"2.0.1\",\"timestamp\":\"2026-11-20T10:00:00Z\",\"message\":{{\"model\":\"claude-opus-4-5\",\"content\":[{{\"type\":\"tool_use\",\"id\":\"toolu_{number}\"}}]}}}}\n"
    )
}

fn lines(count: usize) -> String {
    (0..count).map(line).collect()
}

#[test]
fn an_edit_becomes_a_trace_and_a_snapshot() {
    let world = World::new();
    world.write_transcript(lines(3).as_bytes());
    world.edit("toolu_1", "src/a.py", "a = 1\nb = 2\n");
    assert_eq!(world.entries().len(), 1);
    let status = world.status();
    assert_eq!(status["capture"]["waiting"], 1);
    assert_eq!(status["capture"]["last"]["claude-code"]["event"], "PostToolUse");
    let traces = world.traces();
    assert_eq!(traces.len(), 1);
    let trace = &traces[0];
    assert_eq!(trace["files"][0]["path"], "src/a.py");
    assert_eq!(trace["files"][0]["conversations"][0]["ranges"][0]["end_line"], 2);
    assert_eq!(trace["files"][0]["conversations"][0]["contributor"]["model_id"], "anthropic/claude-opus-4-5");
    assert_eq!(trace["tool"], json!({"name": "claude-code", "version": "2.0.1"}));
    assert_eq!(trace["metadata"]["branch"], "main");
    let head = String::from_utf8(world.git(&["rev-parse", "HEAD"]).stdout).unwrap();
    assert_eq!(trace["vcs"]["revision"], head.trim());
    assert_eq!(world.transcripts(), [lines(3).into_bytes()]);
    assert!(world.entries().is_empty());
    assert_eq!(world.status()["capture"]["last"]["claude-code"]["event"], "PostToolUse");
    // The key is that of an import, so that the same file brought in again is nothing new.
    world.must(&["import", world.transcript().to_str().unwrap()]);
    assert_eq!(world.log("transcript").len(), 1);
}

#[test]
fn one_event_told_three_times_late_or_in_parallel_is_one_trace() {
    let world = World::new();
    world.write_transcript(lines(2).as_bytes());
    for _ in 0..3 {
        world.edit("toolu_1", "a.py", "a\n");
    }
    assert_eq!(world.traces().len(), 1, "within one batch");
    world.edit("toolu_1", "a.py", "a\n");
    assert_eq!(world.traces().len(), 1, "after it is in the store");
    let payload = world.payload("PostToolUse", "toolu_2", "a.py", "b\n").to_string();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| world.record(payload.as_bytes()));
        }
    });
    assert_eq!(world.traces().len(), 2, "in parallel");
    fs::remove_dir_all(world.data().join("capture")).unwrap();
    world.edit("toolu_3", "a.py", "c\n");
    let sequences: Vec<Value> =
        world.traces().iter().map(|trace| trace["metadata"]["edit_sequence"].clone()).collect();
    assert_eq!(sequences, [json!(0), json!(1), json!(2)], "numbers go on, also where what was noted is lost");
}

#[test]
fn thirty_two_parallel_events_of_one_session_are_thirty_two_traces() {
    let world = World::new();
    world.write_transcript(lines(40).as_bytes());
    std::thread::scope(|scope| {
        for number in 0..32 {
            let world = &world;
            scope.spawn(move || world.edit(&format!("toolu_{number}"), &format!("f{number}.py"), "x\n"));
        }
    });
    let traces = world.traces();
    let sequences: Vec<u64> =
        traces.iter().map(|trace| trace["metadata"]["edit_sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (0..32).collect::<Vec<_>>());
    assert_eq!(world.transcripts(), [lines(40).into_bytes()]);
}

#[test]
fn what_a_file_held_before_is_seen_by_the_hook_before() {
    let world = World::new();
    world.write_transcript(lines(2).as_bytes());
    fs::write(world.repository().join("a.py"), "one\ntwo\nthree\n").unwrap();
    let before = world.payload("PreToolUse", "toolu_1", "a.py", "").to_string();
    world.record(before.as_bytes());
    // The call takes longer than the flush.
    assert!(world.traces().is_empty());
    assert_eq!(world.status()["capture"]["calls"], 1);
    world.edit("toolu_1", "a.py", "one\nTWO\nthree\n");
    // Or both come within one flush.
    world.record(world.payload("PreToolUse", "toolu_2", "a.py", "").to_string().as_bytes());
    world.edit("toolu_2", "a.py", "one\nTWO\nTHREE\n");
    for (trace, line) in world.traces().iter().zip([2, 3]) {
        let ranges = &trace["files"][0]["conversations"][0]["ranges"];
        let place = (&ranges[0]["start_line"], &ranges[0]["end_line"]);
        assert_eq!(place, (&json!(line), &json!(line)), "one line changed");
        assert_eq!(ranges.as_array().unwrap().len(), 1);
    }
    assert_eq!(world.traces().len(), 2);
    assert_eq!(world.status()["capture"]["calls"], 0);
}

#[test]
fn a_call_that_fails_leaves_nothing_behind() {
    let world = World::new();
    world.write_transcript(lines(2).as_bytes());
    fs::write(world.repository().join("a.py"), "x\n").unwrap();
    world.record(world.payload("PreToolUse", "toolu_1", "a.py", "").to_string().as_bytes());
    world.record(world.payload("PostToolUseFailure", "toolu_1", "a.py", "").to_string().as_bytes());
    assert!(world.traces().is_empty());
    assert_eq!(world.status()["capture"]["calls"], 0);
}

#[test]
fn a_sub_agent_s_transcript_is_a_conversation_of_its_own() {
    let world = World::new();
    world.write_transcript(lines(1).as_bytes());
    let sub = world.transcript().with_extension("").join("subagents/agent-a7.jsonl");
    fs::create_dir_all(sub.parent().unwrap()).unwrap();
    let own = line(5).replace("\"uuid\"", "\"isSidechain\":true,\"agentId\":\"a7\",\"uuid\"");
    fs::write(&sub, &own).unwrap();
    let mut payload = world.payload("PostToolUse", "toolu_5", "a.py", "a\n");
    payload["agent_id"] = json!("a7");
    world.record(payload.to_string().as_bytes());
    let conversation = world.traces()[0]["files"][0]["conversations"][0]["id"].clone();
    let mut transcripts = world.transcripts();
    transcripts.sort();
    let mut expected = vec![lines(1).into_bytes(), own.into_bytes()];
    expected.sort();
    assert_eq!(transcripts, expected);
    // The edit belongs to the sub-agent's conversation, under the key that an import gives it.
    let of_sub = world.log("transcript").into_iter().any(|head| head["key"] == conversation);
    assert!(of_sub, "{conversation}");
    world.must(&["import", sub.to_str().unwrap()]);
    assert_eq!(world.log("transcript").len(), 2);
}

#[test]
fn cursor_s_two_tellings_of_one_edit_are_one_trace_and_addresses_are_left_out() {
    let world = World::new();
    let cursor = json!({"conversation_id": "c1", "generation_id": "g1", "cursor_version": "2.1", "model": "gpt-5",
        "workspace_roots": [world.repository()], "user_email": "someone@example.com", "cwd": world.repository()});
    let event = |more: Value| {
        let mut event = cursor.clone();
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event.to_string()
    };
    let path = world.repository().join("a.py");
    fs::write(&path, "b\n").unwrap();
    let input = json!({"file_path": path, "content": "b\n"});
    let use_of = |name: &str| {
        event(
            json!({"hook_event_name": name, "tool_name": "Write", "tool_use_id": "t1", "tool_input": input}),
        )
    };
    world.record(
        event(json!({"hook_event_name": "afterFileEdit", "file_path": path,
        "edits": [{"old_string": "a", "new_string": "b"}]}))
        .as_bytes(),
    );
    world.record(use_of("postToolUse").as_bytes());
    world.hook(&["record", "--agent", "claude-code"], use_of("PostToolUse").as_bytes());
    for entry in world.entries() {
        let bytes = fs::read(entry).unwrap();
        assert!(!bytes.windows(11).any(|part| part == b"example.com"), "an address was written");
    }
    let traces = world.traces();
    assert_eq!(traces.len(), 1);
    assert_eq!(traces[0]["tool"]["name"], "cursor");
}

#[test]
fn a_repository_without_a_store_gets_nothing() {
    let world = World::new();
    let other = world.path("other");
    fs::create_dir_all(other.join("sub")).unwrap();
    let git =
        support::command("git", &other, &world.home()).args(["init", "-q", "--template="]).output().unwrap();
    assert!(git.status.success());
    let before = listing(world.root.path());
    world.write_transcript(lines(1).as_bytes());
    let after_transcript = listing(world.root.path());
    assert_ne!(before, after_transcript);
    let mut payload = world.payload("PostToolUse", "t", "x", "x\n");
    payload["cwd"] = json!(other);
    payload["tool_input"]["file_path"] = json!(other.join("sub/x.py"));
    world.record(payload.to_string().as_bytes());
    // Also where the session runs in a repository that has one: the file decides.
    payload["cwd"] = json!(world.repository());
    world.record(payload.to_string().as_bytes());
    let mut hook = world.command(&["hook", "post-commit"]);
    hook.current_dir(&other);
    assert!(feed(hook, b"").status.success());
    assert_eq!(listing(world.root.path()), after_transcript);
}

/// Every file and its length.
fn listing(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            found.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}

#[test]
fn work_trees_nested_repositories_and_exported_variables_are_told_apart() {
    let world = World::new();
    world.write_transcript(lines(1).as_bytes());
    let tree = world.path("tree");
    world.git(&["worktree", "add", "-q", "-b", "side", tree.to_str().unwrap()]);
    fs::write(tree.join("w.py"), "w\n").unwrap();
    let mut payload = world.payload("PostToolUse", "t1", "", "w\n");
    payload["tool_input"]["file_path"] = json!(tree.join("w.py"));
    world.record(payload.to_string().as_bytes());
    // What git exports to a hook is not about an agent's edit.
    payload["tool_use_id"] = json!("t2");
    let mut command = world.command(&["record"]);
    command.env("GIT_DIR", "/nonexistent").env("GIT_INDEX_FILE", "/nonexistent");
    assert!(feed(command, payload.to_string().as_bytes()).status.success());
    for trace in world.traces() {
        assert_eq!(
            (&trace["files"][0]["path"], &trace["metadata"]["branch"]),
            (&json!("w.py"), &json!("side"))
        );
    }
    assert_eq!(world.traces().len(), 2);
    // For a git hook it is.
    let mut hook = world.command(&["hook", "post-commit"]);
    hook.current_dir(world.root.path()).env("GIT_DIR", world.repository().join(".git/worktrees/tree"));
    assert!(feed(hook, b"").status.success());
    assert_eq!(world.status()["capture"]["waiting"], 1);
}

#[test]
fn edits_outside_the_repository_make_no_trace() {
    let world = World::new();
    world.write_transcript(lines(1).as_bytes());
    let mut payload = world.payload("PostToolUse", "t1", "", "x\n");
    payload["tool_input"]["file_path"] = json!(world.path("elsewhere.txt"));
    world.record(payload.to_string().as_bytes());
    assert!(world.traces().is_empty());
    assert_eq!(world.transcripts().len(), 1, "the conversation is the project's all the same");
}

#[test]
fn what_git_hooks_told_of_is_linked_by_the_next_question() {
    let world = World::new();
    world.hook(&["hook", "post-commit"], b"");
    world.hook(&["hook", "post-rewrite", "amend"], b"old new\n");
    world.hook(
        &["hook", "pre-push", "origin", "https://user:secret@host/x"],
        b"refs/heads/main 1 refs/heads/main 2\n",
    );
    for entry in world.entries() {
        let bytes = fs::read(entry).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"secret"), "a URL was written");
    }
    world.log("trace");
    let capture = world.status()["capture"].clone();
    assert_eq!((&capture["waiting"], &capture["commits"]), (&json!(0), &json!(0)));
    for hook in ["post-commit", "post-rewrite", "pre-push"] {
        assert_eq!(capture["last"][format!("git/{hook}")]["event"], *hook);
    }
}

#[test]
fn the_flusher_takes_in_what_hooks_bring_and_goes() {
    let world = World::new();
    world.write_transcript(lines(2).as_bytes());
    world.settings(json!({}));
    world.edit("toolu_0", "a.py", "a\n");
    world.edit("toolu_1", "b.py", "b\n");
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{what} takes a minute: {}", world.status());
    };
    wait("absorbing", &|| world.status()["capture"]["waiting"] == 0 && world.status()["kinds"]["trace"] == 2);
    // The agent writes the end of its transcript after the last event.
    fs::write(world.transcript(), lines(4)).unwrap();
    wait("going", &|| world.status()["capture"]["flusher"] == false);
    assert_eq!(world.transcripts(), [lines(4).into_bytes()]);
    assert_eq!(world.status()["capture"]["failures"], json!([]));
}

#[test]
fn status_and_doctor_tell_of_events_that_were_not_understood() {
    let world = World::new();
    world.record(b"no JSON at all");
    world.record(b"{\"hook_event_name\":\"PostToolUse\",\"session_id\":\"s1\",\"tool_name\":\"Wri");
    world.record(b"{\"unknown\": true}");
    world.log("trace");
    let capture = world.status()["capture"].clone();
    assert_eq!((&capture["waiting"], &capture["odd"]), (&json!(0), &json!(3)), "{capture}");
    assert_eq!(capture["failures"].as_array().unwrap().len(), 3);
    let doctor = world.must(&["doctor"]);
    assert!(doctor.contains("3 event(s) could not be understood"), "{doctor}");
    // A damaged entry is not lost silently either, and does not stop the others.
    world.edit("toolu_1", "a.py", "a\n");
    world.edit("toolu_2", "a.py", "b\n");
    let entry = &world.entries()[0];
    let bytes = fs::read(entry).unwrap();
    fs::write(entry, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(world.traces().len(), 1);
    assert_eq!(world.status()["capture"]["odd"], 4);
}

#[test]
fn an_entry_of_a_newer_version_stays() {
    let world = World::new();
    world.edit("toolu_1", "a.py", "a\n");
    world.edit("toolu_2", "a.py", "b\n");
    let entry = world.entries()[0].clone();
    let mut bytes = fs::read(&entry).unwrap();
    bytes[8] = 2;
    fs::write(&entry, &bytes).unwrap();
    assert_eq!(world.traces().len(), 1);
    assert_eq!(world.entries(), [entry]);
    assert_eq!(world.status()["capture"]["odd"], 0);
}

/// Codex names no transcript where it keeps none open for hooks; it is found by the name of the session.
#[test]
fn a_transcript_that_no_hook_names_is_found_by_its_session() {
    let world = World::new();
    let session = "0199a213-81c0-7800-8aa1-bbab2a035a53";
    let place = format!(".codex/sessions/2026/11/20/rollout-2026-11-20T10-00-00-{session}.jsonl");
    let place = world.home().join(place);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let meta = json!({"timestamp": "2026-11-20T10:00:00Z", "type": "session_meta",
        "payload": {"id": session, "cwd": world.repository()}});
    let mut text = format!("{meta}\n");
    fs::write(&place, &text).unwrap();
    let payload = |event: &str, call: &str| {
        json!({"session_id": session, "turn_id": call, "transcript_path": null, "cwd": world.repository(), "model": "m",
            "permission_mode": "default", "hook_event_name": event, "tool_name": "apply_patch", "tool_use_id": call,
            "tool_input": {"command": "*** Begin Patch\n*** Add File: a.py\n+x = 1\n*** End Patch"}, "tool_response": ""})
    };
    world.record(payload("PostToolUse", "c1").to_string().as_bytes());
    assert_eq!(world.transcripts(), [text.clone().into_bytes()]);
    assert_eq!(world.traces().len(), 1);
    text.push_str("{\"type\":\"event_msg\"}\n");
    fs::write(&place, &text).unwrap();
    world.record(payload("Stop", "c2").to_string().as_bytes());
    assert_eq!(world.transcripts(), [text.into_bytes()]);
    let conversation = world.traces()[0]["files"][0]["conversations"][0]["id"].clone();
    assert!(world.log("transcript").iter().all(|head| head["key"] == conversation));
    world.must(&["import", place.to_str().unwrap()]);
    assert_eq!(world.log("transcript").len(), 2, "an import adds nothing");
}

/// A file above the bound of an entry counts with its place in it, as long as it has not changed since.
#[test]
fn an_edit_of_a_large_file_has_its_place_if_the_file_is_still_so() {
    let world = World::new();
    world.write_transcript(lines(1).as_bytes());
    let path = world.repository().join("large.txt");
    let filler: String = (0..120_000).map(|number| format!("line {number:06}\n")).collect();
    let edit = |call: &str, new: &str| {
        json!({"session_id": "s1", "transcript_path": world.transcript(), "cwd": world.repository(),
            "hook_event_name": "PostToolUse", "tool_name": "Edit", "tool_use_id": call,
            "tool_input": {"file_path": path, "old_string": "line 060000", "new_string": new}})
    };
    let text = filler.replace("line 060000", "first of the agent");
    fs::write(&path, &text).unwrap();
    world.record(edit("c1", "first of the agent").to_string().as_bytes());
    assert_eq!(world.traces().len(), 1);
    let text = text.replace("first of the agent", "second of the agent");
    fs::write(&path, &text).unwrap();
    world.record(edit("c2", "second of the agent").to_string().as_bytes());
    fs::write(&path, text.replace("line 000001", "a human's")).unwrap();
    let traces = world.traces();
    let start = |trace: &Value| trace["files"][0]["conversations"][0]["ranges"][0]["start_line"].clone();
    let place = |trace: &Value| trace["metadata"]["agent_trace"]["files"][0]["hunks"][0]["old_start"].clone();
    assert_eq!((start(&traces[0]), place(&traces[0])), (json!(60_001), json!(60_001)));
    assert_eq!(place(&traces[1]), Value::Null, "{}", traces[1]);
}

/// Windsurf says neither where it works nor, of a new file, what was there.
#[test]
fn an_edit_that_names_only_its_file_is_found_in_its_repository() {
    let world = World::new();
    let path = world.repository().join("new.py");
    fs::write(&path, "def first():\n    return compute(1)\n").unwrap();
    let payload = json!({"agent_action_name": "post_write_code", "trajectory_id": "t", "execution_id": "x",
        "timestamp": "2026-11-20T20:00:00Z", "model_name": "GPT 4.1", "tool_info": {"file_path": path,
        "edits": [{"old_string": "", "new_string": "def first():\n    return compute(1)\n"}]}});
    let mut command = world.command(&["record", "--agent", "windsurf"]);
    command.current_dir(world.home());
    assert!(feed(command, payload.to_string().as_bytes()).status.success());
    let ranges = world.traces()[0]["files"][0]["conversations"][0]["ranges"].clone();
    assert_eq!((&ranges[0]["start_line"], &ranges[0]["end_line"]), (&json!(1), &json!(2)));
}
