#!/usr/bin/env bash
# Runs what needs a real kube-apiserver, against servers started for it: what only a real one can tell (test/envtest),
# and beside one server the suites that otherwise run on the embedded one: conformance, the reconcilers, the SDK's
# control plane. Both halves run even if the first fails. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "${VENV:-.venv}/bin" && pwd)
KUBEBUILDER_ASSETS=$(hack/kube/build.sh)
export KUBEBUILDER_ASSETS

shared=(
  test/conformance
  test/integration/controllers
  test/integration/sdk/test_sandboxes.py
  test/integration/sdk/test_async_client.py
  test/integration/sdk/test_sync_client.py
)
status=0
"$bin/pytest" test/envtest "$@" || status=$?
"$bin/python" -m agent_sandbox.testing.run_with_kubernetes "$bin/pytest" -m "not slow" "${shared[@]}" "$@" || status=$?
exit "$status"
