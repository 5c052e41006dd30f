//! How well lines are attributed: real edits of agents and made-up ones of people, through everything that git does to
//! a history, with the truth kept for each line.
//!
//! The program is a black box: it is given the transcript of the session after everything has happened, brings it in by
//! `backfill`, and links all commits. The peer, where it is asked for, is told each edit when it happens and has its
//! hooks run at each commit.

mod edits;
mod human;
mod operations;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Options;
use crate::files;
use crate::measure;
use crate::report::{Report, Result};
use edits::Thread;
use operations::{Case, OPERATIONS, Operation, Pen};
use world::{PeerPlace, World};

const CASES: u64 = 12;
const CASES_QUICK: u64 = 2;
/// What may be wrong.
const PRECISION: f64 = 0.995;
const RECALL: f64 = 0.97;

/// Lines, counted by what they are and what they are said to be.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    lines: u64,
    agents: u64,
    said: u64,
    right: u64,
}

impl Score {
    fn add(&mut self, other: Score) {
        self.lines += other.lines;
        self.agents += other.agents;
        self.said += other.said;
        self.right += other.right;
    }

    fn precision(self) -> f64 {
        if self.said == 0 { 1.0 } else { self.right as f64 / self.said as f64 }
    }

    fn recall(self) -> f64 {
        if self.agents == 0 { 1.0 } else { self.right as f64 / self.agents as f64 }
    }
}

/// What one kind of history came to.
#[derive(Default)]
struct Row {
    cases: u64,
    given_up: u64,
    ours: Score,
    peer: Score,
}

/// Measures attribution.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Attribution");
    let Some(corpus) = &options.corpus else {
        report.text("skipped: corpus not given");
        return Ok(());
    };
    let threads = edits::threads(&corpus.join("entire-cli"))?;
    let work = files::renew(&options.work.join("attribution"))?;
    let peer = options.peer.clone().map(|program| PeerPlace { program, home: work.join("peer-home") });
    let count = options.runs_given.map_or(if options.quick { CASES_QUICK } else { CASES }, u64::from);
    report.text(&format!(
        "{count} histories for each operation, from {} files with edits of real sessions; seed {}.",
        threads.len(),
        options.seed
    ));
    let wanted = std::env::var("ATTRIBUTION_ONLY").unwrap_or_default();
    let mut rows: Vec<(&str, Row)> = Vec::new();
    for (number, (name, operation)) in OPERATIONS.into_iter().enumerate() {
        if !name.contains(&wanted) {
            continue;
        }
        let mut row = Row::default();
        for case in 0..count {
            let seed = options.seed.wrapping_mul(1_000_003) + (number as u64) * 1_000 + case;
            let directory = work.join(format!("{number}-{case}"));
            match one(options.binary()?, &directory, seed, &threads, operation, peer.clone()) {
                Ok((ours, peer)) => {
                    row.cases += 1;
                    row.ours.add(ours);
                    row.peer.add(peer);
                }
                Err(error) => {
                    row.given_up += 1;
                    eprintln!("{name}, seed {seed}: given up: {error}");
                }
            }
            if std::env::var_os("ATTRIBUTION_KEEP").is_none() {
                files::remove(&directory)?;
            }
        }
        rows.push((name, row));
    }
    print(report, &rows, peer.is_some());
    Ok(())
}

