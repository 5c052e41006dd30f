//! The program against real servers that speak S3: Ceph's gateway, which keeps what S3 promises, and rclone's, which does not.
//!
//! `tests/run.sh` installs and starts them and says where they are; without one its tests say `skipped: ... not given`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use support::{PROGRAM, Random, check_example, trace};

mod support;

/// Where a server is, and who may use it.
struct Server {
    endpoint: String,
    bucket: String,
    key: String,
    secret: String,
    // A server that the test itself has started.
    _running: Option<Running>,
}

struct Running {
    child: Child,
    // Where it keeps its files.
    _data: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ceph's gateway, or whatever else keeps what S3 promises.
fn ceph() -> Option<Server> {
    let get =
        |name: &str| std::env::var(format!("AGENT_TRACE_S3_{name}")).ok().filter(|text| !text.is_empty());
    let Some(endpoint) = get("ENDPOINT") else {
        println!("skipped: S3 server not given");
        return None;
    };
    let or = |name, usual: &str| get(name).unwrap_or_else(|| usual.to_owned());
    Some(Server {
        endpoint,
        bucket: or("BUCKET", "agent-trace-tests"),
        key: or("ACCESS_KEY", "testaccess"),
        secret: or("SECRET_KEY", "testsecret1234567890"),
        _running: None,
    })
}

/// A server of rclone's, which ignores conditions and has its own idea of ranges.
fn rclone() -> Option<Server> {
    let Some(program) = std::env::var_os("AGENT_TRACE_RCLONE").filter(|text| !text.is_empty()) else {
        println!("skipped: rclone not given");
        return None;
    };
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("traces")).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new(program)
        .args([
            "serve",
            "s3",
            "--config",
            "/dev/null",
            "--auth-key",
            "testaccess,testsecretofrclone",
            "--addr",
        ])
        .arg(address.to_string())
        .arg(data.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running { child, _data: data };
    let started = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "rclone does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(Server {
        endpoint: format!("http://{address}"),
        bucket: "traces".to_owned(),
        key: "testaccess".to_owned(),
        secret: "testsecretofrclone".to_owned(),
        _running: Some(running),
    })
}

/// Stores in a directory, and a server.
struct World<'a> {
    root: TempDir,
    server: &'a Server,
    url: String,
}

struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(self) -> Value {
        assert_eq!(self.status, 0, "{}{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    fn fails(self, status: i32, words: &str) {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert!(self.err.contains(words), "expected `{words}` in: {}", self.err);
    }
}

