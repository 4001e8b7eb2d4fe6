#!/usr/bin/env bash
# shellcheck disable=SC2015,SC2016 # "bad" ends the script; and a shell inside expands what stands in single quotes.
# Tests the relay and the edge agent as services of a real systemd: a Debian of its own, booted in a container, in which
# the install scripts are run as the README tells them. Ports below 1024 for a user that is not root, settings by
# `systemctl edit`, reload, restarts under load, the watchdog, `arps update` and `arpc update` with a way back, and the
# edge agent as a service of a user. Not a part of CI: it wants root.
#
#   sudo scripts/test-systemd.sh            BIN=DIR: the programs from here, not target/debug
#
# Needs Linux, root, systemd-container, debootstrap, and once a mirror of Debian: the tree is kept in .cache/systemd.
# MIRROR=URL names the mirror (else debootstrap's own), RELEASE=trixie takes another Debian (with another systemd) than
# bookworm. Nothing else of the machine is touched: the container has its own processes, network and cgroups, and writes
# to memory only.
set -euo pipefail

passed=0
ok() { passed=$((passed + 1)); printf 'ok   %s\n' "$1"; }
bad() { printf 'FAIL %s\n' "$1" >&2; [ $# -lt 2 ] || printf '%s\n' "$2" >&2; exit 1; }
has() { case $2 in *"$3"*) ok "$1" ;; *) bad "$1: no «$3» in" "$2" ;; esac; }
# Waits until a command succeeds.
until_ok() { # WHAT COMMAND...
    local what=$1; shift
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    bad "$what" "$("$@" 2>&1 || true)"
}

# --- outside: the tree, and a container of it

if [ "${1:-}" != --inside ]; then
    cd "$(dirname "$0")/.."
    [ "$(id -u)" = 0 ] || { echo "test-systemd.sh: run it as root (sudo)" >&2; exit 1; }
    for tool in systemd-nspawn debootstrap nsenter; do
        command -v "$tool" >/dev/null || { echo "test-systemd.sh: $tool is missing (apt install systemd-container debootstrap)" >&2; exit 1; }
    done
    bin=${BIN:-${CARGO_TARGET_DIR:-target}/debug}
    for program in arps arpc arpc-session-host arp-demo examples/scripted_claude; do
        [ -x "$bin/$program" ] || bad "the programs are built: cargo build --workspace --bins --examples"
    done
    release=${RELEASE:-bookworm} tree=$PWD/.cache/systemd/${RELEASE:-bookworm}
    if [ ! -e "$tree.done" ]; then
        rm -rf "$tree" && mkdir -p "$tree"
        debootstrap --variant=minbase \
            --include=systemd-sysv,dbus,dbus-user-session,libpam-systemd,curl,iproute2,procps,python3,bsdutils,wrk \
            "$release" "$tree" ${MIRROR:+"$MIRROR"} >"$tree.log" || bad "debootstrap" "$(tail -n 5 "$tree.log")"
        touch "$tree.done"
    fi
    scratch=$(mktemp -d)
    box=''
    trap '[ -z "$box" ] || { kill "$box" && wait "$box"; } 2>/dev/null || true; rm -rf "$scratch"' EXIT
    mkdir "$scratch/bin"
    cp "$bin/arps" "$bin/arpc" "$bin/arpc-session-host" "$bin/arp-demo" "$bin/examples/scripted_claude" "$scratch/bin/"
    strip "$scratch/bin/"* 2>/dev/null || true
    # systemd ends by itself if this script is killed: the time is the container's own.
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout --signal=KILL 1800 systemd-nspawn --quiet --boot --directory "$tree" --volatile=overlay \
        --private-network --register=no --keep-unit --console=pipe --machine "arp-test-$$" \
        --bind-ro="$scratch/bin:/opt/built" --bind-ro="$PWD/scripts:/opt/scripts" </dev/null >"$scratch/boot.log" 2>&1 &
    box=$!
    leader() { pgrep -P "$(pgrep -P "$box" -x systemd-nspawn)" | head -n 1; }
    until_ok "a container starts" leader
    inside() {
        nsenter --target "$(leader)" --all env -i HOME=/root LANG=C.UTF-8 \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
    }
    until_ok "systemd is up in it" inside systemctl is-system-running
    inside bash /opt/scripts/test-systemd.sh --inside
    exit
