#!/usr/bin/env bash
# Runs the models of the lock-free protocols, within the bounds that loom_tests/README.md states. Arguments go to cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

RUSTFLAGS="--cfg loom" cargo test --release --locked --package magalloc --test 'loom_*' \
    --target-dir "${CARGO_TARGET_DIR:-target}/loom" "$@"
