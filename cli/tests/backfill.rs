//! `backfill` from outside: what each agent leaves on disk, which of it is taken, and that nothing is taken twice.
//!
//! The session of Claude Code is cut from a real one, with the names of people taken out; the others are written after
//! the formats of their agents.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use support::PROGRAM;

mod support;

const CLAUDE: &str = include_str!("sessions/claude.jsonl");
/// Where the session was.
const CLAUDE_ROOT: &str = "/home/dev/work/cli";
const MAIN: &str = "cmd/entire/main.go";

/// A home, and a repository with a store.
struct World {
    root: TempDir,
    repository: PathBuf,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("home")).unwrap();
        let repository = root.path().join("work/cli");
        fs::create_dir_all(&repository).unwrap();
        let repository = repository.canonicalize().unwrap();
        let world = World { root, repository };
        world.git(&["init", "-q", "-b", "main", "."]);
        assert_eq!(world.run(&["init"]).0, 0);
        world
    }

    fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = support::command(program, &self.repository, &self.home());
        command.env_remove("CLAUDE_CONFIG_DIR").env_remove("CODEX_HOME");
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(PROGRAM).args(args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        let (_, out) = self.run(&all);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    fn git(&self, args: &[&str]) -> String {
        let config = ["-c", "user.name=t", "-c", "user.email=t@t"];
        let output = self.command("git").args(config).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn write(&self, path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit(&self, file: &str, content: &str) {
        self.write(&self.repository.join(file), content);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "step"]);
    }

    /// What the traces of the store say, oldest first.
    fn traces(&self) -> Vec<Value> {
        let (_, out) = self.run(&["--json", "log", "--kind", "trace", "-n", "1000"]);
        let mut traces: Vec<Value> = out
            .lines()
            .map(|line| {
                let head: Value = serde_json::from_str(line).unwrap();
                let (_, record) = self.run(&["cat", head["id"].as_str().unwrap()]);
                serde_json::from_str(&record).unwrap()
            })
            .collect();
        traces.sort_by_key(|trace| {
            (trace["timestamp"].as_str().unwrap().to_owned(), trace["metadata"]["edit_sequence"].as_u64())
        });
        traces
    }

    /// The session of Claude Code as if it had been in this repository.
    fn claude(&self) -> String {
        CLAUDE.replace(CLAUDE_ROOT, self.repository.to_str().unwrap())
    }
}

/// The file as it was before the first edit of the session, and after the last.
fn before_and_after() -> (String, String) {
    let results: Vec<Value> = CLAUDE
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["toolUseResult"].clone())
        .filter(|result| result["originalFile"].is_string())
        .collect();
    let text = |result: &Value, name: &str| result[name].as_str().unwrap().to_owned();
    let (first, last) = (results.first().unwrap(), results.last().unwrap());
    let after = text(last, "originalFile").replacen(&text(last, "oldString"), &text(last, "newString"), 1);
    (text(first, "originalFile"), after)
}

/// Makes a file look as if it had not changed for a while.
fn age(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_787_200)).unwrap();
}

fn ranges(trace: &Value) -> Vec<(u64, u64)> {
    let conversations = trace["files"][0]["conversations"].as_array().unwrap();
    let ranges = conversations.iter().flat_map(|one| one["ranges"].as_array().unwrap());
    ranges.map(|range| (range["start_line"].as_u64().unwrap(), range["end_line"].as_u64().unwrap())).collect()
}

