"""Whether a program that was traced for larger sizes is the model's for sizes of 0 and 1, too.

A tracer decides with one size what the graph is: `squeeze` keeps an axis of size 2 and drops one of size 1, a reduction
of no elements is an error. So the graph is run with such a size on tensors without data, and every shape compared with
the one that was recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import sympy
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from torch_tensorrt._quiet import quiet_trials
from torch_tensorrt.dynamo._contract import SizeChecks, guard_conditions
from torch_tensorrt.dynamo._names import argument_names
from torch_tensorrt.dynamo._program import in_fresh_thread
from torch_tensorrt.dynamo._symbols import SYMBOLIC_TYPES, Range, linear, tensor_of

logger = logging.getLogger(__name__)

# Of sizes that depend on the values of tensors.
_SAMPLE = 3


class HasInputs(Protocol):
    graph: Graph
    user_inputs: list[Node]


@dataclass(frozen=True)
class TracedGraph:
    """A program as it was exported, and what its own module checks of sizes before it runs."""

    graph: Graph
    user_inputs: list[Node]
    guards: SizeChecks

    @classmethod
    def of(cls, program: ExportedProgram) -> TracedGraph:
        nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        inputs = [
            nodes[spec.arg.name]
            for spec in program.graph_signature.input_specs
            if spec.kind is InputKind.USER_INPUT
        ]
        code = getattr(program, "_guards_code", ())
        in_spec = program.call_spec.in_spec
        guards = SizeChecks(guard_conditions(code, in_spec, argument_names(program)))
        return cls(program.graph, inputs, guards)


def holds(
    program: HasInputs,
    ranges: Mapping[sympy.Symbol, Range],
    symbol: sympy.Symbol,
    value: int,
    *,
    unless_known: bool = False,
) -> bool:
    """Whether every shape of the program is what was recorded when a symbol has a value, and the others those that they
    were traced with.

    `unless_known` is the answer for a program that cannot be run like this at all.
    """
    traced = {other: r.opt for other, r in ranges.items()} | _traced_sizes(program)
    error = _error(program, {**traced, symbol: value})
    if error is None:
        return True
    # An operator may want sizes of two inputs to agree that are two symbols: an index no larger than what it is into.
    alike = {other: value for other, size in traced.items() if size == traced.get(symbol)}
    is_refused = not isinstance(error, _Misfit)
    if is_refused and len(alike) > 1 and _error(program, {**traced, **alike}) is None:
        return True
    return unless_known and _error(program, traced) is not None


def _traced_sizes(program: HasInputs) -> dict[sympy.Symbol, int]:
    sizes = {}
    for node in program.user_inputs:
        tensor = tensor_of(node)
        for size in tensor.shape if tensor is not None else ():
            found = linear(size) if isinstance(size, torch.SymInt) else None
            hint = getattr(size.node, "hint", None) if found is not None else None
            if isinstance(hint, int):
                sizes.setdefault(found.symbol, found.largest(hint))
    return sizes


class _Misfit(Exception):
    """A shape that is not the recorded one."""


def _error(program: HasInputs, values: dict[sympy.Symbol, int]) -> Exception | None:
    """What is wrong with such sizes: a shape that is not the recorded one, or whatever an operator says."""

    def error_of_run() -> Exception | None:
        try:
            with FakeTensorMode(), torch.no_grad(), quiet_trials():
                run = _Run(program, values)
                if isinstance(program, TracedGraph):
                    given = [run.input(node) for node in program.user_inputs]
                    program.guards.check(given, [node.name for node in program.user_inputs])
                run.run()
        except Exception as error:
            logger.debug("with %s: %s", values, error)
            return error
        return None

    return in_fresh_thread(error_of_run)


class _Run:
    def __init__(self, program: HasInputs, values: Mapping[sympy.Symbol, int]) -> None:
        self._program = program
        self._values = dict(values)
        self._results: dict[Node, Any] = {}

    def input(self, node: Node) -> Any:
        return pytree.tree_map(self._make, node.meta.get("val"))

    def run(self) -> None:
        for node in self._program.graph.nodes:
            if node.op == "output":
                return
            recorded = node.meta.get("val")
            result = self._call(node) if node.op == "call_function" else None
            if result is None:
                result = pytree.tree_map(self._make, recorded)
            else:
                self._check(node, result, recorded)
            self._results[node] = result

    def _call(self, node: Node) -> Any:
        """None for what gives no shapes without data: what was recorded is taken for it."""
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return None
        args, kwargs = map_arg((node.args, node.kwargs), self._results.__getitem__)
        if (picks := _PICKS.get(node.target)) is not None:
            picks(*args, **kwargs)
        try:
            return node.target(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return None

    def _check(self, node: Node, result: Any, recorded: Any) -> None:
        got = [tuple(leaf.shape) for leaf in _tensors(result)]
        expected = [tuple(map(self._size, leaf.shape)) for leaf in _tensors(recorded)]
        if got != expected:
            raise _Misfit(f"{node.name} has the shapes {got}, recorded are {expected}")

    def _make(self, recorded: Any) -> Any:
        if isinstance(recorded, torch.Tensor):
            return torch.empty(
                [self._size(size) for size in recorded.shape],
                dtype=recorded.dtype,
                device=recorded.device,
            )
        return self._size(recorded) if isinstance(recorded, SYMBOLIC_TYPES) else recorded

    def _size(self, size: Any) -> Any:
        if not isinstance(size, SYMBOLIC_TYPES):
            return size
        expr = size.node.expr
        known = {each: sympy.Integer(self._values.get(each, _SAMPLE)) for each in expr.free_symbols}
        try:
            value = expr.xreplace(known)
        except ZeroDivisionError as error:
            raise _Misfit(f"the size {expr} divides by zero") from error
        kind = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(size)]
        return kind(value)


def _check_index(size: int, index: Any) -> None:
    if isinstance(index, int) and not -size <= index < size:
        raise _Misfit(f"the index {index} is out of a size of {size}")


def _check_reduced(tensor: torch.Tensor, dim: int, *_: Any, **__: Any) -> None:
    if tensor.dim() and tensor.shape[dim] == 0:
        raise _Misfit("there is nothing to pick one of")


_ATEN = torch.ops.aten
# What operators refuse that pick one of several elements, and fake tensors of some versions of torch take.
_PICKS: dict[Any, Callable[..., None]] = {
    _ATEN.select.int: lambda x, dim, index: _check_index(x.shape[dim], index),
    _ATEN.select_scatter.default: lambda x, _, dim, index: _check_index(x.shape[dim], index),
    **dict.fromkeys(
        (
            _ATEN.max.dim,
            _ATEN.min.dim,
            _ATEN.median.dim,
            _ATEN.nanmedian.dim,
        ),
        _check_reduced,
    ),
    _ATEN.mode.default: lambda x, dim=-1, keepdim=False: _check_reduced(x, dim),
}


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