fn one(
    binary: &Path,
    directory: &Path,
    seed: u64,
    threads: &[Thread],
    operation: Operation,
    peer: Option<PeerPlace>,
) -> Result<(Score, Score)> {
    let peer = peer.map(|place| PeerPlace { home: directory.join("peer-home"), ..place });
    if let Some(place) = &peer {
        std::fs::create_dir_all(&place.home)?;
    }
    let mut world = World::new(directory, seed, peer)?;
    let (one, two) = (pen(&mut world, threads, "one")?, pen(&mut world, threads, "two")?);
    world.commit("base")?;
    let mut case = Case { world, one, two };
    operation(&mut case)?;
    let world = case.world;
    let ours = Ours::fill(binary, directory, &world)?;
    let (mut our_score, mut peer_score) = (Score::default(), Score::default());
    for file in world.files()? {
        let lines = world.lines(&file)?;
        let truth: HashSet<usize> = (0..lines.len()).filter(|at| world.is_agents(&lines[*at])).collect();
        let said = ours.said(&file)?;
        our_score.add(score(lines.len(), &truth, &said));
        if std::env::var_os("ATTRIBUTION_SHOW").is_some() {
            show(seed, &file, &lines, &truth, &said);
        }
        if let Some((directory, place)) = &world.peer {
            peer_score.add(score(lines.len(), &truth, &peer_says(place, directory, &file)?));
        }
    }
    Ok((our_score, peer_score))
}

/// A file as it was before a session, in the repository.
fn pen(world: &mut World, threads: &[Thread], name: &str) -> Result<Pen> {
    let at = world.pick(threads.len());
    let thread = threads.get(at).ok_or("no edits in the corpus")?;
    let file = format!("pkg/{name}_{}", thread.name);
    world.human_file(&file, &thread.start)?;
    Ok(Pen::of(file, thread))
}

fn score(lines: usize, truth: &HashSet<usize>, said: &HashSet<usize>) -> Score {
    Score {
        lines: lines as u64,
        agents: truth.len() as u64,
        said: said.len() as u64,
        right: truth.intersection(said).count() as u64,
    }
}

/// Prints what is wrong, for whoever looks for the cause.
fn show(seed: u64, file: &str, lines: &[world::Line], truth: &HashSet<usize>, said: &HashSet<usize>) {
    for (at, line) in lines.iter().enumerate() {
        if truth.contains(&at) != said.contains(&at) {
            let what = if said.contains(&at) { "taken" } else { "missed" };
            eprintln!("{seed} {file}:{} {what}: {}", at + 1, line.text);
        }
    }
}

/// Our program on one repository.
struct Ours {
    real: PathBuf,
    /// By commit and path the lines that are an agent's, from 1.
    ledgers: HashMap<(String, String), HashSet<u64>>,
}

impl Ours {
    fn fill(binary: &Path, directory: &Path, world: &World) -> Result<Ours> {
        let sessions = directory.join("sessions");
        std::fs::create_dir_all(&sessions)?;
        std::fs::write(sessions.join("session.jsonl"), &world.transcript)?;
        let home = directory.join("home");
        let command = |args: &[&str]| {
            let mut command = Command::new(binary);
            command.args(args).current_dir(&world.real).env("AGENT_TRACE_HOME", &home).env("HOME", &home);
            command.env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("GIT_DIR");
            command
        };
        measure::output(&mut command(&["init"]))?;
        measure::output(command(&["backfill"]).arg(&sessions))?;
        measure::output(&mut command(&["link", "--all"]))?;
        let listed = measure::output(&mut command(&["log", "--kind", "ledger", "--json", "-n", "10000"]))?;
        let mut ledgers: HashMap<(String, String), HashSet<u64>> = HashMap::new();
        let mut newest: BTreeMap<String, String> = BTreeMap::new();
        for item in records(&listed) {
            let (Some(key), Some(id)) = (item["key"].as_str(), item["id"].as_str()) else { continue };
            // Newest first; of two ledgers of a commit the newest answers.
            newest.entry(key.to_owned()).or_insert_with(|| id.to_owned());
        }
        for (commit, id) in newest {
            let ledger: Value = serde_json::from_str(&measure::output(&mut command(&["cat", &id]))?)?;
            for (path, file) in ledger["files"].as_object().into_iter().flatten() {
                let lines = ledgers.entry((commit.clone(), path.clone())).or_default();
                for run in file["line_attributions"].as_array().into_iter().flatten() {
                    let bound = |name: &str| run[name].as_u64().unwrap_or_default();
                    lines.extend(bound("start_line")..=bound("end_line"));
                }
            }
        }
        Ok(Ours { real: world.real.clone(), ledgers })
    }

