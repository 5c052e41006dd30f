//! The peer from PyPI, agent-trace-cli: the same question to the same records, in its own layout.
//!
//! It lives in a virtual environment, a home and a repository of its own, all below the work folder. It reads whole
//! files into memory at each command, so it gets fewer records than ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Options;
use crate::files;
use crate::measure::{self, Job};
use crate::records;
use crate::report::{Report, Result};

const PACKAGE: &str = "agent-trace-cli==0.1.3";
const RECORDS_MAX: u64 = 100_000;

/// Installs the peer into the work folder, if it is not there yet.
pub(crate) fn install(options: &Options) -> Result<()> {
    let environment = environment(options);
    if program(options).is_file() {
        return Ok(());
    }
    eprintln!("installing {PACKAGE}");
    files::remove(&environment)?;
    measure::output(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    measure::output(Command::new(environment.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    Ok(())
}

/// Measures the peer's `status`; says so where the peer is not installed.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    if !program(options).is_file() {
        report.text("The peer agent-trace-cli is not installed (`bench setup`), left out.");
        return Ok(());
    }
    let count = options.records().min(RECORDS_MAX);
    let dir = records::folder(options, count, options.seed)?;
    let work = files::renew(&options.work.join("python-work"))?;
    let peer = Peer { program: program(options), work: work.clone() };
    peer.fill(&dir)?;
    report.text(&format!("The peer {PACKAGE} with {count} records:"));
    let mut jobs = [Job::new("- status of agent-trace-cli", |_| Ok(vec![peer.command(&["status"])]))];
    let all = measure::alternate(&mut jobs, options.runs(), &work);
    report.table_ms(&all);
    files::remove(&work)
}

fn environment(options: &Options) -> PathBuf {
    options.work.join("python")
}

/// Where the peer's program is, or would be.
pub(crate) fn program(options: &Options) -> PathBuf {
    options.peer.clone().unwrap_or_else(|| environment(options).join("bin/agent-trace"))
}

/// The peer's program, with a home and a repository below a folder.
pub(crate) struct Peer {
    pub(crate) program: PathBuf,
    pub(crate) work: PathBuf,
}

impl Peer {
    /// A new home and repository, with the project of `dir` in it; transcripts are linked, since it never changes them.
    pub(crate) fn fill(&self, dir: &Path) -> Result<()> {
        files::remove(&self.work.join("home"))?;
        let repository = files::renew(&self.work.join("repository"))?;
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]).args(arguments);
            measure::output(command.current_dir(&repository).env("HOME", &self.work))
        };
        git(&["init", "--quiet"])?;
        git(&["commit", "--quiet", "--allow-empty", "--message", "first"])?;
        measure::output(&mut self.command(&["init"]))?;
        let projects = self.work.join("home/projects");
        let project = std::fs::read_dir(&projects)?.next().ok_or("the peer made no project")??.path();
        for entry in std::fs::read_dir(dir)? {
            let (entry, target) = entry.map(|entry| (entry.path(), project.join(entry.file_name())))?;
            if entry.is_dir() {
                files::remove(&target)?;
                std::os::unix::fs::symlink(entry, target)?;
            } else {
                std::fs::copy(entry, target)?;
            }
        }
        Ok(())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.work.join("repository"));
        command.env("HOME", &self.work).env("AGENT_TRACE_HOME", self.work.join("home"));
        command
    }
}
