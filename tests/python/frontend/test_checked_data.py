"""Programs that end with an error in PyTorch because of their data end with the same kind of error in an engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as fn
from eager import assert_as_eager, compile_functions

NAN = math.nan
X = torch.tensor([[0.5, 0.25], [1.0, 0.0]])
PLACES = torch.tensor([[[[0, 3], [9, 15]]]])
LABELS = torch.tensor([[0, 2, -1, 1], [3, -1, 0, 0], [-1, 1, 1, 1]])


def asserts(x: torch.Tensor) -> torch.Tensor:
    torch._assert_async((x > -1).all(), "x is more than -1")
    return x + 1


CASES: dict[str, tuple[Callable[..., Any], list[torch.Tensor], int, list[Any], str]] = {
    # a function, inputs that are right, which of them is to be wrong, and with what; the error
    "the input of binary_cross_entropy": (
        fn.binary_cross_entropy,
        [X, X.flip(0)],
        0,
        [1.5, -0.1, NAN],
        r"\[binary_cross_entropy\] got an element of the input",
    ),
    "the target of binary_cross_entropy": (
        fn.binary_cross_entropy,
        [X, X.flip(0)],
        1,
        [1.5, -0.1, NAN],
        r"\[binary_cross_entropy\] got an element of the target",
    ),
    "quantile": (
        torch.quantile,
        [torch.arange(8.0), torch.tensor([0.0, 1.0])],
        1,
        [1.5, -0.5, NAN],
        r"\[quantile\] got a q outside of \[0, 1\]",
    ),
    "nanquantile": (
        torch.nanquantile,
        [torch.arange(8.0), torch.tensor([0.3, 0.7])],
        1,
        [1.01, -0.01, NAN],
        r"\[nanquantile\] got a q outside",
    ),
    "max_unpool1d": (
        lambda x, i: fn.max_unpool1d(x[0, 0], i[0, 0], 2),
        [torch.randn(1, 1, 2, 2), torch.tensor([[[[0, 3], [1, 2]]]])],
        1,
        [-1, 4],
        r"\[max_unpool2d\] got an index outside",
    ),
    "max_unpool2d": (
        lambda x, i: fn.max_unpool2d(x, i, 2),
        [torch.randn(1, 1, 2, 2), PLACES],
        1,
        [-1, 16],
        r"\[max_unpool2d\] got an index outside",
    ),
    "max_unpool3d": (
        lambda x, i: fn.max_unpool3d(x, i, 2),
        [torch.randn(1, 1, 1, 2, 2), PLACES.unsqueeze(0)],
        1,
        [-1, 32],
        r"\[max_unpool3d\] got an index outside",
    ),
    "multilabel_margin_loss": (
        fn.multilabel_margin_loss,
        [torch.randn(3, 4), LABELS],
        1,
        [4, -2],
        r"\[multilabel_margin_loss\] got a target outside of \[-1, 4\)",
    ),
    "an assertion of the model's own": (
        asserts,
        [torch.zeros(3)],
        0,
        [-2.0],
        r"\[_assert_async\] got false, .* asserts: x is more than -1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_data_ends_the_run(name: str) -> None:
    function, inputs, wrong, values, message = CASES[name]
    compiled = compile_functions([function], tuple(inputs))
    torch.testing.assert_close(compiled(*inputs)[0], function(*inputs))
    for value in values:
        given = [x.clone() for x in inputs]
        given[wrong].view(-1)[1] = value
        with pytest.raises(RuntimeError):
            function(*given)
        with pytest.raises(RuntimeError, match=message):
            compiled(*given)


def test_assertions_of_conditions_that_are_no_bools() -> None:
    def check(x: torch.Tensor) -> torch.Tensor:
        torch._assert_async(x[0])
        return x * 2

    x = torch.tensor([0.25, NAN])
    compiled = compile_functions([check], (x,))
    for right in (x, x.flip(0), -x):
        torch.testing.assert_close(compiled(right)[0], right * 2, equal_nan=True)
    with pytest.raises(RuntimeError, match=r"\[_assert_async\] got false"):
        compiled(torch.zeros(2))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_multilabel_margin_loss(reduction: str) -> None:
    x = torch.randn(3, 4)
    bad = x.clone()
    bad[0, 1], bad[1, 3] = NAN, math.inf
    table = {
        "rows": (lambda x, b, y: fn.multilabel_margin_loss(x, y, reduction=reduction), 8),
        "one": (lambda x, b, y: fn.multilabel_margin_loss(x[0], y[0], reduction=reduction), 8),
        "special": (lambda x, b, y: fn.multilabel_margin_loss(b, y, reduction=reduction), 8),
    }
    assert_as_eager(table, (x, bad, LABELS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_fractional_pools_of_given_samples(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    x, samples = torch.randn(2, 3, 9, 12, dtype=dtype), torch.rand(2, 3, 2, dtype=dtype)
    bad = x.clone()
    bad[0, 0, 2:5, 3:6], bad[1, 2, 4] = NAN, -math.inf
    volume, three = torch.randn(1, 2, 6, 7, 8, dtype=dtype), torch.rand(1, 2, 3, dtype=dtype)

    def plane(t: torch.Tensor, s: torch.Tensor, at: int, **given: Any) -> torch.Tensor:
        return fn.fractional_max_pool2d(t, (2, 3), _random_samples=s, return_indices=True, **given)[
            at
        ]

    def cube(t: torch.Tensor, s: torch.Tensor, at: int) -> torch.Tensor:
        return fn.fractional_max_pool3d(t, 2, (3, 4, 1), _random_samples=s, return_indices=True)[at]

    table: dict[str, Callable[..., torch.Tensor]] = {}
    for at in (0, 1):
        table |= {
            f"size {at}": lambda x, b, s, v, t, at=at: plane(x, s, at, output_size=(4, 5)),
            f"ratio {at}": lambda x, b, s, v, t, at=at: plane(x, s, at, output_ratio=(0.6, 0.5)),
            f"one {at}": lambda x, b, s, v, t, at=at: plane(x[0], s[:1], at, output_size=(1, 7)),
            f"special {at}": lambda x, b, s, v, t, at=at: plane(b, s, at, output_size=(6, 6)),
            f"cube {at}": lambda x, b, s, v, t, at=at: cube(v, t, at),
        }
    assert_as_eager(table, (x, bad, samples, volume, three))
