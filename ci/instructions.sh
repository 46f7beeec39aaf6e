#!/usr/bin/env bash
# Instructions per malloc+free pair of 64 bytes, counted by callgrind: repeatable, whatever else the machine does.
# The start of the program falls out of the difference of two runs; the loop around the pair does not.
#
# usage: ci/instructions.sh [BOUND [BOUND_LOOKED_UP]]
# exit 1 when a pair takes more than BOUND (32) instructions with the layout known to the compiler, or more than
# BOUND_LOOKED_UP (50) where it is not, so that the size class is looked up, twice
set -euo pipefail
cd "$(dirname "$0")/.."

bound=${1:-32}
bound_looked_up=${2:-50}
count=100000

if ! command -v valgrind >/dev/null; then
    echo "instructions.sh: valgrind is missing (apt-get install valgrind)" >&2
    exit 1
fi
cargo build --quiet --release --locked --package magalloc --example pairs
pairs=${CARGO_TARGET_DIR:-target}/release/examples/pairs

# Instructions of a whole run.
instructions() {
    local log
    if ! log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$pairs" "$@" 2>&1); then
        echo "$log" >&2
        return 1
    fi
    awk '/Collected/ { print $NF; found = 1 } END { exit !found }' <<<"$log"
}

# Prints the instructions per pair of a variant of the program; fails above the bound.
check() {
    local name=$1 bound=$2 few many
    shift 2
    few=$(instructions $count "$@")
    many=$(instructions $((11 * count)) "$@")
    awk -v name="$name" -v all=$((many - few)) -v pairs=$((10 * count)) -v bound="$bound" 'BEGIN {
        printf "%-44s %5.1f instructions per pair (bound %d)\n", name, all / pairs, bound
        exit (all / pairs > bound)
    }'
}

failed=0
check "64 bytes, layout known to the compiler" "$bound" || failed=1
check "64 bytes, size class looked up" "$bound_looked_up" hidden || failed=1
if ((failed)); then
    echo "instructions.sh: above the bound, or not counted" >&2
fi
exit $failed
