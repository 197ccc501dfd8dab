#!/usr/bin/env bash
# Makes a local base image for builds without a registry: a minimal Debian with Python, by debootstrap, in buildah's storage.
# Usage: hack/local_base.sh [NAME]     (default localhost/debian-python:bookworm; needs root, debootstrap, buildah)
# Environment: SUITE (bookworm), MIRROR (http://deb.debian.org/debian), ENGINE_ARGS (for buildah, as in hack/images.sh)
set -euo pipefail
name=${1:-localhost/debian-python:bookworm}
read -r -a further <<<"${ENGINE_ARGS:-}"
for tool in debootstrap buildah; do
  command -v "$tool" >/dev/null || { echo "[base] $tool is missing: sudo apt-get install $tool" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "[base] debootstrap needs root" >&2; exit 1; }

folder=$(mktemp -d)
trap 'umount "$folder/proc" "$folder/sys" 2>/dev/null || true; rm -rf --one-file-system "$folder"' EXIT
echo "[base] debootstrap, about a minute" >&2
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "${SUITE:-bookworm}" "$folder" \
  "${MIRROR:-http://deb.debian.org/debian}" >"$folder.log" 2>&1 || { tail -5 "$folder.log" >&2; exit 1; }
umount "$folder/proc" "$folder/sys" 2>/dev/null || true
rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/* "$folder"/var/log/* "$folder.log"

container=$(buildah "${further[@]}" from scratch)
buildah "${further[@]}" add --quiet "$container" "$folder" / >/dev/null
buildah "${further[@]}" commit --quiet "$container" "$name" >/dev/null
buildah "${further[@]}" rm "$container" >/dev/null
echo "$name"
