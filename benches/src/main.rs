//! The benchmark program: makes the data, installs and drives the peers, measures ours and theirs as whole processes
//! on the same bytes, and prints Markdown for `docs/benchmarks.md`.
//!
//! It knows our product only as a binary (`AGENT_TRACE_BIN`), except for the bare loop, which uses the store's own
//! canonical JSON. Exit status: 0 when everything ran (missed targets are printed, and count only with `--strict`), 1
//! when something failed.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures the real world, and whose answer is what it prints"
)]

mod attribution;
mod bare;
mod bucket;
mod bundle;
mod canonical;
mod capture;
mod corpus;
mod crowd;
mod exchange;
mod files;
mod generate;
mod hooks;
mod ingest;
mod large;
mod layout;
mod measure;
mod ours;
mod peers;
mod planted;
mod privacy;
mod python;
mod questions;
mod reconcile;
mod records;
mod recover;
mod report;
mod seal;
mod served;
mod service;
mod words;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::report::{Report, Result};

const RECORDS: u64 = 1_000_000;
const RECORDS_QUICK: u64 = 20_000;
const RUNS: u32 = 5;
const RUNS_QUICK: u32 = 2;
const TRANSCRIPTS: u64 = 2_000;
const TRANSCRIPTS_QUICK: u64 = 60;

/// Measures agent-trace and its peers on the same bytes.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    work: Work,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// Small sizes and few runs: finishes in about a minute and proves only that everything runs
    #[arg(long, global = true)]
    quick: bool,
    /// Runs of each job [default: 5, or 2 with --quick]
    #[arg(long = "runs", global = true, value_parser = clap::value_parser!(u32).range(1..))]
    runs_given: Option<u32>,
    /// Synthetic records [default: 1000000, or 20000 with --quick]
    #[arg(long = "records", global = true, value_parser = clap::value_parser!(u64).range(1..))]
    records_given: Option<u64>,
    /// Transcripts that are pushed to the service, of 0.67 MB on average [default: 2000, or 60 with --quick]
    #[arg(long = "transcripts", global = true)]
    transcripts_given: Option<u64>,
    /// Seed of the synthetic records
    #[arg(long, global = true, default_value_t = 7)]
    seed: u64,
    /// Folder for data and stores, several gigabytes [default: in the temporary folder]
    #[arg(long = "work", global = true, default_value_os_t = std::env::temp_dir().join("agent-trace-benches"), hide_default_value = true)]
    work: PathBuf,
    /// The agent-trace binary to measure
    #[arg(long, global = true, env = "AGENT_TRACE_BIN")]
    binary: Option<PathBuf>,
    /// Folder with the real transcripts, unpacked
    #[arg(long, global = true, env = "AGENT_TRACE_CORPUS")]
    corpus: Option<PathBuf>,
    /// The peer's program; without it, the one that `bench setup` installs
    #[arg(long, global = true, env = "AGENT_TRACE_PEER")]
    peer: Option<PathBuf>,
    /// Count a missed target as a failure
    #[arg(long, global = true)]
    strict: bool,
}

impl Options {
    fn runs(&self) -> u32 {
        self.runs_given.unwrap_or(if self.quick { RUNS_QUICK } else { RUNS })
    }

    fn records(&self) -> u64 {
        self.records_given.unwrap_or(if self.quick { RECORDS_QUICK } else { RECORDS })
    }

    fn transcripts(&self) -> u64 {
        self.transcripts_given.unwrap_or(if self.quick { TRANSCRIPTS_QUICK } else { TRANSCRIPTS })
    }

    fn binary(&self) -> Result<&Path> {
        Ok(self.binary.as_deref().ok_or("no binary given: set AGENT_TRACE_BIN or --binary")?)
    }
}

