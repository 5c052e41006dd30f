//! Kills the real program with SIGKILL at many of its system calls, and looks at what is left.
//!
//! A clean run under strace counts the calls; points are drawn from them by a seed, spread over the whole run. At each
//! point the command is killed; every third time it, and every third time `status`, is killed again while it recovers.
//! Then `status` and `verify` must be well with no repair by hand, what was there before must still be there and nothing
//! that was never given, the same command must succeed, and the end must be that of an undisturbed run.
//!
//! | variable | meaning |
//! |---|---|
//! | `AGENT_TRACE_KILL_POINTS` | points for each command and group of calls, or `all` |
//! | `AGENT_TRACE_KILL_SEED` | which points are drawn |
//! | `AGENT_TRACE_KILL_AT` | only this point, as a failure names it: `pwrite64:7` or `pwrite64:7,status:openat:3` |
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use support::{PROGRAM, Random};

mod support;

/// The calls at which to kill, by what they do.
const GROUPS: [&[&str]; 8] = [
    &["pwrite64"],
    &["write"],
    &["fsync", "fdatasync"],
    &["rename", "renameat", "renameat2", "link", "linkat"],
    &["openat"],
    &["ftruncate", "fallocate"],
    &["unlink", "unlinkat"],
    &["mkdir", "mkdirat", "flock"],
];
const POINTS_PER_GROUP: usize = 8;
const WORKERS: usize = 2;
const FAILURES_SHOWN_MAX: usize = 20;
/// What a test may make in its slot; saved after the preparation and put back before each point.
const PLACES: [&str; 6] = ["a", "b", "c", "remote", "home", "repo"];

type Checked<T = ()> = Result<T, String>;

/// What is killed, and on which ground.
struct Scenario {
    name: &'static str,
    /// How the store is named that the command works on.
    store: &'static [&'static str],
    command: &'static [&'static str],
    prepare: fn(&Slot),
    /// Whether there may be no store after the kill.
    makes_store: bool,
    /// A part of the usual number of points, for a slow one.
    share: usize,
    /// Whether the data has what fills a segment.
    large: bool,
}

const IMPORT_ALL: &[&str] = &["import", "../data/one", "../data/two"];

#[test]
fn init_of_a_directory_can_be_killed_anywhere() {
    Scenario {
        name: "init --store",
        store: &["--store", "a"],
        command: &["init"],
        prepare: |_| {},
        makes_store: true,
        share: 1,
        large: false,
    }
    .run();
}

#[test]
fn init_of_a_repository_can_be_killed_anywhere() {
    Scenario {
        name: "init",
        store: &["-C", "repo"],
        command: &["init"],
        prepare: |slot| {
            let git = slot.command("git").args(["init", "-q", "--template=", "repo"]).output().unwrap();
            assert!(git.status.success(), "{git:?}");
        },
        makes_store: true,
        share: 2,
        large: false,
    }
    .run();
}

#[test]
fn import_can_be_killed_anywhere() {
    Scenario {
        name: "import",
        store: &["--store", "a"],
        command: &["import", "../data/two"],
        prepare: |slot| {
            slot.must(&["--store", "a", "init"]);
            slot.must(&["--store", "a", "import", "../data/one"]);
        },
        makes_store: false,
        share: 1,
        large: false,
    }
    .run();
}

#[test]
fn push_can_be_killed_anywhere() {
    Scenario {
        name: "push",
        store: &["--store", "a"],
        command: &["push", "--full"],
        prepare: |slot| {
            slot.with_remote("a");
            slot.must(&["--store", "a", "import", "../data/one"]);
            slot.must(&["--store", "a", "push", "--full"]);
            slot.must(&["--store", "a", "import", "../data/two"]);
        },
        makes_store: false,
        share: 1,
        large: false,
    }
    .run();
}

#[test]
fn first_push_can_be_killed_anywhere() {
    Scenario {
        name: "first push",
        store: &["--store", "a"],
        command: &["push", "--full"],
        prepare: |slot| {
            slot.with_remote("a");
            slot.on("a", IMPORT_ALL);
        },
        makes_store: false,
        share: 3,
        large: false,
    }
    .run();
}

