#!/usr/bin/env bash
# Removes the four kinds from the cluster of the current kubeconfig, after showing every object that goes with them.
# Usage: hack/remove.sh kinds        only the four kinds: `make uninstall`
#        hack/remove.sh everything   what hack/deploy.sh brought: `make undeploy`
# Environment: as for hack/manifests.sh
set -euo pipefail
cd "$(dirname "$0")/.."
kubectl=${KUBECTL:-kubectl}
case ${1:-} in
  kinds) manifests=$("$kubectl" kustomize config/crd) ;;
  everything) manifests=$(hack/manifests.sh) ;;
  *) echo "Usage: hack/remove.sh kinds|everything" >&2; exit 2 ;;
esac

# Reading first also spares people a wait of five minutes: a kube-apiserver lists a kind's objects before it removes the
# kind; if nobody has read it yet, the storage is still initializing, and the server may try again only at its next resync.
kinds=$("$kubectl" get crd -o name | grep -E '\.agents\.x-k8s\.io$|\.extensions\.agents\.x-k8s\.io$' || true)
if [ -n "$kinds" ]; then
  # shellcheck disable=SC2086 # one argument for each kind
  "$kubectl" wait --for=condition=Established --timeout=60s $kinds >/dev/null
  # And kubectl finds a kind some time after it is established.
  for ((tries = 60; ; tries--)); do
    listed=$("$kubectl" get -A "$(cut -d/ -f2 <<<"$kinds" | paste -sd,)" 2>&1) && break
    if ((tries == 0)) || ! [[ $listed =~ "have a resource type"|"could not find the requested resource" ]]; then
      echo "$listed" >&2
      exit 1
    fi
    sleep 1
  done
  printf 'These go, with their Pods and volumes:\n%s\n' "$listed" >&2
fi
"$kubectl" delete --ignore-not-found -f - <<<"$manifests"
