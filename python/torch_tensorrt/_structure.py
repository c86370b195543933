"""Inputs in the structure that a model was compiled for: lists, tuples, dictionaries and classes of tensors."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.utils import _pytree as pytree

_DICTIONARIES = (dict, OrderedDict, defaultdict)


def flatten_inputs(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    in_spec: pytree.TreeSpec,
    names: Sequence[str] = (),
) -> list[Any]:
    """The flat inputs in the order of `in_spec`, whatever the order of the keys in dictionaries.

    Args:
        args, kwargs: of a call.
        in_spec: the tree of (args, kwargs) that the model was compiled for.
        names: of the parameters, positional ones first; they can be given by name too.

    Raises:
        TypeError: another structure; the text names the argument, and what is missing or too much.
    """
    args_spec, kwargs_spec = in_spec.children()
    positional = list(args_spec.children())
    labels = [*names[: len(positional)]]
    labels += [f"argument {index}" for index in range(len(labels), len(positional))]
    specs = [*zip(labels, positional, strict=True)]
    keywords = dict(zip(kwargs_spec.context, kwargs_spec.children(), strict=True))
    specs += keywords.items()
    given = _by_name(args, kwargs, specs)
    return [
        leaf for name, spec in specs for leaf in flatten_as(given[name], spec, f"input {name!r}")
    ]


def _by_name(
    args: Sequence[Any], kwargs: Mapping[str, Any], specs: Sequence[tuple[str, Any]]
) -> dict[str, Any]:
    names = [name for name, _ in specs]
    if len(args) > len(names):
        raise TypeError(f"got {len(args)} inputs by position, expected {len(names)}")
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name in given:
            raise TypeError(f"input {name!r} was given by position and by name")
        if name not in names:
            raise TypeError(f"got an input {name!r}, expected {_listed(names)}")
        given[name] = value
    if missing := [name for name in names if name not in given]:
        raise TypeError(f"input {missing[0]!r} is missing; expected {_listed(names)}")
    return given


def flatten_as(value: Any, spec: pytree.TreeSpec, where: str) -> list[Any]:
    """The leaves of a value in the order of a spec. TypeError: it has another structure; `where` begins the text."""
    if spec.is_leaf():
        return [value]
    if spec.type in _DICTIONARIES:
        keys = spec.context[1] if spec.type is defaultdict else spec.context
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{where} is {_kind(value)}, expected a dictionary with {_listed(keys)}"
            )
        for key in keys:
            if key not in value:
                raise TypeError(f"{where} has no key {key!r}, expected {_listed(keys)}")
        for key in value:
            if key not in keys:
                raise TypeError(f"{where} has the key {key!r}, expected {_listed(keys)} alone")
        parts = [(f"{where}[{key!r}]", value[key]) for key in keys]
    elif spec.type in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{where} is {_kind(value)}, expected a {spec.type.__name__}")
        if len(value) != spec.num_children:
            raise TypeError(f"{where} has {len(value)} items, expected {spec.num_children}")
        parts = [(f"{where}[{index}]", item) for index, item in enumerate(value)]
    else:
        parts = _parts_of_class(value, spec, where)
    children = zip(parts, spec.children(), strict=True)
    return [leaf for (label, part), child in children for leaf in flatten_as(part, child, label)]


def _parts_of_class(value: Any, spec: pytree.TreeSpec, where: str) -> list[tuple[str, Any]]:
    found = pytree.tree_structure(value)
    if found.type is not spec.type or found.num_children != spec.num_children:
        wanted = spec.context.__name__ if isinstance(spec.context, type) else spec.type.__name__
        raise TypeError(f"{where} is {_kind(value)}, expected a {wanted} as when it was exported")
    children, _ = pytree.SUPPORTED_NODES[spec.type].flatten_fn(value)
    return [(f"{where}[{index}]", child) for index, child in enumerate(children)]


def is_flat(in_spec: pytree.TreeSpec) -> bool:
    """Whether every parameter is one tensor or number."""
    return all(child.is_leaf() for group in in_spec.children() for child in group.children())


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
