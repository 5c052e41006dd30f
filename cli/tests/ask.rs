//! `blame` from outside: real repositories, people and agents.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use scratch::{Edit, Scratch};

mod scratch;
mod support;

const BASE: &str = "package main\n\nfunc first() {\n\twork()\n}\n\nfunc last() {\n\trest()\n}\n";
const ADDED: &str = "func middle() {\n\tagentDoesThis()\n\tagentDoesThat()\n}\n\n";
const EDITED: &str = "package main\n\nfunc first() {\n\twork()\n}\n\nfunc middle() { //A\n\tagentDoesThis() //A\n\tagentDoesThat() //A\n} //A\n //A\nfunc last() {\n\trest()\n}\n";

/// A repository with a base, and an agent's function in the work tree, not committed.
fn edited() -> Scratch {
    let mut scratch = Scratch::new();
    scratch.write("main.go", BASE);
    scratch.commit("base");
    scratch.session("s1", &[("say hello", &[]), ("add a middle function", &["call-1"])]);
    scratch.agent("main.go", "func last()", &format!("{ADDED}func last()"));
    scratch
}

#[test]
fn a_line_says_who_when_where_and_why() {
    let scratch = edited();
    let commit = scratch.commit("agent");
    let blame = scratch.run(&["blame", "--json", "main.go", "--show-no-attribution"]).json();
    assert_eq!((&blame["schema"], &blame["file"]), (&json!("agent-trace/blame/1"), &json!("main.go")));
    assert_eq!((&blame["lines"], &blame["lines_ai"]), (&json!(14), &json!(5)));
    let runs = blame["attributions"].as_array().unwrap();
    let kinds: Vec<(u64, u64, &str)> = runs
        .iter()
        .map(|run| {
            let line = |name: &str| run[name].as_u64().unwrap();
            (line("start_line"), line("end_line"), run["kind"].as_str().unwrap())
        })
        .collect();
    assert_eq!(kinds, [(1, 6, "NO_ATTRIBUTION"), (7, 11, "AI"), (12, 14, "NO_ATTRIBUTION")]);
    let run = &runs[1];
    for (name, expected) in [
        ("trace_id", json!("00000000-0000-8000-8000-000000000001")),
        ("model_id", json!("anthropic/claude-opus-4")),
        ("contributor_type", json!("ai")),
        ("tool", json!({"name": "claude-code", "version": "2.1.0"})),
        ("timestamp", json!("2026-02-01T00:01:30Z")),
        ("commit_sha", json!(commit)),
        ("signals", json!(["ledger"])),
        ("source", json!("ledger")),
        ("attribution_label", json!("AI")),
        ("agent", json!("claude-code")),
        ("session_id", json!("s1")),
        ("tool_use_id", json!("call-1")),
        ("how", json!("exact")),
        ("prompt", json!("add a middle function")),
        ("conversation_preview", json!("say hello")),
        ("original_path", json!("main.go")),
        ("original_line", json!(7)),
    ] {
        assert_eq!(run[name], expected, "{name}");
    }
    assert_eq!(run["evidence"].as_array().unwrap().len(), 5);
    assert_eq!(run["evidence"][0]["content"], "func middle() {");
    let human = runs[0].as_object().unwrap();
    assert!(!human.contains_key("trace_id") && human["attribution_label"] == "No attribution");
    assert_eq!(human["author"], "Jane Doe");
    // Without the flag only what is an agent's.
    let blame = scratch.run(&["blame", "--json", "main.go"]).json();
    assert_eq!(blame["attributions"].as_array().unwrap().len(), 1);
}

#[test]
fn people_read_it_as_they_read_git_blame() {
    let scratch = edited();
    let commit = scratch.commit("agent");
    let answer = scratch.run(&["blame", "main.go"]).well();
    let lines: Vec<&str> = answer.out.lines().collect();
    let short = &commit[..8];
    assert_eq!(
        lines[6],
        format!("{short} AI claude-code claude-opus-4 2026-02-01 00:01  7) func middle() {{")
    );
    assert!(lines[0].contains("    Jane Doe "), "{}", lines[0]);
    assert!(answer.out.contains("\n  asked    add a middle function\n"), "{}", answer.out);
    assert!(answer.out.contains("\n  session  s1\n"), "{}", answer.out);
    assert!(!answer.out.contains('\u{1b}'), "no colour where nobody looks");
    let colour = scratch.run(&["blame", "main.go", "--color", "always", "-l", "7"]).well().out;
    assert!(colour.contains('\u{1b}') && colour.lines().count() < 12, "{colour}");
}

