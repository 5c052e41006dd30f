//! The privacy gate from outside: what is found, what stops a push, what a user can allow, and that no secret is ever
//! printed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

#[path = "../../benches/src/planted.rs"]
mod planted;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use planted::{Form, Random, plant};
use serde_json::{Value, json};
use support::{PROGRAM, check_example};
use tempfile::TempDir;

const TOKEN: &str = "ghp_f4Kz9Qw81LmXf2Nz7Qc81LmXa4Kz9Qw83LpX";
const OTHER: &str = "glpat-f4Kz9Qw81LmXf2Nz7Qc8";

/// A repository with a store, and a home of its own.
struct World {
    root: TempDir,
}

struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    #[track_caller]
    fn ends(self, status: i32) -> Answer {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

impl World {
    fn new() -> World {
        let world = World { root: tempfile::tempdir().unwrap() };
        fs::create_dir(world.path("r")).unwrap();
        let git =
            support::command("git", &world.path("r"), &world.path("home")).args(["init", "-q", "."]).output();
        assert!(git.unwrap().status.success());
        world.run(&["init", "--no-hooks"]).ends(0);
        world.run(&["remote", "add", "team", &format!("file://{}", world.path("team").display())]).ends(0);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn data(&self) -> PathBuf {
        let projects = fs::read_dir(self.path("home/.agent-trace/projects")).unwrap();
        projects.map(|entry| entry.unwrap().path()).next().unwrap()
    }

    /// Runs the program; nothing that it says may hold one of the secrets.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Answer {
        let mut command = support::command(PROGRAM, &self.path("r"), &self.path("home"));
        let output = command.args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let answer = Answer {
            status: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        for secret in [TOKEN, OTHER, &TOKEN[8..20], &OTHER[8..20]] {
            let is_shown = answer.out.contains(secret) || answer.err.contains(secret);
            assert!(!is_shown, "{args:?} prints a secret");
        }
        answer
    }

    fn import(&self, name: &str, lines: &[String]) {
        fs::write(self.path(name), lines.concat()).unwrap();
        self.run(&["import", &self.path(name).display().to_string()]).ends(0);
    }

    fn heads(&self) -> usize {
        fs::read_dir(self.path("team/heads")).map_or(0, Iterator::count)
    }

    fn segments(&self) -> usize {
        fs::read_dir(self.path("team/segments")).map_or(0, Iterator::count)
    }
}

/// A line of a transcript.
fn line(number: usize, text: &str) -> String {
    let line = json!({"type": "user", "sessionId": "f6b7329a-914c-4f62-8090-4e29b032b173", "version": "2.1.62",
        "uuid": format!("u{number}"), "timestamp": "2026-03-25T00:33:23.371Z", "cwd": "/work",
        "message": {"role": "user", "content": text}});
    format!("{line}\n")
}

fn lines(count: usize, secret_at: Option<usize>) -> Vec<String> {
    let text = |number: usize| match secret_at == Some(number) {
        true => format!("the output was\n{TOKEN}\nand no more"),
        false => format!("message number {number} of a long conversation about a parser"),
    };
    (0..count).map(|number| line(number, &text(number))).collect()
}

#[test]
fn a_secret_stops_a_push_and_nothing_has_left() {
    let world = World::new();
    world.import("t.jsonl", &lines(10, Some(4)));
    for args in [
        &["push", "--full"][..],
        &["--json", "push", "--full"],
        &["push", "--full", "--only", "conversations"],
    ] {
        let refused = world.run(args).ends(8);
        assert!(
            refused.err.contains("github-pat") && refused.err.contains("--allow-sensitive"),
            "{}",
            refused.err
        );
        assert_eq!((world.heads(), world.segments()), (0, 0), "nothing has left");
    }
    world.run(&["push", "--dry-run", "--full"]).ends(0);
    // `sync` sends nothing of it either; a plain push holds it back, since no trace names it.
    world.run(&["sync"]).ends(0);
    assert_eq!(world.segments(), 0);
    world.run(&["push", "--full", "--allow-sensitive"]).ends(0);
    assert_eq!((world.heads(), world.segments()), (1, 1));
    world.run(&["push", "--full"]).ends(0);
}

#[test]
fn what_a_user_allows_passes_and_only_that() {
    let world = World::new();
    world.import("t.jsonl", &lines(10, Some(4)));
    let found = world.run(&["--json", "privacy", "scan"]).ends(8).json();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md")).unwrap();
    check_example(&page, &found);
    let finding = &found["findings"][0];
    assert_eq!((&finding["class"], &finding["rule"]), (&json!("certain"), &json!("github-pat")));
    assert_eq!(
        (&finding["places"][0]["kind"], &finding["places"][0]["line"]),
        (&json!("transcript"), &json!(5))
    );
    let fingerprint = finding["fingerprint"].as_str().unwrap();
    world.run(&["privacy", "allow", "no-fingerprint"]).ends(2);
    let allowed =
        world.run(&["--json", "privacy", "allow", fingerprint, "--reason", "a test's"]).ends(0).json();
    check_example(&page, &allowed);
    let again = world.run(&["--json", "privacy", "scan"]).ends(0).json();
    assert_eq!((&again["certain"], &again["allowed"]), (&json!(0), &json!(1)));
    assert_eq!(again["scanned"]["events"], json!(0), "nothing is looked through twice");
    world.run(&["push", "--full"]).ends(0);
    // Another secret is not allowed by that.
    let mut grown = lines(10, Some(4));
    grown.push(line(10, &format!("remote: {OTHER}")));
    world.import("t.jsonl", &grown);
    let refused = world.run(&["push", "--full"]).ends(8);
    assert!(refused.err.contains("gitlab-pat") && !refused.err.contains("github-pat"), "{}", refused.err);
    check_example(&page, &world.run(&["--json", "privacy", "rules"]).ends(0).json());
    world.run(&["config", "reset", "privacy"]).ends(0);
    world.run(&["privacy", "scan"]).ends(8);
}

#[test]
fn of_a_transcript_that_grows_only_what_is_new_is_looked_through() {
    let world = World::new();
    let count = |lines: &[String]| lines.iter().map(String::len).sum::<usize>() as u64;
    let first = lines(3000, Some(10));
    world.import("t.jsonl", &first);
    let found = world.run(&["--json", "privacy", "scan"]).ends(8).json();
    assert!(found["scanned"]["bytes"].as_u64().unwrap() >= count(&first));
    let mut grown = first.clone();
    grown.extend(lines(20, None));
    world.import("t.jsonl", &grown);
    let status = world.run(&["--json", "status"]).ends(0).json();
    assert_eq!(status["privacy"]["not_scanned"], json!(1));
    let found = world.run(&["--json", "privacy", "scan"]).ends(8).json();
    let bytes = found["scanned"]["bytes"].as_u64().unwrap();
    assert!(bytes < count(&first) / 4, "{bytes} of {}", count(&grown));
    // What was found in the beginning counts for the whole.
    assert_eq!(found["findings"][0]["count"], json!(2), "{found}");
    // The notes of what was looked through may go at any time.
    fs::remove_file(world.data().join("store/privacy/scanned")).unwrap();
    let all = world.run(&["--json", "privacy", "scan"]).ends(8).json();
    assert_eq!(all["findings"], found["findings"]);
    fs::write(world.data().join("store/privacy/scanned"), b"nonsense").unwrap();
    assert_eq!(world.run(&["--json", "privacy", "scan"]).ends(8).json()["findings"], found["findings"]);
    assert_eq!(
        world.run(&["--json", "privacy", "scan", "--all"]).ends(8).json()["findings"],
        found["findings"]
    );
    let since = world.run(&["--json", "privacy", "scan", "--since", "2030-01-01"]).ends(0).json();
    assert_eq!(since["findings"], json!([]));
}

#[test]
fn what_is_only_possible_is_listed_and_stops_where_that_is_wanted() {
    let world = World::new();
    let text = "config\n  api_key = \"q8Zk31LmXf2Nz7Qc81LmW5\"\n";
    world.import("t.jsonl", &[line(0, text)]);
    let found = world.run(&["--json", "privacy", "scan"]).ends(0).json();
    assert_eq!((&found["certain"], &found["possible"]), (&json!(0), &json!(1)));
    world.run(&["config", "set", "privacy.strict", "true"]).ends(0);
    world.run(&["privacy", "scan"]).ends(8);
    world.run(&["push", "--full"]).ends(8);
    world.run(&["config", "reset", "privacy.strict"]).ends(0);
    let pushed = world.run(&["--json", "push", "--full"]).ends(0).json();
    assert_eq!(pushed["possible_secrets"], json!(1));
}

#[test]
fn settings_are_the_users_alone() {
    let world = World::new();
    world.import("t.jsonl", &lines(10, Some(4)));
    // What a repository holds counts for nothing.
    for name in ["project-config.json", "config.json", ".agent-trace.json", "privacy-allow"] {
        fs::write(world.path("r").join(name), r#"{"privacy": {"mode": "off"}}"#).unwrap();
    }
    world.run(&["push", "--full"]).ends(8);
    world.run(&["config", "set", "privacy.mode", "loud"]).ends(2);
    world.run(&["config", "set", "privacy.mode", "off"]).ends(0);
    world.run(&["push", "--full"]).ends(0);
    let own = world.data().join("project-config.json");
    // What cannot be understood does not open the gate.
    for bad in [r#"{"privacy": {"mode": "of"}}"#, r#"{"privacy": {"mode": 1}}"#, r#"{"privacy": 1}"#, "{"] {
        fs::write(&own, bad).unwrap();
        world.run(&["push", "--full"]).ends(2);
    }
    fs::write(&own, r#"{"privacy": {"rules": "rules.toml"}}"#).unwrap();
    world.run(&["privacy", "scan"]).ends(2);
    assert!(world.run(&["doctor"]).ends(1).out.contains("rules.toml"));
    let rules = "[[rules]]\nid = \"ours\"\nclass = \"certain\"\nregex = '''ours-[0-9]{9}'''\nkeywords = [\"ours-\"]\n";
    fs::write(world.path("home/.agent-trace/rules.toml"), rules).unwrap();
    fs::write(world.path("file.txt"), "a ours-848263717 b").unwrap();
    let file = world.path("file.txt").display().to_string();
    let found = world.run(&["--json", "privacy", "scan", &file]).ends(8).json();
    assert_eq!(found["findings"][0]["rule"], json!("ours"));
    // A list of the user for all projects.
    let fingerprint = found["findings"][0]["fingerprint"].as_str().unwrap();
    let allow = format!("# ours\n{fingerprint}  # a test's\n");
    fs::write(world.path("home/.agent-trace/privacy-allow"), allow).unwrap();
    world.run(&["privacy", "scan", &file]).ends(0);
}

#[test]
fn notes_pass_the_same_gate() {
    let world = World::new();
    let git = |args: &[&str]| {
        let mut command = support::command("git", &world.path("r"), &world.path("home"));
        let settings = ["-c", "user.name=a", "-c", "user.email=a@b"];
        let output = command.args(settings).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?} {}", String::from_utf8_lossy(&output.stderr));
    };
    fs::create_dir(world.path("remote")).unwrap();
    git(&["init", "-q", "--bare", &world.path("remote").display().to_string()]);
    git(&["remote", "add", "origin", &world.path("remote").display().to_string()]);
    git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    let note = json!({"version": "2.0", "summary": format!("the token was {TOKEN}")}).to_string();
    git(&["notes", "--ref", "refs/notes/agent-trace", "add", "-m", &note]);
    let refused = world.run(&["notes", "push"]).ends(8);
    assert!(refused.err.contains("the note of commit"), "{}", refused.err);
    world.run(&["notes", "push", "--allow-sensitive"]).ends(0);
}

#[test]
fn planted_secrets_are_found() {
    let world = World::new();
    let planted = plant(7, 12);
    let mut random = Random::new(11);
    let mut by_form: BTreeMap<Form, (u64, u64)> = BTreeMap::new();
    for form in planted::FORMS {
        let planted: Vec<&planted::Planted> = planted.iter().filter(|one| one.form == form).collect();
        by_form.insert(form, found_of(&world, &planted, &mut random));
    }
    for (form, (all, found)) in by_form {
        let wanted = if matches!(form, Form::Plain | Form::Escaped | Form::Nested) { 99 } else { 90 };
        assert!(found * 100 >= all * wanted, "{form:?}: {found} of {all}");
    }
    let kinds: HashSet<&str> = planted.iter().map(|one| one.kind).collect();
    assert!(kinds.len() >= 15 && planted.iter().all(|one| one.secret.len() >= 16));
}

/// Plants secrets between lines that hold none; how many there are, and on how many of their lines one was found.
fn found_of(world: &World, planted: &[&planted::Planted], random: &mut Random) -> (u64, u64) {
    let mut document = String::new();
    let mut places = Vec::new();
    let mut number = 1;
    for one in planted {
        for _ in 0..random.below(3) {
            document.push_str(&line(number, "what stands between is no secret: a1b2 c3d4, src/main.rs:12"));
            number += 1;
        }
        document.push_str(&one.line);
        document.push('\n');
        places.push(number);
        number += 1;
    }
    fs::write(world.path("planted.jsonl"), document).unwrap();
    let path = world.path("planted.jsonl").display().to_string();
    let found = world.run(&["--json", "privacy", "scan", &path]).ends(8).json();
    let lines: HashSet<u64> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|finding| finding["places"].as_array().unwrap())
        .map(|place| place["line"].as_u64().unwrap())
        .collect();
    let found = places.iter().filter(|place| lines.contains(&(**place as u64))).count();
    (places.len() as u64, found as u64)
}

#[test]
fn hostile_files_are_looked_through_to_their_end() {
    let world = World::new();
    let dir = world.path("hostile");
    fs::create_dir(&dir).unwrap();
    let giant = format!("{{\"a\":\"{}\\n{TOKEN}\\n\"}}\n", "x1 ".repeat(8 << 20));
    fs::write(dir.join("giant.jsonl"), giant).unwrap();
    fs::write(dir.join("deep.json"), "[".repeat(1 << 20)).unwrap();
    fs::write(dir.join("cut.jsonl"), format!("{{\"a\":\"{TOKEN}\\")).unwrap();
    fs::write(dir.join("binary"), [&[0u8, 255, 254, 13][..], TOKEN.as_bytes(), &[0, 0, 1]].concat()).unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    std::os::unix::fs::symlink(&dir, dir.join("round")).unwrap();
    let found = world.run(&["--json", "privacy", "scan", &dir.display().to_string()]).ends(8).json();
    assert_eq!(found["scanned"]["files"], json!(5));
    let places = found["findings"][0]["places"].as_array().unwrap();
    let names: Vec<&str> =
        places.iter().map(|place| place["key"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["binary", "cut.jsonl", "giant.jsonl"]);
    let none = world.run(&["--json", "privacy", "scan", &world.path("none").display().to_string()]).ends(3);
    assert_eq!(none.json()["skipped"].as_array().unwrap().len(), 1);
}

#[test]
fn fingerprints_do_not_tell_whether_a_guess_is_right() {
    let (one, two) = (World::new(), World::new());
    let fingerprint = |world: &World| {
        fs::write(world.path("f"), TOKEN).unwrap();
        let path = world.path("f").display().to_string();
        let found = world.run(&["--json", "privacy", "scan", &path]).ends(8).json();
        found["findings"][0]["fingerprint"].as_str().unwrap().to_owned()
    };
    assert_eq!(fingerprint(&one), fingerprint(&one));
    assert_ne!(fingerprint(&one), fingerprint(&two));
    // Who shares the key shares the fingerprints.
    let key = "home/.agent-trace/privacy.key";
    fs::copy(one.path(key), two.path(key)).unwrap();
    assert_eq!(fingerprint(&one), fingerprint(&two));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(one.path(key)).unwrap().permissions());
    assert_eq!(mode & 0o077, 0);
}

/// What the store holds: every object that events list, as `cat` gives it.
fn stored(world: &World) -> Vec<String> {
    let log = world.run(&["--json", "log", "--limit", "100000"]).ends(0).out;
    let heads = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let objects = heads.flat_map(|head| head["objects"].as_array().unwrap().clone());
    objects.map(|id| world.run(&["cat", id.as_str().unwrap()]).ends(0).out).collect()
}

#[test]
fn secrets_are_replaced_before_they_are_stored() {
    let world = World::new();
    world.run(&["config", "set", "privacy.mode", "redact"]).ends(0);
    let mut first = lines(30, Some(4));
    first.push(line(30, &format!("again {TOKEN} and {OTHER}")));
    world.import("t.jsonl", &first);
    // `run` has made sure that no object holds one; `stored` reads them all.
    let objects = stored(&world);
    let text = objects.iter().find(|object| object.contains("redacted:github-pat")).unwrap();
    let head: Value = serde_json::from_str(&world.run(&["--json", "log"]).ends(0).out).unwrap();
    let shown = world.run(&["--json", "show", head["key"].as_str().unwrap()]).ends(0).out;
    assert!(shown.contains("(redacted: github-pat 2, gitlab-pat 1)"), "{shown}");
    assert_eq!(text.lines().count(), first.len());
    for (line, raw) in text.lines().zip(&first) {
        let (line, raw): (Value, Value) =
            (serde_json::from_str(line).unwrap(), serde_json::from_str(raw).unwrap());
        assert_eq!(line["uuid"], raw["uuid"]);
    }
    let placeholders: Vec<&str> = text.match_indices('\u{2039}').map(|(at, _)| &text[at..at + 42]).collect();
    assert_eq!(placeholders.len(), 3);
    assert_eq!(placeholders[0], placeholders[1], "repeats are recognised");
    let found = world.run(&["--json", "privacy", "scan"]).ends(0).json();
    assert_eq!(found["findings"], json!([]));
    world.run(&["push", "--full"]).ends(0);
    // It grows, with a last line that is not whole: that one waits.
    let mut grown = first.clone();
    grown.push(line(31, "a new line"));
    grown.push(format!("{{\"type\":\"user\",\"x\":\"{}", &TOKEN[..20]));
    world.import("t.jsonl", &grown);
    let longer = stored(&world).into_iter().find(|object| object.contains("a new line")).unwrap();
    assert!(longer.starts_with(text.as_str()), "the state before is its beginning");
    assert_eq!(longer.lines().count(), first.len() + 1);
    world.run(&["import", &world.path("t.jsonl").display().to_string()]).ends(0);
    assert_eq!(stored(&world).len(), 4, "nothing new");
    world.run(&["verify"]).ends(0);
}

#[test]
fn what_hooks_bring_is_redacted_too() {
    let world = World::new();
    let settings = json!({"capture": {"flush": "manual"}, "privacy": {"mode": "redact"}});
    fs::write(world.data().join("project-config.json"), settings.to_string()).unwrap();
    let transcript = world.path("home/.claude/projects/-r/s1.jsonl");
    fs::create_dir_all(transcript.parent().unwrap()).unwrap();
    let record = |number: usize| {
        let file = world.path("r").join("a.rs");
        fs::write(&file, format!("fn a() {{}} // {number} {TOKEN}\n")).unwrap();
        let payload = json!({"session_id": "s1", "transcript_path": transcript, "cwd": world.path("r"),
            "hook_event_name": "PostToolUse", "tool_name": "Write", "tool_use_id": format!("t{number}"),
            "tool_input": {"file_path": file, "content": format!("fn a() {{}} // {number} {TOKEN}\n")},
            "tool_response": {"filePath": file}});
        let mut command = support::command(PROGRAM, &world.path("r"), &world.path("home"));
        let mut child = command.arg("record").stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), payload.to_string().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    let all = lines(12, Some(4));
    fs::write(&transcript, all[..6].concat()).unwrap();
    record(1);
    world.run(&["log"]).ends(0);
    fs::write(&transcript, all.concat()).unwrap();
    record(2);
    world.run(&["log"]).ends(0);
    // The file goes before what was added to it is taken: the events bring it.
    let more = format!("{}{}", all.concat(), line(12, &format!("the last one {OTHER}")));
    fs::write(&transcript, more).unwrap();
    record(3);
    fs::remove_file(&transcript).unwrap();
    world.run(&["log"]).ends(0);
    let objects = stored(&world);
    let longest = objects.iter().filter(|object| object.contains("message number")).max_by_key(|it| it.len());
    let longest = longest.unwrap();
    assert_eq!(longest.lines().count(), 13, "{longest}");
    assert!(longest.contains("redacted:github-pat") && longest.contains("redacted:gitlab-pat"));
    // Lines of files are known by hashes of what they are, so blame still finds them.
    let traces = world.run(&["--json", "log", "--kind", "trace"]).ends(0).out;
    assert_eq!(traces.lines().count(), 3);
    world.run(&["verify"]).ends(0);
    // Nothing raw stays behind, in the spool or beside the store.
    for file in files(&world.data()) {
        let bytes = fs::read(&file).unwrap();
        let is_there = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!is_there, "{} holds a secret", file.display());
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn what_is_elsewhere_is_looked_through_once_it_is_here() {
    let (one, two) = (World::new(), World::new());
    one.import("t.jsonl", &lines(2000, Some(4)));
    one.run(&["push", "--full", "--allow-sensitive"]).ends(0);
    let url = format!("file://{}", one.path("team").display());
    two.run(&["remote", "set-url", "team", &url]).ends(0);
    two.run(&["pull", "--no-transcripts"]).ends(0);
    two.run(&["privacy", "scan"]).ends(0);
    assert_eq!(two.run(&["--json", "status"]).ends(0).json()["privacy"]["not_scanned"], json!(1));
    two.run(&["pull", "--transcripts"]).ends(0);
    two.run(&["privacy", "scan"]).ends(8);
}

#[test]
fn the_flusher_marks_what_hooks_bring() {
    let world = World::new();
    let transcript = world.path("home/.claude/projects/-r/s1.jsonl");
    fs::create_dir_all(transcript.parent().unwrap()).unwrap();
    fs::write(&transcript, lines(8, Some(4)).concat()).unwrap();
    let payload = json!({"session_id": "s1", "transcript_path": transcript, "cwd": world.path("r"),
        "hook_event_name": "Stop"});
    let mut command = support::command(PROGRAM, &world.path("r"), &world.path("home"));
    let mut child = command.arg("record").stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), payload.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    // It ends by itself; a machine may be slow.
    let is_marked = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        world.run(&["--json", "status"]).ends(0).json()["privacy"]["certain"] == json!(1)
    });
    assert!(is_marked);
    assert!(world.run(&["status"]).ends(0).out.contains("1 secret(s)"));
}
