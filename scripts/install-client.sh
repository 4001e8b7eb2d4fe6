#!/usr/bin/env bash
# shellcheck disable=SC2015 # "fail" ends the script, so A && B || fail is what it looks like.
# Installs the edge agent, arpc, for this user: into ~/.local/bin, without root. Run it again to upgrade.
#
#     curl -fsSL BASE/install-client.sh | bash
set -euo pipefail

# Where the release archives lie; a release writes its own address in here.
BASE_URL=${ARP_BASE_URL:-@BASE_URL@}

usage() {
    cat <<'TEXT'
Installs the edge agent, arpc, for this user (or upgrades it).

  --prefix DIR        where it goes, in bin below it [~/.local; as root /usr/local]
  --from DIR          take the programs from this folder instead of downloading them
  --uninstall         remove it; its key, tokens and sessions stay
  -h, --help          this text

Variables: ARP_BASE_URL, where the archives lie; ARP_VERSION, which one (for example v0.2.0) [the latest].
TEXT
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

PREFIX=$HOME/.local FROM='' UNINSTALL=0
[ "$(id -u)" != 0 ] || PREFIX=/usr/local
while [ $# -gt 0 ]; do
    case $1 in --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
    case $1 in
        --prefix | --from)
            [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value"
            [ "$1" = --prefix ] && PREFIX=$2 || FROM=$2
            shift 2 ;;
        --uninstall) UNINSTALL=1; shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown flag $1 (--help lists them)" ;;
    esac
done
BIN=$PREFIX/bin

if [ $UNINSTALL = 1 ]; then
    # With the small programs beside it, which only call it or are called by it.
    rm -f "$BIN/arpc" "$BIN/arpc-session-host" "$BIN/clp" "$BIN/prx"
    say "arpc is removed."
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fetch() { # URL FILE
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --retry 3 --connect-timeout 20 -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -q --tries=3 --timeout=20 -O "$2" "$1"
    else
        fail "curl or wget is needed"
    fi || fail "cannot fetch $1"
}

if [ -z "$FROM" ]; then
    case $BASE_URL in
        @*) fail "set ARP_BASE_URL to where the release archives lie, or --from to a folder with the programs" ;;
    esac
    case $(uname -m) in
        x86_64 | amd64) machine=x86_64 ;;
        aarch64 | arm64) machine=aarch64 ;;
        *) fail "there is no archive for $(uname -m): cargo install --locked --path arp-client builds it" ;;
    esac
    case $(uname -s) in
        Linux) target=$machine-unknown-linux-musl ;;
        Darwin) target=$machine-apple-darwin ;;
        *) fail "there is no archive for $(uname -s); on Windows use install-client.ps1" ;;
    esac
    base=${BASE_URL%/}
    if [ -n "${ARP_VERSION:-}" ]; then
        # As GitHub has them: releases/latest/download and releases/download/VERSION.
        case $base in
            */latest/download) base=${base%/latest/download}/download/$ARP_VERSION ;;
            *) base=$base/$ARP_VERSION ;;
        esac
    fi
    archive=arp-$target.tar.gz
    say "Fetching $archive"
    fetch "$base/SHA256SUMS" "$scratch/SHA256SUMS"
    fetch "$base/$archive" "$scratch/$archive"
    wanted=$(awk -v f="$archive" '$2 == f || $2 == "*" f { print $1 }' "$scratch/SHA256SUMS")
    [[ $wanted =~ ^[0-9a-f]{64}$ ]] || fail "SHA256SUMS names no checksum of $archive"
    if command -v sha256sum >/dev/null 2>&1; then
        given=$(sha256sum "$scratch/$archive" | cut -d' ' -f1)
    else
        given=$(shasum -a 256 "$scratch/$archive" | cut -d' ' -f1)
    fi
    [ "$wanted" = "$given" ] || fail "$archive is not what SHA256SUMS says (given $given); nothing was installed"
    tar -xzf "$scratch/$archive" -C "$scratch"
    FROM=$scratch
fi
program=$(find "$FROM" -maxdepth 2 -type f -name arpc | head -n 1)
[ -n "$program" ] || fail "there is no program arpc in $FROM"
version=$("$program" --version) || fail "$program does not run on this machine"

mkdir -p "$BIN"
for name in arpc-session-host arpc clp prx; do
    file=${program%/*}/$name
    [ -f "$file" ] || continue
    # Beside its place and then into it: a running program cannot be written over, and no half one is ever there.
    cp "$file" "$BIN/.$name.new"
    chmod 0755 "$BIN/.$name.new"
    mv -f "$BIN/.$name.new" "$BIN/$name"
done

say ""
say "$version is in $BIN."
case ":$PATH:" in
    *":$BIN:"*) ;;
    *) say "Put it into your PATH:"; say "  export PATH=\"$BIN:\$PATH\"" ;;
esac
say "Next, with the address that the relay's installation printed:"
say ""
say "  arpc --server-addr RELAY --command-mode            # the AI agents of this machine"
say "  arpc --server-addr RELAY --local-port 3000         # a web service"
