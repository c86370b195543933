"""Where the libraries of CUDA lie that packages of NVIDIA's bring, such as those that PyTorch depends on."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

# Of the packages for CUDA 13 and 12, in site-packages/nvidia.
_FOLDERS = ("cu13/lib", "cuda_nvrtc/lib", "cublas/lib")
_VARIABLE = "KILN_CUDA_LIBRARIES"


def tell_library_folders() -> None:
    """Lets libkiln find NVRTC: folders with ":" between them, in an environment variable that users may set too."""
    if _VARIABLE in os.environ:
        return
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else list(spec.submodule_search_locations or ())
    found = [Path(root) / folder for root in roots for folder in _FOLDERS]
    os.environ[_VARIABLE] = ":".join(str(path) for path in found if path.is_dir())