#[test]
fn lines_that_are_not_committed() {
    let mut scratch = edited();
    assert_eq!(scratch.marked("main.go"), EDITED);
    let blame = scratch.run(&["blame", "--json", "main.go"]).json();
    let run = &blame["attributions"][0];
    assert_eq!((&run["source"], &run["signals"]), (&json!("work-tree"), &json!(["trace"])));
    assert!(run.get("commit_sha").is_none());
    assert_eq!(run["prompt"], "add a middle function");
    // A person changes one of them.
    scratch.human("main.go", "agentDoesThat()", "humanDoesThat(1, 2)");
    let expected = EDITED.replace("agentDoesThat() //A", "humanDoesThat(1, 2)");
    assert_eq!(scratch.marked("main.go"), expected);
    // Staged is not committed either; nor is a file that git does not know.
    scratch.git(&["add", "-A"]);
    assert_eq!(scratch.marked("main.go"), expected);
    scratch.agent("dir/new.go", "", "package dir\n\nfunc new() {\n\tmakeIt()\n}\n");
    assert_eq!(
        scratch.marked("dir/new.go"),
        "package dir //A\n //A\nfunc new() { //A\n\tmakeIt() //A\n} //A\n"
    );
    // Renamed and not committed.
    scratch.commit("all");
    scratch.git(&["mv", "main.go", "renamed.go"]);
    scratch.human("renamed.go", "package main\n", "package main\n\n// by hand\n");
    let expected = expected.replace("package main\n", "package main\n\n// by hand\n");
    assert_eq!(scratch.marked("renamed.go"), expected);
}

#[test]
fn one_line_and_some_lines() {
    let scratch = edited();
    scratch.commit("agent");
    let lines = |args: &[&str]| {
        let mut all = vec!["blame", "--json", "--show-no-attribution", "main.go"];
        all.extend(args);
        let blame = scratch.run(&all).json();
        let runs = blame["attributions"].as_array().unwrap().clone();
        let line = |run: &Value, name: &str| run[name].as_u64().unwrap();
        runs.iter().map(|run| (line(run, "start_line"), line(run, "end_line"))).collect::<Vec<_>>()
    };
    assert_eq!(lines(&["-l", "8"]), [(8, 8)]);
    assert_eq!(lines(&["--line", "1"]), [(1, 1)]);
    assert_eq!(lines(&["-r", "6-8"]), [(6, 6), (7, 8)]);
    assert_eq!(lines(&["--range", "12"]), [(12, 12)]);
    assert_eq!(lines(&["-r", "12-1000"]), [(12, 14)]);
    for bad in ["0", "5-2", "x", "15", "900-901", "1-2-3"] {
        let answer = scratch.run(&["blame", "--json", "main.go", "-r", bad]);
        assert_eq!(answer.out, "");
        answer.failure(2);
    }
}

#[test]
fn what_cannot_be_blamed_is_told_with_a_status() {
    let scratch = edited();
    scratch.commit("agent");
    let fails = |args: &[&str], status: i32| {
        let answer = scratch.run(&[&["--json", "blame"], args].concat());
        assert_eq!(answer.out, "", "{args:?}");
        answer.failure(status);
    };
    fails(&["absent.go"], 9);
    fails(&["main.go", "no-such-commit"], 9);
    fails(&["absent.go", "HEAD"], 9);
    fails(&["no/such/dir/main.go"], 9);
    fails(&["."], 2);
    fails(&["main.go", "-p", "at-0123"], 9);
    let outside = scratch.outside("no repository");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("a.txt"), "a\n").unwrap();
    let answer = scratch.run_in(&outside, &["--json", "blame", "a.txt"]);
    assert_eq!(answer.out, "");
    answer.failure(2);
    let plain = scratch.run(&["blame", "absent.go"]);
    assert_eq!((plain.status, plain.out.as_str()), (9, ""));
    assert!(plain.err.contains("there is no file `absent.go`"), "{}", plain.err);
}

