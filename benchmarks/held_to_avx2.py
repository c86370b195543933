#!/usr/bin/env python3
"""Runs a Python command whose onnxruntime and openvino take this machine for one with AVX2 and no more.

onnxruntime has no setting for that, and openvino's kernels of MLAS do not heed oneDNN's. So the command finds copies of
both packages in which the instruction that asks for the CPU's features (cpuid) is one that does not exist: its signal
is answered with what the CPU says, less AVX-512, AMX and AVX-VNNI. Only start-up asks, so that it costs no time later.

    python benchmarks/held_to_avx2.py FOLDER benchmarks/precisions.py --target cpu:x86-64-v3 --formats f32
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "onnxruntime": ("onnxruntime_pybind11_state*.so", "libonnxruntime.so.*"),
    "openvino": ("libopenvino_intel_cpu_plugin.so", "libopenvino.so.*"),
}
SETTINGS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
CPUID, INVALID = b"\x0f\xa2", b"\x0f\x04"
ANSWER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

static void answer(int number, siginfo_t* info, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* code = (const uint8_t*)registers[REG_RIP];
  if (code[0] != 0x0f || code[1] != 0x04) {
    signal(number, SIG_DFL);
    return;
  }
  const unsigned leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX];
  unsigned a, b, c, d;
  __cpuid_count(leaf, part, a, b, c, d);
  if (leaf == 7 && part == 0) {
    b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
    c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
    d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
  }
  if (leaf == 7 && part == 1) {
    a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);
    d &= ~(1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19);
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigaction(SIGILL, &action, 0);
}
"""


def offset_of_text(library: Path) -> int:
    """What an address of its code is less than its place in the file."""
    listing = subprocess.run(
        ["objdump", "-h", "-j", ".text", library], capture_output=True, text=True, check=True
    ).stdout
    _, _, address, _, place, *_ = re.search(r"\d+ \.text.*", listing)[0].split()[1:]
    return int(place, 16) - int(address, 16)


def hold(library: Path) -> int:
    """How many instructions were replaced."""
    code = subprocess.Popen(
        ["objdump", "-d", "-j", ".text", "--no-show-raw-insn", library],
        stdout=subprocess.PIPE,
        text=True,
    )
    places = [
        int(line.split(":")[0], 16) for line in code.stdout if line.rstrip().endswith("\tcpuid")
    ]
    if code.wait() != 0:
        raise RuntimeError(f"objdump cannot read {library}")
    content, offset = bytearray(library.read_bytes()), offset_of_text(library)
    for place in places:
        at = place + offset
        if content[at : at + 2] != CPUID:
            raise RuntimeError(f"{library}: no cpuid at {place:#x}")
        content[at : at + 2] = INVALID
    library.write_bytes(content)
    return len(places)


def prepare(folder: Path) -> None:
    if (folder / "answer.so").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for package, libraries in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is None:
            print(f"{package} is not installed: left out", file=sys.stderr)
            continue
        source = Path(spec.origin).parent
        shutil.copytree(source, folder / package, dirs_exist_ok=True)
        for pattern in libraries:
            for library in (folder / package).rglob(pattern):
                print(f"{library.name}: {hold(library)} of cpuid", file=sys.stderr)
    command = ["cc", "-O2", "-shared", "-fPIC", "-xc", "-", "-o", folder / "answer.so"]
    subprocess.run(command, input=ANSWER, text=True, check=True)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    settings = {
        "LD_PRELOAD": str(folder / "answer.so"),
        "PYTHONPATH": ":".join(path for path in paths if path),
    }
    os.execve(
        sys.executable, [sys.executable, *sys.argv[2:]], {**os.environ, **SETTINGS, **settings}
    )


if __name__ == "__main__":
    main()
