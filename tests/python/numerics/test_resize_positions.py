"""Resizing takes the pixels that PyTorch takes, and sampling treats NaN positions as PyTorch does."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from eager import Table, assert_as_eager
from torch.nn import functional

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Sizes whose positions fall between pixels; 1, equal sizes, twice the size; more than 128 in all, where PyTorch
# takes another kernel.
SIZES = [
    (27, 666),
    (500, 30),
    (2, 41),
    (41, 2),
    (7, 7),
    (7, 14),
    (1, 9),
    (9, 1),
    (3, 7),
    (100, 33),
    (33, 100),
]


def ramp(size: int, dtype: torch.dtype, spatial: int) -> torch.Tensor:
    """Every pixel has its own value, as far as the dtype has so many."""
    x = torch.arange(float(size)) % 251
    return (
        x.to(dtype).reshape((1, 1) + (1,) * (spatial - 1) + (size,)).repeat((2, 2) + (1,) * spatial)
    )


def resize(mode: str, spatial: int, output: int | float, **options: bool):
    def function(x: torch.Tensor) -> torch.Tensor:
        if isinstance(output, int):
            return functional.interpolate(
                x, size=(2,) * (spatial - 1) + (output,), mode=mode, **options
            )
        return functional.interpolate(
            x, scale_factor=(2.0,) * (spatial - 1) + (output,), mode=mode, **options
        )

    return function


def away_from_zero(function):
    """Where units in the last place measure an absolute error."""
    return lambda x: function(x) + 8


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8])
def test_nearest_pixels(dtype: torch.dtype, spatial: int) -> None:
    if dtype == torch.uint8 and spatial == 3:
        pytest.skip("eager PyTorch has no such kernel for all modes")
    for size in sorted({size for size, _ in SIZES}):
        outputs = [b for a, b in SIZES if a == size]
        table: Table = {
            f"{mode} {size} to {output}": resize(mode, spatial, output, **recompute)
            for mode in ("nearest", "nearest-exact")
            for b in outputs
            for output, recompute in (
                (b, {}),
                (b / size, {}),
                (b / size + 0.01, {"recompute_scale_factor": True}),
            )
            if not isinstance(output, float) or math.floor(size * output) > 0
        }
        assert_as_eager(table, (ramp(size, dtype, spatial),))


@pytest.mark.parametrize("dtype", FLOATS)
def test_interpolated_pixels(dtype: torch.dtype) -> None:
    modes = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}
    for spatial, (a, b) in itertools.product(
        modes, [(27, 66), (41, 2), (7, 7), (1, 9), (9, 1), (30, 149)]
    ):
        x = torch.randn((1, 2) + (3,) * (spatial - 1) + (a,)).to(dtype)
        ulps = 16 if dtype in (torch.float32, torch.float64) else 2
        table: Table = {
            f"{mode} {a} to {output}, corners {corners}": (
                away_from_zero(resize(mode, spatial, output, align_corners=corners)),
                ulps,
            )
            for mode in modes[spatial]
            for output in (b, b / a)
            for corners in (False, True)
        }
        assert_as_eager(table, (x,), emulate_precision_casts=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_area_of_infinities(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 13, dtype=dtype)
    x[0, 0, 6], x[0, 1, 7] = math.inf, math.nan
    table: Table = {
        f"{n}": (lambda x, n=n: functional.interpolate(x, size=n, mode="area"), 2)
        for n in (1, 5, 13, 20)
    }
    assert_as_eager(table, (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_infinities", [False, True])
def test_grid_positions_that_are_no_numbers(dtype: torch.dtype, with_infinities: bool) -> None:
    image = torch.arange(1.0, 10.0, dtype=dtype).reshape(1, 1, 3, 3)
    if with_infinities:
        image[0, 0, 0, 0], image[0, 0, 2, 1] = math.inf, math.nan
    values = [
        math.nan,
        0.0,
        -1.0,
        1.0,
        0.3,
        math.inf,
        -math.inf,
        5.0,
        -5.0,
        1e10,
        -1e10,
        1e30,
        3e9,
        -0.0,
        1.0000001,
    ]
    grid = torch.tensor(list(itertools.product(values, values)), dtype=dtype).reshape(1, 1, -1, 2)
    table: Table = {
        f"{mode}, {padding}, corners {corners}": (
            lambda x, g, m=mode, p=padding, c=corners: functional.grid_sample(
                x, g, mode=m, padding_mode=p, align_corners=c
            ),
            8,
        )
        for mode in ("bilinear", "nearest")
        for padding in ("zeros", "border")
        for corners in (False, True)
    }
    assert_as_eager(table, (image, grid))
