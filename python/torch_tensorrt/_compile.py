"""`torch_tensorrt.compile`: a module in, a compiled module out."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from torch_tensorrt import dynamo
from torch_tensorrt._arguments import merge_inputs, take_trace_options
from torch_tensorrt.dynamo.backend import torch_compile
from torch_tensorrt.ts._compiler import compile_to_script

logger = logging.getLogger(__name__)

# What `ir` may be, and what is said about those that are not there yet.
_IRS = ("default", "dynamo", "ts", "torchscript", "fx", "torch_compile")
_COMPILED_IRS = ("default", "dynamo", "ts", "torchscript", "torch_compile")
_TORCHSCRIPT_IRS = ("ts", "torchscript")


def compile(
    module: torch.nn.Module | ExportedProgram,
    ir: str = "default",
    inputs: Sequence[Any] | None = None,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    enabled_precisions: Any = None,
    **kwargs: Any,
) -> Any:
    """Compiles a module for inference.

    Args:
        module: a torch.nn.Module in eval mode, or an ExportedProgram.
        ir: "dynamo", or "default", which is the same for these; "ts" gives a ScriptModule, and takes ScriptModules too;
            "torch_compile" for `torch.compile`, which needs no inputs and builds engines at the first call: what it
            returns cannot be saved.
        inputs, arg_inputs: positional inputs, one or the other: tensors for fixed shapes, `torch_tensorrt.Input`s for
            ranges, or lists, tuples and dictionaries of them.
        kwarg_inputs: keyword inputs, likewise.
        enabled_precisions: accepted for compatibility: results have the dtypes of the model.
        kwargs: options, see `torch_tensorrt.dynamo.CompilationSettings` and docs/torch_tensorrt_api.md; `strict` and
            `dynamic_shapes` go to torch.export.

    Returns:
        A torch.fx.GraphModule that is called like the original, or a torch.jit.ScriptModule for ir="ts". Save it with
        `torch_tensorrt.save`.

    Raises:
        AssertionError: no inputs, or both `inputs` and `arg_inputs`. TypeError: an unknown option.
        NotImplementedError: an `ir` that is not supported. RuntimeError: not a module.
    """
    if ir not in _IRS:
        raise ValueError(f"Unknown ir was requested: got {ir!r}, expected one of {', '.join(_IRS)}")
    _check_module(module, ir)
    if ir == "fx":
        warnings.warn(
            "ir='fx' is deprecated: use ir='dynamo', which takes the same modules",
            DeprecationWarning,
            stacklevel=2,
        )
    if ir not in _COMPILED_IRS:
        raise NotImplementedError(
            f"ir={ir!r} is not supported; supported are {', '.join(map(repr, _COMPILED_IRS))}"
        )
    if ir in _TORCHSCRIPT_IRS and (signature := kwargs.pop("input_signature", None)) is not None:
        inputs = merge_inputs(inputs, signature)
    if ir == "torch_compile":
        if enabled_precisions is not None:
            kwargs["enabled_precisions"] = enabled_precisions
        return torch_compile(module, merge_inputs(inputs, arg_inputs, required=False), **kwargs)
    is_exported = isinstance(module, ExportedProgram)
    is_script = isinstance(module, torch.jit.ScriptModule)
    if not (is_exported or is_script) and not inspect.signature(module.forward).parameters:
        arg_inputs = arg_inputs if arg_inputs is not None or inputs is not None else ()
    if not (is_exported or kwarg_inputs):
        merge_inputs(inputs, arg_inputs)
    args = merge_inputs(inputs, arg_inputs, required=False)
    if enabled_precisions is not None:
        kwargs["enabled_precisions"] = enabled_precisions
    if ir in _TORCHSCRIPT_IRS or is_script:
        return compile_to_script(module, args or (), kwarg_inputs, kwargs)
    trace_options = take_trace_options(kwargs)
    dynamo.CompilationSettings.from_options(
        kwargs
    )  # a wrong option should not have to wait for the trace
    program = module if is_exported else _trace(module, args, kwarg_inputs, trace_options)
    return dynamo.compile(program, arg_inputs=args, kwarg_inputs=kwarg_inputs, **kwargs)


def _check_module(module: Any, ir: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        if ir == "default":
            logger.warning("the module is a ScriptModule, so it is compiled with ir='ts'")
        elif ir not in _TORCHSCRIPT_IRS:
            raise ValueError(
                f"Unknown ir was requested: a ScriptModule cannot be compiled with ir={ir!r}, only with ir='ts'"
            )
    if not isinstance(module, (torch.nn.Module, ExportedProgram)):
        raise RuntimeError(
            f"Module is an unknown format: got {type(module).__name__}, expected torch.nn.Module or ExportedProgram"
        )


def _trace(
    module: torch.nn.Module, args: Any, kwargs: Any, options: dict[str, Any]
) -> ExportedProgram:
    return dynamo.trace(
        module, arg_inputs=args if args is not None else (), kwarg_inputs=kwargs, **options
    )
