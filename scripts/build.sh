#!/usr/bin/env bash
# Configures (once) and builds a preset: scripts/build.sh [release|dev|asan|tsan] [product].
# With `product`: what users get and no tests, which need not be installable then.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

preset=${1:-release}
target=${2:-all}
folder=build/$preset
venv=${VENV:-.venv}
jobs=${JOBS:-$(nproc)}
PATH=$PWD/$venv/bin:$PATH
export CCACHE_DIR=${CCACHE_DIR:-$HOME/.cache/ccache}

# A folder that was configured for the product alone is configured again when somebody asks for everything.
if [ ! -f "$folder/build.ninja" ] || { [ "$target" = all ] && grep -q '^KILN_BUILD_TESTS:BOOL=OFF' "$folder/CMakeCache.txt"; }; then
  say "configuring $folder"
  options=(-DKILN_PYTHON="$PWD/$venv/bin/python" -DKILN_BUILD_TESTS=ON)
  if [ "$target" = product ]; then
    options+=(-DKILN_BUILD_TESTS=OFF)
  fi
  rm -f "$folder/configure.log"
  quietly "$folder/configure.log" cmake --preset "$preset" "${options[@]}"
fi

# Ninja's lines: warnings and errors all, of its progress one line for each tenth.
tenths() {
  awk -F'[][/ ]+' '
    /^build: \[/ { now = int(10 * $2 / $3); if (now == last && $2 != $3) next; last = now }
    { print; fflush() }'
}
# In a terminal ninja rewrites a line of its own; it says nothing when there is nothing to do.
if [ -t 1 ]; then
  cmake --build "$folder" -j "$jobs" --target "$target"
else
  NINJA_STATUS='build: [%f/%t] ' cmake --build "$folder" -j "$jobs" --target "$target" | tenths
fi

# The Python packages are used from this folder: let them find the libraries and the command of the release build.
if [ "$preset" = release ]; then
  ln -sfn ../../build/release/lib python/kiln/lib
  ln -sfn ../../build/release/bin python/kiln/bin
fi
