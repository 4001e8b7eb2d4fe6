#!/usr/bin/env bash
# Builds arp and runs it on this machine: a relay, an edge agent, and something to expose.
# Ctrl-C ends all of it.
#
#   ./scripts/run.sh              expose a small demo page
#   ./scripts/run.sh PORT         expose your own service on 127.0.0.1:PORT
#   ./scripts/run.sh --agents     expose the AI agents of this machine (web console and API)
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
command -v cargo >/dev/null 2>&1 || { echo "run.sh: cargo is missing; install Rust 1.89 or newer from rustup.rs" >&2; exit 1; }

echo "Building arps and arpc (the first time takes a few minutes) ..."
cargo build --release --locked -p arps -p arpc
[ -n "${1:-}" ] || cargo build --release --locked -p arp-testkit --bin arp-demo
bin=${CARGO_TARGET_DIR:-target}/release

pids=()
stop() {
    trap - EXIT INT TERM
    # The edge first, so that it can say goodbye.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    rm -rf "$work"
}
work=$(mktemp -d)
trap stop EXIT
trap 'exit 0' INT TERM

port=${1:-}
if [ "$port" = --agents ]; then
    serve=(--command-mode)
elif [ -n "$port" ]; then
    serve=(--local-port "$port")
else
    "$bin/arp-demo" > "$work/demo" &
    pids+=($!)
    until [ -s "$work/demo" ]; do kill -0 "$!" 2>/dev/null || exit 1; sleep 0.1; done
    serve=(--local-port "$(cat "$work/demo")")
fi
"$bin/arps" --bind 127.0.0.1 --data-dir "$work/arps" > "$work/relay" &
pids+=($!)
until [ -s "$work/relay" ]; do kill -0 "$!" 2>/dev/null || exit 1; sleep 0.1; done
cat "$work/relay"
"$bin/arpc" "${serve[@]}" --client-id "${ARPC_CLIENT_ID:-demo}" --data-dir "$work/arpc" &
pids+=($!)
echo "Ctrl-C ends all."
# The first of them to end ends all.
wait -n