fi

# --- inside

printf 'systemd %s\n' "$(systemctl --version | sed -n '1s/systemd //p')"
export ARP_BASE_URL=http://127.0.0.1:8000 RUSTUP_TOOLCHAIN=''
name=arp-$(uname -m)-unknown-linux-musl
mkdir -p /srv/www
# A release of the built programs, which say MARK for their commit; a text of the same length makes another version.
release() { # MARK
    mkdir -p "/srv/$name"
    for program in arps arpc arpc-session-host; do
        LC_ALL=C sed "s/ (dev)/ ($1)/g" "/opt/built/$program" >"/srv/$name/$program"
        chmod 755 "/srv/$name/$program"
    done
    publish
}
publish() {
    tar -czf "/srv/www/$name.tar.gz" -C /srv "$name"
    (cd /srv/www && sha256sum "$name.tar.gz" >SHA256SUMS)
}
release dev
systemd-run --quiet --unit archives python3 -m http.server 8000 --bind 127.0.0.1 --directory /srv/www
until_ok "the archives are served" curl -fsS -o /dev/null "$ARP_BASE_URL/SHA256SUMS"
shown() { systemctl show arps -p "$1" --value; }
count() { journalctl -u arps --no-pager -o cat | grep -c "$1" || true; }

# The installation, as the README tells it.
said=$(bash -s <"/opt/scripts/install.sh" 2>&1) || bad "install.sh" "$said"
has "installed and running" "$said" "is running."
has "it says how to connect" "$said" "arpc --server-addr "
key=$(cat /etc/arps/join-key)
[ "$(shown ActiveState) $(shown StatusText)" = "active serving" ] || bad "it told that it is ready" "$(systemctl status arps)"
ok "it told that it is ready"
[ "$(ps -o user= -p "$(shown MainPID)")" = arps ] || bad "it is not root"
ok "it is not root"
[ "$(shown NFileDescriptorStore)" = 3 ] || bad "systemd keeps its three sockets" "$(shown NFileDescriptorStore)"
ok "systemd keeps its three sockets"
has "sudo arps status speaks of this relay" "$(arps status)" "public [::]:17003"
has "and so does arps clients" "$(arps clients)" "no client is known yet"
systemd-analyze security --threshold=20 --no-pager arps >/dev/null || bad "it is locked down" "$(systemd-analyze security arps)"
ok "$(systemd-analyze security --no-pager arps | sed -n 's/.*\(Overall exposure.*\)/\1/p' | tr -cd '[:print:]')"

# systemctl edit, in an editor that types for us; it wants a terminal.
edit() { # LINES
    printf '[Service]\n%b\n' "$1" >/tmp/typed
    # Between the two comments that systemd puts there, in place of what stands between them.
    cat >/tmp/editor <<'SH'
#!/bin/sh
# A line to begin at may come before the file.
for file; do :; done
awk '/^### (Lines|Edits) below/ { while ((getline line <"/tmp/typed") > 0) print line; off = 0 } !off
    /^### Anything between/ { off = 1 }' "$file" >/tmp/edited && cat /tmp/edited >"$file"
SH
    chmod 755 /tmp/editor
    SYSTEMD_EDITOR=/tmp/editor script -qec "systemctl edit arps" /tmp/edit.log >/dev/null || bad "systemctl edit" "$(cat /tmp/edit.log)"
}
settings='Environment="PUBLIC_PORT=80"\nEnvironment="CONTROL_PORT=17101" "PROXY_PORT=17102" "POOL_SIZE=7"\nEnvironment="ARPS_CONFIG=/etc/arps/arps.toml"'
echo 'max-conns = 1000' >/etc/arps/arps.toml
edit "$settings"
systemctl restart arps || bad "systemctl edit, restart" "$(journalctl -u arps --no-pager | tail)"
has "the ports of systemctl edit" "$(arps status)" "control [::]:17101, proxy [::]:17102, public [::]:80"
has "and the pool size" "$(tr '\0' ' ' <"/proc/$(shown MainPID)/cmdline")" "--pool-size 7"

