//! Many processes of the real program at once, on one store and on one remote: nothing lost, nothing twice.
//!
//! Appenders, a compaction, a verification and readers run until the appenders are done; in one test appenders and
//! compactions are also killed. How they interleave differs each time; what must hold does not. Status 5, a lock held
//! for too long, is no failure on a machine that is slow: the command is run again, as a user would.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use support::{PROGRAM, Random};

mod support;

const APPENDERS: usize = 8;
const ROUNDS: usize = 6;
const TRACES: usize = 36;
const LEDGERS: usize = 11;
const BUSY: i32 = 5;
const BUSY_MAX: usize = 20;

#[test]
fn appenders_a_compaction_a_verification_and_readers_at_once() {
    let world = World::new();
    world.well("s", &["init"]);
    let crowd = Crowd::of(APPENDERS);
    std::thread::scope(|scope| {
        for appender in 0..APPENDERS {
            let (world, crowd) = (&world, &crowd);
            scope.spawn(move || {
                let _leaving = crowd.member();
                for round in 0..ROUNDS {
                    let part = world.part(&format!("{appender}-{round}"));
                    let said = world.document("s", &["import", &part.dir]);
                    assert_eq!(said["added"], json!(part.keys.len()), "{said}");
                    // What was acknowledged is there at once.
                    for key in [part.keys.first().unwrap(), part.keys.last().unwrap()] {
                        let shown = world.document("s", &["show", key]);
                        assert_eq!(shown["records"][0]["key"], json!(key), "{shown}");
                    }
                    crowd.acknowledge(part);
                }
            });
        }
        scope.spawn(|| crowd.until_done(|_| drop(world.document("s", &["compact", "--yes"]))));
        scope.spawn(|| crowd.until_done(|_| world.verify("s")));
        scope.spawn(|| {
            crowd.until_done(|number| {
                let acknowledged = crowd.acknowledged.lock().unwrap().len();
                if number % 2 == 0 {
                    let status = world.document("s", &["status"]);
                    assert_eq!(status["damaged"], json!([]), "{status}");
                    let events = status["events"].as_u64().unwrap();
                    assert!(events >= acknowledged as u64, "{events} of {acknowledged}: {status}");
                } else {
                    let seen = world.log("s", 20);
                    assert_eq!(seen.len(), acknowledged.clamp(seen.len().min(20), 20));
                }
            });
        });
    });
    world.holds("s", &crowd.acknowledged());
    world.say("crowd");
}

#[test]
fn one_directory_imported_by_eight_at_once_comes_in_once() {
    let world = World::new();
    world.well("s", &["init"]);
    let part = world.part("shared");
    let mut known = BTreeSet::new();
    for round in 0..ROUNDS {
        let grown = world.part(&format!("grown-{round}"));
        known.extend(part.keys.iter().chain(&grown.keys).cloned());
        let added = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..APPENDERS {
                scope.spawn(|| {
                    let said = world.document("s", &["import", &part.dir, &grown.dir]);
                    let (new, old) = (said["added"].as_u64().unwrap(), said["known"].as_u64().unwrap());
                    assert_eq!(new + old, (part.keys.len() + grown.keys.len()) as u64, "{said}");
                    added.fetch_add(usize::try_from(new).unwrap(), Ordering::Relaxed);
                });
            }
        });
        let expected = if round == 0 { part.keys.len() + grown.keys.len() } else { grown.keys.len() };
        assert_eq!(added.into_inner(), expected, "round {round}");
        world.holds("s", &known);
    }
    world.say("same directory");
}