#[derive(Subcommand)]
enum Work {
    /// Everything, in order
    All,
    /// Installs the peers that are missing, from Debian and PyPI; `all` does so too, unless --quick
    Setup,
    /// Import of real transcripts, against borg, restic, git and casync
    Corpus,
    /// export and import of bundles of real transcripts, against restic and tar | zstd
    Bundle,
    /// Import of synthetic records, against the bare loop
    Records,
    /// show, log and status in a large store, alone and beside an import
    Questions,
    /// push and pull with a folder remote, against copying and reindex
    Sync,
    /// push to an S3 server, against rclone and restic
    Bucket,
    /// push and pull with an encrypted folder, against a plain one
    Seal,
    /// push and pull with the service on loopback, against the peer's client and reindex
    Service,
    /// Hooks, against the peer's
    Capture,
    /// git commit with our hooks, against git commit without
    Hooks,
    /// Finding the difference of two sets of ids
    Reconcile,
    /// Opening after kill -9
    Recover,
    /// The privacy gate: rate, planted secrets, false findings
    Privacy,
    /// Attribution of lines through every kind of history, against the peer if --peer is given
    Attribution,
    /// Makes synthetic records in DIR
    Generate { dir: PathBuf },
    /// Makes a project in the layout of agent-trace-cli in DIR
    Project { dir: PathBuf },
    /// The bare loop over the records in DIR
    Bare {
        dir: PathBuf,
        /// Worker threads
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Copies folder FROM to TO and syncs every file
    Copy { from: PathBuf, to: PathBuf },
}

fn main() -> ExitCode {
    let Arguments { work, mut options } = Arguments::parse();
    let mut report = Report::default();
    match run(&work, &mut options, &mut report) {
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
        Ok(()) if report.failures.is_empty() && (report.missed.is_empty() || !options.strict) => {}
        Ok(()) => {
            for line in report.failures.iter().chain(&report.missed) {
                eprintln!("bench: {line}");
            }
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(work: &Work, options: &mut Options, report: &mut Report) -> Result<()> {
    match work {
        Work::Generate { dir } => {
            print!("{}", generate::generate(dir, options.records(), options.seed)?.summary());
            return Ok(());
        }
        Work::Project { dir } => return layout::generate(dir, options),
        Work::Bare { dir, threads } => {
            let done = bare::run(dir, *threads)?;
            println!(
                "{} records, {} canonical bytes, {} stored",
                done.records, done.canonical_bytes, done.stored_bytes
            );
            return Ok(());
        }
        Work::Copy { from, to } => return files::copy_durably(from, to),
        _ => {}
    }
    std::fs::create_dir_all(&options.work)?;
    options.work = options.work.canonicalize()?;
    options.binary = options.binary.take().map(|binary| binary.canonicalize()).transpose()?;
    options.corpus = options.corpus.take().map(|corpus| corpus.canonicalize()).transpose()?;
    if matches!(work, Work::Setup) {
        peers::install()?;
        return python::install(options);
    }
    measured(work, options, report);
    Ok(())
}

type Section = fn(&Options, &mut Report) -> Result<()>;

/// Runs the sections asked for; one that cannot go on does not stop the next.
fn measured(work: &Work, options: &Options, report: &mut Report) {
    let sections: [(&str, Section); 14] = [
        ("corpus", corpus::run),
        ("bundle", bundle::run),
        ("records", records::run),
        ("questions", questions::run),
        ("sync", exchange::run),
        ("bucket", bucket::run),
        ("seal", seal::run),
        ("service", service::run),
        ("capture", capture::run),
        ("hooks", hooks::run),
        ("reconcile", reconcile::run),
        ("recover", recover::run),
        ("privacy", privacy::run),
        ("attribution", attribution::run),
    ];
    let wanted = match work {
        Work::Corpus => "corpus",
        Work::Bundle => "bundle",
        Work::Records => "records",
        Work::Questions => "questions",
        Work::Sync => "sync",
        Work::Bucket => "bucket",
        Work::Seal => "seal",
        Work::Service => "service",
        Work::Capture => "capture",
        Work::Hooks => "hooks",
        Work::Reconcile => "reconcile",
        Work::Recover => "recover",
        Work::Privacy => "privacy",
        Work::Attribution => "attribution",
        _ => "all",
    };
    if matches!(work, Work::All)
        && !options.quick
        && let Err(error) = peers::install().and_then(|()| python::install(options))
    {
        report.fail("installing the peers", &error);
    }
    machine(options, report);
    for (name, section) in sections {
        if wanted != "all" && wanted != name {
            continue;
        }
        if let Err(error) = section(options, report) {
            report.fail(name, &error);
        }
    }
}

fn machine(options: &Options, report: &mut Report) {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let say = |command: &mut Command| {
        measure::output(command).unwrap_or_else(|error| format!("unknown ({error})")).trim().to_string()
    };
    let (kernel, load) = (say(Command::new("uname").arg("-srm")), say(&mut Command::new("uptime")));
    report.text(&format!("{cores} cores; {kernel}; {load}."));
    if options.quick {
        report.text("Quick: small sizes and few runs, so the figures say only that everything ran.");
    }
}
