//! `context` and `search` from outside: what was said behind lines, and where words stand.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use serde_json::{Value, json};

use scratch::{Edit, Scratch};

mod scratch;
mod support;

const FIRST: &str = "def first():\n    return compute_the_first()\n";
const SECOND: &str = "def second():\n    return compute_the_second()\n";

/// Two functions by two sessions, and a person's line.
fn told() -> Scratch {
    let mut scratch = Scratch::new();
    scratch.write("a.py", "# by hand\n");
    scratch.commit("base");
    scratch.session("s1", &[("greet me", &[]), ("write the first function", &["t1"]), ("thanks", &[])]);
    scratch.session("s2", &[("write the second, with Zebras", &["t2"])]);
    let (first, second) = (format!("# by hand\n{FIRST}"), format!("# by hand\n{SECOND}"));
    scratch.edit(Edit { path: "a.py", old: "# by hand\n", new: &first, session: "s1", tool_use: "t1" });
    scratch.edit(Edit { path: "a.py", old: "# by hand\n", new: &second, session: "s2", tool_use: "t2" });
    scratch.commit("agents");
    scratch
}

#[test]
fn a_conversation_that_a_pull_left_out_is_fetched_by_context_and_by_nobody_else() {
    let scratch = told();
    let remote = format!("file://{}", scratch.outside("team").display());
    std::fs::create_dir_all(scratch.outside("team")).unwrap();
    scratch.run(&["remote", "add", "team", &remote]).well();
    scratch.run(&["push", "--full"]).well();
    std::fs::rename(scratch.outside("home"), scratch.outside("old home")).unwrap();
    std::fs::create_dir_all(scratch.outside("home")).unwrap();
    scratch.run(&["init"]).well();
    scratch.run(&["remote", "add", "team", &remote]).well();
    scratch.run(&["pull", "--no-transcripts"]).well();
    let line = || scratch.run(&["blame", "--json", "a.py", "-l", "4"]).json()["attributions"][0].clone();
    assert_eq!((&line()["kind"], &line()["prompt"]), (&serde_json::json!("AI"), &Value::Null));
    scratch.run(&["show", "HEAD"]).well();
    assert_eq!(scratch.run(&["search", "--json", "greet"]).well().out, "");
    std::fs::rename(scratch.outside("team"), scratch.outside("away")).unwrap();
    scratch.run(&["context", "--json", "a.py", "-l", "4"]).failure(5);
    std::fs::rename(scratch.outside("away"), scratch.outside("team")).unwrap();
    let context = scratch.run(&["context", "--json", "a.py", "-l", "4"]).json();
    assert!(!texts(&context["segments"][0]).is_empty(), "{context}");
    assert_ne!(line()["prompt"], Value::Null);
}

fn texts(segment: &Value) -> Vec<(&str, &str, bool)> {
    let turns = segment["turns"].as_array().unwrap();
    turns
        .iter()
        .map(|turn| {
            (turn["role"].as_str().unwrap(), turn["text"].as_str().unwrap(), turn["edit"].as_bool().unwrap())
        })
        .collect()
}

