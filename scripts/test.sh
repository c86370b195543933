#!/usr/bin/env bash
# Runs the C++ tests of a preset and, for release, the Python tests; one closing line each, and a failure of either is a
# failure: scripts/test.sh [release|dev|asan|tsan].
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
venv=${VENV:-.venv}
jobs=${JOBS:-$(nproc)}
PATH=$PWD/$venv/bin:$PATH
export HF_HUB_OFFLINE=1
failed=0

if summary=$(ctest --preset "$preset" -j "$jobs" 2>&1 | tee "build/$preset/test.log"); then
  echo "C++ tests passed: $(grep -E 'tests passed' <<< "$summary") ($(grep -oE 'Total Test time.*' <<< "$summary"))"
else
  failed=1
  printf '%s\n' "$summary"
  echo "C++ tests FAILED: build/$preset/test.log"
fi

if [ "$preset" = release ]; then
  # Neighbours share what is costly to make (fixtures of their file), so that a worker takes them in a row.
  if "$venv/bin/python" -m pytest -m "not full_size" -n "$jobs" --maxprocesses 8 --dist worksteal; then
    echo "Python tests passed"
  else
    failed=1
    echo "Python tests FAILED"
  fi
fi
exit "$failed"