#[test]
fn stores_that_push_and_pull_at_once_end_up_with_everything() {
    let world = World::new();
    for store in ["a", "b", "c"] {
        world.well(store, &["init"]);
        world.well(store, &["remote", "add", "team", &format!("file://{}", world.path("remote"))]);
    }
    let crowd = Crowd::of(2);
    std::thread::scope(|scope| {
        for store in ["a", "b"] {
            let (world, crowd) = (&world, &crowd);
            scope.spawn(move || {
                let _leaving = crowd.member();
                for round in 0..ROUNDS {
                    let part = world.part(&format!("{store}-{round}"));
                    world.well(store, &["import", &part.dir]);
                    std::thread::scope(|scope| {
                        scope.spawn(|| world.well(store, &["push", "--full"]));
                        if round % 2 == 1 {
                            scope.spawn(|| world.well(store, &["compact", "--yes"]));
                        }
                    });
                    crowd.acknowledge(part);
                    if round % 3 == 2 {
                        world.well(store, &["pull"]);
                    }
                }
            });
        }
        scope.spawn(|| {
            crowd.until_done(|_| {
                let before = crowd.acknowledged();
                if before.is_empty() {
                    // There may be no remote yet.
                    return std::thread::sleep(Duration::from_millis(5));
                }
                world.well("c", &["pull"]);
                let there: BTreeSet<String> =
                    world.log("c", 1_000_000).into_iter().map(|seen| seen.key).collect();
                let lost: Vec<&String> = before.difference(&there).collect();
                assert!(lost.is_empty(), "pushed, but not pulled: {lost:?}");
            });
        });
    });
    let all = crowd.acknowledged();
    let mut ids = BTreeSet::new();
    for store in ["a", "b", "c"] {
        world.well(store, &["pull"]);
        ids.insert(world.holds(store, &all));
    }
    assert_eq!(ids.len(), 1, "the stores hold different records");
    for store in ["a", "b"] {
        let again = world.document(store, &["push", "--full"]);
        assert_eq!(again["segments"], json!(0), "{again}");
    }
    world.say("push and pull");
}

#[test]
fn one_store_pushed_and_pulled_by_several_at_once() {
    const AT_ONCE: usize = 3;
    let world = World::new();
    for store in ["a", "b"] {
        world.well(store, &["init"]);
        world.well(store, &["remote", "add", "team", &format!("file://{}", world.path("remote"))]);
    }
    let mut all = BTreeSet::new();
    for round in 0..ROUNDS {
        let parts: Vec<Part> = (0..AT_ONCE).map(|number| world.part(&format!("{round}-{number}"))).collect();
        std::thread::scope(|scope| {
            for part in &parts {
                scope.spawn(|| {
                    world.well("a", &["import", &part.dir]);
                    world.well("a", &["push", "--full"]);
                });
            }
        });
        all.extend(parts.into_iter().flat_map(|part| part.keys));
        // All that was pushed, by whoever, can be pulled, also by several at once.
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| world.well("b", &["pull"]));
            }
        });
        world.holds("b", &all);
    }
    assert_eq!(world.holds("a", &all), world.holds("b", &all));
    world.say("one store pushed at once");
}

#[test]
fn what_was_acknowledged_survives_kills_in_a_crowd() {
    const KILLED_ROUNDS: usize = 10;
    let world = World::new();
    world.well("s", &["init"]);
    let crowd = Crowd::of(APPENDERS);
    let (killed, offered) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for appender in 0..APPENDERS {
            let (world, crowd, killed, offered) = (&world, &crowd, &killed, &offered);
            scope.spawn(move || {
                let _leaving = crowd.member();
                let mut random = Random(appender as u64 + 1);
                for round in 0..KILLED_ROUNDS {
                    let part = world.part(&format!("{appender}-{round}"));
                    match world.killed_after("s", &["import", &part.dir], random.below(160)) {
                        true => {
                            killed.fetch_add(1, Ordering::Relaxed);
                            offered.lock().unwrap().push(part);
                        }
                        false => crowd.acknowledge(part),
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut random = Random(99);
            crowd.until_done(|_| {
                world.killed_after("s", &["compact", "--yes"], random.below(150));
            });
        });
        scope.spawn(|| crowd.until_done(|_| world.verify("s")));
    });
    world.verify("s");
    let there: BTreeSet<String> = world.log("s", 1_000_000).into_iter().map(|seen| seen.key).collect();
    let lost: Vec<String> = crowd.acknowledged().difference(&there).cloned().collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    for part in offered.into_inner().unwrap() {
        world.well("s", &["import", &part.dir]);
        crowd.acknowledge(part);
    }
    world.well("s", &["compact", "--yes"]);
    world.holds("s", &crowd.acknowledged());
    println!("kills: {} of {} imports were killed", killed.into_inner(), APPENDERS * KILLED_ROUNDS);
    world.say("kills");
}

// ---- The crowd

/// Counts who still appends, and notes what was acknowledged.
struct Crowd {
    left: AtomicUsize,
    failed: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
}

struct Member<'c>(&'c Crowd);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.left.fetch_sub(1, Ordering::SeqCst);
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

