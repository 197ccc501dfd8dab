#!/usr/bin/env bash
# A kind cluster with Agent Sandbox in it: makes the cluster, builds the images, loads them, deploys.
# Usage: hack/kind-up.sh [--dry-run]     --dry-run prints the commands and runs none
# Environment:
#   KIND_CLUSTER   name of the cluster (agent-sandbox); one that is there is used as it is
#   ENGINE         docker or podman (default: the first that is there); kind needs one of them
#   KIND           which kind (default: kind). 0.24 or newer: since then its network plugin enforces NetworkPolicies
#   KUBECTL        which kubectl (default: kubectl)
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[2m[kind]\033[0m %s\n' "$*" >&2; }
die() { printf '[kind] %s\n' "$*" >&2; exit 1; }
dry=
[ "${1:-}" != --dry-run ] || dry=yes
run() { if [ -n "$dry" ]; then echo "$*"; else "$@"; fi; }

cluster=${KIND_CLUSTER:-agent-sandbox}
kind=${KIND:-kind}
kubectl=${KUBECTL:-kubectl}
engine=${ENGINE:-}
for candidate in docker podman; do
  [ -n "$engine" ] || ! command -v "$candidate" >/dev/null || engine=$candidate
done
if [ -z "$dry" ]; then
  [ -n "$engine" ] || die "kind runs its nodes with docker or podman, and neither is here: https://docs.docker.com/engine/install"
  command -v "$kind" >/dev/null || die "kind is missing: https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
  command -v "$kubectl" >/dev/null || die "kubectl is missing: https://kubernetes.io/docs/tasks/tools"
fi
engine=${engine:-docker}
export ENGINE=$engine KUBECTL=$kubectl
[ "$engine" != podman ] || export KIND_EXPERIMENTAL_PROVIDER=podman

if [ -z "$dry" ] && "$kind" get clusters 2>/dev/null | grep -qx "$cluster"; then
  say "the cluster $cluster is there"
else
  run "$kind" create cluster --name "$cluster" --wait 180s
fi
run "$kubectl" config use-context "kind-$cluster"

# A tag of its own for every commit: a changed image is a changed Deployment, and no tag `latest` is looked for in a registry.
version=$(git rev-parse --short=12 HEAD 2>/dev/null || echo dev)
export REGISTRY=localhost VERSION=$version
run hack/images.sh
# The samples say python-runtime-sandbox:latest, which is short for this:
run "$engine" tag "localhost/python-runtime-sandbox:$version" docker.io/library/python-runtime-sandbox:latest

archive=$(mktemp -d)
trap 'rm -rf "$archive"' EXIT
for image in "localhost/agent-sandbox-controller:$version" "localhost/sandbox-router:$version" docker.io/library/python-runtime-sandbox:latest; do
  # As an archive, since `kind load docker-image` does not know podman's images.
  file=$archive/$(basename "${image%%:*}").tar
  run "$engine" save --output "$file" "$image"
  run "$kind" load image-archive "$file" --name "$cluster"
done

run hack/deploy.sh
run "$kubectl" -n agent-sandbox-system rollout status deployment/agent-sandbox-controller --timeout=180s
run "$kubectl" -n agent-sandbox-system rollout status deployment/sandbox-router --timeout=180s
say "ready. Next:"
say "  kubectl apply -f config/samples"
say "  kubectl wait --for=condition=Ready sandbox/my-sandbox --timeout=120s"
say "  $kind delete cluster --name $cluster     removes everything"
