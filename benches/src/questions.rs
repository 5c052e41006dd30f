//! Short questions to a large store, each as a whole process: alone, and beside a running import.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::Options;
use crate::corpus::field;
use crate::files;
use crate::measure::{self, Job, Samples};
use crate::ours::Ours;
use crate::python;
use crate::records;
use crate::report::{Report, Result};

const RUNS: u32 = 50;
const RUNS_QUICK: u32 = 10;
const SHORT_CHARS: usize = 13;
const NEWEST: usize = 100;
const NEWEST_BYTES: u64 = 1 << 20;
const PLACES: u64 = 50;
const SLICE_BYTES: u64 = 16 << 10;
const IMPORTS_BESIDE: u64 = 4;

/// Measures `show`, `log` and `status`.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Questions");
    let count = options.records();
    let dir = records::folder(options, count, options.seed)?;
    let work = files::renew(&options.work.join("questions"))?;
    let ours = Ours::new(options.binary()?, &work, "store");
    ours.fill(&dir)?;
    let asked = Asked::choose(&dir)?;
    let runs = if options.quick { RUNS_QUICK } else { RUNS };

    report.text(&format!("In a store of {count} records:"));
    let all = measure::alternate(&mut asked.jobs(&ours, 0), runs, &work);
    report.table_ms(&all);
    for samples in all.iter().filter(|samples| !samples.name.starts_with('-')) {
        report.at_most(&format!("`{}`, ms", samples.name), samples.wall().median * 1e3, 20.0);
    }

    let more: Vec<_> = (1..=IMPORTS_BESIDE)
        .map(|step| records::folder(options, (count / 4).max(1_000), options.seed + 1_000 + step))
        .collect::<Result<_>>()?;
    report.text("Beside a running import into the same store:");
    let all = beside(&ours, &asked, &more, runs, &work)?;
    if all.is_empty() {
        report.text("Not measured: the imports ended before a question did.");
    } else {
        report.table_ms(&all);
    }
    for samples in all.iter().filter(|samples| !samples.name.starts_with('-')) {
        report.at_most(
            &format!("`{}` beside an import, p95, ms", samples.name),
            samples.wall().p95 * 1e3,
            100.0,
        );
    }
    files::remove(&work)?;
    python::run(options, report)
}

/// What is asked for: the short ids of traces from all over the store, and two times.
struct Asked {
    ids: Vec<String>,
    since_newest: String,
    since_all: String,
}

impl Asked {
    fn choose(dir: &Path) -> Result<Asked> {
        let traces = dir.join("traces.jsonl");
        let bytes = files::bytes_below(&traces)?;
        let mut ids = Vec::new();
        for place in 0..PLACES {
            let lines = files::lines_at(&traces, bytes / PLACES * place, SLICE_BYTES)?;
            let id = lines.first().and_then(|line| field(line, "id")).ok_or("a trace without id")?;
            ids.push(id[..SHORT_CHARS].to_string());
        }
        // The newest 100 records of all kinds are about the newest 50 traces and what was committed since.
        let newest = files::lines_at(&traces, bytes.saturating_sub(NEWEST_BYTES), NEWEST_BYTES)?;
        let since = newest.iter().rev().nth(NEWEST / 2).ok_or("too few traces")?;
        let since_newest = field(since, "timestamp").ok_or("a trace without time")?.to_string();
        Ok(Asked { ids, since_newest, since_all: "2025-01-01".into() })
    }

    /// Names that begin with `-` have no target.
    fn jobs<'a>(&'a self, ours: &'a Ours, shift: usize) -> Vec<Job<'a>> {
        let short = move |run: u32| &self.ids[(shift + usize::try_from(run).unwrap_or(0)) % self.ids.len()];
        vec![
            Job::new("- --version (the floor of a process)", |_| Ok(vec![ours.command(["--version"])]))
                .unsettled(),
            Job::new("show", move |run| Ok(vec![ours.command(["show", short(run)])])).unsettled(),
            Job::new("log --since, newest 100", |_| {
                Ok(vec![ours.command(["log", "--since", &self.since_newest, "-n", "100"])])
            })
            .unsettled(),
            Job::new("log --since, all time, -n 100", |_| {
                Ok(vec![ours.command(["log", "--since", &self.since_all, "-n", "100"])])
            })
            .unsettled(),
            Job::new("status", |_| Ok(vec![ours.command(["status"])])).unsettled(),
        ]
    }
}

/// Asks while imports run; only questions that ended before the import did are counted.
fn beside(
    ours: &Ours,
    asked: &Asked,
    more: &[std::path::PathBuf],
    runs: u32,
    work: &Path,
) -> Result<Vec<Samples>> {
    let mut total: Vec<Samples> = Vec::new();
    for dir in more {
        let mut import = Background::start(ours, dir)?;
        while import.running()? && asked_so_far(&total) < runs as usize {
            let round = measure::alternate(&mut asked.jobs(ours, asked_so_far(&total)), 1, work);
            if !import.running()? {
                break;
            }
            total = merge(total, round);
        }
        import.wait()?;
    }
    Ok(total)
}

fn asked_so_far(total: &[Samples]) -> usize {
    total.iter().map(|samples| samples.costs.len()).max().unwrap_or(0)
}

fn merge(mut total: Vec<Samples>, round: Vec<Samples>) -> Vec<Samples> {
    if total.is_empty() {
        return round;
    }
    for (samples, new) in total.iter_mut().zip(round) {
        samples.costs.extend(new.costs);
        samples.failed = samples.failed.take().or(new.failed);
    }
    total
}

/// An import that runs beside; killed when it is dropped.
struct Background(Child);

impl Background {
    fn start(ours: &Ours, dir: &Path) -> Result<Background> {
        let mut command = ours.import(dir, &[]);
        Ok(Background(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }

    fn running(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    fn wait(&mut self) -> Result<()> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the import beside ended with {status}").into()) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing left to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
