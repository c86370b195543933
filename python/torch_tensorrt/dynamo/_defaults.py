"""Defaults of `compile` that scripts import by their names in Torch-TensorRT."""

from torch_tensorrt._device import Device
from torch_tensorrt.dynamo._engine_cache import DEFAULT_ENGINE_CACHE_DIR as ENGINE_CACHE_DIR
from torch_tensorrt.dynamo._engine_cache import DEFAULT_ENGINE_CACHE_SIZE as ENGINE_CACHE_SIZE
from torch_tensorrt.dynamo._settings import TIMING_CACHE_PATH

default_device = Device.default

__all__ = [
    "ENGINE_CACHE_DIR",
    "ENGINE_CACHE_SIZE",
    "TIMING_CACHE_PATH",
    "default_device",
]
