#!/usr/bin/env bash
# Makes the pictures of docs/screenshots anew. Needs what the browser tests need, and fonts like those of people's
# devices (60 MB to fetch, most of it Chinese), which the tests can do without; as root it installs them.
set -euo pipefail
cd "$(dirname "$0")/.."

FONTS=(fonts-inter fonts-jetbrains-mono fonts-noto-cjk)
missing=()
for font in Inter 'JetBrains Mono' 'Noto Sans CJK SC'; do
    fc-list "$font" family 2>/dev/null | grep -q . || missing+=("$font")
done
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends fontconfig "${FONTS[@]}" >/dev/null
    else
        echo "missing fonts: ${missing[*]} (Debian: ${FONTS[*]})" >&2
        exit 1
    fi
fi

cd arp-client/console
[ -d node_modules ] || npm ci --no-audit --no-fund --loglevel=error
npm run --silent build
SCREENSHOTS=1 npm run --silent e2e -- test/e2e/screens.test.ts
