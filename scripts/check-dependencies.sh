#!/usr/bin/env bash
# Holds every dependency to deny.toml: licences, doubles, sources, and known holes (advisories).
#
# Licences, doubles and sources need crates.io alone and are always checked. The list of known holes is a git
# repository on GitHub; where that cannot be reached, this part is left out, and that is said.
# CARGO_DENY=PROGRAM uses that one in place of building the pinned one into .cache/.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=0.20.2

deny=${CARGO_DENY:-.cache/cargo-deny/bin/cargo-deny}
if [ -z "${CARGO_DENY:-}" ] && [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $VERSION" ]; then
    echo "building cargo-deny $VERSION into .cache/ (once; some minutes)"
    # Without optimisation: it runs for seconds and would be built for more minutes. Git does the fetching.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 cargo install --quiet --debug --locked --force \
        --root .cache/cargo-deny --target-dir .cache/cargo-deny/target \
        --no-default-features --version "$VERSION" cargo-deny
    rm -rf .cache/cargo-deny/target
fi

"$deny" --locked check licenses bans sources

if fetched=$(GIT_TERMINAL_PROMPT=0 timeout 120 "$deny" --locked fetch db 2>&1); then
    "$deny" --locked check advisories
else
    printf '%s\n' "$fetched" | tail -n 3 >&2
    echo "#################################################################################" >&2
    echo "# NOT CHECKED: known holes in dependencies. The RustSec list cannot be fetched. #" >&2
    echo "# Run scripts/check-dependencies.sh where github.com can be reached.            #" >&2
    echo "#################################################################################" >&2
fi