#[test]
fn pull_can_be_killed_anywhere() {
    Scenario {
        name: "pull",
        store: &["--store", "b"],
        command: &["pull"],
        prepare: |slot| {
            slot.with_remote("a");
            slot.with_remote("b");
            slot.must(&["--store", "b", "import", "../data/zero"]);
            slot.must(&["--store", "a", "import", "../data/one"]);
            slot.must(&["--store", "a", "push", "--full"]);
            slot.must(&["--store", "b", "pull"]);
            slot.must(&["--store", "a", "import", "../data/two"]);
            slot.must(&["--store", "a", "push", "--full"]);
        },
        makes_store: false,
        share: 1,
        large: false,
    }
    .run();
}

#[test]
fn pull_without_transcripts_can_be_killed_anywhere() {
    Scenario {
        name: "pull --no-transcripts",
        store: &["--store", "b"],
        command: &["pull", "--no-transcripts"],
        prepare: |slot| {
            slot.with_remote("a");
            slot.with_remote("b");
            slot.must(&["--store", "b", "import", "../data/zero"]);
            slot.must(&["--store", "a", "import", "../data/one"]);
            slot.must(&["--store", "a", "push", "--full"]);
            slot.must(&["--store", "b", "pull", "--no-transcripts"]);
            slot.must(&["--store", "a", "import", "../data/two"]);
            slot.must(&["--store", "a", "push", "--full"]);
        },
        makes_store: false,
        share: 2,
        large: false,
    }
    .run();
}

#[test]
fn pull_of_what_was_left_out_can_be_killed_anywhere() {
    Scenario {
        name: "pull --transcripts",
        store: &["--store", "b"],
        command: &["pull", "--transcripts"],
        prepare: |slot| {
            slot.with_remote("a");
            slot.with_remote("b");
            slot.on("a", IMPORT_ALL);
            slot.must(&["--store", "a", "push", "--full"]);
            slot.must(&["--store", "b", "pull", "--no-transcripts"]);
        },
        makes_store: false,
        share: 2,
        large: false,
    }
    .run();
}

#[test]
fn pull_of_whole_segments_can_be_killed_anywhere() {
    Scenario {
        name: "pull of whole segments",
        store: &["--store", "b"],
        command: &["pull"],
        prepare: |slot| {
            slot.with_remote("a");
            slot.with_remote("b");
            slot.must(&["--store", "b", "import", "../data/zero"]);
            slot.must(&["--store", "a", "import", "../data/one", "../data/large"]);
            slot.must(&["--store", "a", "push", "--full"]);
        },
        makes_store: false,
        share: 6,
        large: true,
    }
    .run();
}

#[test]
fn import_of_a_bundle_can_be_killed_anywhere() {
    Scenario {
        name: "import of a bundle",
        store: &["--store", "b"],
        command: &["import", "repo/in.atb"],
        prepare: |slot| {
            slot.with_bundle(&["../data/one", "../data/two"]);
            slot.must(&["--store", "b", "import", "../data/zero"]);
        },
        makes_store: false,
        share: 1,
        large: false,
    }
    .run();
}

#[test]
fn import_of_a_large_bundle_can_be_killed_anywhere() {
    Scenario {
        name: "import of a large bundle",
        store: &["--store", "b"],
        command: &["import", "repo/in.atb"],
        prepare: |slot| {
            slot.with_bundle(&["../data/one", "../data/large"]);
            slot.must(&["--store", "b", "import", "../data/zero", "../data/one"]);
        },
        makes_store: false,
        share: 6,
        large: true,
    }
    .run();
}

#[test]
fn export_can_be_killed_anywhere() {
    Scenario {
        name: "export",
        store: &["--store", "a"],
        command: &["export", "repo/out.atb"],
        prepare: |slot| slot.with_bundle(&["../data/one", "../data/two"]),
        makes_store: false,
        share: 2,
        large: false,
    }
    .run();
}

