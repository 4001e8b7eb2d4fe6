#!/usr/bin/env bash
# What the relay costs, beside rathole 0.5, in one interleaved run on this machine. Prints Markdown tables for
# docs/benchmarks.md.
#
# Needs Linux, nginx, wrk and curl (apt-get install nginx-light wrk curl), and python3. rathole is taken from
# $RATHOLE, PATH or .cache/rathole, and else built with cargo.
#
#   scripts/bench.sh --links …    what TLS on the link costs: TLS, plain, and rathole's noise and plain; the memory of
#                                 idle tunnels, and the cost of handshakes
#   scripts/bench.sh --quick …    ratios in some two minutes: TLS beside plain, and beside rathole if it is there
#   scripts/bench.sh --raw …      other protocols than HTTP: Redis, PostgreSQL (both from Debian) and one bulky stream, by a
#                                 token and by a port of their own, beside rathole
#   scripts/bench.sh --growth …   what becomes of the costs with many clients, many connections, HTTP/2 and a far edge; needs h2load
#   scripts/bench.sh --instructions   instructions of each daemon for a request on a kept connection, counted by callgrind: the
#                                 same on a busy machine; needs valgrind, and shows where they go with TOP=30
#   BASE=DIR                      with --quick and --instructions: beside the arps and arpc of an older build, too
#   scripts/bench.sh [ROUNDS]     rounds of each measurement, interleaved; medians are printed (default 5)
#   SECONDS_EACH=5                seconds of each load
#   CROWD=1000                    idle edges in the last measurement
#   BIN=DIR                       arps, arpc and arp-crowd from here instead of a build as it is given out
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;; esac

MODE=all
if [ "${1:-}" = --links ]; then MODE=links; shift; fi
if [ "${1:-}" = --quick ]; then MODE=quick; shift; fi
if [ "${1:-}" = --raw ]; then MODE=raw; shift; fi
if [ "${1:-}" = --growth ]; then MODE=growth; shift; fi
if [ "${1:-}" = --instructions ]; then MODE=instructions; shift; fi
case "${1:-1}" in *[!0-9]* | 0) echo "bench.sh: '$1' is neither a way to measure nor a number of rounds; see scripts/bench.sh --help" >&2; exit 2 ;; esac

need() { command -v "$1" >/dev/null || { echo "bench.sh: $1 is missing: apt-get install nginx-light wrk curl python3" >&2; exit 1; }; }
PATH=$PATH:/usr/sbin
for tool in nginx wrk curl python3; do need "$tool"; done
if [ "$MODE" = raw ]; then
  for tool in redis-server redis-benchmark pgbench; do
    command -v "$tool" >/dev/null || { echo "bench.sh: $tool is missing: apt-get install redis postgresql" >&2; exit 1; }
  done
fi

if [ "$MODE" = growth ]; then
  command -v h2load >/dev/null || { echo "bench.sh: h2load is missing: apt-get install nghttp2-client" >&2; exit 1; }
fi

if [ "$MODE" = instructions ]; then
  command -v valgrind >/dev/null || { echo "bench.sh: valgrind is missing: apt-get install valgrind" >&2; exit 1; }
fi

RATHOLE=${RATHOLE:-$(command -v rathole || true)}
if [ -z "$RATHOLE" ]; then
  RATHOLE=$PWD/.cache/rathole/bin/rathole
  if [ ! -x "$RATHOLE" ] && { [ "$MODE" = quick ] || [ "$MODE" = growth ] || [ "$MODE" = instructions ]; }; then RATHOLE=
  elif [ ! -x "$RATHOLE" ]; then cargo install rathole --version 0.5.0 --locked --root .cache/rathole
  fi
fi
if [ -z "${BIN:-}" ]; then
  cargo build --profile dist -p arps -p arpc -p arp-testkit --bin arps --bin arpc --bin arp-crowd --bin arp-handshake
  BIN=${CARGO_TARGET_DIR:-$PWD/target}/dist
fi
# 1,000 edges hold 6,000 connections, 10,000 with a tunnel each 20,000; root may have more than was given.
ulimit -n 100000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
if [ "$MODE" = quick ]; then FEW=3 SHORT=2; else FEW=5 SHORT=5; fi
export BIN BASE="${BASE:-}" RATHOLE MODE ROUNDS="${1:-$FEW}" SECONDS_EACH="${SECONDS_EACH:-$SHORT}" CROWD="${CROWD:-1000}"
if [ "$MODE" = growth ]; then exec python3 scripts/bench_growth.py; fi
if [ "$MODE" = instructions ]; then exec python3 scripts/bench_instructions.py; fi
exec python3 scripts/bench.py
