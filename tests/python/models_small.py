"""Small modules for the tests, with what makes calling, partitioning and saving hard."""

from __future__ import annotations

from typing import Any

import torch

import torch_tensorrt
from torch_tensorrt._operator import engine_calls


class Mlp(torch.nn.Module):
    """Two layers and a normalisation; x: [batch, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(16, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.second = torch.nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


class KeywordArguments(torch.nn.Module):
    """Keyword inputs that may come in any order."""

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * scale - shift)


class NestedResults(torch.nn.Module):
    """Dictionaries, tuples and lists of results, one of them twice, one an input, one nothing."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = torch.relu(x) * 2
        return {"sum": x + y, "parts": (y, [y - 1, x.mean(-1)]), "input": x, "nothing": None}


class NestedInputs(torch.nn.Module):
    """A list and a dictionary of inputs."""

    def forward(self, pair: list[torch.Tensor], named: dict[str, torch.Tensor]) -> torch.Tensor:
        return pair[0] * pair[1] + named["bias"]


# An operator that engines do not have, as only training needs it: its name, and a call of it.
UNSUPPORTED = "tanh_backward"


def unsupported(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.tanh_backward(x, x)


class SortInTheMiddle(torch.nn.Module):
    """An operator that engines lack between two blocks that they take; sizes cross both borders."""

    def __init__(self) -> None:
        super().__init__()
        self.before = torch.nn.Linear(16, 16)
        self.after = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.before(x)).reshape(x.shape[0] * 2, -1)
        y = unsupported(y)
        return torch.tanh(self.after(y.reshape(x.shape[0], 16)))


class Counter(torch.nn.Module):
    """A buffer that every call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * 2 + self.calls


def engines_of(module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """The engine calls of a compiled module."""
    return engine_calls(module.graph)


def torch_operators_of(module: torch.fx.GraphModule) -> set[str]:
    """What a compiled module still runs in PyTorch."""
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    return {str(node.target) for node in calls if str(node.target).startswith("aten")}


def compile_all(module: torch.nn.Module, *args: Any, **options: Any) -> torch.fx.GraphModule:
    """Compiles with engines of any size."""
    return torch_tensorrt.compile(module, "dynamo", list(args) or None, min_block_size=1, **options)


def batch_input(
    low: int = 1, opt: int = 4, high: int = 32, name: str = "x"
) -> torch_tensorrt.Input:
    """[batch, 16] with a dynamic batch."""
    return torch_tensorrt.Input(
        min_shape=(low, 16), opt_shape=(opt, 16), max_shape=(high, 16), name=name
    )
