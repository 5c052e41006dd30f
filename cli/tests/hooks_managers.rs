//! Git's hooks where they are not files of our own: in the configuration of a newer git, and with husky, lefthook,
//! pre-commit and other owners of a hooks directory, each by files of its shape.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};

use support::hooks::{World, events, put, state, text, tree};

mod support;

const EVENTS: [&str; 3] = ["post-commit", "post-rewrite", "pre-push"];
const LINE: &str = "agent-trace hook post-commit \"$@\" >/dev/null 2>&1 || true";

// ---- configuration, from git 2.54 on

/// A git that says it is newer than it is.
fn newer_git(world: &World) -> String {
    let git = String::from_utf8(
        world.command("/bin/sh", &world.path("")).args(["-c", "command -v git"]).output().unwrap().stdout,
    )
    .unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = version ] && echo 'git version 2.54.0' && exit\nexec {} \"$@\"\n",
        git.trim()
    );
    world.script(&world.path("newer/git"), &script);
    format!("{}:{}", world.path("newer").display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_git_that_takes_hooks_from_its_configuration_gets_them_there() {
    let world = World::new();
    let path = newer_git(&world);
    let repository = world.repository("it's r");
    world.git(&repository, &["config", "hook.mine.command", "true"]);
    let config = text(&repository.join(".git/config"));
    let hooks = tree(&repository.join(".git/hooks"));
    let run = |args: &[&str]| {
        let output =
            world.command(world.program(), &repository).env("PATH", &path).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["init"]).contains("hooks post-commit, post-rewrite, pre-push"));
    let installed = text(&repository.join(".git/config"));
    assert!(!run(&["init"]).contains("hooks"));
    assert_eq!(text(&repository.join(".git/config")), installed);
    assert_eq!(tree(&repository.join(".git/hooks")), hooks);
    for event in EVENTS {
        let section = format!("hook.agent-trace-{event}");
        assert_eq!(world.git(&repository, &["config", "--get-all", &format!("{section}.event")]), event);
        let command = world.git(&repository, &["config", "--get-all", &format!("{section}.command")]);
        // As git runs it: by a shell, with the arguments appended.
        world.put_stub();
        let line = format!("sh -c '{} \"$@\"' hook one 'two three'", command.replace('\'', "'\\''"));
        let said = world.shell(&line, "old new\n").well();
        assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
        assert_eq!(world.told(), [format!("hook {event} one two three<old new>")]);
        world.put_program();
    }
    let status: Value = serde_json::from_str(&run(&["hooks", "status", "--json"])).unwrap();
    for event in status["git"]["events"].as_array().unwrap() {
        assert_eq!((&event["mechanism"], &event["runs"]), (&json!("config"), &json!(true)), "{status}");
    }
    // This git does not read them, and status says so.
    assert!(
        events(&world, &repository)
            .iter()
            .all(|event| event["mechanism"].is_null() && event["problem"].is_string())
    );
    run(&["hooks", "remove"]);
    assert_eq!(text(&repository.join(".git/config")), config);
    // Files that are there stay the way.
    world.run_in(&repository, &["init"]).well();
    run(&["init"]);
    assert_eq!(text(&repository.join(".git/config")), config);
    // And what an older git cannot read gives way to files.
    run(&["hooks", "remove"]);
    run(&["init"]);
    world.run_in(&repository, &["init"]).well();
    assert_eq!(text(&repository.join(".git/config")), config);
    assert!(repository.join(".git/hooks/post-commit").exists());
}

// ---- managers of hooks

/// A repository whose hooks belong to husky 9.
fn husky(world: &World) -> PathBuf {
    let repository = world.repository("r");
    let shim = "#!/usr/bin/env sh\n. \"$(dirname \"$0\")/h\"";
    let runner = "#!/usr/bin/env sh\nn=$(basename \"$0\")\ns=$(dirname \"$(dirname \"$0\")\")/$n\n[ ! -f \"$s\" ] && exit 0\nsh -e \"$s\" \"$@\"\nc=$?\nexit $c\n";
    for name in ["post-commit", "post-rewrite", "pre-push", "pre-commit"] {
        world.script(&repository.join(".husky/_").join(name), shim);
    }
    world.script(&repository.join(".husky/_/h"), runner);
    put(&repository.join(".husky/_/.gitignore"), "*");
    put(&repository.join(".husky/post-commit"), "true\n");
    world.git(&repository, &["config", "core.hooksPath", ".husky/_"]);
    world.git(&repository, &["add", "."]);
    world.git(&repository, &["commit", "-q", "-m", "husky"]);
    repository
}

