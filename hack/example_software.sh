#!/usr/bin/env bash
# Fetches what an example needs beside this machine's /usr, into build/examples/NAME.tar.gz: once, unless it is there.
# Usage: hack/example_software.sh python-runtime-sandbox|aio-sandbox|gemini-cu-sandbox|vscode-sandbox …
#   python-runtime-sandbox  FastAPI from PyPI
#   aio-sandbox             JupyterLab from PyPI
#   gemini-cu-sandbox       Chromium from the distribution (as root)
#   vscode-sandbox          code-server from npm; compiles for some minutes; needs Node.js 20
# Environment: PYTHON (the interpreter to install for: the one that runs the stack)
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
new=build/examples/new
say() { printf '\033[2m[example]\033[0m %s\n' "$*" >&2; }
die() { printf '[example] %s\n' "$*" >&2; exit 1; }

has_packages() { # PROGRAM package…: from the distribution, where that program is missing
  program=$1 && shift
  command -v "$program" >/dev/null 2>&1 && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then die "it needs: sudo apt-get install $*"; fi
  say "installing from the distribution: $*"
  { apt-get install -y -qq --no-install-recommends "$@" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; }; } >/dev/null 2>&1 ||
    die "the distribution did not give $*"
}

from_pypi() { # NAME
  say "installing what examples/$1 needs from PyPI"
  "$python" -m pip install --quiet --disable-pip-version-check --target "$new" -r "examples/$1/requirements.txt" ||
    die "PyPI did not give what examples/$1 needs"
}

code_server() {
  has_packages npm nodejs npm
  [ "$(node -p 'process.versions.node.split(".")[0]')" = 20 ] || die "code-server 4.99 from npm needs Node.js 20; here is $(node --version)"
  has_packages rg ripgrep
  has_packages krb5-config libkrb5-dev
  say "installing code-server from npm, several minutes: it compiles"
  cp examples/vscode-sandbox/package.json "$new"
  (
    set -e
    cd "$new"
    # Node's headers of this machine, where it has them; otherwise npm fetches them from nodejs.org.
    [ -d /usr/include/node ] && export npm_config_nodedir=/usr
    # Its install scripts refuse root otherwise, and ask whether npx may fetch node-gyp.
    export npm_config_unsafe_perm=true npm_config_yes=true
    quiet=(--silent --no-audit --no-fund)
    npm install "${quiet[@]}" --ignore-scripts
    npm rebuild --silent --build-from-source argon2
    cd node_modules/code-server/lib/vscode
    npm install "${quiet[@]}" --ignore-scripts --omit=dev
    # The package @vscode/ripgrep downloads a program from GitHub, unless it finds one.
    mkdir -p node_modules/@vscode/ripgrep/bin
    cp "$(command -v rg)" node_modules/@vscode/ripgrep/bin/rg
    npm rebuild --silent
    cd ../..
    npm_config_user_agent="npm/$(npm --version) node/$(node --version)" sh postinstall.sh
  ) >build/examples/npm.log 2>&1 &
  # Not `( … ) || die`: there every failure inside but the last would be ignored.
  wait $! || die "npm could not install code-server; see build/examples/npm.log"
}

[ $# -gt 0 ] || die "name an example: $0 vscode-sandbox"
for name in "$@"; do
  if [ "$name" = gemini-cu-sandbox ]; then
    has_packages chromium chromium
    continue
  fi
  [ -e "build/examples/$name.tar.gz" ] && continue
  rm -rf "$new" && mkdir -p "$new"
  case $name in
    python-runtime-sandbox | aio-sandbox) from_pypi "$name" ;;
    vscode-sandbox) code_server ;;
    *) die "there is no example $name" ;;
  esac
  # The archive appears when it is whole.
  tar -czf "build/examples/$name.part" -C "$new" . && mv "build/examples/$name.part" "build/examples/$name.tar.gz"
  rm -rf "$new"
done
