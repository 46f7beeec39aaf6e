#!/usr/bin/env bash
# How much stack malloc, free, realloc, misuse reports and purges on the way need below their caller, in the optimised C
# library and in an optimised Rust program: with the purging thread, which starts amid them, and without. The programs
# are bound at their start: what the loader needs to bind malloc itself is not the allocator's.
#
# usage: ci/stack.sh [BOUND]     exit 1 when a call needs more than BOUND (2560) bytes
set -euo pipefail
cd "$(dirname "$0")/.."

bound=${1:-2560}
target=${CARGO_TARGET_DIR:-target}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

cargo build --quiet --release --locked --package magalloc-capi
cargo build --quiet --release --locked --package magalloc --example stack
gcc -O1 -Wall -Wextra -pthread -fno-builtin -Wl,-z,now -I capi/include -o "$folder/stack" capi/tests/c/stack.c

status=0
for thread in 1 0; do
    echo "C library, MAGALLOC_BACKGROUND_THREAD=$thread"
    LD_PRELOAD=$(realpath "$target/release/libmagalloc.so") MAGALLOC_PURGE_DELAY_MS=20 \
        MAGALLOC_BACKGROUND_THREAD=$thread "$folder/stack" "$bound" || status=1
    echo "Rust, MAGALLOC_BACKGROUND_THREAD=$thread"
    MAGALLOC_PURGE_DELAY_MS=20 MAGALLOC_BACKGROUND_THREAD=$thread "$target/release/examples/stack" "$bound" || status=1
done
if ((status != 0)); then
    echo "stack.sh: a call needs more than $bound bytes" >&2
fi
exit "$status"
