//! `remote` from outside: what each subcommand prints and writes, for folders and services, good and bad input, in files
//! that agent-trace-cli reads and writes too.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "at_0123456789abcdefghijklmnopqrstuvwxyz-_ABCDWXYZ";
const MASKED: &str = "********...WXYZ";
const SERVICE: &str = "https://traces.example/acme/widgets";

/// A repository with a store, and a home of its own.
struct World {
    root: TempDir,
    project: String,
}

struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn well(self) -> Answer {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    fn fails(self, status: i32, words: &[&str]) -> Answer {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "expected `{word}` in: {}", self.err);
        }
        self
    }

    fn says(self, words: &[&str]) -> Answer {
        for word in words {
            assert!(self.out.contains(word), "expected `{word}` in: {}", self.out);
        }
        self
    }

    fn warns(self, words: &[&str]) -> Answer {
        for word in words {
            assert!(self.err.contains(word), "expected `{word}` in: {}", self.err);
        }
        self
    }
}

impl World {
    fn new() -> World {
        let mut world = World { root: tempfile::tempdir().unwrap(), project: String::new() };
        let repository = world.path("r");
        fs::create_dir(&repository).unwrap();
        assert!(world.command("git").args(["init", "-q", "."]).output().unwrap().status.success());
        world.run(&["init"]).well();
        let anchor = fs::read_to_string(repository.join(".git/agent-trace-id")).unwrap();
        world.project = anchor.trim_end().to_owned();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.path("home/projects").join(&self.project).join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path("nobody"))
            .env("AGENT_TRACE_HOME", self.path("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("TZ", "UTC")
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .current_dir(self.path("r"))
            .stdin(Stdio::null());
        command
    }

    /// No test asks a service that is not its own: whoever has a token is told not to.
    fn unasked<'a>(args: &[&'a str]) -> Vec<&'a str> {
        let mut args = args.to_vec();
        if args.iter().any(|arg| matches!(*arg, "add" | "set-url" | "set-token")) {
            args.push("--no-check");
        }
        args
    }

    fn trace(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_agent-trace"))
    }

    fn run(&self, args: &[&str]) -> Answer {
        answer(self.trace().args(args).output().unwrap())
    }

    fn remote(&self, args: &[&str]) -> Answer {
        self.run(&[&["remote"], &World::unasked(args)[..]].concat())
    }

    fn with_variable(&self, name: &str, value: &str, args: &[&str]) -> Answer {
        answer(self.trace().env(name, value).arg("remote").args(World::unasked(args)).output().unwrap())
    }

    fn with_input(&self, input: &[u8], args: &[&str]) -> Answer {
        let mut command = self.trace();
        command
            .arg("remote")
            .args(World::unasked(args))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that refuses its arguments reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input);
        answer(child.wait_with_output().unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let answer = self.remote(&[&["--json"], args].concat()).well();
        serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.out))
    }

    /// The last error, for a program.
    fn error(&self, args: &[&str]) -> Value {
        let answer = self.remote(&[&["--json"], args].concat());
        assert_eq!(answer.out, "");
        serde_json::from_str(answer.err.lines().last().unwrap()).unwrap()
    }

    fn folder(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    fn config(&self) -> Value {
        read(&self.path("home/config.json"))
    }

    fn key(&self, remote: &str) -> String {
        format!("{}::{remote}", self.project)
    }

    /// Adds a service with a token.
    fn add(&self, name: &str, url: &str) {
        self.with_input(TOKEN.as_bytes(), &["add", name, url, "--token-stdin"]).well();
    }
}

