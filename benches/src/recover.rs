//! Opening a store after `kill -9` in the middle of an import.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Options;
use crate::files;
use crate::measure;
use crate::ours::Ours;
use crate::records;
use crate::report::{Report, Result, megabytes};

const TENTHS: [u32; 5] = [1, 3, 5, 7, 9];

/// Kills imports at several points and times the next two commands.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Opening after `kill -9`");
    let dir = records::folder(options, options.records(), options.seed)?;
    let work = files::renew(&options.work.join("recover"))?;
    let ours = Ours::new(options.binary()?, &work, "store");
    ours.init()?;
    let whole = measure::run_once(&mut ours.import(&dir, &[]), &work)?;
    report.text(&format!(
        "An import of {} records ({:.2} s), killed; then `status`, and `status` again.",
        options.records(),
        whole.wall_s
    ));
    println!(
        "| killed after | bytes on disk, MB | first status, ms (CPU) | second status, ms (CPU) | difference, ms |"
    );
    println!("|---|---|---|---|---|");
    let mut worst_s: f64 = 0.0;
    for tenths in TENTHS {
        ours.init()?;
        let wait = Duration::from_secs_f64(whole.wall_s) * tenths / 10;
        let after = kill_in_the_middle(&ours, &dir, wait)?;
        let bytes = files::bytes_below(&ours.store)?;
        let first = measure::run_once(&mut ours.command(["status"]), &work)?;
        let second = measure::run_once(&mut ours.command(["status"]), &work)?;
        println!(
            "| {:.2} s | {} | {:.1} ({:.1}) | {:.1} ({:.1}) | {:.1} |",
            after.as_secs_f64(),
            megabytes(bytes),
            first.wall_s * 1e3,
            first.cpu_s * 1e3,
            second.wall_s * 1e3,
            second.cpu_s * 1e3,
            (first.wall_s - second.wall_s) * 1e3
        );
        worst_s = worst_s.max(first.wall_s);
    }
    println!();
    report.at_most("slowest opening after a kill, replay included, ms", worst_s * 1e3, 100.0);
    files::remove(&work)
}

fn kill_in_the_middle(ours: &Ours, dir: &std::path::Path, wait: Duration) -> Result<Duration> {
    let begin = Instant::now();
    let mut command = ours.import(dir, &[]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(wait);
    let ended = child.try_wait()?;
    let after = begin.elapsed();
    if ended.is_none() {
        child.kill()?;
    }
    let status = child.wait()?;
    // An import that was quicker than the time before may have ended; any other end than ours is a failure.
    if ended.is_some_and(|_| !status.success()) {
        return Err(format!("the import ended with {status} before it was killed").into());
    }
    Ok(after)
}