impl<'a> World<'a> {
    fn new(server: &'a Server, name: &str) -> World<'a> {
        let root = tempfile::tempdir().unwrap();
        // The server may have been used before.
        let url = format!(
            "s3://{}/{name}/{}",
            server.bucket,
            root.path().file_name().unwrap().to_string_lossy().trim_start_matches('.')
        );
        World { root, server, url }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = support::command(PROGRAM, self.root.path(), self.root.path());
        command.env("KEY", &self.server.key).env("SECRET", &self.server.secret).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        self.finish(&mut self.command(args))
    }

    fn finish(&self, command: &mut Command) -> Answer {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let answer = Answer {
            status: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        let secret = self.server.secret.as_str();
        let shown = answer.out.contains(secret) || answer.err.contains(secret);
        assert!(!shown, "a secret is shown: {}{}", answer.out, answer.err);
        answer
    }

    fn add(&self, store: &str, url: &str) -> Answer {
        let endpoint = self.server.endpoint.as_str();
        self.run(&[
            "--store",
            store,
            "remote",
            "add",
            "team",
            url,
            "--endpoint",
            endpoint,
            "--access-key-env",
            "KEY",
            "--secret-key-env",
            "SECRET",
        ])
    }

    /// A store with the remote.
    fn store(&self, name: &str) {
        assert_eq!(self.run(&["--store", name, "init"]).status, 0);
        let added = self.add(name, &self.url);
        assert_eq!(added.status, 0, "{}{}", added.out, added.err);
    }

    fn import(&self, store: &str, seed: u64, count: usize, digits: usize) {
        let mut random = Random(seed);
        let lines: Vec<String> = (0..count)
            .map(|number| {
                let id = format!("{:08x}-0000-4000-8000-{number:012x}", random.next() >> 32);
                let mut trace = trace(&id, "2026-01-01T00:00:00Z", "src/f.rs", serde_json::json!([]));
                trace["padding"] = random.digits(digits).into();
                trace.to_string()
            })
            .collect();
        let path = self.path(&format!("traces-{seed}.jsonl"));
        fs::write(&path, lines.join("\n")).unwrap();
        let path = path.to_str().unwrap().to_owned();
        assert_eq!(self.run(&["--store", store, "import", &path]).status, 0);
    }

    fn add_unchecked(&self, store: &str) -> Answer {
        let endpoint = self.server.endpoint.as_str();
        let keys = ["--access-key-env", "KEY", "--secret-key-env", "SECRET", "--no-check"];
        let mut args = vec!["--store", store, "remote", "add", "team", &self.url, "--endpoint", endpoint];
        args.extend(keys);
        self.run(&args)
    }

    fn import_alone(&self, store: &str) {
        assert_eq!(self.run(&["--store", store, "init"]).status, 0);
        self.import(store, 60, 3, 32);
    }

    fn json(&self, store: &str, args: &[&str]) -> Value {
        let mut all = vec!["--store", store, "--json"];
        all.extend(args);
        self.run(&all).json()
    }

    fn push(&self, store: &str) -> Value {
        self.json(store, &["push", "--full"])
    }

    fn records(&self, store: &str) -> u64 {
        self.json(store, &["status"])["events"].as_u64().unwrap()
    }
}

fn no_secret_is_kept(dir: &Path, secret: &str) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_secret_is_kept(&path, secret);
        } else if let Ok(bytes) = fs::read(&path) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret stands in {}", path.display());
        }
    }
}

fn exchange(server: &Server) {
    let world = World::new(server, "exchange");
    world.store("a");
    world.store("b");
    world.import("a", 1, 300, 800);
    world.import("b", 2, 20, 100);
    assert_eq!(world.push("a")["sent"]["trace"], 300);
    world.push("b");
    assert_eq!(world.json("b", &["pull"])["taken"]["trace"], 300);
    assert_eq!(world.json("a", &["pull"])["taken"]["trace"], 20);
    for store in ["a", "b"] {
        assert_eq!(world.records(store), 320);
        world.push(store);
        for answer in [world.push(store), world.json(store, &["pull"])] {
            let requests = answer["requests"].as_u64().unwrap();
            assert!(requests <= 2, "an unchanged exchange: {answer}");
        }
    }
    world.import("a", 3, 1, 100);
    let pushed = world.push("a");
    assert!(pushed["requests"].as_u64().unwrap() <= 10, "one new trace: {pushed}");
    let pulled = world.json("b", &["sync"]);
    assert!(pulled["pull"]["requests"].as_u64().unwrap() <= 6, "one new trace: {pulled}");
    let verified = world.json("b", &["verify", "--remote", "team"]);
    assert_eq!((&verified["ok"], &verified["events"]), (&true.into(), &321.into()), "{verified}");
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md")).unwrap();
    check_example(&page, &verified);
    no_secret_is_kept(&world.path("a"), &server.secret);
}

fn many_small_pushes_are_merged(server: &Server) {
    let world = World::new(server, "merged");
    world.store("a");
    for seed in 0..9 {
        world.import("a", 10 + seed, 3, 100);
        world.push("a");
    }
    let cleared = world.json("a", &["gc", "--remote", "team"]);
    assert_eq!(
        (&cleared["merged"], &cleared["made"], &cleared["waiting"]),
        (&9.into(), &1.into(), &9.into())
    );
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md")).unwrap();
    check_example(&page, &cleared);
    world.store("b");
    let pulled = world.json("b", &["pull"]);
    assert_eq!((&pulled["taken"]["trace"], &pulled["segments"]), (&27.into(), &1.into()), "{pulled}");
}

