//! Git's hooks: what they add to `git commit`, against the same commit in a repository without them.
//!
//! Commits of both kinds alternate, each in a repository of its own with the same files and the same history. Once the
//! flusher is off, so that the figure is that of the hooks alone, and once all is as `init` leaves it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Options;
use crate::files;
use crate::measure::{self, Job, Samples};
use crate::report::{Report, Result};

const RUNS: u32 = 200;
const RUNS_QUICK: u32 = 5;
/// Files of a repository, so that git has something to do.
const FILES: usize = 1_000;
const MORE_MS_MAX: f64 = 10.0;

/// Runs the section.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Commits with hooks");
    let work = files::renew(&options.work.join("hooks"))?;
    let runs = if options.quick { RUNS_QUICK } else { options.runs_given.unwrap_or(RUNS) };
    let plain = Side::new(&work.join("plain"), None)?;
    let hooks = Side::new(&work.join("hooks"), Some(options.binary()?))?;
    let all = Side::new(&work.join("all"), Some(options.binary()?))?;
    fs::write(hooks.project()?.join("project-config.json"), r#"{"capture":{"flush":"manual"}}"#)?;
    let mut jobs = [
        plain.job("git commit without hooks"),
        hooks.job("with hooks, the flusher off"),
        all.job("with hooks, as `init` leaves it"),
    ];
    let measured = measure::alternate(&mut jobs, runs, &work);
    drop(jobs);
    report.text(&format!("One file changed of {FILES}, {runs} commits each, by turns:"));
    report.table_ms(&measured);
    let more = |samples: &Samples, of: fn(&Samples) -> f64| (of(samples) - of(&measured[0])) * 1e3;
    let (p50, p95) = (|samples: &Samples| samples.wall().median, |samples: &Samples| samples.wall().p95);
    report.text(&format!(
        "More at the median: {:.1} ms for the hooks alone, {:.1} ms with the flusher.",
        more(&measured[1], p50),
        more(&measured[2], p50)
    ));
    report.at_most("more at p95, hooks alone, ms", more(&measured[1], p95), MORE_MS_MAX);
    report.at_most("more at p95, as `init` leaves it, ms", more(&measured[2], p95), MORE_MS_MAX);
    // Each commit has been told of, or the figure means nothing.
    let told = measure::output(&mut hooks.command(options.binary()?, &["status", "--json"]))?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let waiting = told["capture"]["waiting"].as_u64().unwrap_or_default();
    if waiting < u64::from(runs) {
        return Err(format!("expected {runs} commits to be told of, found {waiting}").into());
    }
    files::remove(&work)
}

/// A repository with a home of its own.
struct Side {
    home: PathBuf,
    repository: PathBuf,
}

impl Side {
    fn new(dir: &Path, program: Option<&Path>) -> Result<Side> {
        let (home, repository) = (files::renew(&dir.join("home"))?, files::renew(&dir.join("repository"))?);
        let side = Side { home, repository };
        for number in 0..FILES {
            let folder = side.repository.join(format!("{}", number % 20));
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(format!("{number}.txt")), format!("{number}\n").repeat(100))?;
        }
        for arguments in
            [&["init", "--quiet"][..], &["add", "--all"], &["commit", "--quiet", "--message", "first"]]
        {
            measure::output(&mut side.git(arguments))?;
        }
        if let Some(program) = program {
            measure::output(&mut side.command(program, &["init"]))?;
        }
        Ok(side)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.repository).env("HOME", &self.home);
        command.env("AGENT_TRACE_HOME", self.home.join("data"));
        command
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut command =
            self.command(Path::new("git"), &["-c", "user.name=bench", "-c", "user.email=bench@localhost"]);
        // Git's own tidying falls on whichever commit it likes.
        command.args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]).args(arguments);
        command
    }

    fn project(&self) -> Result<PathBuf> {
        let projects = self.home.join("data/projects");
        Ok(fs::read_dir(projects)?.next().ok_or("no project was made")??.path())
    }

    /// The job of one commit after the other.
    fn job<'a>(&'a self, name: &str) -> Job<'a> {
        let prepare = move |run: u32| {
            fs::write(self.repository.join("0/0.txt"), format!("{run}\n"))?;
            measure::output(&mut self.git(&["add", "0/0.txt"])).map(drop)
        };
        Job::new(name, move |_| Ok(vec![self.git(&["commit", "--quiet", "--message", "step"])]))
            .prepare(prepare)
            .unsettled()
    }
}