fn answer(output: Output) -> Answer {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let answer = Answer {
        status: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    assert!(!answer.out.contains(TOKEN) && !answer.err.contains(TOKEN), "{}{}", answer.out, answer.err);
    answer
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// ---- add, and the files

#[test]
fn a_service_is_kept_as_the_peer_keeps_it() {
    let world = World::new();
    let added = world.with_input(
        format!("{TOKEN}\n").as_bytes(),
        &["add", "origin", &format!("{SERVICE}/?x"), "--token-stdin"],
    );
    let added = added.well();
    assert_eq!(
        (added.out.as_str(), added.err.as_str()),
        (format!("Added remote origin at {SERVICE}\n").as_str(), "")
    );
    let reference = format!("global:{}", world.key("origin"));
    let expected = json!({"origin": {"url": SERVICE, "base_url": "https://traces.example", "org_slug": "acme",
        "project_slug": "widgets", "auth": {"type": "bearer", "token_ref": reference}}});
    let text = fs::read_to_string(world.data("remotes.json")).unwrap();
    assert_eq!(text, serde_json::to_string_pretty(&expected).unwrap() + "\n", "the order of members too");
    assert_eq!(world.config(), json!({"tokens": {world.key("origin"): TOKEN}}));
    for path in [world.data("remotes.json"), world.path("home/config.json")] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert!(!world.data("store/remotes.json").exists() && !world.data("project-config.json").exists());
    let gateway =
        world.json(&["add", "gate", "https://traces.example:8443/AT/acme/widgets", "--token-env", "PATH"]);
    assert_eq!(
        gateway["service"],
        json!({"base_url": "https://traces.example:8443/at/acme/widgets", "org": "acme", "project": "widgets", "gateway": true})
    );
    assert_eq!(read(&world.data("remotes.json"))["gate"]["base_url"], gateway["service"]["base_url"]);
}

#[test]
fn each_source_of_a_token_works_and_only_the_bare_value_is_warned_of() {
    let world = World::new();
    fs::write(world.path("t"), format!("  {TOKEN}\r\n")).unwrap();
    let file = world.path("t").display().to_string();
    let bare = world.remote(&["add", "bare", SERVICE, "--token", TOKEN]).well();
    assert!(bare.err.contains("warning:") && bare.err.contains("history"), "{}", bare.err);
    let silent = |answer: Answer| assert_eq!(answer.well().err, "");
    silent(world.with_input(TOKEN.as_bytes(), &["add", "stdin", SERVICE, "--token-stdin"]));
    silent(world.remote(&["add", "file", SERVICE, "--token-file", &file]));
    silent(world.remote(&["add", "command", SERVICE, "--token-command", &format!("cat '{file}'")]));
    silent(world.with_variable(
        "TEAM_TOKEN",
        TOKEN,
        &["add", "variable", SERVICE, "--token-env", "TEAM_TOKEN"],
    ));
    let tokens = world.config()["tokens"].clone();
    assert_eq!(tokens.as_object().unwrap().len(), 4, "a variable's value is not kept");
    for name in ["bare", "stdin", "file", "command"] {
        assert_eq!(tokens[world.key(name)], TOKEN, "{name}");
    }
    let auth = read(&world.data("remotes.json"))["variable"]["auth"].clone();
    assert_eq!(auth, json!({"type": "bearer", "token_ref": "env:TEAM_TOKEN"}));
    world
        .remote(&["add", "unset", SERVICE, "--token-env", "NOT_SET"])
        .well()
        .warns(&["`NOT_SET` is not set now"]);
    world
        .remote(&["add", "none", SERVICE])
        .well()
        .warns(&["hint: agent-trace remote set-token none --token-stdin"]);
    assert_eq!(read(&world.data("remotes.json"))["none"].get("auth"), None);
}

#[test]
fn bad_tokens_are_refused_and_nothing_is_written() {
    let world = World::new();
    let refused = |answer: Answer, status: i32, words: &[&str]| {
        answer.fails(status, words);
        assert!(!world.data("remotes.json").exists() && !world.path("home/config.json").exists());
    };
    let add = ["add", "origin", SERVICE];
    let with = |more: &[&'static str]| [&add[..], more].concat();
    for input in ["", "\n", "a b", "a\nb", "caf\u{e9}", "a\u{1b}[31m"] {
        refused(world.with_input(input.as_bytes(), &with(&["--token-stdin"])), 2, &["cannot take the token"]);
    }
    refused(world.with_input(b"\xff\xfe", &with(&["--token-stdin"])), 2, &["it is no text"]);
    refused(world.with_input(&[b'a'; 4097], &with(&["--token-stdin"])), 2, &["at most 4096 characters"]);
    refused(world.with_input(&[b'a'; 100_000], &with(&["--token-stdin"])), 2, &["cannot read stdin"]);
    refused(world.remote(&with(&["--token", ""])), 2, &["it is empty"]);
    refused(world.remote(&with(&["--token-file", "absent"])), 9, &["cannot read the token file `absent`"]);
    refused(world.remote(&with(&["--token-command", "exit 3"])), 1, &["has failed: exit status: 3"]);
    refused(world.remote(&with(&["--token-command", "true"])), 2, &["it is empty"]);
    refused(world.remote(&with(&["--token-command", "yes"])), 2, &["prints too much"]);
    refused(world.remote(&with(&["--token-env", "A-B"])), 2, &["expected the name of a variable"]);
    refused(world.remote(&with(&["--token-env", "AGENT_TRACE_ADMIN_SECRET"])), 2, &["only creates projects"]);
    refused(
        world.with_variable("V", "a b", &with(&["--token-env", "V"])),
        2,
        &["the variable `V` holds no token"],
    );
    refused(world.remote(&with(&["--token-stdin", "--token-env", "V"])), 2, &["cannot be used with"]);
    refused(
        world.remote(&["add", "team", &world.folder("team"), "--token-command", "echo x"]),
        2,
        &["takes no token"],
    );
    let misplaced = world.remote(&with(&["--token-env", "at_not-a-name"]));
    assert!(!misplaced.err.contains("at_not-a-name"), "it may be a token: {}", misplaced.err);
}

#[test]
fn bad_addresses_are_refused_with_what_to_write() {
    let world = World::new();
    let grammar = "`https://<host>[:port]/<org>/<project>` or `https://<host>[:port]/at/<org>/<project>`";
    for url in [
        "https://traces.example",
        "https://traces.example/acme",
        "https://traces.example/a/b/c",
        "ftp://bucket",
        "x",
    ] {
        world.remote(&["add", "origin", url]).fails(2, &[grammar]);
    }
    world.remote(&["add", "origin", "https://h/Acme/widgets"]).fails(2, &["lower-case", "`Acme`"]);
    let secret = world.remote(&["add", "origin", "https://me:hunter2@traces.example/acme/widgets"]);
    let secret = secret.fails(2, &["no name and no password", "--token"]);
    assert!(!secret.err.contains("hunter2"), "{}", secret.err);
    world
        .remote(&["add", "origin", "http://traces.example/a/b"])
        .fails(2, &["expected `https`", "--insecure-http"]);
    world.remote(&["add", "origin", &world.folder("x"), "--insecure-http"]).fails(2, &["--insecure-http"]);
    world.remote(&["add", "Origin", SERVICE]).fails(2, &["cannot name a remote `Origin`"]);
    world.remote(&["add", "a::b", SERVICE]).fails(2, &["cannot name a remote"]);
    world.remote(&["add", "origin"]).fails(2, &["Usage"]);
    assert!(!world.data("remotes.json").exists());
    world.remote(&["add", "origin", SERVICE]).well();
    world
        .remote(&["add", "origin", "https://h/a/b?secret"])
        .fails(2, &["already", "set-url origin https://h/a/b\n"]);
    let error = world.error(&["add", "origin", SERVICE]);
    assert_eq!((&error["kind"], &error["exit"]), (&json!("invalid"), &json!(2)));
    world.remote(&["add", "origin", &world.folder("x")]).fails(2, &["already"]);
}

#[test]
fn plain_http_is_for_this_machine_or_asked_for_and_then_named() {
    let world = World::new();
    world.remote(&["add", "here", "http://127.0.0.1:5000/acme/widgets"]).well();
    let added = world.remote(&["add", "far", "http://traces.example/acme/widgets", "--insecure-http"]).well();
    assert!(added.err.contains("insecure http"), "{}", added.err);
    let document = read(&world.data("remotes.json"));
    assert_eq!(
        (document["here"].get("insecure_http"), &document["far"]["insecure_http"]),
        (None, &json!(true))
    );
    let status = world.run(&["status"]).well();
    let line = |name: &str| status.out.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(
        line("traces.example").contains("far  http://traces.example/acme/widgets  insecure http  "),
        "{}",
        status.out
    );
    assert!(!line("127.0.0.1").contains("insecure"), "{}", status.out);
    assert_eq!(world.json(&["show", "far"])["insecure_http"], json!(true));
    world.remote(&["set-url", "far", "http://other.example/a/b"]).fails(2, &["--insecure-http"]);
    world.remote(&["set-url", "far", "http://other.example/a/b", "--insecure-http"]).well();
    world.remote(&["set-url", "far", "https://other.example/a/b"]).well();
    assert_eq!(read(&world.data("remotes.json"))["far"].get("insecure_http"), None);
    // As somebody else may have written it.
    let mut document = read(&world.data("remotes.json"));
    document["far"]["url"] = json!("http://me:hunter2@traces.example/a/b");
    fs::write(world.data("remotes.json"), document.to_string()).unwrap();
    let status = world.run(&["status"]).well().says(&["far", "no name and no password"]);
    assert!(!status.out.contains("hunter2"), "{}", status.out);
    let listed = world.remote(&["list"]).well().says(&["http://***@traces.example/a/b"]);
    assert!(!listed.out.contains("hunter2"), "{}", listed.out);
    world.run(&["push", "--remote", "far"]).fails(2, &["no name and no password", "set-url far"]);
}

#[test]
fn creating_needs_a_secret_and_a_service_that_answers() {
    // Nobody listens there.
    const SILENT: &str = "http://127.0.0.1:9/acme/widgets";
    let world = World::new();
    world
        .remote(&["add", "origin", SERVICE, "--create"])
        .fails(2, &["without a token", "AGENT_TRACE_ADMIN_SECRET"]);
    world.remote(&["add", "origin", SERVICE, "--name", "Widgets"]).fails(2, &["--create"]);
    let secret =
        world.with_variable("AGENT_TRACE_ADMIN_SECRET", "s3cret", &["add", "origin", SILENT, "--create"]);
    let secret = secret.fails(5, &[SILENT, "cannot connect"]);
    assert!(!secret.err.contains("s3cret"));
    assert!(!world.data("remotes.json").exists());
    world.remote(&["add", "team", &world.folder("team"), "--create", "--name", "x"]).fails(2, &["no name"]);
    world.remote(&["add", "team", &world.folder("team"), "--create"]).well();
    assert!(world.path("team/format").exists());
    world.add("origin", SILENT);
    for command in ["push", "pull", "sync"] {
        world.run(&[command, "--remote", "origin"]).fails(5, &[SILENT, "cannot connect"]);
    }
}

// ---- show, list

#[test]
fn show_masks_the_token_and_says_where_it_is() {
    let world = World::new();
    world.add("origin", SERVICE);
    let shown = world.remote(&["show", "origin"]).well();
    shown.says(&[
        "remote   origin\n",
        &format!("url      {SERVICE}\n"),
        "service  https://traces.example\n",
        "project  widgets of acme\n",
        &format!("token    {MASKED}, in config.json\n"),
        "default  no\n",
        "state    not compared",
    ]);
    assert_eq!(
        world.json(&["show", "origin"]),
        json!({"schema": "agent-trace/remote/1", "name": "origin", "url": SERVICE, "default": false, "known": false,
            "unpushed": 0, "held_back": 0, "elsewhere": 0, "insecure_http": false, "encrypted": false, "epoch": null, "problem": null,
            "service": {"base_url": "https://traces.example", "org": "acme", "project": "widgets", "gateway": false},
            "token": {"from": "config", "variable": null, "masked": MASKED}, "bucket": null, "secret": null})
    );
    let check = |reference: Value, from: &str, masked: Value, words: &str| {
        let mut document = read(&world.data("remotes.json"));
        document["origin"]["auth"] = json!({"type": "bearer", "token_ref": reference});
        fs::write(world.data("remotes.json"), document.to_string()).unwrap();
        let token = world.json(&["show", "origin"])["token"].clone();
        assert_eq!((&token["from"], &token["masked"]), (&json!(from), &masked), "{reference}");
        world.remote(&["show", "origin"]).well().says(&[words]);
    };
    check(json!("env:NOT_SET"), "variable", json!(null), "token    missing in the variable NOT_SET");
    check(json!("global:gone"), "config", json!(null), "token    missing in config.json");
    check(json!("keychain:x"), "unknown", json!(null), "token    kept where this version does not look");
    check(json!(TOKEN), "remotes", json!(MASKED), "token    ********...WXYZ, in remotes.json");
    check(json!("short"), "remotes", json!("********"), "token    ********, in remotes.json");
    let shown = world.with_variable("NOT_SET", TOKEN, &["show", "origin"]).well();
    assert!(!shown.out.contains("NOT_SET"));
    world.remote(&["show", "nobody"]).fails(9, &["no remote `nobody`", "use one of: origin"]);
}

#[test]
fn list_has_folders_and_services_by_name() {
    let world = World::new();
    world.remote(&["list"]).well().warns(&["hint: agent-trace remote add"]);
    world.add("origin", SERVICE);
    world.remote(&["add", "team", &world.folder("team")]).well();
    world.remote(&["add", "a", "https://h/o/p", "--token-env", "V"]).well();
    world.remote(&["default", "team"]).well();
    let listed = world.remote(&["list"]).well();
    assert_eq!(
        listed.out,
        format!("a  https://h/o/p\norigin  {SERVICE}\nteam  {}  (default)\n", world.folder("team"))
    );
    let lines = world.remote(&["list", "--json"]).well().out;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "origin", "team"]);
    assert_eq!((&lines[2]["service"], &lines[2]["token"]), (&json!(null), &json!(null)));
    assert_eq!(lines[0]["token"], json!({"from": "variable", "variable": "V", "masked": null}));
}

// ---- set-url, set-token, remove, rename, default

#[test]
fn set_url_moves_a_remote_to_the_file_that_can_say_it() {
    let world = World::new();
    world.add("origin", SERVICE);
    let quiet = world.remote(&["set-url", "origin", "https://traces.example/acme/other"]).well();
    assert_eq!(quiet.err, "", "the token stays with its host");
    let moved = world.remote(&["set-url", "origin", "https://other.example/acme/widgets"]).well();
    moved.warns(&["the token of `origin` goes to `https://other.example` from now on"]);
    assert_eq!(world.json(&["show", "origin"])["token"]["masked"], MASKED);
    world.remote(&["set-url", "origin", &world.folder("team")]).well();
    assert_eq!(read(&world.data("remotes.json")), json!({}));
    assert_eq!(
        read(&world.data("store/remotes.json")),
        json!({"version": 1, "remotes": {"origin": {"url": world.folder("team")}}})
    );
    assert_eq!(world.config(), json!({}), "a folder has no token");
    world.remote(&["set-url", "origin", SERVICE]).well();
    assert_eq!(read(&world.data("store/remotes.json"))["remotes"], json!({}));
    assert_eq!(read(&world.data("remotes.json"))["origin"]["url"], SERVICE);
    world.remote(&["set-url", "nobody", SERVICE]).fails(9, &["no remote `nobody`"]);
    world.remote(&["set-url", "origin", "https://h"]).fails(2, &["<org>"]);
    fs::create_dir(world.path("full")).unwrap();
    fs::write(world.path("full/file"), "").unwrap();
    world.remote(&["set-url", "origin", &world.folder("full")]).fails(2, &["is no remote"]);
    assert_eq!(read(&world.data("remotes.json"))["origin"]["url"], SERVICE);
}

#[test]
fn set_token_replaces_what_there_was() {
    let world = World::new();
    world.remote(&["add", "origin", SERVICE]).well();
    world.with_input(b"at_another-token", &["set-token", "origin", "--token-stdin"]).well();
    assert_eq!(world.config()["tokens"][world.key("origin")], "at_another-token");
    let set = world.with_input(TOKEN.as_bytes(), &["--json", "set-token", "origin", "--token-stdin"]).well();
    assert_eq!(serde_json::from_str::<Value>(&set.out).unwrap()["token"]["masked"], MASKED);
    world
        .remote(&["set-token", "origin", "--token-env", "V"])
        .well()
        .says(&["Changed the token of remote origin"]);
    assert_eq!(world.config(), json!({}), "the one that was kept is gone");
    assert_eq!(read(&world.data("remotes.json"))["origin"]["auth"]["token_ref"], "env:V");
    world.remote(&["set-token", "origin"]).fails(2, &["--token-stdin"]);
    world.with_input(b"x", &["set-token", "nobody", "--token-stdin"]).fails(9, &["no remote `nobody`"]);
    world.remote(&["add", "team", &world.folder("team")]).well();
    world.with_input(b"x", &["set-token", "team", "--token-stdin"]).fails(2, &["takes no token"]);
}

#[test]
fn remove_takes_the_token_along() {
    let world = World::new();
    world.add("origin", SERVICE);
    world.add("second", SERVICE);
    world.remote(&["default", "origin"]).well();
    let removed = world.remote(&["remove", "origin"]).well();
    assert_eq!(removed.out, format!("Removed remote origin; {SERVICE} is as it was\n"));
    assert_eq!(world.config(), json!({"tokens": {world.key("second"): TOKEN}}));
    assert_eq!(read(&world.data("remotes.json")).as_object().unwrap().len(), 1);
    assert_eq!(read(&world.data("project-config.json")), json!({}));
    world.remote(&["remove", "origin"]).fails(9, &["no remote `origin`"]);
    assert_eq!(world.remote(&["--json", "remove", "second"]).well().out, "");
    assert_eq!(world.config(), json!({}));
}

#[test]
fn rename_takes_the_token_and_the_default_along() {
    let world = World::new();
    world.add("origin", SERVICE);
    world.remote(&["add", "second", "https://h/o/p", "--token-env", "V"]).well();
    world.remote(&["default", "origin"]).well();
    world.remote(&["rename", "origin", "upstream"]).well().says(&["Renamed remote upstream at"]);
    assert_eq!(world.config(), json!({"tokens": {world.key("upstream"): TOKEN}}));
    let document = read(&world.data("remotes.json"));
    assert_eq!(
        document.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["upstream", "second"],
        "order is kept"
    );
    assert_eq!(document["upstream"]["auth"]["token_ref"], json!(format!("global:{}", world.key("upstream"))));
    assert_eq!(read(&world.data("project-config.json")), json!({"remote": {"default": "upstream"}}));
    world.remote(&["rename", "second", "third"]).well();
    assert_eq!(world.json(&["show", "third"])["token"]["variable"], "V");
    world.remote(&["rename", "third", "upstream"]).fails(2, &["already"]);
    world.remote(&["rename", "third", "Third"]).fails(2, &["cannot name"]);
    world.remote(&["rename", "nobody", "x"]).fails(9, &["no remote `nobody`"]);
    world.remote(&["rename", "third", "third"]).well();
}

#[test]
fn the_default_is_the_only_one_else_the_chosen_one_else_origin() {
    let world = World::new();
    world.run(&["push"]).fails(9, &["this store has no remote"]);
    world.remote(&["add", "b", "https://h/o/b"]).well();
    world.run(&["push"]).fails(5, &["https://h/o/b"]);
    world.remote(&["add", "c", &world.folder("c")]).well();
    world.run(&["push"]).fails(9, &["no default among the remotes b, c", "remote default NAME"]);
    world.remote(&["add", "origin", "https://h/o/origin"]).well();
    world.run(&["push"]).fails(5, &["https://h/o/origin"]);
    world.remote(&["default", "c"]).well().says(&["Default is remote c"]);
    assert_eq!(read(&world.data("project-config.json")), json!({"remote": {"default": "c"}}));
    world.run(&["push"]).well();
    world.run(&["push", "--remote", "b"]).fails(5, &["https://h/o/b"]);
    assert_eq!(world.json(&["default", "b"])["default"], json!(true));
    world.remote(&["default", "nobody"]).fails(9, &["use one of: b, c, origin"]);
    fs::write(world.data("project-config.json"), r#"{"remote":{"default":"gone"}}"#).unwrap();
    world.run(&["push"]).fails(5, &["https://h/o/origin"]);
}

// ---- files that others write too

#[test]
fn what_is_not_known_is_kept_in_its_order() {
    let world = World::new();
    let remotes = json!({"zeta": {"url": "https://h/o/z", "base_url": "https://h", "org_slug": "o", "project_slug": "z",
        "later": {"b": 1, "a": [1.5, null]}, "auth": {"type": "bearer", "scope": "x", "token_ref": "env:OLD"}},
        "Some Name": {"url": "https://h/o/s"}, "note": "no remote"});
    let config = json!({"telemetry": {"enabled": false}, "tokens": {"other::origin": "at_other", "legacy": "x"},
        "capture_detached_edits": true, "install_id": "i"});
    let project = json!({"notes": {"enabled": true}, "remote": {"later": 1}, "summary": {"command": "x"}});
    fs::write(world.data("remotes.json"), remotes.to_string()).unwrap();
    fs::write(world.path("home/config.json"), config.to_string()).unwrap();
    fs::write(world.data("project-config.json"), project.to_string()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    world.with_input(TOKEN.as_bytes(), &["set-token", "zeta", "--token-stdin"]).well();
    world.remote(&["add", "note", SERVICE]).fails(2, &["already"]);
    world.add("added", SERVICE);
    world.remote(&["set-url", "zeta", "https://h/o/zz"]).well();
    world.remote(&["default", "Some Name"]).well();
    world.remote(&["show", "Some Name"]).well();
    let after = read(&world.data("remotes.json"));
    assert_eq!(keys(&after), ["zeta", "Some Name", "note", "added"]);
    assert_eq!(keys(&after["zeta"]), keys(&remotes["zeta"]));
    assert_eq!(after["zeta"]["later"], remotes["zeta"]["later"]);
    assert_eq!(after["zeta"]["auth"]["scope"], "x");
    assert_eq!(after["note"], "no remote");
    assert_eq!(keys(&world.config()), keys(&config));
    assert_eq!(
        keys(&world.config()["tokens"]),
        ["other::origin", "legacy", &world.key("zeta"), &world.key("added")]
    );
    world.remote(&["rename", "Some Name", "some"]).well();
    world.remote(&["remove", "zeta"]).well();
    world.remote(&["remove", "added"]).well();
    assert_eq!(world.config(), config);
    let mut expected = project.clone();
    expected["remote"]["default"] = json!("some");
    assert_eq!(read(&world.data("project-config.json")), expected);
    assert_eq!(keys(&read(&world.data("remotes.json"))), ["some", "note"]);
}

#[test]
fn what_cannot_be_read_is_named_and_left_alone() {
    let world = World::new();
    world.add("origin", SERVICE);
    let broken = |path: PathBuf, content: &str, commands: &[&[&str]]| {
        let before = fs::read(&path).ok();
        fs::write(&path, content).unwrap();
        for command in commands {
            let answer = world.with_input(TOKEN.as_bytes(), command);
            answer.fails(
                2,
                &[path.file_name().unwrap().to_str().unwrap(), "expected", "hint: correct the file"],
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content, "{command:?}");
        }
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    };
    let add = &["add", "second", "https://h/o/p", "--token-stdin"][..];
    let set = &["set-token", "origin", "--token-stdin"][..];
    let (remove, rename) = (&["remove", "origin"][..], &["rename", "origin", "x"][..]);
    for content in ["", "{\"tokens\": {", "[]", "{\"tokens\": []}"] {
        broken(world.path("home/config.json"), content, &[add, set, remove, rename, &["show", "origin"]]);
    }
    for content in ["", "{\"origin\":", "[1]"] {
        broken(world.data("remotes.json"), content, &[add, set, remove, rename, &["list"]]);
    }
    broken(
        world.data("project-config.json"),
        "{\"remote\": 1}",
        &[add, set, &["list"], &["default", "origin"]],
    );
    broken(world.data("store/remotes.json"), "{\"remotes\": 1}", &[add, &["list"]]);
    world.remote(&["show", "origin"]).well().says(&[MASKED]);
    fs::write(world.data("store/remotes.json"), "{\"version\": 2}").unwrap();
    world.remote(&["list"]).fails(11, &["newer version"]);
}

#[test]
fn files_become_private_and_what_died_aside_is_cleared() {
    let world = World::new();
    world.add("origin", SERVICE);
    for path in [world.path("home/config.json"), world.data("remotes.json")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let aside = world.path("home/.config.json.0011223344556677.new");
    fs::write(&aside, TOKEN).unwrap();
    world.add("second", SERVICE);
    assert!(!aside.exists(), "it holds a token");
    for path in [world.path("home/config.json"), world.data("remotes.json"), world.path("home/.config.lock")]
    {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let left: Vec<String> = [world.path("home"), world.data("")]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".new"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn many_writers_at_once_lose_nothing() {
    const WRITERS: usize = 12;
    let world = World::new();
    world.add("old", SERVICE);
    let children: Vec<_> = (0..WRITERS)
        .map(|number| {
            let mut command = world.trace();
            let (name, url) = (format!("r{number}"), format!("https://h/o/p{number}"));
            let token = format!("printf at_token-of-{number}");
            match number {
                0 => command.args(["remote", "rename", "old", "new"]),
                1 => command.args(["remote", "add", "r1", &world.folder("x")]),
                _ => command.args(["remote", "add", &name, &url, "--token-command", &token]),
            };
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        answer(child.wait_with_output().unwrap()).well();
    }
    let (remotes, config) = (read(&world.data("remotes.json")), world.config());
    assert_eq!(remotes.as_object().unwrap().len(), WRITERS - 1);
    assert_eq!(config["tokens"].as_object().unwrap().len(), WRITERS - 1);
    assert_eq!(config["tokens"][world.key("new")], TOKEN);
    for number in 2..WRITERS {
        let name = format!("r{number}");
        assert_eq!(config["tokens"][world.key(&name)], format!("at_token-of-{number}"));
        assert_eq!(remotes[&name]["auth"]["token_ref"], format!("global:{}", world.key(&name)));
    }
    assert_eq!(read(&world.data("store/remotes.json"))["remotes"].as_object().unwrap().len(), 1);
}

#[test]
fn a_service_goes_over_a_folder_of_the_same_name() {
    let world = World::new();
    world.remote(&["add", "origin", &world.folder("team")]).well();
    fs::write(world.data("remotes.json"), json!({"origin": {"url": SERVICE}}).to_string()).unwrap();
    let listed = world.remote(&["list"]).well().warns(&["a folder goes by the name `origin` too"]);
    assert_eq!(listed.out, format!("origin  {SERVICE}\n"));
    world.run(&["status"]).well().warns(&["a folder goes by the name `origin` too"]);
    world.remote(&["rename", "origin", "service"]).well();
    assert_eq!(world.remote(&["list"]).well().out.lines().count(), 2);
}

#[test]
fn two_projects_and_stores_outside_git_keep_their_tokens_apart() {
    let world = World::new();
    world.add("origin", SERVICE);
    let store = world.path("s").display().to_string();
    let on = |args: &[&str]| world.run(&[&["--store", &store], args].concat());
    on(&["init"]).well();
    on(&["remote", "add", "origin", "https://h/o/p", "--token-command", "printf at_outside-git"]).well();
    let id = fs::read_to_string(world.path("s/format")).unwrap().lines().nth(1).unwrap().to_owned();
    let key = format!("store-{id}::origin");
    assert_eq!(world.config(), json!({"tokens": {world.key("origin"): TOKEN, &key: "at_outside-git"}}));
    let document = read(&world.path("s/remotes.json"));
    assert_eq!(document["remotes"]["origin"]["auth"]["token_ref"], format!("global:{key}"));
    on(&["remote", "default", "origin"]).well();
    assert_eq!(read(&world.path("s/remotes.json"))["default"], "origin");
    on(&["remote", "show", "origin"]).well().says(&["********...-git, in config.json", "default  yes"]);
    on(&["remote", "remove", "origin"]).well();
    assert_eq!(world.config(), json!({"tokens": {world.key("origin"): TOKEN}}));
    let homeless = world
        .trace()
        .env_remove("HOME")
        .env_remove("AGENT_TRACE_HOME")
        .args(["--store", &store])
        .args(["remote", "add", "origin", SERVICE, "--token-command", "echo x"])
        .output()
        .unwrap();
    answer(homeless).fails(2, &["cannot keep a token", "--token-env"]);
}

#[test]
fn no_variable_goes_over_the_token_of_a_remote() {
    let world = World::new();
    world.add("origin", SERVICE);
    for name in ["AGENT_TRACE_TOKEN", "AGENT_TRACE_ADMIN_SECRET"] {
        let shown = world.with_variable(name, "at_something-else", &["show", "origin"]).well();
        assert!(shown.out.contains(MASKED), "{}", shown.out);
    }
}

// ---- cut

/// Kills a command at each of its calls of some kinds, one world each.
#[test]
fn a_change_that_is_killed_leaves_files_that_fit_each_other() {
    type Args = fn(&World) -> Vec<String>;
    let commands: [(&str, Args); 5] = [
        ("add", |_| words(&["add", "third", "https://h/o/p", "--token-command", "printf at_third-token"])),
        ("set-token", |_| words(&["set-token", "origin", "--token-env", "V"])),
        ("rename", |_| words(&["rename", "origin", "upstream"])),
        ("set-url", |world| words(&["set-url", "origin", &world.folder("team")])),
        ("remove", |_| words(&["remove", "origin"])),
    ];
    for (name, args) in commands {
        // Before a sync a kill leaves what it leaves before the change that comes next.
        for calls in ["/^rename", "pwrite64", "/^unlink"] {
            for at in 1.. {
                assert!(at < 100, "{name} makes no end of {calls}");
                let world = World::new();
                world.add("origin", SERVICE);
                world.add("second", SERVICE);
                world.remote(&["default", "origin"]).well();
                let args = args(&world);
                if !world.kill(&args, calls, at) {
                    break;
                }
                let point = format!("{name} killed at {calls} {at}");
                world.check_files(name == "remove", &point);
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let again = world.remote(&args);
                // What was done before the kill cannot be done twice.
                assert!(
                    matches!((name, again.status), (_, 0) | ("add", 2) | ("rename" | "remove", 9)),
                    "{point}: {}",
                    again.err
                );
                world.check_files(false, &point);
                let listed = world.remote(&["list"]).well().out;
                let expected = ["add", "rename", "remove"].contains(&name);
                assert_eq!(
                    listed.contains("third") || listed.contains("upstream") || listed.lines().count() == 1,
                    expected,
                    "{point}: {listed}"
                );
            }
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl World {
    /// Runs a command that is killed at a call; says whether it was.
    fn kill(&self, args: &[String], calls: &str, at: usize) -> bool {
        let inject = format!("inject={calls}:signal=SIGKILL:when={at}");
        let output = self
            .command("strace")
            .args(["-qq", "-b", "execve", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject])
            .arg(env!("CARGO_BIN_EXE_agent-trace"))
            .arg("remote")
            .args(args)
            .output()
            .unwrap();
        let killed = !matches!(output.status.code(), Some(code) if code != 137);
        assert!(killed || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        killed
    }

    /// Each file is whole and private, and each remote has the token that it refers to.
    fn check_files(&self, may_miss_tokens: bool, point: &str) {
        let tokens = self.config().get("tokens").cloned().unwrap_or_default();
        let remotes = read(&self.data("remotes.json"));
        for (name, remote) in remotes.as_object().unwrap() {
            let reference = remote["auth"]["token_ref"].as_str().unwrap();
            let missing = reference.strip_prefix("global:").is_some_and(|key| tokens.get(key).is_none());
            assert!(!missing || may_miss_tokens, "{point}: the token of {name} is gone");
        }
        let files = [
            self.path("home/config.json"),
            self.data("remotes.json"),
            self.data("store/remotes.json"),
            self.data("project-config.json"),
        ];
        for path in files.iter().filter(|path| path.exists()) {
            read(path);
            assert_eq!(mode(path), 0o600, "{point}: {}", path.display());
        }
    }
}
