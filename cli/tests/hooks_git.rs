//! Git's hooks from outside, in each kind of repository: told of once, nothing of the user's replaced, all of it undone.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use support::hooks::{World, put, text, tree};

mod support;

const EVENTS: [&str; 3] = ["post-commit", "post-rewrite", "pre-push"];
const LINE: &str = "agent-trace hook post-commit \"$@\" >/dev/null 2>&1 || true";

type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// What of a repository `remove` has to bring back: hooks, configuration and working tree.
fn state(common: &Path, root: Option<&Path>) -> (Tree, String, Vec<(PathBuf, Vec<u8>)>) {
    let files = root.map(|root| tree(&fs::canonicalize(root).unwrap())).unwrap_or_default().into_iter();
    let files = files.filter(|(path, _)| !path.starts_with(common)).map(|(path, (_, bytes))| (path, bytes));
    (tree(&common.join("hooks")), text(&common.join("config")), files.collect())
}

fn common(world: &World, repository: &Path) -> PathBuf {
    PathBuf::from(world.git(repository, &["rev-parse", "--path-format=absolute", "--git-common-dir"]))
}

fn events(world: &World, repository: &Path) -> Vec<Value> {
    world.json_in(repository, &["hooks", "status", "--agent", "git"])["git"]["events"]
        .as_array()
        .unwrap()
        .clone()
}

/// Works in a repository with hooks, and compares what they tell.
fn check_told(world: &World, repository: &Path) {
    world.told();
    world.commit(repository, "one");
    assert_eq!(world.told(), ["hook post-commit<>"]);
    let old = world.git(repository, &["rev-parse", "HEAD"]);
    world.git(repository, &["commit", "-q", "--amend", "-m", "amended"]);
    let new = world.git(repository, &["rev-parse", "HEAD"]);
    assert_eq!(world.told(), ["hook post-commit<>", &format!("hook post-rewrite amend<{old} {new}>")]);
    // A branch that is rebased, one commit that is picked, and a squash.
    let start = world.git(repository, &["rev-parse", "HEAD"]);
    world.git(repository, &["checkout", "-q", "-b", "side"]);
    world.commit(repository, "two");
    world.git(repository, &["checkout", "-q", "-b", "base", &start]);
    world.commit(repository, "three");
    world.git(repository, &["checkout", "-q", "side"]);
    world.told();
    let old = world.git(repository, &["rev-parse", "HEAD"]);
    world.git(repository, &["rebase", "-q", "base"]);
    let new = world.git(repository, &["rev-parse", "HEAD"]);
    let told: Vec<String> = world.told().into_iter().filter(|line| line.contains("post-rewrite")).collect();
    assert_eq!(told, [format!("hook post-rewrite rebase<{old} {new}>")]);
    world.git(repository, &["checkout", "-q", "base"]);
    world.git(repository, &["merge", "-q", "--squash", "side"]);
    world.git(repository, &["commit", "-q", "-m", "squashed"]);
    assert_eq!(world.told(), ["hook post-commit<>"]);
    world.git(repository, &["checkout", "-q", "-b", "picked", &start]);
    world.git(repository, &["cherry-pick", "side"]);
    assert_eq!(world.told().iter().filter(|line| *line == "hook post-commit<>").count(), 1);
    check_push(world, repository);
}

fn check_push(world: &World, repository: &Path) {
    let target = world.path("target.git");
    let format = world.git(repository, &["rev-parse", "--show-object-format"]);
    world.git(&world.path(""), &["init", "-q", "--bare", &format!("--object-format={format}"), "target.git"]);
    world.git(&target, &["config", "receive.shallowUpdate", "true"]);
    let (url, head) = (target.to_str().unwrap(), world.git(repository, &["rev-parse", "HEAD"]));
    let said = world.try_git(repository, &["push", "-q", url, "HEAD:refs/heads/x"]).well();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with(&format!("hook pre-push {url} {url}<HEAD {head} refs/heads/x 0000")),
        "{told:?}"
    );
    assert_eq!(world.git(&target, &["rev-parse", "refs/heads/x"]), head);
    fs::remove_dir_all(target).unwrap();
}

