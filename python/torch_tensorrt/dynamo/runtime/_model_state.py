"""What a compiled model depends on in the PyTorch module that it was made from, as values to compare."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch

# Attributes of these types can change what a module computes, and are cheap to compare.
_PLAIN = (bool, int, float, str, tuple, type(None), torch.dtype)

State = tuple[Any, ...]


def weight_state(model: torch.nn.Module, written: Collection[str]) -> dict[str, State]:
    """Per parameter and buffer, what changes when it is replaced or written to.

    `written` are buffers that the compiled model shares with the module and writes to: their values may change.
    """
    return {
        name: _tensor_state(tensor, versioned=name not in written)
        for name, tensor in _tensors(model)
    }


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _tensor_state(tensor: torch.Tensor, *, versioned: bool) -> State:
    version = tensor._version if versioned and not tensor.is_inference() else -1
    kind = (tuple(tensor.shape), tensor.dtype, tensor.device)
    return kind, id(tensor), version, tensor.data_ptr()


def same_kinds(before: dict[str, State], now: dict[str, State]) -> bool:
    """Whether only values differ: same names, shapes, dtypes and devices."""
    return before.keys() == now.keys() and all(before[name][0] == now[name][0] for name in now)


def structure_state(model: torch.nn.Module) -> list[State]:
    """The submodules, their plain attributes and their hooks."""
    return [
        (
            name,
            type(module),
            [item for item in vars(module).items() if isinstance(item[1], _PLAIN)],
            list(module._forward_pre_hooks),
            list(module._forward_hooks),
        )
        for name, module in model.named_modules(remove_duplicate=False)
    ]
