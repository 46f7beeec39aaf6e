#!/usr/bin/env bash
# Are the tests steady? Builds once, runs every test program of `cargo test` N times, and counts failures by test.
#
#   ci/repeat-tests.sh N [--loaded] [-- ARGUMENTS OF cargo test]
#
# --loaded keeps every processor busy meanwhile, one loop each. What is behind `--` chooses the test programs, as in
# `-- -p magalloc-capi -p magalloc-cli` or `-- --test burst_idle`. Documentation tests are not among them. Ends with 1 if
# a test failed; the output of each failed run stays in the folder that is named at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: ci/repeat-tests.sh N [--loaded] [-- ARGUMENTS OF cargo test]" >&2
    exit 2
}

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || usage
runs=$1
shift
loaded=no
if [[ ${1:-} == --loaded ]]; then
    loaded=yes
    shift
fi
if [[ $# -gt 0 ]]; then
    [[ $1 == -- ]] || usage
    shift
fi

# cargo names each program, and the package whose folder it runs in.
programs=$(cargo test --no-run --message-format=json "$@" | python3 -c '
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
        print(message["target"]["name"], os.path.dirname(message["manifest_path"]), message["executable"], sep="\t")
')
[[ -n $programs ]] || { echo "no test programs" >&2; exit 2; }

logs=$(mktemp -d "${TMPDIR:-/tmp}/repeat-tests.XXXXXX")
loops=()
cleanup() {
    ((${#loops[@]} == 0)) || kill "${loops[@]}" 2>/dev/null || true
}
trap cleanup EXIT
if [[ $loaded == yes ]]; then
    for ((processor = 0; processor < $(nproc); processor++)); do
        (while :; do :; done) &
        loops+=($!)
    done
fi

# The failed tests in a log, by name; the program's end if none is named.
failed_tests() {
    local names
    names=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$1")
    echo "${names:-(ends with $2)}"
}

failures="$logs/failures"
: >"$failures"
for ((run = 1; run <= runs; run++)); do
    before=$(wc -l <"$failures")
    begin=$SECONDS
    while IFS=$'\t' read -r name folder program; do
        log="$logs/$run-$name"
        status=0
        (cd "$folder" && "$program") >"$log" 2>&1 </dev/null || status=$?
        if ((status == 0)); then
            rm "$log"
        else
            failed_tests "$log" "$status" | sed "s/^/$name::/" >>"$failures"
        fi
    done <<<"$programs"
    echo "run $run of $runs: $(($(wc -l <"$failures") - before)) failed tests, $((SECONDS - begin)) s"
done

if [[ -s $failures ]]; then
    echo
    echo "failures, of $runs runs (output in $logs):"
    sort "$failures" | uniq -c | sort -rn
    exit 1
fi
rm -r "$logs"
echo "no failure in $runs runs"