impl Crowd {
    fn of(members: usize) -> Crowd {
        let acknowledged = Mutex::new(BTreeSet::new());
        Crowd { left: AtomicUsize::new(members), failed: AtomicBool::new(false), acknowledged }
    }

    /// Leaves when dropped.
    fn member(&self) -> Member<'_> {
        Member(self)
    }

    /// Repeats something, at least once, as long as members are there.
    fn until_done(&self, mut each: impl FnMut(usize)) {
        for number in 0.. {
            each(number);
            if self.left.load(Ordering::SeqCst) == 0 || self.failed.load(Ordering::SeqCst) {
                break;
            }
        }
    }

    fn acknowledge(&self, part: Part) {
        let count = part.keys.len();
        let mut acknowledged = self.acknowledged.lock().unwrap();
        let before = acknowledged.len();
        acknowledged.extend(part.keys);
        assert_eq!(acknowledged.len(), before + count, "the data has a key twice");
    }

    fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap().clone()
    }
}

// ---- Stores

struct World {
    root: TempDir,
    commands: AtomicUsize,
    busy: AtomicUsize,
}

/// What `log` says of a record.
#[derive(Clone, Debug)]
struct Seen {
    id: String,
    key: String,
    writer: String,
    seq: u64,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("home")).unwrap();
        World { root, commands: AtomicUsize::new(0), busy: AtomicUsize::new(0) }
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, store: &str, args: &[&str]) -> Command {
        let mut command = support::command(PROGRAM, self.root.path(), &self.root.path().join("home"));
        command.args(["--json", "--store", store]).args(args);
        command
    }

    /// Runs a command until no lock was held for too long.
    fn run(&self, store: &str, args: &[&str]) -> Output {
        for _ in 0..BUSY_MAX {
            self.commands.fetch_add(1, Ordering::Relaxed);
            let output = self.command(store, args).output().unwrap();
            if output.status.code() != Some(BUSY) {
                return output;
            }
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
        panic!("{store} {args:?}: a lock was held for too long {BUSY_MAX} times");
    }

    /// Runs a command that must do well; what it says.
    fn said(&self, store: &str, args: &[&str]) -> String {
        let output = self.run(store, args);
        let said = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{store} {args:?}: {}: {said} {error}", output.status);
        said
    }

    fn well(&self, store: &str, args: &[&str]) {
        self.said(store, args);
    }

    fn document(&self, store: &str, args: &[&str]) -> Value {
        serde_json::from_str(&self.said(store, args)).unwrap()
    }

    /// Runs a command and kills it after so many milliseconds; false if it did well before. One that found a lock held
    /// for too long has done nothing, like one that was killed.
    fn killed_after(&self, store: &str, args: &[&str], millis: usize) -> bool {
        let mut child =
            self.command(store, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.commands.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(millis as u64));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        match output.status.code() {
            None | Some(BUSY) => true,
            Some(0) => false,
            code => panic!("{args:?}: {code:?} {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    fn verify(&self, store: &str) {
        let said = self.document(store, &["verify"]);
        assert!(support::is_sound(&said), "{said}");
    }

    fn log(&self, store: &str, count: usize) -> Vec<Seen> {
        let said = self.said(store, &["log", "-n", &count.to_string()]);
        let seen = said.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            // A ledger and a commit-link have the same key.
            let key = match line["kind"].as_str().unwrap() {
                "commit-link" => format!("link {}", text("key")),
                _ => text("key"),
            };
            Seen { id: text("id"), key, writer: text("writer"), seq: line["seq"].as_u64().unwrap() }
        });
        seen.collect()
    }

    /// Checks that a store is sound and holds just these records, each once, with logs that have no gap; returns the
    /// ids.
    fn holds(&self, store: &str, keys: &BTreeSet<String>) -> Vec<String> {
        self.verify(store);
        let seen = self.log(store, 1_000_000);
        let mut counts: BTreeMap<&str, isize> = keys.iter().map(|key| (key.as_str(), -1)).collect();
        let mut logs: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for seen in &seen {
            *counts.entry(&seen.key).or_default() += 1;
            logs.entry(&seen.writer).or_default().push(seen.seq);
        }
        counts.retain(|_, count| *count != 0);
        assert!(counts.is_empty(), "{store}: lost (-1) or more than once: {counts:?}");
        for (writer, mut seqs) in logs {
            seqs.sort_unstable();
            let dense: Vec<u64> = (1..=seqs.len() as u64).collect();
            assert_eq!(seqs, dense, "{store}: the log of {writer}");
        }
        let mut ids: Vec<String> = seen.into_iter().map(|seen| seen.id).collect();
        ids.sort_unstable();
        ids
    }

    fn say(&self, name: &str) {
        let (commands, busy) = (self.commands.load(Ordering::Relaxed), self.busy.load(Ordering::Relaxed));
        println!("{name}: {commands} commands, {busy} of them found a lock held for too long");
    }

    /// Makes a directory of records that no other has.
    fn part(&self, name: &str) -> Part {
        let dir = self.root.path().join("data").join(name);
        let mut random = Random(name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)));
        let (mut keys, mut traces, mut ledgers, mut links) =
            (Vec::new(), [String::new(), String::new()], String::new(), String::new());
        let moment = |number: usize| format!("2026-02-03T{:02}:{:02}:00Z", number / 60, number % 60);
        for number in 0..TRACES {
            let id = format!("{name}-trace-{number}");
            let path = format!("src/{number}.rs");
            let mut trace = support::trace(&id, &moment(number), &path, json!([]));
            trace["metadata"] = json!({"note": random.digits(200)});
            traces[number % 2].push_str(&format!("{trace}\n"));
            keys.push(id);
        }
        for number in 0..LEDGERS {
            let commit = format!("{:016x}{:024x}", random.next(), random.next());
            let (ledger, link) =
                support::ledger_and_link(&commit, &keys[number], &moment(number), "src/0.rs");
            ledgers.push_str(&format!("{ledger}\n"));
            links.push_str(&format!("{link}\n"));
            keys.push(commit.clone());
            keys.push(format!("link {commit}"));
        }
        // The first and the last are ids that `show` takes.
        let last = keys.remove(TRACES - 1);
        keys.push(last);
        put(&dir.join("home").join("traces.jsonl"), &traces[0]);
        put(&dir.join("more").join("traces.jsonl"), &traces[1]);
        put(&dir.join("home").join("ledgers.jsonl"), &ledgers);
        put(&dir.join("home").join("commit-links.jsonl"), &links);
        Part { dir: dir.to_str().unwrap().to_owned(), keys }
    }
}

/// A directory to import, and the natural keys of what is in it.
struct Part {
    dir: String,
    keys: Vec<String>,
}

fn put(path: &PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
    fs::write(path, text).unwrap();
}
