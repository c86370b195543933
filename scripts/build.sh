#!/usr/bin/env bash
# Configures (once) and builds a preset: scripts/build.sh [release|dev|asan|tsan] [product|libraries].
# With `product`: what users get and no tests, which need not be installable then. With `libraries`: what of it needs no PyTorch.
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

was_without() { grep -q "^KILN_BUILD_$1:BOOL=OFF" "$folder/CMakeCache.txt"; }

# A folder that was configured for less is configured again when somebody asks for more.
if [ ! -f "$folder/build.ninja" ] || { [ "$target" = all ] && was_without TESTS; } ||
  { [ "$target" != libraries ] && [ "$preset" = release ] && was_without TORCH; }; then
  say "configuring $folder"
  options=(-DKILN_PYTHON="$PWD/$venv/bin/python" -DKILN_BUILD_TESTS=ON)
  if [ "$target" != all ]; then
    options+=(-DKILN_BUILD_TESTS=OFF)
  fi
  if [ "$preset" = release ]; then
    options+=(-DKILN_BUILD_TORCH="$([ "$target" = libraries ] && echo OFF || echo ON)")
  fi
  rm -f "$folder/configure.log"
  quietly "$folder/configure.log" cmake --preset "$preset" "${options[@]}"
fi

if [ "$target" = libraries ]; then
  target=product
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
