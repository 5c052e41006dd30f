//! Git's hooks with the real programs of others: a git that takes hooks from its configuration, husky, lefthook and
//! pre-commit. `hooks_managers.rs` holds the same with files of their shape.
//!
//! `AGENT_TRACE_NEWER_GIT` names the folder of a git of 2.54 or later; `AGENT_TRACE_HOOK_MANAGERS` a folder in which the
//! managers are, or into which npm and pip put them. Without these, tests say so and pass.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::hooks::{World, check_told, events, put, state, text, tree};

mod support;

const HUSKY: &str = "husky@9.1.7";
const LEFTHOOK: &str = "lefthook@2.2.2";
const PRE_COMMIT: &str = "pre-commit==4.7.0";

// ---- a newer git

/// A world in which git takes hooks from its configuration.
fn newer() -> Option<World> {
    let Some(folder) = std::env::var_os("AGENT_TRACE_NEWER_GIT") else {
        eprintln!("skipped: newer git not given");
        return None;
    };
    let world = World::with_first(Some(folder.into()));
    let said = world.git(&world.path(""), &["version"]);
    let mut numbers =
        said.trim_start_matches("git version ").split('.').map(|part| part.parse::<u32>().unwrap());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    assert!(version >= (2, 54), "expected git 2.54 or later, found `{said}`");
    Some(world)
}

/// Installs by `init`, works, removes, and compares with what was there.
fn check_config(world: &World, repository: &Path) {
    let config = PathBuf::from(
        world.git(repository, &["rev-parse", "--path-format=absolute", "--git-path", "config"]),
    );
    let hooks = config.with_file_name("hooks");
    let before = (text(&config), tree(&hooks));
    assert!(
        world.run_in(repository, &["init"]).well().out.contains("hooks post-commit, post-rewrite, pre-push")
    );
    assert_eq!(tree(&hooks), before.1);
    assert!(
        events(world, repository).iter().all(|event| event["mechanism"] == "config" && event["runs"] == true)
    );
    world.put_stub();
    check_told(world, repository);
    world.real_in(repository, &["hooks", "remove"]).well();
    assert_eq!((text(&config), tree(&hooks)), before);
    world.commit(repository, "last");
    assert_eq!(world.told(), [""; 0]);
    world.put_program();
}

#[test]
fn a_newer_git_runs_our_hooks_from_its_configuration() {
    let Some(world) = newer() else { return };
    check_config(&world, &world.repository("it's \"r\""));
    let sha256 = world.repository_with("sha256", &["--object-format=sha256"]);
    check_config(&world, &sha256);
    let repository = world.repository("r");
    let worktree = world.path("w");
    world.git(&repository, &["worktree", "add", "-q", worktree.to_str().unwrap()]);
    check_config(&world, &worktree);
}

#[test]
fn a_newer_git_runs_ours_beside_the_user_s_of_both_kinds() {
    let Some(world) = newer() else { return };
    let repository = world.repository("r");
    let log = world.path("log").display().to_string();
    world.git(&repository, &["config", "hook.mine.event", "post-commit"]);
    world.git(&repository, &["config", "hook.mine.command", &format!("echo 'config>' >>'{log}' #")]);
    world.script(&repository.join(".git/hooks/post-commit"), &format!("#!/bin/sh\necho 'file>' >>'{log}'\n"));
    world.script(&repository.join(".git/hooks/pre-push"), "#!/bin/sh\nexit 1\n");
    let config = text(&repository.join(".git/config"));
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    world.commit(&repository, "x");
    let mut told = world.told();
    told.sort();
    assert_eq!(told, ["config>", "file>", "hook post-commit<>"]);
    // A pre-push of the user's that refuses still refuses.
    world.git(&world.path(""), &["init", "-q", "--bare", "t.git"]);
    let target = world.path("t.git").display().to_string();
    assert_ne!(world.try_git(&repository, &["push", "-q", &target, "HEAD:refs/heads/x"]).status, 0);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(text(&repository.join(".git/config")), config);
    world.told();
    world.commit(&repository, "y");
    assert_eq!(world.told().len(), 2);
}

