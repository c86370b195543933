"""Defaults of `compile` that scripts import by their names in Torch-TensorRT."""

from torch_tensorrt._device import Device
from torch_tensorrt.dynamo._debugger import default_folder
from torch_tensorrt.dynamo._engine_cache import DEFAULT_ENGINE_CACHE_DIR as ENGINE_CACHE_DIR
from torch_tensorrt.dynamo._engine_cache import DEFAULT_ENGINE_CACHE_SIZE as ENGINE_CACHE_SIZE
from torch_tensorrt.dynamo._settings import TIMING_CACHE_PATH, CompilationSettings

MIN_BLOCK_SIZE = CompilationSettings.min_block_size
default_device = Device.default

__all__ = [
    "ENGINE_CACHE_DIR",
    "ENGINE_CACHE_SIZE",
    "MIN_BLOCK_SIZE",
    "TIMING_CACHE_PATH",
    "default_device",
]


def __getattr__(name: str) -> str:
    if name == "DEBUG_LOGGING_DIR":  # of a user, who need not have a name
        return str(default_folder())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
