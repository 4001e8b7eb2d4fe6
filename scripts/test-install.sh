#!/usr/bin/env bash
# shellcheck disable=SC2015,SC2016 # "bad" ends the script; and systemd expands what stands in single quotes.
# Tests the install scripts: archives made from the built programs, served from loopback, installed into folders of
# the test's own. Nothing outside them is touched. Needs the programs built (cargo build --workspace --bins).
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
server=''
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
passed=0
ok() { passed=$((passed + 1)); printf 'ok   %s\n' "$1"; }
bad() { printf 'FAIL %s\n' "$1" >&2; [ $# -lt 2 ] || printf '%s\n' "$2" >&2; exit 1; }
has() { case $2 in *"$3"*) ok "$1" ;; *) bad "$1: no «$3» in" "$2" ;; esac; }

command -v shellcheck >/dev/null && shellcheck scripts/install.sh scripts/install_server.sh scripts/install-client.sh \
    scripts/test-install.sh && ok "shellcheck"

diff <(sed -n "/^    cat <<'UNIT'$/,/^UNIT$/p" scripts/install.sh | sed '1d;$d') deploy/systemd/arps.service >/dev/null ||
    bad "the unit in install.sh is deploy/systemd/arps.service"
ok "the unit in install.sh is deploy/systemd/arps.service"
if command -v systemd-analyze >/dev/null; then
    said=$(systemd-analyze security --offline=true --threshold=20 deploy/systemd/arps.service 2>&1 | tail -n 1) ||
        bad "the unit is locked down" "$said"
    has "the unit is locked down" "$said" "exposure level"
fi

