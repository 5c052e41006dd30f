//! What the tests that run the program have in common: its environment, and seeded data.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

pub(crate) mod hooks;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_agent-trace");

/// A command that sees nothing of the caller's environment that matters.
pub(crate) fn command(program: &str, directory: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        if text.starts_with("GIT_") || text.starts_with("AGENT_TRACE") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(directory)
        .env("HOME", home)
        .env("TZ", "UTC")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null());
    command
}

/// Where a run may be killed so that it makes a difference, by what strace has written of it: each call that changes
/// something, by its name and number. strace counts the calls of each name by themselves.
pub(crate) fn kill_points(trace: &str) -> Vec<(String, u32)> {
    let mut counts: HashMap<&str, u32> = HashMap::new();
    let mut points = Vec::new();
    // Signals and the end have lines too.
    for line in trace.lines().filter(|line| !line.starts_with(['+', '-'])) {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let count = counts.entry(name).or_default();
        *count += 1;
        if name != "openat" || rest.contains("O_CREAT") {
            points.push((name.to_owned(), *count));
        }
    }
    points
}

/// Whether `verify --json` has found a sound store in which each event fits its neighbours.
pub(crate) fn is_sound(verified: &Value) -> bool {
    let problems = (&verified["problems"], &verified["unconfirmed"]);
    verified["ok"] == json!(true) && problems == (&json!([]), &json!(0))
}

/// A trace as agent-trace-cli writes it.
pub(crate) fn trace(id: &str, time: &str, path: &str, conversations: Value) -> Value {
    json!({"version": "2.0", "id": id, "timestamp": time, "tool": {"name": "claude-code"},
        "files": [{"path": path, "conversations": conversations}]})
}

/// A ledger and a commit-link of a commit that holds one trace.
pub(crate) fn ledger_and_link(commit: &str, trace: &str, time: &str, path: &str) -> (Value, Value) {
    let ledger = json!({"version": "2.0", "commit_sha": commit, "parent_sha": null, "created_at": time,
        "committed_at": time, "trace_ids": [trace], "files": {path: {"line_attributions": [
            {"start_line": 1, "end_line": 2, "trace_id": trace}]}}});
    let link = json!({"commit_sha": commit, "parent_sha": null, "trace_ids": [trace], "created_at": time,
        "files_changed": [path], "committed_at": time});
    (ledger, link)
}

/// Compares the members of the page's example of a schema with those of a real answer.
pub(crate) fn check_example(page: &str, answer: &Value) {
    let schema = answer["schema"].as_str().unwrap();
    let start = format!("{{\"schema\":\"{schema}\"");
    let example = page
        .lines()
        .find(|line| line.starts_with(&start))
        .unwrap_or_else(|| panic!("no example of {schema}"));
    let example: Value = serde_json::from_str(example).unwrap_or_else(|error| panic!("{schema}: {error}"));
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&example), names(answer), "{schema}");
    for (name, value) in example.as_object().unwrap() {
        let real = &answer[name];
        let both = |test: fn(&Value) -> bool| test(value) == test(real) || value.is_null() || real.is_null();
        assert!(both(Value::is_string) && both(Value::is_array) && both(Value::is_object), "{schema} {name}");
        if let ([first @ Value::Object(_), ..], [real, ..]) = (array(value), array(real)) {
            assert_eq!(names(first), names(real), "{schema} {name}");
        }
    }
}

pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A small generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// So many hex digits, which do not compress well.
    pub(crate) fn digits(&mut self, count: usize) -> String {
        (0..count / 16).map(|_| format!("{:016x}", self.next())).collect()
    }

    pub(crate) fn words(&mut self, count: usize) -> String {
        const WORDS: [&str; 12] = [
            "the", "parser", "accepts", "a", "trailing", "comma", "where", "it", "stopped", "tests", "cover",
            "input",
        ];
        let words: Vec<&str> = (0..count).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }
}
