//! Transcripts on demand, from outside: a pull without them moves little, every answer still works, and `cat` fetches.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use support::{PROGRAM, Random, is_sound, trace};

mod support;

const SECRET: &str = "the-admin-secret-of-the-tests";
const LINES: usize = 4_000;

/// A directory with the stores `a`, `b` and `c`, and two transcripts.
struct World {
    root: TempDir,
    /// The SHA-256 of each transcript, and its bytes.
    transcripts: Vec<(String, Vec<u8>)>,
}

struct Answer {
    status: i32,
    out: Vec<u8>,
    err: String,
}

impl Answer {
    fn of(output: Output) -> Answer {
        let err = String::from_utf8(output.stderr).unwrap();
        Answer { status: output.status.code().unwrap(), out: output.stdout, err }
    }

    fn well(self) -> Answer {
        assert_eq!(self.status, 0, "{}\n{}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    fn fails(self, status: i32, words: &str) -> Answer {
        assert_eq!(self.status, status, "{}", self.err);
        assert!(self.err.contains(words), "expected `{words}` in: {}", self.err);
        self
    }

    fn json(self) -> Value {
        serde_json::from_slice(&self.well().out).unwrap()
    }
}

impl World {
    fn new() -> World {
        let mut world = World { root: tempfile::tempdir().unwrap(), transcripts: Vec::new() };
        let data = world.path("data");
        fs::create_dir(&data).unwrap();
        let mut random = Random(7);
        let (mut manifest, mut traces) = (String::new(), String::new());
        for session in 0..2 {
            let mut text = Vec::new();
            for _ in 0..LINES {
                let line = json!({"type": "user", "sessionId": format!("s{session}"), "message": random.digits(160)});
                text.extend_from_slice(format!("{line}\n").as_bytes());
            }
            let file = format!("{session}.jsonl");
            fs::write(data.join(&file), &text).unwrap();
            let line = json!({"file": file, "bytes": text.len(), "session_id": format!("s{session}"),
                "agent": "Claude Code", "created_at": "2026-02-01T10:00:00Z"});
            manifest.push_str(&format!("{line}\n"));
            let sha256 = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            world.transcripts.push((sha256, text));
        }
        for number in 0..50 {
            let id = format!("5ce2bf05-fca1-4d2e-a9b0-{number:012x}");
            traces.push_str(&format!("{}\n", trace(&id, "2026-02-01T11:00:00Z", "src/a.rs", json!([]))));
        }
        fs::write(data.join("manifest.jsonl"), manifest).unwrap();
        fs::write(data.join("traces.jsonl"), traces).unwrap();
        for store in ["a", "b", "c"] {
            world.run(store, &["init"]).well();
        }
        world.run("a", &["import", "data"]).well();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, store: &str) -> Command {
        let mut command = support::command(PROGRAM, self.root.path(), &self.path("nobody"));
        command.env("AGENT_TRACE_HOME", self.path("home")).args(["--store", store]);
        command
    }

    fn run(&self, store: &str, args: &[&str]) -> Answer {
        Answer::of(self.command(store).args(args).output().unwrap())
    }

    fn json(&self, store: &str, args: &[&str]) -> Value {
        self.run(store, &[&["--json"], args].concat()).json()
    }

    /// Names a remote in all stores.
    fn add_remote(&self, name: &str, url: &str, token: Option<&str>) {
        for store in ["a", "b", "c"] {
            let mut args = vec!["remote", "add", name, url];
            args.extend(token.iter().flat_map(|token| ["--token", token]));
            self.run(store, &args).well();
        }
    }

    fn sound(&self, store: &str, elsewhere: u64) {
        let verified = self.json(store, &["verify"]);
        assert!(is_sound(&verified), "{verified}");
        assert_eq!(verified["elsewhere"], json!(elsewhere));
        assert_eq!(self.json(store, &["status"])["elsewhere"], json!(elsewhere));
    }

