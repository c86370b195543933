"""Sums of millions of terms are as near to the exact ones as those of a few."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import torch_tensorrt

TERMS = 1 << 22


class Sums(torch.nn.Module):
    """Of x (TERMS / 16, 16): the terms of a sum lie behind one another, apart, and in two loops."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        row, picture = x.flatten(), x.view(1, 4, -1, 2048)
        return (
            row.sum(),
            x.mean(0),
            x.t().contiguous().mean(1),
            picture.mean((0, 2, 3)),
            (row * row).sum(),
            row.norm(),
            row.nansum(),
            (row + 1).log().logsumexp(0),
            functional.adaptive_avg_pool2d(picture, 1),
        )


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
@pytest.mark.parametrize("rows", ["static", "dynamic"])
def test_sums_of_millions_of_terms_keep_their_digits(target: str, rows: str) -> None:
    # Each partial sum of 0.1 is rounded in the same direction for a long time.
    x = torch.full((TERMS // 16, 16), 0.1)
    dynamic = None
    if rows == "dynamic":
        dynamic = ({0: 512 * torch.export.Dim("rows", min=1)},)
    program = torch.export.export(Sums(), (x,), dynamic_shapes=dynamic)
    engine = torch_tensorrt.dynamo.compile(
        program, arg_inputs=[x], min_block_size=1, require_full_compilation=True, targets=target
    )
    exact = Sums()(x.double())
    for i, (got, right) in enumerate(zip(engine(x), exact, strict=True)):
        error = ((got.double() - right).norm() / right.norm()).item()
        assert error < 2e-6, f"result {i} is off by {error:.1e} of its norm"


class Products(torch.nn.Module):
    """Products whose sums are long, of one row and of several, with a weight and without."""

    def __init__(self, terms: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(3, terms))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x @ y, x[:1] @ y, functional.linear(x, self.weight)


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
@pytest.mark.parametrize("terms", ["static", "dynamic"])
def test_products_of_long_rows_keep_their_digits(target: str, terms: str) -> None:
    torch.manual_seed(0)
    count = 400_000
    module: torch.nn.Module = Products(count)
    x, y = torch.rand(5, count), torch.rand(count, 17)
    exact = module.double()(x.double(), y.double())
    module.float()
    dynamic = None
    if terms == "dynamic":
        module, exact = Product(), exact[:1]
        size = torch.export.Dim("terms", min=2)
        dynamic = ({1: size}, {0: size})
    program = torch.export.export(module, (x, y), dynamic_shapes=dynamic)
    engine = torch_tensorrt.dynamo.compile(
        program, arg_inputs=[x, y], min_block_size=1, require_full_compilation=True, targets=target
    )
    for i, (got, right) in enumerate(zip(engine(x, y), exact, strict=True)):
        error = ((got.double() - right).norm() / right.norm()).item()
        assert error < 2e-6, f"result {i} is off by {error:.1e} of its norm"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_long_sums_of_16_bits_are_rounded_once(dtype: torch.dtype) -> None:
    x = torch.full((1 << 20,), 0.01).to(dtype)
    program = torch.export.export(Mean(), (x,))
    engine = torch_tensorrt.dynamo.compile(
        program, arg_inputs=[x], min_block_size=1, require_full_compilation=True, targets="cpu"
    )
    assert torch.equal(engine(x), x.double().mean().to(dtype))


class Product(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x @ y,)


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()