#[test]
fn a_session_of_claude_code_becomes_traces_and_is_linked() {
    let world = World::new();
    let (before, after) = before_and_after();
    world.commit(MAIN, &before);
    world.commit(MAIN, &after);
    let place = world.home().join(".claude/projects/x/s.jsonl");
    world.write(&place, &world.claude());
    // Commits of now are younger than edits of then.
    let answer = world.json(&["backfill"]);
    assert_eq!(answer["schema"], "agent-trace/backfill/1");
    assert_eq!(
        (answer["sessions"].as_u64(), answer["transcripts_added"].as_u64()),
        (Some(1), Some(1)),
        "{answer}"
    );
    let edits = json!({"found": 4, "added": 4, "known": 0, "failed": 1, "outside": 0, "skipped_since": 0, "without_lines": 0});
    assert_eq!(answer["edits"], edits);
    assert_eq!(answer["commits"]["with_lines"], 1, "{answer}");
    assert_eq!(answer["skipped"], json!([]));
    let traces = world.traces();
    assert_eq!(traces.len(), 4);
    for trace in &traces {
        assert_eq!(trace["files"][0]["path"], MAIN);
        assert_eq!(trace["tool"]["name"], "claude-code");
        assert_eq!(
            trace["files"][0]["conversations"][0]["contributor"]["model_id"],
            "anthropic/claude-opus-4-5-20251101"
        );
        let hunks = trace["metadata"]["agent_trace"]["files"][0]["hunks"].as_array().unwrap();
        assert!(hunks.iter().all(|hunk| hunk["old_start"].is_u64()), "{trace}");
        assert!(!trace.to_string().contains(world.repository.to_str().unwrap()), "no absolute path");
    }
    let ledger: Value = serde_json::from_str(&{
        let (_, out) = world.run(&["--json", "log", "--kind", "ledger"]);
        let head: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
        world.run(&["cat", head["id"].as_str().unwrap()]).1
    })
    .unwrap();
    let runs = ledger["files"][MAIN]["line_attributions"].as_array().unwrap();
    let lines: u64 = runs
        .iter()
        .map(|run| run["end_line"].as_u64().unwrap() + 1 - run["start_line"].as_u64().unwrap())
        .sum();
    let changed = after.lines().filter(|line| !before.lines().any(|old| old == *line)).count() as u64;
    assert!(lines >= changed, "{lines} of {changed}: {ledger}");
}

#[test]
fn a_second_run_adds_nothing_and_reads_nothing() {
    let world = World::new();
    world.commit(MAIN, &before_and_after().0);
    let place = world.home().join(".claude/projects/x/s.jsonl");
    world.write(&place, &world.claude());
    age(&place);
    assert_eq!(world.json(&["backfill"])["edits"]["added"], 4);
    let again = world.json(&["backfill"]);
    assert_eq!(
        (again["unchanged"].as_u64(), again["edits"]["found"].as_u64()),
        (Some(1), Some(0)),
        "{again}"
    );
    // A longer state of the session is read, and what is known is known.
    let mut longer = world.claude();
    longer.push_str("{\"type\":\"summary\",\"summary\":\"x\",\"leafUuid\":\"1\"}\n");
    world.write(&place, &longer);
    let answer = world.json(&["backfill"]);
    assert_eq!(
        (answer["edits"]["known"].as_u64(), answer["edits"]["added"].as_u64()),
        (Some(4), Some(0)),
        "{answer}"
    );
    assert_eq!(world.traces().len(), 4);
}

#[test]
fn states_that_extend_each_other_are_read_once() {
    let world = World::new();
    world.commit(MAIN, &before_and_after().0);
    let text = world.claude();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let folder = world.root.path().join("states");
    for count in [lines.len(), lines.len() - 2, lines.len() - 4] {
        world.write(&folder.join(format!("{count}.jsonl")), &lines[..count].concat());
    }
    let answer = world.json(&["backfill", folder.to_str().unwrap()]);
    assert_eq!((answer["files"].as_u64(), answer["sessions"].as_u64()), (Some(3), Some(1)), "{answer}");
    assert_eq!((answer["edits"]["found"].as_u64(), answer["edits"]["added"].as_u64()), (Some(4), Some(4)));
    assert_eq!(answer["transcripts_added"], 3);
}

