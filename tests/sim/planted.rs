//! Shows that the rules bite: with a fault planted, some world must fail, and for the reason that the fault has.
//!
//! Where one of these passes no more, the simulation has gone blind to a whole class of faults.

use agent_trace_store::env::sim::Lies;
use agent_trace_store::switches::Fault;

use crate::world::{Failure, Plan};
use crate::{alone, quiet, run_many};

const SEEDS: u64 = 1_500;

/// Some world fails, and says one of these things.
pub(crate) fn check(plan: Plan, expected: &[&str]) {
    check_from(0, plan, expected);
}

/// The same from a seed on, where it is known that those before find nothing.
pub(crate) fn check_from(first: u64, plan: Plan, expected: &[&str]) {
    quiet();
    let failures: Vec<Failure> = match run_many(first, SEEDS, plan) {
        Ok(counts) => panic!("nothing was found in {SEEDS} seeds: {counts:?}"),
        Err(failures) => failures,
    };
    for failure in &failures {
        let found = expected.iter().any(|text| failure.message.contains(text));
        assert!(found, "expected one of {expected:?}, found {failure}");
        eprintln!("seed {}: {}", failure.seed, failure.message.lines().next().unwrap_or_default());
    }
    // What was found is found again.
    let seed = failures[0].seed;
    let again = alone(|| crate::world::run(seed, &plan));
    assert_eq!(again.err().map(|again| again.message), Some(failures[0].message.clone()), "seed {seed}");
}

fn planted(fault: Fault) -> Plan {
    Plan { planted: Some(fault), ..Plan::default() }
}

pub(crate) const LOST: [&str; 9] = [
    "I2: ",
    "I3: ",
    "I4: ",
    "I6: ",
    "I8: ",
    "cannot open its store",
    "cannot read record",
    "without a fault",
    "is damaged",
];

#[test]
fn an_acknowledgement_sent_early_is_found() {
    check(planted(Fault::EarlyAck), &LOST);
}

#[test]
fn a_directory_that_is_not_synced_is_found() {
    check(planted(Fault::SkipDirSync), &LOST);
}

#[test]
fn hashes_that_are_not_compared_are_found() {
    check(Plan { rot: true, ..planted(Fault::SkipChecks) }, &["is read wrong", "does not have its id"]);
}

#[test]
fn events_that_nobody_signed_are_found_when_receipt_is_not_checked() {
    check(Plan { hostile: true, ..planted(Fault::SkipReceipt) }, &["I7: ", "I6: ", "I3: "]);
}

#[test]
fn what_leaves_before_it_is_durable_is_found() {
    check(
        planted(Fault::SkipSettle),
        &["I2: ", "I3: ", "I4: ", "I6: ", "I8: ", "cannot answer", "is damaged"],
    );
}

#[test]
fn a_head_that_goes_before_its_segments_is_found() {
    check(Plan { storm: true, ..planted(Fault::HeadFirst) }, &["is named but absent"]);
}

#[test]
fn a_disk_that_lies_about_file_syncs_is_found() {
    let lies = Lies { drop_file_sync: true, ..Lies::default() };
    check(Plan { lies, ..Plan::default() }, &LOST);
}

#[test]
fn a_disk_that_lies_about_directory_syncs_is_found() {
    let lies = Lies { drop_dir_sync: true, ..Lies::default() };
    check(Plan { lies, ..Plan::default() }, &LOST);
}
