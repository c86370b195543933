"""What scripts import from `torch_tensorrt.dynamo._compiler` in Torch-TensorRT."""

from torch_tensorrt.dynamo._bindings import BindingNameMismatchError
from torch_tensorrt.dynamo._compile_program import compile
from torch_tensorrt.dynamo._cross_compile import (
    cross_compile_for_windows,
    load_cross_compiled_exported_program,
    save_cross_compiled_exported_program,
)
from torch_tensorrt.dynamo._engine_bytes import convert_exported_program_to_serialized_trt_engine

__all__ = [
    "BindingNameMismatchError",
    "compile",
    "convert_exported_program_to_serialized_trt_engine",
    "cross_compile_for_windows",
    "load_cross_compiled_exported_program",
    "save_cross_compiled_exported_program",
]
