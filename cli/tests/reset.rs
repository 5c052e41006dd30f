//! `reset` from outside: what it says goes and nothing else, and what was recorded only when that is asked for by name.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use scratch::Scratch;
use serde_json::{Value, json};
use support::hooks::{Tree, tree};

mod scratch;
mod support;

/// A repository with records, settings, a remote with a token, and a second repository on the same machine.
struct World {
    scratch: Scratch,
    other: PathBuf,
}

impl World {
    fn new() -> World {
        let mut scratch = Scratch::new();
        let other = scratch.outside("other");
        fs::create_dir(&other).unwrap();
        scratch.git_in(&other, &["init", "-q"]);
        scratch.run_in(&other, &["init"]).well();
        scratch.run_in(&other, &["adopt"]).well();
        scratch.run_in(&other, &["config", "set", "notes.push", "on"]).well();
        scratch.run(&["adopt"]).well();
        scratch.agent("a.py", "", "first = compute(1)\n");
        scratch.commit("one");
        for (name, value) in [("notes.push", "on"), ("summary.command", "cat"), ("hooks.fsync", "on")] {
            scratch.run(&["config", "set", name, value]).well();
        }
        let world = World { scratch, other };
        let remote = format!("file://{}", world.scratch.outside("team").display());
        world.scratch.run(&["remote", "add", "team", &remote]).well();
        world.scratch.run(&["config", "set", "remote.default", "team"]).well();
        let mut config = world.config();
        config["mine"] = json!(1);
        config["notes"]["theirs"] = json!(2);
        config["capture"] = json!({"flush": "manual"});
        fs::write(world.data().join("project-config.json"), config.to_string()).unwrap();
        let tokens =
            json!({"tokens": {format!("{}::team", world.id()): "at_one", "at-other::team": "at_two"}});
        fs::write(world.home().join("config.json"), tokens.to_string()).unwrap();
        world
    }

    fn home(&self) -> PathBuf {
        self.scratch.outside("home/.agent-trace")
    }

    fn anchor(&self) -> PathBuf {
        self.scratch.path(".git/agent-trace-id")
    }

    fn id(&self) -> String {
        fs::read_to_string(self.anchor()).unwrap().trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.home().join("projects").join(self.id())
    }

    fn config(&self) -> Value {
        json_of(&self.data().join("project-config.json"))
    }