#[test]
fn hooks_in_files_stay_the_way_when_git_becomes_newer() {
    let Some(world) = newer() else { return };
    let repository = world.repository("r");
    // Installed with the older git.
    let older = World::new();
    older.command(world.program(), &repository).env("HOME", world.path("home")).arg("init").output().unwrap();
    assert!(repository.join(".git/hooks/post-commit").exists());
    assert!(events(&world, &repository).iter().all(|event| event["mechanism"] == "file"));
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    world.commit(&repository, "x");
    assert_eq!(world.told(), ["hook post-commit<>"]);
}

// ---- managers

/// The folder with the managers, once they are there.
fn managers() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("AGENT_TRACE_HOOK_MANAGERS").map(PathBuf::from) else {
        eprintln!("skipped: managers of hooks not given");
        return None;
    };
    fs::create_dir_all(&folder).unwrap();
    let has = |name: &str| folder.join(name).exists();
    let run = |line: String| {
        Command::new("sh").current_dir(&folder).args(["-ec", &line]).status().unwrap().success()
    };
    // Two tests may come to this at once.
    let lock = fs::File::create(folder.join(".lock")).unwrap();
    lock.lock().unwrap();
    let there =
        (has("node_modules/.bin/husky") && has("node_modules/.bin/lefthook") && has("venv/bin/pre-commit"))
            || run(format!(
                "npm install --silent --no-audit --no-fund --prefix . {HUSKY} {LEFTHOOK} >&2
             python3 -m venv venv && venv/bin/pip install --quiet {PRE_COMMIT} >&2"
            ));
    if !there {
        eprintln!("skipped: husky, lefthook and pre-commit could not be installed");
    }
    there.then_some(folder)
}

/// A repository, and a link to the program on PATH, since shared files name it so.
fn repository(folder: &Path) -> (World, PathBuf) {
    let bin = folder.join("node_modules/.bin");
    let world = World::with_first(Some(bin));
    let repository = world.repository("r");
    (world, repository)
}