/// A push that is killed in the middle sends what is missing the next time.
fn a_killed_push_goes_on(server: &Server) {
    let world = World::new(server, "killed");
    world.store("a");
    world.import("a", 30, 1500, 1600);
    let mut child = world
        .command(&["--store", "a", "push", "--full", "--limit-rate", "600k"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.push("a")["sent"]["trace"], 1500);
    world.store("b");
    assert_eq!(world.json("b", &["pull"])["taken"]["trace"], 1500);
    assert_eq!(world.json("b", &["verify", "--remote", "team"])["ok"], true);
}

/// Three push, one pulls and clears up, all at once; in the end all hold the same.
fn many_at_once(server: &Server) {
    let world = World::new(server, "crowd");
    for store in ["a", "b", "c", "d"] {
        world.store(store);
    }
    world.import("a", 70, 2, 32);
    world.push("a");
    std::thread::scope(|scope| {
        for (number, store) in (0..).zip(["a", "b", "c"]) {
            let world = &world;
            scope.spawn(move || {
                for round in 0..3 {
                    world.import(store, 100 + number * 10 + round, 5, 100);
                    world.push(store);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..2 {
                world.json("d", &["pull"]);
                world.json("d", &["gc", "--remote", "team"]);
            }
        });
    });
    for store in ["a", "b", "c", "d"] {
        world.json(store, &["pull"]);
        assert_eq!(world.records(store), 47, "{store}");
    }
    assert_eq!(world.json("d", &["verify", "--remote", "team"])["ok"], true);
}

fn what_is_wrong_is_said(server: &Server) {
    let world = World::new(server, "wrong");
    world.store("a");
    world.import("a", 40, 2, 100);
    let push = ["--store", "a", "push", "--full"];
    world.finish(world.command(&push).env("SECRET", "wrong")).fails(4, "credentials");
    world.finish(world.command(&push).env_remove("SECRET")).fails(4, "`SECRET` is not set");
    assert_eq!(world.run(&["--store", "b", "init"]).status, 0);
    world.add("b", "s3://no-such-bucket-here/x").fails(9, "no such bucket");
    assert_eq!(world.push("a")["sent"]["trace"], 2);
}

/// Which promises `doctor` found kept.
fn promises(server: &Server) -> Vec<(String, String)> {
    let world = World::new(server, "doctor");
    world.store("a");
    world.import("a", 50, 2, 100);
    world.push("a");
    let answer = world.run(&["--store", "a", "--json", "doctor"]);
    let found: Value = serde_json::from_str(&answer.out).unwrap();
    let checks = found["checks"].as_array().unwrap().iter().filter(|check| check["check"] == "keeps");
    checks
        .map(|check| {
            let message = check["message"].as_str().unwrap();
            let name = message.split_once(':').unwrap().0.to_owned();
            (name, check["state"].as_str().unwrap().to_owned())
        })
        .collect()
}

fn state(promises: &[(String, String)], name: &str) -> String {
    promises.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{promises:?}")).1.clone()
}

#[test]
fn a_bucket_of_ceph_keeps_what_s3_promises() {
    let Some(server) = ceph() else { return };
    exchange(&server);
    what_is_wrong_is_said(&server);
    let promises = promises(&server);
    assert!(promises.len() >= 8 && promises.iter().all(|(_, state)| state == "ok"), "{promises:?}");
}

#[test]
fn a_bucket_of_ceph_is_cleared_up_and_survives_kills() {
    let Some(server) = ceph() else { return };
    many_small_pushes_are_merged(&server);
    a_killed_push_goes_on(&server);
}

#[test]
fn many_use_a_bucket_of_ceph_at_once() {
    let Some(server) = ceph() else { return };
    many_at_once(&server);
}

#[test]
fn a_bucket_of_rclone_ignores_conditions_and_holds_all_the_same() {
    let Some(server) = rclone() else { return };
    exchange(&server);
    many_small_pushes_are_merged(&server);
    let promises = promises(&server);
    assert_eq!(state(&promises, "conditions"), "warning", "{promises:?}");
    assert_eq!(state(&promises, "read after write"), "ok", "{promises:?}");
}

/// Nobody listens there, and nothing is asked.
fn nowhere() -> Server {
    Server {
        endpoint: "http://127.0.0.1:9".to_owned(),
        bucket: "team".to_owned(),
        key: "key-of-nobody".to_owned(),
        secret: "secret-of-nobody".to_owned(),
        _running: None,
    }
}

#[test]
fn what_is_said_of_a_bucket_is_checked_and_kept() {
    let server = nowhere();
    let world = World::new(&server, "x");
    assert_eq!(world.run(&["--store", "a", "init"]).status, 0);
    let add = |name: &str, url: &str, options: &[&str]| {
        let mut args = vec!["--store", "a", "remote", "add", name, url, "--no-check"];
        args.extend(options);
        world.run(&args)
    };
    let endpoint = ["--endpoint", "https://s3.lan:9000"];
    let named =
        ["--access-key-env", "KEY", "--secret-key-env", "SECRET", "--region", "eu-1", "--limit-rate", "500k"];
    assert_eq!(add("team", "s3://traces/a/b", &[&endpoint[..], &named[..]].concat()).status, 0);
    let shown = world.json("a", &["remote", "show", "team"]);
    let bucket = &shown["bucket"];
    assert_eq!((&bucket["endpoint"], &bucket["region"]), (&"https://s3.lan:9000".into(), &"eu-1".into()));
    assert_eq!(
        (&bucket["limit_rate"], &bucket["credentials"]),
        (&500_000.into(), &"in the variables KEY, SECRET".into())
    );
    assert_eq!(world.run(&["--store", "a", "remote", "rename", "team", "other"]).status, 0);
    assert_eq!(
        world.run(&["--store", "a", "remote", "set-url", "other", "s3://traces/c", "--no-check"]).status,
        0
    );
    let moved = world.json("a", &["remote", "show", "other"]);
    assert_eq!(
        (&moved["url"], &moved["bucket"]["region"]),
        (&"s3://traces/c".into(), &"eu-1".into()),
        "options stay"
    );

    add("b", "s3://xx", &[]).fails(2, "bucket's name");
    add("b", "s3://traces/../x", &[]).fails(2, "prefix");
    add("b", "s3://traces", &["--endpoint", "http://s3.lan"]).fails(2, "read and changed on the way");
    add("b", "s3://traces", &["--endpoint", "https://user:pw@s3.lan"]).fails(2, "name or a password");
    add("b", "s3://traces", &["--secret-key-env", "not a name"]).fails(2, "name of a variable");
    add("b", "s3://traces", &["--limit-rate", "fast"]).fails(2, "rate");
    add("b", "s3://traces", &["--limit-rate", "1"]).fails(2, "rate");
    add("b", "s3://traces", &["--anonymous", "--profile", "x"]).fails(2, "cannot be used with");
    add("b", "s3://traces", &["--token", "at_x"]).fails(2, "takes no token");
    add("b", "file:///tmp/absent-of-tests", &["--region", "eu-1"]).fails(2, "say nothing of");
    let none = ["--store", "a", "push", "--remote", "other", "--full"];
    world.finish(world.command(&none).env_remove("KEY")).fails(4, "`KEY` is not set");
    let profile = ["--store", "a", "remote", "add", "p", "s3://traces", "--profile", "absent"];
    world.run(&profile).fails(0, "there is no profile `absent`");
    no_secret_is_kept(&world.path("a"), &server.secret);
}

#[test]
fn a_bucket_that_is_nowhere_is_unavailable_and_everything_else_works() {
    let server = nowhere();
    let world = World::new(&server, "x");
    world.import_alone("a");
    assert_eq!(world.add_unchecked("a").status, 0);
    world.run(&["--store", "a", "push", "--full"]).fails(5, "connection was lost");
    assert_eq!(world.records("a"), 3);
}
