#!/usr/bin/env bash
# shellcheck disable=SC2015 # "fail" ends the script, so A && B || fail is what it looks like.
# Installs the relay, arps, as a service of this machine: program, user, systemd unit, join key. Run it again to
# upgrade in place; what you have configured stays.
#
#     curl -fsSL BASE/install.sh | sudo bash
#     curl -fsSL BASE/install.sh | sudo bash -s -- --public-port 80 --domain arp.example.com
set -euo pipefail

# Where the release archives lie; a release writes its own address in here.
BASE_URL=${ARP_BASE_URL:-@BASE_URL@}

usage() {
    cat <<'TEXT'
Installs the relay, arps, as a service (or upgrades it).

  --public-port N     port for visitors [17003]
  --control-port N    port on which edge agents register [17001]
  --proxy-port N      port on which edge agents open tunnels [17002]
  --pool-size N       idle tunnels for each client [5]
  --domain NAME       each client on a host name of its own, <token>.NAME
  --host NAME         how edge agents reach this machine, for the line that is printed [found out]
  --join-key KEY      what edge agents must know [made anew, kept when there is one]
  --no-join-key       everybody may register
  --from DIR          take the programs from this folder instead of downloading them
  --prefix DIR        where the programs go, in bin below it [/usr/local]
  --root DIR          install below DIR (for images); nothing is started
  --no-start          do not start the service
  --yes               ask nothing (as when there is no terminal)
  --uninstall         remove program, unit and user; key and names stay
  --purge             with --uninstall: remove those, too
  -h, --help          this text

Variables: ARP_BASE_URL, where the archives lie; ARP_VERSION, which one (for example v0.2.0) [the latest].
TEXT
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

ROOT='' PREFIX=/usr/local FROM='' HOST='' DOMAIN='' KEY='' WITH_KEY=1 START=1 UNINSTALL=0 PURGE=0 ASK=1
declare -A PORTS=()

while [ $# -gt 0 ]; do
    # --flag=value is --flag value.
    case $1 in --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
    value() { [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value"; }
    case $1 in
        --public-port | --control-port | --proxy-port | --pool-size)
            value "$@"
            [[ $2 =~ ^[0-9]+$ ]] && [ "$2" -ge 1 ] && [ "$2" -le 65535 ] || fail "$1 is a number from 1 to 65535"
            name=${1#--}; name=${name^^}; PORTS[${name//-/_}]=$2; shift 2 ;;
        --domain) value "$@"; DOMAIN=$2; shift 2 ;;
        --host) value "$@"; HOST=$2; shift 2 ;;
        --join-key) value "$@"; KEY=$2; shift 2 ;;
        --no-join-key) WITH_KEY=0; shift ;;
        --from) value "$@"; FROM=$2; shift 2 ;;
        --prefix) value "$@"; PREFIX=$2; shift 2 ;;
        --root) value "$@"; ROOT=$2; START=0; shift 2 ;;
        --no-start) START=0; shift ;;
        --yes) ASK=0; shift ;;
        --uninstall) UNINSTALL=1; shift ;;
        --purge) PURGE=1; shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown flag $1 (--help lists them)" ;;
    esac
done
[[ $DOMAIN =~ ^[A-Za-z0-9.-]*$ ]] || fail "--domain is a host name"
[[ $KEY =~ ^[!-~]*$ ]] || fail "--join-key has no blanks and only ASCII characters"
# An older bash has no way to ask without a terminal, and a pipe has none to ask on.
[ -t 0 ] && [ -t 1 ] || ASK=0

[ "$(uname -s)" = Linux ] || fail "the relay is installed on Linux only; elsewhere run arps by hand"
[ -n "$ROOT" ] || [ "$(id -u)" = 0 ] || fail "run it as root (sudo), or with --root DIR to fill an image"

UNIT=$ROOT/etc/systemd/system/arps.service
DROPIN=$UNIT.d/10-install.conf
ETC=$ROOT/etc/arps
DATA=$ROOT/var/lib/arps
BIN=$ROOT$PREFIX/bin

# Does systemd run this machine? (Not in a container, and never below --root.)
running() { [ -z "$ROOT" ] && [ -d /run/systemd/system ]; }

