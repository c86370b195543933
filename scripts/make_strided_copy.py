"""Makes src/backends/cuda/kernels/strided_copy.ptx of strided_copy.cuh, with NVRTC from the package nvidia-cuda-nvrtc.

The text is for drivers from CUDA 12.0 on and GPUs from sm_80 on: newer ones compile it when it is first used.
"""

import ctypes
import pathlib
import re
import sys

PTX_VERSION = "7.0"  # what CUDA 11.0 reads; the kernels use nothing newer


def find_nvrtc() -> ctypes.CDLL:
    for folder in (pathlib.Path(p) / "nvidia/cu13/lib" for p in sys.path):
        if (folder / "libnvrtc.so.13").exists():
            ctypes.CDLL(str(folder / "libnvrtc-builtins.so.13.0"), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(folder / "libnvrtc.so.13"))
    sys.exit("NVRTC was not found: pip install nvidia-cuda-nvrtc")


def compile_to_ptx(text: str) -> str:
    nvrtc = find_nvrtc()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [b"--gpu-architecture=compute_80", b"--std=c++17", b"-default-device"]

    def call(name: str, *arguments: object) -> None:
        if getattr(nvrtc, name)(*arguments) != 0:
            log = ctypes.create_string_buffer(1 << 16)
            nvrtc.nvrtcGetProgramLog(program, log)
            sys.exit(f"{name} failed: {log.value.decode()}")

    call(
        "nvrtcCreateProgram",
        ctypes.byref(program),
        text.encode(),
        b"strided_copy.cu",
        0,
        None,
        None,
    )
    call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
    call("nvrtcGetPTXSize", program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    call("nvrtcGetPTX", program, ptx)
    return ptx.value.decode()


def main() -> None:
    folder = pathlib.Path(__file__).parents[1] / "src/backends/cuda/kernels"
    ptx = compile_to_ptx((folder / "strided_copy.cuh").read_text())
    ptx = re.sub(r"^//.*\n", "", ptx, flags=re.MULTILINE)
    ptx = re.sub(r"\.version .*", f".version {PTX_VERSION}", ptx)
    (folder / "strided_copy.ptx").write_text(ptx.strip("\n") + "\n")


if __name__ == "__main__":
    main()
