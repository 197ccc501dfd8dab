#!/usr/bin/env bash
# Makes a fresh checkout usable: a virtual environment, the packages, and the two system tools of the local node.
# Usage: hack/setup.sh run|dev|tools
#   run   what `make demo` and `make run` need
#   dev   that, and what tests and linters need
#   browser   Chromium from the distribution and Jupyter from PyPI (in build/notebook), for test/e2e/test_notebook.py
#   bench     wrk and nginx from the distribution, for test/bench/router_bench.py
#   tools that, and what the slow tests use where it is there: Prometheus, buildah, debootstrap, shellcheck, LangChain, MCP
# Environment: PYTHON (interpreter to use), VENV (where; default .venv)
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-run}
venv=${VENV:-.venv}
say() { printf '\033[2m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] %s\n' "$*" >&2; exit 1; }

as_root_apt() { # packages...
  command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] || return 1
  say "installing from the distribution: $*"
  { apt-get install -y -qq --no-install-recommends "$@" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; }; } >/dev/null 2>&1
}

find_python() {
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "no Python 3.11 or newer found. Install one (Debian 12+, Ubuntu 24.04+: apt-get install python3), or name it: make PYTHON=/path/to/python3 …"
}

make_venv() {
  [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null && return
  python=$(find_python)
  say "creating $venv with $("$python" --version)"
  rm -rf "$venv"
  if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    rm -rf "$venv"
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    as_root_apt "python$version-venv" || as_root_apt python3-venv ||
      die "this Python cannot make virtual environments. Install the missing part: sudo apt-get install python3-venv"
    "$python" -m venv "$venv"
  fi
}

install_packages() {
  stamp="$venv/.installed-$what-$(cksum pyproject.toml hack/setup.sh | cksum | cut -d' ' -f1)"
  [ -e "$stamp" ] && return
  say "installing Python packages ($what), about half a minute"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
  groups=()
  [ "$what" = dev ] && groups=(--group dev)
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[local,fast]' "${groups[@]}"
  rm -f "$venv"/.installed-"$what"-*
  touch "$stamp"
}

install_tools() {
  missing=()
  command -v bwrap >/dev/null 2>&1 || missing+=(bubblewrap)
  { command -v nft || [ -x /usr/sbin/nft ]; } >/dev/null 2>&1 || missing+=(nftables)
  [ ${#missing[@]} = 0 ] && return
  as_root_apt "${missing[@]}" ||
    say "the local node needs: sudo apt-get install ${missing[*]}"
}

install_example_packages() {
  "$venv/bin/python" -c 'import langchain_core, mcp' 2>/dev/null && return
  say "installing what the examples join from PyPI: LangChain's core, the MCP SDK"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --group examples ||
    say "PyPI did not give them; their tests will be skipped"
}

install_test_tools() {
  install_example_packages
  declare -A packages=([promtool]=prometheus [buildah]=buildah [debootstrap]=debootstrap [runsc]=runsc [slirp4netns]=slirp4netns [shellcheck]=shellcheck)
  missing=()
  for tool in "${!packages[@]}"; do command -v "$tool" >/dev/null 2>&1 || missing+=("${packages[$tool]}"); done
  [ ${#missing[@]} = 0 ] && return
  # Debian starts a service when it is installed; nobody asked for a Prometheus that runs.
  policy=/usr/sbin/policy-rc.d
  [ "$(id -u)" = 0 ] && [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && trap 'rm -f "$policy"' EXIT
  as_root_apt "${missing[@]}" ||
    say "some slow tests will be skipped; they need: sudo apt-get install ${missing[*]}"
}

wanted=$what
[ "$what" = tools ] && what=dev
install_browser() {
  [ -n "$(command -v chromium chromium-browser google-chrome | head -1)" ] || as_root_apt chromium || die "install Chromium: sudo apt-get install chromium"
  [ -e build/notebook/.complete ] && return
  say "installing Jupyter into build/notebook, about a minute"
  rm -rf build/notebook
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --target build/notebook notebook || die "PyPI did not give Jupyter"
  touch build/notebook/.complete
}

install_bench() {
  missing=()
  command -v wrk >/dev/null 2>&1 || missing+=(wrk)
  { command -v nginx || [ -x /usr/sbin/nginx ]; } >/dev/null 2>&1 || missing+=(nginx-light)
  [ ${#missing[@]} = 0 ] || as_root_apt "${missing[@]}" || die "install them: sudo apt-get install ${missing[*]}"
}

case $what in
  browser | bench) "install_$what"; exit ;;
esac
make_venv
install_packages
install_tools
[ "$wanted" != tools ] || install_test_tools
