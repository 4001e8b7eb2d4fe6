#!/usr/bin/env bash
# Many edge agents on one relay for a while: memory, processor time and descriptors of the relay each minute, and ten
# requests a second to one more edge agent all the time; then the relay is killed and started again, and all have to
# come back.
#
#   scripts/soak.sh [MINUTES]      default 10
#   EDGES=1000                     idle edge agents, over TLS, each with its key and five tunnels
#   BIN=DIR                        arps, arpc and arp-crowd from here instead of a release build
#
# Needs Linux, curl and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${BIN:-}" ]; then
    cargo build --release -p arps -p arpc -p arp-testkit --bin arps --bin arpc --bin arp-crowd
    BIN=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
ulimit -n "$(ulimit -Hn)"
exec python3 scripts/soak.py "$BIN" "${1:-10}" "${EDGES:-1000}"
