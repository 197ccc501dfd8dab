#!/usr/bin/env bash
# Runs tests in three pytests side by side, each about as long as the others: tests with real processes wait more than
# they compute, so that three keep two cores busy. What looks at the whole machine is among neighbours that leave it
# alone: one stack of the command at a time (test/e2e), one node at a time (test/node). A helper that outlives its node
# looks as if a stack had left it, so the tests of that are with the stacks.
# Usage: hack/test.sh "MARKERS" [argument of pytest...]
set -uo pipefail
cd "$(dirname "$0")/.." || exit
python="${VENV:-.venv}/bin/python"
markers=$1
shift

# Programs that tests start hundreds of times are not compiled each time, even where the environment wishes no bytecode.
unset PYTHONDONTWRITEBYTECODE
"$python" -m compileall -q -j 0 agent_sandbox api controllers

survivors=test/node/test_takeover.py
stacks=(test/e2e "$survivors" test/conformance test/unit)
nodes=(test/node test/integration/sdk "--ignore=$survivors")
rest=(--ignore=test/{e2e,conformance,unit,node,integration/sdk})

logs=$(mktemp -d)
running=()
trap 'kill -INT "${running[@]}" 2>/dev/null; wait; rm -rf "$logs"' EXIT # their stacks and nodes end in order
pytest=("$python" -m pytest -m "$markers")
"${pytest[@]}" "${stacks[@]}" "$@" >"$logs/stacks" 2>&1 &
running+=($!)
"${pytest[@]}" "${nodes[@]}" "$@" >"$logs/nodes" 2>&1 &
running+=($!)

status=5 # as pytest's where the arguments choose no test, which may be so in one or two of the three
note() {
  case $1 in
    5) ;;
    0) [ "$status" != 5 ] || status=0 ;;
    *) status=$1 ;;
  esac
}
"${pytest[@]}" "${rest[@]}" "$@"
note $?
for pid in "${running[@]}"; do
  wait "$pid"
  note $?
done
cat "$logs/stacks" "$logs/nodes"
exit "$status"
