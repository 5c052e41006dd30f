#!/bin/sh
# Runs every fuzz target under libFuzzer, on stable Rust, for so many seconds each (default 30):
#   tests/fuzz/run.sh [SECONDS] [TARGET...]
# Corpora and findings are kept under the target directory; a finding ends the run with status 1.
set -eu
cd "$(dirname "$0")"
seconds=${1:-30}
[ $# -gt 0 ] && shift
triple=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
work=$target/work
export CARGO_TARGET_DIR="$target"
# The seeds are made without instrumentation, which needs the fuzzer's runtime.
cargo run --quiet --release --example seeds -- "$work/corpus"
# With --target the flags do not reach build scripts and procedural macros.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1" \
  cargo build --quiet --release --target "$triple" --bins
[ $# -gt 0 ] || set -- $(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)
status=0
for name in "$@"; do
  mkdir -p "$work/corpus/$name" "$work/found/$name"
  echo "== $name"
  "$target/$triple/release/$name" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="$work/found/$name/" "$work/corpus/$name" >"$work/$name.log" 2>&1 || {
    status=1
    echo "FOUND something: see $work/$name.log and $work/found/$name/"
  }
  grep -E 'stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)|^SUMMARY|panicked' "$work/$name.log" || true
done
exit $status