#[test]
fn sessions_elsewhere_are_left_alone_unless_they_are_named() {
    let world = World::new();
    world.commit(MAIN, &before_and_after().0);
    let place = world.home().join(".claude/projects/x/s.jsonl");
    world.write(&place, &CLAUDE.replace(CLAUDE_ROOT, "/nowhere/at/all"));
    let answer = world.json(&["backfill"]);
    assert_eq!(
        (answer["elsewhere"].as_u64(), answer["edits"]["added"].as_u64()),
        (Some(1), Some(0)),
        "{answer}"
    );
    age(&place);
    assert_eq!(world.json(&["backfill"])["elsewhere"], 1);
    assert_eq!(world.json(&["backfill"])["unchanged"], 1, "it is not looked at again");
    let named = world.json(&["backfill", "--project", place.to_str().unwrap()]);
    assert_eq!(named["edits"]["added"], 4, "{named}");
    assert_eq!(world.traces()[0]["files"][0]["path"], MAIN);
}

#[test]
fn a_removed_work_tree_within_the_repository_is_recognised() {
    let world = World::new();
    world.commit(MAIN, &before_and_after().0);
    let tree = world.repository.join(".worktrees/one");
    world.write(
        &world.home().join(".claude/projects/x/s.jsonl"),
        &CLAUDE.replace(CLAUDE_ROOT, tree.to_str().unwrap()),
    );
    assert_eq!(world.json(&["backfill"])["edits"]["added"], 4);
    assert_eq!(world.traces()[0]["files"][0]["path"], MAIN);
}

#[test]
fn a_dry_run_writes_nothing_and_since_leaves_out_what_is_old() {
    let world = World::new();
    world.commit(MAIN, &before_and_after().0);
    world.write(&world.home().join(".claude/projects/x/s.jsonl"), &world.claude());
    let dry = world.json(&["backfill", "--dry-run"]);
    assert_eq!(
        (dry["edits"]["added"].as_u64(), dry["transcripts_added"].as_u64()),
        (Some(4), Some(1)),
        "{dry}"
    );
    assert!(world.traces().is_empty());
    let some = world.json(&["backfill", "--since", "2026-01-07T12:53:00Z"]);
    assert_eq!(
        (some["edits"]["added"].as_u64(), some["edits"]["skipped_since"].as_u64()),
        (Some(2), Some(2)),
        "{some}"
    );
    let none = world.json(&[
        "backfill",
        "--since",
        "2026-02-01T00:00:00Z",
        world.home().join(".claude").to_str().unwrap(),
    ]);
    assert_eq!(none["edits"]["added"], 0, "{none}");
    let all = world.json(&["backfill"]);
    assert_eq!((all["edits"]["added"].as_u64(), all["edits"]["known"].as_u64()), (Some(2), Some(2)), "{all}");
}

#[test]
fn bad_input_is_listed_and_the_rest_is_taken() {
    let world = World::new();
    world.commit(MAIN, &before_and_after().0);
    let folder = world.root.path().join("states");
    let text = world.claude();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    // A call that was carried out.
    let is_call = |line: &&str| line.contains("\"name\":\"Edit\"") && line.contains("main.go");
    let call = lines.iter().position(is_call).unwrap();
    let end = lines[call].find("\"input\"").unwrap() + 20;
    let broken = format!("{}\n", &lines[call][..end]);
    lines[call] = &broken;
    world.write(&folder.join("broken.jsonl"), &lines.concat());
    world.write(&folder.join("other.json"), "{\"not\": \"a session\"}");
    let (status, out) = world.run(&["--json", "backfill", folder.to_str().unwrap(), "/nowhere.jsonl"]);
    assert_eq!(status, 3, "{out}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let reasons: Vec<&str> =
        answer["skipped"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("no JSON")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("cannot look at it")), "{reasons:?}");
    assert_eq!(answer["edits"]["added"], 3);
    assert_eq!(world.run(&["backfill", "--agent", "nobody"]).0, 2);
}

const NOTE: &str = "one\ntwo\nthree\nfour\n";

