"""Inputs whose dimensions lie in another order in memory, such as images whose channels are last.

Engines take dense row-major tensors, and anything else is copied in every call. An input that fills its memory in
another order enters as it lies: PyTorch makes a view of it whose dimensions are in that order, which costs no memory
traffic, and the engine puts them back, which its plan does with addresses.

The order is that of the example input, which has to be large for it. An input that comes in another order is copied;
results are the same.

Only engines for GPUs get such views: on CPUs nothing was measured that a view in PyTorch would be worth.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch.fx import Node

from torch_tensorrt.dynamo._partition import engine_device
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._strides import is_dense, storage_order
from torch_tensorrt.dynamo._symbols import tensor_of

_VIEW, _BACK = "_as_it_lies", "_in_order"
_DEVICES = {"cuda"}
# A view is one more call of PyTorch's, longer than copies of small inputs: ResNet-50 of one image got slower with it.
_MIN_ELEMENTS = 1 << 20


def enter_as_they_lie(program: Program, reasons: dict[Node, str]) -> list[Node]:
    """Gives engines views of such inputs.

    Args:
        program: its graph is changed.
        reasons: why nodes cannot be in an engine, "" if they can (`check_support`); gets the nodes of engines.

    Returns:
        The views: they run in PyTorch, and are there from the start, like the inputs.
    """
    views: list[Node] = []
    if engine_device(program).type not in _DEVICES:
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


def _order(node: Node) -> tuple[int, ...]:
    """The dimensions of an input from the outermost in memory to the innermost, if that is not their own order."""
    tensor = tensor_of(node)
    if tensor is None or tensor.layout is not torch.strided or not is_dense(tensor):
        return ()
    return storage_order(tensor) if _example_elements(tensor) >= _MIN_ELEMENTS else ()


def _example_elements(tensor: torch.Tensor) -> int:
    """How many elements the input had that the program was exported with."""
    sizes = [size.node.hint if isinstance(size, torch.SymInt) else size for size in tensor.shape]
    return math.prod(size or 0 for size in sizes)


def _add_views(program: Program, node: Node, users: list[Node]) -> tuple[Node, Node]:
    order = _order(node)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    last = program.graph.find_nodes(op="placeholder")[-1]
    with program.graph.inserting_after(last):
        view = _permute(node, order, node.name + _VIEW)
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