#[test]
fn the_conversation_behind_lines() {
    let scratch = told();
    let context = scratch.run(&["context", "a.py", "--json"]).json();
    assert_eq!((&context["schema"], &context["file"]), (&json!("agent-trace/context/1"), &json!("a.py")));
    let segments = context["segments"].as_array().unwrap();
    let kinds: Vec<_> = segments
        .iter()
        .map(|segment| {
            (segment["start_line"].clone(), segment["attribution"].clone(), segment["session_id"].clone())
        })
        .collect();
    assert_eq!(
        kinds,
        [
            (json!(1), json!("no_attribution"), Value::Null),
            (json!(2), json!("ai"), json!("s2")),
            (json!(4), json!("ai"), json!("s1")),
        ]
    );
    let first = &segments[2];
    assert_eq!(first["tool"], "claude-code");
    assert_eq!(first["confidence"], 0.0);
    assert_eq!(first["prompt"], "write the first function");
    assert_eq!(first["preview"], "write the first function");
    assert_eq!(first["conversation_size"]["turns"], 9);
    assert_eq!(
        texts(first),
        [
            ("user", "write the first function", false),
            ("agent", "Answer to: write the first function", false),
            ("tool", "file_path: /w/main.go\nnew_string: text of the call", true),
            ("agent", "Done.", false),
        ]
    );
    assert_eq!(first["cut"], true);
    assert!(first.get("conversation_content").is_none());
    let one = scratch.run(&["context", "a.py", "--json", "-l", "5"]).json();
    assert_eq!(one["segments"].as_array().unwrap().len(), 1);
    assert_eq!(one["segments"][0]["start_line"], 5);
    let human = scratch.run(&["context", "a.py"]).well().out;
    for part in
        ["a.py lines 2-3", "session s2", "user\n    write the second, with Zebras", "tool Edit (these lines)"]
    {
        assert!(human.contains(part), "{part}: {human}");
    }
    assert_eq!(scratch.run(&["context", "a.py", "-l", "0", "--json"]).failure(2)["kind"], "invalid");
    scratch.run(&["context", "absent.py", "--json"]).failure(9);
}

#[test]
fn all_of_it_and_only_what_has_the_words() {
    let scratch = told();
    let full = scratch.run(&["context", "a.py", "--json", "--full", "-l", "4-5"]).json();
    let segment = &full["segments"][0];
    assert_eq!(segment["turns"].as_array().unwrap().len(), 11);
    assert!(segment["conversation_content"].as_str().unwrap().contains("\"cwd\":\"/w\""));
    assert_eq!(segment["cut"], false);
    // As users of agent-trace-cli spell it, and in full.
    for option in ["-q", "--query"] {
        let found = scratch.run(&["context", "a.py", "--json", option, "zebras SECOND"]).json();
        let segments = found["segments"].as_array().unwrap();
        assert_eq!(segments.len(), 1);
        assert_eq!(
            (&segments[0]["session_id"], &segments[0]["query"]),
            (&json!("s2"), &json!("zebras SECOND"))
        );
        assert!(texts(&segments[0]).contains(&("user", "write the second, with Zebras", false)));
    }
    let none = scratch.run(&["context", "a.py", "-q", "elephants"]).well();
    assert_eq!(none.out, "");
    assert!(none.err.contains("no conversation"), "{}", none.err);
}

#[test]
fn a_trace_whose_transcript_is_not_here() {
    let mut scratch = Scratch::new();
    scratch.write("a.py", "# by hand\n");
    scratch.commit("base");
    scratch.agent("a.py", "# by hand\n", &format!("# by hand\n{FIRST}"));
    scratch.commit("agent");
    let context = scratch.run(&["context", "a.py", "--json", "-l", "2"]).json();
    let segment = &context["segments"][0];
    assert_eq!((&segment["attribution"], &segment["conversation_size"]), (&json!("ai"), &Value::Null));
    let human = scratch.run(&["context", "a.py"]).well().out;
    assert!(human.contains("is not in this store"), "{human}");
    let blame = scratch.run(&["blame", "--json", "a.py"]).json();
    assert!(blame["attributions"][0].get("prompt").is_none());
}

fn hits(scratch: &Scratch, args: &[&str]) -> Vec<Value> {
    let answer = scratch.run(&[&["search", "--json"], args].concat()).well();
    answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn words_are_found_in_prompts_answers_and_calls() {
    let scratch = told();
    let found = hits(&scratch, &["zebras"]);
    assert_eq!(found.len(), 2, "{found:?}");
    let prompt = found.iter().find(|hit| hit["role"] == "user").unwrap();
    assert_eq!(prompt["text"], "write the second, with Zebras");
    assert_eq!((&prompt["session_id"], &prompt["agent"]), (&json!("s2"), &json!("Claude Code")));
    let answer = found.iter().find(|hit| hit["role"] == "agent").unwrap();
    assert_eq!(answer["prompt"], "write the second, with Zebras");
    // All words, in one turn.
    assert_eq!(hits(&scratch, &["zebras", "first"]).len(), 0);
    assert_eq!(hits(&scratch, &["write", "FIRST", "answer"]).len(), 1);
    // Names of files stand in the calls.
    let calls = hits(&scratch, &["main.go"]);
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|hit| hit["role"] == "tool" && hit["tool"] == "Edit"));
    assert_eq!(hits(&scratch, &["text", "--path", "main.go"]).len(), 2);
    assert_eq!(hits(&scratch, &["text", "--path", "other.go"]).len(), 0);
}

