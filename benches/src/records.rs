//! Synthetic records: ours against the bare loop over the same files.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Options;
use crate::files;
use crate::measure::{self, Job};
use crate::ours::Ours;
use crate::report::{Report, Result, megabytes, named, ratio};

const THREADS: &str = "2";

/// Measures the import of records.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Synthetic records");
    let dir = folder(options, options.records(), options.seed)?;
    let json = files::bytes_below(&dir)?;
    let count = options.records();
    report.text(&format!("{count} records, seed {}, {} MB of JSON.", options.seed, megabytes(json)));
    files::warm(&dir)?;
    let work = files::renew(&options.work.join("records-work"))?;
    let ours = options.binary.as_ref().map(|binary| Ours::new(binary, &work, "store"));
    let mut jobs = vec![bare_job(&dir)];
    if let Some(ours) = &ours {
        jobs.push(ours.other("store-no-index").import_job("import --no-index", &dir, &["--no-index"]));
        jobs.push(ours.import_job("import", &dir, &[]));
        jobs.push(ours.job("compact", &["compact", "--yes"]));
    }
    let all = measure::alternate(&mut jobs, options.runs(), &work);
    report.table(&all);
    drop(jobs);
    files::remove(&work)?;
    let bare = named(&all, "bare loop");
    report.text(&format!("Bare loop: {:.0} records/s.", count as f64 / bare.wall().median));
    if ours.is_none() {
        report.text("Ours: not measured, no binary given.");
        return Ok(());
    }

    let (import, durable) = (named(&all, "import"), named(&all, "import --no-index"));
    report.at_least(
        "rate of import / of the bare loop",
        ratio(bare.wall().median, import.wall().median),
        0.45,
    );
    report.at_least(
        "rate until durable / of the bare loop",
        ratio(bare.wall().median, durable.wall().median),
        0.6,
    );
    report.at_least("the same by CPU, with the index", ratio(bare.cpu().median, import.cpu().median), 0.45);
    report.at_least("the same by CPU, until durable", ratio(bare.cpu().median, durable.cpu().median), 0.6);
    let share = |bytes: Option<u64>| bytes.map_or(f64::NAN, |bytes| bytes as f64 / json as f64);
    report.at_most("bytes after import / JSON", share(import.bytes_median()), 0.5);
    report.at_most("bytes after compact / JSON", share(named(&all, "compact").bytes_median()), 0.4);
    report.at_most("peak RSS of import, MiB", import.rss_bytes() as f64 / 1_048_576.0, 256.0);
    Ok(())
}

/// The folder with `records` records of that seed, made by a process of its own if it is not there yet.
pub(crate) fn folder(options: &Options, records: u64, seed: u64) -> Result<PathBuf> {
    let dir = options.work.join(format!("records-{records}-{seed}"));
    let aside = options.work.join(format!("records-{records}-{seed}.part"));
    if !dir.is_dir() {
        files::remove(&aside)?;
        let mut generate = Command::new(std::env::current_exe()?);
        generate.arg("generate").arg(&aside);
        generate.args(["--records", &records.to_string(), "--seed", &seed.to_string()]);
        eprint!("{}", measure::output(&mut generate)?);
        std::fs::rename(&aside, &dir)?;
    }
    Ok(dir)
}

fn bare_job(dir: &Path) -> Job<'static> {
    let dir = dir.to_path_buf();
    Job::new("bare loop", move |_| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg(&dir).args(["--threads", THREADS]);
        Ok(vec![command])
    })
}