/// Runs `backfill` where an agent has left a session that changes `two` to `TWO` in `note.txt`, and looks at the trace.
fn check_agent(world: &World, agent: &str, id: Option<&str>) {
    let answer = world.json(&["backfill", "--agent", agent]);
    assert_eq!(
        (answer["edits"]["added"].as_u64(), answer["edits"]["failed"].as_u64()),
        (Some(1), Some(1)),
        "{answer}"
    );
    let traces = world.traces();
    assert_eq!(traces.len(), 1);
    assert_eq!(
        (traces[0]["files"][0]["path"].as_str(), traces[0]["tool"]["name"].as_str()),
        (Some("note.txt"), Some(agent))
    );
    assert_eq!(ranges(&traces[0]), [(2, 2)], "{}", traces[0]);
    assert_eq!(traces[0]["metadata"]["tool_use_id"].as_str(), id);
}

#[test]
fn a_session_of_codex_is_read_with_the_file_as_it_was() {
    let world = World::new();
    world.commit("note.txt", NOTE);
    let patch = "*** Begin Patch\n*** Update File: note.txt\n@@\n one\n-two\n+TWO\n three\n*** End Patch\n";
    let now = world.git(&["log", "-1", "--format=%cI"]);
    let line = |kind: &str, payload: Value| {
        format!("{}\n", json!({"timestamp": now, "type": kind, "payload": payload}))
    };
    let call = |id: &str| {
        line(
            "response_item",
            json!({"type": "custom_tool_call", "name": "apply_patch", "call_id": id, "input": patch}),
        )
    };
    let end = |id: &str, code: u64| {
        let output = json!({"output": "x", "metadata": {"exit_code": code}}).to_string();
        line("response_item", json!({"type": "custom_tool_call_output", "call_id": id, "output": output}))
    };
    let text = line(
        "session_meta",
        json!({"id": "c1", "cwd": world.repository, "cli_version": "0.50.0", "git": {"branch": "main"}}),
    ) + &line("turn_context", json!({"cwd": world.repository, "model": "gpt-5-codex"}))
        + &call("a")
        + &end("a", 1)
        + &call("b")
        + &end("b", 0);
    world.write(&world.home().join(".codex/sessions/2026/01/07/rollout-x.jsonl"), &text);
    check_agent(&world, "codex", Some("b"));
    let trace = &world.traces()[0];
    assert_eq!(trace["files"][0]["conversations"][0]["contributor"]["model_id"], "openai/gpt-5-codex");
}

