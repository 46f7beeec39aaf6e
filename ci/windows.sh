#!/usr/bin/env bash
# The library on Windows: its unit tests, and the integration tests that do not need POSIX, built for MinGW and run under
# wine. wine shows behaviour, not timing. The standard library is compiled for it, from Debian's sources of it.
#
# usage: ci/windows.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/packages.sh
source ci/debian-rust.sh
root=$PWD
scratch=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/windows
target=x86_64-pc-windows-gnu
wine=/usr/lib/wine/wine64

install_missing() {
    local packages pair
    mapfile -t packages < <(missing_rust)
    for pair in /usr/bin/x86_64-w64-mingw32-gcc-posix:gcc-mingw-w64-x86-64-posix "$wine:wine64"; do
        [[ -e ${pair%%:*} ]] || packages+=("${pair##*:}")
    done
    install_packages "${packages[@]}"
}

# wine 8 lacks this library of Windows, from which the standard library has its random numbers.
make_random_library() {
    mkdir -p "$scratch/libraries"
    x86_64-w64-mingw32-gcc -shared -O -x c -o "$scratch/libraries/bcryptprimitives.dll" - -ladvapi32 <<'END'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(void *bytes, ULONG count);
__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *bytes, SIZE_T count) { return SystemFunction036(bytes, (ULONG)count); }
END
}

# Runs a program under wine.
make_runner() {
    cat >"$scratch/run" <<END
#!/bin/sh
export WINEPREFIX="$scratch/prefix" WINEDEBUG=-all WINEPATH="$scratch/libraries" WINEDLLOVERRIDES="winemenubuilder.exe,mscoree,mshtml=d"
exec $wine "\$@"
END
    chmod 755 "$scratch/run"
}

install_missing
use_debian_rust
make_package
make_random_library
make_runner

export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$scratch/run
cargo=(cargo test --quiet --no-fail-fast --manifest-path "$scratch/package/Cargo.toml" --target-dir "$scratch/build"
    --target "$target" -Zbuild-std=std,panic_abort,panic_unwind,test)
