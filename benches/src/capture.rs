//! Hooks: what `record` costs an agent that waits for it, against the peer's, and what an event leaves on the disk.
//!
//! The same payloads and the same transcripts go to both, each with a home and a repository of its own. The flusher is
//! off while hooks are timed, so that the figures are those of the hook alone; entries are absorbed afterwards.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::Options;
use crate::files;
use crate::measure::{self, Job, Samples};
use crate::python;
use crate::records;
use crate::report::{Report, Result};

const RUNS: u32 = 200;
const RUNS_QUICK: u32 = 5;
const TRANSCRIPT_BYTES: u64 = 20 << 20;
const LONG_BYTES: u64 = 500 << 20;
const SESSIONS: usize = 1000;
/// Events between two flushes while bytes are counted; a flusher gathers about so many of a busy agent's.
const EVENTS_PER_FLUSH: usize = 10;
const EVENTS_MAX: usize = 200;

/// Runs the section.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Capture");
    let work = files::renew(&options.work.join("capture"))?;
    let runs = if options.quick { RUNS_QUICK } else { options.runs_given.unwrap_or(RUNS) };
    let ours = Side::ours(options, &work)?;
    let peer = Side::peer(options, &work)?;
    if peer.is_none() {
        report.text("The peer agent-trace-cli is not installed (`bench setup`), left out.");
    }
    hook(runs, &work, &ours, peer.as_ref(), report)?;
    flat(runs, &work, &ours, report)?;
    beside_import(options, runs, &work, &ours, report)?;
    stored(options, &work, &ours, peer.as_ref(), report)?;
    files::remove(&work)
}

/// One program with a home and a repository of its own.
struct Side {
    program: PathBuf,
    home: PathBuf,
    repository: PathBuf,
}

impl Side {
    fn ours(options: &Options, work: &Path) -> Result<Side> {
        let side = Side::new(options.binary()?, &work.join("ours"))?;
        fs::write(side.project()?.join("project-config.json"), r#"{"capture":{"flush":"manual"}}"#)?;
        Ok(side)
    }

    fn peer(options: &Options, work: &Path) -> Result<Option<Side>> {
        let program = python::program(options);
        program.is_file().then(|| Side::new(&program, &work.join("peer"))).transpose()
    }

    fn new(program: &Path, dir: &Path) -> Result<Side> {
        let (home, repository) = (files::renew(&dir.join("home"))?, files::renew(&dir.join("repository"))?);
        let side = Side { program: program.into(), home, repository };
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]).args(arguments);
            measure::output(command.current_dir(&side.repository).env("HOME", &side.home))
        };
        git(&["init", "--quiet"])?;
        git(&["commit", "--quiet", "--allow-empty", "--message", "first"])?;
        measure::output(&mut side.command(&["init"]))?;
        Ok(side)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.repository).env("HOME", &self.home);
        command.env("AGENT_TRACE_HOME", self.home.join("data"));
        command
    }

    fn project(&self) -> Result<PathBuf> {
        let projects = self.home.join("data/projects");
        Ok(fs::read_dir(projects)?.next().ok_or("no project was made")??.path())
    }

    /// A payload of Claude Code for this side, in a file.
    fn payload(&self, transcript: &Path, session: &str, call: &str, input: &Value) -> Result<PathBuf> {
        let mut input = input.clone();
        let path = self.repository.join("file.py");
        input["file_path"] = json!(path);
        let tool = if input.get("content").is_some() { "Write" } else { "Edit" };
        let payload = json!({"session_id": session, "transcript_path": transcript, "cwd": self.repository,
            "hook_event_name": "PostToolUse", "tool_name": tool, "tool_use_id": call, "tool_input": input});
        let file = self.home.join("payload.json");
        fs::write(&file, payload.to_string())?;
        Ok(file)
    }

    /// Takes a transcript into the store, as the flusher has done soon after its session began.
    fn take_in(&self, transcript: &Path, work: &Path) -> Result<()> {
        let payload = self.payload(transcript, "s0", "first", &json!({"content": "a\n"}))?;
        measure::run_fed(&mut self.command(&["record"]), Some(&payload), work)?;
        measure::output(&mut self.command(&["log", "--limit", "1"])).map(drop)
    }

    /// The job of one event after the other.
    fn job<'a>(&'a self, name: &str, transcript: &'a Path, sessions: usize) -> Job<'a> {
        let tag = name.to_owned();
        let prepare = move |run: u32| {
            let content = format!("a = {run}\n{}", "line = 1\n".repeat(20));
            fs::write(self.repository.join("file.py"), &content)?;
            let session = format!("s{}", run as usize % sessions);
            self.payload(transcript, &session, &format!("{tag}-{run}"), &json!({"content": content}))
                .map(drop)
        };
        Job::new(name, move |_| Ok(vec![self.command(&["record"])]))
            .prepare(prepare)
            .fed(&self.home.join("payload.json"))
            .unsettled()
    }
}