    fn log(&self, store: &str) -> Vec<Value> {
        let lines = self.run(store, &["--json", "log", "-n", "1000"]).well().out;
        let mut ids: Vec<Value> = String::from_utf8(lines)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
            .collect();
        ids.sort_by_key(ToString::to_string);
        ids
    }
}

/// A service with the project `web` of the org `default`.
struct Service {
    child: Child,
    url: String,
    token: String,
}

impl Service {
    fn start(data: &Path) -> Service {
        let command = |args: &[&str]| {
            let mut command = Command::new(PROGRAM);
            command.env_clear().env("AGENT_TRACE_ADMIN_SECRET", SECRET).args(args);
            command
        };
        let data = data.to_str().unwrap();
        let admin = |args: &[&str]| {
            let said = command(&["--json", "admin"]).args(args).args(["--data", data]).output().unwrap();
            Answer::of(said).json()
        };
        admin(&["project", "create", "web"]);
        let token = admin(&["token", "create", "--project", "web"]);
        let serve = ["--json", "serve", "--listen", "127.0.0.1:0", "--data", data];
        let mut child = command(&serve).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Service {
            child,
            url: format!("{}/default/web", said["url"].as_str().unwrap()),
            token: token["token"].as_str().unwrap().to_owned(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a user sees of a remote that holds the transcripts; `goes` makes it unreachable.
fn transcripts_come_on_demand(world: &World, goes: impl FnOnce()) {
    world.run("a", &["push", "--full", "--remote", "origin"]).well();
    let whole = world.json("c", &["pull", "--remote", "origin"])["bytes"].as_u64().unwrap();
    let pulled = world.json("b", &["pull", "--no-transcripts", "--remote", "origin"]);
    assert_eq!((&pulled["left_out"], &pulled["taken"]["transcript"]), (&json!(2), &json!(2)), "{pulled}");
    let bytes = pulled["bytes"].as_u64().unwrap();
    assert!(bytes * 20 < whole, "{bytes} of {whole} bytes");
    assert_eq!(world.log("b"), world.log("a"));
    world.sound("b", 2);
    let [(first, content), (second, _)] = &world.transcripts[..] else { panic!("there are two") };
    let shown = world.run("b", &["show", first]).well();
    let text = String::from_utf8(shown.out).unwrap();
    assert!(text.contains("elsewhere: `origin`"), "{text}");
    let shown = world.json("b", &["show", first]);
    assert_eq!(shown["records"][0]["elsewhere"][0], shown["records"][0]["objects"][1]);
    world.run("b", &["cat", "--offline", first]).fails(5, "`origin`");
    // One comes, and stays.
    let fetched = world.run("b", &["cat", first]).well();
    assert!(fetched.out == *content, "byte-identical");
    assert!(fetched.err.contains("fetched ") && fetched.err.contains(" from `origin`"), "{}", fetched.err);
    let again = world.run("b", &["cat", "--offline", first]).well();
    assert!(again.out == *content && again.err.is_empty(), "{}", again.err);
    world.sound("b", 1);
    // The other may not go to another remote as long as it is not here.
    let folder = format!("file://{}", world.path("other").display());
    world.add_remote("other", &folder, None);
    let pushed = world.run("b", &["push", "--full", "--remote", "other"]).well();
    assert!(String::from_utf8(pushed.out).unwrap().contains("1 conversation(s) not sent"));
    assert!(pushed.err.contains("agent-trace pull --transcripts --remote origin"), "{}", pushed.err);
    assert_eq!(world.json("b", &["push", "--full", "--remote", "other"])["elsewhere"], json!(1));
    // A remote that has gone from the settings, and one that cannot be reached.
    fs::rename(world.path("b/remotes.json"), world.path("aside")).unwrap();
    world.run("b", &["cat", second]).fails(9, "not in the settings");
    fs::rename(world.path("aside"), world.path("b/remotes.json")).unwrap();
    goes();
    let failed = world.run("b", &["cat", second]).fails(5, "");
    assert!(failed.out.is_empty());
    world.sound("b", 1);
}

#[test]
fn transcripts_that_a_pull_left_in_a_folder_come_on_demand() {
    let world = World::new();
    let remote = world.path("remote");
    world.add_remote("origin", &format!("file://{}", remote.display()), None);
    transcripts_come_on_demand(&world, || fs::rename(&remote, world.path("moved")).unwrap());
    // It comes back, and the index is lost.
    fs::rename(world.path("moved"), &remote).unwrap();
    fs::remove_file(world.path("b/index.redb")).unwrap();
    let (second, content) = &world.transcripts[1];
    assert!(world.run("b", &["cat", second]).well().out == *content);
    world.sound("b", 0);
    let pushed = world.json("b", &["push", "--full", "--remote", "other"]);
    assert_eq!((&pushed["elsewhere"], &pushed["sent"]["transcript"]), (&json!(0), &json!(1)));
}

#[test]
fn transcripts_that_a_pull_left_with_a_service_come_on_demand() {
    let world = World::new();
    let service = Service::start(&world.path("service"));
    let (url, token) = (service.url.clone(), service.token.clone());
    world.add_remote("origin", &url, Some(&token));
    transcripts_come_on_demand(&world, || drop(service));
}

#[test]
fn a_pull_with_transcripts_brings_all_that_were_left_out() {
    let world = World::new();
    let remote = format!("file://{}", world.path("remote").display());
    world.add_remote("origin", &remote, None);
    world.run("a", &["push", "--full"]).well();
    let both = world.run("b", &["pull", "--transcripts", "--no-transcripts"]);
    both.fails(2, "cannot be used with");
    let pulled = world.run("b", &["pull", "--no-transcripts"]).well();
    assert!(pulled.err.contains("the bytes of 2 conversation(s) were left out"), "{}", pulled.err);
    world.run("b", &["pull"]).well();
    world.sound("b", 2);
    let pulled = world.json("b", &["pull", "--transcripts"]);
    assert_eq!((&pulled["fetched"], &pulled["not_there"]), (&json!(2), &json!(0)));
    world.sound("b", 0);
    for (sha256, content) in &world.transcripts {
        assert!(world.run("b", &["cat", "--offline", sha256]).well().out == *content);
    }
}
