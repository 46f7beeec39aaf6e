#!/usr/bin/env bash
# Has Prometheus's own checker look at the metrics: it says nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v promtool >/dev/null; then
    echo "metrics.sh: promtool is missing (apt-get install --no-install-recommends prometheus)" >&2
    exit 1
fi
cargo build --quiet --release --locked --package magalloc --example metrics
metrics=$("${CARGO_TARGET_DIR:-target}/release/examples/metrics")
said=$(promtool check metrics <<<"$metrics" 2>&1)
if [[ -n $said ]]; then
    echo "$said" >&2
    exit 1
fi
echo "metrics.sh: promtool says nothing of $(wc -l <<<"$metrics") lines"