    /// All of the other project, and of the work tree.
    fn others(&self) -> Vec<Tree> {
        let id = fs::read_to_string(self.other.join(".git/agent-trace-id")).unwrap();
        let work_tree = tree(&self.scratch.repository).into_iter();
        let work_tree = work_tree.filter(|(path, _)| !path.starts_with(self.scratch.path(".git"))).collect();
        vec![tree(&self.home().join("projects").join(id.trim())), tree(&self.other), work_tree]
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn settings_and_hooks_are_as_init_leaves_them_and_the_rest_stays() {
    let world = World::new();
    let scratch = &world.scratch;
    let hooks = tree(&scratch.path(".git/hooks"));
    fs::remove_file(scratch.path(".git/hooks/pre-push")).unwrap();
    let (before, all) = (world.others(), tree(&world.home()));
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md")).unwrap();
    let plan = scratch.run(&["reset", "--dry-run", "--json"]).json();
    support::check_example(&page, &plan);
    let settings =
        json!({"notes.push": true, "summary.command": "cat", "hooks.fsync": true, "capture.flush": "manual"});
    assert_eq!((&plan["settings"], &plan["data"]), (&settings, &Value::Null));
    assert_eq!(plan["hooks"].as_array().unwrap().len(), 1, "{plan}");
    let said = scratch.run(&["reset", "--dry-run"]).well().out;
    assert!(said.contains("setting summary.command, now \"cat\"") && said.contains("pre-push"), "{said}");
    // Nobody can be asked here.
    assert_eq!(scratch.run(&["reset"]).status, 2);
    assert_eq!(tree(&world.home()), all);
    scratch.run(&["reset", "--yes"]).well();
    assert_eq!(world.config(), json!({"notes": {"theirs": 2}, "mine": 1, "remote": {"default": "team"}}));
    assert_eq!(tree(&scratch.path(".git/hooks")), hooks);
    assert_eq!(world.others(), before);
    assert_eq!(scratch.run(&["log", "--json"]).well().out.lines().count(), 3);
    assert!(scratch.run(&["remote", "list"]).well().out.contains("team"));
    assert!(scratch.run(&["reset"]).well().out.contains("Nothing to reset"));
    // Whoever wanted no hooks gets none.
    scratch.run(&["hooks", "remove"]).well();
    scratch.run(&["config", "set", "notes.push", "on"]).well();
    scratch.run(&["reset", "--yes"]).well();
    assert!(!scratch.path(".git/hooks/post-commit").exists());
}

#[test]
fn all_that_was_recorded_goes_when_it_is_asked_for_by_name() {
    let world = World::new();
    let (scratch, id, data) = (&world.scratch, world.id(), world.data());
    let before = world.others();
    let plan = scratch.run(&["reset", "--remove-store", "--dry-run", "--json"]).json();
    assert_eq!((&plan["data"]["records"], &plan["data"]["remotes"]), (&json!(3), &json!(["team"])), "{plan}");
    let said = scratch.run(&["reset", "--remove-store", "--dry-run"]).well().out;
    assert!(said.contains("3 record(s)") && said.contains("not pushed to team"), "{said}");
    assert_eq!(scratch.run(&["reset", "--remove-store"]).status, 2);
    assert!(data.join("store/format").exists());
    scratch.run(&["reset", "--remove-store", "--yes"]).well();
    assert!(!data.exists() && !world.anchor().exists());
    assert_eq!(world.others(), before);
    assert_eq!(json_of(&world.home().join("config.json")), json!({"tokens": {"at-other::team": "at_two"}}));
    assert!(!fs::read_to_string(world.home().join("projects.json")).unwrap().contains(&id));
    let hooks: BTreeMap<_, _> = tree(&scratch.path(".git/hooks"));
    assert!(hooks.keys().all(|path| path.to_str().unwrap().ends_with(".sample")), "{hooks:?}");
    assert_eq!(scratch.run(&["status"]).status, 9);
    assert_eq!(scratch.run(&["reset"]).status, 9);
    // A commit harms nobody, and a new project is another one.
    scratch.git(&["commit", "-q", "--allow-empty", "-m", "two"]);
    scratch.run(&["init"]).well();
    assert_ne!(world.id(), id);
    assert_eq!(scratch.run(&["log", "--json"]).well().out, "");
}

#[test]
fn a_removal_that_was_cut_short_is_finished_by_the_next() {
    let world = World::new();
    let (scratch, id, data) = (&world.scratch, world.id(), world.data());
    let aside = data.with_file_name(format!(".{id}.00"));
    fs::rename(&data, &aside).unwrap();
    assert!(!scratch.run(&["projects"]).well().out.contains(".00"));
    scratch.run(&["reset", "--remove-store", "--yes"]).well();
    assert!(!aside.exists() && !world.anchor().exists());
}

#[test]
fn a_copy_of_the_repository_that_shares_the_data_is_named() {
    let world = World::new();
    let scratch = &world.scratch;
    let copy = scratch.outside("copy");
    scratch.git_in(
        scratch.repository.parent().unwrap(),
        &["clone", "-q", scratch.repository.to_str().unwrap(), "copy"],
    );
    fs::copy(world.anchor(), copy.join(".git/agent-trace-id")).unwrap();
    scratch.run_in(&copy, &["adopt"]).well();
    let plan = scratch.run(&["reset", "--remove-store", "--dry-run", "--json"]).json();
    assert_eq!(plan["data"]["shared_with"], json!([copy]), "{plan}");
}

#[test]
fn a_store_outside_git_has_settings_only() {
    let world = World::new();
    let scratch = &world.scratch;
    let store = scratch.outside("store").display().to_string();
    scratch.run(&["--store", &store, "init"]).well();
    scratch.run(&["--store", &store, "config", "set", "notes.push", "on"]).well();
    assert_eq!(scratch.run(&["--store", &store, "reset", "--remove-store", "--yes"]).status, 2);
    let answer = scratch.run(&["--store", &store, "reset", "--yes", "--json"]).json();
    assert_eq!((&answer["settings"], &answer["hooks"]), (&json!({"notes.push": true}), &json!([])));
    assert!(Path::new(&store).join("format").exists());
}
