"""Checks of the inputs of a compiled module that no engine makes.

Engines check the tensors that they are given. Inputs that only PyTorch sees, and values that were
constants for the tracer, are checked here, in a hook that runs before the module: a model traced for
one case must not be run as another.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from torch_tensorrt._operator import engine_call, engine_calls, is_engine_call
from torch_tensorrt._structure import flatten_inputs, is_flat
from torch_tensorrt.dynamo._contract import (
    Condition,
    SizeChecks,
    contract,
    message,
    script_text,
    shape_of,
)
from torch_tensorrt.dynamo._symbols import UNBOUNDED, Range, is_symbolic_node, linear

# Key of `InputSizes` in the `meta` of a module.
SIZES_KEY = "torch_tensorrt_sizes"


@dataclass(frozen=True)
class InputSizes:
    """What a module knows about sizes of its inputs, besides their shapes."""

    ranges: Mapping[sympy.Symbol, Range]
    guards: Sequence[Condition] = ()  # conditions that the shapes do not say
    guards_code: Sequence[str] = ()  # all guards, as torch.export has them


def add_input_checks(
    module: GraphModule, names: Sequence[str], in_spec: pytree.TreeSpec, sizes: InputSizes
) -> None:
    """Makes a module check what its engines do not, and remember it.

    Args:
        module: with `meta["val"]` on its placeholders.
        names: of its parameters.
        in_spec: the tree of its (args, kwargs).
        sizes: what it was compiled for.
    """
    module.meta[SIZES_KEY] = sizes
    placeholders = module.graph.find_nodes(op="placeholder")
    expected = [_describe(node, sizes.ranges) for node in placeholders]
    checked = [
        index for index, node in enumerate(placeholders) if not _is_checked(module.graph, node)
    ]
    unchecked = _unchecked(module.graph, sizes.ranges, sizes.guards)
    size_checks = SizeChecks(unchecked)
    nested = not is_flat(in_spec)
    if not (checked or unchecked or nested):
        return
    labels = [node.name for node in placeholders]
    # Ranks have to be right before sizes can be compared.
    ranked = sorted(size_checks.inputs - set(checked))
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])

    def check(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        if nested:
            values = flatten_inputs(args, kwargs, in_spec, names)
        else:
            values = list(signature.bind(*args, **kwargs).arguments.values())
        for index in checked:
            expected[index].check(values[index])
        for index in ranked:
            expected[index].check_rank(values[index])
        size_checks.check(values, labels)

    module.register_forward_pre_hook(check, with_kwargs=True, prepend=True)


def add_structure_check(
    module: torch.nn.Module, in_spec: pytree.TreeSpec, names: Sequence[str]
) -> None:
    """Makes a module say what is missing or too much in its nested inputs, before PyTorch shows both structures."""
    if is_flat(in_spec):
        return

    def check(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
            flatten_inputs(args, kwargs, in_spec, names)

    module.register_forward_pre_hook(check, with_kwargs=True, prepend=True)


def refuse_tracing(module: GraphModule) -> None:
    """Makes torch.jit.trace fail on a module with sizes outside its engines: it would take them as constants."""
    if not any(is_symbolic_node(node) for node in module.graph.nodes):
        return

    def refuse(*_: Any) -> None:
        if torch.jit.is_tracing():
            raise RuntimeError(
                "torch.jit.trace would fix the dynamic sizes that this module computes outside its engines: use "
                'torch_tensorrt.save(..., output_format="torchscript") or torch_tensorrt.dynamo.export(..., '
                'ir="torchscript"), which keep them'
            )

    module.register_forward_pre_hook(refuse)


def unchecked_inputs(module: GraphModule) -> list[str]:
    """What no engine checks, as statements of TorchScript; `{0}` stands for the first flat input, and so on."""
    sizes = module.meta.get(SIZES_KEY, InputSizes({}))
    placeholders = module.graph.find_nodes(op="placeholder")
    statements = [
        statement
        for index, node in enumerate(placeholders)
        if "val" in node.meta and not _is_checked(module.graph, node)
        for statement in _describe(node, sizes.ranges).statements(f"{{{index}}}")
    ]
    labels = [node.name for node in placeholders]
    for condition in _unchecked(module.graph, sizes.ranges, sizes.guards):
        test = script_text(condition)
        text = f"the sizes of the inputs do not fit together: expected {message(condition, labels)}"
        statements.append(f'assert {test}, "{text}"')
    return statements


def _unchecked(
    graph: Graph, ranges: Mapping[sympy.Symbol, Range], guards: Sequence[Condition]
) -> list[Condition]:
    """The conditions on sizes that no engine checks."""
    placeholders = graph.find_nodes(op="placeholder")
    shapes = [shape_of(node.meta.get("val")) for node in placeholders]
    calls = [set(engine_call(node).inputs) for node in engine_calls(graph)]
    return [
        condition
        for condition in contract(shapes, ranges, guards)
        if not condition.in_engines
        or not any({placeholders[i] for i, _ in condition.sizes()} <= call for call in calls)
    ]


def _is_checked(graph: Graph, placeholder: Node) -> bool:
    return any(
        is_engine_call(user) and placeholder in engine_call(user).inputs
        for user in placeholder.users
    )


def _describe(node: Node, ranges: Mapping[sympy.Symbol, Range]) -> _Constant | _Tensor:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return _Constant(node.name, value)
    sizes = []
    for size in value.shape:
        sizes.append((size, size) if isinstance(size, int) else _bounds(size, ranges))
    return _Tensor(node.name, value.dtype, sizes)


def _bounds(size: torch.SymInt, ranges: Mapping[sympy.Symbol, Range]) -> tuple[int, float]:
    found = linear(size)
    known = ranges.get(found.symbol) if found is not None else None
    return (0, math.inf) if known is None else (found.size(known.min), found.size(known.max))


class _Constant:
    """A value that the tracer took as a constant."""

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._value = value

    def check(self, value: Any) -> None:
        if isinstance(self._value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return
        if type(value) is not type(self._value) or value != self._value:
            raise ValueError(
                f"input {self._name!r} is {value!r}, but the model was compiled for {self._value!r}: "
                "values that are not tensors are constants of a compiled model"
            )

    def statements(self, text: str) -> list[str]:
        if isinstance(self._value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return []
        value = repr(self._value).replace("{", "{{").replace("}", "}}")
        condition = f"{text} is None" if self._value is None else f"{text} == {value}"
        return [f'assert {condition}, "input {self._name}: not what the model was compiled for"']


class _Tensor:
    """The dtype and sizes of a tensor."""

    def __init__(self, name: str, dtype: torch.dtype, sizes: Sequence[tuple[int, float]]) -> None:
        self._name = name
        self._dtype = dtype
        self._sizes = sizes

    def check(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"input {self._name!r} is {type(value).__name__}, expected a tensor")
        if value.dtype != self._dtype:
            raise RuntimeError(f"input {self._name!r}: got {value.dtype}, expected {self._dtype}")
        self.check_rank(value)
        for dim, (size, (low, high)) in enumerate(zip(value.shape, self._sizes, strict=True)):
            if not low <= size <= high:
                wanted = str(low) if low == high else f"{low}..{high}"
                raise RuntimeError(f"input {self._name!r} dim {dim}: got {size}, expected {wanted}")

    def check_rank(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"input {self._name!r} is {type(value).__name__}, expected a tensor")
        if value.dim() != len(self._sizes):
            raise RuntimeError(
                f"input {self._name!r}: got {value.dim()} dimensions, expected {len(self._sizes)}"
            )

    def statements(self, text: str) -> list[str]:
        found = [
            (f"{text}.dtype == {self._dtype}", f"expected {self._dtype}"),
            (f"{text}.dim() == {len(self._sizes)}", f"expected {len(self._sizes)} dimensions"),
        ]
        for dim, (low, high) in enumerate(self._sizes):
            size = f"{text}.size({dim})"
            if low == high:
                found.append((f"{size} == {low}", f"dim {dim}: expected {low}"))
            elif high < UNBOUNDED:
                found.append(
                    (f"{size} >= {low} and {size} <= {high}", f"dim {dim}: expected {low}..{high}")
                )
        return [f'assert {test}, "input {self._name}: {expected}"' for test, expected in found]
