"""What AOTInductor compiles for a GPU with: Triton, headers of CUDA, and the driver's library where linkers find it."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# All that PyTorch's headers for compiled code include of CUDA's.
_HEADERS = ("cuda.h", "cuda_runtime.h", "cuda_fp8.h", "crt/host_defines.h", "nv/target")


def missing_for_gpu() -> str | None:
    """What is not there of what AOTInductor needs beside a C++ compiler, with what to do; None: nothing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    if cuda_home() is None:
        return (
            "CUDA's headers were not found: pip install nvidia-cuda-crt nvidia-cuda-cccl, or set CUDA_HOME to a CUDA "
            "toolkit"
        )
    return None


def cuda_home() -> Path | None:
    """A folder with the headers that compiled code includes: PyTorch's CUDA_HOME, or that of pip's packages."""
    from torch.utils import cpp_extension

    folders = [Path(cpp_extension.CUDA_HOME)] if cpp_extension.CUDA_HOME else []
    folders += _folders_of_pip()
    for folder in folders:
        if all((folder / "include" / header).is_file() for header in _HEADERS):
            return folder
    return None


def _folders_of_pip() -> list[Path]:
    """.../site-packages/nvidia/cu13 and the like, the newest first."""
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations if spec is not None else None
    return [folder for root in roots or () for folder in sorted(Path(root).glob("cu*"))[::-1]]


@contextmanager
def cuda_toolkit() -> Iterator[Path]:
    """Lets PyTorch find CUDA's headers inside. Gives a folder for the linker, with the driver's library in it."""
    from torch.utils import cpp_extension

    before, found = cpp_extension.CUDA_HOME, cuda_home()
    with tempfile.TemporaryDirectory(prefix="kiln-link-") as folder:
        driver = _driver_library()
        if driver is not None:
            # A driver alone brings libcuda.so.1, and not the name that linkers look for.
            Path(folder, "libcuda.so").symlink_to(driver)
        cpp_extension.CUDA_HOME = before if found is None else os.fspath(found)
        try:
            yield Path(folder)
        finally:
            cpp_extension.CUDA_HOME = before


def _driver_library() -> str | None:
    """Where this process has loaded the driver from, as a model on a GPU has it do."""
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        path = line.split(maxsplit=5)[-1]
        if path.startswith("/") and Path(path).name.startswith("libcuda.so"):
            return path
    return None
