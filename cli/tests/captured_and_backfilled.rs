//! One session that hooks have told of and that `backfill` then finds on disk: the same traces, none of them twice.
//!
//! Each agent has two calls that do the same and one that no hook has told of. Payloads have the members that the agent
//! sends: of the hooks here those of Gemini CLI and Copilot CLI do not name the call.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

mod support;

const NOTE: &str = "one\ntwo\nthree\nfour\n";

struct World {
    root: TempDir,
    repository: PathBuf,
    now: SystemTime,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().canonicalize().unwrap().join("re po");
        fs::create_dir_all(&repository).unwrap();
        fs::create_dir_all(root.path().join("home")).unwrap();
        let world = World { root, repository, now: SystemTime::now() };
        world.git(&["init", "-q", "-b", "main"]);
        world.put(&world.note(), NOTE);
        world.git(&["add", "-A"]);
        world.git(&["commit", "-q", "-m", "first"]);
        world.run(&["init"], "");
        let data = fs::read_dir(world.home().join(".agent-trace/projects")).unwrap().next().unwrap().unwrap();
        world.put(&data.path().join("project-config.json"), r#"{"capture":{"flush":"manual"}}"#);
        world
    }

    fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    fn note(&self) -> PathBuf {
        self.repository.join("note.txt")
    }

    fn put(&self, path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, program: &str) -> std::process::Command {
        let mut command = support::command(program, &self.repository, &self.home());
        for name in ["CLAUDE_CONFIG_DIR", "CODEX_HOME", "COPILOT_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command
    }

    fn git(&self, args: &[&str]) {
        let config = ["-c", "user.name=t", "-c", "user.email=t@t"];
        let output = self.command("git").args(config).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn run(&self, args: &[&str], input: &str) -> String {
        let mut command = self.command(support::PROGRAM);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[&["--json"], args].concat(), "")).unwrap()
    }

    /// A time so many seconds from now.
    fn time(&self, seconds: u64) -> String {
        let since = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap() + Duration::from_secs(seconds);
        jiff::Timestamp::from_second(since.as_secs().try_into().unwrap()).unwrap().to_string()
    }

    /// The agent replaces a text, and its hook tells of it.
    fn hook(&self, agent: &str, old: &str, new: &str, payload: &Value) {
        let text = fs::read_to_string(self.note()).unwrap();
        fs::write(self.note(), text.replacen(old, new, 1)).unwrap();
        self.run(&["record", "--agent", agent], &payload.to_string());
    }

    fn traces(&self) -> BTreeSet<String> {
        let out = self.run(&["--json", "log", "--kind", "trace", "-n", "1000"], "");
        let key =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["key"].as_str().unwrap().to_owned();
        out.lines().map(key).collect()
    }

    /// `known` of the calls of the session have been told of, and wait in the spool; `added` have not been.
    fn check(&self, agent: &str, known: u64, added: u64) {
        let counts = |answer: &Value, known: u64, added: u64| {
            let edits = &answer["edits"];
            assert_eq!((&edits["known"], &edits["added"]), (&json!(known), &json!(added)), "{answer}");
        };
        counts(&self.json(&["backfill", "--agent", agent]), known, added);
        let all = self.traces();
        assert_eq!(all.len() as u64, known + added, "{all:?}");
        // Another choice of sessions reads them again.
        counts(&self.json(&["backfill", "--agent", agent, "--project"]), known + added, 0);
        assert_eq!(self.traces(), all);
    }
}

/// What the three calls replace; hooks tell of the first two.
const CALLS: [(&str, &str, &str); 3] =
    [("c1", "two", "TWO"), ("c2", "three", "THREE"), ("c3", "four", "FOUR")];

fn lines(values: impl IntoIterator<Item = Value>) -> String {
    values.into_iter().map(|value| format!("{value}\n")).collect()
}

