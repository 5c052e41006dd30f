//! Runs `key_ring` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_trace_fuzz::seal::key_ring(bytes));
