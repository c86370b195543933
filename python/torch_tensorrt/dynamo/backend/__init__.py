"""The backend of `torch.compile`: `torch.compile(model, backend="torch_tensorrt")`.

PyTorch finds it by the package's entry points, without an import. Where the package is used from a source folder that
is not installed, there are none, and importing it registers the names.
"""

from importlib.metadata import entry_points

from torch._dynamo.backends.registry import register_backend

from torch_tensorrt.dynamo.backend._backend import torch_tensorrt_backend
from torch_tensorrt.dynamo.backend._jit import check_not_jit, torch_compile

BACKEND_NAMES = ("torch_tensorrt", "tensorrt", "aot_torch_tensorrt_aten")


def _register() -> None:
    # A name that PyTorch loads by an entry point must not be registered before: it refuses it the second time.
    found = entry_points(group="torch_dynamo_backends").names
    for name in BACKEND_NAMES:
        if name not in found:
            register_backend(torch_tensorrt_backend, name)


_register()

__all__ = ["BACKEND_NAMES", "check_not_jit", "torch_compile", "torch_tensorrt_backend"]
