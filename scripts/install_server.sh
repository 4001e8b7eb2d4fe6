#!/usr/bin/env bash
# Builds the relay from this source tree and installs it as a service: the same as install.sh, without a download.
# All flags are those of install.sh (--help lists them).
#
#     sudo scripts/install_server.sh --public-port 80
set -euo pipefail
cd "$(dirname "$0")/.."

case " $* " in
    *" --help "* | *" -h "* | *" --uninstall "*) exec scripts/install.sh "$@" ;;
esac

# Under sudo the toolchain is the caller's: it is used as the caller, so that no file in the tree becomes root's.
build=(cargo build --release --locked -p arps)
if [ -n "${SUDO_USER:-}" ] && [ "$(id -u)" = 0 ] && [ "$SUDO_USER" != root ]; then
    # shellcheck disable=SC2016
    sudo -u "$SUDO_USER" -H bash -lc 'cd "$1" && shift && exec "$@"' _ "$PWD" "${build[@]}"
else
    command -v cargo >/dev/null 2>&1 || { echo "install: cargo is missing; see rustup.rs" >&2; exit 1; }
    "${build[@]}"
fi
exec scripts/install.sh --from "${CARGO_TARGET_DIR:-target}/release" "$@"
