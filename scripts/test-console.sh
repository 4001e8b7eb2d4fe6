#!/usr/bin/env bash
# Checks the web console: types, unit tests, that the committed bundle is what the source makes and small enough,
# and the journeys in a real browser, against a pretended machine and against arpc with the real CLIs.
# Needs node, chromium, and the CLIs in ARP_TEST_AGENTS. `--quick` leaves the browser out.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

(
    cd arp-client/console
    npm ci --no-audit --no-fund --loglevel=error
    say "console: types and unit tests"
    npm run --silent types
    npm run --silent unit
    say "console: bundle as committed, size of the first load, policy of the landing page"
    npm run --silent check-dist
    npm run --silent size
    node scripts/landing.mjs --check
)
[ "${1:-}" = --quick ] && exit 0

say "console: journeys in a real browser"
# scripts/test.sh has built the whole workspace already; building two packages alone would pick other features of
# their dependencies and compile those again.
[ -n "${ARP_TEST_BUILT:-}" ] || cargo build --locked --workspace --bins --examples
(cd arp-client/console && npm run --silent e2e)