#[test]
fn attribution_can_be_required() {
    let scratch = edited();
    scratch.commit("agent");
    let status =
        |range: &str| scratch.run(&["blame", "main.go", "--require-attribution", "-r", range]).status;
    assert_eq!(status("7-11"), 0);
    assert_eq!(status("6-11"), 1);
    assert_eq!(status("7-12"), 1);
    // A person's line in the middle counts.
    scratch.human("main.go", "\tagentDoesThat()\n", "\tbyHandInTheMiddle()\n\tagentDoesThat()\n");
    scratch.commit("human");
    assert_eq!(status("7-12"), 1);
    assert_eq!(scratch.run(&["blame", "main.go", "--require-attribution", "--json"]).status, 1);
}

/// The form of git, with what is known of agents between.
#[test]
fn editors_read_the_form_of_git() {
    let scratch = edited();
    scratch.commit("agent");
    scratch.git(&["mv", "main.go", "new \"name\".go"]);
    scratch.human("new \"name\".go", "\trest()\n", "\trest()\n\tmore()\n");
    scratch.commit("renamed");
    for form in ["--porcelain", "--line-porcelain"] {
        let expected = scratch.git(&["blame", form, "--", "new \"name\".go"]);
        let ours = scratch.run(&["blame", form, "new \"name\".go"]).well().out;
        let (own, rest): (Vec<&str>, Vec<&str>) =
            ours.lines().partition(|line| line.starts_with("agent-trace-"));
        assert_eq!(rest.join("\n"), expected.trim_end_matches('\n'), "{form}");
        assert_eq!(own.iter().filter(|line| **line == "agent-trace-kind AI").count(), 5);
        assert!(own.contains(&"agent-trace-session s1"), "{own:?}");
    }
}

#[test]
fn an_older_commit_is_asked_about() {
    let scratch = edited();
    let first = scratch.commit("agent");
    scratch.human("main.go", ADDED, "");
    scratch.commit("removed");
    assert_eq!(scratch.marked("main.go"), BASE);
    let blame = scratch.run(&["blame", "--json", "main.go", &first]).json();
    assert_eq!((&blame["lines_ai"], &blame["revision"]), (&json!(5), &json!(first)));
    let blame = scratch.run(&["blame", "--json", "main.go", "HEAD~1"]).json();
    assert_eq!(blame["lines_ai"], 5);
    // A file that is gone by now, in a directory that is gone.
    scratch.write("gone/dir/a.txt", "x\n");
    scratch.commit("more");
    fs::remove_dir_all(scratch.path("gone")).unwrap();
    scratch.commit("less");
    let blame = scratch.run(&["blame", "--json", "gone/dir/a.txt", "HEAD~1"]).json();
    assert_eq!((&blame["file"], &blame["lines"]), (&json!("gone/dir/a.txt"), &json!(1)));
}

