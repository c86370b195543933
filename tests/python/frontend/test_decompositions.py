"""Operators that only PyTorch's decompositions put into engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as fn
from eager import assert_as_eager

import kiln
import torch_tensorrt
from torch_tensorrt.dynamo._decompositions import NAMES

MAX = torch.export.Dim("n", min=2, max=50)


def target_of(name: str) -> torch._ops.OpOverload:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def test_the_names_are_of_operators_without_rows() -> None:
    supported = kiln.supported_ops()["aten"]
    targets = [str(target_of(name)) for name in NAMES]
    assert not set(targets) & set(supported)
    assert list(NAMES) == sorted(set(NAMES))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_are_in_one_engine(reduction) -> None:
    x, labels = torch.randn(6, 5), torch.tensor([0, 4, -100, 2, 1, 3])
    table: dict[str, tuple[Callable[..., torch.Tensor], int]] = {
        "cross entropy": (lambda t, i: fn.cross_entropy(t, i, reduction=reduction), 8),
        "nll": (lambda t, i: fn.nll_loss(t.log_softmax(1), i, reduction=reduction), 8),
        "huber": (lambda t, _: fn.huber_loss(t, t.flip(0), reduction=reduction), 8),
        "mse": (lambda t, _: fn.mse_loss(t, t.flip(0), reduction=reduction), 8),
        "l1": (lambda t, _: fn.l1_loss(t, t.flip(0), reduction=reduction), 8),
    }
    assert_as_eager(table, (x, labels))


def test_sizes_may_vary() -> None:
    table = {
        "pairwise": (lambda t: fn.pairwise_distance(t, t.flip(0)), 16),
        "diag": (lambda t: torch.diag_embed(t), 0),
        "quantile": (lambda t: torch.quantile(t, 0.3, dim=0), 4),
        "cosine": (lambda t: fn.cosine_similarity(t, t.flip(0), dim=1), 16),
    }
    calls = [(torch.randn(n, 4),) for n in (2, 3, 50)]
    assert_as_eager(table, (torch.randn(7, 4),), calls=calls, dynamic_shapes=(({0: MAX},),))


class Kron(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.kron(x * 2, x) + 1


def test_operators_that_the_user_names_stay_whole_in_pytorch() -> None:
    x = torch.randn(3, 4)
    program = torch.export.export(Kron(), (x,))
    whole = torch_tensorrt.dynamo.compile(program, arg_inputs=(x,), min_block_size=1)
    assert not any("kron" in str(node.target) for node in whole.graph.nodes)
    named = torch_tensorrt.dynamo.compile(
        program,
        arg_inputs=(x,),
        min_block_size=1,
        torch_executed_ops={"torch.ops.aten.kron.default"},
    )
    assert [node for node in named.graph.nodes if node.target is torch.ops.aten.kron.default]
    for module in (whole, named):
        torch.testing.assert_close(module(x), Kron()(x))
