"""`torch_tensorrt.convert_method_to_trt_engine`: a method of a module as the bytes of one engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from torch_tensorrt import ts
from torch_tensorrt._arguments import merge_inputs, take_trace_options
from torch_tensorrt._method import method_as_module
from torch_tensorrt.dynamo._engine_bytes import convert_exported_program_to_serialized_trt_engine
from torch_tensorrt.dynamo._tracer import trace


def convert_method_to_trt_engine(
    module: torch.nn.Module | ExportedProgram,
    method_name: str = "forward",
    inputs: Sequence[Any] | None = None,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    ir: str = "default",
    **kwargs: Any,
) -> bytes:
    """Compiles a method of a module into one engine.

    Args:
        module: a torch.nn.Module in eval mode, or an ExportedProgram; a ScriptModule goes to `torch_tensorrt.ts`.
        method_name: which method.
        inputs, arg_inputs, kwarg_inputs: as for `torch_tensorrt.compile`.
        ir: "default" or "dynamo"; "ts" for ScriptModules.
        kwargs: options, as for `torch_tensorrt.compile`; also the binding names of
            `torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine`.

    Returns:
        An engine file: write it as `.kiln`, load it with `kiln.Engine`, or give it to
        `torch_tensorrt.runtime.TorchTensorRTModule`.

    Raises:
        RuntimeError: an ir that makes no engine of a whole module, or something that cannot be in an engine.
        ValueError: an unknown ir. AttributeError: the module has no such method.
    """
    if ir in ("fx", "torch_compile"):
        raise RuntimeError(
            f"ir={ir!r} cannot make one engine of a whole method; use ir='dynamo' or leave ir out"
        )
    if ir not in ("default", "dynamo", "ts", "torchscript"):
        raise ValueError(
            f"Unknown ir was requested: got {ir!r}, expected one of default, dynamo, ts, torchscript"
        )
    args = merge_inputs(inputs, arg_inputs, required=False)
    if isinstance(module, torch.jit.ScriptModule) or ir in ("ts", "torchscript"):
        if ir == "dynamo":
            raise ValueError(
                "Unknown ir was requested: a ScriptModule cannot be compiled with ir='dynamo'; leave ir out"
            )
        return ts.convert_method_to_trt_engine(
            module, method_name, args, kwarg_inputs=kwarg_inputs, **kwargs
        )
    if isinstance(module, ExportedProgram):
        if method_name != "forward":
            raise ValueError(
                f"method_name is {method_name!r}, but an ExportedProgram has forward alone"
            )
        program = module
    else:
        options = take_trace_options(kwargs)
        method = method_as_module(module, method_name)
        program = trace(method, arg_inputs=args, kwarg_inputs=kwarg_inputs, **options)
    return convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=args, kwarg_inputs=kwarg_inputs, **kwargs
    )
