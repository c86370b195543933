"""Converters: lowerings of operators that users write, and the registry that finds them."""

from __future__ import annotations

import enum
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

import kiln
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._symbols import SYMBOLIC_TYPES

# (ctx, target, args, kwargs, name) -> the results of the operator
Converter = Callable[..., Any]
CapabilityValidator = Callable[[Node, CompilationSettings], bool]


class ConverterPriority(enum.Enum):
    """STANDARD converters are for nodes that Kiln does not take by itself, HIGH ones replace its own lowering."""

    STANDARD = enum.auto()
    HIGH = enum.auto()


@dataclass(frozen=True)
class ConverterSupport:
    """A converter and when it may be used."""

    converter_implementation: Converter
    capability_validator: CapabilityValidator | None = None
    priority: ConverterPriority = ConverterPriority.STANDARD
    supports_dynamic_shapes: bool = False
    requires_output_allocator: bool = False
    requires_native_multidevice: bool = False

    @property
    def name(self) -> str:
        return getattr(self.converter_implementation, "__qualname__", "converter")

    def refusal(self, node: Node, settings: CompilationSettings) -> str | None:
        """Why it cannot be used for a node, None if it can."""
        dynamic_is_fine = self.supports_dynamic_shapes or settings.assume_dynamic_shape_support
        if not dynamic_is_fine and has_dynamic_shapes(node):
            return f"its converter {self.name} does not support dynamic shapes"
        if self.capability_validator is not None and not self.capability_validator(node, settings):
            return f"the capability validator of its converter {self.name} does not take it"
        return None


def has_dynamic_shapes(node: Node) -> bool:
    """Whether a size of an argument or a result, or an argument itself, is symbolic."""
    values = [node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)]
    for value in values:
        for item in value if isinstance(value, (list, tuple)) else (value,):
            sizes = item.shape if isinstance(item, torch.Tensor) else (item,)
            if any(isinstance(size, SYMBOLIC_TYPES) for size in sizes):
                return True
    return False


@functools.cache
def builtin_operators() -> frozenset[str]:
    """Names of the operators that Kiln takes by itself, such as "aten.add.Tensor"."""
    return frozenset(kiln.supported_ops()["aten"])


