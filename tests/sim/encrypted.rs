//! The same worlds with an encrypted folder as their remote, whose key is changed now and then. All randomness but that of
//! `age`'s own envelope, made once for each ring, comes from the seed, so one seed gives one trace here too.

use crate::world::{Plan, run};
use crate::{SEEDS, alone, number, run_many};

const SEEDS_TWICE: u64 = 10;

fn encrypted() -> Plan {
    Plan { encrypted: true, ..Plan::default() }
}

#[test]
fn many_seeds_keep_the_rules() {
    // Fewer by default: the worlds differ from those of the plain folder only where the remote is written and read.
    let (first, count) = (number("AGENT_TRACE_SIM_FIRST", 0), number("AGENT_TRACE_SIM_SEEDS", SEEDS / 4));
    match run_many(first, count, encrypted()) {
        Ok(total) => {
            eprintln!("{count} seeds: {total:?}");
            let is_lively = total.is_lively() && total.rotations * 500 > total.steps;
            assert!(count < 100 || is_lively, "the worlds are asleep: {total:?}");
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
    match alone(|| run(seed, &encrypted())) {
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
            let result = alone(|| run(seed, &encrypted()));
            result.map_or_else(
                |failure| (0, 0, failure.message),
                |counts| (counts.trace, counts.operations, String::new()),
            )
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