#[test]
fn claude_code() {
    let world = World::new();
    let place = world.home().join(".claude/projects/-r/s1.jsonl");
    let base = |kind: &str, seconds: u64, content: Value| {
        json!({"type": kind, "sessionId": "s1", "cwd": world.repository, "version": "2.1.0", "uuid": seconds.to_string(),
            "timestamp": world.time(seconds), "message": {"role": kind, "model": "claude-opus-4", "content": content}})
    };
    let mut said = Vec::new();
    for (number, (id, old, new)) in (0..).zip(CALLS) {
        let input = json!({"file_path": world.note(), "old_string": old, "new_string": new});
        let before = fs::read_to_string(world.note()).unwrap();
        let response = json!({"filePath": world.note(), "oldString": old, "newString": new,
            "originalFile": before, "structuredPatch": [], "userModified": false, "replaceAll": false});
        said.push(base(
            "assistant",
            number,
            json!([{"type": "tool_use", "id": id, "name": "Edit", "input": input}]),
        ));
        let mut result =
            base("user", number, json!([{"type": "tool_result", "tool_use_id": id, "content": "ok"}]));
        result["toolUseResult"] = response.clone();
        said.push(result);
        world.put(&place, &lines(said.clone()));
        if id != "c3" {
            let payload = json!({"session_id": "s1", "transcript_path": place, "cwd": world.repository,
                "permission_mode": "default", "hook_event_name": "PostToolUse", "tool_name": "Edit",
                "tool_input": input, "tool_response": response, "tool_use_id": id});
            world.hook("claude-code", old, new, &payload);
        }
    }
    world.check("claude-code", 2, 1);
}

#[test]
fn codex_by_its_tool_and_by_a_shell() {
    let world = World::new();
    let place = world.home().join(".codex/sessions/2026/11/20/rollout-x-c.jsonl");
    let line =
        |kind: &str, payload: Value| json!({"timestamp": world.time(0), "type": kind, "payload": payload});
    let mut said = vec![
        line("session_meta", json!({"id": "c", "cwd": world.repository, "cli_version": "0.99.0"})),
        line("turn_context", json!({"cwd": world.repository, "model": "gpt-5.1-codex"})),
    ];
    for (id, old, new) in CALLS {
        let patch =
            format!("*** Begin Patch\n*** Update File: note.txt\n@@\n-{old}\n+{new}\n*** End Patch\n");
        let (tool, call, input, end) = if id == "c2" {
            let command = json!({"command": ["apply_patch", patch]});
            let call = json!({"type": "function_call", "name": "shell", "call_id": id, "arguments": command.to_string()});
            ("shell", call, command, "function_call_output")
        } else {
            let call =
                json!({"type": "custom_tool_call", "name": "apply_patch", "call_id": id, "input": patch});
            ("apply_patch", call, json!({"command": patch}), "custom_tool_call_output")
        };
        said.push(line("response_item", call));
        let output = json!({"output": "Success.", "metadata": {"exit_code": 0}}).to_string();
        said.push(line("response_item", json!({"type": end, "call_id": id, "output": output})));
        world.put(&place, &lines(said.clone()));
        if id != "c3" {
            let payload = json!({"session_id": "c", "turn_id": "t", "transcript_path": place, "cwd": world.repository,
                "model": "gpt-5.1-codex", "permission_mode": "default", "hook_event_name": "PostToolUse",
                "tool_name": tool, "tool_input": input, "tool_response": "Success.", "tool_use_id": id});
            world.hook("codex", old, new, &payload);
        }
    }
    world.check("codex", 2, 1);
}

/// The last of three is told of by no hook, though it does what the first does.
const SAME: [(&str, &str, &str); 4] =
    [("g1", "two", "TWO"), ("g2", "TWO", "two"), ("g3", "two", "TWO"), ("g4", "four", "FOUR")];

