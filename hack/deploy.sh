#!/usr/bin/env bash
# Applies config/default to the cluster of the current kubeconfig.
# Usage: hack/deploy.sh     Environment: as for hack/manifests.sh
set -euo pipefail
cd "$(dirname "$0")/.."
kubectl=${KUBECTL:-kubectl}
[ -n "${REGISTRY:-}" ] || {
  echo "Where are the images? For example: make deploy REGISTRY=registry.example.com/team VERSION=0.1.0 (make images builds them)" >&2
  exit 1
}

manifests=$(hack/manifests.sh)
"$kubectl" apply --server-side --field-manager=agent-sandbox-deploy -f - <<<"$manifests"
cat >&2 <<'TEXT'
Next:
  kubectl -n agent-sandbox-system rollout status deployment/agent-sandbox-controller deployment/sandbox-router
  kubectl apply -f config/samples
TEXT
