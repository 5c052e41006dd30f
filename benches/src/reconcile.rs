//! Set reconciliation between two sides in this process: bytes on the wire, round trips, and the CPU of either side.
//!
//! Single-threaded, so that the time of a side is its CPU on a quiet machine. Nothing is sent; bodies are encoded and
//! decoded as they would be.

use std::time::{Duration, Instant};

use agent_trace_store::EventId;
use agent_trace_sync::reconcile::{Progress, Reconciliation, answer};
use agent_trace_sync::wire::{Cursor, ReconcileRequest, SymbolsBody};

use crate::Options;
use crate::report::{Report, Result};

const AT: Cursor = Cursor { epoch: [7; 16], position: 1 };
const LIST_BYTES: u64 = 32;

/// What finding one difference took.
struct Cost {
    bytes: usize,
    round_trips: usize,
    here: Duration,
    there: Duration,
}

/// Prints a table over differences of several sizes.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let all = options.records();
    report.heading("Reconciliation");
    report.text(&format!(
        "Two sets of {all} ids; half of the difference is on either side. A list of all ids has {} bytes.",
        all * LIST_BYTES
    ));
    println!("| difference | bytes | bytes an id | round trips | client ms | service ms |");
    println!("|---|---|---|---|---|---|");
    for difference in [0, 10, 100, 1_000, 10_000].into_iter().filter(|difference| *difference <= all) {
        let mut costs = Vec::new();
        for run in 0..options.runs() {
            costs.push(reconcile(all, difference, options.seed + u64::from(run))?);
        }
        costs.sort_by_key(|cost| cost.bytes);
        let cost = &costs[costs.len() / 2];
        println!(
            "| {difference} | {} | {:.0} | {} | {:.0} | {:.0} |",
            cost.bytes,
            cost.bytes as f64 / difference.max(1) as f64,
            cost.round_trips,
            cost.here.as_secs_f64() * 1e3,
            cost.there.as_secs_f64() * 1e3
        );
        if difference == 1_000 && cost.bytes > 100_000 {
            report.missed.push(format!("reconciling 1,000 ids took {} bytes, not 100,000", cost.bytes));
        }
    }
    println!();
    Ok(())
}

fn reconcile(all: u64, difference: u64, seed: u64) -> Result<Cost> {
    let id = |number: u64| EventId::of(&[seed.to_le_bytes(), number.to_le_bytes()].concat());
    let common = all - difference / 2;
    let here: Vec<EventId> = (0..all).map(id).collect();
    let there: Vec<EventId> = (0..common).chain(all..all + difference.div_ceil(2)).map(id).collect();
    let mut reconciliation = Reconciliation::new();
    let mut cost = Cost { bytes: 0, round_trips: 0, here: Duration::ZERO, there: Duration::ZERO };
    loop {
        let asked = reconciliation.request().encode();
        let start = Instant::now();
        let answered = answer(&ReconcileRequest::decode(&asked)?, AT, there.iter().copied()).encode();
        cost.there += start.elapsed();
        cost.bytes += asked.len() + answered.len();
        cost.round_trips += 1;
        let start = Instant::now();
        let progress = reconciliation.take(&SymbolsBody::decode(&answered)?, here.iter().copied())?;
        cost.here += start.elapsed();
        match progress {
            Progress::More => {}
            Progress::TooDifferent => return Err("the sets differ too much".into()),
            Progress::Done(found) => {
                let count = (found.only_there.len() + found.only_here.len()) as u64;
                if count != difference {
                    return Err(format!("found {count} ids of {difference}").into());
                }
                return Ok(cost);
            }
        }
    }
}
