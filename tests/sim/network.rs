//! The same worlds with a service as their remote: messages are lost, doubled, delayed, reordered, corrupted and cut,
//! and both sides crash. Two thousand seeds of their own.

use agent_trace_store::switches::Fault;

use crate::planted::{LOST, check, check_from};
use crate::world::{Plan, run};
use crate::{SEEDS, alone, number, run_many};

const SEEDS_TWICE: u64 = 20;

fn network() -> Plan {
    Plan { network: true, ..Plan::default() }
}

#[test]
fn many_seeds_keep_the_rules() {
    let (first, count) = (number("AGENT_TRACE_SIM_FIRST", 0), number("AGENT_TRACE_SIM_SEEDS", SEEDS));
    match run_many(first, count, network()) {
        Ok(total) => {
            eprintln!("{count} seeds: {total:?}");
            let is_lively = total.is_lively() && total.net.is_lively(count / 100);
            assert!(count < 500 || is_lively, "the worlds are asleep: {total:?}");
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
    match alone(|| run(seed, &network())) {
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
            let result = alone(|| run(seed, &network()));
            result.map_or_else(
                |failure| (0, 0, failure.message),
                |counts| (counts.trace, counts.operations, format!("{:?}", counts.net)),
            )
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

fn planted(fault: Fault) -> Plan {
    Plan { planted: Some(fault), ..network() }
}

#[test]
fn events_without_their_objects_are_found() {
    check(planted(Fault::SkipClosure), &["I1: "]);
}

#[test]
fn what_leaves_before_it_is_durable_is_found() {
    check_from(
        300,
        planted(Fault::SkipSettle),
        &["I2: ", "I3: ", "I4: ", "I6: ", "I8: ", "cannot answer", "is damaged"],
    );
}

#[test]
fn events_that_nobody_signed_are_found_when_receipt_is_not_checked() {
    check(Plan { hostile: true, ..planted(Fault::SkipReceipt) }, &["I7: ", "I6: ", "I3: "]);
}

#[test]
fn recovery_that_cuts_too_much_is_found() {
    check_from(250, planted(Fault::CutMore), &LOST);
}

#[test]
fn an_acknowledgement_sent_early_is_found() {
    check(planted(Fault::EarlyAck), &LOST);
}
