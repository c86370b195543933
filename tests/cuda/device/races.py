"""Kernels of ten lines that show when racecheck reports a race that there is not (docs/gpu.md):

    for name in $(python races.py); do compute-sanitizer --tool racecheck python races.py $name; done

In each of them half of 256 threads write to shared memory and all read what the other half of it holds. It prints
whether the results are right; only "unordered" has a race. Needs a driver and NVRTC, not PyTorch.
"""

import ctypes
import sys

from compile import library

BARRIER = 'asm volatile("bar.sync 0; // {}" ::: "memory");'
WRITERS = 'asm volatile("bar.sync 3, 128;" ::: "memory");'
WRITE = "s[t] = t; s[t - 128] = t - 128;"
KERNELS = {
    "unordered": f"if (t >= 128) {{ {WRITE} }}",
    "one_barrier": f"if (t >= 128) {{ {WRITE} }} {BARRIER.format('all')}",
    "barrier_in_each_branch": f"if (t < 128) {{ {BARRIER.format('a')} }} else {{ {WRITE} {BARRIER.format('b')} }}",
    "writers_meet_first": f"if (t >= 128) {{ {WRITERS} {WRITE} }} {BARRIER.format('all')}",
    "writers_meet_first_in_each_branch": (
        f"if (t < 128) {{ {BARRIER.format('a')} }} else {{ {WRITERS} {WRITE} {BARRIER.format('b')} }}"
    ),
}


def checked(result, what):
    if result != 0:
        raise SystemExit(f"{what}: {result}")


def cubin_of(body):
    text = (
        'extern "C" __global__ void kernel(float* out) {\n  __shared__ float s[256];\n'
        f"  const int t = threadIdx.x;\n  {body}\n  out[t] = s[t ^ 128];\n}}\n"
    )
    nvrtc, program, size = library(), ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    options = (ctypes.c_char_p * 1)(b"--gpu-architecture=sm_90a")
    checked(nvrtc.nvrtcCompileProgram(program, 1, options), "NVRTC")
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    return cubin.raw


def run(cubin):
    driver = ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    module, function, memory = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_ulonglong()
    checked(driver.cuInit(0), "cuInit")
    checked(driver.cuDeviceGet(ctypes.byref(device), 0), "device")
    checked(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "context")
    checked(driver.cuCtxSetCurrent(context), "context")
    checked(driver.cuModuleLoadData(ctypes.byref(module), cubin), "module")
    checked(driver.cuModuleGetFunction(ctypes.byref(function), module, b"kernel"), "kernel")
    checked(driver.cuMemAlloc_v2(ctypes.byref(memory), 1024), "memory")
    arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(memory), ctypes.c_void_p))
    checked(driver.cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, None, arguments, None), "launch")
    results = (ctypes.c_float * 256)()
    checked(driver.cuMemcpyDtoH_v2(results, memory, 1024), "copy")
    return all(results[i] == i ^ 128 for i in range(256))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(sys.argv[1], "right" if run(cubin_of(KERNELS[sys.argv[1]])) else "wrong")
    else:
        print("\n".join(KERNELS))
