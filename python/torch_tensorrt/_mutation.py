"""What nodes of a graph change in place."""

from __future__ import annotations

from torch.fx import Node


def changed_arguments(node: Node) -> list[Node]:
    """The tensors that a node changes in place."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return []
    changed: list[Node] = []
    for index, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
        values = value if isinstance(value, (list, tuple)) else [value]
        changed += [item for item in values if isinstance(item, Node)]
    return changed
