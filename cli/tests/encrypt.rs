//! Encrypted remotes from outside: adding, pushing, pulling, changing keys, and what is refused with 12.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{PROGRAM, check_example, command, trace};
use tempfile::TempDir;

const SECRET: &str = "correct horse battery staple";

struct World {
    root: TempDir,
}

struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn well(self) -> Answer {
        self.ends(0, &[])
    }

    fn ends(self, status: i32, words: &[&str]) -> Answer {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "expected `{word}` in: {}", self.err);
        }
        for text in [&self.out, &self.err] {
            assert!(!text.contains(SECRET) && !text.contains("AGE-SECRET"), "a secret is shown: {text}");
        }
        self
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.well().out).unwrap()
    }
}

impl World {
    fn new() -> World {
        let world = World { root: tempfile::tempdir().unwrap() };
        for store in ["a", "b"] {
            world.on(store, &["init"], &[]).well();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn url(&self) -> String {
        format!("file://{}", self.path("team").display())
    }

    fn on(&self, store: &str, args: &[&str], variables: &[(&str, &str)]) -> Answer {
        let mut command = command(PROGRAM, self.root.path(), self.root.path());
        command.arg("--store").arg(self.path(store)).args(args).envs(variables.iter().copied());
        let output = command.output().unwrap();
        Answer {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn add_traces(&self, store: &str, numbers: std::ops::Range<u32>) {
        let lines: String = numbers
            .map(|number| {
                let id = format!("{number:08x}-0000-4000-8000-000000000000");
                format!("{}\n", trace(&id, "2026-01-01T00:00:00Z", "src/hidden-name.rs", json!([])))
            })
            .collect();
        fs::create_dir_all(self.path("data")).unwrap();
        fs::write(self.path("data/traces.jsonl"), lines).unwrap();
        self.on(store, &["import", "data"], &[]).well();
    }

    fn key(&self, name: &str) -> String {
        let made = self.on("a", &["--json", "key", "new", name], &[]).json();
        made["own"][0].as_str().unwrap().to_owned()
    }

    fn records(&self, store: &str) -> u64 {
        self.on(store, &["--json", "status"], &[]).json()["events"].as_u64().unwrap()
    }
}

fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path)
            } else {
                found.push((path.clone(), fs::read(&path).unwrap()))
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_passphrase_in_a_variable_seals_and_opens() {
    let world = World::new();
    let url = world.url();
    let add = ["remote", "add", "team", &url, "--encrypt", "--secret-env", "TEAM_SECRET"];
    world.on("a", &add, &[]).ends(12, &["`TEAM_SECRET`", "hint: set TEAM_SECRET"]);
    let set = [("TEAM_SECRET", SECRET)];
    world.on("a", &add, &set).well();
    world.add_traces("a", 0..20);
    world.on("a", &["push", "--full"], &[]).ends(12, &["TEAM_SECRET"]);
    assert!(!world.path("team").exists(), "nothing is written without the secret");
    world.on("a", &["push", "--full"], &set).well();
    world
        .on("a", &["push", "--full"], &[("TEAM_SECRET", "another long passphrase")])
        .ends(12, &["cannot open the keys"]);
    for (path, bytes) in tree(&world.path("team")).iter().chain(&tree(&world.path("a/remotes"))) {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(SECRET), "{}", path.display());
        assert!(path.starts_with(world.path("a")) || !text.contains("hidden-name"), "{}", path.display());
    }
    assert!(!fs::read_to_string(world.path("a/remotes.json")).unwrap().contains(SECRET));
    // Somebody who does not know that it is encrypted is told.
    world.on("b", &["remote", "add", "team", &url], &[]).ends(12, &["is encrypted", "--encrypt"]);
    world.on("b", &add, &[("TEAM_SECRET", "not the one at all")]).ends(12, &[]);
    assert_eq!(world.on("b", &["remote", "list"], &[]).well().out, "", "nothing was added");
    world.on("b", &add, &set).well();
    world.on("b", &["pull"], &set).well();
    assert_eq!(world.records("b"), 20);
    let again = world.on("b", &["--json", "push", "--full"], &set).json();
    assert_eq!(
        (&again["segments"], &again["bytes"]),
        (&json!(0), &json!(0)),
        "two that share the secret send nothing twice"
    );
    let status = world.on("b", &["status"], &[]).well();
    assert!(status.out.contains("encrypted, key of epoch 1"), "{}", status.out);
    let shown = world.on("b", &["remote", "show", "team"], &[]).well();
    assert!(shown.out.contains("secret in the variable TEAM_SECRET"), "{}", shown.out);
    let doctor = world.on("b", &["doctor"], &set);
    assert!(doctor.out.contains("encrypted, key of epoch 1"), "{}", doctor.out);
}

#[test]
fn members_come_and_go() {
    let world = World::new();
    let url = world.url();
    let (one, two) = (world.key("one.key"), world.key("two.key"));
    assert_eq!(fs::metadata(world.path("one.key")).unwrap().permissions().mode() & 0o777, 0o600);
    world.on("a", &["key", "new", "one.key"], &[]).ends(1, &["cannot make the key file"]);
    let add = |key: &'static str| {
        ["remote", "add", "team", &url, "--encrypt", "--key-file", key].map(str::to_owned)
    };
    let run = |store: &str, args: &[String]| {
        world.on(store, &args.iter().map(String::as_str).collect::<Vec<_>>(), &[])
    };
    run("a", &add("one.key")).well();
    world.on("a", &["key", "check"], &[]).ends(9, &["nothing on the remote"]);
    world.add_traces("a", 0..5);
    world.on("a", &["push", "--full"], &[]).well();
    run("b", &add("two.key")).ends(12, &[]);
    world.on("a", &["key", "rotate", "--add", &two], &[]).well();
    run("b", &add("two.key")).well();
    world.on("b", &["pull"], &[]).well();
    world.add_traces("b", 5..10);
    world.on("b", &["push", "--full"], &[]).well();
    let ids = ["a", "b"].map(|store| world.on(store, &["--json", "key", "show-id"], &[]).json());
    assert_eq!((&ids[0]["key_id"], &ids[0]["epoch"]), (&ids[1]["key_id"], &json!(2)));
    assert_eq!(ids[0]["members"], json!([one, two]));
    let checked = world.on("a", &["--json", "key", "check", "--remote", "team"], &[]).json();
    assert_eq!((&checked["heads"], &checked["refused"]), (&json!(2), &json!([])));
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md")).unwrap();
    check_example(&page, &checked);
    world.on("a", &["key", "rotate", "--remove", &two], &[]).well();
    world.on("b", &["pull"], &[]).ends(12, &["epoch 3"]);
    // Another secret of one's own.
    world.key("three.key");
    world.on("a", &["key", "rotate", "--key-file", "three.key"], &[]).well();
    fs::remove_file(world.path("one.key")).unwrap();
    world.on("a", &["pull"], &[]).well();
    assert_eq!(world.records("a"), 10);
    fs::set_permissions(world.path("three.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let doctor = world.on("a", &["doctor"], &[]);
    assert!(doctor.out.contains("chmod 600"), "{}", doctor.out);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let world = World::new();
    let url = world.url();
    world.key("one.key");
    world.on("a", &["remote", "add", "t", &url, "--encrypt"], &[]).ends(2, &["--secret-env or --key-file"]);
    world.on("a", &["remote", "add", "t", &url, "--key-file", "one.key"], &[]).ends(2, &["--encrypt is not"]);
    let both = ["remote", "add", "t", &url, "--encrypt", "--key-file", "one.key", "--secret-env", "A"];
    world.on("a", &both, &[]).ends(2, &[]);
    let service =
        ["remote", "add", "t", "https://h.example/o/p", "--encrypt", "--key-file", "one.key", "--no-check"];
    world.on("a", &service, &[]).ends(2, &["a service"]);
    let odd = ["remote", "add", "t", &url, "--encrypt", "--secret-env", SECRET];
    world.on("a", &odd, &[]).ends(2, &["the name of a variable"]);
    world
        .on("a", &["remote", "add", "t", &url, "--encrypt", "--key-file", "none.key"], &[])
        .ends(12, &["none.key"]);
    // A plain remote is not taken for an encrypted one, nor made one.
    world.on("a", &["remote", "add", "plain", &url, "--create"], &[]).well();
    let encrypted = ["remote", "add", "t", &url, "--encrypt", "--key-file", "one.key"];
    world.on("a", &encrypted, &[]).ends(12, &["is not encrypted"]);
    world.on("a", &["key", "check"], &[]).ends(2, &["`plain` is not encrypted"]);
}
