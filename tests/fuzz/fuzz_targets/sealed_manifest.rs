//! Runs `sealed_manifest` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_trace_fuzz::seal::sealed_manifest(bytes));
