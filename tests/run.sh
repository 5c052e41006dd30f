#!/usr/bin/env bash
# Installs what the tests need and runs all of them. Works on a fresh Debian machine with Rust and git.
# Long runs: AGENT_TRACE_SIM_SEEDS, AGENT_TRACE_KILL_POINTS, AGENT_TRACE_ROT_ROUNDS and AGENT_TRACE_FUZZ_RUNS raise
# the amounts; see docs/testing.md.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # command, package
  command -v "$1" >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "$2"
}
need git git
need cc gcc
need strace strace
need zstd zstd
command -v cargo-nextest >/dev/null 2>&1 || cargo install --locked cargo-nextest

# Real transcripts, where they lie beside the project; without them some tests say "skipped: corpus not given".
if [ -z "${AGENT_TRACE_CORPUS:-}" ] && [ -x ../shared/corpus/unpack.sh ]; then
  ../shared/corpus/unpack.sh "$PWD/target/corpus"
  export AGENT_TRACE_CORPUS="$PWD/target/corpus"
fi

cargo nextest run --workspace --features agent-trace-store/sim --no-fail-fast
cargo test --workspace --doc --quiet
