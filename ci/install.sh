#!/usr/bin/env bash
# Installs what the checks need beside Rust, with Debian's package manager. Does nothing where all is there.
set -euo pipefail
source "$(dirname "$0")/packages.sh"

packages=()
for tool in cc:gcc c++:g++ objdump:binutils pkg-config:pkg-config strace:strace valgrind:valgrind promtool:prometheus; do
    command -v "${tool%%:*}" >/dev/null || packages+=("${tool##*:}")
done
if ((${#packages[@]} == 0)); then
    echo "nothing to install"
fi
install_packages "${packages[@]}"