#[test]
fn the_newest_come_first_and_filters_hold() {
    let scratch = told();
    let found = hits(&scratch, &["done"]);
    assert_eq!(found.len(), 4);
    let times: Vec<&str> = found.iter().map(|hit| hit["time"].as_str().unwrap()).collect();
    let mut sorted = times.clone();
    sorted.sort_unstable_by(|one, two| two.cmp(one));
    assert_eq!(times, sorted);
    assert_eq!(hits(&scratch, &["done", "-n", "1"]).len(), 1);
    assert_eq!(hits(&scratch, &["done", "--agent", "claude-code"]).len(), 4);
    assert_eq!(hits(&scratch, &["done", "--agent", "codex"]).len(), 0);
    assert_eq!(hits(&scratch, &["done", "--since", "2026-02-01T00:02:00Z"]).len(), 1);
    assert_eq!(hits(&scratch, &["done", "--since", "2027-01-01"]).len(), 0);
    let human = scratch.run(&["search", "zebras"]).well();
    assert!(human.out.contains("s2") && human.out.contains("with Zebras"), "{}", human.out);
    let none = scratch.run(&["search", "elephants"]).well();
    assert!(none.out.is_empty() && none.err.contains("no transcript"), "{}", none.err);
}

#[test]
fn a_transcript_that_has_grown_is_found_once() {
    let scratch = told();
    scratch.session("s2", &[("write the second, with Zebras", &["t2"]), ("and with Zebras again", &[])]);
    let prompts = hits(&scratch, &["zebras"]).into_iter().filter(|hit| hit["role"] == "user").count();
    assert_eq!(prompts, 2);
}

#[test]
fn the_examples_of_the_contract_are_true() {
    let scratch = told();
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let page = std::fs::read_to_string(page).unwrap();
    support::check_example(&page, &scratch.run(&["blame", "--json", "a.py", "-l", "4"]).json());
    support::check_example(&page, &scratch.run(&["context", "--json", "a.py", "-l", "4"]).json());
    support::check_example(&page, &hits(&scratch, &["zebras"])[0]);
    support::check_example(&page, &scratch.run(&["rule", "list", "--json"]).json());
    support::check_example(&page, &scratch.run(&["config", "show", "--json"]).json());
    support::check_example(&page, &scratch.run(&["projects", "--json"]).json());
    let summary = ["summary", "generate", "--session-id", "s1", "--json"];
    support::check_example(&page, &scratch.run(&summary).json());
}

#[test]
fn a_commit_is_summed_up_and_lines_are_counted() {
    let scratch = told();
    let head = scratch.git(&["rev-parse", "HEAD"]);
    let shown = scratch.run(&["show", "--json", &head]).json();
    assert_eq!(shown["commit"]["lines"], 4);
    assert_eq!(shown["commit"]["files"], json!([{"path": "a.py", "lines": 4}]));
    assert_eq!(shown["commit"]["agents"], json!({"claude-code": 4}));
    assert_eq!(shown["commit"]["traces"][0]["prompt"], "write the first function");
    let human = scratch.run(&["show", &head]).well().out;
    assert!(
        human.starts_with(&format!("commit {head}\nlines    4 of agents: 4 of claude-code\n")),
        "{human}"
    );
    assert!(human.contains("asked: write the first function"), "{human}");
    assert_eq!(scratch.run(&["show", "HEAD"]).well().out, human);
    let stats = scratch.run(&["stats", "--json"]).json();
    let lines = json!({"agent": {"claude-code": 4}, "model": {"anthropic/claude-opus-4": 4}});
    assert_eq!(stats["lines"], lines);
    // A rewritten commit counts once.
    scratch.git(&["commit", "-q", "--amend", "-m", "again"]);
    scratch.run(&["commit-link"]).well();
    let by = ["person", "folder", "month"].map(|by| ["--by", by]).concat();
    let stats = scratch.run(&[&["stats", "--json"], &by[..]].concat()).json();
    let lines = json!({"person": {"Jane Doe": 4}, "folder": {"./": 4}, "month": {"2026-03": 4}});
    assert_eq!(stats["lines"], lines);
    let human = scratch.run(&["stats", "--by", "person"]).well().out;
    assert!(human.contains("lines by person\n  Jane Doe"), "{human}");
    let log = scratch.run(&["log", "--kind", "trace", "-n", "1"]).well().out;
    assert!(log.contains("a.py:2-3"), "{log}");
    let log = scratch.run(&["log", "--kind", "ledger", "-n", "1"]).well().out;
    assert!(log.contains("4 lines in 1 file(s)"), "{log}");
}

