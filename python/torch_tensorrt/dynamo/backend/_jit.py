"""`torch_tensorrt.compile(ir="torch_compile")`, and what is said when its result is to be saved."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from torch_tensorrt._input import Input
from torch_tensorrt.dynamo.backend._backend import settings_of, torch_tensorrt_backend


def torch_compile(module: torch.nn.Module, inputs: Any = None, **kwargs: Any) -> Any:
    """`torch.compile` with this backend.

    Args:
        module: the module to compile.
        inputs: not needed; if one is an `Input` with ranges, sizes are dynamic from the start.
        kwargs: options, see `CompilationSettings`, and `dynamic` of torch.compile; without it and without Inputs with
            ranges an engine is built for every combination of sizes.

    Raises:
        TypeError, ValueError: an option that is not known or not possible.
    """
    if isinstance(module, ExportedProgram):
        raise ValueError(
            'ir="torch_compile" needs a torch.nn.Module, got an ExportedProgram: compile it with ir="dynamo"'
        )
    ranges = any(isinstance(leaf, Input) and leaf.is_dynamic for leaf in pytree.tree_leaves(inputs))
    dynamic = kwargs.pop("dynamic", ranges)
    settings_of(kwargs)  # a wrong option should not have to wait for the first call
    return torch.compile(
        module, backend=torch_tensorrt_backend, dynamic=dynamic, options=dict(kwargs)
    )


def check_not_jit(module: Any) -> None:
    """Raises ValueError for what torch.compile made, which `save` cannot save."""
    compiled = (
        isinstance(module, torch._dynamo.OptimizedModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module, "_torchdynamo_orig_callable")
    )
    if compiled:
        raise ValueError(
            "A model of torch.compile cannot be saved: its engines are built when it is called, one for each graph and "
            "shape, and live in memory only. Compile ahead of time instead:\n"
            '    trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)\n'
            '    torch_tensorrt.save(trt_gm, "model.ep", arg_inputs=inputs)\n'
            "with the model that was given to torch.compile"
        )
