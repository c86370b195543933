"""The TorchScript front end of Torch-TensorRT 1.x. PyTorch has deprecated TorchScript: prefer `ir="dynamo"`."""

from torch_tensorrt.ts import logging
from torch_tensorrt.ts._compile_spec import TensorRTCompileSpec, TorchScriptDevice, TorchScriptInput
from torch_tensorrt.ts._compiler import (
    check_method_op_support,
    compile,
    convert_method_to_trt_engine,
)
from torch_tensorrt.ts._embed import embed_engine_in_new_module

__all__ = [
    "TensorRTCompileSpec",
    "TorchScriptDevice",
    "TorchScriptInput",
    "check_method_op_support",
    "compile",
    "convert_method_to_trt_engine",
    "embed_engine_in_new_module",
    "logging",
]
