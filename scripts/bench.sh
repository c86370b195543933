#!/usr/bin/env bash
# Installs the peers that are missing into the virtual environment, then runs the benchmark; arguments go to it.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
while read -r requirement; do
  case $requirement in '' | '#'*) continue ;; esac
  if ! "$venv/bin/python" -c "import importlib.metadata as m; m.version('${requirement%%=*}')" 2>/dev/null; then
    echo "bench: installing $requirement"
    "$venv/bin/python" -m pip install -q "$requirement" ||
      echo "bench: $requirement could not be installed; its peer is left out"
  fi
done < benchmarks/requirements.txt
exec "$venv/bin/python" benchmarks/run.py "$@"
