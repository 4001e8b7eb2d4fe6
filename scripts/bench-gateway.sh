#!/usr/bin/env bash
# What the model gateway costs, beside the upstream itself, nginx as a plain unbuffered proxy, LiteLLM (PyPI) and
# claude-code-router (npm, Node); in one interleaved run on this machine. Prints Markdown tables for
# docs/benchmarks.md. A subject that gives no answer is reported as such, and the run goes on.
#
# Needs Linux, nginx and wrk (apt-get install nginx-light wrk), python3, and for the router node and npm. LiteLLM and
# the router are installed into .cache/ the first time.
#
#   scripts/bench-gateway.sh [ROUNDS]   rounds of each measurement, interleaved; medians are printed (default 3)
#   SECONDS_EACH=2                      seconds of each load
#   STREAMS=1000                        streams at a time
#   MILLION=1000000 MILLION_SECONDS=600  requests before memory is looked at, and the longest time for them
#   BIN=DIR                             arpc from here instead of a release build
#   LITELLM=PATH ROUTER=PATH            these programs instead of those in .cache/ (litellm; the router's cli.js)
#   LITELLM=no ROUTER=no                leave it out
set -euo pipefail
cd "$(dirname "$0")/.."

LITELLM_VERSION=1.108.7
ROUTER_VERSION=2.0.0

PATH=$PATH:/usr/sbin
for tool in nginx wrk python3; do
  command -v "$tool" >/dev/null || { echo "bench-gateway.sh: $tool is missing: apt-get install nginx-light wrk python3" >&2; exit 1; }
done

if [ -z "${BIN:-}" ]; then
  cargo build --release --workspace --bin arpc
  BIN=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
[ -x "$BIN/arpc" ] || { echo "bench-gateway.sh: $BIN/arpc is not there: build it, or leave BIN out" >&2; exit 1; }

# What cannot be installed is left out, and said to be.
if [ -z "${LITELLM:-}" ]; then
  LITELLM=$PWD/.cache/litellm/bin/litellm
  if [ ! -x "$LITELLM" ]; then
    echo "installing LiteLLM $LITELLM_VERSION into .cache/litellm" >&2
    { python3 -m venv .cache/litellm && .cache/litellm/bin/pip install -q "litellm[proxy]==$LITELLM_VERSION"; } >&2 ||
      { echo "bench-gateway.sh: LiteLLM cannot be installed: it is left out" >&2; LITELLM=no; }
  fi
fi
if [ -z "${ROUTER:-}" ]; then
  ROUTER=$PWD/.cache/router/node_modules/@musistudio/claude-code-router/dist/cli.js
  if [ ! -f "$ROUTER" ]; then
    echo "installing claude-code-router $ROUTER_VERSION into .cache/router" >&2
    npm install --silent --no-audit --no-fund --prefix .cache/router "@musistudio/claude-code-router@$ROUTER_VERSION" >&2 ||
      { echo "bench-gateway.sh: the router cannot be installed: it is left out" >&2; ROUTER=no; }
  fi
fi

# 1,000 streams are 3,000 connections and more.
ulimit -n "$(ulimit -Hn)"
export BIN LITELLM ROUTER ROUNDS="${1:-3}" SECONDS_EACH="${SECONDS_EACH:-2}" STREAMS="${STREAMS:-1000}"
export MILLION="${MILLION:-1000000}" MILLION_SECONDS="${MILLION_SECONDS:-600}"
exec python3 scripts/bench_gateway.py
