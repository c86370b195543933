"""Where the engines of a program run, and what the program makes elsewhere."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch.fx import Graph, Node

from torch_tensorrt.dynamo._symbols import is_symbolic_node, tensor_of

_ATEN = torch.ops.aten
# What takes tensors of any rank on the CPU beside those on a GPU: indices, and copies from there.
_TAKE_FROM_CPU = frozenset(
    {
        _ATEN.index,
        _ATEN._unsafe_index,
        _ATEN.index_put,
        _ATEN._unsafe_index_put,
        _ATEN.copy,
        _ATEN._to_copy,
        _ATEN.to,
    }
)


def tensor_values(node: Node) -> list[torch.Tensor]:
    """Without results that nobody reads: the state of random numbers that attention gives is of no engine's dtype."""
    value = node.meta.get("val")
    if not isinstance(value, (list, tuple)):
        return [value] if isinstance(value, torch.Tensor) else []
    read = set(range(len(value)))
    if node.users and all(user.target is operator.getitem for user in node.users):
        read = {user.args[1] for user in node.users if user.users}
    return [v for i, v in enumerate(value) if i in read and isinstance(v, torch.Tensor)]


def engine_device(graph: Graph) -> torch.device:
    """Where the engines of a program run: on the first GPU that its tensors are on, or else on the CPU."""
    for node in graph.nodes:
        for value in tensor_values(node):
            if value.device.type == "cuda":
                return value.device
    return torch.device("cpu")


def make_on_engine_device(graph: Graph, shared: Collection[Node]) -> None:
    """Makes on the GPU what a program for one makes of nothing on the CPU (`torch.full((), -inf)`, `arange`) and reads
    beside tensors on the GPU, so that an engine can take it. Results stay where they are, and so do what is read beside
    other tensors on the CPU, what Python looks at, and memory that is changed in place (`shared`).
    """
    device = engine_device(graph)
    if device.type == "cpu":
        return
    made: set[Node] = set()
    for node in graph.nodes:
        if node not in shared and _is_made_on_cpu(node, made):
            made.add(node)
    while stay := {node for node in made if not _may_move(node, made)}:
        made -= stay
    for node in made:
        _move(node, device)


def _tensor_sources(node: Node) -> list[Node]:
    return [source for source in node.all_input_nodes if tensor_values(source)]


def _may_move(node: Node, made: set[Node]) -> bool:
    """Whether all that it is made of moves with it, and all that read it give the same then."""
    moves = all(source in made for source in _tensor_sources(node))
    return moves and all(_reads_anywhere(user, made) for user in node.users)


def _is_made_on_cpu(node: Node, made: set[Node]) -> bool:
    """Whether a node computes tensors on the CPU from sizes and from what is made there alone, and always the same."""
    if not isinstance(node.target, torch._ops.OpOverload) or is_symbolic_node(node):
        return False
    values = tensor_values(node)
    schema = node.target._schema
    aliases = [argument.alias_info for argument in schema.arguments]
    reads_only = not any(alias is not None and alias.is_write for alias in aliases)
    is_random = torch.Tag.nondeterministic_seeded in node.target.tags
    follows = all(source in made for source in _tensor_sources(node))
    if not _tensor_sources(node):
        follows = any(argument.name == "device" for argument in schema.arguments)
    on_cpu = bool(values) and all(value.device.type == "cpu" for value in values)
    return on_cpu and follows and reads_only and not is_random


def _reads_anywhere(user: Node, made: set[Node]) -> bool:
    """Whether a reader gives the same wherever that lies which is made: numbers beside tensors on the GPU, indices of
    them, and what is copied there. Other operators may want the CPU, as packed sequences do for their lengths."""
    if user in made:
        return True
    values = tensor_values(user)
    if not values or not isinstance(user.target, torch._ops.OpOverload):
        return False
    sources = _tensor_sources(user)
    read = [tensor_of(source) for source in sources if source in made]
    are_numbers = user.target.namespace == "aten" and all(
        value is not None and value.dim() == 0 for value in read
    )
    others = [v for source in sources if source not in made for v in tensor_values(source)]
    return (are_numbers or user.target.overloadpacket in _TAKE_FROM_CPU) and all(
        value.device.type != "cpu" for value in (*values, *others)
    )


def _move(node: Node, device: torch.device) -> None:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    if "device" in names:
        node.update_kwarg("device", device)
    if node.kwargs.get("pin_memory"):
        node.update_kwarg("pin_memory", False)

    def moved(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        with value.fake_mode:  # type: ignore[attr-defined]
            return torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype, device=device
            )

    value = node.meta["val"]
    node.meta["val"] = (
        type(value)(map(moved, value)) if isinstance(value, (list, tuple)) else moved(value)
    )
