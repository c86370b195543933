"""Products of f32 are as exact as PyTorch's without TF32, whatever units compute them."""

from __future__ import annotations

import pytest
import torch

import torch_tensorrt

# Rows, columns and depth: below, at and above the tiles there are, and few tiles of long sums.
BOUND = 3e-6  # TF32 gives 3e-4
SIZES = [
    (1, 1, 1),
    (2, 3, 5),
    (63, 65, 33),
    (64, 64, 32),
    (65, 127, 31),
    (128, 128, 128),
    (129, 130, 257),
    (16, 512, 2048),
    (128, 768, 3072),
    (1000, 300, 77),
    (4096, 768, 768),
]
TINY, LARGE = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


class Product(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


def compiled(model: torch.nn.Module, *inputs: torch.Tensor) -> torch.nn.Module:
    return torch_tensorrt.compile(
        model, ir="dynamo", inputs=list(inputs), min_block_size=1, require_full_compilation=True
    )


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_products(m: int, n: int, k: int) -> None:
    a, b = torch.randn(m, k, device="cuda"), torch.randn(k, n, device="cuda")
    assert error(compiled(Product(), a, b)(a, b), a.double() @ b.double()) <= BOUND


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_linear(m: int, n: int, k: int) -> None:
    layer = torch.nn.Linear(k, n).eval().cuda()
    x = torch.randn(m, k, device="cuda")
    with torch.no_grad():
        expected = torch.nn.functional.linear(
            x.double(), layer.weight.double(), layer.bias.double()
        )
    assert error(compiled(layer, x)(x), expected) <= BOUND


@pytest.mark.parametrize(("channels", "filters", "size", "groups"), [
    (3, 64, 33, 1), (64, 64, 28, 1), (64, 100, 9, 4), (30, 6, 17, 2), (256, 256, 7, 1)
])  # fmt: skip
def test_convolutions(channels: int, filters: int, size: int, groups: int) -> None:
    layer = torch.nn.Conv2d(channels, filters, 3, 2, 1, groups=groups).eval().cuda()
    x = torch.randn(2, channels, size, size, device="cuda")
    with torch.no_grad():
        expected = torch.nn.Conv2d.forward(layer.double(), x.double())
        layer.float()
    assert error(compiled(layer, x)(x), expected) <= BOUND


# Positive terms are where what tensor cores cut off would pile up.
def test_long_sums_of_one_sign() -> None:
    a, b = torch.rand(64, 100_000, device="cuda"), torch.rand(100_000, 64, device="cuda")
    assert error(compiled(Product(), a, b)(a, b), a.double() @ b.double()) <= BOUND


@pytest.mark.parametrize("size", [(4, 8, 8), (130, 130, 200)])
def test_what_is_not_finite(size: tuple[int, int, int]) -> None:
    m, n, k = size
    a, b = torch.randn(m, k, device="cuda"), torch.randn(k, n, device="cuda")
    a[0, 1], a[1, 2], a[2, 3] = float("inf"), float("-inf"), float("nan")
    a[:, 0] = torch.linspace(-1, 1, m, device="cuda")
    a[3, 0] = LARGE
    b[1, 1], b[2, 2] = 0.0, float("inf")
    b[0, 3] = LARGE
    actual = compiled(Product(), a, b)(a, b)
    expected = a @ b
    assert torch.equal(actual.isnan(), expected.isnan())
    infinite = expected.isinf()
    assert torch.equal(actual.isinf(), infinite)
    assert torch.equal(actual[infinite], expected[infinite])
    finite = expected.isfinite()
    torch.testing.assert_close(actual[finite], expected[finite], rtol=1e-4, atol=1e-4)


def test_large_and_small_numbers() -> None:
    a = torch.diag(torch.tensor([LARGE, -LARGE, TINY, -TINY, 2e-36, 1.0, 2.0**-120, 3.0])).cuda()
    b = torch.eye(8, device="cuda")
    torch.testing.assert_close(compiled(Product(), a, b)(a, b), a, rtol=1e-6, atol=2e-45)


# TF32 has fewer bits where f32 comes to its denormals.
@pytest.mark.parametrize("size", [(4, 8, 8), (128, 128, 128), (300, 500, 700)])
def test_small_operands(size: tuple[int, int, int]) -> None:
    m, n, k = size
    a, b = torch.randn(m, k, device="cuda") * 2.0**-124, torch.randn(k, n, device="cuda")
    assert error(compiled(Product(), a, b)(a, b), a.double() @ b.double()) <= BOUND


def test_whole_numbers_are_exact() -> None:
    a = torch.randint(-2048, 2048, (100, 60), device="cuda").float()
    b = torch.randint(-1, 2, (60, 70), device="cuda").float()
    assert torch.equal(compiled(Product(), a, b)(a, b), (a.double() @ b.double()).float())
