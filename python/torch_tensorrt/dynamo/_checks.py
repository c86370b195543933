"""Checks of the inputs of a compiled module that no engine makes.

Engines check the tensors that they are given. Inputs that only PyTorch sees, and values that were
constants for the tracer, are checked here, in a hook that runs before the module: a model traced for
one case must not be run as another.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo

from torch_tensorrt._operator import execute_engine
from torch_tensorrt.dynamo._symbols import UNBOUNDED, Range, is_symbolic_node, linear


def add_input_checks(
    module: GraphModule, names: Sequence[str], ranges: Mapping[sympy.Symbol, Range]
) -> None:
    """Makes a module check what its engines do not.

    Args:
        module: with `meta["val"]` on its placeholders.
        names: of its parameters.
        ranges: of the symbolic sizes that it was compiled for.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    expected = [_describe(node, ranges) for node in placeholders]
    checked = [
        index for index, node in enumerate(placeholders) if not _is_checked(module.graph, node)
    ]
    if not checked:
        return
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])

    def check(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        values = pytree.tree_leaves(list(signature.bind(*args, **kwargs).arguments.values()))
        if len(values) == len(expected):  # otherwise the call fails by itself, with a better text
            for index in checked:
                expected[index].check(values[index])

    module.register_forward_pre_hook(check, with_kwargs=True)


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
    info = module.meta.get("torch_tensorrt")
    constraints = info.range_constraints if info is not None else {}
    ranges = {
        symbol: Range(
            int(bounds.lower),
            0,
            UNBOUNDED if bounds.upper in (int_oo, sympy.oo) else int(bounds.upper),
        )
        for symbol, bounds in constraints.items()
    }
    return [
        statement
        for index, node in enumerate(module.graph.find_nodes(op="placeholder"))
        if "val" in node.meta and not _is_checked(module.graph, node)
        for statement in _describe(node, ranges).statements(f"{{{index}}}")
    ]


def _is_checked(graph: Graph, placeholder: Node) -> bool:
    return any(
        user.target is execute_engine and placeholder in user.args[0] for user in placeholder.users
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
        if value.dim() != len(self._sizes):
            raise RuntimeError(
                f"input {self._name!r}: got {value.dim()} dimensions, expected {len(self._sizes)}"
            )
        for dim, (size, (low, high)) in enumerate(zip(value.shape, self._sizes, strict=True)):
            if not low <= size <= high:
                wanted = str(low) if low == high else f"{low}..{high}"
                raise RuntimeError(f"input {self._name!r} dim {dim}: got {size}, expected {wanted}")

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
