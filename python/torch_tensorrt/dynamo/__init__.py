"""The dynamo front end: trace, compile, export."""

from torch_tensorrt.dynamo import conversion, lowering, utils
from torch_tensorrt.dynamo._bindings import BindingNameMismatchError
from torch_tensorrt.dynamo._compile_program import compile
from torch_tensorrt.dynamo._cross_compile import (
    cross_compile_for_windows,
    load_cross_compiled_exported_program,
    save_cross_compiled_exported_program,
)
from torch_tensorrt.dynamo._debugger import Debugger
from torch_tensorrt.dynamo._engine_bytes import convert_exported_program_to_serialized_trt_engine
from torch_tensorrt.dynamo._exporter import export
from torch_tensorrt.dynamo._recurrent_sizes import register_recurrent_sizes
from torch_tensorrt.dynamo._refit import refit_module_weights
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._source_ir import SourceIR
from torch_tensorrt.dynamo._tracer import trace

__all__ = [
    "BindingNameMismatchError",
    "CompilationSettings",
    "Debugger",
    "SourceIR",
    "compile",
    "conversion",
    "convert_exported_program_to_serialized_trt_engine",
    "cross_compile_for_windows",
    "export",
    "load_cross_compiled_exported_program",
    "lowering",
    "refit_module_weights",
    "save_cross_compiled_exported_program",
    "trace",
    "utils",
]

register_recurrent_sizes()