# The installation once more, as an upgrade.
said=$(bash -s <"/opt/scripts/install.sh" 2>&1) || bad "install.sh, again" "$said"
has "install.sh, again: the edge is told these ports" "$said" "--control-port 17101 --proxy-port 17102 --command-mode"
[ "$(cat /etc/arps/join-key)" = "$key" ] || bad "the join key stays"
has "the key and the settings stay" "$(arps status)" "public [::]:80"

# Reload.
echo 'max-conns = 2000' >/etc/arps/arps.toml
before=$(shown MainPID)
systemctl reload arps || bad "systemctl reload" "$(journalctl -u arps --no-pager | tail)"
has "systemctl reload" "$(journalctl -u arps --no-pager -o cat)" "in use now: --max-conns"
echo 'max-connections = 1' >/etc/arps/arps.toml
if systemctl reload arps 2>/dev/null; then bad "faulty settings fail the reload"; fi
has "faulty settings fail the reload, and are told" "$(journalctl -u arps --no-pager -o cat)" "max-connections"
[ "$(shown MainPID) $(shown ActiveState)" = "$before active" ] || bad "and it serves on" "$(systemctl status arps)"
ok "and it serves on"
echo 'max-conns = 2000' >/etc/arps/arps.toml

# The edge agent as a service of a user.
useradd --create-home --shell /bin/bash alice
loginctl enable-linger alice
until_ok "a user manager" systemctl is-active "user@$(id -u alice)"
printf '%s\n' "$key" >/home/alice/join-key && chown alice: /home/alice/join-key && chmod 600 /home/alice/join-key
alice() {
    runuser -u alice -- env HOME=/home/alice ARP_BASE_URL="$ARP_BASE_URL" XDG_RUNTIME_DIR="/run/user/$(id -u alice)" \
        PATH="/home/alice/.local/bin:$PATH" bash -c "cd; $1" 2>&1
}
systemd-run --quiet --unit demo /opt/built/arp-demo 3000
said=$(alice 'bash -s </opt/scripts/install-client.sh') || bad "install-client.sh" "$said"
if said=$(alice "arpc service status"); then bad "no service yet" "$said"; fi
has "no service yet" "$said" "is not set up"
said=$(alice 'arpc service install -- --server-addr 127.0.0.1 --control-port 17101 --proxy-port 17102 --join-key-file ~/join-key \
    --client-id demo --local-port 3000') || bad "arpc service install" "$said"
has "arpc service install" "$said" "started"
has "arpc service status" "$(alice "arpc service status")" "the service arpc runs"
until_ok "it is registered" alice "arpc status"
has "arpc status finds it, whatever its id" "$(alice "arpc status")" "registered"
until_ok "a visitor comes in by port 80" curl -fsS -o /dev/null "http://127.0.0.1/?token=demo"
ok "a visitor comes in by port 80"
has "arps clients shows it" "$(arps clients)" "online"

# Restarts under load. What wrk calls a time-out came late, not never.
wrk -t1 -c16 -d16s --timeout 20s "http://127.0.0.1:80/?token=demo" >/tmp/wrk.log &
load=$!
for _ in 1 2 3; do
    sleep 4
    systemctl restart arps || bad "restart under load" "$(journalctl -u arps --no-pager | tail)"
done
wait $load
grep -E "requests in|Socket errors|Non-2xx" /tmp/wrk.log || bad "wrk" "$(cat /tmp/wrk.log)"
if grep -qE "Non-2xx|Socket errors: connect [1-9]" /tmp/wrk.log; then bad "nobody is refused by a restart"; fi
ok "nobody is refused by a restart"

