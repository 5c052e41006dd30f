//! Push to and pull from an encrypted folder, against a plain one, in turn.

use crate::Options;
use crate::exchange::{Remote, pull_job};
use crate::files;
use crate::measure;
use crate::ours::Ours;
use crate::records;
use crate::report::{Report, Result, named, ratio};

const RUNS_SHORT: u32 = 20;

/// Measures what encryption costs.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Encryption");
    let dir = records::folder(options, options.records(), options.seed)?;
    let work = files::renew(&options.work.join("seal"))?;
    let ours = Ours::new(options.binary()?, &work, "store");
    ours.fill(&dir)?;
    if let Some(corpus) = &options.corpus {
        measure::output(&mut ours.import(corpus, &[]))?;
    }
    let key = work.join("key").display().to_string();
    ours.run(&["key", "new", &key])?;
    let data = if options.corpus.is_some() { " and the real transcripts" } else { "" };
    report.text(&format!(
        "A store of {} records{data}, folders as remotes, the key opened by a key file.",
        options.records()
    ));
    let (clone, sealed_clone) = (ours.other("clone"), ours.other("sealed-clone"));
    let plain = Remote::new(&ours, &work, "plain");
    let sealed = Remote::new(&ours, &work, "sealed").adding(&["--encrypt", "--key-file", &key]);
    let mut jobs = vec![
        plain.first("push, plain", &["--full"]),
        sealed.first("push, encrypted", &["--full"]),
        pull_job("pull, plain", &plain, &clone),
        pull_job("pull, encrypted", &sealed, &sealed_clone),
    ];
    let all = measure::alternate(&mut jobs, options.runs(), &work);
    report.table(&all);
    drop(jobs);
    for what in ["push", "pull"] {
        let wall = |how: &str| named(&all, &format!("{what}, {how}")).wall().median;
        report.at_most(&format!("{what} encrypted / plain"), ratio(wall("encrypted"), wall("plain")), 1.15);
    }
    let runs = if options.quick { options.runs() } else { RUNS_SHORT };
    let again =
        |name: String| ours.job(&format!("push, unchanged, {name}"), &["push", "--full", "--remote", &name]);
    let mut jobs = vec![again(plain.name()), again(sealed.name())];
    let all = measure::alternate(&mut jobs, runs, &work);
    report.table_ms(&all);
    drop(jobs);
    files::remove(&work)
}