/// The peer finds nothing there, or says nothing (W16, W19, W20).
#[test]
fn edits_within_lines_windows_line_ends_odd_bytes_and_names() {
    let mut scratch = Scratch::new();
    scratch.write("a.py", "def f(a, b):\n    return a + b\n\nprint(f(1, 2))\n");
    scratch.write("crlf.txt", "one\r\ntwo\r\n");
    scratch.write("latin.txt", b"caf\xe9 au lait\nsecond line\n");
    scratch.commit("base");
    scratch.agent("a.py", "a + b", "a * b");
    scratch.agent("crlf.txt", "two\r\n", "two\r\nan agent says this\r\n");
    scratch.agent("t\u{e4}st f\u{f6}lder/na\u{ef}ve \"q\".txt", "", "written by an agent\nin two lines\n");
    scratch.commit("agent");
    assert_eq!(scratch.marked("a.py"), "def f(a, b):\n    return a * b //A\n\nprint(f(1, 2))\n");
    assert_eq!(scratch.marked("crlf.txt"), "one\ntwo\nan agent says this //A\n");
    assert_eq!(
        scratch.marked("t\u{e4}st f\u{f6}lder/na\u{ef}ve \"q\".txt"),
        "written by an agent //A\nin two lines //A\n"
    );
    let blame = scratch.run(&["blame", "--json", "--show-no-attribution", "latin.txt"]).json();
    assert_eq!((&blame["lines"], &blame["lines_ai"]), (&json!(2), &json!(0)));
    let shown = scratch.run(&["blame", "latin.txt"]).well().out;
    assert!(shown.contains("caf\u{fffd} au lait"), "{shown}");
    let exact = scratch.run(&["blame", "--porcelain", "latin.txt"]).well().bytes;
    assert!(exact.windows(5).any(|part| part == b"caf\xe9 "));
    // A name with a line feed.
    scratch.agent("new\nline.txt", "", "more of an agent\nin two lines\n");
    scratch.commit("odd name");
    assert_eq!(scratch.marked("new\nline.txt"), "more of an agent //A\nin two lines //A\n");
}

/// A rename keeps authors, deleted lines shift no numbers, a gap stays a gap (W20 to W22).
#[test]
fn renames_deletions_and_gaps() {
    let mut scratch = edited();
    scratch.agent("main.go", "\trest()\n", "\trest()\n\tagentFinishes()\n");
    scratch.commit("agent");
    scratch.git(&["mv", "main.go", "moved.go"]);
    scratch.commit("renamed");
    let expected = EDITED.replace("\trest()\n", "\trest()\n\tagentFinishes() //A\n");
    assert_eq!(scratch.marked("moved.go"), expected);
    scratch.human("moved.go", "\tagentDoesThis()\n", "");
    scratch.commit("shorter");
    assert_eq!(scratch.marked("moved.go"), expected.replace("\tagentDoesThis() //A\n", ""));
    let blame = scratch.run(&["blame", "--json", "--show-no-attribution", "moved.go"]).json();
    let mut next = 1;
    for run in blame["attributions"].as_array().unwrap() {
        assert_eq!(run["start_line"], next, "nothing is left out");
        next = run["end_line"].as_u64().unwrap() + 1;
    }
    assert_eq!(next, 15);
}

/// A line that a person typed stays theirs, however many agents have written the same (W18, W23).
#[test]
fn equal_lines_of_people_and_files_with_like_names() {
    let mut scratch = Scratch::new();
    scratch.write("utils.py", "import os\n");
    scratch.write("my_utils.py", "import os\n");
    scratch.commit("base");
    let function = "def agent_made(x):\n    if x is None:\n        return None\n    return x\n";
    scratch.agent("my_utils.py", "import os\n", &format!("import os\n\n{function}"));
    scratch.commit("agent");
    scratch.human("utils.py", "import os\n", "import os\n\ndef by_hand(y):\n    return None\n    return x\n");
    scratch.commit("human");
    assert_eq!(scratch.marked("utils.py"), scratch.read("utils.py"));
    assert!(scratch.marked("my_utils.py").contains("        return None //A\n"));
}