class ConverterRegistry:
    """The operators that can be in engines: Kiln's own, which are there by name, and those with converters.

    Keys are operators (`torch.ops.aten.relu.default`, or `torch.ops.aten.relu` for all of its overloads), functions, or
    names ("aten.relu.default").
    """

    def __init__(self) -> None:
        self._converters: dict[Any, list[ConverterSupport]] = defaultdict(list)

    def register(self, key: Any, support: ConverterSupport) -> None:
        """Adds a converter; HIGH ones go before all others of the operator, STANDARD ones after."""
        is_operator = isinstance(key, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))
        if not is_operator and not callable(key):
            raise TypeError(
                f"got {key!r}, expected an operator such as torch.ops.mylib.myop.default, or a function"
            )
        first = support.priority is ConverterPriority.HIGH
        self._converters[key].insert(0 if first else len(self._converters[key]), support)

    def unregister(self, key: Any, converter: Converter | None = None) -> None:
        """Removes a converter of an operator, or all of them. KeyError: there is none."""
        kept = [
            support
            for support in self._converters.get(key, [])
            if converter is not None and support.converter_implementation is not converter
        ]
        if len(kept) == len(self._converters.get(key, [])):
            raise KeyError(f"{_name(key)} has no such converter")
        self._converters[key] = kept
        if not kept:
            del self._converters[key]

    def converters(self, key: Any) -> list[ConverterSupport]:
        """The converters of an operator in the order in which they are tried; Kiln's own lowering is not among them."""
        found = [
            support
            for candidate in _spellings(key)
            for support in self._converters.get(candidate, [])
        ]
        return sorted(found, key=lambda support: support.priority is not ConverterPriority.HIGH)

    def has_converters(self) -> bool:
        """Whether anybody registered one."""
        return bool(self._converters)

    def refusals(self, node: Node, settings: CompilationSettings) -> str:
        """Why no converter of a node's operator takes the node; "" if there is none."""
        reasons = [
            support.refusal(node, settings)
            for support in (self.converters(node.target) if self._converters else ())
        ]
        return "; ".join(reason for reason in reasons if reason)

    def __contains__(self, key: Any) -> bool:
        key = key.target if isinstance(key, Node) else key
        return _is_builtin(key) or bool(self.converters(key))

    def __getitem__(self, key: Any) -> list[ConverterSupport]:
        key = key.target if isinstance(key, Node) else key
        if key not in self:
            raise KeyError(f"{_name(key)} has no converter, and is not an operator of Kiln's")
        return self.converters(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """What indexing gives, or the default where it is a KeyError."""
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> Iterator[str]:
        """Names of all operators, in order."""
        return iter(sorted(builtin_operators() | {_name(key) for key in self._converters}))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __len__(self) -> int:
        return len(list(self.keys()))

    def unique_targets(self) -> set[str]:
        return set(self.keys())

    def get_converter_support_info(self) -> dict[str, dict[str, int]]:
        """By name of the operator: how many lowerings are Kiln's own ("Kiln"), and how many the user's ("User")."""
        info = {name: {"Kiln": int(name in builtin_operators()), "User": 0} for name in self}
        for key, supports in self._converters.items():
            info[_name(key)]["User"] = len(supports)
        return info

    def display_all_available_converters(self) -> str:
        """A table of all operators, as text."""
        lines = ["Operators that can be in engines, with the numbers of their lowerings:"]
        for name, counts in self.get_converter_support_info().items():
            parts = ", ".join(f"{source}: {count}" for source, count in counts.items() if count)
            lines.append(f"  {name} ({parts})")
        return "\n".join(lines)


def _spellings(key: Any) -> list[Any]:
    """An overload is found under itself, its packet, and their names."""
    if isinstance(key, torch._ops.OpOverload):
        return [key, key.overloadpacket]
    return [key]


def _is_builtin(key: Any) -> bool:
    if isinstance(key, torch._ops.OpOverloadPacket):
        return any(f"{key}.{overload}" in builtin_operators() for overload in key.overloads())
    return _name(key) in builtin_operators()


def _name(key: Any) -> str:
    is_operator = isinstance(key, (torch._ops.OpOverload, torch._ops.OpOverloadPacket, str))
    return str(key) if is_operator else torch.typename(key)


DYNAMO_CONVERTERS = ConverterRegistry()
# Those with converters alone, by operator: a dictionary that scripts look into.
DYNAMO_ATEN_CONVERTERS = DYNAMO_CONVERTERS._converters


def dynamo_tensorrt_converter(
    key: Any,
    *,
    enabled: bool = True,
    capability_validator: CapabilityValidator | None = None,
    priority: ConverterPriority = ConverterPriority.STANDARD,
    **capabilities: bool,
) -> Callable[[Converter], Converter]:
    """Registers a function as the lowering of an operator; docs/converters.md has examples.

    The function is called as `(ctx, target, args, kwargs, name)` while a program is traced: `args` and `kwargs` are
    those of the operator, with traced tensors. It computes the results with ordinary functions of PyTorch and returns
    them, in the shapes and dtypes of the operator's. What it computes becomes part of the program, and so of an engine.

    Args:
        key: the operator: an overload, a packet for all of its overloads, or a function.
        enabled: False leaves it unregistered.
        capability_validator: `(node, settings) -> bool`: which nodes it is for; all when None.
        priority: HIGH to be used in place of a lowering of Kiln's own; STANDARD for nodes without one.
        capabilities: `supports_dynamic_shapes` (False): whether it may be used where sizes are symbolic;
            `requires_output_allocator` and `requires_native_multidevice` are accepted and say nothing here.
    """
    known = ("supports_dynamic_shapes", "requires_output_allocator", "requires_native_multidevice")
    for option in capabilities:
        if option not in known:
            raise TypeError(
                f"dynamo_tensorrt_converter() got an unexpected keyword argument {option!r}"
            )
    if not isinstance(priority, ConverterPriority):
        raise TypeError(f"priority is {priority!r}, expected a ConverterPriority")

    def register(converter: Converter) -> Converter:
        if enabled:
            support = ConverterSupport(converter, capability_validator, priority, **capabilities)
            DYNAMO_CONVERTERS.register(key, support)
        return converter

    return register