/// Runs a manager, or git, where the program is on PATH too.
fn run(world: &World, repository: &Path, program: impl AsRef<Path>, args: &[&str]) {
    let mut command = world.command(program.as_ref(), repository);
    let path = command.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
    command.env("PATH", format!("{}:{}", world.path("bin").display(), path.to_str().unwrap()));
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

fn commit(world: &World, repository: &Path) -> Vec<String> {
    world.told();
    run(world, repository, "git", &["commit", "-q", "--allow-empty", "-m", "x"]);
    let mut told = world.told();
    told.sort();
    told
}

/// A push, and what was told of it; the target goes again.
fn push(world: &World, repository: &Path) -> Vec<String> {
    world.git(&world.path(""), &["init", "-q", "--bare", "t.git"]);
    world.told();
    let target = world.path("t.git");
    run(world, repository, "git", &["push", "-q", target.to_str().unwrap(), "HEAD:refs/heads/x"]);
    fs::remove_dir_all(target).unwrap();
    let mut told: Vec<String> = world
        .told()
        .iter()
        .map(|line| line.split([' ', '<']).take(2).collect::<Vec<_>>().join(" "))
        .collect();
    told.sort();
    told
}

const OURS: &str = "hook post-commit<>";

#[test]
fn husky_runs_its_own_and_ours() {
    let Some(folder) = managers() else { return };
    let (world, repository) = repository(&folder);
    let log = world.path("log").display().to_string();
    put(&repository.join("package.json"), "{\"private\": true}\n");
    run(&world, &repository, "husky", &[]);
    put(&repository.join(".husky/post-commit"), &format!("echo 'theirs>' >>'{log}'\n"));
    run(&world, &repository, "git", &["add", "."]);
    run(&world, &repository, "git", &["commit", "-q", "-m", "husky"]);
    let before = state(&repository.join(".git"), Some(&repository));
    assert!(world.run_in(&repository, &["init"]).well().err.contains("--write"));
    assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
    world.run_in(&repository, &["hooks", "install", "--write", "--agent", "git"]).well();
    assert!(events(&world, &repository).iter().all(|event| event["mechanism"] == "husky"));
    world.put_stub();
    assert_eq!(commit(&world, &repository), [OURS, "theirs>"]);
    assert_eq!(push(&world, &repository), ["hook pre-push"]);
    // Installing husky again, as `npm install` does, leaves both.
    run(&world, &repository, "husky", &[]);
    assert_eq!(commit(&world, &repository), [OURS, "theirs>"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
    assert_eq!(commit(&world, &repository), ["theirs>"]);
}

#[test]
fn lefthook_runs_its_own_and_ours() {
    let Some(folder) = managers() else { return };
    let (world, repository) = repository(&folder);
    let log = world.path("log").display().to_string();
    let commands = format!("  commands:\n    theirs:\n      run: echo 'theirs>' >>'{log}'\n");
    put(&repository.join("lefthook.yml"), &format!("post-commit:\n{commands}pre-push:\n{commands}"));
    run(&world, &repository, "lefthook", &["install"]);
    run(&world, &repository, "git", &["add", "."]);
    run(&world, &repository, "git", &["commit", "-q", "-m", "lefthook"]);
    let before = state(&repository.join(".git"), Some(&repository));
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    assert_eq!(commit(&world, &repository), [OURS, "theirs>"]);
    assert_eq!(push(&world, &repository), ["hook pre-push", "theirs>"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(state(&repository.join(".git"), Some(&repository)), before);
    assert_eq!(commit(&world, &repository), ["theirs>"]);
    // Installed over ours it puts ours aside and does not run it; that is said, and `init` mends it.
    world.put_program();
    world.run_in(&repository, &["init"]).well();
    run(&world, &repository, "lefthook", &["install", "--force"]);
    let states = events(&world, &repository);
    let told = |name: &str| states.iter().find(|event| event["event"] == name).unwrap()["mechanism"].clone();
    assert!(told("post-commit").is_null(), "{states:?}");
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    assert_eq!(commit(&world, &repository), [OURS, "theirs>"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(commit(&world, &repository), ["theirs>"]);
}

#[test]
fn pre_commit_runs_its_own_and_ours_whoever_came_first() {
    let Some(folder) = managers() else { return };
    let (world, repository) = repository(&folder);
    let program = folder.join("venv/bin/pre-commit");
    let log = world.path("log").display().to_string();
    let entry = format!("sh -c 'echo \"theirs>\" >>\"{log}\"'");
    let config = format!(
        "repos:\n  - repo: local\n    hooks:\n      - id: theirs\n        name: theirs\n        entry: {}\n        \
         language: system\n        always_run: true\n        pass_filenames: false\n        stages: [post-commit]\n",
        serde_json::to_string(&entry).unwrap()
    );
    put(&repository.join(".pre-commit-config.yaml"), &config);
    run(&world, &repository, "git", &["add", "."]);
    run(&world, &repository, "git", &["commit", "-q", "-m", "pre-commit"]);
    let install = || run(&world, &repository, &program, &["install", "--hook-type", "post-commit"]);
    let hooks = repository.join(".git/hooks");
    // It first.
    install();
    let before = tree(&hooks);
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    assert_eq!(commit(&world, &repository), [OURS, "theirs>"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(tree(&hooks), before);
    fs::remove_file(hooks.join("post-commit")).unwrap();
    // Ours first: it moves ours and runs it.
    world.put_program();
    world.run_in(&repository, &["init"]).well();
    install();
    assert!(
        events(&world, &repository).iter().all(|event| event["mechanism"] == "file" && event["runs"] == true)
    );
    world.put_stub();
    assert_eq!(commit(&world, &repository), [OURS, "theirs>"]);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(tree(&hooks), before);
    assert_eq!(commit(&world, &repository), ["theirs>"]);
}
