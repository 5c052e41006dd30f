//! A git repository with a store, people and agents who edit its files, and the program run on it.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support;

/// A repository and its surroundings.
pub(crate) struct Scratch {
    root: TempDir,
    /// The repository.
    pub(crate) repository: PathBuf,
    edits: u64,
}

/// What the program did.
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn well(self) -> Answer {
        assert_eq!(self.status, 0, "{}{}", self.out, self.err);
        self
    }

    pub(crate) fn json(self) -> Value {
        let answer = self.well();
        serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.out))
    }

    /// The failure that was told of on stderr.
    pub(crate) fn failure(&self, status: i32) -> Value {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        let last = self.err.lines().last().unwrap();
        let value: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", self.err));
        assert_eq!((&value["schema"], &value["exit"]), (&json!("agent-trace/error/1"), &json!(status)));
        value
    }
}

/// An agent's edit, as its trace tells of it.
#[derive(Clone, Copy)]
pub(crate) struct Edit<'a> {
    pub(crate) path: &'a str,
    pub(crate) old: &'a str,
    pub(crate) new: &'a str,
    pub(crate) session: &'a str,
    pub(crate) tool_use: &'a str,
}

impl Scratch {
    /// A repository with an empty commit and a store.
    pub(crate) fn new() -> Scratch {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("home")).unwrap();
        let repository = root.path().join("re po");
        fs::create_dir_all(&repository).unwrap();
        let scratch = Scratch { root, repository, edits: 0 };
        scratch.git(&["init", "-q", "-b", "main"]);
        scratch.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        scratch.run(&["init"]).well();
        scratch
    }

    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.repository.join(name)
    }

    pub(crate) fn run_in<S: AsRef<OsStr>>(&self, directory: &Path, args: &[S]) -> Answer {
        let mut command = support::command(support::PROGRAM, directory, &self.outside("home"));
        command.env("GIT_CEILING_DIRECTORIES", self.root.path().parent().unwrap()).env_remove("NO_COLOR");
        let output = command.args(args).output().unwrap();
        Answer {
            status: output.status.code().unwrap(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            bytes: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        self.run_in(&self.repository, args)
    }

    pub(crate) fn git_in(&self, directory: &Path, args: &[&str]) -> String {
        let mut command = support::command("git", directory, &self.outside("home"));
        let config = ["-c", "user.name=Jane Doe", "-c", "user.email=jane@x", "-c", "commit.gpgsign=false"];
        command.args(config).args(["-c", "protocol.file.allow=always"]).args(args);
        command
            .env("GIT_AUTHOR_DATE", "2026-03-01T00:00:00Z")
            .env("GIT_COMMITTER_DATE", "2026-03-01T00:00:00Z");
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.repository, args)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    /// A person replaces a text; an empty one is the whole file.
    pub(crate) fn human(&self, path: &str, old: &str, new: &str) {
        let before = self.read(path);
        let after = if old.is_empty() { new.to_owned() } else { before.replacen(old, new, 1) };
        assert_ne!(before, after, "`{old}` is not in {path}");
        self.write(path, after);
    }

    /// An agent does, and its trace is brought in.
    pub(crate) fn agent(&mut self, path: &str, old: &str, new: &str) -> String {
        let tool_use = format!("call-{}", self.edits + 1);
        self.edit(Edit { path, old, new, session: "s1", tool_use: &tool_use })
    }

    pub(crate) fn edit(&mut self, edit: Edit<'_>) -> String {
        let before = self.read(edit.path);
        self.human(edit.path, edit.old, edit.new);
        let after = self.read(edit.path);
        self.edits += 1;
        let id = format!("00000000-0000-8000-8000-{:012x}", self.edits);
        let trace = trace(&id, self.edits, &edit, &before, &after);
        let file = self.outside("trace.json");
        fs::write(&file, trace.to_string()).unwrap();
        self.run(&["import", file.to_str().unwrap()]).well();
        id
    }

    /// Commits all of it and links it.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.run(&["commit-link"]).well();
        self.git(&["rev-parse", "HEAD"])
    }

    /// Brings in a session of Claude Code: each prompt, with the calls that it led to.
    pub(crate) fn session(&self, session: &str, said: &[(&str, &[&str])]) {
        let mut text = String::new();
        for (number, (prompt, calls)) in said.iter().enumerate() {
            let base = json!({"sessionId": session, "uuid": format!("u{number}"), "cwd": "/w",
                "timestamp": format!("2026-02-01T00:{number:02}:00Z")});
            let mut line = |kind: &str, content: Value| {
                let mut line = base.clone();
                line["type"] = json!(kind);
                line["message"] = json!({"role": kind, "content": content});
                writeln!(text, "{line}").unwrap();
            };
            line("user", json!(prompt));
            line("assistant", json!([{"type": "text", "text": format!("Answer to: {prompt}")}]));
            for call in *calls {
                line(
                    "assistant",
                    json!([{"type": "tool_use", "id": call, "name": "Edit",
                    "input": {"file_path": "/w/main.go", "new_string": "text of the call"}}]),
                );
                line("user", json!([{"type": "tool_result", "tool_use_id": call, "content": "edited"}]));
            }
            line("assistant", json!([{"type": "text", "text": "Done."}]));
        }
        let file = self.outside(&format!("{session}.jsonl"));
        fs::write(&file, text).unwrap();
        self.run(&["import", file.to_str().unwrap()]).well();
    }

    /// The file by `blame --json`, with `//A` after each line that is an agent's.
    pub(crate) fn marked(&self, path: &str) -> String {
        let blame = self.run(&["blame", "--json", path]).json();
        let mut agents = std::collections::HashSet::new();
        for run in blame["attributions"].as_array().unwrap() {
            assert_eq!(run["kind"], "AI");
            agents.extend(run["start_line"].as_u64().unwrap()..=run["end_line"].as_u64().unwrap());
        }
        let mark = |(line, number): (&str, u64)| {
            format!("{line}{}\n", if agents.contains(&number) { " //A" } else { "" })
        };
        self.read(path).lines().zip(1..).map(mark).collect()
    }
}

