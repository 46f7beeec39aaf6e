#!/usr/bin/env bash
# Format, lints and documentation, also of what only the models compile. No warning is accepted.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "-- format"
cargo fmt --all --check

echo "-- clippy"
cargo clippy --workspace --all-targets --locked -- -D warnings

# The C library switches a feature on that the crate alone has not.
echo "-- clippy, the crate alone"
cargo clippy --locked --all-targets -- -D warnings

echo "-- clippy, the crate with the trait of allocator-api2"
cargo clippy --locked --package magalloc --all-targets --features allocator-api2-02,allocator-api2-04 -- -D warnings

echo "-- clippy, models"
RUSTFLAGS="--cfg loom" cargo clippy --locked --package magalloc --lib --test 'loom_*' \
    --target-dir "${CARGO_TARGET_DIR:-target}/loom" -- -D warnings

echo "-- clippy, the contention count"
RUSTFLAGS="--cfg magalloc_scheduled" cargo clippy --locked --package magalloc --lib --profile test \
    --target-dir "${CARGO_TARGET_DIR:-target}/scheduled" -- -D warnings

echo "-- documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
