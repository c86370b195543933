"""The API of Torch-TensorRT, with Kiln where TensorRT would be: compiles PyTorch models ahead of time, for the CPU.

trt_model = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[torch.randn(1, 3, 224, 224)])
torch_tensorrt.save(trt_model, "model.ep", arg_inputs=[torch.randn(1, 3, 224, 224)])
trt_model = torch_tensorrt.load("model.ep")
"""

from kiln import __version__
from torch_tensorrt import _operator as _operator  # registers kiln::execute_engine
from torch_tensorrt import dynamo, logging
from torch_tensorrt._compile import compile
from torch_tensorrt._device import Device
from torch_tensorrt._enums import DeviceType, EngineCapability, Platform, dtype, memory_format
from torch_tensorrt._input import Input
from torch_tensorrt._load import load
from torch_tensorrt._save import save
from torch_tensorrt.dynamo.runtime import MutableTorchTensorRTModule

__all__ = [
    "Device",
    "DeviceType",
    "EngineCapability",
    "Input",
    "MutableTorchTensorRTModule",
    "Platform",
    "__version__",
    "compile",
    "dtype",
    "dynamo",
    "load",
    "logging",
    "memory_format",
    "save",
]