#[test]
fn a_session_of_gemini_is_found_by_the_hash_of_its_folder() {
    let world = World::new();
    world.commit("note.txt", NOTE);
    let path = world.repository.join("note.txt");
    let call = |id: &str, status: &str| {
        json!({"id": id, "name": "replace", "status": status, "timestamp": "2026-01-07T12:00:00Z",
            "args": {"file_path": path, "old_string": "two", "new_string": "TWO"}, "resultDisplay": "x"})
    };
    let hash: String =
        Sha256::digest(world.repository.to_str().unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let session = json!({"sessionId": "g1", "projectHash": hash, "startTime": "2026-01-07T11:00:00Z", "messages": [
        {"id": "1", "type": "gemini", "model": "gemini-2.5-pro", "timestamp": "2026-01-07T12:00:00Z",
         "toolCalls": [call("a", "error"), call("b", "success")]}]});
    let place = world.home().join(format!(".gemini/tmp/{hash}/chats/session-1.json"));
    world.write(&place, &serde_json::to_string_pretty(&session).unwrap());
    // The edit is older than the commit, so only the text of the edit is known; it is a whole line.
    check_agent_lines(&world, "gemini-cli", Some("b"));
}

/// The same where the place in the file cannot be known.
fn check_agent_lines(world: &World, agent: &str, id: Option<&str>) {
    let answer = world.json(&["backfill", "--agent", agent]);
    assert_eq!(answer["edits"]["added"], 1, "{answer}");
    let traces = world.traces();
    assert_eq!(traces[0]["files"][0]["path"], "note.txt");
    assert_eq!(ranges(&traces[0]).len(), 1, "{}", traces[0]);
    assert_eq!(traces[0]["metadata"]["tool_use_id"].as_str(), id);
}

#[test]
fn a_session_of_copilot_is_read() {
    let world = World::new();
    world.commit("note.txt", NOTE);
    let now = world.git(&["log", "-1", "--format=%cI"]);
    let line = |kind: &str, data: Value| {
        format!("{}\n", json!({"type": kind, "data": data, "id": "x", "timestamp": now}))
    };
    let start = |id: &str| {
        let arguments =
            json!({"path": world.repository.join("note.txt"), "old_str": "two", "new_str": "TWO"});
        line("tool.execution_start", json!({"toolCallId": id, "toolName": "edit", "arguments": arguments}))
    };
    let end = |id: &str, success: bool| {
        line("tool.execution_complete", json!({"toolCallId": id, "success": success}))
    };
    let text = line(
        "session.start",
        json!({"sessionId": "p1", "copilotVersion": "0.0.400", "context": {"cwd": world.repository, "branch": "main"}}),
    ) + &start("a")
        + &end("a", false)
        + &start("b")
        + &end("b", true);
    world.write(&world.home().join(".copilot/session-state/p1/events.jsonl"), &text);
    check_agent(&world, "copilot-cli", Some("b"));
}

#[test]
fn a_session_of_cursor_is_told_by_its_folder() {
    let world = World::new();
    world.commit("note.txt", NOTE);
    let name: String = world
        .repository
        .to_str()
        .unwrap()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .collect();
    let input = json!({"path": world.repository.join("note.txt"), "old_string": "two", "new_string": "TWO"});
    let text = format!(
        "{}\n{}\n",
        json!({"role": "user", "message": {"content": [{"type": "text", "text": "do it"}]}}),
        json!({"role": "assistant", "message": {"content": [{"type": "tool_use", "name": "StrReplace", "input": input}]}})
    );
    let place = format!(".cursor/projects/{}/agent-transcripts/u1/u1.jsonl", name.trim_matches('-'));
    world.write(&world.home().join(place), &text);
    check_agent_lines(&world, "cursor", None);
}

#[test]
fn a_session_of_opencode_is_read_from_its_files_and_a_database_is_said() {
    let world = World::new();
    world.commit("note.txt", NOTE);
    let storage = world.home().join(".local/share/opencode/storage");
    let write = |path: &str, value: Value| world.write(&storage.join(path), &value.to_string());
    write(
        "session/p/ses_1.json",
        json!({"id": "ses_1", "version": "1.0.0", "directory": world.repository, "time": {"created": 1}}),
    );
    write(
        "message/ses_1/msg_1.json",
        json!({"id": "msg_1", "role": "assistant", "modelID": "claude-opus-4-6", "path": {"cwd": world.repository}}),
    );
    let part = |status: &str, id: &str| {
        json!({"type": "tool", "tool": "edit", "callID": id, "state": {"status": status,
            "input": {"filePath": world.repository.join("note.txt"), "oldString": "two", "newString": "TWO"},
            "metadata": {"filediff": {"before": NOTE, "after": NOTE.replace("two", "TWO")}}, "time": {"start": 1, "end": 1_767_787_200_000_u64}}})
    };
    write("part/msg_1/prt_1.json", part("error", "a"));
    write("part/msg_1/prt_2.json", part("completed", "b"));
    check_agent(&world, "opencode", Some("b"));
    world.write(&world.home().join(".local/share/opencode/opencode.db"), "x");
    let (status, out) = world.run(&["--json", "backfill"]);
    assert_eq!(status, 3, "{out}");
    assert!(out.contains("database"), "{out}");
}
