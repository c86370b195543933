"""The dynamo front end: trace, compile, export."""

from torch_tensorrt.dynamo._compiler import compile
from torch_tensorrt.dynamo._exporter import export
from torch_tensorrt.dynamo._refit import refit_module_weights
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._tracer import trace

__all__ = ["CompilationSettings", "compile", "export", "refit_module_weights", "trace"]
