//! Git's hooks from outside, in each kind of repository: told of once, nothing of the user's replaced, all of it undone.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;

use support::hooks::{World, check_push, check_told, common, events, put, state, text, tree};

mod support;

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
    let log = world.path("log").display().to_string();
    let with_hook = |name: &str| {
        let repository = world.repository(name);
        let hook = repository.join(".git/hooks/post-commit");
        world.script(&hook, &format!("#!/bin/sh\necho 'mine>' >>'{log}'\n"));
        repository
    };
    world.run_in(&with_hook("first"), &["init"]).well();
    let calls = "rename,link,linkat,unlink,chmod,fchmod";
    let points = world.kill_points(&with_hook("clean"), calls, &["init"]);
    let mut kills = 0;
    for (number, point) in points.iter().enumerate() {
        let repository = with_hook(&format!("r{number}"));
        let hooks = repository.join(".git/hooks");
        let before = tree(&hooks);
        kills += usize::from(world.kill(&repository, point, &["init"]));
        world.told();
        world.commit(&repository, "meanwhile");
        assert_eq!(text(&world.path("log")), "mine>\n", "{point:?}");
        fs::remove_file(world.path("log")).unwrap();
        world.run_in(&repository, &["init"]).well();
        assert!(events(&world, &repository).iter().all(|event| event["runs"] == true), "{point:?}");
        world.run_in(&repository, &["hooks", "remove"]).well();
        assert_eq!(tree(&hooks), before, "{point:?}");
    }
    assert!(kills > 10, "too few calls were met: {kills} of {points:?}");
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

#[test]
fn what_agent_trace_cli_has_left_stays_and_doctor_names_what_harms() {
    let world = World::new();
    let repository = world.repository("r");
    let hook = repository.join(".git/hooks/post-commit");
    world.script(
        &hook,
        "#!/bin/sh\n# agent-trace: link commit to AI traces\nagent-trace commit-link 2>/dev/null || true\n",
    );
    let refspec = "+refs/notes/agent-trace:refs/notes/agent-trace";
    for key in ["remote.origin.push", "remote.origin.fetch"] {
        world.git(&repository, &["config", "--add", key, refspec]);
    }
    let before = state(&repository.join(".git"), None);
    world.run_in(&repository, &["init"]).well();
    world.commit(&repository, "x");
    let said = world.run_in(&repository, &["doctor"]).well().out;
    for line in said.lines().filter(|line| line.contains("refspecs")) {
        let command = line.split("run: ").nth(1).unwrap();
        world.git(&repository, &command.split(' ').skip(1).collect::<Vec<_>>());
    }
    assert_eq!(
        world.git(&repository, &["config", "--local", "--list"]).matches("notes").count(),
        0,
        "{said}"
    );
    world.git(&repository, &["config", "--add", "remote.origin.push", refspec]);
    world.git(&repository, &["config", "--add", "remote.origin.fetch", refspec]);
    world.run_in(&repository, &["hooks", "remove"]).well();
    assert_eq!(state(&repository.join(".git"), None), before);
}
