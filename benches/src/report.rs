//! Prints results as Markdown, ready for `docs/benchmarks.md`, and remembers what failed or missed its target.

use std::error::Error;

use crate::measure::Samples;

/// A benchmark stops at the first thing it cannot do; the text says what that was.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What was printed so far, as far as the exit status needs it.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) failures: Vec<String>,
    pub(crate) missed: Vec<String>,
    in_list: bool,
}

impl Report {
    pub(crate) fn heading(&mut self, title: &str) {
        self.end_list();
        println!("## {title}\n");
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.end_list();
        println!("{text}\n");
    }

    /// Ends a list of targets, which must not swallow the next paragraph.
    pub(crate) fn end_list(&mut self) {
        if std::mem::take(&mut self.in_list) {
            println!();
        }
    }

    /// One row for each job: median [min-max].
    pub(crate) fn table(&mut self, all: &[Samples]) {
        self.end_list();
        println!("| work | runs | CPU s | wall s | peak RSS MB | bytes MB |");
        println!("|---|---|---|---|---|---|");
        for samples in all {
            if self.note_failure(samples) {
                println!("| {} | failed | | | | |", samples.name);
                continue;
            }
            let (cpu, wall) = (samples.cpu(), samples.wall());
            println!(
                "| {} | {} | {:.3} [{:.3}-{:.3}] | {:.3} [{:.3}-{:.3}] | {} | {} |",
                samples.name,
                samples.costs.len(),
                cpu.median,
                cpu.min,
                cpu.max,
                wall.median,
                wall.min,
                wall.max,
                megabytes(samples.rss_bytes()),
                samples.bytes_median().map_or_else(String::new, megabytes),
            );
        }
        println!();
    }

    /// The same for short commands: milliseconds, with the 95th percentile.
    pub(crate) fn table_ms(&mut self, all: &[Samples]) {
        self.end_list();
        println!("| command | runs | wall ms, median | p95 | min-max | CPU ms | peak RSS MB |");
        println!("|---|---|---|---|---|---|---|");
        for samples in all {
            if self.note_failure(samples) {
                println!("| {} | failed | | | | | |", samples.name);
                continue;
            }
            let (cpu, wall) = (samples.cpu(), samples.wall());
            println!(
                "| {} | {} | {:.1} | {:.1} | {:.1}-{:.1} | {:.1} | {} |",
                samples.name,
                samples.costs.len(),
                wall.median * 1e3,
                wall.p95 * 1e3,
                wall.min * 1e3,
                wall.max * 1e3,
                cpu.median * 1e3,
                megabytes(samples.rss_bytes()),
            );
        }
        println!();
    }

    /// One line that says whether `found` is at most `limit`.
    pub(crate) fn at_most(&mut self, what: &str, found: f64, limit: f64) {
        self.target(what, found, "at most", limit, found <= limit);
    }

    /// One line that says whether `found` is at least `limit`.
    pub(crate) fn at_least(&mut self, what: &str, found: f64, limit: f64) {
        self.target(what, found, "at least", limit, found >= limit);
    }

    fn target(&mut self, what: &str, found: f64, relation: &str, limit: f64, reached: bool) {
        self.in_list = true;
        if !found.is_finite() || found == 0.0 {
            println!("- {what}: not measured (target: {relation} {limit})");
            return;
        }
        let verdict = if reached { "reached" } else { "**missed**" };
        println!("- {what}: {found:.3} (target: {relation} {limit}): {verdict}");
        if !reached {
            self.missed.push(format!("{what}: {found:.3}, target {relation} {limit}"));
        }
    }

    /// Prints and remembers a failure.
    pub(crate) fn fail(&mut self, what: &str, error: &dyn std::fmt::Display) {
        self.end_list();
        println!("**failed**: {what}: {error}\n");
        self.failures.push(format!("{what}: {error}"));
    }

    fn note_failure(&mut self, samples: &Samples) -> bool {
        if let Some(error) = &samples.failed {
            self.failures.push(format!("{}: {error}", samples.name));
        }
        samples.failed.is_some()
    }
}

/// The samples of the job of that name; empty ones where it did not run, so that what follows is "not measured".
pub(crate) fn named<'a>(all: &'a [Samples], name: &str) -> &'a Samples {
    const NONE: &Samples =
        &Samples { name: String::new(), costs: Vec::new(), bytes: Vec::new(), failed: None };
    all.iter().find(|samples| samples.name == name && samples.failed.is_none()).unwrap_or(NONE)
}

/// A quotient for a target; not finite where nothing was measured.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if part == 0.0 { f64::NAN } else { part / whole }
}

/// Megabytes of 1,000,000 bytes, with one decimal.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// Megabytes as a number to compare.
pub(crate) fn megabytes_number(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
