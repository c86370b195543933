"""Modules that run engines."""

from torch_tensorrt.dynamo.runtime._mutable_module import MutableTorchTensorRTModule

__all__ = ["MutableTorchTensorRTModule"]
