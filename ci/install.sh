#!/usr/bin/env bash
# Installs what the checks need beside Rust, with Debian's package manager. Does nothing where all is there.
set -euo pipefail

packages=()
for tool in cc:gcc c++:g++ objdump:binutils pkg-config:pkg-config strace:strace valgrind:valgrind; do
    command -v "${tool%%:*}" >/dev/null || packages+=("${tool##*:}")
done
if ((${#packages[@]} == 0)); then
    echo "nothing to install"
    exit 0
fi
if ((EUID != 0)); then
    echo "missing: ${packages[*]}; install them, or run this as root" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null
