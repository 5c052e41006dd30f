//! A place with a home, a program that can be replaced by a stub, and repositories, for the tests of hooks.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::PROGRAM;

/// Variables of agents that would lead out of the test.
const LEADING: [&str; 6] = [
    "CLAUDE_CONFIG_DIR",
    "CODEX_HOME",
    "COPILOT_HOME",
    "XDG_CONFIG_HOME",
    "OPENCODE_CONFIG_DIR",
    "XDG_DATA_HOME",
];

pub(crate) struct World {
    root: TempDir,
    /// A folder whose programs come before those of PATH.
    first: Option<PathBuf>,
}

impl World {
    /// The program lies in `bin`, which is not on PATH.
    pub(crate) fn new() -> World {
        World::with_first(None)
    }

    pub(crate) fn with_first(first: Option<PathBuf>) -> World {
        let world = World { root: tempfile::tempdir().unwrap(), first };
        for name in ["home", "tmp", "bin", "real"] {
            fs::create_dir_all(world.path(name)).unwrap();
        }
        world.put_program();
        fs::hard_link(world.program(), world.real()).unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.root.path()).unwrap().join(name)
    }

    /// What hooks run.
    pub(crate) fn program(&self) -> PathBuf {
        self.path("bin/agent-trace")
    }

    /// The program, whatever lies at the place that hooks run.
    pub(crate) fn real(&self) -> PathBuf {
        self.path("real/agent-trace")
    }

    pub(crate) fn put_program(&self) {
        let _ = fs::remove_file(self.program());
        if fs::hard_link(PROGRAM, self.program()).is_err() {
            fs::copy(PROGRAM, self.program()).unwrap();
        }
    }

    /// From now on hooks run a stub that notes its arguments and its input.
    pub(crate) fn put_stub(&self) {
        fs::remove_file(self.program()).unwrap();
        let log = self.path("log");
        let script = format!(
            "#!/bin/sh\ninput=$(cat)\nprintf '%s<%s>\\n' \"$*\" \"$input\" >>'{}'\necho noise; echo noise >&2; exit 2\n",
            log.display()
        );
        self.script(&self.program(), &script);
    }

    /// What the stub has noted since it was last asked.
    pub(crate) fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        text.split_terminator(">\n").map(|line| format!("{line}>")).collect()
    }

    pub(crate) fn script(&self, path: &Path, text: &str) {
        put(path, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let program = program.as_ref().to_str().unwrap();
        let mut command = super::command(program, directory, &self.path("home"));
        for name in LEADING {
            command.env_remove(name);
        }
        if let Some(first) = &self.first {
            command.env("PATH", format!("{}:{}", first.display(), std::env::var("PATH").unwrap()));
        }
        command
            .env("TMPDIR", self.path("tmp"))
            .env("GIT_CEILING_DIRECTORIES", self.path(""))
            .env("GIT_AUTHOR_NAME", "t")
            .env("GIT_AUTHOR_EMAIL", "t@t")
            .env("GIT_COMMITTER_NAME", "t")
            .env("GIT_COMMITTER_EMAIL", "t@t")
            .env("GIT_EDITOR", "true")
            .env_remove("NO_COLOR");
        command
    }

    pub(crate) fn run_in<S: AsRef<OsStr>>(&self, directory: &Path, args: &[S]) -> Answer {
        Answer::of(self.command(self.program(), directory).args(args).output().unwrap())
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        self.run_in(&self.path(""), args)
    }

    /// Runs the program though hooks run the stub.
    pub(crate) fn real_in<S: AsRef<OsStr>>(&self, directory: &Path, args: &[S]) -> Answer {
        Answer::of(self.command(self.real(), directory).args(args).output().unwrap())
    }

    pub(crate) fn json_in(&self, directory: &Path, args: &[&str]) -> Value {
        let said = self.run_in(directory, &[args, &["--json"]].concat());
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {} {}", said.out, said.err))
    }

    pub(crate) fn try_git(&self, directory: &Path, args: &[&str]) -> Answer {
        let config = ["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"];
        Answer::of(self.command("git", directory).args(config).args(args).output().unwrap())
    }

    pub(crate) fn git(&self, directory: &Path, args: &[&str]) -> String {
        let said = self.try_git(directory, args);
        assert_eq!(said.status, 0, "git {args:?}: {} {}", said.out, said.err);
        said.out.trim_end().to_owned()
    }

    /// A repository with one commit.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.repository_with(name, &[])
    }

    pub(crate) fn repository_with(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        self.git(&path, &[&["init", "-q"], options, &["."]].concat());
        self.commit(&path, "first");
        path
    }

    pub(crate) fn commit(&self, repository: &Path, name: &str) {
        put(&repository.join(name), name);
        self.git(repository, &["add", name]);
        self.git(repository, &["commit", "-q", "-m", name]);
    }

    /// Where a run of the program may be killed; this one comes to its end.
    pub(crate) fn kill_points(&self, directory: &Path, calls: &str, args: &[&str]) -> Vec<(String, u32)> {
        let trace = self.path("calls");
        let mut command = self.command("strace", directory);
        command.args(["-o", trace.to_str().unwrap(), "-e", &format!("trace={calls}")]).arg(self.program());
        assert!(command.args(args).output().unwrap().status.success());
        super::kill_points(&text(&trace))
    }

    /// Kills a run at a call; says whether it was met.
    pub(crate) fn kill(&self, directory: &Path, point: &(String, u32), args: &[&str]) -> bool {
        let inject = format!("inject={}:signal=KILL:when={}", point.0, point.1);
        let mut command = self.command("strace", directory);
        command.args(["-o", "/dev/null", "-e", &inject]).arg(self.program()).args(args);
        !command.output().unwrap().status.success()
    }

    /// Runs a shell line with something on stdin.
    pub(crate) fn shell(&self, line: &str, input: &str) -> Answer {
        let mut command = self.command("/bin/sh", &self.path(""));
        command.args(["-c", line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Answer::of(child.wait_with_output().unwrap())
    }
}

pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    fn of(output: Output) -> Answer {
        Answer {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn well(self) -> Answer {
        assert_eq!(self.status, 0, "{}\n{}", self.out, self.err);
        self
    }

    pub(crate) fn fails(self, status: i32, said: &[&str]) -> Answer {
        assert_eq!(self.status, status, "{}\n{}", self.out, self.err);
        for text in said {
            assert!(self.err.contains(text), "`{text}` in {}", self.err);
        }
        self
    }
}

pub(crate) fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Each name below a directory with its rights and what it holds or leads to.
pub(crate) fn tree(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut tree = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let bytes = if found.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if found.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            tree.insert(path, (found.mode(), bytes));
        }
    }
    tree
}

// ---- git

pub(crate) type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// What of a repository `remove` has to bring back: hooks, configuration and working tree.
pub(crate) fn state(common: &Path, root: Option<&Path>) -> (Tree, String, Vec<(PathBuf, Vec<u8>)>) {
    let files = root.map(|root| tree(&fs::canonicalize(root).unwrap())).unwrap_or_default().into_iter();
    let files = files.filter(|(path, _)| !path.starts_with(common)).map(|(path, (_, bytes))| (path, bytes));
    (tree(&common.join("hooks")), text(&common.join("config")), files.collect())
}

pub(crate) fn common(world: &World, repository: &Path) -> PathBuf {
    PathBuf::from(world.git(repository, &["rev-parse", "--path-format=absolute", "--git-common-dir"]))
}

pub(crate) fn events(world: &World, repository: &Path) -> Vec<Value> {
    world.json_in(repository, &["hooks", "status", "--agent", "git"])["git"]["events"]
        .as_array()
        .unwrap()
        .clone()
}

/// Works in a repository with hooks, and compares what they tell.
pub(crate) fn check_told(world: &World, repository: &Path) {
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

/// Pushes to a repository that is made for it, and compares what the hook tells.
pub(crate) fn check_push(world: &World, repository: &Path) {
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
