"""What an architecture is for the tests: a module, and inputs whose sizes may vary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

# Lowest, traced and highest sizes where they vary.
BATCH = (1, 2, 4)
LENGTH = (4, 9, 16)


@dataclass(frozen=True)
class Input:
    """`shape` holds sizes, and "batch" and "length" where they may vary. Integers are below `high`."""

    name: str
    shape: tuple[int | str, ...]
    high: int = 0

    def make(self, batch: int, length: int, generator: torch.Generator) -> torch.Tensor:
        sizes = {"batch": batch, "length": length}
        shape = [sizes[size] if isinstance(size, str) else size for size in self.shape]
        if self.high:
            return torch.randint(0, self.high, shape, generator=generator)
        return torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class Architecture:
    """`make` gives a module without weights of a hub. Inputs are given by name if `keywords`."""

    name: str
    package: str
    make: Callable[[], torch.nn.Module]
    inputs: tuple[Input, ...]
    keywords: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def module(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return Tensors(with_visible_parameters(self.make()), self).eval()

    def tensors(self, batch: int, length: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(100 * batch + length)
        return tuple(each.make(batch, length, generator) for each in self.inputs)

    def varies(self) -> set[str]:
        return {size for each in self.inputs for size in each.shape if isinstance(size, str)}


class Tensors(torch.nn.Module):
    """A module whose results are its tensors alone, whatever holds them."""

    def __init__(self, module: torch.nn.Module, case: Architecture) -> None:
        super().__init__()
        self.module = module
        self._names = [each.name for each in case.inputs] if case.keywords else None
        self._options = case.options

    def forward(self, *args: torch.Tensor) -> list[torch.Tensor]:
        if self._names is None:
            result = self.module(*args, **self._options)
        else:
            result = self.module(**dict(zip(self._names, args, strict=True)), **self._options)
        if hasattr(result, "to_tuple"):
            result = result.to_tuple()
        return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def with_visible_parameters(module: torch.nn.Module) -> torch.nn.Module:
    """Disturbs what is initialised to a constant (biases, norms, layer scales): a lost one shows."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point() or tensor.numel() < 2 or "inv_freq" in name:
                continue
            if torch.all(tensor == tensor.flatten()[0]):
                tensor += 0.1 * (
                    torch.rand_like(tensor) if "var" in name else torch.randn_like(tensor)
                )
    return module.eval()
