"""Names of the inputs and outputs of an engine, given in the structure of the program's inputs and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node
from torch.utils import _pytree as pytree

from torch_tensorrt.dynamo._program import Program


class BindingNameMismatchError(ValueError):
    """Binding names whose structure is not that of the inputs or results that they are for."""


def input_names(
    program: Program, arg_names: Any | None, kwarg_names: Mapping[str, Any] | None
) -> list[str | None]:
    """One name per user input of the program, None where the program's own is kept.

    Args:
        program: whose inputs are named.
        arg_names: names in the structure of the positional inputs, such as ["x", ["left", "right"]].
        kwarg_names: names in the structure of the keyword inputs.

    Raises:
        BindingNameMismatchError: another structure, or a name that is not a string. ValueError: a name is used twice.
    """
    args_spec, kwargs_spec = program.exported.call_spec.in_spec.children()
    names: list[str | None] = [None] * args_spec.num_leaves
    if arg_names is not None:
        given = [arg_names] if isinstance(arg_names, str) else arg_names
        names = _flatten("arg_input_binding_names", tuple(given), args_spec)
    keyword_names: list[str | None] = [None] * kwargs_spec.num_leaves
    if kwarg_names is not None:
        if set(kwarg_names) != set(kwargs_spec.context):
            raise BindingNameMismatchError(
                f"kwarg_input_binding_names has {sorted(kwarg_names)}, but the keyword inputs are "
                f"{sorted(kwargs_spec.context)}"
            )
        ordered = {key: kwarg_names[key] for key in kwargs_spec.context}
        keyword_names = _flatten("kwarg_input_binding_names", ordered, kwargs_spec)
    return _check_unique("input", [*names, *keyword_names])


def output_names(program: Program, names: Any | None) -> list[str | None]:
    """One name per result of the program; names and errors as for `input_names`."""
    spec = program.exported.call_spec.out_spec
    if names is None:
        return [None] * spec.num_leaves
    if spec.is_leaf() and isinstance(names, (list, tuple)) and len(names) == 1:
        names = names[0]
    if spec.type is tuple and isinstance(names, list):
        names = tuple(names)
    return _check_unique("output", _flatten("output_binding_names", names, spec))


def _flatten(what: str, names: Any, expected: pytree.TreeSpec) -> list[Any]:
    leaves, spec = pytree.tree_flatten(names)
    if spec != expected:
        raise BindingNameMismatchError(
            f"{what} has the structure {_show(spec)}, but what it names has {_show(expected)}: give one name "
            "per tensor, in the same lists, tuples and dictionaries"
        )
    for leaf in leaves:
        if not isinstance(leaf, str) or not leaf:
            raise BindingNameMismatchError(f"{what} has {leaf!r}, expected a name")
    return leaves


def _show(spec: pytree.TreeSpec) -> str:
    return str(pytree.tree_unflatten(["*"] * spec.num_leaves, spec)).replace("'*'", "*")


def _check_unique(kind: str, names: list[str | None]) -> list[str | None]:
    given = [name for name in names if name is not None]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise ValueError(f"{kind} binding names {twice} are used more than once")
    return names


class Renaming:
    """Names that nodes get in what is handed to the compiler: any text, where fx allows identifiers alone."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._names: dict[str, str] = {}

    def set(self, nodes: Sequence[Node], names: Sequence[str | None]) -> None:
        """Names nodes; None keeps a name."""
        for node, name in zip(nodes, names, strict=True):
            if name is not None and name != node.name:
                node._rename(f"kiln_binding_{len(self._names)}")
                self._names[node.name] = name

    def finish(self) -> dict[str, str]:
        """Text to put in place of names of nodes. Other nodes that have one of the new names get another."""
        taken = set(self._names.values())
        for node in self._program.graph.nodes:
            if node.name in taken:
                node._rename(f"{node.name}_inner")
        return self._names