#[test]
fn compact_can_be_killed_anywhere() {
    Scenario {
        name: "compact",
        store: &["--store", "a"],
        command: &["compact", "--yes"],
        prepare: |slot| {
            slot.with_remote("a");
            slot.must(&["--store", "a", "import", "../data/zero"]);
            slot.must(&["--store", "a", "push", "--full"]);
            slot.must(&["--store", "a", "import", "../data/one"]);
            slot.must(&["--store", "a", "compact", "--yes"]);
            slot.must(&["--store", "a", "import", "../data/two"]);
        },
        makes_store: false,
        share: 1,
        large: false,
    }
    .run();
}

#[test]
fn erase_can_be_killed_anywhere() {
    Scenario {
        name: "erase",
        store: &["--store", "a"],
        command: &["erase", "--older-than", "2026-02-01T04:00:00Z", "--yes"],
        prepare: |slot| {
            slot.must(&["--store", "a", "init"]);
            slot.must(&["--store", "a", "import", "../data/zero"]);
            slot.must(&["--store", "a", "compact", "--yes"]);
            slot.must(&["--store", "a", "import", "../data/one", "../data/two"]);
        },
        makes_store: false,
        share: 2,
        large: false,
    }
    .run();
}

#[test]
fn reindex_can_be_killed_anywhere() {
    Scenario {
        name: "reindex",
        store: &["--store", "a"],
        command: &["reindex"],
        prepare: |slot| {
            slot.must(&["--store", "a", "init"]);
            slot.on("a", IMPORT_ALL);
        },
        makes_store: false,
        share: 1,
        large: false,
    }
    .run();
}

/// A hundred commands that were killed must not leave a hundred files of segments.
#[test]
fn work_that_killed_commands_began_does_not_pile_up() {
    let yard = Yard::new(false);
    let slot = often_killed(&yard);
    assert_eq!(slot.working_files(), Vec::<PathBuf>::new());
}

/// Nor small files, and nothing on a remote.
#[test]
fn files_that_killed_commands_wrote_aside_do_not_pile_up() {
    let yard = Yard::new(false);
    let slot = often_killed(&yard);
    assert_eq!(slot.aside_files(), Vec::<PathBuf>::new());
}

/// Kills commands many times at the same places; then all of them do well.
fn often_killed(yard: &Yard) -> Slot {
    let slot = Slot::new(yard.root.path(), 0);
    slot.with_remote("a");
    slot.with_remote("b");
    slot.on("a", IMPORT_ALL);
    slot.must(&["--store", "a", "push", "--full"]);
    let killed: [(&[&str], &str); 8] = [
        (&["--store", "b", "import", "../data/zero"], "fsync"),
        (&["--store", "b", "import", "../data/zero"], "fdatasync"),
        (&["--store", "b", "pull"], "rename"),
        (&["--store", "b", "pull"], "fsync"),
        (&["--store", "a", "compact", "--yes"], "rename"),
        (&["--store", "a", "compact", "--yes"], "fsync"),
        (&["--store", "a", "reindex"], "rename"),
        (&["--store", "b", "push", "--full"], "rename"),
    ];
    for (command, call) in killed {
        for n in [1, 1, 1, 2, 2, 2, 3, 3, 3] {
            slot.kill(command, &Point { call: call.to_owned(), n });
        }
    }
    slot.must(&["--store", "b", "pull"]);
    slot.must(&["--store", "b", "import", "../data/zero"]);
    slot.must(&["--store", "b", "push", "--full"]);
    slot.must(&["--store", "a", "pull"]);
    for store in ["a", "b"] {
        slot.must(&["--store", store, "reindex"]);
        slot.must(&["--store", store, "compact", "--yes"]);
    }
    slot
}

// ---- Points

/// The n-th time that one thread makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Point {
    call: String,
    n: usize,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.call, self.n)
    }
}

impl Point {
    fn parse(text: &str) -> Point {
        let (call, n) = text.split_once(':').expect("a call, a colon and a number");
        Point { call: call.to_owned(), n: n.parse().unwrap() }
    }
}

/// Where a run is killed first, and what is killed while it recovers.
#[derive(Clone, Debug)]
struct Plan {
    first: Point,
    /// The command again, or `status`.
    second: Option<(bool, Point)>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        match &self.second {
            None => Ok(()),
            Some((true, point)) => write!(f, ",again:{point}"),
            Some((false, point)) => write!(f, ",status:{point}"),
        }
    }
}

