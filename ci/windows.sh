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
# The first program makes the folder that is its machine, and says so.
"$scratch/run" cmd /c exit >/dev/null 2>&1

# Most of the time is the compiler's.
export CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$scratch/run
cargo=(cargo test --quiet --no-fail-fast --manifest-path "$scratch/package/Cargo.toml" --target-dir "$scratch/build"
    --target "$target" -Zbuild-std=std,panic_abort,panic_unwind,test)

# Each has what Windows has not: forks, signals, pthread keys, ELF and its constructors, limits of the process, /proc to
# read its memory and threads from. tests/windows.rs has the like of them; rayon, which one needs, is left out.
tests=(accounting by_address cross_thread realloc_zeroed size_align stress windows)

skipped=(
    # Where places are held, nobody else's memory lies in them, and the kernel chooses them.
    heap::tests::out_of_memory::memory_of_others
    heap::tests::purging::what_lies_behind_a_strangers_memory
    os::tests::a_place_of_no_use
    os::tests::places_lie_below
    os::tests::what_is_mapped_already_is_taken
    # Pages are not moved, and mappings not resized.
    heap::tests::moving::
    heap::tests::mapping::the_limits_hold
    # wine notes each page of a mapping of a GiB, of which this makes 800.
    heap::tests::mapping::threads_make_and_end_mappings_at_once
)

"${cargo[@]}" --lib -- "${skipped[@]/#/--skip=}"
"${cargo[@]}" "${tests[@]/#/--test=}"
