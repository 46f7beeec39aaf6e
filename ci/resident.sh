#!/usr/bin/env bash
# Resident memory of an empty program on magalloc, against the same on the system's allocator: medians of 11 runs
# each, in turns.
#
# usage: ci/resident.sh [BOUND]     exit 1 when the difference is above BOUND (400) KiB
set -euo pipefail
cd "$(dirname "$0")/.."

bound=${1:-400}
runs=11

cargo build --quiet --release --locked --package magalloc --example empty --example empty_system
examples=${CARGO_TARGET_DIR:-target}/release/examples

magalloc=()
system=()
for ((run = 0; run < runs; run++)); do
    magalloc+=("$("$examples/empty")")
    system+=("$("$examples/empty_system")")
done

median() {
    printf '%s\n' "$@" | sort -n | sed -n "$((runs / 2 + 1))p"
}

with=$(median "${magalloc[@]}")
without=$(median "${system[@]}")
more=$((with - without))
echo "empty program: $with KiB resident on magalloc, $without KiB on the system's allocator"
echo "difference: $more KiB (bound $bound)"
if ((more > bound)); then
    echo "resident.sh: more than $bound KiB" >&2
    exit 1
fi
