//! Commits of real repositories, with agents' and people's edits, and every way to rewrite history.
#![allow(clippy::disallowed_methods, reason = "a test's own repositories")]

use std::path::{Path, PathBuf};
use std::process::Command;

use agent_trace_store::env::os_env;
use agent_trace_store::intake::Intake;
use agent_trace_store::{Kind, Store, Timestamp, record};
use tempfile::TempDir;

use super::*;
use crate::edit::trace::{encode, trace_id};
use crate::edit::{Call, Change, Replacement, ToolEdit, resolve};

/// A repository with a store beside it.
struct Scratch {
    _dir: TempDir,
    repository: PathBuf,
    store: Store,
    edits: u64,
}

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("re po");
        std::fs::create_dir(&repository).unwrap();
        let store_dir = dir.path().join("store");
        std::fs::create_dir(&store_dir).unwrap();
        let store = Store::init(&os_env(), &store_dir).unwrap();
        let scratch = Scratch { _dir: dir, repository, store, edits: 0 };
        scratch.git(&["init", "-q", "-b", "main"]);
        scratch
    }

    fn git(&self, args: &[&str]) -> String {
        self.git_with(args, "")
    }

    fn git_with(&self, args: &[&str], editor: &str) -> String {
        let output = Command::new("git")
            .current_dir(&self.repository)
            .args([
                "-c",
                "user.name=n",
                "-c",
                "user.email=e@x",
                "-c",
                "commit.gpgsign=false",
                "-c",
                "core.hooksPath=/dev/null",
            ])
            .args(args)
            .env("GIT_SEQUENCE_EDITOR", editor)
            .env("GIT_EDITOR", "true")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("GIT_DIR")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.repository.join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        std::fs::write(self.path(path), text).unwrap();
    }

    /// A person replaces a text; with an empty one, the whole file is written.
    fn human(&self, path: &str, old: &str, new: &str) {
        let before = self.read(path);
        let after = if old.is_empty() { new.to_owned() } else { before.replacen(old, new, 1) };
        assert_ne!(before, after);
        self.write(path, &after);
    }

    /// An agent does, and its trace is stored.
    fn agent(&mut self, path: &str, old: &str, new: &str) {
        let before = self.read(path);
        self.human(path, old, new);
        let change = if old.is_empty() {
            Change::Write(new.into())
        } else {
            Change::Replace(vec![Replacement { old: old.into(), new: new.into(), all: false }])
        };
        let edit = ToolEdit { path: path.into(), change, before: Some(before.into()), after: None };
        self.edits += 1;
        let tool_use = format!("call-{}", self.edits);
        let call = Call {
            agent: "claude-code".into(),
            model: Some("claude-opus-4".into()),
            session: "s1".into(),
            conversation: "c1".into(),
            tool: "Edit".into(),
            tool_use: Some(tool_use.clone()),
            event: "PostToolUse".into(),
            time: Timestamp::from_micros(1_600_000_000_000_000 + self.edits.cast_signed() * 1_000_000),
            sequence: self.edits,
            ..Call::default()
        };
        let id = trace_id(&call.agent, &call.session, Some(&tool_use), &call.event, b"");
        let trace = encode(&id, &call, &[(path.to_owned(), resolve(&edit))]).unwrap();
        let facts = record::facts(Kind::TRACE, &trace.canonical).unwrap();
        let mut intake = Intake::new(&self.store);
        intake.record(Kind::TRACE, &trace.canonical, &facts, call.time, &[]).unwrap();
        intake.append().unwrap();
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        let id = self.git(&["rev-parse", "HEAD"]);
        self.link(&[&id]);
        id
    }

    fn link(&self, ids: &[&str]) {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let mut linker = Linker::open(&self.store, &Git::from(&self.repository)).unwrap();
        linker.link(&ids, &mut |_| ()).unwrap();
    }

    /// All commits, as `link --all` has it.
    fn link_all(&self) {
        let ids = commits::list(&Git::from(&self.repository), &["--all"]).unwrap();
        self.link(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The file at HEAD by blame, with `//A` after each line that is an agent's.
    fn shown(&self, path: &str) -> String {
        let mut known = Known::of(&self.store).unwrap();
        let lines =
            blame(&Git::from(&self.repository), Some("HEAD"), Path::new(path).as_os_str(), &[]).unwrap();
        let mut text = String::new();
        for line in lines {
            let ledger = known.ledger(&line.commit.id).unwrap();
            let run =
                ledger.and_then(|ledger| ledger.at(&spelled(&line.path), line.line_original as u64).cloned());
            text.push_str(&String::from_utf8_lossy(&line.bytes));
            text.push_str(if run.is_some() { " //A\n" } else { "\n" });
        }
        text
    }

    fn check(&self, path: &str, expected: &str) {
        let shown = self.shown(path);
        assert_eq!(shown, expected, "\n--- found\n{shown}\n--- expected\n{expected}");
    }
}

const BASE: &str = "package main\n\nfunc first() {\n\twork()\n}\n\nfunc last() {\n\trest()\n}\n";
const ADDED: &str = "func middle() {\n\tagentDoesThis()\n\tagentDoesThat()\n}\n\n";

/// A repository with a base, and an agent's function in the work tree, not committed.
fn edited() -> Scratch {
    let mut scratch = Scratch::new();
    scratch.write("main.go", BASE);
    scratch.commit("base");
    scratch.agent("main.go", "func last()", &format!("{ADDED}func last()"));
    scratch
}

const EDITED: &str = "package main\n\nfunc first() {\n\twork()\n}\n\nfunc middle() { //A\n\tagentDoesThis() //A\n\tagentDoesThat() //A\n} //A\n //A\nfunc last() {\n\trest()\n}\n";

#[test]
fn a_commit_of_an_agent_s_edit() {
    let scratch = edited();
    let id = scratch.commit("agent");
    scratch.check("main.go", EDITED);
    let mut known = Known::of(&scratch.store).unwrap();
    let ledger = known.ledger(&id).unwrap().unwrap();
    assert_eq!((ledger.lines(), ledger.trace_ids.len()), (5, 1));
    assert_eq!(ledger.files["main.go"].line_attributions[0].how.as_deref(), Some("exact"));
}

#[test]
fn linking_again_writes_nothing() {
    let scratch = edited();
    let id = scratch.commit("agent");
    let mut linker = Linker::open(&scratch.store, &Git::from(&scratch.repository)).unwrap();
    let mut new = 0;
    linker.link(&[id], &mut |linked| new += usize::from(linked.is_new)).unwrap();
    assert_eq!(new, 0);
}

#[test]
fn human_lines_in_the_same_commit_stay_theirs() {
    let scratch = edited();
    scratch.human("main.go", "\trest()\n", "\trest()\n\tmore()\n");
    scratch.human("main.go", "\tagentDoesThis()\n", "\tagentDoesThis()\n\n");
    scratch.commit("both");
    scratch.check(
        "main.go",
        &EDITED
            .replace("agentDoesThis() //A\n", "agentDoesThis() //A\n\n")
            .replace("\trest()\n", "\trest()\n\tmore()\n"),
    );
}

#[test]
fn an_amended_commit_is_linked_by_content() {
    let scratch = edited();
    scratch.commit("agent");
    scratch.human("main.go", "package main\n", "package main\n\nimport \"os\"\n");
    scratch.git(&["commit", "-qa", "--amend", "-m", "amended"]);
    scratch.link_all();
    scratch.check("main.go", &EDITED.replace("package main\n", "package main\n\nimport \"os\"\n"));
}

#[test]
fn a_rebase_onto_other_work() {
    let scratch = edited();
    scratch.git(&["stash", "-q"]);
    scratch.git(&["checkout", "-qb", "topic"]);
    scratch.git(&["stash", "pop", "-q"]);
    scratch.commit("agent");
    scratch.git(&["checkout", "-q", "main"]);
    scratch.human("main.go", "package main\n", "package main\n\nimport \"os\"\n");
    scratch.commit("other");
    scratch.git(&["checkout", "-q", "topic"]);
    scratch.git(&["rebase", "-q", "main"]);
    scratch.link_all();
    scratch.check("main.go", &EDITED.replace("package main\n", "package main\n\nimport \"os\"\n"));
}

#[test]
fn a_squash_merge_and_a_cherry_pick() {
    let mut scratch = edited();
    scratch.git(&["checkout", "-qb", "topic"]);
    scratch.commit("agent one");
    scratch.agent("main.go", "\tagentDoesThat()\n", "\tagentDoesThat()\n\tagentFinishes()\n");
    let second = scratch.commit("agent two");
    scratch.git(&["checkout", "-q", "main"]);
    scratch.git(&["merge", "-q", "--squash", "topic"]);
    scratch.git(&["commit", "-qm", "squashed"]);
    scratch.link_all();
    let expected = EDITED.replace("agentDoesThat() //A\n", "agentDoesThat() //A\n\tagentFinishes() //A\n");
    scratch.check("main.go", &expected);
    scratch.git(&["reset", "-q", "--hard", "HEAD~1"]);
    scratch.git(&["cherry-pick", &format!("{second}~1"), &second]);
    scratch.link_all();
    scratch.check("main.go", &expected);
}

#[test]
fn a_commit_split_in_two() {
    let mut scratch = edited();
    scratch.agent("other.go", "", "package main\n\nfunc other() {\n\totherWork()\n}\n");
    scratch.commit("both");
    scratch.git(&["reset", "-q", "HEAD~1"]);
    scratch.git(&["add", "other.go"]);
    scratch.git(&["commit", "-qm", "one"]);
    scratch.git(&["add", "-A"]);
    scratch.git(&["commit", "-qm", "two"]);
    scratch.link_all();
    scratch.check("main.go", EDITED);
    scratch.check("other.go", "package main //A\n //A\nfunc other() { //A\n\totherWork() //A\n} //A\n");
}

#[test]
fn fixup_and_autosquash_with_a_human_s_change() {
    let scratch = edited();
    scratch.commit("agent");
    scratch.human("main.go", "agentDoesThat()", "humanDoesThat(1)");
    scratch.git(&["add", "-A"]);
    scratch.git(&["commit", "-q", "--fixup", "HEAD"]);
    scratch.git_with(&["rebase", "-q", "-i", "--autosquash", "HEAD~2"], "true");
    scratch.link_all();
    scratch.check("main.go", &EDITED.replace("agentDoesThat() //A", "humanDoesThat(1)"));
}

#[test]
fn a_rename_and_a_block_moved_to_another_file() {
    let scratch = edited();
    scratch.commit("agent");
    scratch.git(&["mv", "main.go", "new name.go"]);
    scratch.commit("renamed");
    scratch.check("new name.go", EDITED);
    scratch.human("new name.go", ADDED, "");
    scratch.write("moved.go", &format!("package main\n\n{ADDED}"));
    scratch.commit("moved");
    scratch.check(
        "moved.go",
        "package main\n\nfunc middle() { //A\n\tagentDoesThis() //A\n\tagentDoesThat() //A\n} //A\n //A\n",
    );
}

#[test]
fn a_reverted_revert_brings_the_lines_back() {
    let scratch = edited();
    let id = scratch.commit("agent");
    scratch.git(&["revert", "--no-edit", &id]);
    scratch.link_all();
    scratch.git(&["revert", "--no-edit", "HEAD"]);
    scratch.link_all();
    scratch.check("main.go", EDITED);
}

#[test]
fn a_merge_attributes_only_what_no_parent_has() {
    let mut scratch = edited();
    scratch.git(&["checkout", "-qb", "topic"]);
    scratch.commit("agent");
    scratch.git(&["checkout", "-q", "main"]);
    scratch.human("main.go", "package main\n", "package main\n\nimport \"os\"\n");
    scratch.commit("other");
    scratch.git(&["merge", "-q", "--no-commit", "topic"]);
    scratch.agent("main.go", "\trest()\n", "\trest()\n\tagentResolves()\n");
    scratch.commit("merge");
    let expected = EDITED
        .replace("package main\n", "package main\n\nimport \"os\"\n")
        .replace("\trest()\n", "\trest()\n\tagentResolves() //A\n");
    scratch.check("main.go", &expected);
}

#[test]
fn a_history_whose_root_is_rewritten() {
    let scratch = edited();
    scratch.commit("agent");
    scratch.git_with(&["rebase", "-q", "-i", "--root", "--reapply-cherry-picks", "--force-rebase"], "true");
    scratch.git(&["commit", "-q", "--amend", "-m", "again"]);
    scratch.link_all();
    scratch.check("main.go", EDITED);
}

#[test]
fn stash_and_soft_reset() {
    let scratch = edited();
    scratch.git(&["stash", "-q"]);
    scratch.human("main.go", "package main\n", "package main\n\nimport \"os\"\n");
    scratch.commit("human");
    scratch.git(&["stash", "pop", "-q"]);
    scratch.commit("agent");
    let expected = EDITED.replace("package main\n", "package main\n\nimport \"os\"\n");
    scratch.check("main.go", &expected);
    scratch.git(&["reset", "-q", "--soft", "HEAD~2"]);
    scratch.commit("both at once");
    scratch.check("main.go", &expected);
}

/// Where equal lines at both ends leave open which are new, git decides, and nobody is credited with the others.
#[test]
fn lines_that_git_counts_to_another_commit_have_no_author() {
    let scratch = edited();
    scratch.human("main.go", "\twork()\n", "\twork()\n\tworkHarder()\n");
    scratch.commit("both");
    let expected =
        EDITED.replace("\twork()\n", "\twork()\n\tworkHarder()\n").replace("} //A\n //A\n", "}\n\n");
    scratch.check("main.go", &expected);
}

#[test]
fn windows_line_ends_and_bytes_that_are_no_utf_8() {
    let mut scratch = Scratch::new();
    scratch.write("a.txt", "one\r\ntwo\r\n");
    scratch.commit("base");
    scratch.agent("a.txt", "two\r\n", "two\r\nagent says this\r\n");
    scratch.commit("agent");
    scratch.check("a.txt", "one\r\ntwo\r\nagent says this\r //A\n");
    std::fs::write(scratch.path("b.bin"), [b"\xff\xfe agent\n".as_slice(), &[0; 10]].concat()).unwrap();
    scratch.commit("binary");
}

#[test]
fn a_file_in_another_folder_throughout_the_history_is_found() {
    for (agents, now) in [("main.go", "moved/sub/main.go"), ("old/sub/main.go", "main.go")] {
        let mut scratch = Scratch::new();
        scratch.write(now, BASE);
        scratch.git(&["add", "-A"]);
        scratch.git(&["commit", "-q", "-m", "base"]);
        // The trace names the file as it was before the history was written anew.
        scratch.write(agents, BASE);
        scratch.agent(agents, "func last()", &format!("{ADDED}func last()"));
        std::fs::rename(scratch.path(agents), scratch.path(now)).unwrap();
        scratch.commit("edited");
        scratch.check(now, EDITED);
    }
}

#[test]
fn a_copy_in_another_folder_is_not_the_agent_s() {
    let mut scratch = Scratch::new();
    scratch.write("main.go", BASE);
    scratch.write("vendor/main.go", BASE);
    scratch.git(&["add", "-A"]);
    scratch.git(&["commit", "-q", "-m", "base"]);
    scratch.agent("main.go", "func last()", &format!("{ADDED}func last()"));
    let copy = scratch.read("main.go");
    scratch.write("vendor/main.go", &copy);
    scratch.commit("copied");
    scratch.check("main.go", EDITED);
    assert!(!scratch.shown("vendor/main.go").contains("//A"), "the original is still there");
}

#[test]
fn what_an_agent_does_after_a_commit_does_not_count_for_it() {
    let mut scratch = Scratch::new();
    // The agent edits two minutes later.
    let early = "2020-09-13T12:25:00Z";
    let commit = |scratch: &Scratch, date: &str| {
        scratch.git(&["add", "-A"]);
        let script = format!("GIT_COMMITTER_DATE={date} git commit -q -m x --date={date}");
        scratch.git(&["-c", &format!("alias.at=!{script}"), "at"]);
    };
    let test = "func one(t T) {\n\tenv := NewTestEnv(t)\n\tdefer env.Cleanup()\n\tenv.InitRepo()\n}\n";
    scratch.write("x_test.go", test);
    commit(&scratch, early);
    scratch.agent("x_test.go", "func one", &format!("{}\nfunc one", test.replace("one", "two")));
    commit(&scratch, "2021-01-01T00:00:00Z");
    scratch.link_all();
    let shown = scratch.shown("x_test.go");
    let (two, one) = shown.split_at(shown.find("func one").unwrap());
    assert!(two.contains("NewTestEnv(t) //A"), "{shown}");
    assert!(!one.contains("//A"), "{shown}");
}