# The watchdog: a relay that stands still is ended and started again.
edit "$settings\nWatchdogSec=3"
systemctl restart arps
before=$(shown MainPID)
kill -STOP "$before"
anew() { [ "$(shown MainPID)" != "$before" ] && [ "$(shown ActiveState)" = active ]; }
until_ok "the watchdog starts a stuck relay anew" anew
[ "$(count 'Watchdog timeout')" -ge 1 ] || bad "it was the watchdog" "$(journalctl -u arps --no-pager | tail)"
ok "the watchdog starts a stuck relay anew"
edit "$settings"
systemctl restart arps

# Other flags by the same command; and a session, which is to run on through all that follows.
said=$(alice 'arpc service install -- --server-addr 127.0.0.1 --control-port 17101 --proxy-port 17102 --join-key-file ~/join-key \
    --client-id demo --command-mode --agent-path=claude=/opt/built/scripted_claude') || bad "arpc service install, again" "$said"
sessions() { curl -fsS "http://127.0.0.1/api/sessions$1?token=demo" "${@:2}"; }
until_ok "command mode" sessions ""
session=$(sessions "" -H 'content-type: application/json' \
    -d '{"executor":"claude","prompt":"ticks 100000 50","project_path":"/home/alice"}' | sed -n 's/.*"session_id":"\([^"]*\)".*/\1/p')
[ -n "$session" ] || bad "a session starts" "$(sessions "")"
lines() { sessions "/$session" | sed -n 's/.*"total_lines":\([0-9]*\).*/\1/p'; }
goes_on() { [ "$(lines)" -gt "$before" ]; }
of_agent() { pgrep -u alice -f 'scripted_claude -p'; }
until_ok "its agent" of_agent
agent=$(of_agent)

# Updates: a new version, the same once more, one that does not start.
release new
said=$(arps update 2>&1) || bad "arps update" "$said"
has "arps update" "$said" "(new) serves now"
has "the service runs it" "$(arps status)" "(new)"
has "there is nothing newer" "$(arps update)" "is the newest"
until_ok "the edge agent is back" alice "arpc status"
before=$(alice "systemctl --user show arpc -p MainPID --value")
said=$(alice "arpc update") || bad "arpc update" "$said"
has "arpc update" "$said" "(new) runs now"
[ "$(alice "systemctl --user show arpc -p MainPID --value")" != "$before" ] || bad "the user's service runs it"
ok "the user's service runs it"
for program in arps arpc arpc-session-host; do
    printf '#!/bin/sh\n[ "$1" = --version ] && echo "%s 9.9.9" && exit\nexit 1\n' $program >"/srv/$name/$program"
done
publish
# No limit of starts in between: it is started six times within a few seconds.
if said=$(arps update 2>&1); then bad "a relay that does not start" "$said"; fi
has "a relay that does not start makes room for the old one" "$said" "the old one is back"
has "which serves" "$(arps status)" "(new)"
if said=$(alice "arpc update"); then bad "an edge agent that does not start" "$said"; fi
has "an edge agent that does not start makes room for the old one" "$said" "the old one is back"
until_ok "which serves" alice "arpc status"
until_ok "visitors come in" curl -fsS -o /dev/null "http://127.0.0.1/?token=demo"
ok "visitors come in"

before=$(lines)
until_ok "the session goes on" goes_on
[ "$(of_agent)" = "$agent" ] || bad "in the process of before" "$(pgrep -a -u alice)"
ok "a session goes on in its process"

# Away with it.
has "arpc service uninstall" "$(alice "arpc service uninstall")" "removed"
said=$(bash /opt/scripts/install.sh --uninstall --purge 2>&1) || bad "uninstall" "$said"
[ ! -e /usr/local/bin/arps ] && [ ! -e /var/lib/arps ] && [ ! -e /etc/arps ] && ! id arps >/dev/null 2>&1 || bad "nothing is left" "$said"
if systemctl is-active --quiet arps; then bad "nothing runs on"; fi
ok "uninstall and purge leave nothing"

printf '%s passed, 0 failed\n' "$passed"
