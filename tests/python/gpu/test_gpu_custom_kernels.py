"""Operators with a kernel of the user's own, which work in the memory of a CPU, in models on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from models_small import compile_all

import kiln


@torch.library.custom_op("kilngpu::halve", mutates_args=())
def halve(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@halve.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def halve_kernel(
    inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], given: dict[str, Any]
) -> None:
    outputs[0][...] = inputs[0] / 2


kiln.register_kernel("kilngpu::halve", halve_kernel)


class Halves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(halve(torch.relu(x) + 1)) * 3


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_operator_stays_in_pytorch_on_a_gpu_alone(device: str) -> None:
    model, x = Halves().eval().to(device), torch.randn(5, 7, device=device)
    compiled = compile_all(model, x)
    left = [node for node in compiled.graph.nodes if "kilngpu" in str(node.target)]
    assert len(left) == (device == "cuda")
    torch.testing.assert_close(compiled(x), model(x))
