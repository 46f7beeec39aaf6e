#!/usr/bin/env bash
# The comparison's quick form on two workloads and on the allocators that build in seconds: does it run, and is what it
# writes whole? How fast who is, is no matter here. Without rpmalloc, which crashes now and then (SIGSEGV in
# larson and in rayon-sort, its crate's 0.2.3): a row that says so, and no failure of ours.
set -euo pipefail
cd "$(dirname "$0")/.."

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
cargo run --release --locked -p magalloc-compare -- --quick --only larson,json --by-threads 1,4 \
    --allocators magalloc,system,mimalloc-v2,mimalloc-v3 --json "$results/results.json" --html "$results/page.html"

python3 - "$results" <<'END'
import json, sys
from pathlib import Path

folder = Path(sys.argv[1])
results = json.loads((folder / "results.json").read_text())
assert [row["workload"] for row in results["rows"]] == ["larson", "json"], results["rows"]
for row in results["rows"]:
    assert row["counted"]["live_peak"] > 100_000, row
    for cell in row["cells"]:
        assert cell["failure"] is None and len(cell["runs"]) == 3, cell
        assert all(run["wall"] > 0 and run["peak"] > row["counted"]["live_peak"] for run in cell["runs"]), cell
        assert cell["memory"]["idle"] > 0, cell
assert [series["at"] for series in results["by_threads"]] == [[1, 4]], results["by_threads"]
page = (folder / "page.html").read_text()
assert all(name in page for name in ("larson", "json", "mimalloc-v2", "mimalloc-v3")) and "http-equiv" not in page
print(f"results and a page of {len(page) >> 10} KiB")
END

echo "-- bad names are refused with the list of the valid ones"
for option in --only --allocators; do
    status=0
    cargo run --release --locked -q -p magalloc-compare -- "$option" nope 2>"$results/words" || status=$?
    ((status == 2)) && grep -q "possible values: .*magalloc\|possible values: .*larson" "$results/words" || {
        cat "$results/words"
        echo "$option nope: exit $status" >&2
        exit 1
    }
done
