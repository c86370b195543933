"""Inputs whose dimensions lie in another order in memory, such as images whose channels are last.

Engines take dense row-major tensors, and anything else is copied in every call. An input that fills its memory in
another order enters as it lies: the operator takes its dimensions in that order (the spec of the call says so), and the
engine puts them back, which its plan does with addresses. In the program the first is a view of the input, which is no
part of the engine's graph and is left out of the module, the second an operator of the engine's.

The order is that of the example input. An input that comes in another order is copied; results are the same.

Only engines for GPUs get such views: on CPUs nothing was measured that they would be worth.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.fx import Node

from torch_tensorrt.dynamo._devices import engine_device
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._strides import is_dense, storage_order
from torch_tensorrt.dynamo._symbols import tensor_of

_VIEW, _BACK = "_as_it_lies", "_in_order"
_DEVICES = {"cuda"}
_ORDER = "kiln_order"  # in the meta of such a view


def enter_as_they_lie(program: Program, reasons: dict[Node, str]) -> list[Node]:
    """Gives engines views of such inputs.

    Args:
        program: its graph is changed.
        reasons: why nodes cannot be in an engine, "" if they can (`check_support`); gets the nodes of engines.

    Returns:
        The views: they are there from the start, like the inputs.
    """
    views: list[Node] = []
    if engine_device(program.graph).type not in _DEVICES:
        return views
    for node in program.user_inputs:
        users = [user for user in node.users if reasons.get(user) == ""]
        if users and node not in program.in_place.shared and _order(node):
            view, back = _add_views(program, node, users)
            views.append(view)
            reasons[back] = ""
    return views


def enter_as_before(program: Program, engine_nodes: Collection[str]) -> None:
    """The same for the program of a refit: what the engines with these nodes were made with."""
    for node in program.user_inputs:
        users = [user for user in node.users if user.name in engine_nodes]
        if users and f"{node.name}{_BACK}" in engine_nodes and _order(node):
            _add_views(program, node, users)


def order_taken(node: Node) -> tuple[int, ...]:
    """The order in which an engine takes the dimensions of what this node is a view of; () for any other node."""
    return node.meta.get(_ORDER, ())


def node_taken(node: Node) -> Node:
    """The node whose value the operator gets for an input of an engine: of a view, what it is a view of."""
    return node.args[0] if order_taken(node) else node


def _order(node: Node) -> tuple[int, ...]:
    """The dimensions of an input from the outermost in memory to the innermost, if that is not their own order."""
    tensor = tensor_of(node)
    if tensor is None or tensor.layout is not torch.strided or not is_dense(tensor):
        return ()
    return storage_order(tensor)


def _add_views(program: Program, node: Node, users: list[Node]) -> tuple[Node, Node]:
    order = _order(node)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    last = program.graph.find_nodes(op="placeholder")[-1]
    with program.graph.inserting_after(last):
        view = _permute(node, order, node.name + _VIEW)
    view.meta[_ORDER] = order
    with program.graph.inserting_after(view):
        back = _permute(view, inverse, node.name + _BACK)
    for user in users:
        user.replace_input_with(node, back)
    return view, back


def _permute(node: Node, order: Collection[int], name: str) -> Node:
    arguments = (node, list(order))
    result = node.graph.create_node(
        "call_function", torch.ops.aten.permute.default, arguments, name=name
    )
    result.meta["val"] = node.meta["val"].permute(list(order))
    return result
