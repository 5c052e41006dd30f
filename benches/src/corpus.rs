//! Real transcripts: ours against borg, restic, git and casync on the same files.
//!
//! Every tool takes in the whole folder at once (git as one commit); ours reads it in the order of its manifest.

use std::path::{Path, PathBuf};

use crate::Options;
use crate::files;
use crate::measure;
use crate::ours::Ours;
use crate::peers;
use crate::report::{Report, Result, megabytes, megabytes_number, named, ratio};

const QUICK_SNAPSHOTS: usize = 24;

/// Measures the import of real transcripts.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Real transcripts");
    let Some(given) = &options.corpus else {
        report.text("skipped: corpus not given");
        return Ok(());
    };
    let given = given.join("entire-cli");
    let corpus = if options.quick { first_snapshots(&given, &options.work)? } else { given };
    files::warm(&corpus)?;
    let bytes = files::bytes_below(&corpus)?;
    let count = std::fs::read_dir(&corpus)?.count().saturating_sub(1);
    report.text(&format!("{count} snapshots, {} MB.", megabytes(bytes)));

    let work = files::renew(&options.work.join("corpus"))?;
    let peers = peers::present(report, &work, &corpus);
    let ours = options.binary.as_ref().map(|binary| Ours::new(binary, &work, "store"));
    let mut jobs = Vec::new();
    if let Some(ours) = &ours {
        jobs.push(ours.import_job("ours", &corpus, &[]));
    }
    jobs.extend(peers.iter().map(peers::Peer::first));
    if let Some(ours) = &ours {
        let (now, dir) = (ours.clone(), corpus.clone());
        jobs.push(measure::Job::new("ours, again", move |_| Ok(vec![now.import(&dir, &[])])));
    }
    jobs.extend(peers.iter().map(peers::Peer::again));
    if let Some(ours) = &ours {
        jobs.push(ours.job("ours, compact", &["compact", "--yes"]));
        let filled = ours.other("backfilled");
        let (before, now, dir) = (filled.clone(), filled.clone(), corpus.clone());
        jobs.push(
            measure::Job::new("ours, backfill", move |_| Ok(vec![backfill(&now, &dir)]))
                .prepare(move |_| before.init()),
        );
        let dir = corpus.clone();
        jobs.push(measure::Job::new("ours, backfill again", move |_| Ok(vec![backfill(&filled, &dir)])));
    }
    let all = measure::alternate(&mut jobs, options.runs(), &work);
    report.table(&all);
    files::remove(&work)?;
    if ours.is_none() {
        report.text("Ours: not measured, no binary given.");
        return Ok(());
    }

    let (import, borg) = (named(&all, "ours"), named(&all, "borg"));
    let wall = import.wall().median;
    report.at_most("MB after import", import.bytes_median().map_or(f64::NAN, megabytes_number), 46.0);
    let compact = named(&all, "ours, compact");
    report.at_most("MB after compact", compact.bytes_median().map_or(f64::NAN, megabytes_number), 36.0);
    report.at_most("CPU of import / of borg", ratio(import.cpu().median, borg.cpu().median), 0.6);
    for peer in ["restic", "borg", "git"] {
        let other = named(&all, peer).wall().median;
        report.at_most(&format!("wall of import / of {peer}"), ratio(wall, other), 0.5);
    }
    report.at_most("peak RSS of import, MiB", import.rss_bytes() as f64 / 1_048_576.0, 128.0);
    let (again, restic) =
        (named(&all, "ours, again").wall().median, named(&all, "restic, again").wall().median);
    report.at_most("wall of import again / of restic again", ratio(again, restic), 0.2);
    let rate = megabytes_number(bytes) / named(&all, "ours, backfill").wall().median;
    report.at_least("MB/s of backfill", rate, 100.0);
    report.at_most("seconds of backfill again", named(&all, "ours, backfill again").wall().median, 1.0);
    let (again, restic) =
        (named(&all, "ours, again").cpu().median, named(&all, "restic, again").cpu().median);
    report.at_most("CPU of import again / of restic again", ratio(again, restic), 0.2);
    Ok(())
}

/// Everything of the sessions, which were in checkouts of other people.
fn backfill(ours: &Ours, dir: &Path) -> std::process::Command {
    let mut command = ours.command(["backfill", "--project", "--since", "2025-01-01"]);
    command.arg(dir);
    command
}

/// A folder with the first few snapshots and their lines of the manifest.
pub(crate) fn first_snapshots(corpus: &Path, work: &Path) -> Result<PathBuf> {
    let part = files::renew(&work.join("corpus-quick"))?;
    let manifest = std::fs::read_to_string(corpus.join("manifest.jsonl"))?;
    let mut kept = String::new();
    for line in manifest.lines().take(QUICK_SNAPSHOTS) {
        let file = field(line, "file").ok_or_else(|| format!("no `file` in the manifest line {line}"))?;
        std::fs::copy(corpus.join(file), part.join(file))?;
        kept.push_str(line);
        kept.push('\n');
    }
    std::fs::write(part.join("manifest.jsonl"), kept)?;
    Ok(part)
}

/// The text of the first field of that name in a line that Python wrote; for names that need no escape.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\": \""))?;
    rest.split_once('"').map(|(value, _)| value)
}
