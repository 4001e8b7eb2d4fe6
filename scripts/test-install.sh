#!/usr/bin/env bash
# shellcheck disable=SC2015,SC2016 # "bad" ends the script; and systemd expands what stands in single quotes.
# Tests the install scripts: archives made from the built programs, served from loopback, installed into folders of
# the test's own. Nothing outside them is touched. Needs the programs built (cargo build --workspace --bins).
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
server=''
clean() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    # Both daemons of the updates.
    for name in arpc arps; do
        [ ! -s "$scratch/up/$name.pid" ] || kill "$(cat "$scratch/up/$name.pid")" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap clean EXIT
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

# The commit in --version, of a release build: from git, from an archive of the sources, from neither; or as it is told.
rustc --edition 2024 -o "$scratch/commit" arp-common/commit.rs
commit() { (cd "$1/arp-server" && env -u ARP_COMMIT PROFILE=release "${@:2}" "$scratch/commit" | sed -n 's/^cargo::rustc-env=ARP_COMMIT=//p'); }
mkdir -p "$scratch/sources/arp-server" "$scratch/sources/arp-common" "$scratch/archive" "$scratch/neither/arp-server"
has "told: the commit" "$(commit . ARP_COMMIT=abc)" "abc"
has "a development build says so" "$(commit . PROFILE=debug)" "dev"
has "without git: the commit is not known" "$(commit "$scratch/neither")" "unknown"
if git rev-parse --verify --quiet HEAD >/dev/null 2>&1; then
    has "in a clone: the commit of git" "$(commit .)" "$(git rev-parse --short=12 HEAD)"
    # What is in git here, in a repository of its own.
    cp arp-common/commit.txt "$scratch/sources/arp-common/" && cp .gitattributes "$scratch/sources/" && : >"$scratch/sources/arp-server/file"
    git -C "$scratch/sources" init --quiet
    git -C "$scratch/sources" add .
    git -C "$scratch/sources" -c user.name=test -c user.email=test@example.com -c commit.gpgsign=false commit --quiet --message test
    git -C "$scratch/sources" archive HEAD | tar -x -C "$scratch/archive"
    has "in an archive: the commit that it was made of" "$(commit "$scratch/archive")" "$(git -C "$scratch/sources" rev-parse --short=12 HEAD)"
    rm -rf "$scratch/sources/.git"
    has "in a copy without git: not known either" "$(commit "$scratch/sources")" "unknown"
fi

