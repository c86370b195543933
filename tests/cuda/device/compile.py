"""Compiles the .cu files of folders with NVRTC, on all cores, where no .cubin lies beside them.

python compile.py FOLDER...
"""

import concurrent.futures
import ctypes
import glob
import os
import sys


def library():
    roots = [os.path.join(path, "nvidia") for path in sys.path]
    for folder in [os.environ.get("KILN_CUDA_LIBRARIES", "")] + [
        os.path.join(root, "cu13", "lib") for root in roots
    ]:
        if os.path.exists(os.path.join(folder, "libnvrtc.so.13")):
            for name in sorted(glob.glob(os.path.join(folder, "libnvrtc-builtins.so.13*"))):
                ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(os.path.join(folder, "libnvrtc.so.13"))
    raise SystemExit("libnvrtc.so.13 was not found")


def compile_file(path):
    nvrtc = library()
    arch = path.split(".")[-2].replace("sm_90", "sm_90a")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    with open(path, "rb") as file:
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), file.read(), b"kernel.cu", 0, None, None)
    options = [
        b"--gpu-architecture=" + arch.encode(),
        b"--std=c++17",
        b"-default-device",
        b"--fmad=false",
        b"--diag-suppress=177,186,514",
        b"--ptxas-options=-v",
    ]
    result = nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if result == 0:
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, cubin)
        with open(path[:-3] + ".cubin", "wb") as file:
            file.write(cubin.raw)
    lines = [
        line
        for line in log.value.decode().splitlines()
        if result
        or "C75" in line
        or "warning" in line
        or ("spill" in line and " 0 bytes spill stores" not in line)
    ]
    return path, lines


if __name__ == "__main__":
    files = [
        f
        for folder in sys.argv[1:]
        for f in sorted(glob.glob(f"{folder}/*.cu"))
        if not os.path.exists(f[:-3] + ".cubin")
    ]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for path, lines in pool.map(compile_file, files):
            if lines:
                print(os.path.basename(path), *lines[:6])
