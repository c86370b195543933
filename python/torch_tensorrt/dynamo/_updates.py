"""Which inputs an engine may change in place: buffers and inputs of the user's that the program changes.

The program is functional: it computes what a buffer is to be, and writes that back when everything is computed. An
engine writes there when it runs. That is the same as long as nobody wants the old value afterwards, and as long as
the new one goes nowhere else as a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from torch_tensorrt.dynamo._functional import may_share
from torch_tensorrt.dynamo._partition import Partition
from torch_tensorrt.dynamo._program import MUTATIONS, Program
from torch_tensorrt.dynamo._region import Region
from torch_tensorrt.dynamo._symbols import is_symbolic_node, tensor_of


def find_updates(
    program: Program, parts: Partition, level: int, region: Region
) -> dict[Node, Node]:
    """The inputs that the engine of a region may change, by the outputs that are written to them."""
    if program.in_place.order:
        return {}
    return {
        value: target
        for value, target in _changes(program).items()
        if value in region.outputs
        and target in region.inputs
        and value not in region.orders
        and _has_memory_of(value, target)
        and _is_free(program, parts, level, region, target)
        and _stays_here(region, value)
    }


def _changes(program: Program) -> dict[Node, Node]:
    """What is written back, by the node that computes it. A value that is written to two is of the first."""
    targets = {name: node for node, name in program.lifted.items()}
    inputs = {node.name: node for node in program.user_inputs}
    produced = program.graph.output_node().args[0]
    result: dict[Node, Node] = {}
    for value, spec in zip(produced, program.signature.output_specs, strict=True):
        if spec.kind in MUTATIONS and isinstance(value, Node):
            of_user = spec.kind is OutputKind.USER_INPUT_MUTATION
            result.setdefault(value, inputs[spec.target] if of_user else targets[spec.target])
    return result


def _has_memory_of(value: Node, target: Node) -> bool:
    """Whether they have one dtype and shape, without gaps."""
    new, old = tensor_of(value), tensor_of(target)
    return (
        new is not None
        and old is not None
        and new.dtype == old.dtype
        and not new.is_complex()
        and [str(size) for size in new.shape] == [str(size) for size in old.shape]
        and old.is_contiguous()
    )


def _is_free(program: Program, parts: Partition, level: int, region: Region, target: Node) -> bool:
    """Whether nobody needs what a tensor was once the engine has run."""
    inside = set(region.nodes)
    engines = {node: index for index, nodes in parts.regions.items() for node in nodes}
    for user in _tensor_users(target):
        if user in inside:
            continue
        if user.op == "output":
            return False
        if user in engines:
            if engines[user] > level:
                return False
        elif parts.level[user] >= level or may_share(user):
            return False
    return True


def _stays_here(region: Region, value: Node) -> bool:
    """Whether the new value is written back once, and otherwise only read."""
    inside = set(region.nodes)
    for user in _tensor_users(value):
        if user in inside:
            continue
        if user.op == "output":
            if list(user.args[0]).count(value) != 1:
                return False
        elif may_share(user):
            return False
    return True


def _tensor_users(node: Node) -> Iterator[Node]:
    """Those who look at its elements: sizes are the same before and after."""
    return (
        user
        for user in node.users
        if not (is_symbolic_node(user) and user.target is torch.ops.aten.sym_size.int)
    )