fn transcript(path: &Path, bytes: u64) -> Result<()> {
    let mut file = std::io::BufWriter::new(File::create(path)?);
    let mut written = 0;
    while written < bytes {
        let text = format!(
            "{{\"type\":\"assistant\",\"sessionId\":\"s0\",\"uuid\":\"{written:016x}\",\"message\":{{\"model\":\"claude-opus-4-5\",\"content\":\"{}\"}}}}\n",
            "word ".repeat(150)
        );
        file.write_all(text.as_bytes())?;
        written += text.len() as u64;
    }
    file.flush()?;
    Ok(())
}

fn p99_ms(samples: &Samples) -> f64 {
    let mut walls: Vec<f64> = samples.costs.iter().map(|cost| cost.wall_s).collect();
    walls.sort_by(f64::total_cmp);
    walls.get((walls.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default() * 1e3
}

fn hook(runs: u32, work: &Path, ours: &Side, peer: Option<&Side>, report: &mut Report) -> Result<()> {
    let path = work.join("transcript.jsonl");
    transcript(&path, TRANSCRIPT_BYTES)?;
    ours.take_in(&path, work)?;
    let mut jobs = vec![ours.job("record", &path, 1)];
    jobs.extend(peer.map(|peer| peer.job("record of agent-trace-cli", &path, 1)));
    let all = measure::alternate(&mut jobs, runs, work);
    report.text("One event of a session whose transcript has 20 MB:");
    report.table_ms(&all);
    let (median, p99) = (all[0].wall().median * 1e3, p99_ms(&all[0]));
    report.at_most("record, median, ms", median, 5.0);
    report.at_most("record, p99, ms", p99, 15.0);
    report.at_most("peak RSS of record, MB", all[0].rss_bytes() as f64 / 1e6, 64.0);
    if let Some(peer) = all.get(1) {
        report.at_most("record / of agent-trace-cli", median / (peer.wall().median * 1e3), 1.0 / 40.0);
    }
    drop(jobs);
    measure::output(&mut ours.command(&["log", "--limit", "1"])).map(drop)
}

fn flat(runs: u32, work: &Path, ours: &Side, report: &mut Report) -> Result<()> {
    let paths = [work.join("short.jsonl"), work.join("long.jsonl"), work.join("new.jsonl")];
    transcript(&paths[0], 1000)?;
    transcript(&paths[1], LONG_BYTES)?;
    fs::hard_link(&paths[1], &paths[2])?;
    ours.take_in(&paths[1], work)?;
    let mut jobs = [
        ours.job("1 session, 1 kB", &paths[0], 1),
        ours.job("1,000 sessions, 1 kB", &paths[0], SESSIONS),
        ours.job("1 session, 500 MB", &paths[1], 1),
        ours.job("1 session, 500 MB, not taken yet: 1 MiB with each event", &paths[2], 1),
    ];
    let spool = ours.project()?.join("spool/tails");
    for number in 0..SESSIONS {
        fs::write(spool.join(format!("{number:032x}")), [0; 68])?;
    }
    let all = measure::alternate(&mut jobs, runs, work);
    report.text("Flat:");
    report.table_ms(&all);
    let median = |number: usize| all[number].wall().median;
    report.at_most("1,000 sessions / 1 session", median(1) / median(0), 1.25);
    report.at_most("500 MB / 1 kB", median(2) / median(0), 1.25);
    drop(jobs);
    fs::remove_file(&paths[1])?;
    fs::remove_file(&paths[2])?;
    // What they brought is no part of what follows.
    files::remove(&ours.project()?.join("spool"))
}

/// A command that runs beside others until it is dropped.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn beside_import(options: &Options, runs: u32, work: &Path, ours: &Side, report: &mut Report) -> Result<()> {
    let dir = records::folder(options, options.records(), options.seed)?;
    let path = work.join("short.jsonl");
    let mut import = ours.command(&["import"]);
    import.arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let beside = Beside(import.spawn()?);
    let all = measure::alternate(&mut [ours.job("record beside import", &path, 1)], runs, work);
    drop(beside);
    report.text(&format!("While `import` takes {} records into the same store:", options.records()));
    report.table_ms(&all);
    report.at_most("record beside import, p99, ms", p99_ms(&all[0]), 30.0);
    measure::output(&mut ours.command(&["log", "--limit", "1"])).map(drop)
}

/// The edits of a real session: where in the transcript each was made, and its input.
fn edits(transcript: &[u8]) -> Vec<(usize, Value)> {
    let (mut at, mut found) = (0, Vec::new());
    for line in transcript.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
        for part in value["message"]["content"].as_array().into_iter().flatten() {
            if matches!(part["name"].as_str(), Some("Edit" | "Write")) && part["input"].is_object() {
                found.push((at, part["input"].clone()));
            }
        }
    }
    found.truncate(EVENTS_MAX);
    found
}

