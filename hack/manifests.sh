#!/usr/bin/env bash
# Prints config/default with images and components chosen: what `make deploy` applies and `make build-installer` writes.
# Usage: hack/manifests.sh
# Environment:
#   REGISTRY, VERSION   the images are $REGISTRY/agent-sandbox-controller:$VERSION and $REGISTRY/sandbox-router:$VERSION
#                       (VERSION's default: latest); without a registry the placeholders stay
#   COMPONENTS          components of config/ to add, for example "prometheus grafana"
#   KUBECTL             which kubectl builds it (default: kubectl)
set -euo pipefail
cd "$(dirname "$0")/.."
registry=${REGISTRY:-}
version=${VERSION:-latest}

overlay=$(mktemp -d -p . .overlay-XXXXXX) # kustomize wants relative paths
trap 'rm -rf "$overlay"' EXIT
{
  echo "resources: [../config/default]"
  [ -z "$registry" ] || echo "images:"
  for name in agent-sandbox-controller sandbox-router; do
    [ -z "$registry" ] || echo "  - {name: $name, newName: $registry/$name, newTag: '$version'}"
  done
  echo "components:"
  for component in ${COMPONENTS:-}; do
    [ -e "config/$component/kustomization.yaml" ] || { echo "there is no component config/$component" >&2; exit 1; }
    echo "  - ../config/$component"
  done
} >"$overlay/kustomization.yaml"
"${KUBECTL:-kubectl}" kustomize "$overlay"