impl Plan {
    fn parse(text: &str) -> Plan {
        let (first, second) =
            text.split_once(',').map_or((text, None), |(first, second)| (first, Some(second)));
        let second = second.map(|second| {
            let (what, point) = second.split_once(':').expect("`again` or `status`, a colon and a point");
            (what == "again", Point::parse(point))
        });
        Plan { first: Point::parse(first), second }
    }
}

/// Draws points from the calls of a clean run, one from each of as many equal parts.
fn draw(calls: &BTreeMap<String, usize>, count: Option<usize>, random: &mut Random) -> Vec<Plan> {
    let points_of = |call: &str| {
        let call = call.to_owned();
        (1..=calls.get(&call).copied().unwrap_or(0)).map(move |n| Point { call: call.clone(), n })
    };
    let mut plans = Vec::new();
    let all: Vec<Point> =
        GROUPS.iter().flat_map(|group| group.iter()).flat_map(|call| points_of(call)).collect();
    for group in GROUPS {
        let points: Vec<Point> = group.iter().flat_map(|call| points_of(call)).collect();
        let parts = count.unwrap_or(points.len()).min(points.len());
        for part in 0..parts {
            let (from, to) = (part * points.len() / parts, (part + 1) * points.len() / parts);
            let first = points[from + random.below(to - from)].clone();
            let second = match plans.len() % 3 {
                0 => None,
                1 => Some((true, all[random.below(all.len())].clone())),
                _ => {
                    let call =
                        ["pwrite64", "fsync", "fdatasync", "openat", "rename", "ftruncate"][random.below(6)];
                    Some((false, Point { call: call.to_owned(), n: 1 + random.below(6) }))
                }
            };
            plans.push(Plan { first, second });
        }
    }
    plans
}

// ---- One scenario

/// What an undisturbed run gives.
struct Expected {
    before: Vec<String>,
    after: Vec<String>,
    /// What a fresh store gets from the remote, if there is one.
    remote: Option<Vec<String>>,
    /// Files whose bytes `cat` gives after it.
    files: Vec<(String, PathBuf)>,
}

