//! Sample data for the tour: one session of an agent in three states, and what agent-trace-cli would have kept.
//!
//! Made from a seed, so that it is the same each time; all of it is invented.

use std::fmt::Write as _;
use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

const SEED: u64 = 0x5eed_a9e7;
const SESSION: &str = "7d3f0c52-6a1e-4b8f-9c0d-2e5b8a41f6c3";
const MOMENTS: usize = 3;
const TURNS_PER_MOMENT: usize = 40;
const COMMITS: usize = 6;
const TRACES: usize = 14;
const FILES: [&str; 4] = ["src/parser.rs", "src/lexer.rs", "src/main.rs", "tests/parser.rs"];
const WORDS: [&str; 24] = [
    "the", "parser", "accepts", "a", "trailing", "comma", "now", "and", "reports", "where", "it", "stopped",
    "test", "covers", "empty", "input", "token", "after", "newline", "keeps", "its", "span", "so", "errors",
];

/// One state of the session, as it was written.
pub(crate) struct State {
    /// The name of its file under `sessions`.
    pub(crate) file: String,
    /// The SHA-256 of its bytes.
    pub(crate) sha256: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Writes `sessions` and `agent-trace-cli` into a directory, and returns the states of the session.
pub(crate) fn write(env: &Env, directory: &Path) -> Result<Vec<State>> {
    let mut random = Random(SEED);
    let states = states(&mut random);
    let sessions = directory.join("sessions");
    let mut manifest = String::new();
    for (number, state) in states.iter().enumerate() {
        put(env, &sessions, &state.file, &state.bytes)?;
        let line = json!({
            "file": state.file, "sha": state.sha256, "bytes": state.bytes.len(), "agent": "Claude Code",
            "session_id": SESSION, "created_at": time(number * 4 + 4), "checkpoint": random.hex(6),
        });
        let _ = writeln!(manifest, "{line}");
    }
    put(env, &sessions, "manifest.jsonl", manifest.as_bytes())?;
    write_peer(env, &directory.join("agent-trace-cli"), &states, &mut random)?;
    Ok(states)
}

fn states(random: &mut Random) -> Vec<State> {
    let mut bytes = Vec::new();
    let mut states = Vec::new();
    for moment in 0..MOMENTS {
        for turn in 0..TURNS_PER_MOMENT {
            let kind = if turn % 2 == 0 { "user" } else { "assistant" };
            let words = 12 + random.below(60);
            let line = json!({
                "type": kind, "sessionId": SESSION, "cwd": "/home/ada/parser", "gitBranch": "main",
                "uuid": random.uuid(), "timestamp": time(moment * 4 + turn / 10),
                "message": {"role": kind, "content": random.words(words)},
            });
            bytes.extend_from_slice(format!("{line}\n").as_bytes());
        }
        let sha256 = sha256(&bytes);
        states.push(State { file: format!("moment-{}.jsonl", moment + 1), sha256, bytes: bytes.clone() });
    }
    states
}

/// Writes what agent-trace-cli keeps: two of the traces are named by no ledger.
fn write_peer(env: &Env, home: &Path, states: &[State], random: &mut Random) -> Result<()> {
    let conversation = sha256(b"file:///home/ada/.claude/projects/parser/session.jsonl");
    let last = &states[states.len() - 1];
    let commits: Vec<String> = (0..COMMITS).map(|_| random.hex(20)).collect();
    let (mut traces, mut ids) = (String::new(), Vec::new());
    for number in 0..TRACES {
        let id = random.uuid();
        let line = json!({
            "version": "2.0", "id": id, "timestamp": time(number), "tool": {"name": "claude-code"},
            "files": [{"path": FILES[number % FILES.len()], "conversations": [{
                "contributor": {"type": "ai", "model_id": "anthropic/claude-opus-4"}, "id": conversation,
                "content_sha256": last.sha256, "ranges": [{"start_line": number * 3 + 1, "end_line": number * 3 + 9,
                    "content_hash": format!("sha256:{}", random.hex(32))}],
            }]}],
            "vcs": {"type": "git", "revision": commits[(number / 2).min(COMMITS - 1)]},
            "metadata": {"session_id": SESSION, "tool_name": "Edit", "edit_sequence": number},
        });
        let _ = writeln!(traces, "{line}");
        ids.push(id);
    }
    let (mut ledgers, mut links) = (String::new(), String::new());
    for (number, commit) in commits.iter().enumerate() {
        let named = [&ids[number * 2], &ids[number * 2 + 1]];
        let (path, parent) =
            (FILES[number % FILES.len()], number.checked_sub(1).map(|before| &commits[before]));
        let created = time(number * 2 + 2);
        let line = json!({
            "version": "2.0", "commit_sha": commit, "parent_sha": parent, "committed_at": created,
            "created_at": created, "trace_ids": named, "files": {path: {"line_attributions": [{
                "start_line": number * 6 + 1, "end_line": number * 6 + 9, "type": "ai", "trace_id": named[0],
                "model_id": "anthropic/claude-opus-4", "conversation_id": conversation}]}},
        });
        let _ = writeln!(ledgers, "{line}");
        let line = json!({
            "commit_sha": commit, "parent_sha": parent, "trace_ids": named, "files_changed": [path],
            "committed_at": created, "created_at": created,
        });
        let _ = writeln!(links, "{line}");
    }
    let summary = json!({
        "conversation_id": conversation, "session_id": SESSION, "created_at": time(TRACES),
        "summary": "Taught the parser trailing commas, and made its errors say where it stopped.",
    });
    put(env, home, "traces.jsonl", traces.as_bytes())?;
    put(env, home, "ledgers.jsonl", ledgers.as_bytes())?;
    put(env, home, "commit-links.jsonl", links.as_bytes())?;
    put(env, home, "session-summaries.jsonl", format!("{summary}\n").as_bytes())?;
    let blobs = home.join("conversations");
    put(env, &blobs.join(&last.sha256[..2]), &last.sha256, &last.bytes)?;
    let index = json!({ conversation: last.sha256 });
    put(env, &blobs, "_index.json", index.to_string().as_bytes())
}

fn put(env: &Env, directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory.join(name);
    let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
    env.fs.create_dir_all(directory).map_err(doing)?;
    let file = env.fs.create(&path, false).map_err(doing)?;
    file.write_all_at(bytes, 0).map_err(doing)
}

fn time(hour: usize) -> String {
    format!("2026-02-{:02}T{:02}:{:02}:00Z", 3 + hour / 8, 9 + hour % 8, hour * 7 % 60)
}

fn sha256(bytes: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    encode_hex(&hash)
}

/// A small generator (xorshift); for invented text, not for secrets.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("smaller than the bound")
    }

    fn hex(&mut self, bytes: usize) -> String {
        let random: Vec<u8> = (0..bytes).map(|_| self.next().to_le_bytes()[3]).collect();
        encode_hex(&random)
    }

    fn uuid(&mut self) -> String {
        let (a, b, c, d, e) = (self.hex(4), self.hex(2), self.hex(2), self.hex(2), self.hex(6));
        format!("{a}-{b}-4{}-a{}-{e}", &c[1..], &d[1..])
    }

    fn words(&mut self, count: usize) -> String {
        let words: Vec<&str> = (0..count).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_the_same_each_time_and_grows() {
        let (first, second) = (states(&mut Random(SEED)), states(&mut Random(SEED)));
        for (index, (a, b)) in first.iter().zip(&second).enumerate() {
            assert_eq!(a.bytes, b.bytes);
            assert!(index == 0 || a.bytes.starts_with(&first[index - 1].bytes));
        }
    }
}
