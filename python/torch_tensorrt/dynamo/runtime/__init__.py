"""The older place of `torch_tensorrt.runtime.TorchTensorRTModule`."""

from torch_tensorrt.runtime import TorchTensorRTModule

__all__ = ["TorchTensorRTModule"]