# Archives as a release has them, in two versions.
built=${CARGO_TARGET_DIR:-target}/debug
[ -x "$built/arps" ] || bad "the programs are built: cargo build --workspace --bins"
machine=$(uname -m); [ "$machine" != arm64 ] || machine=aarch64
name=arp-$machine-unknown-linux-musl
release() { # FOLDER
    mkdir -p "$1/$name"
    for program in arps arpc arpc-session-host clp prx; do
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

printf '[Service]\nEnvironment="CONTROL_PORT=17101" "POOL_SIZE=3"\n' >"$unit.d/override.conf"
has "a port of systemctl edit is in the line for the edge" "$(install --host h --from "$built")" "--server-addr h --control-port 17101 --command-mode"
rm "$unit.d/override.conf"

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
has "and so does the session host beside it" "$("$scratch/home/.local/bin/arpc-session-host" --version)" "arpc-session-host "
HOME=$scratch/home bash scripts/install-client.sh --prefix "$scratch/home/.local" --uninstall >/dev/null
[ -z "$(ls -A "$scratch/home/.local/bin")" ] || bad "it can be removed" "$(ls -A "$scratch/home/.local/bin")"
ok "it can be removed"
if said=$(env -u ARP_BASE_URL bash scripts/install-client.sh --prefix "$scratch/x" 2>&1); then bad "no address, no install" "$said"; fi
has "without an address it says what to set" "$said" "ARP_BASE_URL"

# Updates, of programs that run: another version, a damaged one, one that does not start. The init script of a machine
# without systemd stands for its restart.
up=$scratch/up
mkdir -p "$up/bin" "$up/home" "$scratch/www/new/$name" "$scratch/www/bad/$name"
tar -xzf "$scratch/www/v9/$name.tar.gz" -C "$up"
for program in arps arpc arpc-session-host; do
    mv "$up/$name/$program" "$up/bin/"
    # A text of the same length makes another version of the same program.
    LC_ALL=C sed 's/ (dev)/ (new)/g' "$up/bin/$program" >"$scratch/www/new/$name/$program"
    printf '#!/bin/sh\n[ "$1" = --version ] && echo "%s 9.9.9" && exit\nexit 1\n' $program >"$scratch/www/bad/$name/$program"
done
for of in new bad; do
    chmod 755 "$scratch/www/$of/$name"/*
    tar -cf - -C "$scratch/www/$of" "$name" | gzip -1 >"$scratch/www/$of/$name.tar.gz"
    (cd "$scratch/www/$of" && sha256sum "$name.tar.gz" >SHA256SUMS)
done
mkdir "$scratch/www/torn" && cp "$scratch/www/new/SHA256SUMS" "$scratch/www/torn/"
head -c 100000 "$scratch/www/new/$name.tar.gz" >"$scratch/www/torn/$name.tar.gz"
cat >"$up/init" <<'SH'
#!/bin/sh
# init NAME: starts it anew, and ends well when it answers.
cd "$(dirname "$0")" || exit
lives() { case $(sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null) in '' | Z) return 1 ;; esac; }
[ ! -s "$1.pid" ] || kill "$(cat "$1.pid")" 2>/dev/null
while [ -s "$1.pid" ] && lives "$(cat "$1.pid")"; do sleep 0.1; done
export HOME=$PWD/home XDG_DATA_HOME=$PWD/home/data
set -f
# shellcheck disable=SC2046
"./bin/$1" $(cat "$1.flags") >>"$1.log" 2>&1 &
pid=$!
echo $pid >"$1.pid"
until "./bin/$1" status --data-dir "$1-data" >/dev/null 2>&1; do lives $pid || exit 1; sleep 0.1; done
SH
daemon() { ARP_BASE_URL=$ARP_BASE_URL/$2 "$up/bin/$1" --data-dir "$up/$1-data" update --restart "sh $up/init $1" 2>&1; }
answers() { HOME=$up/home "$up/bin/$1" status --data-dir "$up/$1-data" 2>&1; }
flags="--bind 127.0.0.1 --admin-port 0 --data-dir arps-data"
echo "$flags --control-port 0 --proxy-port 0 --public-port 0" >"$up/arps.flags"
sh "$up/init" arps || bad "the relay starts" "$(cat "$up/arps.log")"
read -r control proxy public < <(sed -n 's/.*control [^ ]*:\([0-9]*\), proxy [^ ]*:\([0-9]*\), public [^ ]*:\([0-9]*\)$/\1 \2 \3/p' "$up/arps.log")
echo "$flags --control-port $control --proxy-port $proxy --public-port $public" >"$up/arps.flags"
agent=$PWD/$built/examples/scripted_claude
echo "--server-addr 127.0.0.1 --control-port $control --proxy-port $proxy --client-id demo --command-mode
    --agent-path=claude=$agent --data-dir arpc-data" >"$up/arpc.flags"
sh "$up/init" arpc || bad "the edge agent starts" "$(cat "$up/arpc.log")"
api() { curl -fsS "http://127.0.0.1:$public/api/sessions$1?token=demo" "${@:2}"; }
lines() { api "/$session" | sed -n 's/.*"total_lines":\([0-9]*\).*/\1/p'; }
session=''
if [ -x "$agent" ]; then
    session=$(api "" -H 'content-type: application/json' \
        -d "{\"executor\":\"claude\",\"prompt\":\"ticks 100000 50\",\"project_path\":\"$up\"}" |
        sed -n 's/.*"session_id":"\([^"]*\)".*/\1/p')
    [ -n "$session" ] || bad "a session starts" "$(api "")"
fi
for program in arps arpc; do
    if said=$(daemon $program torn); then bad "$program: a download that breaks off is refused" "$said"; fi
    has "$program: a download that breaks off is refused" "$said" "not what SHA256SUMS says"
    said=$(daemon $program new) || bad "$program update" "$said$(cat "$up/$program.log")"
    has "$program update" "$said" "(new)"
    has "$program: the new one runs" "$(answers $program)" "(new)"
    has "$program: it is the newest" "$(daemon $program new)" "is the newest"
    if said=$(daemon $program bad); then bad "$program: one that does not start" "$said"; fi
    has "$program: one that does not start makes room for the old one" "$said" "the old one is back"
    has "$program: which runs" "$(answers $program)" "(new)"
    [ $program = arps ] || has "the session host comes along, and goes back" "$("$up/bin/arpc-session-host" --version)" "(new)"
    [ -z "$(find "$up/bin" -name '.arp-update*')" ] || bad "$program: nothing is left behind" "$(ls -A "$up/bin")"
done
if [ -n "$session" ]; then
    before=$(lines)
    for _ in $(seq 300); do
        if [ "$(lines)" -gt "$before" ]; then before=''; break; fi
        sleep 0.1
    done
    [ -z "$before" ] || bad "a session runs on through all of that" "$(api "/$session" | head -c 600)"
    ok "a session runs on through all of that"
    # Its agent is ended before the edge is, which would leave it to the next one.
    api "/$session" -X DELETE >/dev/null
    for _ in $(seq 300); do
        case $(api "/$session" 2>/dev/null || true) in *'"status":"running"'*) sleep 0.1 ;; *) break ;; esac
    done
fi

printf '%s passed, 0 failed\n' "$passed"
