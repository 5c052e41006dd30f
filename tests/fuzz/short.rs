//! The fuzz targets on seeded inputs: random bytes, valid ones, and valid ones with a few bytes changed.
//!
//! `AGENT_TRACE_FUZZ_RUNS` sets how many inputs each target gets. A failure names the target and the input's number,
//! which repeats it. The long run is `run.sh`.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[allow(dead_code, unreachable_pub)]
#[path = "src/lib.rs"]
mod targets;

use targets::{Random, TARGETS, mutate};

const RUNS: u64 = 20_000;

fn input(target: &targets::Target, number: u64) -> Vec<u8> {
    let mut random = Random::new(number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    if number.is_multiple_of(16) {
        let length = random.index(200);
        return random.bytes(length);
    }
    let mut bytes = (target.seed)(number / 4);
    if !number.is_multiple_of(64) {
        mutate(&mut random, &mut bytes);
    }
    bytes
}

fn runs() -> u64 {
    std::env::var("AGENT_TRACE_FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS)
}

#[test]
fn no_decoder_panics_on_seeded_inputs() {
    std::thread::scope(|scope| {
        for worker in 0..2 {
            scope.spawn(move || {
                for target in TARGETS.iter().skip(worker).step_by(2) {
                    for number in 0..runs() {
                        let bytes = input(target, number);
                        if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
                            panic!("target `{}` fails on input {number}: {bytes:02x?}", target.name);
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn valid_inputs_are_accepted() {
    for target in TARGETS {
        for seed in 0..50 {
            (target.run)(&(target.seed)(seed));
        }
    }
}