if [ $UNINSTALL = 1 ]; then
    if running; then systemctl disable --now arps >/dev/null 2>&1 || true; fi
    rm -f "$BIN/arps" "$UNIT" "$DROPIN"
    rmdir "$UNIT.d" 2>/dev/null || true
    if running; then systemctl daemon-reload; fi
    if [ $PURGE = 1 ]; then
        rm -rf "$ETC" "$DATA"
    fi
    if [ -z "$ROOT" ] && id arps >/dev/null 2>&1; then userdel arps 2>/dev/null || true; fi
    say "arps is removed."
    [ $PURGE = 1 ] || say "Its key and names stay in $DATA, the join key in $ETC (--uninstall --purge removes them)."
    exit 0
fi

# --- the programs

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
        x86_64 | amd64) target=x86_64-unknown-linux-musl ;;
        aarch64 | arm64) target=aarch64-unknown-linux-musl ;;
        *) fail "there is no archive for $(uname -m): build from source with scripts/install_server.sh" ;;
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
    given=$(sha256sum "$scratch/$archive" | cut -d' ' -f1)
    [ "$wanted" = "$given" ] || fail "$archive is not what SHA256SUMS says (given $given); nothing was installed"
    tar -xzf "$scratch/$archive" -C "$scratch" --no-same-owner
    FROM=$scratch
fi
program=$(find "$FROM" -maxdepth 2 -type f -name arps | head -n 1)
[ -n "$program" ] || fail "there is no program arps in $FROM"
version=$("$program" --version) || fail "$program does not run on this machine"

before=$([ -x "$BIN/arps" ] && "$BIN/arps" --version 2>/dev/null || true)
mkdir -p "$BIN"
# Beside its place and then into it: a running program cannot be written over, and no half one is ever there.
install -m 0755 "$program" "$BIN/.arps.new"
mv -f "$BIN/.arps.new" "$BIN/arps"

# --- the user, the key, the unit

if [ -z "$ROOT" ] && ! id arps >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/arps --shell /usr/sbin/nologin arps
fi

if [ $ASK = 1 ] && [ ! -e "$UNIT" ] && [ -z "${PORTS[PUBLIC_PORT]:-}" ]; then
    read -r -p "Port for visitors [17003]: " answer </dev/tty || answer=''
    if [[ $answer =~ ^[0-9]+$ ]] && [ "$answer" -ge 1 ] && [ "$answer" -le 65535 ]; then
        PORTS[PUBLIC_PORT]=$answer
    fi
fi

if [ $WITH_KEY = 1 ]; then
    mkdir -p "$ETC"
    chmod 0755 "$ETC"
    if [ -n "$KEY" ] || [ ! -s "$ETC/join-key" ]; then
        [ -n "$KEY" ] || KEY=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')
        (umask 077 && printf '%s\n' "$KEY" >"$ETC/.join-key.new" && mv -f "$ETC/.join-key.new" "$ETC/join-key")
    fi
    KEY=$(cat "$ETC/join-key")
fi

mkdir -p "${UNIT%/*}"
unit() {
    cat <<'UNIT'
# The relay as a service. scripts/install.sh puts it to /etc/systemd/system/arps.service.
#
# To change a port:       sudo systemctl edit arps      and there:    [Service]
#                                                                     Environment="PUBLIC_PORT=80"
# Any other flag:         Environment="ARPS_DOMAIN=arp.example.com"   (arps --help names the variables)
[Unit]
Description=arps, the relay of arp
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
Environment=CONTROL_PORT=17001 PROXY_PORT=17002 PUBLIC_PORT=17003 POOL_SIZE=5
ExecStart=/usr/local/bin/arps --control-port ${CONTROL_PORT} --proxy-port ${PROXY_PORT} --public-port ${PUBLIC_PORT} --pool-size ${POOL_SIZE}
ExecReload=/usr/local/bin/arps reload
Restart=on-failure
RestartSec=2
# It gives a sign of life as long as it takes connections and can find its clients.
WatchdogSec=60
# Exchanges under way have 30 s to end (--grace).
TimeoutStopSec=45
# systemd keeps the ports open over a restart: who comes meanwhile waits, and is not refused.
FileDescriptorStoreMax=8
# A connection of a visitor and a tunnel of an edge agent take a descriptor each.
LimitNOFILE=262144

User=arps
Group=arps
# The key and the bound names: keep a backup of it.
StateDirectory=arps
StateDirectoryMode=0700
Environment=ARPS_DATA_DIR=/var/lib/arps
# Readable by root and this service only; without the file, edge agents need no key.
LoadCredential=join-key:/etc/arps/join-key
Environment=ARPS_JOIN_KEY_FILE=%d/join-key

# It needs to listen, also on ports below 1024, and nothing else.
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
ProtectClock=true
ProtectControlGroups=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
LockPersonality=true
MemoryDenyWriteExecute=true
RemoveIPC=true
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0077

[Install]
WantedBy=multi-user.target
UNIT
}
{
    if [ $WITH_KEY = 1 ]; then unit; else unit | grep -v 'join-key'; fi
} | sed "s|/usr/local/bin/arps|$PREFIX/bin/arps|" >"$UNIT"
chmod 0644 "$UNIT"

