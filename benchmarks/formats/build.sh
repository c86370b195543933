#!/usr/bin/env bash
# Builds call.cpp against the libtorch of the virtual environment: benchmarks/formats/build.sh OUTPUT
set -euo pipefail
cd "$(dirname "$0")/../.."

torch=$("${VENV:-.venv}/bin/python" -c "import os, torch; print(os.path.dirname(torch.__file__))")
libraries=$PWD/build/release/lib
"${CXX:-g++}" -std=c++20 -O2 -o "$1" benchmarks/formats/call.cpp -Iinclude \
  -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
  -L"$torch/lib" -L"$libraries" "-Wl,-rpath,$torch/lib:$libraries" \
  -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10 -lkiln_runtime "$libraries/libkiln_torch.so"
