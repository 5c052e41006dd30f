//! Notes of many clones on one remote: none is lost, and nothing of the user's is touched.
#![allow(clippy::disallowed_methods, reason = "a test's own repositories")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use agent_trace_store::env::os_env;
use serde_json::Value;
use tempfile::TempDir;

use super::NOTES;
use super::exchange::{Pushed, pull, push};
use super::tree::{Notes, update};
use crate::git::objects::Objects;
use crate::git::process::Git;

fn git(directory: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args([
            "-c",
            "user.name=n",
            "-c",
            "user.email=e@x",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "gc.auto=0",
        ])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("GIT_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A bare remote with one commit, and clones of it.
fn clones(count: usize) -> (TempDir, PathBuf, Vec<PathBuf>, String) {
    let dir = tempfile::tempdir().unwrap();
    let (work, remote) = (dir.path().join("work"), dir.path().join("remote.git"));
    std::fs::create_dir(&work).unwrap();
    git(&work, &["init", "-q", "-b", "main"]);
    git(&work, &["commit", "-q", "--allow-empty", "-m", "base"]);
    let commit = git(&work, &["rev-parse", "HEAD"]);
    git(dir.path(), &["clone", "-q", "--bare", "work", "remote.git"]);
    let names: Vec<PathBuf> = (0..count).map(|at| dir.path().join(format!("clone {at}"))).collect();
    for name in &names {
        git(dir.path(), &["clone", "-q", "remote.git", name.to_str().unwrap()]);
    }
    (dir, remote, names, commit)
}

fn write(clone: &Path, commit: &str, id: &str) {
    let note = format!("{{\"trace_ids\":[\"{id}\"],\"version\":\"2.0\"}}\n").into_bytes();
    let change = BTreeMap::from([(commit.to_owned(), note)]);
    update(&os_env(), &Git::from(clone), NOTES, None, "m", &mut |notes, objects| {
        let mut change = change.clone();
        if let Some(own) = notes.note(objects, commit)? {
            let joined = super::payload::merge(&own, &change[commit]);
            change.insert(commit.to_owned(), joined);
        }
        Ok(change)
    })
    .unwrap();
}

fn ids(clone: &Path, commit: &str) -> BTreeSet<String> {
    let repository = Git::from(clone);
    let notes = Notes::read(&repository, NOTES).unwrap();
    let Some(note) = notes.note(&mut Objects::open(&repository).unwrap(), commit).unwrap() else {
        return BTreeSet::new();
    };
    let note: Value = serde_json::from_slice(&note).unwrap();
    note["trace_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[test]
fn thirty_clones_that_write_at_once_keep_all_notes() {
    let (_dir, remote, clones, commit) = clones(30);
    thread::scope(|scope| {
        for (number, clone) in clones.iter().enumerate() {
            let commit = &commit;
            scope.spawn(move || {
                write(clone, commit, &format!("trace {number}"));
                let pushed = push(&os_env(), &Git::from(clone), "origin").unwrap();
                assert_eq!(pushed, Pushed::Done);
            });
        }
    });
    let all: BTreeSet<String> = (0..clones.len()).map(|number| format!("trace {number}")).collect();
    assert_eq!(ids(&remote, &commit), all);
    for clone in [&clones[0], &clones[29]] {
        pull(&os_env(), &Git::from(clone), "origin").unwrap();
        assert_eq!(ids(clone, &commit), all);
        assert_eq!(push(&os_env(), &Git::from(clone), "origin").unwrap(), Pushed::Nothing);
    }
}

#[test]
fn one_clone_s_processes_do_not_overwrite_each_other() {
    let (_dir, _remote, clones, commit) = clones(1);
    thread::scope(|scope| {
        for number in 0..8 {
            let (clone, commit) = (&clones[0], &commit);
            scope.spawn(move || write(clone, commit, &format!("trace {number}")));
        }
    });
    assert_eq!(ids(&clones[0], &commit).len(), 8);
    assert_eq!(git(&clones[0], &["for-each-ref", "refs/agent-trace/aside"]), "");
}

#[test]
fn a_remote_without_notes_and_one_that_refuses_them_harm_nothing() {
    let (_dir, remote, clones, commit) = clones(1);
    let repository = Git::from(&clones[0]);
    assert_eq!(pull(&os_env(), &repository, "origin").unwrap(), 0);
    assert_eq!(push(&os_env(), &repository, "origin").unwrap(), Pushed::Nothing);
    let config = std::fs::read(clones[0].join(".git/config")).unwrap();
    write(&clones[0], &commit, "one");
    let hook = remote.join("hooks/update");
    std::fs::write(&hook, "#!/bin/sh\ncase $1 in refs/notes/*) echo no notes here >&2; exit 1;; esac\n")
        .unwrap();
    Command::new("chmod").arg("+x").arg(&hook).status().unwrap();
    assert!(matches!(push(&os_env(), &repository, "origin").unwrap(), Pushed::Refused(_)));
    git(&clones[0], &["commit", "-q", "--allow-empty", "-m", "next"]);
    git(&clones[0], &["push", "-q"]);
    git(&clones[0], &["pull", "-q"]);
    assert_eq!(ids(&clones[0], &commit).len(), 1);
    assert_eq!(std::fs::read(clones[0].join(".git/config")).unwrap(), config);
    for bad in ["", "-x", "../x", "a b", "--upload-pack=x"] {
        assert!(pull(&os_env(), &repository, bad).is_err(), "{bad}");
    }
}
