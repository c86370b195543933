#!/usr/bin/env bash
# Tests the wheel in dist/ with another PyTorch than that of the development environment:
#   scripts/test_torch.sh VERSION     that one; it is an error if it cannot be installed
#   scripts/test_torch.sh newest      the first of those below that can be installed here; none: says so, and tests nothing
#   PYTHON=<command>    the Python of its environment (python3.11, else python3)
# The environment, build/torch-<version>-py<version>, is made once and used again. With CUDA, as PyPI has it, it takes 6 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

newest=(2.15.0 2.14.1)
needed_gb=12  # the environment, and what pip keeps while it makes it
wanted=${1:?"which version of torch? make test-torch TORCH=2.14.1"}
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
venv=${VENV:-.venv}
python_version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
mkdir -p build

# is_complete FOLDER VERSION: pytest and its plug-in are what is installed last.
is_complete() {
  "$1/bin/python" -c "
import importlib.metadata as m, sys
sys.exit(m.version('torch').split('+')[0] != '$2' or not m.version('pytest-xdist'))" 2>/dev/null
}

# make_environment VERSION: sets `folder`; a failure gives the reason in `reason`.
make_environment() {
  folder=build/torch-$1-py$python_version
  local log=$folder.log free
  if is_complete "$folder" "$1"; then
    return
  fi
  free=$(df --output=avail -BG build | tail -n 1 | tr -dc '0-9')
  if [ "$free" -lt "$needed_gb" ]; then
    reason="it needs $needed_gb GB of disk, and $free GB are free"
    return 1
  fi
  say "making $folder with $("$python" --version) and torch $1"
  rm -rf "$folder" "$log"
  if ! fill_environment "$1" "$log" > "$log.said" 2>&1; then
    reason=$(grep -E '^ *(ERROR: (Could|No|Cannot)|The user requested \(constraint\))' "$log" | tail -n 1 | sed 's/^ *//') || true
    reason="${reason:-it did not end in time} (more in $log)"
    rm -rf "$folder"
    return 1
  fi
}

fill_environment() {
  quietly "$2" "$python" -m venv "$folder" &&
    pip_install_torch "$folder/bin/python" "$1" "$2" &&
    quietly "$2" "$folder/bin/python" "${pip_install[@]}" numpy $(grep '^pytest' scripts/requirements_tests.txt)
}

if [ "$wanted" = newest ]; then
  # Where there is no network, or a slow one, that is known soon.
  export PIP_RETRIES=1 PIP_DEFAULT_TIMEOUT=30 KILN_INSTALL_LIMIT=600
  for wanted in "${newest[@]}" none; do
    if [ "$wanted" = none ]; then
      say "SKIPPED: none of torch ${newest[*]} can be installed here, so that no version but the development environment's is tested"
      exit 0
    fi
    make_environment "$wanted" && break
    say "torch $wanted cannot be installed here: $reason"
  done
elif ! make_environment "$wanted"; then
  say "FAILED: torch $wanted cannot be installed: $reason" >&2
  exit 1
fi

wheel=(dist/torch_kiln-*.whl)
quietly "$folder.log" "$folder/bin/python" "${pip_install[@]}" --force-reinstall --no-deps "${wheel[0]}"
say "torch $wanted, Python $python_version, ${wheel[0]}"
# cmake and ninja, for the examples, come from the development environment.
PATH=$PWD/$venv/bin:$PATH KILN_OTHER_PYTHON=$PWD/$venv/bin/python "$folder/bin/python" -m pytest -p no:cacheprovider \
  -n "${JOBS:-$(nproc)}" --maxprocesses 4 --dist loadfile --durations 5 \
  tests/seeds tests/versions tests/python/formats/aot_inductor/test_container.py tests/python/examples/test_example_runtime.py