#[test]
fn gemini_cli_whose_hooks_do_not_name_the_call() {
    let world = World::new();
    let place = world.home().join(".gemini/tmp/re-po/chats/session-1.json");
    let hash = {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(world.repository.to_str().unwrap());
        hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let mut calls = Vec::new();
    for (number, (id, old, new)) in (0..).zip(SAME) {
        let input =
            json!({"file_path": world.note(), "instruction": "x", "old_string": old, "new_string": new});
        // The two that do the same are far apart.
        let time = world.time(number * 3600);
        calls
            .push(json!({"id": id, "name": "replace", "args": input, "status": "success", "timestamp": time,
            "resultDisplay": "x"}));
        let session = json!({"sessionId": "g", "projectHash": hash, "startTime": world.time(0), "messages": [
            {"id": "1", "type": "gemini", "model": "gemini-2.5-pro", "timestamp": world.time(0), "toolCalls": calls}]});
        world.put(&place, &serde_json::to_string_pretty(&session).unwrap());
        if id == "g1" {
            let payload = json!({"session_id": "g", "transcript_path": place, "cwd": world.repository,
                "timestamp": time, "hook_event_name": "AfterTool", "tool_name": "replace", "tool_input": input,
                "tool_response": {"llmContent": "ok", "returnDisplay": "ok"}});
            world.hook("gemini-cli", old, new, &payload);
        }
    }
    world.check("gemini-cli", 1, 3);
}

#[test]
fn copilot_cli_whose_hooks_do_not_name_the_call() {
    let world = World::new();
    let place = world.home().join(".copilot/session-state/p/events.jsonl");
    let line =
        |kind: &str, data: Value| json!({"type": kind, "data": data, "id": "x", "timestamp": world.time(0)});
    let context = json!({"cwd": world.repository, "branch": "main"});
    let mut said =
        vec![line("session.start", json!({"sessionId": "p", "copilotVersion": "1.0.0", "context": context}))];
    for (id, old, new) in SAME {
        let input = json!({"path": world.note(), "old_str": old, "new_str": new});
        said.push(line(
            "tool.execution_start",
            json!({"toolCallId": id, "toolName": "edit", "arguments": input}),
        ));
        said.push(line("tool.execution_complete", json!({"toolCallId": id, "success": true})));
        world.put(&place, &lines(said.clone()));
        // The arguments come as an object, or as text that holds one.
        if id == "g1" || id == "g2" {
            let args = if id == "g1" { json!(input.to_string()) } else { input };
            let payload = json!({"timestamp": 1_763_632_800_000_u64, "cwd": world.repository, "sessionId": "p",
                "toolName": "edit", "toolArgs": args,
                "toolResult": {"resultType": "success", "textResultForLlm": "ok"}});
            world.hook("copilot-cli", old, new, &payload);
        }
    }
    world.check("copilot-cli", 2, 2);
}

#[test]
fn cursor_whose_sessions_do_not_name_the_call() {
    let world = World::new();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = world.repository.to_str().unwrap().chars().map(plain).collect();
    let place = format!(".cursor/projects/{}/agent-transcripts/u/u.jsonl", name.trim_matches('-'));
    let place = world.home().join(place);
    let mut said = Vec::new();
    for (id, old, new) in CALLS {
        let input = json!({"path": world.note(), "old_string": old, "new_string": new});
        let content = json!([{"type": "tool_use", "name": "StrReplace", "input": input}]);
        said.push(json!({"role": "assistant", "message": {"content": content}}));
        world.put(&place, &lines(said.clone()));
        let common = json!({"conversation_id": "u", "generation_id": id, "model": "claude-4.5-sonnet",
            "cursor_version": "2.1.0", "workspace_roots": [world.repository], "transcript_path": place});
        let mut used = common.clone();
        used["hook_event_name"] = json!("postToolUse");
        (used["tool_name"], used["tool_input"]) = (json!("StrReplace"), input);
        used["tool_use_id"] = json!(id);
        world.hook("cursor", old, new, &used);
        let mut edited = common;
        edited["hook_event_name"] = json!("afterFileEdit");
        edited["file_path"] = json!(world.note());
        edited["edits"] = json!([{"old_string": old, "new_string": new}]);
        world.run(&["record", "--agent", "cursor"], &edited.to_string());
    }
    world.check("cursor", 3, 0);
}

#[test]
fn opencode() {
    let world = World::new();
    let storage = world.home().join(".local/share/opencode/storage");
    let write = |path: &str, value: Value| world.put(&storage.join(path), &value.to_string());
    write(
        "session/p/ses_1.json",
        json!({"id": "ses_1", "version": "1.0.0", "directory": world.repository, "time": {"created": 1}}),
    );
    write(
        "message/ses_1/msg_1.json",
        json!({"id": "msg_1", "role": "assistant", "modelID": "m", "path": {"cwd": world.repository}}),
    );
    for (id, old, new) in CALLS {
        let input = json!({"filePath": world.note(), "oldString": old, "newString": new});
        let part = json!({"type": "tool", "tool": "edit", "callID": id, "state": {"status": "completed",
            "input": input, "metadata": {}, "time": {"start": 1, "end": 1_767_787_200_000_u64}}});
        write(&format!("part/msg_1/prt_{id}.json"), part);
        if id != "c3" {
            let payload = json!({"hook_event_name": "tool.execute.after", "tool": "edit", "sessionID": "ses_1",
                "callID": id, "cwd": world.repository, "args": input, "metadata": {}});
            world.hook("opencode", old, new, &payload);
        }
    }
    world.check("opencode", 2, 1);
}
