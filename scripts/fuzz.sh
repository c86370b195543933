#!/usr/bin/env bash
# Builds the fuzz targets (clang, address and undefined-behaviour sanitizers) and runs each for a while:
# scripts/fuzz.sh [seconds per target, 60]. A finding ends the run; its input is left in build/fuzz/findings.
# What the runs learn is kept in build/fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
folder=build/fuzz
jobs=${JOBS:-$(nproc)}
venv=${VENV:-.venv}
PATH=$PWD/$venv/bin:$PATH
export CCACHE_DIR=${CCACHE_DIR:-$HOME/.cache/ccache}

if [ ! -f "$folder/build.ninja" ]; then
  echo "fuzz: configuring $folder"
  mkdir -p "$folder"
  if ! cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 \
    -DCMAKE_CXX_FLAGS="-fno-sanitize-recover=all -Wno-deprecated-declarations" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" \
    -DKILN_SANITIZE=address,undefined,fuzzer-no-link -DKILN_BUILD_FUZZERS=ON \
    -DKILN_BUILD_TOOLS=OFF -DKILN_BUILD_TORCH=OFF > "$folder/configure.log" 2>&1; then
    cat "$folder/configure.log" >&2
    exit 1
  fi
fi
cmake --build "$folder" -j "$jobs" --target fuzzers

mkdir -p "$folder"/findings "$folder"/seeds "$folder"/corpus/{engine,archive,json}
"$folder/tests/fuzz/make_seeds" "$folder/seeds"

run() {
  local name=$1 seeds=$2
  shift 2
  echo "fuzz: $name for $seconds s"
  local log="$folder/$name.log"
  if ! "$folder/tests/fuzz/${name}_fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=65536 \
    -artifact_prefix="$folder/findings/$name-" "$@" "$folder/corpus/$name" "$seeds" > "$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "fuzz: $name FAILED, see $log and $folder/findings" >&2
    exit 1
  fi
  echo "fuzz: $name: no finding in $(grep -oE 'Done [0-9]+ runs' "$log" | grep -oE '[0-9]+') runs"
}

run engine "$folder/seeds"
run archive tests/fuzz/seeds/archive
run json tests/fuzz/seeds/json -dict=tests/fuzz/json.dict
