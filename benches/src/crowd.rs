//! 200 clients push to one project at once, each a store and a process of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Instant;

use wait4::Wait4 as _;

use crate::Options;
use crate::files;
use crate::measure::{self, Spread};
use crate::ours::Ours;
use crate::records;
use crate::report::{Report, Result, megabytes};
use crate::served::{self, Served};

const CLIENTS: u32 = 200;
const RECORDS: u64 = 8;
const SEED: u64 = 9_000;
const SLOWEST_MAX: f64 = 2.0;

/// Measures them, and counts what arrived.
pub(crate) fn run(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let binary = options.binary()?;
    let work = files::renew(&work.join("crowd"))?;
    let data = work.join("data");
    let tokens = served::found(binary, &data, CLIENTS + 1)?;
    let service = Served::start(binary, &data)?;
    let url = served::url(service.address);
    let mut clients = Vec::new();
    for (number, token) in (0..CLIENTS).zip(&tokens) {
        // Equal pushes: as many records for each, but others.
        let dir = records::folder(options, RECORDS, options.seed + SEED + u64::from(number))?;
        let home = files::renew(&work.join(format!("client-{number}")))?;
        let ours = Ours::new(binary, &home, "store");
        ours.init()?;
        measure::output(&mut ours.import(&dir, &[]))?;
        ours.run(&["remote", "add", "origin", &url, "--token", token])?;
        clients.push(ours);
    }
    rustix::fs::sync();
    let (walls, failures, all_s) = push_all(&clients)?;
    let last = tokens.last().ok_or("no token")?;
    let found = pulled(&clients[0].other("../pulled"), &url, last)?;
    let cost = service.stop()?;
    let spread = Spread::of(walls.iter().copied());
    report.text(&format!(
        "{CLIENTS} clients at once, {RECORDS} records each: {} failed; {found} records of {} there; all done after {all_s:.2} s. \
         One push, s: median {:.3}, p95 {:.3}, {:.3}-{:.3}. Service: peak RSS {} MB, CPU {:.2} s.",
        failures.len(),
        u64::from(CLIENTS) * RECORDS,
        spread.median,
        spread.p95,
        spread.min,
        spread.max,
        megabytes(cost.rss_bytes),
        cost.cpu_s
    ));
    if let Some(first) = failures.first() {
        report.fail("clients at once", first);
    }
    if found != u64::from(CLIENTS) * RECORDS {
        report.fail("clients at once", &format!("{found} records arrived"));
    }
    report.at_most("slowest of equal pushes / median", spread.max / spread.median, SLOWEST_MAX);
    files::remove(&work)
}

/// The seconds that each took from the common start, what those that failed said, and the seconds that all took.
fn push_all(clients: &[Ours]) -> Result<(Vec<f64>, Vec<String>, f64)> {
    let barrier = Barrier::new(clients.len() + 1);
    let (mut walls, mut failures) = (Vec::new(), Vec::new());
    let mut all_s = 0.0;
    std::thread::scope(|scope| -> Result<()> {
        let handles: Vec<_> = clients
            .iter()
            .map(|ours| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let command = ours.command(["push", "--full"]);
                    barrier.wait();
                    push(command).map_err(|error| error.to_string())
                })
            })
            .collect();
        barrier.wait();
        let begin = Instant::now();
        for handle in handles {
            match handle.join().map_err(|_| "a thread panicked")? {
                Ok(wall_s) => walls.push(wall_s),
                Err(error) => failures.push(error),
            }
        }
        all_s = begin.elapsed().as_secs_f64();
        Ok(())
    })?;
    Ok((walls, failures, all_s))
}

fn push(mut command: Command) -> Result<f64> {
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut { stderr }, &mut said)?;
    }
    let used = child.wait4()?;
    if !used.status.success() {
        return Err(format!("a push ended with {}: {said}", used.status).into());
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// How many records a new store gets from the service.
fn pulled(clone: &Ours, url: &str, token: &str) -> Result<u64> {
    clone.init()?;
    clone.run(&["remote", "add", "origin", url, "--token", token])?;
    clone.run(&["pull"])?;
    let said = measure::output(&mut clone.command(["stats", "--json"]))?;
    let said: serde_json::Value = serde_json::from_str(said.trim())?;
    Ok(said["records"].as_u64().ok_or("no count of records")?)
}