#[test]
fn subdirectories_worktrees_and_other_repositories() {
    let mut scratch = edited();
    scratch.agent("src/deep/a.go", "", "package deep\n\nfunc deep() {}\n");
    scratch.commit("agent");
    let check = |directory: &Path, args: &[&str], file: &str, count: u64| {
        let blame = scratch.run_in(directory, &[&["--json", "blame"], args].concat()).json();
        assert_eq!((&blame["file"], &blame["lines_ai"]), (&json!(file), &json!(count)), "{args:?}");
    };
    let deep = scratch.path("src/deep");
    check(&deep, &["a.go"], "src/deep/a.go", 3);
    check(&deep, &["../../main.go"], "main.go", 5);
    check(&scratch.repository, &["-C", "src", "deep/a.go"], "src/deep/a.go", 3);
    // From elsewhere, by an absolute path or with the project.
    let outside = scratch.outside("home");
    check(&outside, &[scratch.path("main.go").to_str().unwrap()], "main.go", 5);
    check(&outside, &["main.go", "-p", scratch.repository.to_str().unwrap()], "main.go", 5);
    let registry = json!({"version": 2, "projects": {"at-1": {"canonical_root": scratch.repository}}});
    fs::create_dir_all(outside.join(".agent-trace")).unwrap();
    fs::write(outside.join(".agent-trace/projects.json"), registry.to_string()).unwrap();
    check(&outside, &["main.go", "--project", "at-1"], "main.go", 5);
    // A linked worktree has the same store.
    scratch.git(&["worktree", "add", "-q", "../linked", "HEAD"]);
    check(&scratch.outside("linked"), &["main.go"], "main.go", 5);
    // A bare repository has commits only.
    scratch.git(&["clone", "-q", "--bare", ".", "../bare.git"]);
    let id = fs::read(scratch.path(".git/agent-trace-id")).unwrap();
    fs::write(scratch.outside("bare.git/agent-trace-id"), id).unwrap();
    check(&scratch.outside("bare.git"), &["src/deep/a.go"], "src/deep/a.go", 3);
    check(&scratch.outside("bare.git"), &["main.go", "HEAD"], "main.go", 5);
}

#[test]
fn nothing_harmful_reaches_the_terminal() {
    let mut scratch = Scratch::new();
    scratch.write("a.txt", "one\n\u{1b}[31mred\u{7}\u{202e}\n");
    scratch.commit("base \u{1b}[2J");
    scratch.session("s\u{1b}1", &[("clear \u{1b}[2J the screen", &["call-1"])]);
    let edit = Edit {
        path: "a.txt",
        old: "one\n",
        new: "one\n\tagent \u{9b}31m text\n",
        session: "s\u{1b}1",
        tool_use: "call-1",
    };
    scratch.edit(edit);
    scratch.commit("agent");
    for args in [
        &["blame", "a.txt"][..],
        &["context", "a.txt"],
        &["context", "a.txt", "--full"],
        &["search", "clear"],
    ] {
        let answer = scratch.run(args).well();
        let bad = |char: char| char.is_control() && char != '\n' && char != '\t' || char == '\u{202e}';
        assert!(!answer.out.contains(bad) && !answer.err.contains(bad), "{args:?}: {:?}", answer.out);
        assert!(answer.out.contains("\\u{1b}"), "{args:?}: {}", answer.out);
    }
    let json = scratch.run(&["blame", "--json", "a.txt"]).well().out;
    assert!(!json.trim_end().contains(char::is_control), "{json:?}");
}

/// Many commits of people cost nothing each (W38).
#[test]
fn many_commits_of_people() {
    let scratch = Scratch::new();
    let mut text = String::new();
    for number in 0..40 {
        text.push_str(&format!("line {number} of somebody\n"));
        scratch.write("many.txt", &text);
        scratch.git(&["add", "-A"]);
        scratch.git(&["commit", "-q", "-m", "more"]);
    }
    scratch.run(&["link", "--all"]).well();
    assert_eq!(scratch.marked("many.txt"), text);
}

/// As in a hook of git, or for whoever keeps the repository apart from its files.
#[test]
fn the_repository_that_the_surroundings_name() {
    let mut scratch = edited();
    scratch.agent("src/deep/a.go", "", "package deep\n\nfunc deep() {}\n");
    scratch.commit("agent");
    let check = |directory: &str, variables: &[(&str, &Path)], file: &str, expected: &str| {
        let mut command =
            support::command(support::PROGRAM, &scratch.path(directory), &scratch.outside("home"));
        let output =
            command.envs(variables.iter().copied()).args(["blame", "--json", file]).output().unwrap();
        let blame: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!((&blame["file"], blame["lines_ai"].as_u64() > Some(0)), (&json!(expected), true));
        assert_eq!(blame["attributions"][0]["source"], "ledger");
    };
    let (git_dir, root) = (scratch.path(".git"), scratch.repository.clone());
    check("", &[("GIT_DIR", &git_dir)], "src/deep/a.go", "src/deep/a.go");
    check("", &[("GIT_DIR", Path::new(".git"))], "./main.go", "main.go");
    check("src/deep", &[("GIT_DIR", &git_dir), ("GIT_WORK_TREE", &root)], "../../main.go", "main.go");
    check("src", &[("GIT_DIR", &git_dir), ("GIT_WORK_TREE", &root)], "deep/a.go", "src/deep/a.go");
}

