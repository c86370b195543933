#!/usr/bin/env bash
# Configures (once) and builds a preset: scripts/build.sh [release|dev|asan|tsan].
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
folder=build/$preset
venv=${VENV:-.venv}
jobs=${JOBS:-$(nproc)}
PATH=$PWD/$venv/bin:$PATH
export CCACHE_DIR=${CCACHE_DIR:-$HOME/.cache/ccache}

if [ ! -f "$folder/build.ninja" ]; then
  echo "build: configuring $folder"
  mkdir -p "$folder"
  if ! cmake --preset "$preset" -DKILN_PYTHON="$PWD/$venv/bin/python" > "$folder/configure.log" 2>&1; then
    cat "$folder/configure.log" >&2
    exit 1
  fi
fi

# Ninja's own progress line, or nothing when there is nothing to do.
if [ -t 1 ]; then
  cmake --build "$folder" -j "$jobs"
else
  NINJA_STATUS='build: [%f/%t] ' cmake --build "$folder" -j "$jobs"
fi

# The Python packages are used from this folder: let them find the libraries and the command of the release build.
if [ "$preset" = release ]; then
  ln -sfn ../../build/release/lib python/kiln/lib
  ln -sfn ../../build/release/bin python/kiln/bin
fi
