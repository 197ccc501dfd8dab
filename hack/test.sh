#!/usr/bin/env bash
# Runs the tests on both cores: what looks at the whole machine (processes, mounts, interfaces before and after) one
# after the other in one pytest, together with as much else as balances the two, and the rest in another one beside it.
# Arguments go to both.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
pytest="${VENV:-.venv}/bin/pytest"

one=(test/e2e test/node test/conformance test/integration/sdk)
machine_log=$(mktemp)
"$pytest" -m "not slow" "${one[@]}" "$@" >"$machine_log" 2>&1 &
machine=$!
trap 'kill "$machine" 2>/dev/null; rm -f "$machine_log"' EXIT

status=0
"$pytest" -m "not slow" "${one[@]/#/--ignore=}" "$@" || status=$?
wait "$machine" || status=$?
cat "$machine_log"
exit "$status"