#[test]
fn a_rule_is_written_and_removed_and_nothing_of_the_user_s_is_touched() {
    let scratch = told();
    for (tool, file) in [
        ("cursor", ".cursor/rules/agent-trace-context-for-agents.mdc"),
        ("claude", ".claude/rules/agent-trace-context-for-agents.md"),
        ("codex", ".codex/rules/agent-trace-context-for-agents.md"),
    ] {
        let args = |what| ["rule", what, "context-for-agents", "-t", tool];
        scratch.run(&args("add")).well();
        scratch.run(&args("add")).well();
        assert!(scratch.read(file).contains("agent-trace context FILE"), "{file}");
        let listed = scratch.run(&["rule", "list", "--json"]).json();
        let tools = listed["tools"].as_array().unwrap();
        assert!(tools.iter().any(|one| one["tool"] == tool && one["written"] == true && one["path"] == file));
        scratch.run(&args("remove")).well();
        assert!(!scratch.path(file).exists());
        scratch.run(&args("remove")).well();
        scratch.write(file, "the user's own\n");
        assert_eq!(scratch.run(&args("add")).status, 2);
        assert_eq!(scratch.run(&args("remove")).status, 2);
        assert_eq!(scratch.read(file), "the user's own\n");
    }
    assert_eq!(scratch.run(&["rule", "add", "other", "-t", "claude"]).status, 9);
    assert!(scratch.run(&["rule", "show"]).well().out.contains("agent-trace blame"));
}

#[test]
fn summaries_are_extracts_or_what_the_user_s_command_makes() {
    let scratch = told();
    let extract = scratch.run(&["summary", "generate", "--session-id", "s1"]).well().out;
    assert_eq!(extract, "Asked: greet me\n\nAnswered: Done.\n");
    let enabled = scratch.run(&["summary", "enable", "--command", "wc -l; echo of it", "--json"]).json();
    assert_eq!((&enabled["command"], &enabled["timeout_seconds"]), (&json!("wc -l; echo of it"), &json!(30)));
    let made = scratch.run(&["summary", "generate", "--session-id", "s1", "--json"]).json();
    assert_eq!(made["summaries"][0]["summary"], "11\nof it");
    let conversation = made["summaries"][0]["conversation_id"].as_str().unwrap();
    let shown = scratch.run(&["summary", "show", conversation]).well().out;
    assert!(shown.ends_with("11\nof it\n"), "{shown}");
    scratch.run(&["summary", "enable", "--command", "exit 1"]).well();
    assert_eq!(scratch.run(&["summary", "generate", "--session-id", "s1"]).status, 1);
    let used = scratch.run(&["summary", "use", "ollama-summary", "--model", "m:1", "--json"]).json();
    assert!(used["command"].as_str().unwrap().starts_with("ollama run m:1 "));
    assert_eq!(scratch.run(&["summary", "use", "nothing"]).status, 9);
    scratch.run(&["summary", "disable"]).well();
    assert_eq!(scratch.run(&["summary", "generate", "--session-id", "s1"]).well().out, extract);
    assert!(scratch.run(&["summary", "presets"]).well().out.contains("claude-summary"));
    assert_eq!(scratch.run(&["summary", "generate", "--conversation", "none"]).status, 9);
    // A repository's own file starts nothing.
    scratch.write("project-config.json", "{\"summary\":{\"enabled\":true,\"command\":\"touch bad\"}}");
    scratch.run(&["summary", "generate", "--session-id", "s2"]).well();
    assert!(!scratch.path("bad").exists());
}