# Archives as a release has them, in two versions.
built=${CARGO_TARGET_DIR:-target}/debug
[ -x "$built/arps" ] || bad "the programs are built: cargo build --workspace --bins"
machine=$(uname -m); [ "$machine" != arm64 ] || machine=aarch64
name=arp-$machine-unknown-linux-musl
release() { # FOLDER
    mkdir -p "$1/$name"
    for program in arps arpc clp prx; do
        [ ! -x "$built/$program" ] || cp "$built/$program" "$1/$name/"
    done
    strip "$1/$name"/* 2>/dev/null || true
    tar -czf "$1/$name.tar.gz" -C "$1" "$name"
    rm -r "${1:?}/$name"
    (cd "$1" && sha256sum ./*.tar.gz | sed 's|\./||' >SHA256SUMS)
}
release "$scratch/www"
mkdir -p "$scratch/www/v9" && cp "$scratch/www/$name.tar.gz" "$scratch/www/SHA256SUMS" "$scratch/www/v9/"
# Port 0: the server says which it took.
python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$scratch/www" >"$scratch/server.log" 2>&1 &
server=$!
for _ in $(seq 200); do
    port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$scratch/server.log" | head -n 1)
    [ -z "$port" ] || break
    kill -0 "$server" || bad "the server of the archives runs" "$(cat "$scratch/server.log")"
    sleep 0.1
done
export ARP_BASE_URL=http://127.0.0.1:$port NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

# The relay, as `curl … | bash` runs it: no terminal.
root=$scratch/root
install() { bash -s -- --root "$root" "$@" <scripts/install.sh 2>&1; }
said=$(install --public-port 80 --host relay.example)
has "it says how to connect" "$said" "arpc --server-addr relay.example --command-mode"
has "it names the ports to open" "$said" "17001, 17002, 80"
key=$(cat "$root/etc/arps/join-key")
[ ${#key} -ge 43 ] || bad "a join key was made" "$key"
has "and prints it for the edge" "$said" "ARPC_JOIN_KEY='$key'"
[ "$(stat -c %a "$root/etc/arps/join-key")" = 600 ] || bad "only root reads the join key"
ok "only root reads the join key"
has "the program runs" "$("$root/usr/local/bin/arps" --version)" "arps "
unit=$root/etc/systemd/system/arps.service
has "the asked port is in a file of its own" "$(cat "$unit.d/10-install.conf")" "Environment=PUBLIC_PORT=80"
has "the unit keeps the default" "$(cat "$unit")" "PUBLIC_PORT=17003"

said=$(ARP_VERSION=v9 install --host relay.example --pool-size=7)
[ "$(cat "$root/etc/arps/join-key")" = "$key" ] || bad "an upgrade keeps the join key"
ok "an upgrade keeps the join key"
has "an upgrade keeps the port" "$(cat "$unit.d/10-install.conf")" "Environment=PUBLIC_PORT=80"
has "and takes what is new" "$(cat "$unit.d/10-install.conf")" "Environment=POOL_SIZE=7"
has "the line for the edge stays" "$said" "17001, 17002, 80"

echo broken >>"$scratch/www/$name.tar.gz"
before=$(sha256sum "$root/usr/local/bin/arps")
if said=$(install); then bad "a damaged archive is refused" "$said"; fi
has "a damaged archive is refused" "$said" "not what SHA256SUMS says"
[ "$before" = "$(sha256sum "$root/usr/local/bin/arps")" ] || bad "and nothing was changed"
ok "and nothing was changed"
if said=$(ARP_VERSION=v0 install); then bad "a version that is not there is told" "$said"; fi
has "a version that is not there is told" "$said" "cannot fetch"
if said=$(install --public-port 0); then bad "a bad port is told" "$said"; fi
has "a bad port is told" "$said" "from 1 to 65535"

said=$(install --from "$built" --no-join-key --host h)
has "without a key" "$said" "  arpc --server-addr h --command-mode"
case $(cat "$unit") in *join-key*) bad "the unit then asks for none" ;; *) ok "the unit then asks for none" ;; esac

said=$(install --uninstall)
has "what is kept is told" "$said" "--uninstall --purge"
[ ! -e "$root/usr/local/bin/arps" ] && [ ! -e "$unit" ] && [ -e "$root/etc/arps/join-key" ] || bad "uninstall keeps the key"
install --uninstall --purge >/dev/null
[ ! -e "$root/etc/arps" ] || bad "purge removes the key"
ok "uninstall and purge"

# The unit, as systemd reads it, and its command, run.
line=$(sed -n 's/^ExecStart=//p' deploy/systemd/arps.service)
line=${line/\/usr\/local\/bin\/arps/$built/arps}
line=$(CONTROL_PORT=17001 PROXY_PORT=17002 PUBLIC_PORT=80 POOL_SIZE=5 envsubst <<<"$line" 2>/dev/null ||
    sed 's/\${CONTROL_PORT}/17001/; s/\${PROXY_PORT}/17002/; s/\${PUBLIC_PORT}/80/; s/\${POOL_SIZE}/5/' <<<"$line")
# shellcheck disable=SC2086
said=$($line --data-dir "$scratch/data" --check-config)
has "the unit's command is understood" "$said" "configuration is good"

# The edge agent.
said=$(HOME=$scratch/home ARP_VERSION=v9 bash -s -- --prefix "$scratch/home/.local" <scripts/install-client.sh 2>&1)
has "the edge agent says what is next" "$said" "arpc --server-addr RELAY --command-mode"
has "and where it is" "$said" "PATH"
has "it runs" "$("$scratch/home/.local/bin/arpc" --version)" "arpc "
HOME=$scratch/home bash scripts/install-client.sh --prefix "$scratch/home/.local" --uninstall >/dev/null
[ ! -e "$scratch/home/.local/bin/arpc" ] || bad "it can be removed"
ok "it can be removed"
if said=$(env -u ARP_BASE_URL bash scripts/install-client.sh --prefix "$scratch/x" 2>&1); then bad "no address, no install" "$said"; fi
has "without an address it says what to set" "$said" "ARP_BASE_URL"

printf '%s passed, 0 failed\n' "$passed"
