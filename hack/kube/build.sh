#!/usr/bin/env bash
# Finds or builds the real Kubernetes that `make test-envtest` runs against, and prints the folder it is in (stdout).
# In this order: the folder that KUBEBUILDER_ASSETS names; what was built before; a build with Go; setup-envtest.
# A build takes about 13 CPU minutes and 2 GiB of Go's cache, once per version; jobs: KUBE_BUILD_JOBS (default: all cores).
# With --possible it builds and prints nothing, but says why if this machine cannot have one. Exit status 3: it cannot.
set -euo pipefail
cd "$(dirname "$0")"

pinned() { awk -v module="$1" '$1 == module && $2 ~ /^v[0-9]/ {print $2}' go.mod; }
version=$(pinned k8s.io/kubernetes)
etcd_version=$(pinned go.etcd.io/etcd/server/v3)
assets=${XDG_CACHE_HOME:-$HOME/.cache}/agent-sandbox/kube/$version
programs=(etcd kube-apiserver kubectl kube-controller-manager)
declare -A packages=(
  [etcd]=go.etcd.io/etcd/server/v3
  [kube-apiserver]=k8s.io/kubernetes/cmd/kube-apiserver
  [kubectl]=k8s.io/kubernetes/cmd/kubectl
  [kube-controller-manager]=k8s.io/kubernetes/cmd/kube-controller-manager
)
say() { printf '[kube] %s\n' "$*" >&2; }

complete() { # folder: has everything that a test needs
  for program in etcd kube-apiserver kubectl; do [ -x "$1/$program" ] || return 1; done
}

version_flags() {
  local minor=${version#v1.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s -X %s.gitTreeState=clean ' \
      "$package" "$version" "$package" "$package" "${minor%%.*}" "$package"
  done
}

build() { # program
  local started=$SECONDS total
  total=$(go list -deps "${packages[$1]}" | wc -l)
  say "building $1 $([ "$1" = etcd ] && echo "$etcd_version" || echo "$version") ($total packages)"
  CGO_ENABLED=0 go build -v -p "${KUBE_BUILD_JOBS:-$(nproc)}" -trimpath -ldflags "-s -w $(version_flags)" \
    -o "$assets/.$1.new" "${packages[$1]}" 2>&1 |
    awk -v program="$1" '/^[a-z0-9.]+(\/|$)/ {if (++done % 200 == 0) {printf "[kube]   %s: %d packages compiled\n", program, done; fflush()}; next} {print; fflush()}' >&2
  mv "$assets/.$1.new" "$assets/$1"
  say "$1 is ready after $((SECONDS - started)) s"
}

if [ "${1:-}" = --possible ]; then
  [ -n "${KUBEBUILDER_ASSETS:-}" ] || complete "$assets" || command -v go >/dev/null || command -v setup-envtest >/dev/null || {
    say "skipped: the tests on a real Kubernetes; this machine has no Go to build one with (https://go.dev/dl), no setup-envtest and no KUBEBUILDER_ASSETS"
    exit 3
  }
elif [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  complete "$KUBEBUILDER_ASSETS" || { say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks etcd, kube-apiserver or kubectl: correct or unset it"; exit 1; }
  echo "$KUBEBUILDER_ASSETS"
elif complete "$assets" && [ -x "$assets/kube-controller-manager" ]; then
  echo "$assets"
elif command -v go >/dev/null; then
  mkdir -p "$assets"
  for program in "${programs[@]}"; do [ -x "$assets/$program" ] || build "$program"; done
  echo "$assets"
elif command -v setup-envtest >/dev/null; then
  found=$(setup-envtest use "${version#v}" -p path)
  say "taken from setup-envtest: $found (it has no kube-controller-manager: tests that need one are skipped)"
  echo "$found"
else
  say "no Kubernetes to test against: install Go (https://go.dev/dl), or setup-envtest, or set KUBEBUILDER_ASSETS"
  exit 3
fi
