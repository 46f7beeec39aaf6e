#!/usr/bin/env bash
# Counts how often a malloc and a free of 4 to 192 logical threads want a cache line that another thread has, and fails
# where that grows with the threads; see src/heap/tests/contention.rs. Arguments go to the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

RUSTFLAGS="--cfg magalloc_scheduled" cargo test --release --locked --package magalloc --lib \
    --target-dir "${CARGO_TARGET_DIR:-target}/scheduled" heap::tests::contention -- --nocapture --test-threads 1 "$@"
