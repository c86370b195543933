# Shared by the scripts in this folder: what they say, and where the output of other programs goes.

# say TEXT...: one line, with the name of the script.
say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }

# quietly LOG COMMAND...: the command's output goes to the end of LOG. If it fails: its last lines, and where the rest is.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  printf '\n$ %s\n' "$*" >> "$log"
  if ! "$@" >> "$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "FAILED: $*" >&2
    say "all of its output is in $log" >&2
    return 1
  fi
}

# What follows a Python. Files are compiled when they are first imported: of the large packages most never are.
pip_install=(-m pip install --disable-pip-version-check --no-compile)

# pip_install_torch PYTHON VERSION LOG: the CPU build if the index has one, because the plain one brings gigabytes of CUDA
# libraries with it; else the plain one. KILN_INSTALL_LIMIT: the seconds that each may take.
pip_install_torch() {
  local pip=("$1" "${pip_install[@]}")
  if [ -n "${KILN_INSTALL_LIMIT:-}" ]; then
    pip=(timeout "$KILN_INSTALL_LIMIT" "${pip[@]}")
  fi
  if "${pip[@]}" "torch==$2+cpu" >> "$3" 2>&1; then
    return
  fi
  say "the package index has no CPU build of torch $2: taking the default one, with several GB of CUDA libraries"
  say "(PIP_EXTRA_INDEX_URL can name an index that has it)"
  quietly "$3" "${pip[@]}" "torch==$2"
}
