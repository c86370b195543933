"""The API of Torch-TensorRT, with Kiln where TensorRT would be: compiles PyTorch models ahead of time, for the CPU.

trt_model = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[torch.randn(1, 3, 224, 224)])
torch_tensorrt.save(trt_model, "model.ep", arg_inputs=[torch.randn(1, 3, 224, 224)])
trt_model = torch_tensorrt.load("model.ep")
"""

from kiln import __version__
from torch_tensorrt import _operator as _operator  # registers kiln::execute_engine
from torch_tensorrt import dynamo, logging, runtime, ts
from torch_tensorrt._absent import get_absent, register_modules
from torch_tensorrt._compile import compile
from torch_tensorrt._convert import convert_method_to_trt_engine
from torch_tensorrt._device import Device, set_device
from torch_tensorrt._enums import DeviceType, EngineCapability, Platform, dtype, memory_format
from torch_tensorrt._features import ENABLED_FEATURES
from torch_tensorrt._input import Input
from torch_tensorrt._quiet import accept_any_ending, accept_empty_lists
from torch_tensorrt.dynamo import cross_compile_for_windows, load_cross_compiled_exported_program
from torch_tensorrt.dynamo.runtime import MutableTorchTensorRTModule
from torch_tensorrt.formats.load import load
from torch_tensorrt.formats.save import save
from torch_tensorrt.runtime import *  # noqa: F403 - upstream has all of it here, too

# Engines run on the CPU.
__cuda_version__ = None
# For names that are not here: says what to use instead.
__getattr__ = get_absent

__all__ = [
    *runtime.__all__,
    "ENABLED_FEATURES",
    "Device",
    "DeviceType",
    "EngineCapability",
    "Input",
    "MutableTorchTensorRTModule",
    "Platform",
    "__cuda_version__",
    "__version__",
    "compile",
    "convert_method_to_trt_engine",
    "cross_compile_for_windows",
    "dtype",
    "dynamo",
    "load",
    "load_cross_compiled_exported_program",
    "logging",
    "memory_format",
    "runtime",
    "save",
    "set_device",
    "ts",
]

accept_any_ending()
accept_empty_lists()
register_modules()