/// The SHA-256 of a line.
pub(crate) fn hash(line: &str) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The trace of an edit that changed one place.
fn trace(id: &str, number: u64, edit: &Edit<'_>, before: &str, after: &str) -> Value {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let first = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let same = old[first..].iter().rev().zip(new[first..].iter().rev()).take_while(|(old, new)| old == new);
    let last = same.count();
    let (gone, come) = (&old[first..old.len() - last], &new[first..new.len() - last]);
    let short = |lines: &[&str]| lines.iter().map(|line| hash(line)[..16].to_owned()).collect::<String>();
    let hashes = come.iter().enumerate();
    let hashes: Vec<Value> = hashes
        .map(|(at, line)| json!({"line_offset": at, "hash": format!("sha256:{}", hash(line))}))
        .collect();
    let end = first + gone.len();
    json!({
        "version": "2.0", "id": id, "timestamp": format!("2026-02-01T00:{:02}:30Z", number % 60),
        "tool": {"name": "claude-code", "version": "2.1.0"},
        "files": [{"path": edit.path, "conversations": [{
            "contributor": {"type": "ai", "model_id": "anthropic/claude-opus-4"},
            "id": hash(edit.session),
            "ranges": [{"start_line": first + 1, "end_line": first + come.len(), "line_hashes": hashes}],
        }]}],
        "metadata": {"session_id": edit.session, "tool_name": "Edit", "tool_use_id": edit.tool_use,
            "edit_sequence": number, "agent_trace": {"files": [{"hunks": [{
                "old_start": first + 1, "new_start": first + 1, "lines": come.len(), "old": short(gone),
                "above": short(&old[first.saturating_sub(3)..first]),
                "below": short(&old[end..(end + 3).min(old.len())]),
            }]}]}},
    })
}
