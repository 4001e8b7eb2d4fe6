#!/usr/bin/env bash
# Fuzzes the HTTP API of command mode with schemathesis (PyPI), from its own /api/openapi.json: no answer may be a 5xx,
# and every answer has to be one that the document describes.
#
#   scripts/fuzz-api.sh [EXAMPLES]     so many requests an operation (default 40; about two minutes)
#
# It runs a real edge with a scripted agent in a home of its own, on loopback. Nothing of the user's is touched.
set -euo pipefail
cd "$(dirname "$0")/.."
examples=${1:-40}
version=4.32.5

venv=.cache/fuzz
if [ "$(cat $venv/version 2>/dev/null)" != $version ]; then
    python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check schemathesis==$version
    echo $version > $venv/version
fi
[ -n "${ARP_TEST_BUILT:-}" ] || cargo build --workspace --bins --examples --locked
built=$PWD/target/debug

work=$(mktemp -d)
edge='' relay=''
# shellcheck disable=SC2317
cleanup() {
    for daemon in $edge $relay; do
        { kill "$daemon" 2>/dev/null && wait "$daemon"; } || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work/home" "$work/files"

# Waits until a daemon has said something; prints what follows it.
said() {
    for _ in $(seq 100); do
        local found
        found=$(sed -n "s|.*$2\([^ ,]*\).*|\1|p" "$1" | head -1)
        [ -z "$found" ] || { echo "$found"; return; }
        sleep 0.1
    done
    cat "$1" >&2
    return 1
}

env -i PATH=/usr/bin:/bin HOME="$work/home" "$built/arps" --bind 127.0.0.1 --control-port 0 --proxy-port 0 \
    --public-port 0 --data-dir "$work/relay" > "$work/relay.out" 2>&1 &
relay=$!
control=$(said "$work/relay.out" 'control ') proxy=$(said "$work/relay.out" 'proxy ')
# No other agent is to be found, and sessions end soon.
env -i PATH=/usr/bin:/bin HOME="$work/home" "$built/arpc" --command-mode --no-qr \
    --control-port "${control##*:}" --proxy-port "${proxy##*:}" --listen 127.0.0.1:0 \
    --client-id fuzz --data-dir "$work/data" --agent-path "claude=$built/examples/scripted_claude" \
    --enable-fs --fs-root "$work/files" --max-sessions 8 --park-after 5 > "$work/err" 2>&1 &
edge=$!
base=$(said "$work/err" 'API and console listen on ')
base=${base%/}

outcome=0
# Streams and sockets do not end by themselves, so they are read by tests and not here.
$venv/bin/schemathesis run "$base/api/openapi.json" \
    --header 'X-ARP-Token: fuzz' --header 'Accept: application/json' \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --phases examples,coverage,fuzzing --max-examples "$examples" --request-timeout 20 --workers 1 \
    --exclude-path-regex '/ws$|/proxy/' || outcome=$?
if ! curl -sf "$base/api/health?token=fuzz" > /dev/null; then
    echo "the edge did not survive:" >&2
    cat "$work/err" >&2
    exit 1
fi
exit $outcome
