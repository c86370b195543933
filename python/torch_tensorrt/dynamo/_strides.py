"""Strides of values that leave engines.

Engines compute with dense row-major tensors. PyTorch's graph knows the strides that its own operators would have given:
an operator that stays in PyTorch may look at them, and so may whoever gets the results. Two things give such values the
strides of the graph:

- *A dense value whose dimensions lie in another order in memory* (transposed, channels last): the engine gives the
  dimensions in that order, and the operator puts the graph's shape and strides on it. Nothing is copied for it.
- *Views that are not dense* (expanded, overlapping, with gaps, with an offset): the engine gives what they are views
  of, and the operators that make the views are PyTorch's.

Views that leave elements out are the exception where nobody but the caller sees their strides: they come without gaps,
with the dimensions in the same order, because an engine computes only what is asked for. So do results of operators
that are no views to PyTorch, and yet give some (meshgrid).
"""

from __future__ import annotations

import operator
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import sympy
import torch
from torch.fx import Graph, Node

from torch_tensorrt.dynamo._symbols import expression, is_symbolic_node, tensor_of

# What symbols are taken to be when strides are compared: large multiples of many numbers, so that sizes that are
# quotients stay apart. Formulas that agree there are taken to be the same.
_SAMPLE_BASE = 720720 * 64
# What a size is taken to be that has no value at the sample.
_UNKNOWN = (1 << 61) - 1
# Operators of ATen that see how their arguments lie in memory; custom operators may, too.
_LOOK_AT_MEMORY = {
    "as_strided",
    "as_strided_",
    "as_strided_copy",
    "as_strided_scatter",
    "resize",
    "resize_",
    "resize_as_",
    "set_",
    "sym_storage_offset",
    "sym_stride",
}


@cache
def _sample(symbol: sympy.Symbol) -> int:
    return _SAMPLE_BASE * sympy.prime(10 + zlib.crc32(symbol.name.encode()) % 5000)


def _number(size: Any) -> int:
    """A size at the sample."""
    if isinstance(size, int):
        return size
    expr = expression(size)
    value = expr.xreplace({symbol: sympy.Integer(_sample(symbol)) for symbol in expr.free_symbols})
    return int(value) if value.is_Integer else _UNKNOWN


def storage_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Dimensions of a tensor from the outermost in memory to the innermost; empty if that is their own order.

    Of a tensor with gaps it is the order that it has without them.
    """
    sizes, strides = [_number(size) for size in tensor.shape], [_number(s) for s in tensor.stride()]
    order = _dense_order(sizes, strides)
    if order is None:
        order = sorted(range(len(sizes)), key=lambda dim: -strides[dim] * (sizes[dim] > 1))
    wide = [dim for dim in order if sizes[dim] != 1]
    ordered = order == sorted(order) or (
        wide == sorted(wide) and _dense_strides(sizes, order) != strides
    )
    return () if ordered else tuple(order)


def _dense_strides(sizes: list[int], order: Iterable[int]) -> list[int]:
    strides, step = [0] * len(sizes), 1
    for dim in reversed(list(order)):
        strides[dim] = step
        step *= max(sizes[dim], 1)
    return strides


def _dense_order(sizes: list[int], strides: list[int]) -> list[int] | None:
    """The order in which a tensor's dimensions fill its memory; None if there are gaps or overlaps."""
    left, inner, step = list(range(len(sizes))), [], 1
    while left:
        fitting = [dim for dim in left if strides[dim] == step]
        narrow = [dim for dim in fitting if sizes[dim] <= 1]
        found = (narrow or fitting)[-1:] or [dim for dim in left if sizes[dim] == 1][-1:]
        if not found:
            return [] if 0 in sizes else None
        inner.append(found[0])
        left.remove(found[0])
        step *= max(sizes[found[0]], 1)
    return inner[::-1]


def _count(tensor: torch.Tensor) -> int:
    count = 1
    for size in tensor.shape:
        count *= _number(size)
    return count


def has_gaps(tensor: torch.Tensor) -> bool:
    """Whether there are gaps or overlaps between a tensor's elements."""
    sizes, strides = [_number(size) for size in tensor.shape], [_number(s) for s in tensor.stride()]
    return _dense_order(sizes, strides) is None


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements fill its memory from the start, in whatever order."""
    return not has_gaps(tensor) and _number(tensor.storage_offset()) == 0


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether it is all that lies in its memory."""
    held = _number(tensor.untyped_storage().nbytes())
    return is_dense(tensor) and held == _count(tensor) * tensor.element_size()


