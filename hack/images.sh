#!/usr/bin/env bash
# Builds the images of controllers, router and python runtime.
# Usage: hack/images.sh [--offline BASE]
#   --offline BASE   build without a network: from a local base image (hack/local_base.sh makes one) and from the wheels in
#                    dist/, which are downloaded before if they are not there (for the Python of PYTHON, which must have the
#                    version of the base's)
# Environment:
#   ENGINE             buildah, podman or docker (default: the first that is there)
#   REGISTRY, VERSION  how the images are called: $REGISTRY/agent-sandbox-controller:$VERSION (default: localhost, the commit)
#   BASE               the base image (default: that of the Containerfiles); a release names it by digest
#   SOURCE_DATE_EPOCH  the time of everything in the images (default: the commit's), so that a build can be repeated
#   FRESH              not empty: take nothing from earlier builds
#   ENGINE_ARGS        further arguments of every build, for example --root /var/tmp/storage
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[2m[images]\033[0m %s\n' "$*" >&2; }
die() { printf '[images] %s\n' "$*" >&2; exit 1; }

engine=${ENGINE:-}
for candidate in buildah podman docker; do
  [ -n "$engine" ] || ! command -v "$candidate" >/dev/null || engine=$candidate
done
[ -n "$engine" ] || die "no buildah, podman or docker here. Debian, Ubuntu: sudo apt-get install buildah"

revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
registry=${REGISTRY:-localhost}
version=${VERSION:-$revision}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export SOURCE_DATE_EPOCH=$epoch

arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "SOURCE_DATE_EPOCH=$epoch")
prefix=()
if [ "${1:-}" = --offline ]; then
  base=${2:?--offline needs the name of a local base image}
  [ "$engine" != docker ] || die "--offline mounts the wheels into the build, which docker cannot: use buildah or podman"
  python=${PYTHON:-python3}
  locks=(images/build-requirements.txt images/*/requirements.txt)
  wheels=$PWD/dist/wheels-$(cat "${locks[@]}" | cksum | cut -d' ' -f1)
  if [ ! -d "$wheels" ]; then
    say "downloading the pinned wheels to $wheels, once"
    for lock in "${locks[@]}"; do
      "$python" -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: --dest "$wheels.new" -r "$lock"
    done
    mv "$wheels.new" "$wheels"
  fi
  arguments+=(--pull-never --volume "$wheels:/wheelhouse:ro" --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheelhouse)
  # Not only told to stay offline: there is no network.
  [ "$(id -u)" != 0 ] || prefix=(unshare --net)
else
  base=${BASE:-}
fi
[ -z "$base" ] || arguments+=(--build-arg "BASE=$base")

case $engine in
  buildah) build=(buildah bud --layers --format oci --timestamp "$epoch") ;;
  podman) build=(podman build --layers --format oci --timestamp "$epoch") ;;
  docker) build=(docker buildx build --load --provenance=false) ;;
  *) die "ENGINE=$engine is none of buildah, podman, docker" ;;
esac
# Inside a container, as on most build machines, there is no right to make another one: a chroot has to do.
[ "$engine" != buildah ] || [ -n "${BUILDAH_ISOLATION:-}" ] || export BUILDAH_ISOLATION=chroot
read -r -a further <<<"${ENGINE_ARGS:-}"

build() { # name, folder, further arguments
  local name="$registry/$1:$version"
  say "building $name"
  "${prefix[@]}" "${build[@]}" "${further[@]}" "${arguments[@]}" --file "images/$2/Containerfile" --tag "$name" "${@:3}" . >&2
  echo "$name"
}

fresh=()
[ -z "${FRESH:-}" ] || fresh=(--no-cache)
build agent-sandbox-controller agent-sandbox --target controller "${fresh[@]}"
build sandbox-router agent-sandbox --target router # the same layers, just built
build python-runtime-sandbox python-runtime "${fresh[@]}"
