#!/usr/bin/env bash
# What the model gateway costs, beside the upstream itself, nginx as a plain unbuffered proxy and, where they are
# installed, LiteLLM and a Node gateway; in one interleaved run on this machine. Prints Markdown tables for
# docs/benchmarks.md.
#
# Needs Linux, nginx and wrk (apt-get install nginx-light wrk), and python3.
#
#   scripts/bench-gateway.sh [ROUNDS]   rounds of each measurement, interleaved; medians are printed (default 5)
#   SECONDS_EACH=3                      seconds of each load
#   STREAMS=1000                        streams at a time in the last measurement
#   BIN=DIR                             arpc from here instead of a release build
#   LITELLM=PATH                        litellm (pip install 'litellm[proxy]'), if it is to be measured, too
#   PORTKEY=PATH                        node_modules/@portkey-ai/gateway/build/start-server.js, likewise
set -euo pipefail
cd "$(dirname "$0")/.."

need() { command -v "$1" >/dev/null || { echo "bench-gateway.sh: $1 is missing: apt-get install nginx-light wrk python3" >&2; exit 1; }; }
PATH=$PATH:/usr/sbin
for tool in nginx wrk python3; do need "$tool"; done

if [ -z "${BIN:-}" ]; then
  cargo build --release --workspace --bin arpc
  BIN=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
# 1,000 streams are 3,000 connections and more.
ulimit -n "$(ulimit -Hn)"
export BIN ROUNDS="${1:-5}" SECONDS_EACH="${SECONDS_EACH:-3}" STREAMS="${STREAMS:-1000}" LITELLM="${LITELLM:-}" PORTKEY="${PORTKEY:-}"
exec python3 scripts/bench_gateway.py