#[test]
fn husky_is_told_what_to_add_and_gets_it_on_request() {
    let world = World::new();
    let repository = husky(&world);
    let before = state(&repository.join(".git"), Some(&repository));
    let said = world.run_in(&repository, &["init"]).well();
    assert!(said.err.contains(".husky/post-commit") && said.err.contains(LINE), "{}", said.err);
    assert!(said.err.contains("--write"), "{}", said.err);
    assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
    assert!(events(&world, &repository).iter().all(|event| event["mechanism"].is_null()));
    // From a subdirectory the same files are meant.
    fs::create_dir_all(repository.join("a")).unwrap();
    world.run_in(&repository.join("a"), &["hooks", "install", "--write", "--agent", "git"]).well();
    fs::remove_dir(repository.join("a")).unwrap();
    assert_eq!(text(&repository.join(".husky/post-commit")), format!("true\n{LINE}\n"));
    let again = world.json_in(&repository, &["hooks", "install", "--write", "--agent", "git"]);
    assert!(
        again["changes"].as_array().unwrap().iter().all(|change| change["change"] == "unchanged"),
        "{again}"
    );
    assert!(events(&world, &repository).iter().all(|event| event["mechanism"] == "husky"));
    world.put_stub();
    fs::create_dir_all(world.path("path")).unwrap();
    symlink(world.program(), world.path("path/agent-trace")).unwrap();
    let path = format!("{}:{}", world.path("path").display(), std::env::var("PATH").unwrap());
    let mut command = world.command("git", &repository);
    assert!(
        command
            .env("PATH", path)
            .args(["commit", "-q", "--allow-empty", "-m", "x"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_eq!(world.told(), ["hook post-commit<>"]);
    // Without the program it harms nobody.
    world.git(&repository, &["commit", "-q", "--allow-empty", "-m", "y"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
}

#[test]
fn a_worktree_without_the_directory_of_husky_changes_nothing() {
    let world = World::new();
    let repository = husky(&world);
    world.git(&repository, &["worktree", "add", "-q", "../w"]);
    let worktree = world.path("w");
    let before = tree(&worktree);
    let said = world.run_in(&worktree, &["init"]).well();
    assert!(said.err.contains(LINE), "{}", said.err);
    assert_eq!(tree(&worktree), before);
    world.commit(&worktree, "x");
}

#[test]
fn lefthook_and_pre_commit_get_their_lines_where_they_own_the_hooks() {
    for (file, content, shown) in [
        (
            "lefthook.yml",
            "pre-commit:\n  commands:\n    lint:\n      run: true\n",
            "post-commit:\n  commands:\n",
        ),
        (".pre-commit-config.yaml", "repos:\n  - repo: local\n    hooks: []\n", "stages: [post-commit]"),
    ] {
        let world = World::new();
        let repository = world.repository("r");
        put(&repository.join(file), content);
        put(&repository.join("tools/hooks/.keep"), "");
        world.git(&repository, &["config", "core.hooksPath", "tools/hooks"]);
        let before = state(&repository.join(".git"), Some(&repository));
        let said = world.run_in(&repository, &["init"]).well();
        assert!(said.err.contains(&shown.lines().next().unwrap().to_owned()), "{}", said.err);
        assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
        let dry =
            world.run_in(&repository, &["hooks", "install", "--write", "--agent", "git", "--dry-run"]).well();
        assert!(dry.out.contains("+"), "{}", dry.out);
        assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
        world.run_in(&repository, &["hooks", "install", "--write", "--agent", "git"]).well();
        let written = text(&repository.join(file));
        assert!(written.starts_with(content) && written.contains(shown), "{written}");
        assert_eq!(written.matches("agent-trace hook ").count(), 3, "{written}");
        world.run_in(&repository, &["hooks", "remove"]).well();
        assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
    }
}

#[test]
fn a_directory_of_nobody_gets_files_on_request_and_one_outside_gets_nothing() {
    let world = World::new();
    let repository = world.repository("r");
    let log = world.path("log").display().to_string();
    world.script(&repository.join(".githooks/post-commit"), &format!("#!/bin/sh\necho 'mine>' >>'{log}'\n"));
    world.git(&repository, &["config", "core.hooksPath", ".githooks"]);
    let before = state(&repository.join(".git"), Some(&repository));
    let said = world.run_in(&repository, &["init"]).well();
    assert!(said.err.contains(".githooks/post-commit"), "{}", said.err);
    assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
    world.run_in(&repository, &["hooks", "install", "--write", "--agent", "git"]).well();
    assert!(!text(&repository.join(".githooks/post-commit")).contains(world.path("").to_str().unwrap()));
    world.commit(&repository, "x");
    assert_eq!(world.told(), ["mine>"]);
    fs::remove_file(repository.join("x")).unwrap();
    world.run_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(state(&repository.join(".git"), Some(&repository)), before);

    let other = world.repository("other");
    fs::create_dir_all(world.path("shared")).unwrap();
    put(
        &world.path("home/.gitconfig"),
        &format!("[core]\n\thooksPath = {}\n", world.path("shared").display()),
    );
    let said = world.run_in(&other, &["init"]).well();
    assert!(said.err.contains("(global)") && said.err.contains("by hand"), "{}", said.err);
    world.run_in(&other, &["hooks", "install", "--write", "--agent", "git"]).well();
    assert_eq!(fs::read_dir(world.path("shared")).unwrap().count(), 0);
    assert_eq!(text(&world.path("home/.gitconfig")).lines().count(), 2);
}

#[test]
fn a_hooks_path_that_is_the_usual_one_is_no_manager() {
    let world = World::new();
    let repository = world.repository("r");
    world.git(&repository, &["config", "core.hooksPath", ".git/hooks"]);
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    world.commit(&repository, "x");
    assert_eq!(world.told(), ["hook post-commit<>"]);
}

#[test]
fn pre_commit_and_lefthook_may_come_before_and_after() {
    let world = World::new();
    let repository = world.repository("r");
    let hooks = repository.join(".git/hooks");
    let log = world.path("log").display().to_string();
    // As lefthook leaves it.
    world.script(&hooks.join("post-commit"), &format!("#!/bin/sh\n# lefthook\necho 'lefthook>' >>'{log}'\n"));
    let before = tree(&hooks);
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    world.commit(&repository, "x");
    assert_eq!(world.told(), ["lefthook>", "hook post-commit<>"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(tree(&hooks), before);
    // As pre-commit installs itself over a hook that it finds: that one is moved, and run first.
    fs::remove_file(hooks.join("post-commit")).unwrap();
    world.put_program();
    world.run_in(&repository, &["init"]).well();
    fs::rename(hooks.join("post-commit"), hooks.join("post-commit.legacy")).unwrap();
    let script =
        format!("#!/bin/sh\n\"${{0%/*}}/post-commit.legacy\" \"$@\"\necho 'pre-commit>' >>'{log}'\n");
    world.script(&hooks.join("post-commit"), &script);
    let said = world.run_in(&repository, &["init"]).well();
    assert!(!said.out.contains("hooks"), "{}", said.out);
    assert!(
        events(&world, &repository).iter().all(|event| event["mechanism"] == "file" && event["runs"] == true)
    );
    world.put_stub();
    world.commit(&repository, "y");
    assert_eq!(world.told(), ["hook post-commit<>", "pre-commit>"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(text(&hooks.join("post-commit")), script);
    assert!(!hooks.join("post-commit.legacy").exists());
    world.git(&repository, &["commit", "-q", "--allow-empty", "-m", "z"]);
}
