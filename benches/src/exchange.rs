//! Push to and pull from a folder remote, against copying the same segments durably and against `reindex`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Options;
use crate::files;
use crate::measure::{self, Job};
use crate::ours::Ours;
use crate::records;
use crate::report::{Report, Result, named, ratio};

const RUNS_SHORT: u32 = 20;

/// Measures `push` and `pull`.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Push and pull");
    let dir = records::folder(options, options.records(), options.seed)?;
    let work = files::renew(&options.work.join("exchange"))?;
    let ours = Ours::new(options.binary()?, &work, "store");
    ours.fill(&dir)?;
    report.text(&format!("A store of {} records, a folder as remote.", options.records()));

    let segments = ours.store.join("segments");
    let copied = work.join("copied");
    let clone = ours.other("clone");
    let full = Remote::new(&ours, &work, "full");
    let plain = Remote::new(&ours, &work, "plain");
    let mut jobs = vec![
        copy_job(&segments, &copied),
        full.first("push --full, first", &["--full"]),
        plain.first("push, 10 % held back, first", &[]),
        pull_job("pull, first", &full, &clone),
        clone.job("reindex", &["reindex"]),
    ];
    let all = measure::alternate(&mut jobs, options.runs(), &work);
    report.table(&all);
    drop(jobs);
    let copy = named(&all, "copy of the segments").wall().median;
    let pushed = named(&all, "push --full, first").wall().median;
    report.at_most("first `push --full` / copy", ratio(pushed, copy), 1.5);
    let held = named(&all, "push, 10 % held back, first").wall().median;
    report.at_most("plain push with 10 % held back / copy", ratio(held, copy), 4.0);
    let (pulled, reindexed) =
        (named(&all, "pull, first").wall().median, named(&all, "reindex").wall().median);
    report.at_most("pull into an empty store / reindex", ratio(pulled, reindexed), 1.5);

    let name = full.name();
    let runs = if options.quick { options.runs() } else { RUNS_SHORT };
    let push = |_| Ok(vec![ours.command(["push", "--full", "--remote", &name])]);
    let seed = options.seed + 2_000;
    let mut jobs = vec![
        Job::new("push, unchanged", push),
        Job::new("push of one new record", push).prepare(|run| {
            let one = records::folder(options, 1, seed + u64::from(run))?;
            measure::output(&mut ours.import(&one, &[])).map(drop)
        }),
    ];
    let all = measure::alternate(&mut jobs, runs, &work);
    report.table_ms(&all);
    for samples in &all {
        report.at_most(&format!("{}, ms", samples.name), samples.wall().median * 1e3, 50.0);
    }
    drop(jobs);
    files::remove(&work)
}

/// A folder remote of a store, a new one for each run.
pub(crate) struct Remote<'a> {
    ours: &'a Ours,
    dir: PathBuf,
    label: &'static str,
    run: RefCell<u32>,
    /// How it is added beside its address.
    adding: Vec<String>,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(ours: &'a Ours, work: &Path, label: &'static str) -> Remote<'a> {
        let dir = work.join(format!("remote-{label}"));
        Remote { ours, dir, label, run: RefCell::new(0), adding: Vec::new() }
    }

    /// The same, added with more options.
    pub(crate) fn adding(mut self, options: &[&str]) -> Remote<'a> {
        self.adding = options.iter().map(|option| (*option).to_owned()).collect();
        self
    }

    fn add(&self, to: &Ours, name: &str) -> Result<()> {
        let url = self.url();
        let mut arguments = vec!["remote", "add", name, &url];
        arguments.extend(self.adding.iter().map(String::as_str));
        to.run(&arguments)
    }

    pub(crate) fn name(&self) -> String {
        format!("{}{}", self.label, self.run.borrow())
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.join(self.name()).display())
    }

    /// A first push to a new, empty folder.
    pub(crate) fn first<'b>(&'b self, title: &str, flags: &'static [&'static str]) -> Job<'b> {
        Job::new(title, move |_| {
            let name = self.name();
            let mut command = self.ours.command(["push", "--remote", &name]);
            command.args(flags);
            Ok(vec![command])
        })
        .prepare(move |run| {
            files::remove(&self.dir)?;
            *self.run.borrow_mut() = run;
            std::fs::create_dir_all(self.dir.join(self.name()))?;
            self.add(self.ours, &self.name())
        })
        .bytes(move |_| files::bytes_below(&self.dir))
    }
}

pub(crate) fn pull_job<'a>(title: &str, remote: &'a Remote<'_>, clone: &'a Ours) -> Job<'a> {
    Job::new(title, move |_| Ok(vec![clone.command(["pull", "--remote", "team"])]))
        .prepare(move |_| {
            clone.init()?;
            remote.add(clone, "team")
        })
        .bytes(move |_| files::bytes_below(&clone.store))
}

fn copy_job<'a>(segments: &'a Path, copied: &'a Path) -> Job<'a> {
    Job::new("copy of the segments", move |_| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("copy").arg(segments).arg(copied);
        Ok(vec![command])
    })
    .prepare(move |_| files::remove(copied))
    .bytes(move |_| files::bytes_below(copied))
}