    /// The lines of a file that are said to be an agent's, from 0.
    fn said(&self, file: &str) -> Result<HashSet<usize>> {
        let mut blame = Command::new("git");
        blame.current_dir(&self.real).env("GIT_CONFIG_GLOBAL", "/dev/null");
        let printed = blame
            .args(["-c", "core.quotePath=false", "blame", "--line-porcelain", "HEAD", "--", file])
            .output()?;
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        let mut said = HashSet::new();
        let (mut commit, mut original, mut line) = (String::new(), 0, 0);
        let mut is_head = true;
        for text in printed.lines() {
            if is_head {
                let mut words = text.split(' ');
                commit = words.next().unwrap_or_default().to_owned();
                original = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                line = words.next().and_then(|word| word.parse::<usize>().ok()).unwrap_or(1);
                is_head = false;
            } else if let Some(path) = text.strip_prefix("filename ") {
                let lines = self.ledgers.get(&(commit.clone(), path.to_owned()));
                if lines.is_some_and(|lines| lines.contains(&original)) {
                    said.insert(line - 1);
                }
            } else if text.starts_with('\t') {
                is_head = true;
            }
        }
        Ok(said)
    }
}

/// The heads of records in what `log --json` prints: one on each line.
fn records(printed: &str) -> Vec<Value> {
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines of a file that the peer says are an agent's, from 0.
fn peer_says(place: &PeerPlace, directory: &Path, file: &str) -> Result<HashSet<usize>> {
    let mut command = world::peer_command(place, directory);
    let output = command.args(["blame", file, "--json"]).stdout(std::process::Stdio::piped()).output()?;
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let mut said = HashSet::new();
    for run in value["attributions"].as_array().into_iter().flatten().filter(|run| run["kind"] == "AI") {
        let bound = |name: &str| usize::try_from(run[name].as_u64().unwrap_or_default()).unwrap_or_default();
        said.extend((bound("start_line")..=bound("end_line")).map(|line| line.saturating_sub(1)));
    }
    Ok(said)
}

fn print(report: &mut Report, rows: &[(&str, Row)], has_peer: bool) {
    report.end_list();
    let peer_head = if has_peer { " peer precision | peer recall |" } else { "" };
    println!("| history | cases | lines | an agent's | precision | recall |{peer_head}");
    println!("|---|---|---|---|---|---|{}", if has_peer { "---|---|" } else { "" });
    let mut all = Row::default();
    for (name, row) in rows {
        print_row(name, row, has_peer);
        all.cases += row.cases;
        all.given_up += row.given_up;
        all.ours.add(row.ours);
        all.peer.add(row.peer);
    }
    print_row("**all**", &all, has_peer);
    println!();
    if all.given_up > 0 {
        report.text(&format!(
            "{} histories were given up, since git did not end alike with and without numbers.",
            all.given_up
        ));
    }
    report.at_least("precision", all.ours.precision(), PRECISION);
    report.at_least("recall", all.ours.recall(), RECALL);
    if has_peer {
        report.at_least("precision / the peer's", all.ours.precision() / all.peer.precision(), 1.0);
        report.at_least("recall / the peer's", all.ours.recall() / all.peer.recall(), 1.0);
    }
    report.end_list();
}

fn print_row(name: &str, row: &Row, has_peer: bool) {
    let Row { cases, ours, peer, .. } = row;
    print!(
        "| {name} | {cases} | {} | {} | {:.4} | {:.4} |",
        ours.lines,
        ours.agents,
        ours.precision(),
        ours.recall()
    );
    if has_peer {
        print!(" {:.4} | {:.4} |", peer.precision(), peer.recall());
    }
    println!();
}
