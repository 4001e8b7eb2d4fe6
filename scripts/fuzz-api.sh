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
built=$PWD/target/debug/examples

work=$(mktemp -d)
edge=
# shellcheck disable=SC2317
cleanup() {
    [ -z "$edge" ] || { kill "$edge" 2>/dev/null && wait "$edge" || true; }
    rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work/home" "$work/files"
# No other agent is to be found, and sessions end soon.
env -i PATH=/usr/bin:/bin HOME="$work/home" RUST_LOG=warn "$built/command_mode" \
    --listen 127.0.0.1:0 --client-id fuzz --data-dir "$work/data" --agent-path "claude=$built/scripted_claude" \
    --enable-fs --fs-root "$work/files" --max-live 8 --park-after 5 > "$work/out" 2> "$work/err" &
edge=$!
for _ in $(seq 100); do
    base=$(sed -n 's|/?token=.*||p' "$work/out")
    [ -z "$base" ] || break
    sleep 0.1
done
[ -n "$base" ] || { cat "$work/err" >&2; exit 1; }

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
