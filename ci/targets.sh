#!/usr/bin/env bash
# The library on other targets: its unit tests and some integration tests, built and run for musl (a static program) and
# for a processor of 32 bits; other systems are checked by the compiler only, but Windows has ci/windows.sh. The standard
# library is compiled for them, from Debian's sources of it.
#
# usage: ci/targets.sh [TARGET]...
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/packages.sh
source ci/debian-rust.sh
root=$PWD
scratch=${CARGO_TARGET_DIR:-$root/target}/targets

targets=("$@")
if ((${#targets[@]} == 0)); then targets=(x86_64-unknown-linux-musl i686-unknown-linux-gnu x86_64-unknown-freebsd); fi

# What the C library, the loader, or the width of a pointer has a part in. Some have sizes that 32 bits do not hold.
tests=(environment exit fork realloc_zeroed thread_end)
tests_of_64_bits=(by_address misuse size_align)

install_missing() {
    local packages pair
    mapfile -t packages < <(missing_rust)
    for pair in /usr/bin/musl-gcc:musl-tools /usr/bin/i686-linux-gnu-gcc:gcc-i686-linux-gnu \
        /usr/i686-linux-gnu/lib/ld-linux.so.2:libc6-dev-i386-cross; do
        [[ -e ${pair%%:*} ]] || packages+=("${pair##*:}")
    done
    install_packages "${packages[@]}"
}

# musl has no unwinder: gcc's serves. It asks the C library where an object lies, and is content with no answer.
make_unwinder() {
    [[ -e $scratch/musl/libunwind.a ]] && return
    mkdir -p "$scratch/musl"
    cp "$(gcc -print-file-name=libgcc_eh.a)" "$scratch/musl/new.a"
    echo 'int _dl_find_object(void *address, void *object) { (void)address; (void)object; return -1; }' |
        musl-gcc -c -fPIC -x c -o "$scratch/musl/no_object.o" -
    ar r "$scratch/musl/new.a" "$scratch/musl/no_object.o"
    mv "$scratch/musl/new.a" "$scratch/musl/libunwind.a"
}

# rustc wants a static position independent program, of which Debian's musl-gcc makes a dynamic one.
make_linker() {
    cat >"$scratch/musl/linker" <<'END'
#!/bin/bash
exec musl-gcc "${@/#-static-pie/-static}" -no-pie
END
    chmod 755 "$scratch/musl/linker"
}

install_missing
make_package
make_unwinder
make_linker

use_debian_rust
i686=/usr/i686-linux-gnu/lib
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=$scratch/musl/linker
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-Clink-self-contained=no -L$scratch/musl"
export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER=i686-linux-gnu-gcc
# Programs that find their loader themselves: some start themselves again.
link_args="-Clink-arg=-Wl,--dynamic-linker=$i686/ld-linux.so.2 -Clink-arg=-Wl,-rpath,$i686"
export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_RUSTFLAGS=$link_args

for target in "${targets[@]}"; do
    echo "-- $target"
    if [[ $target != *-linux-* ]]; then
        RUSTFLAGS="-D warnings" cargo check --quiet --lib --manifest-path "$scratch/package/Cargo.toml" \
            --target-dir "$scratch/build" --target "$target" -Zbuild-std=std,panic_abort
        continue
    fi
    # One test at a time: 32 bits have address space for one heap.
    threads=()
    chosen=("${tests[@]}" "${tests_of_64_bits[@]}")
    if [[ $target == i686-* ]]; then
        threads=(-- --test-threads=1)
        chosen=("${tests[@]}")
    fi
    cargo=(cargo test --quiet --no-fail-fast --manifest-path "$scratch/package/Cargo.toml" --target-dir "$scratch/build"
        --target "$target" -Zbuild-std=std,panic_abort,panic_unwind,test)
    "${cargo[@]}" --lib "${threads[@]}"
    "${cargo[@]}" "${chosen[@]/#/--test=}"
done