def leave_views_to_torch(graph: Graph, reasons: dict[Node, str]) -> None:
    """Takes views that are not dense out of engines, where what uses them is not in an engine.

    Args:
        graph: changed: views get copies, which have no reasons and therefore run in PyTorch.
        reasons: why nodes cannot be in an engine, "" if they can (`check_support`).
    """
    lookers = _lookers(graph, reasons)
    seen: list[tuple[Node, list[Node]]] = []  # views, and those of their users that get a copy
    by_base: dict[Node, list[tuple[Node, list[Node]]]] = defaultdict(list)
    for node in graph.nodes:
        tensor = tensor_of(node)
        outside = (
            [] if tensor is None else [user for user in node.users if user not in lookers.inside]
        )
        if not outside or node not in lookers.inside:
            continue
        looking = [user for user in outside if user in lookers.nodes]
        if looking and not _is_whole(tensor):
            seen.append((node, looking))
        elif not is_dense(tensor):
            by_base[_base(node, lookers.inside)].append((node, outside))
    for base, views in by_base.items():
        # Together they need all of it: the engine has no less to compute.
        needed = sum(_count(view.meta["val"]) for view, _ in views)
        if tensor_of(base) is not None and needed >= _count(base.meta["val"]):
            seen += views
    _ViewCopies(graph, reasons, lookers.inside).add(seen)


class _Lookers:
    """`inside`: nodes that engines take. `nodes`: others, to which it matters how their arguments lie in memory."""

    def __init__(self) -> None:
        self.inside: set[Node] = set()
        self.nodes: set[Node] = set()


def _lookers(graph: Graph, reasons: Mapping[Node, str]) -> _Lookers:
    result = _Lookers()
    for node in graph.nodes:
        producer = node.args[0] if node.target is operator.getitem else node
        if reasons.get(producer) == "":
            result.inside.add(node)
    for node in reversed(graph.nodes):
        if node.op != "call_function" or node in result.inside:
            continue
        if _looks_at_memory(node) or (
            is_view(node) and any(user in result.nodes for user in node.users)
        ):
            result.nodes.add(node)
    return result


def _looks_at_memory(node: Node) -> bool:
    target = node.target
    if isinstance(target, torch._ops.HigherOrderOperator):
        return True  # what is inside may
    if not isinstance(target, torch._ops.OpOverload):
        return False  # arithmetic on sizes
    name = target._schema.name.split("::")[1]
    return target.namespace not in ("aten", "prims") or name in _LOOK_AT_MEMORY


def is_view(node: Node) -> bool:
    """Whether a node's result lies in the memory of its first argument."""
    if node.target is operator.getitem:
        return is_view(node.args[0])
    if not isinstance(node.target, torch._ops.OpOverload) or is_symbolic_node(node):
        return False
    returns = node.target._schema.returns
    aliases = [each.alias_info for each in returns if each.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)


def _chain(node: Node, inside: set[Node]) -> list[Node]:
    """The operators of an engine that make a view, from the last to the first: its base is the argument of that."""
    chain: list[Node] = []
    while node in inside and is_view(node):
        if chain and tensor_of(node) is not None and _is_whole(node.meta["val"]):
            break
        chain.append(node)
        node = node.args[0]
    return chain


def _base(node: Node, inside: set[Node]) -> Node:
    chain = _chain(node, inside)
    return chain[-1].args[0] if chain else node


class _ViewCopies:
    """Puts copies of views into a graph that are not part of engines."""

    def __init__(self, graph: Graph, reasons: dict[Node, str], inside: set[Node]) -> None:
        self._graph = graph
        self._reasons = reasons
        self._inside = inside
        self._copies: dict[Node, Node] = {}

    def add(self, views: list[tuple[Node, list[Node]]]) -> None:
        """Gives the users that are listed with every view a copy of it."""
        replaced: dict[Node, None] = {}
        for view, users in views:
            chain = _chain(view, self._inside)
            base = chain[-1].args[0] if chain else view
            if not chain and all(user.op == "output" for user in users):
                continue  # PyTorch has no operator that would make it; whoever called gets it dense
            if base in self._inside and not is_dense(base.meta["val"]):
                self._reasons[base] = "an operator outside engines sees its strides"
            for node in reversed(chain):
                self._copy(node)
            for user in users if chain else ():
                user.replace_input_with(view, self._copies[view])
            replaced |= dict.fromkeys(chain)
        for node in sorted(replaced, key=list(self._graph.nodes).index, reverse=True):
            if not node.users:
                self._reasons.pop(node, None)
                self._graph.erase_node(node)

    def _copy(self, node: Node) -> None:
        if node in self._copies:
            return
        with self._graph.inserting_after(node):
            copy = self._graph.node_copy(node, lambda arg: self._copies.get(arg, arg))
        self._copies[node] = copy
