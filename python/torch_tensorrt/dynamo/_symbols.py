"""Symbolic sizes: reading them off traced tensors, printing them, and computing them again elsewhere.

A size is an integer or an expression over symbols. A tensor with a dimension that is exactly one
symbol is a *carrier* of that symbol: its value can be read off there at run time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import sympy
import torch
from torch.fx import Graph, Node

T = TypeVar("T")
Size = int | torch.SymInt | sympy.Expr
SYMBOLIC_TYPES = (torch.SymInt, torch.SymBool, torch.SymFloat)
# What kiln.h takes as "no upper bound".
UNBOUNDED = 1 << 60


class SymbolError(RuntimeError):
    """An expression that cannot be carried into an engine."""


@dataclass(frozen=True)
class Range:
    """The sizes a symbol may have, and the one to optimise for."""

    min: int
    opt: int
    max: int


def expression(size: Size) -> sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.sympify(size)


def is_symbolic_node(node: Node) -> bool:
    """Whether a node computes a size and not a tensor."""
    return (
        isinstance(node.meta.get("val"), SYMBOLIC_TYPES)
        or node.target is torch.ops.aten.sym_size.int
    )


def tensor_of(node: Node) -> torch.Tensor | None:
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def free_symbols(sizes: Iterable[Any]) -> set[sympy.Symbol]:
    result: set[sympy.Symbol] = set()
    for size in sizes:
        if isinstance(size, SYMBOLIC_TYPES):
            result |= size.node.expr.free_symbols
    return result


def find_carriers(tensors: Iterable[tuple[T, torch.Tensor]]) -> dict[sympy.Symbol, tuple[T, int]]:
    """For every symbol that a tensor carries: the first tensor's key and the dimension."""
    carriers: dict[sympy.Symbol, tuple[T, int]] = {}
    for key, tensor in tensors:
        for dim, size in enumerate(tensor.shape):
            expr = expression(size)
            if isinstance(expr, sympy.Symbol):
                carriers.setdefault(expr, (key, dim))
    return carriers


def fold(expr: sympy.Expr, leaf: Callable[[sympy.Symbol], T], apply: Callable[..., T]) -> T | int:
    """Rebuilds an expression bottom-up.

    `leaf` gives the value of a symbol, `apply(function, a, b)` that of an operation.
    Functions are operator.add, mul, floordiv, mod and pow, torch.sym_max and sym_min.
    """
    if isinstance(expr, sympy.Integer):
        return int(expr)
    if isinstance(expr, sympy.Symbol):
        return leaf(expr)
    name = type(expr).__name__
    if name in _CHAINS:
        parts = [fold(part, leaf, apply) for part in _ordered(expr)]
        result = parts[0]
        for part in parts[1:]:
            result = apply(_CHAINS[name], result, part)
        return result
    if name in _PAIRS and len(expr.args) == 2:
        left, right = (fold(part, leaf, apply) for part in expr.args)
        if name == "Pow" and not (isinstance(right, int) and right >= 0):
            raise SymbolError(f"size {expr} has a power that is not a constant integer")
        return apply(_PAIRS[name], left, right)
    raise SymbolError(f"size {expr} uses {name}, which engines cannot compute")


_CHAINS = {"Add": operator.add, "Mul": operator.mul, "Max": torch.sym_max, "Min": torch.sym_min}
_PAIRS = {
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Pow": operator.pow,
    "PowByNatural": operator.pow,
}


def _ordered(expr: sympy.Expr) -> list[sympy.Expr]:
    """Arguments in an order that does not depend on the process; numbers last, as people write them."""
    return sorted(expr.args, key=lambda part: (part.is_number, sympy.default_sort_key(part)))


_SIGNS = {
    operator.add: "+",
    operator.mul: "*",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
}


def print_size(size: Size, names: Mapping[sympy.Symbol, str]) -> str:
    """A size as text in the grammar of the operator's spec, with the given names of symbols."""

    def leaf(symbol: sympy.Symbol) -> str:
        if symbol not in names:
            raise SymbolError(f"no input has {symbol} as one of its sizes")
        return names[symbol]

    def apply(function: Any, left: Any, right: Any) -> str:
        if function in _SIGNS:
            return f"({left}{_SIGNS[function]}{right})"
        return f"{'max' if function is torch.sym_max else 'min'}({left},{right})"

    text = str(fold(expression(size), leaf, apply))
    return text[1:-1] if text.startswith("(") and _closes_at_end(text) else text


def _closes_at_end(text: str) -> bool:
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position == len(text) - 1
    return False


class SizeNodes:
    """Makes nodes that compute sizes in a graph from the tensors that carry the symbols; equal ones are shared."""

    def __init__(self, graph: Graph, carriers: Mapping[sympy.Symbol, tuple[Node, int]]) -> None:
        self._graph = graph
        self._carriers = carriers
        self._made: dict[Any, Node] = {}

    def node_for(self, size: Any) -> Node | int:
        if not isinstance(size, torch.SymInt):
            raise SymbolError(
                f"a {type(size).__name__} crosses into an engine, expected an integer"
            )
        return fold(expression(size), self._read, self._apply)

    def _read(self, symbol: sympy.Symbol) -> Node:
        if symbol not in self._carriers:
            raise SymbolError(f"no input has {symbol} as one of its sizes")
        tensor, dim = self._carriers[symbol]
        return self._make(torch.ops.aten.sym_size.int, (tensor, dim), tensor.meta["val"].shape[dim])

    def _apply(self, function: Any, left: Node | int, right: Node | int) -> Node:
        values = [part.meta["val"] if isinstance(part, Node) else part for part in (left, right)]
        return self._make(function, (left, right), function(*values))

    def _make(self, target: Any, args: tuple[Any, ...], value: Any) -> Node:
        key = (target, args)
        if key not in self._made:
            node = self._graph.call_function(target, args)
            node.meta["val"] = value
            self._made[key] = node
        return self._made[key]
