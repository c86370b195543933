"""Checks of the inputs that are given to `compile`, `trace` and `save`, and what is read out of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from torch_tensorrt._device import Device
from torch_tensorrt._input import Input


def merge_inputs(inputs: Any, arg_inputs: Any, *, required: bool = True) -> Any:
    """The positional inputs, from either of the two parameters that may give them."""
    if required and inputs is None and arg_inputs is None:
        raise AssertionError("'arg_inputs' and 'inputs' should not both be None.")
    if inputs is not None and arg_inputs is not None:
        raise AssertionError("'arg_inputs' and 'inputs' should not be used at the same time.")
    given = inputs if arg_inputs is None else arg_inputs
    return given if given is None or isinstance(given, (list, tuple)) else [given]


def flatten_tensors(example_inputs: tuple[Sequence[Any], Mapping[str, Any]]) -> list[Any]:
    return pytree.tree_leaves(example_inputs)


def input_device(module: Any) -> torch.device:
    """Where a module takes its inputs: where those are that it was traced with, else its weights, else the CPU."""
    return _known_device(module) or torch.device("cpu")


def _known_device(module: Any) -> torch.device | None:
    if isinstance(module, GraphModule):
        for node in module.graph.find_nodes(op="placeholder"):
            if isinstance(value := node.meta.get("val"), torch.Tensor):
                return value.device
    weights = itertools.chain(module.parameters(), module.buffers())
    return next((weight.device for weight in weights), None)


def device_of_inputs(module: Any, inputs: Any) -> torch.device | None:
    """Where a module takes its inputs: where the module is, else where one of these inputs is; None: nothing says, as
    an Input's tensor in the CPU, which is an example of values."""
    if (known := _known_device(module)) is not None:
        return known
    for value in pytree.tree_leaves(inputs):
        tensor = value.torch_tensor if isinstance(value, Input) else value
        if not isinstance(tensor, torch.Tensor):
            continue
        if not isinstance(value, Input) or tensor.device.type != "cpu":
            return tensor.device
    return None


def sample_value(value: Any, device: torch.device) -> Any:
    """A tensor on a device to trace with, for an Input; other values as they are.

    A dynamic size gets a sample of at least 2, because tracers take 0 and 1 as constants.
    """
    if not isinstance(value, Input):
        return value
    if not value.is_dynamic:
        return value.example_tensor().to(device)
    dynamic = value.dynamic_axes()
    shape = [
        min(max(size, 2), dynamic[axis][1]) if axis in dynamic else size
        for axis, size in enumerate(value.opt_shape)
    ]
    return value._random_tensor(tuple(shape)).to(device)


def sample_inputs(
    module: Any, args: Any, kwargs: Any, device: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of a module, with a tensor where it takes them for every Input: for a module
    without weights, on `device` (None: the GPU, else the CPU) if no input says where.

    A tensor that is given twice, or that is a weight of the module, is copied: tracers tell tensors apart by
    identity, and would take two inputs for one, or a weight for an input.
    """
    place = device_of_inputs(module, (args, kwargs)) or Device._from(device).to(torch.device)
    known: list[torch.Tensor] = [*module.parameters(), *module.buffers()]
    identities = {id(tensor) for tensor in known}

    def sample(value: Any) -> Any:
        found = sample_value(value, place)
        if isinstance(found, torch.Tensor):
            found = found.detach().clone() if id(found) in identities else found
            known.append(found)  # kept, so that nothing else gets its identity
            identities.add(id(found))
        return found

    return tuple(pytree.tree_map(sample, tuple(args or ()))), pytree.tree_map(
        sample, dict(kwargs or {})
    )


# Options that are for tracing a module, and not for compiling it.
_TRACE_OPTIONS = ("strict", "dynamic_shapes")


def take_trace_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options for the trace out of all options, and has those that both need."""
    taken = {key: options.pop(key) for key in _TRACE_OPTIONS if key in options}
    return taken | {key: options[key] for key in ("device",) if key in options}


def check_program(value: Any, subject: str = "got") -> None:
    """TypeError: not an ExportedProgram. `subject` begins the text."""
    if not isinstance(value, ExportedProgram):
        raise TypeError(
            f"{subject} {type(value).__name__}, expected torch.export.ExportedProgram: "
            "torch_tensorrt.dynamo.trace makes one from a module"
        )


def contains_tensor(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))


def check_graph_module(module: Any) -> None:
    """ValueError: a plain module is given to `save`."""
    if not isinstance(module, GraphModule):
        raise ValueError(
            "Input model is of type nn.Module. Saving nn.Module directly is not supported. Supported model types "
            "torch.jit.ScriptModule | torch.fx.GraphModule | torch.export.ExportedProgram."
        )
