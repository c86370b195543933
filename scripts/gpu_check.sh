#!/usr/bin/env bash
# What is checked on a machine with an NVIDIA GPU, with a build in build/release or with the installed wheel:
#   scripts/gpu_check.sh [FOLDER]     logs go to FOLDER (build/gpu_check)
#   PYTHON=<command>                  that has torch with CUDA, pytest, transformers and timm (python3)
#   SANITIZER=<command>               compute-sanitizer (the one in PATH or of /usr/local/cuda); the suite runs under it too where
#                                     it is found
#   MODELS=<words>                    the models that are timed, by the beginnings of their names ("resnet50_b32 bert_b32
#                                     llama_512": all of benchmarks/gpu.py take several minutes more; "_" is a space)
# The conformance suite (every operator and dtype against the reference), the same under memcheck and racecheck, the snippets
# of the two pages, formats, streams, contexts and errors, and models beside PyTorch's own compilers: under 8 minutes with
# 16 cores. docs/gpu.md has the last results.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=${1:-build/gpu_check}
python=${PYTHON:-python3}
mkdir -p "$logs"
nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.sm --format=csv,noheader
"$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)'
KILN_CUDA_LIBRARIES=$("$python" -c 'import nvidia, os; print(":".join(os.path.join(p, "cu13", "lib") for p in nvidia.__path__))')
export KILN_CUDA_LIBRARIES
failed=0
cores=$(nproc)
# Several tests at a time, where pytest-xdist is there: most of their time is that of processes which begin.
workers=()
if "$python" -c 'import xdist' 2> /dev/null; then workers=(-n "$((cores > 14 ? 14 : cores))"); fi

stage() { # NAME COMMAND...
  local name=$1 begin=$SECONDS
  shift
  if "$@" > "$logs/$name.log" 2>&1; then
    echo "gpu_check: $name passed in $((SECONDS - begin)) s: $(tail -n 1 "$logs/$name.log" | cut -c 1-120)"
  else
    echo "gpu_check: $name FAILED, see $logs/$name.log"
    return 1
  fi
}

conformance() { # FILTER COMMAND...: under a command that runs it, or by itself
  local filter=$1 shards=$((cores > 14 ? 14 : cores)) i code=0 pids=()
  shift
  for ((i = 0; i < shards; ++i)); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$i "$@" build/release/tests/conformance/conformance_test \
      --gtest_filter="$filter" --gtest_brief=1 &
    pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i" || code=1; done
  return $code
}

if [ -x build/release/tests/conformance/conformance_test ]; then
  stage conformance conformance '*cuda*' || failed=1
  sanitizer=$(command -v "${SANITIZER:-compute-sanitizer}" || command -v /usr/local/cuda/bin/compute-sanitizer || true)
  if [ -n "$sanitizer" ]; then
    stage memcheck conformance '*cuda*' "$sanitizer" --tool memcheck --leak-check no --error-exitcode 9 || failed=1
    stage racecheck conformance '*cuda*' "$sanitizer" --tool racecheck --error-exitcode 9 || failed=1
  else
    echo "gpu_check: memcheck and racecheck SKIPPED: compute-sanitizer was not found"
  fi
fi
stage seeds "$python" -m pytest -q -p no:cacheprovider "${workers[@]}" tests/seeds || failed=1
stage gpu "$python" -m pytest -q -p no:cacheprovider "${workers[@]}" tests/python/gpu || failed=1
stage memory "$python" -m pytest -q -p no:cacheprovider -k less_memory tests/python/gpu/test_gpu_weight_streaming.py || failed=1
read -ra models <<< "${MODELS:-resnet50_b32 bert_b32 llama_512}"
stage models "$python" benchmarks/gpu.py "${models[@]//_/ }" || failed=1
cat "$logs/models.log"
echo "gpu_check: $SECONDS s"
exit $failed
