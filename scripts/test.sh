#!/usr/bin/env bash
# Runs everything that CI runs. Installs what it needs with apt and npm where it may (as root, or with
# CI=true), and says what is missing where it may not.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0} RUST_BACKTRACE=${RUST_BACKTRACE:-0}
# Panics name their line without it, and everything links faster.
export CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-none}

export ARP_TEST_AGENTS="${ARP_TEST_AGENTS:-$PWD/.cache/agents/node_modules/.bin}"
export ARP_TEST_BORE="${ARP_TEST_BORE:-$PWD/.cache/bore/bin/bore}"

# The versions of the agents' programs that the tests were written against.
AGENTS=(@anthropic-ai/claude-code@2.1.329 @openai/codex@0.169.0 @google/gemini-cli@0.61.0)

# Both ends of a tunnel that can be had without an account.
BORE=0.6.0

say() { printf '\n== %s (after %s s)\n' "$*" "$SECONDS"; }

need() { # program debian-package
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

install_tools() {
    missing=()
    need curl curl
    need nginx nginx
    need chromium-headless-shell chromium-headless-shell
    need cc gcc
    need git git
    need python3 python3
    need shellcheck shellcheck
    need strace strace
    need psql postgresql-client
    need redis-cli redis-tools
    need redis-server redis-server
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || need initdb postgresql
    need nc netcat-openbsd
    need mariadb mariadb-client
    [ -x /usr/sbin/mariadbd ] || need mariadbd mariadb-server
    need ssh openssh-client
    [ -x /usr/sbin/sshd ] || need sshd openssh-server
    if [ "${#missing[@]}" -gt 0 ]; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            say "installing ${missing[*]}"
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
        else
            echo "missing programs; install them first: ${missing[*]}" >&2
            exit 1
        fi
    fi
    for tool in cargo node npm; do
        command -v "$tool" >/dev/null 2>&1 || { echo "missing: $tool (Rust 1.89 or newer, Node 20 or newer)" >&2; exit 1; }
    done
}

# The real agents, pinned, in a folder of the project's own.
install_agents() {
    local stamp=.cache/agents/installed
    if [ ! -e "$ARP_TEST_AGENTS/claude" ] || { [ -e .cache/agents ] && [ "$(cat $stamp 2>/dev/null)" != "${AGENTS[*]}" ]; }; then
        say "installing ${AGENTS[*]}"
        mkdir -p .cache/agents
        npm install --prefix .cache/agents --save-exact --no-audit --no-fund --loglevel=error "${AGENTS[@]}"
        echo "${AGENTS[*]}" > $stamp
    fi
}

# bore, pinned, built once without optimisation, in a folder of the project's own.
install_bore() {
    if [ "$ARP_TEST_BORE" = "$PWD/.cache/bore/bin/bore" ] && [ "$("$ARP_TEST_BORE" --version 2>/dev/null)" != "bore-cli $BORE" ]; then
        say "installing bore $BORE"
        cargo install bore-cli --version "=$BORE" --locked --force --root .cache/bore --profile dev --target-dir .cache/bore/build
        rm -rf .cache/bore/build
    fi
}

install_npm() {
    install_agents
    for tests in tests/web tests/mcp; do
        say "installing $tests"
        npm ci --prefix $tests --no-audit --no-fund --loglevel=error
    done
}

install_tools
say "format"
cargo fmt --all --check

# npm waits for the network while cargo has both cores busy.
install_npm & npm=$!
say "dependencies: licences, doubles, sources, known holes"
./scripts/check-dependencies.sh
install_bore
wait $npm

say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

say "build"
cargo build --workspace --bins --examples --locked
export ARP_TEST_BUILT=1

say "install scripts"
./scripts/test-install.sh

if [ -f arp-client/console/package.json ]; then
    say "console: types, unit tests, bundle as committed, size"
    ./scripts/test-console.sh
fi

say "tests"
./scripts/run-tests.py

say "all good"
