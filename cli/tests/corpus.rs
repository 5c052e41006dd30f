//! Real transcripts, where they are given (`AGENT_TRACE_CORPUS`): in, out to a folder, in elsewhere, byte for byte.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(home: &Path, store: &str, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_agent-trace"))
        .env_clear()
        .env("HOME", home)
        .env("TZ", "UTC")
        .current_dir(home)
        .args(["--store", store])
        .args(args)
        .output()
        .unwrap();
    let status = output.status;
    assert!(status.success(), "{args:?}: {status}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn snapshots(dir: &Path) -> Vec<(String, PathBuf)> {
    let manifest = std::fs::read_to_string(dir.join("manifest.jsonl")).unwrap();
    let entries = manifest.lines().map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        (entry["sha"].as_str().unwrap().to_owned(), dir.join(entry["file"].as_str().unwrap()))
    });
    entries.collect()
}

#[test]
fn real_transcripts_come_back_byte_for_byte_on_another_machine() {
    let Some(corpus) = std::env::var_os("AGENT_TRACE_CORPUS") else {
        eprintln!("skipped: corpus not given");
        return;
    };
    let corpus = Path::new(&corpus).join("agentv");
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::create_dir(home.join("team")).unwrap();
    let remote = format!("file://{}", home.join("team").display());
    for store in ["here", "there"] {
        run(home, store, &["init"]);
        run(home, store, &["remote", "add", "team", &remote]);
    }
    let import = ["import", corpus.to_str().unwrap(), "--json"];
    let first: serde_json::Value = serde_json::from_slice(&run(home, "here", &import).stdout).unwrap();
    assert!(first["added"].as_u64().unwrap() > 30, "{first}");
    let again: serde_json::Value = serde_json::from_slice(&run(home, "here", &import).stdout).unwrap();
    assert_eq!(again["added"], 0, "{again}");
    run(home, "here", &["push", "--full"]);
    run(home, "here", &["compact", "--yes"]);
    run(home, "there", &["pull"]);
    for store in ["here", "there"] {
        run(home, store, &["verify"]);
        for (sha, file) in snapshots(&corpus) {
            assert!(
                run(home, store, &["cat", &sha]).stdout == std::fs::read(&file).unwrap(),
                "{store} {sha}"
            );
        }
    }
}
