#!/usr/bin/env bash
# How long a frame of the console takes while much streams, in a real browser that is slowed down four times. The figures
# of docs/benchmarks.md come from it. Wants a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/../arp-client/console"

[ -d node_modules ] || npm ci --no-audit --no-fund --loglevel=error
npm run --silent build
npm run --silent bench
