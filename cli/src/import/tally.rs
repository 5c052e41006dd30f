//! What the threads of one import share: the files, what each gave, and what was bad.
//!
//! Bounds what is kept of bad lines. Knows no formats.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use agent_trace_store::progress::Progress;
use agent_trace_store::{Kind, Store, Timestamp};

use super::source::Source;
use super::{Bad, Options, hold};
use crate::privacy::redact::Redaction;

/// Bad lines that are listed of one file; the rest is only counted.
pub(super) const BAD_LINES_LISTED_MAX: u64 = 1_000;

/// The kinds that are counted.
const COUNTED: [Kind; Kind::KNOWN.len() + 1] = {
    let mut kinds = [Kind::UNKNOWN; Kind::KNOWN.len() + 1];
    let mut at = 0;
    while at < Kind::KNOWN.len() {
        kinds[at] = Kind::KNOWN[at];
        at += 1;
    }
    kinds
};

/// One import.
pub(super) struct Job<'a> {
    pub(super) store: &'a Store,
    pub(super) progress: &'a dyn Progress,
    pub(super) since: Option<Timestamp>,
    pub(super) dry_run: bool,
    pub(super) redaction: Option<Arc<Redaction>>,
    pub(super) sources: Vec<Source>,
    /// Which sources are to be read.
    pub(super) fresh: Vec<bool>,
    tallies: Vec<Tally>,
    bad: Mutex<Vec<BadAt>>,
    stopped: AtomicBool,
}

/// What one source gave.
#[derive(Default)]
struct Tally {
    found: [AtomicU64; COUNTED.len()],
    bad: AtomicU64,
    /// Whether it must be read again next time although nothing was bad.
    unsettled: AtomicBool,
}

/// Something bad in a source, by its number.
pub(super) struct BadAt {
    pub(super) source: usize,
    pub(super) bad: Bad,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        store: &'a Store,
        options: &Options,
        progress: &'a dyn Progress,
        sources: Vec<Source>,
        fresh: Vec<bool>,
    ) -> Job<'a> {
        assert_eq!(sources.len(), fresh.len(), "each source is read or not");
        let tallies = sources.iter().map(|_| Tally::default()).collect();
        Job {
            store,
            progress,
            since: options.since,
            dry_run: options.dry_run,
            redaction: options.redaction.clone(),
            sources,
            fresh,
            tallies,
            bad: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Tells all threads to stop.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Counts what a source gave.
    pub(super) fn count(&self, source: usize, kind: Kind, count: u64) {
        if let Some(slot) = COUNTED.iter().position(|counted| *counted == kind) {
            self.tallies[source].found[slot].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Says that a source may give more next time, though it has not changed.
    pub(super) fn unsettle(&self, source: usize) {
        self.tallies[source].unsettled.store(true, Ordering::Relaxed);
    }

    /// Whether a source was taken completely.
    pub(super) fn is_settled(&self, source: usize) -> bool {
        let tally = &self.tallies[source];
        tally.bad.load(Ordering::Relaxed) == 0 && !tally.unsettled.load(Ordering::Relaxed)
    }

    /// What a source gave, by kind.
    pub(super) fn counts(&self, source: usize) -> BTreeMap<Kind, u64> {
        let found = &self.tallies[source].found;
        let counts = COUNTED.into_iter().zip(found.iter().map(|count| count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// What all sources gave together.
    pub(super) fn found(&self) -> BTreeMap<Kind, u64> {
        let mut sum = BTreeMap::new();
        for source in 0..self.sources.len() {
            for (kind, count) in self.counts(source) {
                *sum.entry(kind).or_default() += count;
            }
        }
        sum
    }

    /// Notes that a source, or a line of it, cannot be taken.
    pub(super) fn note(&self, source: usize, line: Option<u64>, reason: impl Into<String>) {
        self.list(source, line, reason.into(), false);
    }

    /// Notes that a line is not the record that it was meant to be, and is kept as raw bytes.
    pub(super) fn note_kept(&self, source: usize, line: u64, reason: &str) {
        self.list(source, Some(line), format!("{reason}; kept as raw bytes"), true);
    }

    fn list(&self, source: usize, line: Option<u64>, reason: String, kept: bool) {
        let earlier = self.tallies[source].bad.fetch_add(1, Ordering::Relaxed);
        if earlier < BAD_LINES_LISTED_MAX {
            let bad = Bad { file: self.sources[source].path.clone(), line, reason, kept };
            hold(&self.bad).push(BadAt { source, bad });
        }
    }

    /// Notes what was found bad before the work began; a source number past the end stands for none.
    pub(super) fn note_all(&self, bad: Vec<BadAt>) {
        for BadAt { source, .. } in &bad {
            if let Some(tally) = self.tallies.get(*source) {
                tally.bad.fetch_add(1, Ordering::Relaxed);
            }
        }
        hold(&self.bad).extend(bad);
    }

    /// What was bad, in the order of sources and lines.
    pub(super) fn into_bad(self) -> Vec<Bad> {
        let mut bad = std::mem::take(&mut *hold(&self.bad));
        for (source, tally) in self.tallies.iter().enumerate() {
            let count = tally.bad.load(Ordering::Relaxed);
            if count > BAD_LINES_LISTED_MAX {
                let reason = format!("{} more lines are not as expected", count - BAD_LINES_LISTED_MAX);
                let file = self.sources[source].path.clone();
                bad.push(BadAt { source, bad: Bad { file, line: Some(u64::MAX), reason, kept: false } });
            }
        }
        bad.sort_by(|a, b| (a.source, a.bad.line, &a.bad.file).cmp(&(b.source, b.bad.line, &b.bad.file)));
        let without_mark = |bad: Bad| Bad { line: bad.line.filter(|line| *line != u64::MAX), ..bad };
        bad.into_iter().map(|at| without_mark(at.bad)).collect()
    }
}
