#!/usr/bin/env bash
# What the C library costs a program that does nothing: time to start and end `true`, and resident memory at the end of
# a program, with and without the library preloaded, in turns.
#
# usage: ci/start.sh [MICROSECONDS [KIB]]
# exit 1 when the difference of the medians is above MICROSECONDS (1000) or KIB (480: what is there takes 376 to 384, and a page more each in another 24 places shows)
set -euo pipefail
cd "$(dirname "$0")/.."

bound_us=${1:-1000}
bound_kib=${2:-480}
turns=21
starts=50

cargo build --quiet --release --locked --package magalloc-capi
library=$(realpath "${CARGO_TARGET_DIR:-target}/release/libmagalloc.so")
true=$(type -P true)

# Microseconds of one start, as the mean of some.
time_of() {
    local begin=${EPOCHREALTIME/[.,]/}
    for ((start = 0; start < starts; start++)); do
        env "$@" "$true"
    done
    echo $(((${EPOCHREALTIME/[.,]/} - begin) / starts))
}

# KiB resident at the end of a shell that does nothing else than to look.
resident_of() {
    env "$@" sh -c 'while read -r name value _; do case $name in VmRSS:) echo "$value" ;; esac; done </proc/self/status'
}

median() {
    printf '%s\n' "$@" | sort -n | sed -n "$((turns / 2 + 1))p"
}

for ((turn = 0; turn < turns; turn++)); do
    system_us+=("$(time_of NO_PRELOAD=)")
    magalloc_us+=("$(time_of LD_PRELOAD="$library")")
    system_kib+=("$(resident_of NO_PRELOAD=)")
    magalloc_kib+=("$(resident_of LD_PRELOAD="$library")")
done

more_us=$(($(median "${magalloc_us[@]}") - $(median "${system_us[@]}")))
more_kib=$(($(median "${magalloc_kib[@]}") - $(median "${system_kib[@]}")))
echo "env and true: $more_us microseconds more (bound $bound_us), of $(median "${system_us[@]}")"
echo "a shell: $more_kib KiB more resident (bound $bound_kib), of $(median "${system_kib[@]}")"
if ((more_us > bound_us || more_kib > bound_kib)); then
    echo "start.sh: above the bound" >&2
    exit 1
fi
