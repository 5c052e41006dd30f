//! Runs `keys_file` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_trace_fuzz::seal::keys_file(bytes));
