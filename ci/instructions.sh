#!/usr/bin/env bash
# Instructions per malloc+free pair of 64 bytes, counted by callgrind: repeatable, whatever else the machine does.
# Then the slow paths: a miss that the stash serves or takes, a block that slabs fill and a flush brings home beside its
# neighbours, and what one costs more that comes home alone.
# The start of the program falls out of the difference of two runs; the loop around the pair does not.
#
# usage: ci/instructions.sh [BOUND [BOUND_LOOKED_UP [BOUND_C]]]
# exit 1 when a pair takes more than BOUND (32) instructions with the layout known to the compiler, more than
# BOUND_LOOKED_UP (50) where it is not, so that the size class is looked up, twice; or more than BOUND_C (42) inside the
# malloc and free of the C library
set -euo pipefail
cd "$(dirname "$0")/.."

bound=${1:-32}
bound_looked_up=${2:-50}
bound_c=${3:-42}
bound_stash=560
bound_neighbours=35
bound_scattered=105
count=100000

for tool in valgrind cc; do
    if ! command -v "$tool" >/dev/null; then
        echo "instructions.sh: $tool is missing (apt-get install valgrind gcc libc6-dev)" >&2
        exit 1
    fi
done
cargo build --quiet --release --locked --package magalloc --example pairs --example slow_paths
cargo build --quiet --release --locked --package magalloc-capi
release=$(realpath "${CARGO_TARGET_DIR:-target}/release")
pairs=$release/examples/pairs
slow_paths=$release/examples/slow_paths
pairs_c=$release/examples/pairs_c
ln -sf libmagalloc.so "$release/libmagalloc.so.0"
cc -O2 -o "$pairs_c" capi/examples/pairs.c -L"$release" -lmagalloc -Wl,-rpath,"$release"

# Instructions of a whole run of a program, or of the parts that OPTIONS of callgrind choose.
instructions() {
    local log
    if ! log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1); then
        echo "$log" >&2
        return 1
    fi
    awk '/Collected/ { print $NF; found = 1 } END { exit !found }' <<<"$log"
}

# check NAME BOUND COMMAND... [-- ARGUMENTS]: prints the instructions per pair of a variant; fails above the bound.
check() {
    local name=$1 bound=$2 few many command=()
    shift 2
    while (($# > 0)) && [[ $1 != -- ]]; do
        command+=("$1")
        shift
    done
    few=$(instructions "${command[@]}" $count "${@:2}")
    many=$(instructions "${command[@]}" $((11 * count)) "${@:2}")
    awk -v name="$name" -v all=$((many - few)) -v pairs=$((10 * count)) -v bound="$bound" 'BEGIN {
        printf "%-44s %5.1f instructions per pair (bound %d)\n", name, all / pairs, bound
        exit (all / pairs > bound)
    }'
}

# least CASE ROUNDS: instructions of a case of `slow_paths`: the least of three runs, as one that the machine keeps waiting
# misses less often by the clock, and so caches less.
least() {
    for _ in 1 2 3; do
        instructions "$slow_paths" "$2" "$1" || return 1
    done | sort -n | head -n 1
}

# round CASE FEW MANY: instructions of one more round, from runs of so many rounds.
round() {
    local few many
    few=$(least "$1" "$2")
    many=$(least "$1" "$3")
    echo $(((many - few) / ($3 - $2)))
}

# check_slow NAME BOUND MORE LESS COUNT: prints (MORE - LESS) / COUNT; fails above the bound.
check_slow() {
    awk -v name="$1" -v bound="$2" -v more="$3" -v less="$4" -v count="$5" 'BEGIN {
        printf "%-44s %5.1f instructions (bound %d)\n", name, (more - less) / count, bound
        exit ((more - less) / count > bound)
    }'
}

failed=0
check "64 bytes, layout known to the compiler" "$bound" "$pairs" || failed=1
check "64 bytes, size class looked up" "$bound_looked_up" "$pairs" -- hidden || failed=1
check "64 bytes, C: malloc and free" "$bound_c" --toggle-collect=malloc --toggle-collect=free "$pairs_c" || failed=1

# Nobody but the thread itself works; the rounds have 60 blocks, 378 and 25,200, see the program.
export MAGALLOC_BACKGROUND_THREAD=0
cached=$(round cached 200 1200)
stash=$(round stash 200 1200)
neighbours=$(round neighbours 10 40)
scattered=$(round scattered 10 40)
check_slow "a miss that the stash serves, or takes" $bound_stash "$stash" $((cached * 378 / 60)) 6 || failed=1
check_slow "a block filled, and flushed with neighbours" $bound_neighbours "$neighbours" $((cached * 25200 / 60)) 25200 ||
    failed=1
check_slow "a scattered block flushed, more than that" $bound_scattered "$scattered" "$neighbours" 25200 || failed=1
if ((failed)); then
    echo "instructions.sh: above the bound, or not counted" >&2
fi
exit $failed