fn stored(
    options: &Options,
    work: &Path,
    ours: &Side,
    peer: Option<&Side>,
    report: &mut Report,
) -> Result<()> {
    let Some(corpus) = &options.corpus else {
        report.text("Bytes for each event are measured with the real transcripts only (AGENT_TRACE_CORPUS).");
        return Ok(());
    };
    let mut best: (Vec<u8>, Vec<(usize, Value)>) = Default::default();
    for entry in fs::read_dir(corpus.join("entire-cli"))? {
        let content = fs::read(entry?.path())?;
        let found = edits(&content);
        if found.len() > best.1.len() {
            best = (content, found);
        }
    }
    let (content, events) = best;
    let path = work.join("session.jsonl");
    let mut figures = Vec::new();
    for side in [Some(ours), peer].into_iter().flatten() {
        let before = files::bytes_below(&side.home.join("data"))?;
        for (number, (at, input)) in events.iter().enumerate() {
            fs::write(&path, &content[..*at])?;
            let new = input["new_string"].as_str().or(input["content"].as_str()).unwrap_or_default();
            fs::write(side.repository.join("file.py"), new)?;
            let payload = side.payload(&path, "real", &format!("real-{number}"), input)?;
            measure::run_fed(&mut side.command(&["record"]), Some(&payload), work)?;
            if std::ptr::eq(side, ours) && number % EVENTS_PER_FLUSH == EVENTS_PER_FLUSH - 1 {
                measure::output(&mut side.command(&["log", "--limit", "1"]))?;
            }
        }
        if std::ptr::eq(side, ours) {
            measure::output(&mut side.command(&["log", "--limit", "1"]))?;
        }
        figures.push(
            (files::bytes_below(&side.home.join("data"))?.saturating_sub(before)) / events.len() as u64,
        );
    }
    let size = content.len();
    report.text(&format!(
        "A real session of {} edits, {size} bytes in the end. Bytes on the disk for each event, index included: ours {}{}.",
        events.len(),
        figures[0],
        figures.get(1).map(|peer| format!(", agent-trace-cli {peer}")).unwrap_or_default()
    ));
    if let Some(peer) = figures.get(1) {
        report.at_most(
            "bytes for each event / of agent-trace-cli",
            figures[0] as f64 / *peer as f64,
            1.0 / 50.0,
        );
    }
    Ok(())
}