/// Installs by `init` from a place, works, removes, and compares with what was there.
fn check(world: &World, init_in: &Path, work_in: &Path) {
    let common = common(world, work_in);
    let before = state(&common, Some(work_in));
    let config = text(&common.join("config"));
    let said = world.run_in(init_in, &["init"]).well();
    assert!(said.out.contains("hooks post-commit, post-rewrite, pre-push"), "{}", said.out);
    assert_eq!(text(&common.join("config")), config);
    let again = world.run_in(init_in, &["init"]).well();
    assert!(!again.out.contains("hooks"), "{}", again.out);
    assert!(events(world, init_in).iter().all(|event| event["mechanism"] == "file" && event["runs"] == true));
    assert_eq!(world.git(work_in, &["status", "--porcelain"]), "");
    world.put_stub();
    world.real_in(init_in, &["hooks", "remove"]).well();
    assert_eq!(state(&common, Some(work_in)), before);
    world.put_program();
    world.run_in(work_in, &["init"]).well();
    world.put_stub();
    check_told(world, work_in);
    world.real_in(init_in, &["hooks", "remove"]).well();
    assert_eq!(tree(&common.join("hooks")), before.0);
    world.commit(work_in, "last");
    assert_eq!(world.told(), [""; 0]);
    world.put_program();
}

// ---- kinds of repositories

#[test]
fn a_plain_repository_from_its_root_and_from_a_subdirectory() {
    let world = World::new();
    let repository = world.repository("r");
    fs::create_dir_all(repository.join("a/b")).unwrap();
    check(&world, &repository.join("a/b"), &repository);
    let repository = world.repository("s");
    check(&world, &repository, &repository);
}

#[test]
fn a_linked_worktree_shares_the_hooks_of_its_repository() {
    let world = World::new();
    let repository = world.repository("r");
    let worktree = world.path("w");
    world.git(&repository, &["worktree", "add", "-q", worktree.to_str().unwrap()]);
    check(&world, &worktree, &worktree);
    world.run_in(&worktree, &["init"]).well();
    world.put_stub();
    world.commit(&repository, "in-the-main-one");
    assert_eq!(world.told(), ["hook post-commit<>"]);
    assert!(!repository.join(".git/worktrees/w/hooks").exists());
}