#[test]
fn settings_are_set_reset_and_shown_with_their_origin() {
    let scratch = told();
    let setting = |field: &str| {
        let shown = scratch.run(&["config", "show", "--json"]).json();
        let settings = shown["settings"].as_array().unwrap().clone();
        let found = settings.into_iter().find(|setting| setting["field"] == field).unwrap();
        (found["value"].clone(), found["origin"].as_str().unwrap().to_owned())
    };
    assert_eq!(setting("notes.push"), (json!(false), "default".to_owned()));
    scratch.run(&["config", "set", "notes.push", "enable"]).well();
    assert_eq!(setting("notes.push"), (json!(true), "project".to_owned()));
    scratch.run(&["config", "set", "summary.timeout-seconds", "5"]).well();
    assert_eq!(setting("summary.timeout-seconds").0, 5);
    scratch.run(&["config", "set", "global.auth-token", "at_hidden"]).well();
    let shown =
        scratch.run(&["config", "show", "--json"]).well().out + &scratch.run(&["config", "show"]).well().out;
    assert!(!shown.contains("at_hidden") && shown.contains("(set)"), "{shown}");
    assert_eq!(setting("global.auth-token").1, "global");
    for bad in [["notes.push", "perhaps"], ["no.such", "1"], ["summary.timeout-seconds", "0"]] {
        assert_eq!(scratch.run(&["config", "set", bad[0], bad[1]]).status, 2, "{bad:?}");
    }
    assert_ne!(scratch.run(&["config", "set", "remote.default", "nowhere"]).status, 0);
    scratch.run(&["config", "reset", "notes", "--yes"]).well();
    scratch.run(&["config", "reset", "global.auth-token"]).well();
    assert_eq!(setting("notes.push").1, "default");
    assert_eq!(setting("global.auth-token").1, "default");
    assert_eq!(setting("summary.timeout-seconds").1, "project");
    // What is not ours in the files stays.
    let id = scratch.run(&["projects", "--json"]).json()["id"].as_str().unwrap().to_owned();
    let file = scratch.outside("home").join(".agent-trace/projects").join(&id).join("project-config.json");
    std::fs::write(&file, "{\"theirs\":1,\"notes\":{\"other\":2}}").unwrap();
    scratch.run(&["config", "set", "notes.enabled", "off"]).well();
    scratch.run(&["config", "reset", "notes"]).well();
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept, json!({"theirs": 1, "notes": {"other": 2}}));
    assert!(scratch.run(&["projects", "show", &id[..10]]).well().out.contains(&id));
    assert_eq!(scratch.run(&["projects", "show", "at-nothing"]).status, 9);
}

#[test]
fn a_repository_is_adopted_and_then_known_by_its_id() {
    let scratch = told();
    scratch.git(&["remote", "add", "origin", "https://user:hidden@host/o/p"]);
    let known = scratch.run(&["adopt", "--json"]).json();
    let id = known["id"].as_str().unwrap();
    assert_eq!(known["canonical_root"], scratch.repository.to_str().unwrap());
    assert_eq!(known["origin_url"], "https://host/o/p");
    assert_eq!(known["first_commit_sha"].as_str().unwrap().len(), 40);
    let outside = scratch.outside("home");
    let again = scratch.run_in(&outside, &["adopt", scratch.repository.to_str().unwrap()]).well().out;
    assert_eq!(again.trim(), id);
    let blame = scratch.run_in(&outside, &["blame", "--json", "a.py", "-p", id]).json();
    assert_eq!(blame["lines_ai"], 4);
    let registry = std::fs::read_to_string(outside.join(".agent-trace/projects.json")).unwrap();
    assert!(!registry.contains("hidden") && registry.contains("\"version\": 2"), "{registry}");
    assert_eq!(scratch.run(&["adopt", "no/such/place"]).status, 9);
    assert_eq!(scratch.run_in(&outside, &["adopt"]).status, 2);
}