# What was asked for here. A file of yours (systemctl edit arps) stands above it. Without a flag, what an earlier run
# was told stays.
if [ ${#PORTS[@]} -gt 0 ] || [ -n "$DOMAIN" ]; then
    mkdir -p "$UNIT.d"
    kept=$([ -e "$DROPIN" ] && sed -n 's/^Environment=//p' "$DROPIN" || true)
    {
        echo "# Written by install.sh; your own changes belong into: systemctl edit arps"
        echo "[Service]"
        for name in CONTROL_PORT PROXY_PORT PUBLIC_PORT POOL_SIZE; do
            if [ -n "${PORTS[$name]:-}" ]; then
                echo "Environment=$name=${PORTS[$name]}"
            else
                printf '%s\n' "$kept" | sed -n "s/^\($name=.*\)/Environment=\1/p"
            fi
        done
        if [ -n "$DOMAIN" ]; then
            echo "Environment=ARPS_DOMAIN=$DOMAIN"
        else
            printf '%s\n' "$kept" | sed -n 's/^\(ARPS_DOMAIN=.*\)/Environment=\1/p'
        fi
    } >"$scratch/dropin"
    install -m 0644 "$scratch/dropin" "$DROPIN"
fi

# --- start, and say what to do next

state="installed"
if running && [ $START = 1 ]; then
    systemctl daemon-reload
    systemctl enable arps >/dev/null 2>&1
    if ! systemctl restart arps; then
        journalctl -u arps -n 20 --no-pager >&2 || true
        fail "the service does not start; what it said stands above"
    fi
    state="running"
elif running; then
    systemctl daemon-reload
fi

port() { # NAME: what counts, as systemd reads it: the unit, then the drop-ins, yours too
    cat "$UNIT" "$UNIT.d"/*.conf 2>/dev/null | sed -n 's/^Environment=//p' | tr -d "\"'" | tr ' ' '\n' |
        sed -n "s/^$1=//p" | tail -n 1
}
if [ -z "$HOST" ]; then
    HOST=$(ip -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p' | head -n 1 || true)
    [ -n "$HOST" ] || HOST=$(hostname 2>/dev/null || echo THIS-HOST)
fi

say ""
if [ -n "$before" ] && [ "$before" != "$version" ]; then
    say "$version is $state (before: $before)."
else
    say "$version is $state."
fi
if [ $state = installed ] && [ -z "$ROOT" ]; then
    say "Start it with:"
    say "  systemctl enable --now arps"
fi
say "Open these ports for incoming TCP: $(port CONTROL_PORT), $(port PROXY_PORT), $(port PUBLIC_PORT)."
say "On the machine with the agents:"
say ""
line="arpc --server-addr $HOST"
[ "$(port CONTROL_PORT)" = 17001 ] || line+=" --control-port $(port CONTROL_PORT)"
[ "$(port PROXY_PORT)" = 17002 ] || line+=" --proxy-port $(port PROXY_PORT)"
[ $WITH_KEY = 0 ] || line="ARPC_JOIN_KEY='$KEY' $line"
say "  $line --command-mode"
say ""
say "Who is there: arps clients.  Log: journalctl -u arps -f.  Changes: systemctl edit arps."
