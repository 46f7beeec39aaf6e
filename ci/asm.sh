#!/usr/bin/env bash
# Shows the fast paths of malloc and free as the processor sees them, from the entry to the first return, and fails
# if there is a call or an atomic read-modify-write in them. For x86-64.
#
# usage: ci/asm.sh [PROGRAM]     PROGRAM: a binary with magalloc as global allocator; default: the example `pairs`
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v objdump >/dev/null; then
    echo "asm.sh: objdump is missing (apt-get install binutils)" >&2
    exit 1
fi
program=${1:-${CARGO_TARGET_DIR:-target}/release/examples/pairs}
if (($# == 0)); then
    cargo build --quiet --release --locked --package magalloc --example pairs
fi
code=$(objdump --disassemble --demangle --no-show-raw-insn "$program")

# Prints a function up to its first return; fails if there is none, or something that may not be there.
# `xchg` with memory is atomic without a prefix; between registers, it is an ordinary instruction.
check() {
    awk -v name="$1" '
        $0 ~ "^[0-9a-f]+ <([^>]*::)?" name ">:$" { inside = 1 }
        inside && /^$/ { exit }
        inside { print }
        inside && /\t(bnd )?call|\tsyscall|\tlock |\txchg.*[(:]/ { print "    ^^^ not on the fast path"; bad = 1 }
        inside && /\t(repz |bnd )?ret/ { returned = 1; exit }
        END {
            if (!returned) print "asm.sh: no return found in " name
            exit bad || !returned
        }' <<<"$code"
}

failed=0
check __rust_alloc || failed=1
check __rust_dealloc || failed=1
if ((failed)); then
    echo "asm.sh: calls or atomic read-modify-writes on the fast path" >&2
else
    echo "no call, no atomic read-modify-write"
fi
exit $failed
