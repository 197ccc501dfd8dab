#!/usr/bin/env bash
# Runs the tests on both cores: what looks at the whole machine (processes, mounts, interfaces before and after) one
# after the other in one pytest, everything else in another one beside it. Arguments go to both.
set -uo pipefail
cd "$(dirname "$0")/.."
pytest="${VENV:-.venv}/bin/pytest"

machine_log=$(mktemp)
"$pytest" -m "not slow" test/e2e test/node "$@" >"$machine_log" 2>&1 &
machine=$!
trap 'kill "$machine" 2>/dev/null; rm -f "$machine_log"' EXIT

status=0
"$pytest" -m "not slow" --ignore=test/e2e --ignore=test/node "$@" || status=$?
wait "$machine" || status=$?
cat "$machine_log"
exit "$status"
