"""Modules that run engines."""

from torch_tensorrt.dynamo.runtime._mutable_module import MutableTorchTensorRTModule
from torch_tensorrt.dynamo.runtime._resources import ResourceAllocationStrategy
from torch_tensorrt.runtime._module import PythonTorchTensorRTModule, TorchTensorRTModule

__all__ = [
    "MutableTorchTensorRTModule",
    "PythonTorchTensorRTModule",
    "ResourceAllocationStrategy",
    "TorchTensorRTModule",
]
