//! The simulation: seeded worlds of stores that exchange through a folder, or through a service and a network, while
//! disks fail, processes die and the power goes. One seed gives one trace; `docs/testing.md` says how to run and repeat.
//!
//! ```text
//! world    the clients, what the test knows, the rules     steps    what happens, and what is checked then
//! intake   what clients append                             exchange push, pull, and what must hold after each
//! trouble  how disks fail                                  forge    somebody who forges in a folder
//! check    reads stores and remotes from raw bytes         end      all come to rest and agree; bits rot
//! net      messages, and the service on its own disk       network  the suite of worlds with a service
//! planted  shows that the rules bite                       exhaustive   each operation of one workload fails
//! encrypted the suite of worlds with an encrypted folder          lens   how the auditor reads that
//!                                  network_exhaustive   the same at the service, and each message
//! ```
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod check;
mod encrypted;
mod end;
mod exchange;
mod exhaustive;
mod forge;
mod intake;
mod lens;
mod net;
mod network;
mod network_exhaustive;
mod planted;
mod steps;
mod trouble;
mod world;

use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use world::{Counts, Failure, Plan, run};

pub(crate) const SEEDS: u64 = 2_000;
const SEEDS_TWICE: u64 = 20;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Where this thread last panicked.
pub(crate) fn last_panic() -> String {
    LAST_PANIC.with_borrow(Clone::clone)
}

/// Keeps panics of worlds quiet: they are results, reported with their seed.
pub(crate) fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if rayon::current_thread_index().is_none() || std::env::var_os("AGENT_TRACE_SIM_LOUD").is_some() {
                usual(info);
            }
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            net::note_panic(&place);
            LAST_PANIC.set(place);
        }));
    });
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("`{name}` is no number: `{text}`")),
        Err(_) => default,
    }
}

/// Runs work in a pool of this thread alone, so that the order of all operations is one and switches are seen.
pub(crate) fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    quiet();
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
            pool.install(work)
        });
        worker.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    })
}

/// Runs seeds on all cores until one fails; the counts of all, or the failures of each core.
pub(crate) fn run_many(first: u64, count: u64, plan: Plan) -> Result<Counts, Vec<Failure>> {
    quiet();
    let next = AtomicU64::new(first);
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let results: Vec<Result<Counts, Failure>> = thread::scope(|scope| {
        let work = || {
            alone(|| {
                let mut total = Counts::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return Ok(total);
                    }
                    match run(seed, &plan) {
                        Ok(counts) => total.add(&counts),
                        Err(failure) => {
                            next.store(first + count, Ordering::Relaxed);
                            return Err(failure);
                        }
                    }
                }
            })
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut total = Counts::default();
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(counts) => total.add(&counts),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() { Ok(total) } else { Err(failures) }
}

#[test]
fn many_seeds_keep_the_rules() {
    let (first, count) = (number("AGENT_TRACE_SIM_FIRST", 0), number("AGENT_TRACE_SIM_SEEDS", SEEDS));
    match run_many(first, count, Plan::default()) {
        Ok(total) => {
            eprintln!("{count} seeds: {total:?}");
            assert!(count < 100 || total.is_lively(), "the worlds are asleep: {total:?}");
        }
        Err(failures) => {
            failures.iter().for_each(|failure| eprintln!("{failure}\n"));
            panic!("seed {} broke a rule", failures[0].seed);
        }
    }
}

/// Runs the seed that `AGENT_TRACE_SIM_SEED` names, for repeating a failure.
#[test]
fn one_seed() {
    if std::env::var_os("AGENT_TRACE_SIM_SEED").is_none() {
        return;
    }
    let seed = number("AGENT_TRACE_SIM_SEED", 0);
    match alone(|| run(seed, &Plan::default())) {
        Ok(counts) => eprintln!("seed {seed}: {counts:?}"),
        Err(failure) => {
            eprintln!("{failure}");
            panic!("seed {seed} broke a rule");
        }
    }
}

#[test]
fn one_seed_twice_gives_one_trace() {
    for seed in 0..SEEDS_TWICE {
        let trace = || {
            let result = alone(|| run(seed, &Plan::default()));
            result.map_or_else(
                |failure| (0, 0, failure.message),
                |counts| (counts.trace, counts.operations, String::new()),
            )
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
