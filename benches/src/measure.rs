//! Runs commands as whole processes: wall time, user and system CPU, peak RSS, exit status.
//!
//! Jobs alternate (one run of each, then the next run of each), so that a busy minute of a shared machine falls on all
//! of them. What must happen before a run is not measured. A run that fails is a failure of its job, with the end of
//! what it said; it is never counted as a time. This process stays small on purpose: a child starts out with the RSS
//! peak of the process that spawned it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use wait4::Wait4 as _;

use crate::report::Result;

const OUTPUT_CHARS_MAX: usize = 2_000;

/// What one run of one or more processes took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    pub(crate) rss_bytes: u64,
}

/// One thing to measure: a preparation, then commands whose costs add up, then the bytes that they left.
pub(crate) struct Job<'a> {
    pub(crate) name: String,
    prepare: Box<dyn FnMut(u32) -> Result<()> + 'a>,
    commands: Box<dyn FnMut(u32) -> Result<Vec<Command>> + 'a>,
    bytes: Option<Box<dyn FnMut(u32) -> Result<u64> + 'a>>,
    settle: bool,
    feed: Option<PathBuf>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(name: &str, commands: impl FnMut(u32) -> Result<Vec<Command>> + 'a) -> Job<'a> {
        Job {
            name: name.into(),
            prepare: Box::new(|_| Ok(())),
            commands: Box::new(commands),
            bytes: None,
            settle: true,
            feed: None,
        }
    }

    /// Gives each command the content of a file on stdin.
    pub(crate) fn fed(mut self, feed: &Path) -> Job<'a> {
        self.feed = Some(feed.to_owned());
        self
    }

    /// Runs before each run, not measured; gets the number of the run.
    pub(crate) fn prepare(mut self, prepare: impl FnMut(u32) -> Result<()> + 'a) -> Job<'a> {
        self.prepare = Box::new(prepare);
        self
    }

    /// Runs after each run, not measured.
    pub(crate) fn bytes(mut self, bytes: impl FnMut(u32) -> Result<u64> + 'a) -> Job<'a> {
        self.bytes = Some(Box::new(bytes));
        self
    }

    /// Leaves out the wait for the disk before each run: for commands of milliseconds that write nothing.
    pub(crate) fn unsettled(mut self) -> Job<'a> {
        self.settle = false;
        self
    }

    fn run(&mut self, run: u32, work: &Path) -> Result<(Cost, Option<u64>)> {
        (self.prepare)(run)?;
        if self.settle {
            rustix::fs::sync();
        }
        let mut total = Cost::default();
        for mut command in (self.commands)(run)? {
            let cost = run_fed(&mut command, self.feed.as_deref(), work)?;
            total.wall_s += cost.wall_s;
            total.cpu_s += cost.cpu_s;
            total.rss_bytes = total.rss_bytes.max(cost.rss_bytes);
        }
        let bytes = self.bytes.as_mut().map(|bytes| bytes(run)).transpose()?;
        Ok((total, bytes))
    }
}

/// All runs of one job.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) name: String,
    pub(crate) costs: Vec<Cost>,
    pub(crate) bytes: Vec<u64>,
    pub(crate) failed: Option<String>,
}

impl Samples {
    pub(crate) fn wall(&self) -> Spread {
        Spread::of(self.costs.iter().map(|cost| cost.wall_s))
    }

    pub(crate) fn cpu(&self) -> Spread {
        Spread::of(self.costs.iter().map(|cost| cost.cpu_s))
    }

    pub(crate) fn rss_bytes(&self) -> u64 {
        self.costs.iter().map(|cost| cost.rss_bytes).max().unwrap_or(0)
    }

    /// The median of the bytes left, if they were asked for.
    pub(crate) fn bytes_median(&self) -> Option<u64> {
        let mut bytes = self.bytes.clone();
        bytes.sort_unstable();
        bytes.get(bytes.len() / 2).copied()
    }
}

/// Median, extremes and 95th percentile.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) p95: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Spread::default();
        };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        let p95 = values[(values.len() * 95).div_ceil(100) - 1];
        Spread { median, min, max, p95 }
    }
}

/// Runs all jobs `runs` times, in turn; a job that failed is not tried again.
pub(crate) fn alternate(jobs: &mut [Job<'_>], runs: u32, work: &Path) -> Vec<Samples> {
    let mut all: Vec<Samples> =
        jobs.iter().map(|job| Samples { name: job.name.clone(), ..Samples::default() }).collect();
    for run in 0..runs {
        for (job, samples) in jobs.iter_mut().zip(&mut all) {
            if samples.failed.is_some() {
                continue;
            }
            match job.run(run, work) {
                Ok((cost, bytes)) => {
                    if job.settle {
                        eprintln!("run {} of {runs}: {}: {:.3} s", run + 1, job.name, cost.wall_s);
                    }
                    samples.costs.push(cost);
                    samples.bytes.extend(bytes);
                }
                Err(error) => {
                    eprintln!("run {} of {runs}: {}: failed: {error}", run + 1, job.name);
                    samples.failed = Some(error.to_string());
                }
            }
        }
    }
    all
}

/// Runs one command to its end; any status but 0 is an error.
pub(crate) fn run_once(command: &mut Command, work: &Path) -> Result<Cost> {
    run_fed(command, None, work)
}

/// The same with the content of a file on stdin.
pub(crate) fn run_fed(command: &mut Command, feed: Option<&Path>, work: &Path) -> Result<Cost> {
    let said = work.join("stderr.txt");
    let stdin = match feed {
        Some(path) => Stdio::from(std::fs::File::open(path)?),
        None => Stdio::null(),
    };
    command.stdin(stdin).stdout(Stdio::null()).stderr(std::fs::File::create(&said)?);
    let begin = Instant::now();
    let child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let used = child.wait4()?;
    let wall_s = begin.elapsed().as_secs_f64();
    if !used.status.success() {
        return Err(failure(command, used.status, &std::fs::read(&said)?).into());
    }
    let cpu_s = (used.rusage.utime + used.rusage.stime).as_secs_f64();
    Ok(Cost { wall_s, cpu_s, rss_bytes: used.rusage.maxrss })
}

/// Runs one command that is not measured and gives what it printed; any status but 0 is an error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if !output.status.success() {
        return Err(failure(command, output.status, &output.stderr).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failure(command: &Command, status: std::process::ExitStatus, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    let from = said.char_indices().rev().nth(OUTPUT_CHARS_MAX).map_or(0, |(place, _)| place);
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let first: Vec<_> = command.get_args().take(3).map(|argument| argument.to_string_lossy()).collect();
    format!("`{program} {}` ended with {status}: {}", first.join(" "), &said[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_ranks() {
        let spread = Spread::of((1..=100).rev().map(f64::from));
        assert_eq!((spread.min, spread.median, spread.p95, spread.max), (1.0, 50.5, 95.0, 100.0));
        assert_eq!(Spread::of([3.0].into_iter()).p95, 3.0);
        assert_eq!(Spread::of(std::iter::empty()).max, 0.0);
    }

    #[test]
    fn a_failing_command_is_an_error_that_names_its_status() {
        let error =
            output(Command::new("sh").args(["-c", "echo no luck >&2; exit 7"])).unwrap_err().to_string();
        assert!(error.contains("status: 7: no luck"), "{error}");
    }
}