/// A trace of agent-trace-cli says no more than which lines an agent wrote.
#[test]
fn traces_of_another_program_are_attributed_by_their_lines() {
    let scratch = Scratch::new();
    scratch.write("a.txt", "one\ntwo\nthree\n");
    scratch.commit("base");
    let lines = ["    let value_one = compute(1, 2);", "    let value_two = compute(3, 4);", "}"];
    let hashes = lines
        .iter()
        .enumerate()
        .map(|(at, line)| json!({"line_offset": at, "hash": format!("sha256:{}", scratch::hash(line))}));
    let conversation = json!({"contributor": {"type": "ai", "model_id": "m"}, "id": "c1",
        "ranges": [{"start_line": 2, "end_line": 4, "line_hashes": hashes.collect::<Vec<Value>>()}]});
    let id = "5ce2bf05-fca1-4d2e-a9b0-000000000001";
    let trace = support::trace(id, "2026-01-01T00:00:00Z", "a.txt", json!([conversation]));
    fs::write(scratch.outside("trace.json"), trace.to_string()).unwrap();
    scratch.run(&["import", scratch.outside("trace.json").to_str().unwrap()]).well();
    scratch.human("a.txt", "one\n", &format!("one\n{}\n", lines.join("\n")));
    scratch.human("a.txt", "three\n", "three\n}\n");
    let expected = format!("one\n{} //A\ntwo\nthree\n}}\n", lines.join(" //A\n"));
    assert_eq!(scratch.marked("a.txt"), expected);
    scratch.commit("agent");
    assert_eq!(scratch.marked("a.txt"), expected);
    let blame = scratch.run(&["blame", "--json", "a.txt"]).json();
    assert_eq!(blame["attributions"][0]["how"], "found");
}

/// No hook has told of the commits: a pull, another machine, hooks that were taken out.
#[test]
fn commits_of_which_no_hook_has_told() {
    let mut scratch = edited();
    let commit = |scratch: &Scratch, message: &str| {
        scratch.git(&["-c", "core.hooksPath=/dev/null", "add", "-A"]);
        scratch.git(&["-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", message]);
    };
    scratch.human("main.go", "\twork()", "\twork()\n\tpeople(\"first\")");
    commit(&scratch, "people");
    let before = scratch.marked("main.go");
    scratch.agent(
        "main.go",
        "\tpeople(\"first\")",
        "\tpeople(\"first\")\n\tagentDoes(this, that)\n\tagentDoes(more, things)",
    );
    scratch.human(
        "main.go",
        "\tagentDoes(more, things)",
        "\tagentDoes(more, than, things)\n\tagentDoes(this, that)",
    );
    commit(&scratch, "both");
    let marked = scratch.marked("main.go");
    let expected = before.replacen(
        "\tpeople(\"first\")\n",
        "\tpeople(\"first\")\n\tagentDoes(this, that) //A\n\tagentDoes(more, than, things)\n\tagentDoes(this, that)\n",
        1,
    );
    assert_eq!(marked, expected);
    // Asking has written nothing; what is written down later says the same.
    let ledgers =
        |scratch: &Scratch| scratch.run(&["log", "--json", "--kind", "ledger"]).well().out.lines().count();
    let count = ledgers(&scratch);
    let answer = scratch.run(&["blame", "main.go"]).well();
    assert!(answer.err.contains("agent-trace link --all links 2 commit"), "{}", answer.err);
    assert_eq!(ledgers(&scratch), count);
    let context = scratch.run(&["context", "--json", "main.go"]).json();
    assert!(context["segments"].to_string().contains("call-"), "{context}");
    scratch.run(&["link", "--all"]).well();
    assert_eq!(ledgers(&scratch), count + 2);
    assert_eq!(scratch.marked("main.go"), marked);
    assert!(!scratch.run(&["blame", "main.go"]).well().err.contains("link --all"));
}
