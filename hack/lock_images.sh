#!/usr/bin/env bash
# Pins what goes into the images, with hashes: images/*/requirements.txt and images/build-requirements.txt. Needs uv and PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "uv is missing: pip install uv" >&2; exit 1; }

lock() { # output, then what uv compiles
  local output=$1
  shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header "$@" -o "$output"
}

lock images/agent-sandbox/requirements.txt --upgrade --extra fast --extra otel pyproject.toml
printf 'aiohttp>=3.11\nanyio>=4.8\n' | lock images/python-runtime/requirements.txt --upgrade -
echo hatchling | lock images/build-requirements.txt --upgrade -
