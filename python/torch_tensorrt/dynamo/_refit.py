"""`torch_tensorrt.dynamo.refit_module_weights`: new weights for a compiled module, without compiling.

Every engine says of which nodes of its program it was made (`region_metadata`). The new program has the same nodes if
it comes from the same model, so each engine is made again from those, with its old code; weights that stayed in PyTorch
are found by their names. That needs nothing but the module, which may come from a file.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

import kiln
from torch_tensorrt._arguments import check_program, merge_inputs, sample_inputs
from torch_tensorrt._operator import (
    engine_array,
    engine_call,
    engine_calls,
    engine_tensor,
    hold,
    release,
)
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._autocast import Decisions, cast, made_functional
from torch_tensorrt.dynamo._layouts import enter_as_before
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._region import find_region, region_model
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._symbols import get_attribute
from torch_tensorrt.dynamo.conversion._apply import lower

logger = logging.getLogger(__name__)

# How far the results of a refitted module may be from the new program's, with verify_output=True.
_TOLERANCE = 5e-3


def refit_module_weights(
    compiled_module: GraphModule | ExportedProgram,
    new_weight_module: ExportedProgram,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    verify_output: bool = False,
    in_place: bool = False,
    use_weight_map_cache: bool = True,
) -> GraphModule:
    """Gives a compiled module the weights of another export of the same model.

    No code is generated, so it takes a fraction of the time of a compile, and the engines have the bytes that a compile
    with the new weights would give. Engines without weights (`strip_engine_weights=True`) are filled in.

    Args:
        compiled_module: what `torch_tensorrt.compile` or `load` gave, or its `.module()`.
        new_weight_module: the same model with other weights, exported with the same inputs.
        arg_inputs, kwarg_inputs: for `verify_output`.
        verify_output: run both on these inputs and compare the results.
        use_weight_map_cache: accepted: where weights go is found by planning, every time.
        in_place: change `compiled_module`, and return it. Otherwise it keeps its weights, and only what
            changes is copied.

    Returns:
        The module with the new weights.

    Raises:
        TypeError: not a compiled module, or not an ExportedProgram. ValueError: the program is not the one that the
        module was made from; or the values of the old weights decided something in an engine, which
        `immutable_weights=False` excludes. The text says which engine, and what differs.
        RuntimeError: with verify_output=True, results that differ.
    """
    module = _as_module(compiled_module, in_place)
    check_program(new_weight_module, "new_weight_module is")
    # Converters and passes that users registered made nodes of the engines: they make them again.
    origins = {name: _origin(get_attribute(module, name)) for name in _engine_names(module)}
    decided = next((each["autocast"] for each in origins.values() if "autocast" in each), None)
    if decided is not None:
        new_weight_module = cast(
            made_functional(new_weight_module), Decisions.from_metadata(decided)
        )
    program = _program_of(new_weight_module, list(origins.values()))
    enter_as_before(program, {node for each in origins.values() for node in each.get("nodes", ())})
    changes = _new_engines(module, program, origins) | _new_weights(module, program)
    refitted = _replaced(module, changes) if verify_output or not in_place else module
    if verify_output:
        _verify(refitted, new_weight_module, arg_inputs, kwarg_inputs)
    if not in_place:
        return refitted
    _set(module, changes)
    return module


def _program_of(exported: ExportedProgram, origins: Sequence[Mapping[str, Any]]) -> Program:
    """With the nodes that the engines were made from."""
    if any(origin.get("as_exported") for origin in origins):
        program = Program.as_exported(exported)
        if program is not None:
            return program
    kept = {op for origin in origins for op in origin.get("torch_executed_ops", ())}
    return lower(Program.decomposed(exported), CompilationSettings(torch_executed_ops=kept))


def _as_module(compiled: Any, in_place: bool) -> GraphModule:
    if isinstance(compiled, ExportedProgram):
        if in_place:
            raise TypeError("an ExportedProgram cannot be changed in place: give its .module()")
        compiled = compiled.module()
    if not isinstance(compiled, GraphModule):
        raise TypeError(
            f"compiled_module is {type(compiled).__name__}, expected what torch_tensorrt.compile or load gave"
        )
    return compiled


def _engine_names(module: GraphModule) -> list[str]:
    calls = engine_calls(module.graph)
    return list(dict.fromkeys(str(engine_call(call).engine.target) for call in calls))


def _origin(engine: torch.Tensor) -> dict[str, Any]:
    """What an engine says of where it comes from (`region_metadata`); empty if it says nothing."""
    try:
        origin = json.loads(kiln.inspect(engine_array(engine))["metadata"])
    except (ValueError, KeyError, TypeError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _new_engines(
    module: GraphModule, program: Program, origins: Mapping[str, Mapping[str, Any]]
) -> dict[str, torch.Tensor]:
    nodes = {node.name: node for node in program.graph.nodes}
    changes = {}
    for name, origin in origins.items():
        old = get_attribute(module, name)
        made_from, results = _find_origin(name, origin, nodes)
        region = find_region(program, made_from, results)
        if results is None:
            region.orders.clear()
        region.update({nodes[new]: nodes[old] for new, old in origin.get("updates", {}).items()})
        model, _ = region_model(program, region)
        try:
            engine = kiln.refit(engine_array(old), model)
        except kiln.InvalidArgumentError as error:
            raise ValueError(f"{name} cannot be refitted: {error}") from error
        changes[name] = engine_tensor(engine)
        logger.info("refitted %s: %d bytes", name, len(engine))
    return changes


def _find_origin(
    name: str, origin: Mapping[str, Any], nodes: Mapping[str, Node]
) -> tuple[list[Node], dict[Node, tuple[int, ...]] | None]:
    """The nodes of the new program that an engine is made from, and its results with their orders in memory; None in
    engines of older versions, whose results are row-major."""
    if "nodes" not in origin:
        raise ValueError(
            f"{name} does not say what it was made from, so it cannot be refitted: compile the model again"
        )
    wanted, results = origin["nodes"], origin.get("results")
    missing = [node for node in wanted if node not in nodes]
    if missing:
        raise ValueError(
            f"{name} cannot be refitted: it computes {missing[0]} ({len(missing)} of {len(wanted)} such nodes), which "
            "new_weight_module does not have: export the same model with the same inputs, or compile it"
        )
    found = [nodes[node] for node in wanted]
    if results is None:
        return found, None
    return found, {nodes[node]: tuple(order) for node, order in results.items()}


def _new_weights(module: GraphModule, program: Program) -> dict[str, torch.Tensor]:
    """Values of the weights that PyTorch has, by name."""
    engines = set(_engine_names(module))
    values = {name: program.weight(node) for node, name in program.lifted.items()}
    changes = {}
    for node in module.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        old = get_attribute(module, name)
        if name in engines or not isinstance(old, torch.Tensor):
            continue
        new = values.get(name)
        if not isinstance(new, torch.Tensor):
            raise ValueError(f"new_weight_module has no weight {name!r}, which the module uses")
        if new.shape != old.shape or new.dtype != old.dtype:
            raise ValueError(
                f"weight {name!r} is {new.dtype} {tuple(new.shape)} in new_weight_module, expected {old.dtype} "
                f"{tuple(old.shape)}"
            )
        changes[name] = new.detach().clone()
    return changes


def _set(module: GraphModule, changes: Mapping[str, torch.Tensor]) -> None:
    engines = set(_engine_names(module))
    for name, value in changes.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = get_attribute(module, owner_name) if owner_name else module
        old = getattr(owner, leaf)
        if isinstance(old, torch.nn.Parameter):
            value = torch.nn.Parameter(value, requires_grad=False)
        setattr(owner, leaf, value)
        if name in engines:
            release(module, old)
            hold(module, value)


def _replaced(module: GraphModule, changes: Mapping[str, torch.Tensor]) -> GraphModule:
    """A module of the same graph: what does not change is shared with the old one."""
    with quiet_torch():
        graph = copy.deepcopy(module.graph)
    names = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    names |= {str(node.target) for node in graph.find_nodes(op="call_module")}
    attributes = {name: changes.get(name, get_attribute(module, name)) for name in sorted(names)}
    result = GraphModule(attributes, graph)
    result.meta = dict(module.meta)
    result._forward_pre_hooks.update(module._forward_pre_hooks)  # the checks of inputs
    result._forward_pre_hooks_with_kwargs.update(module._forward_pre_hooks_with_kwargs)
    for name, value in vars(module).items():  # what torch.export's own checks look at
        if name not in vars(result) and getattr(value, "__self__", None) is not module:
            vars(result)[name] = value
    for name in _engine_names(result):
        hold(result, get_attribute(result, name))
    return result.train(module.training)


def _verify(module: GraphModule, program: ExportedProgram, args: Any, kwargs: Any) -> None:
    args = merge_inputs(None, args, required=False)
    if args is None and not kwargs:
        raise ValueError("verify_output=True needs arg_inputs or kwarg_inputs to run with")
    args, kwargs = sample_inputs(module, args, kwargs)
    with torch.no_grad(), quiet_torch():
        got, _ = pytree.tree_flatten(module(*args, **kwargs))
        expected, _ = pytree.tree_flatten(program.module()(*args, **kwargs))
    for index, (value, reference) in enumerate(zip(got, expected, strict=True)):
        if isinstance(reference, torch.Tensor) and not torch.allclose(
            value, reference, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
        ):
            difference = (value.double() - reference.double()).abs().max().item()
            raise RuntimeError(
                f"result {index} of the refitted module differs from new_weight_module's by up to {difference:.3g}"
            )
