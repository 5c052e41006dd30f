//! `import`: takes transcripts and records into a store, found by content in files and folders.
//!
//! ```text
//! sources ──► cache ──► probe ──► records ──► transcripts ──► index
//! ```
//!
//! Reads in parallel and streaming. Transcripts are kept byte for byte. What cannot be taken is listed with file and
//! line and does not stop the rest; an error of the store stops everything. Taking the same files in again adds
//! nothing. Knows nothing about arguments, terminals or how a report is shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_trace_store::env::{Env, Metadata};
use agent_trace_store::intake::{Intake, Taken};
use agent_trace_store::progress::Progress;
use agent_trace_store::{Kind, Result, Store, Timestamp};

mod cache;
mod items;
mod manifest;
mod peer;
mod probe;
mod records;
mod source;
mod tally;
mod transcripts;
mod walk;

#[cfg(test)]
mod tests;

use crate::privacy::redact::Redaction;
pub(crate) use peer::RECORDS_OF_TRANSCRIPTS;

pub(crate) use probe::Head;
pub(crate) use transcripts::conversation;

use source::{Role, Source, SourceFile};
use tally::Job;

/// What to import, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Leaves out what is older than this instant.
    pub since: Option<Timestamp>,
    /// Only counts; writes nothing.
    pub dry_run: bool,
    /// Brings the index up to date at the end.
    pub index: bool,
    /// What replaces secrets before anything is stored, where the user wants that.
    pub(crate) redaction: Option<Arc<Redaction>>,
}

/// What an import found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records and transcripts that were found, by kind.
    pub found: BTreeMap<Kind, u64>,
    /// Those that the store did not hold; after a dry run, those that it would take.
    pub added: u64,
    /// Those that the store held already.
    pub known: u64,
    /// Those that were left out as too old.
    pub skipped_since: u64,
    /// Records that are erased, or whose conversation is.
    pub erased: u64,
    /// Files that were looked at.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What could not be taken as it was meant, in the order of files and lines.
    pub bad: Vec<Bad>,
}

/// Something that could not be taken as it was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1, where there is one.
    pub line: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// Whether it was kept all the same, as raw bytes.
    pub kept: bool,
}

/// Imports files and folders into a store.
///
/// When this returns without an error, what was added is durable.
pub fn run(store: &Store, options: &Options, progress: &dyn Progress) -> Result<Report> {
    let began = store.env().clock.now();
    let mut found = walk::find(store, &options.paths);
    let cached = if options.since.is_some() { Vec::new() } else { cache::read(store, &found)? };
    let fresh = cache::fresh(&found, &cached);
    let mut report = Report {
        files: found.sources.len() as u64,
        bytes: found.sources.iter().map(|source| source.metadata.bytes).sum(),
        ..Report::default()
    };
    let bad = std::mem::take(&mut found.bad);
    if !options.index {
        store.defer_index();
    }
    let job = Job::new(store, options, progress, found.sources, fresh);
    job.note_all(bad);
    for (counts, _) in cached.iter().zip(&job.fresh).filter(|(_, fresh)| !**fresh) {
        report.known += counts.iter().flatten().map(|(_, count)| count).sum::<u64>();
        for (kind, count) in counts.iter().flatten() {
            *report.found.entry(*kind).or_default() += count;
        }
    }
    if job.fresh.contains(&true) {
        work(&job, &found.layouts, found.entries, &mut report)?;
    }
    if options.index && !options.dry_run {
        store.catch_up()?;
        cache::write(&job, began)?;
    }
    report.bad = job.into_bad();
    Ok(report)
}

/// What a transcript says of itself: whose it is, which session, until when.
pub(crate) fn look(env: &Env, path: &Path, metadata: &Metadata) -> std::io::Result<Head> {
    let source = Source { path: path.to_owned(), metadata: *metadata, role: Role::Unknown };
    probe::transcript(&SourceFile::open(env, &source)?, metadata.bytes)
}

/// Reads what is not known to be unchanged.
fn work(
    job: &Job<'_>,
    layouts: &[peer::Layout],
    entries: Vec<manifest::Entry>,
    report: &mut Report,
) -> Result<()> {
    // Taken before this process is marked as busy, so that the index is brought up to date first.
    let snapshot = job.store.snapshot()?;
    let _busy = job.store.busy()?;
    job.store.prepare_bulk()?;
    let to_read = job.sources.iter().zip(&job.fresh).filter(|(_, fresh)| **fresh);
    job.progress.start("importing", Some(to_read.map(|(source, _)| source.metadata.bytes).sum()));
    let probes = probe::all(job)?;
    let workers: Vec<Mutex<Worker<'_>>> = (0..rayon::current_num_threads() + WAITING_WORKERS)
        .map(|_| Mutex::new(Worker::new(job.store)))
        .collect();

    let feeder = records::Feeder::new(job, &probes);
    each_worker(job, &workers, |worker| records::take(job, &feeder, layouts, worker))?;
    let pins = workers.iter().map(|worker| std::mem::take(&mut hold(worker).pins)).reduce(peer::Pins::merged);
    let sessions = transcripts::sessions(job, probes, entries, layouts, &pins.unwrap_or_default());
    let queue = transcripts::Queue::new(sessions, &snapshot);
    // Transcripts are compressed with large windows, so fewer are taken at once.
    let few = rayon::current_num_threads().min(workers.len());
    each_worker(job, &workers[..few], |worker| transcripts::take(job, &queue, worker))?;

    for worker in workers {
        let worker = worker.into_inner().unwrap_or_else(PoisonError::into_inner);
        let taken = worker.intake.finish()?;
        report.added += taken.events + worker.taken.events;
        report.known += taken.known + worker.taken.known;
        report.skipped_since += worker.skipped_since;
        report.erased += taken.erased + worker.taken.erased;
    }
    for (kind, count) in job.found() {
        *report.found.entry(kind).or_default() += count;
    }
    job.progress.finish();
    Ok(())
}

/// What one thread keeps while it works: one intake, so that blocks fill, and buffers.
struct Worker<'a> {
    intake: Intake<'a>,
    /// What was counted outside the intake.
    taken: Taken,
    skipped_since: u64,
    pins: peer::Pins,
    records: records::Buffers,
}

impl<'a> Worker<'a> {
    fn new(store: &'a Store) -> Worker<'a> {
        Worker {
            intake: Intake::new(store),
            taken: Taken::default(),
            skipped_since: 0,
            pins: peer::Pins::default(),
            records: records::Buffers::default(),
        }
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Workers beyond one for each core: while one waits for the disk, another computes.
const WAITING_WORKERS: usize = 2;

/// Runs each worker on a thread of its own; the first error stops all of them.
///
/// Threads, not tasks of the pool: a thread that waits for others inside the store must not start a second worker.
fn each_worker<'a>(
    job: &Job<'_>,
    workers: &[Mutex<Worker<'a>>],
    work: impl Fn(&mut Worker<'a>) -> Result<()> + Sync,
) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = workers
            .iter()
            .map(|worker| {
                scope.spawn(|| {
                    let result = work(&mut hold(worker));
                    if result.is_err() {
                        job.stop();
                    }
                    result
                })
            })
            .collect();
        let joined = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        // All have ended before the first error is returned.
        joined.collect::<Vec<_>>().into_iter().collect()
    })
}