impl Scenario {
    fn run(&self) {
        let yard = Yard::new(self.large);
        let slots: Vec<Slot> = (0..WORKERS).map(|number| Slot::new(yard.root.path(), number)).collect();
        std::thread::scope(|scope| {
            for slot in &slots {
                scope.spawn(|| {
                    (self.prepare)(slot);
                    slot.save();
                });
            }
        });
        let (calls, expected) = self.undisturbed(&slots[0], &yard);
        let seed: u64 = variable("AGENT_TRACE_KILL_SEED").map_or(1, |seed| seed.parse().unwrap());
        let mut random = Random(seed ^ u64::from(self.name.bytes().map(u32::from).sum::<u32>()));
        let count = match variable("AGENT_TRACE_KILL_POINTS") {
            None => Some(POINTS_PER_GROUP.div_ceil(self.share)),
            Some(all) if all == "all" => None,
            Some(number) => Some(number.parse().unwrap()),
        };
        let mut plans = draw(&calls, count, &mut random);
        if let Some(only) = variable("AGENT_TRACE_KILL_AT") {
            plans = vec![Plan::parse(&only)];
        }
        let total = plans.len();
        let left = Mutex::new(plans.into_iter());
        let outcome = Mutex::new((0usize, Vec::new()));
        std::thread::scope(|scope| {
            for slot in &slots {
                scope.spawn(|| {
                    loop {
                        let Some(plan) = left.lock().unwrap().next() else { break };
                        let checked = self.at(slot, &plan, &expected);
                        let mut outcome = outcome.lock().unwrap();
                        match checked {
                            Ok(killed) => outcome.0 += usize::from(killed),
                            Err(message) => outcome.1.push(format!("{} at {plan}: {message}", self.name)),
                        }
                    }
                });
            }
        });
        let (killed, failures) = outcome.into_inner().unwrap();
        println!("{}: {total} points, killed at {killed}; calls of a clean run {calls:?}", self.name);
        assert!(
            failures.is_empty(),
            "{} of {total} points failed (seed {seed}; one again: AGENT_TRACE_KILL_AT=POINT):\n{}",
            failures.len(),
            failures.iter().take(FAILURES_SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n")
        );
        // Threads share out the calls differently each time, so some points are not reached.
        assert!(killed * 2 >= total, "only {killed} of {total} points were reached");
    }

    /// Counts the calls of a run that nobody kills, and notes what it gives.
    fn undisturbed(&self, slot: &Slot, yard: &Yard) -> (BTreeMap<String, usize>, Expected) {
        let before = if self.makes_store { Vec::new() } else { slot.log(self.store).unwrap() };
        let calls = slot.count(&self.args());
        let after = slot.log(self.store).unwrap();
        assert!(self.makes_store || !after.is_empty());
        let remote = slot.dir.join("remote").exists().then(|| slot.fresh_pull().unwrap());
        let files: Vec<(String, PathBuf)> = yard
            .transcripts
            .iter()
            .filter(|(sha256, path)| slot.cat(self.store, sha256, path).is_ok())
            .cloned()
            .collect();
        assert!(self.makes_store || files.len() > 3, "{files:?}");
        (calls, Expected { before, after, remote, files })
    }

    fn args(&self) -> Vec<&str> {
        self.store.iter().chain(self.command).copied().collect()
    }

    /// Kills it at a point and checks all; says whether the point was reached.
    fn at(&self, slot: &Slot, plan: &Plan, expected: &Expected) -> Checked<bool> {
        slot.restore();
        let killed = slot.kill(&self.args(), &plan.first);
        match &plan.second {
            None => {}
            Some((true, point)) => drop(slot.kill(&self.args(), point)),
            Some((false, point)) => {
                let status: Vec<&str> = self.store.iter().chain(&["status"]).copied().collect();
                slot.kill(&status, point);
            }
        }
        let status = slot.ok(self.store, &["--json", "status"]);
        match status {
            Err(message) if self.makes_store && killed && message.contains("not-found") => {}
            Err(message) => return Err(message),
            Ok(status) => {
                let status: Value = serde_json::from_str(&status).unwrap();
                if status["damaged"] != json!([]) {
                    return Err(format!("status finds damage: {status}"));
                }
                slot.verify(self.store)?;
                let left = slot.log(self.store)?;
                contains(&left, &expected.before).map_err(|error| format!("was there before: {error}"))?;
                contains(&expected.after, &left).map_err(|error| format!("was never given: {error}"))?;
                if self.name.ends_with("bundle") && left != expected.before && left != expected.after {
                    return Err(format!("{} of {} records", left.len(), expected.after.len()));
                }
                if !killed {
                    contains(&left, &expected.after).map_err(|error| format!("acknowledged: {error}"))?;
                }
            }
        }
        slot.ok(self.store, self.command)?;
        let left = slot.log(self.store)?;
        if left != expected.after {
            contains(&left, &expected.after)?;
            contains(&expected.after, &left)?;
            return Err("records are listed twice".to_owned());
        }
        slot.verify(self.store)?;
        // All of them at some points, at others three.
        let all = plan.first.n % 4 == 1;
        for number in 0..if all { expected.files.len() } else { 3.min(expected.files.len()) } {
            let (sha256, path) = &expected.files[(plan.first.n + number) % expected.files.len()];
            slot.cat(self.store, sha256, path)?;
        }
        if let Some(remote) = &expected.remote {
            let pulled = slot.fresh_pull()?;
            if pulled != *remote {
                return Err(format!("a fresh store pulls {} records, not {}", pulled.len(), remote.len()));
            }
        }
        if self.name == "export" {
            slot.ok(&["--store", "b"], &["bundle", "verify", "repo/out.atb"])?;
        }
        match slot.working_files() {
            left if left.is_empty() => Ok(killed),
            left => Err(format!("left after a successful run: {left:?}")),
        }
    }
}

/// Whether one sorted list has all of the other.
fn contains(all: &[String], part: &[String]) -> Checked {
    let mut counts: HashMap<&str, isize> = HashMap::new();
    for id in all {
        *counts.entry(id).or_default() += 1;
    }
    for id in part {
        *counts.entry(id).or_default() -= 1;
    }
    let missing: Vec<&str> = counts.into_iter().filter(|(_, count)| *count < 0).map(|(id, _)| id).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("{} records more or less: {missing:?}", missing.len()))
    }
}