#[test]
fn a_submodule_has_hooks_of_its_own() {
    let world = World::new();
    let (outer, inner) = (world.repository("outer"), world.repository("inner"));
    world.git(&outer, &["submodule", "--quiet", "add", inner.to_str().unwrap(), "sub"]);
    world.git(&outer, &["commit", "-q", "-m", "sub"]);
    let sub = outer.join("sub");
    check(&world, &sub, &sub);
    world.run_in(&sub, &["init"]).well();
    world.put_stub();
    world.commit(&outer, "outside");
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn a_bare_repository_can_be_pushed_from() {
    let world = World::new();
    let repository = world.repository("r");
    world.git(&repository, &["clone", "-q", "--bare", ".", "../bare.git"]);
    let bare = world.path("bare.git");
    let before = state(&bare, None);
    world.run_in(&bare, &["init"]).well();
    world.put_stub();
    check_push(&world, &bare);
    // A worktree of it commits.
    world.git(&bare, &["worktree", "add", "-q", "-b", "other", "../w"]);
    world.commit(&world.path("w"), "x");
    assert_eq!(world.told(), ["hook post-commit<>"]);
    world.git(&bare, &["worktree", "remove", "../w"]);
    world.real_in(&bare, &["hooks", "remove"]).well();
    assert_eq!(state(&bare, None), before);
}

#[test]
fn shallow_and_sparse_clones() {
    let world = World::new();
    let repository = world.repository("r");
    world.commit(&repository, "second");
    let url = format!("file://{}", repository.display());
    world.git(&world.path(""), &["clone", "-q", "--depth", "1", &url, "shallow"]);
    check(&world, &world.path("shallow"), &world.path("shallow"));
    world.git(&world.path(""), &["clone", "-q", "--sparse", &url, "sparse"]);
    check(&world, &world.path("sparse"), &world.path("sparse"));
}

#[test]
fn other_formats_of_objects_and_references() {
    let world = World::new();
    let sha256 = world.repository_with("sha256", &["--object-format=sha256"]);
    check(&world, &sha256, &sha256);
    let reftable = world.path("reftable");
    fs::create_dir_all(&reftable).unwrap();
    if world.try_git(&reftable, &["init", "-q", "--ref-format=reftable", "."]).status != 0 {
        eprintln!("skipped: reftable not given");
        return;
    }
    world.commit(&reftable, "first");
    check(&world, &reftable, &reftable);
}

#[test]
fn odd_names_and_links() {
    let world = World::new();
    for name in ["with space", "with\nnewline", "ünï-漢字", "it's \"quoted\" $HOME"] {
        let repository = world.repository(name);
        check(&world, &repository, &repository);
    }
    world.repository("actual");
    symlink(world.path("actual"), world.path("link")).unwrap();
    check(&world, &world.path("link"), &world.path("link"));
}

#[test]
fn an_exported_git_dir_is_the_repository_that_is_meant() {
    let world = World::new();
    let (meant, other) = (world.repository("meant"), world.repository("other"));
    let before = tree(&other.join(".git/hooks"));
    let mut command = world.command(world.program(), &other);
    command.env("GIT_DIR", meant.join(".git")).env("GIT_WORK_TREE", &meant).arg("init");
    assert!(command.output().unwrap().status.success());
    assert_eq!(tree(&other.join(".git/hooks")), before);
    world.put_stub();
    world.commit(&meant, "x");
    assert_eq!(world.told(), ["hook post-commit<>"]);
    let mut command = world.command("git", &other);
    command.env("GIT_DIR", meant.join(".git")).env("GIT_WORK_TREE", &meant);
    assert!(command.args(["commit", "-q", "--allow-empty", "-m", "y"]).output().unwrap().status.success());
    assert_eq!(world.told(), ["hook post-commit<>"]);
}

#[test]
fn a_repository_without_a_hooks_directory_gets_one_and_loses_it_again() {
    let world = World::new();
    let repository = world.repository_with("r", &["--template="]);
    assert!(!repository.join(".git/hooks").exists());
    world.run_in(&repository, &["init"]).well();
    assert!(repository.join(".git/hooks/post-commit").exists());
    world.run_in(&repository, &["hooks", "remove"]).well();
    assert!(!repository.join(".git/hooks").exists());
}

// ---- hooks that were there

#[test]
fn hooks_that_were_there_run_first_and_come_back() {
    let world = World::new();
    let repository = world.repository("r");
    let hooks = repository.join(".git/hooks");
    let log = world.path("log").display().to_string();
    // One is a link, one reads all of stdin, one is not executable.
    world.script(
        &repository.join("tools/mine"),
        &format!("#!/bin/sh\necho 'mine commit' >>'{log}'\nexit 3\n"),
    );
    symlink("../../tools/mine", hooks.join("post-commit")).unwrap();
    world.script(
        &hooks.join("post-rewrite"),
        &format!("#!/bin/sh\necho \"mine rewrite $1 $(cat)>\" >>'{log}'\n"),
    );
    put(&hooks.join("pre-push"), "#!/bin/sh\nexit 1\n");
    fs::set_permissions(hooks.join("pre-push"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = tree(&hooks);
    let document = world.json_in(&repository, &["init"]);
    assert_eq!(document["hooks"][0]["backup"], json!(hooks.join("post-commit.pre-agent-trace")));
    assert!(events(&world, &repository).iter().all(|event| event["chained"] == true));
    world.put_stub();
    world.commit(&repository, "x");
    assert_eq!(text(&world.path("log")), "mine commit\nhook post-commit<>\n");
    let old = world.git(&repository, &["rev-parse", "HEAD"]);
    fs::remove_file(world.path("log")).unwrap();
    world.git(&repository, &["commit", "-q", "--amend", "-m", "y"]);
    let new = world.git(&repository, &["rev-parse", "HEAD"]);
    let rewrite = format!("mine rewrite amend {old} {new}>\nhook post-rewrite amend<{old} {new}>\n");
    assert_eq!(text(&world.path("log")), format!("mine commit\nhook post-commit<>\n{rewrite}"));
    fs::remove_file(world.path("log")).unwrap();
    check_push(&world, &repository);
    world.real_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(tree(&hooks), before);
}

#[test]
fn a_pre_push_that_refuses_still_refuses_and_nobody_is_told() {
    let world = World::new();
    let repository = world.repository("r");
    world.git(&world.path(""), &["init", "-q", "--bare", "target.git"]);
    let script = "#!/bin/sh\nread -r line\necho \"refused $1: $line\" >&2\nexit 7\n";
    world.script(&repository.join(".git/hooks/pre-push"), script);
    world.run_in(&repository, &["init"]).well();
    world.put_stub();
    let said = world.try_git(&repository, &["push", "-q", "../target.git", "HEAD:refs/heads/x"]);
    assert_ne!(said.status, 0);
    assert!(said.err.contains("refused ../target.git: HEAD "), "{}", said.err);
    assert_eq!(world.told(), [""; 0]);
    // Without a word on stdin, and with a lot.
    let hook = repository.join(".git/hooks/pre-push").display().to_string();
    assert_eq!(world.shell(&format!("'{hook}' a b"), "").status, 7);
    assert_eq!(world.shell(&format!("'{hook}' a b"), &"refs/heads/x 0 1\n".repeat(100_000)).status, 7);
}

#[test]
fn a_hook_that_cannot_be_kept_is_left_alone() {
    let world = World::new();
    let repository = world.repository("r");
    let hooks = repository.join(".git/hooks");
    world.script(&hooks.join("post-commit"), "#!/bin/sh\ntrue\n");
    world.script(&hooks.join("post-commit.pre-agent-trace"), "#!/bin/sh\nfalse\n");
    let said = world.run_in(&repository, &["init"]).well();
    assert!(said.err.contains("warning: cannot keep"), "{}", said.err);
    assert_eq!(text(&hooks.join("post-commit")), "#!/bin/sh\ntrue\n");
    assert!(hooks.join("pre-push").exists());
    let said = world.run_in(&repository, &["hooks", "install", "--agent", "git"]);
    assert_eq!(said.status, 3, "{} {}", said.out, said.err);
}

#[test]
fn a_hooks_directory_that_cannot_be_written_is_a_warning() {
    let world = World::new();
    let repository = world.repository_with("r", &["--template="]);
    put(&repository.join(".git/hooks"), "no directory");
    let said = world.run_in(&repository, &["init"]).well();
    assert!(
        said.out.contains("Initialised project") && said.err.contains("warning:"),
        "{} {}",
        said.out,
        said.err
    );
    world.run_in(&repository, &["status"]).well();
    assert_eq!(text(&repository.join(".git/hooks")), "no directory");
    world.run_in(&repository, &["hooks", "remove"]).well();
}

#[test]
fn a_hook_costs_a_commit_nothing_but_the_program_once_it_is_gone() {
    let world = World::new();
    let repository = world.repository("r");
    world.run_in(&repository, &["init"]).well();
    fs::remove_file(world.program()).unwrap();
    let said = world.try_git(&repository, &["commit", "-q", "--allow-empty", "-m", "x"]).well();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    world.git(&world.path(""), &["init", "-q", "--bare", "target.git"]);
    let said = world.try_git(&repository, &["push", "-q", "../target.git", "HEAD:refs/heads/x"]).well();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
}

// ---- init

#[test]
fn init_installs_hooks_unless_told_not_to() {
    let world = World::new();
    let repository = world.repository("r");
    let before = tree(&repository.join(".git/hooks"));
    let document = world.json_in(&repository, &["init", "--no-hooks"]);
    assert_eq!(document["hooks"], json!([]));
    assert_eq!(tree(&repository.join(".git/hooks")), before);
    let document = world.json_in(&repository, &["init"]);
    let told = document["hooks"].as_array().unwrap();
    assert_eq!((document["created"].clone(), told.len()), (json!(false), 3));
    assert!(told.iter().all(|hook| hook["change"] == "created" && hook["mechanism"] == "file"), "{document}");
    let again = world.json_in(&repository, &["init"]);
    assert!(again["hooks"].as_array().unwrap().iter().all(|hook| hook["change"] == "unchanged"), "{again}");
    // A store outside git has none.
    let outside = world.json_in(&world.path(""), &["--store", "s", "init"]);
    assert_eq!(outside["hooks"], json!([]));
}

#[test]
fn many_inits_at_once_keep_the_hook_that_was_there() {
    let world = World::new();
    let repository = world.repository("r");
    let hooks = repository.join(".git/hooks");
    world.script(&hooks.join("post-commit"), "#!/bin/sh\n# mine\n");
    let before = tree(&hooks);
    let children: Vec<_> = (0..8)
        .map(|_| {
            world
                .command(world.program(), &repository)
                .args(["init", "--json"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(text(&hooks.join("post-commit.pre-agent-trace")), "#!/bin/sh\n# mine\n");
    assert!(events(&world, &repository).iter().all(|event| event["runs"] == true));
    world.run_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(tree(&hooks), before);
}

#[test]
fn init_killed_anywhere_never_loses_the_hook_that_was_there() {
    let world = World::new();
    if world.command("strace", &world.path("")).arg("-V").output().is_err() {
        eprintln!("skipped: strace not given");
        return;
    }
    let calls = "rename,link,linkat,unlink,chmod,fsync";
    let mut when = 1;
    loop {
        let repository = world.repository(&format!("r{when}"));
        let hooks = repository.join(".git/hooks");
        let log = world.path("log").display().to_string();
        world.script(&hooks.join("post-commit"), &format!("#!/bin/sh\necho 'mine>' >>'{log}'\n"));
        let before = tree(&hooks);
        let killed = world
            .command("strace", &repository)
            .args(["-o", "/dev/null", "-e"])
            .arg(format!("inject={calls}:signal=KILL:when={when}"))
            .arg(world.program())
            .arg("init")
            .output()
            .unwrap();
        world.commit(&repository, "meanwhile");
        assert_eq!(text(&world.path("log")), "mine>\n", "call {when}");
        fs::remove_file(world.path("log")).unwrap();
        world.run_in(&repository, &["init"]).well();
        assert!(events(&world, &repository).iter().all(|event| event["runs"] == true), "call {when}");
        world.run_in(&repository, &["hooks", "remove"]).well();
        assert_eq!(tree(&hooks), before, "call {when}");
        if killed.status.success() {
            break;
        }
        when += 1;
    }
    assert!(when > 10, "too few calls were met: {when}");
}

#[test]
fn fetch_pull_and_push_are_as_before() {
    let world = World::new();
    let origin = world.path("origin.git");
    world.git(&world.path(""), &["init", "-q", "--bare", "origin.git"]);
    let first = world.repository("first");
    world.git(&first, &["push", "-q", origin.to_str().unwrap(), "HEAD:main"]);
    let work = |name: &str, with_hooks: bool| -> Vec<String> {
        let fresh = world.path(&format!("{name}.git"));
        world.git(&world.path(""), &["clone", "-q", "--bare", "origin.git", fresh.to_str().unwrap()]);
        world.git(&world.path(""), &["clone", "-q", fresh.to_str().unwrap(), name]);
        let clone = world.path(name);
        let config = text(&clone.join(".git/config"));
        if with_hooks {
            world.run_in(&clone, &["init"]).well();
        }
        let mut said = Vec::new();
        put(&clone.join("f"), name);
        for args in [
            &["add", "f"][..],
            &["commit", "-q", "-m", "f", "--date=2026-01-01T00:00:00Z"],
            &["push"],
            &["fetch"],
            &["pull"],
            &["fetch", "--prune"],
            &["push", "origin"],
            &["pull", "--rebase"],
            &["tag", "t"],
            &["push", "--tags"],
        ] {
            let answer = world.try_git(&clone, args);
            let strip = |text: String| text.replace(name, "NAME");
            said.push(format!(
                "{args:?} {} {} {}",
                answer.status,
                strip(answer.out),
                mask(&strip(answer.err))
            ));
        }
        assert_eq!(text(&clone.join(".git/config")), config);
        said.push(world.git(&fresh, &["for-each-ref", "--format=%(refname)"]));
        said
    };
    assert_eq!(work("with", true), work("plain", false));
}

/// Ids differ with the time of a commit.
fn mask(text: &str) -> String {
    text.split(' ').map(|word| if word.contains("..") { "IDS" } else { word }).collect::<Vec<_>>().join(" ")
}

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

#[test]
fn a_program_in_a_temporary_place_is_run_while_its_user_owns_it() {
    let world = World::new();
    let repository = world.repository("r");
    fs::create_dir_all(world.path("home/.claude")).unwrap();
    let mut command = world.command(world.program(), &repository);
    let init = command.env("TMPDIR", world.path("bin")).arg("init").output().unwrap();
    assert!(String::from_utf8_lossy(&init.stderr).contains("hint: put `agent-trace` on PATH"), "{init:?}");
    let mut command = world.command(world.program(), &repository);
    assert!(
        command
            .env("TMPDIR", world.path("bin"))
            .args(["hooks", "install"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(text(&repository.join(".git/hooks/post-commit")).contains("&& [ -O \"$program\" ]"));
    assert!(text(&world.path("home/.claude/settings.json")).contains("[ -O '"));
    let status = world.json_in(&repository, &["hooks", "status"]);
    assert_eq!(status["agents"][0]["places"][0]["runs"], true, "{status}");
    world.put_stub();
    world.commit(&repository, "x");
    assert_eq!(world.told(), ["hook post-commit<>"]);
}
