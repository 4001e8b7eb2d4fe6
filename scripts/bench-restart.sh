#!/usr/bin/env bash
# What a restart of the relay costs its visitors: wrk on a few connections, the relay restarted every few seconds under
# scripts/service-manager.py (which does what systemd does with the unit), and a crowd of edge agents that come back each
# time. Prints what wrk counted, and how long the edges took.
#
#   scripts/bench-restart.sh [RESTARTS]    default 5, one every 4 s
#   EDGES=500                              idle edges besides the one that is visited
#   CONNECTIONS=32                         of wrk
#   BIN=DIR                                arps, arpc and arp-crowd from here instead of a release build
#
# Needs Linux, wrk, curl and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
RESTARTS=${1:-5} EDGES=${EDGES:-500} CONNECTIONS=${CONNECTIONS:-32}
for tool in wrk curl python3; do
    command -v "$tool" >/dev/null || { echo "bench-restart.sh: $tool is missing" >&2; exit 1; }
done
if [ -z "${BIN:-}" ]; then
    cargo build --release -p arps -p arpc -p arp-testkit --bin arps --bin arpc --bin arp-crowd
    BIN=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
ulimit -n "$(ulimit -Hn)"
exec python3 scripts/bench-restart.py "$BIN" "$RESTARTS" "$EDGES" "$CONNECTIONS"