// ---- Places

/// The data, made once, beside the slots of the workers.
struct Yard {
    root: TempDir,
    /// Files of transcripts by SHA-256.
    transcripts: Vec<(String, PathBuf)>,
}

impl Yard {
    fn new(large: bool) -> Yard {
        let strace = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(strace.is_ok_and(|status| status.success()), "strace is needed: tests/run.sh installs it");
        let root = tempfile::tempdir().unwrap();
        let mut transcripts = Vec::new();
        make_data(&root.path().join("data"), large, &mut transcripts);
        Yard { root, transcripts }
    }
}

/// A directory in which one worker works. The directories of its stores stay the same ones, since a store that lies
/// elsewhere takes itself for a copy.
struct Slot {
    dir: PathBuf,
    saved: PathBuf,
}

impl Slot {
    fn new(root: &Path, number: usize) -> Slot {
        let (dir, saved) = (root.join(format!("slot-{number}")), root.join(format!("saved-{number}")));
        fs::create_dir_all(&dir).unwrap();
        Slot { dir, saved }
    }

    fn save(&self) {
        for place in PLACES {
            copy_dir(&self.dir.join(place), &self.saved.join(place));
        }
    }

    fn restore(&self) {
        for place in PLACES {
            let (saved, here) = (self.saved.join(place), self.dir.join(place));
            if saved.exists() {
                for entry in fs::read_dir(&here).unwrap() {
                    remove(&entry.unwrap().path());
                }
                copy_dir(&saved, &here);
            } else {
                remove(&here);
            }
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = support::command(program, &self.dir, &self.dir.join("home"));
        command.env("GIT_CEILING_DIRECTORIES", &self.dir);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(PROGRAM).args(args).output().unwrap()
    }

    /// Runs a command on a store; what it says, or why it failed.
    fn ok(&self, store: &[&str], args: &[&str]) -> Checked<String> {
        let all: Vec<&str> = store.iter().chain(args).copied().collect();
        let output = self.run(&all);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        Err(format!("{args:?}: {}: {said} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    fn must(&self, args: &[&str]) {
        self.ok(&[], args).unwrap();
    }

    fn on(&self, store: &str, args: &[&str]) {
        self.ok(&["--store", store], args).unwrap();
    }

    fn with_remote(&self, store: &str) {
        let url = format!("file://{}", self.dir.join("remote").display());
        self.on(store, &["init"]);
        self.on(store, &["remote", "add", "team", &url]);
    }

    /// Two stores, and what the first has of some data as a bundle.
    fn with_bundle(&self, data: &[&str]) {
        self.on("a", &["init"]);
        self.on("b", &["init"]);
        let all: Vec<&str> = ["import"].iter().chain(data).copied().collect();
        self.on("a", &all);
        fs::create_dir_all(self.dir.join("repo")).unwrap();
        self.on("a", &["export", "repo/in.atb"]);
    }

    /// Runs a command that is killed at a point; says whether it was.
    fn kill(&self, args: &[&str], point: &Point) -> bool {
        let inject = format!("inject={}:signal=SIGKILL:when={}", point.call, point.n);
        let trace = format!("trace={}", point.call);
        let output = self
            .command("strace")
            .args(["-f", "-qq", "-b", "execve", "-o", "/dev/null", "-e", &trace, "-e", &inject])
            .arg(PROGRAM)
            .args(args)
            .output()
            .unwrap();
        // strace ends as the program did.
        !matches!(output.status.code(), Some(code) if code != 137)
    }

    /// Runs a command to its end, and returns how often the busiest thread made each call.
    fn count(&self, args: &[&str]) -> BTreeMap<String, usize> {
        let record = self.dir.join("calls");
        let output = self
            .command("strace")
            .args(["-f", "-qq", "-b", "execve", "-e"])
            .arg(format!("trace={}", GROUPS.concat().join(",")))
            .arg("-o")
            .arg(&record)
            .arg(PROGRAM)
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        let mut counts: HashMap<(String, String), usize> = HashMap::new();
        for line in fs::read_to_string(&record).unwrap().lines() {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(rest)) = (words.next(), words.next()) else { continue };
            if let Some((call, _)) = rest.split_once('(') {
                *counts.entry((thread.to_owned(), call.to_owned())).or_default() += 1;
            }
        }
        let mut calls = BTreeMap::new();
        for ((_, call), count) in counts {
            let most = calls.entry(call).or_insert(0);
            *most = count.max(*most);
        }
        calls
    }

    /// The ids of all records, sorted; those that are listed twice are there twice.
    fn log(&self, store: &[&str]) -> Checked<Vec<String>> {
        let said = self.ok(store, &["--json", "log", "-n", "1000000"])?;
        let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        // An erase says when, so it is another one each time.
        let lines = lines.filter(|line| line["kind"] != "erase");
        let mut ids: Vec<String> = lines.map(|line| line["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn verify(&self, store: &[&str]) -> Checked {
        let said = self.ok(store, &["--json", "verify"])?;
        let document: Value = serde_json::from_str(&said).unwrap();
        if support::is_sound(&document) { Ok(()) } else { Err(said) }
    }

    fn cat(&self, store: &[&str], sha256: &str, file: &Path) -> Checked {
        let all: Vec<&str> = store.iter().chain(&["cat", sha256]).copied().collect();
        let output = self.run(&all);
        if output.status.success() && output.stdout == fs::read(file).unwrap() {
            return Ok(());
        }
        Err(format!(
            "cat {sha256} does not give {}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    /// What a store that knows nothing gets from the remote.
    fn fresh_pull(&self) -> Checked<Vec<String>> {
        let store = ["--store", "c"];
        remove(&self.dir.join("c"));
        self.with_remote("c");
        self.ok(&store, &["pull"])?;
        self.verify(&store)?;
        self.log(&store)
    }

    /// Files that belong to work under way.
    fn working_files(&self) -> Vec<PathBuf> {
        self.files(|dir, name| {
            dir.ends_with("tmp") || dir.ends_with("inbox") || dir.ends_with("adopt") || name.contains(".new-")
        })
    }

    /// Files that are written aside to be renamed.
    fn aside_files(&self) -> Vec<PathBuf> {
        self.files(|_, name| name.ends_with(".new") || name.starts_with(".new-"))
    }

    fn files(&self, wanted: impl Fn(&Path, &str) -> bool) -> Vec<PathBuf> {
        let (mut found, mut dirs) = (Vec::new(), PLACES.map(|place| self.dir.join(place)).to_vec());
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else if wanted(&dir, &entry.file_name().to_string_lossy()) {
                    found.push(entry.path().strip_prefix(&self.dir).unwrap().to_owned());
                }
            }
        }
        found
    }
}

fn copy_dir(from: &Path, to: &Path) {
    if !from.exists() {
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

// ---- Data

/// Makes `zero`, `one` and `two`, each with what agent-trace-cli keeps and with sessions that go on from the one
/// before, and `large`
/// where it is wanted.
fn make_data(data: &Path, large: bool, transcripts: &mut Vec<(String, PathBuf)>) {
    let mut random = Random(0x6b69_6c6c);
    let mut sessions = vec![Vec::new(); 4];
    for (number, (name, traces)) in [("zero", 12), ("one", 40), ("two", 120)].into_iter().enumerate() {
        make_peer(&data.join(name).join("peer"), number, traces, &mut random, transcripts);
        let dir = data.join(name).join("sessions");
        let mut manifest = String::new();
        for (session, text) in sessions.iter_mut().enumerate().filter(|(session, _)| *session < 2 + number) {
            for state in 0..2 {
                grow(text, session, 12, &mut random);
                let file = format!("{session}-{state}.jsonl");
                transcripts.push((put(&dir, &file, text), dir.join(&file)));
                let line = json!({"file": file, "bytes": text.len(), "session_id": format!("s{session}"),
                    "agent": "Claude Code", "created_at": time(number * 300 + state * 100 + session)});
                manifest.push_str(&format!("{line}\n"));
            }
        }
        put(&dir, "manifest.jsonl", manifest.as_bytes());
    }
    if !large {
        return;
    }
    // What does not compress makes a segment that goes whole.
    let mut text = Vec::new();
    while text.len() < 9_500_000 {
        let digits = random.digits(16 * 4096);
        text.extend_from_slice(
            format!("{{\"type\":\"user\",\"sessionId\":\"large\",\"data\":\"{digits}\"}}\n").as_bytes(),
        );
    }
    let dir = data.join("large");
    transcripts.push((put(&dir, "large.jsonl", &text), dir.join("large.jsonl")));
}

fn make_peer(
    dir: &Path,
    part: usize,
    count: usize,
    random: &mut Random,
    transcripts: &mut Vec<(String, PathBuf)>,
) {
    let (mut index, mut blobs) = (serde_json::Map::new(), Vec::new());
    for blob in 0..2 {
        let mut text = Vec::new();
        grow(&mut text, 10 + blob, 20, random);
        let hash = sha256(&text);
        let folder = dir.join("conversations").join(&hash[..2]);
        transcripts.push((put(&folder, &hash, &text), folder.join(&hash)));
        let conversation = sha256(format!("conversation {part} {blob}").as_bytes());
        index.insert(conversation.clone(), json!(hash));
        blobs.push((conversation, hash));
    }
    let (mut traces, mut ledgers, mut links, mut summaries) =
        (String::new(), String::new(), String::new(), String::new());
    for number in 0..count {
        let id = format!("5ce2bf05-fca1-4d2e-a9b0-{part:04x}{number:08x}");
        let commit = format!("{part:08x}{:032x}", number / 3);
        let (conversation, hash) = &blobs[number % 2];
        let (path, moment) = (format!("src/{}.rs", number % 7), time(part * 300 + number));
        let conversations = json!([{"id": conversation, "content_sha256": hash, "contributor": {"type": "ai"},
            "ranges": [{"start_line": number + 1, "end_line": number + 9}]}]);
        let mut trace = support::trace(&id, &moment, &path, conversations);
        trace["vcs"] = json!({"type": "git", "revision": commit});
        trace["metadata"] = json!({"session_id": format!("p{part}"), "note": random.words(30)});
        traces.push_str(&format!("{trace}\n"));
        if number % 3 == 0 {
            let (ledger, link) = support::ledger_and_link(&commit, &id, &moment, &path);
            ledgers.push_str(&format!("{ledger}\n"));
            links.push_str(&format!("{link}\n"));
        }
    }
    for (conversation, _) in &blobs {
        let summary =
            json!({"conversation_id": conversation, "created_at": time(part), "summary": random.words(20)});
        summaries.push_str(&format!("{summary}\n"));
    }
    put(dir, "traces.jsonl", traces.as_bytes());
    put(dir, "ledgers.jsonl", ledgers.as_bytes());
    put(dir, "commit-links.jsonl", links.as_bytes());
    put(dir, "session-summaries.jsonl", summaries.as_bytes());
    put(&dir.join("conversations"), "_index.json", Value::Object(index).to_string().as_bytes());
}

fn grow(text: &mut Vec<u8>, session: usize, lines: usize, random: &mut Random) {
    for _ in 0..lines {
        let line = json!({"type": "user", "sessionId": format!("s{session}"), "uuid": format!("{:016x}", random.next()),
            "message": random.words(25)});
        text.extend_from_slice(format!("{line}\n").as_bytes());
    }
}

/// Writes a file that looks old, so that import may pass over it the next time; returns its SHA-256.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> String {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(name), bytes).unwrap();
    let file = fs::File::options().write(true).open(dir.join(name)).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_770_000_000)).unwrap();
    sha256(bytes)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time(minute: usize) -> String {
    format!("2026-02-{:02}T{:02}:{:02}:00Z", 1 + minute / 1440, minute / 60 % 24, minute % 60)
}
