"""Histograms, reductions of segments, and elements and rows that are taken, against eager PyTorch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from eager import assert_as_eager, compile_functions

NAN, INF = math.nan, math.inf
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


@DTYPES
def test_histograms(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 30, dtype=dtype)
    edges = torch.tensor([-2.0, -1, -1, 0.5, 2], dtype=dtype)
    weight = torch.rand(7, 30, dtype=dtype)

    def table_of(overload: Any) -> dict[str, Any]:
        return {
            "counts": lambda t, e, w: overload(t, e)[0],
            "edges": lambda t, e, w: overload(t, e)[1],
            "weighted": (lambda t, e, w: overload(t, e, weight=w)[0], 8),
            "density": (lambda t, e, w: overload(t, e, density=True)[0], 8),
        }

    assert_as_eager(table_of(torch.histogram), (x, edges, weight))
    by_count = table_of(lambda t, e, **k: torch.histogram(t, 6, **k))
    assert_as_eager(by_count, (x, edges, weight))
    ranged = table_of(lambda t, e, **k: torch.histogram(t, 5, range=(-1.0, 2.0), **k))
    assert_as_eager(ranged, (x, edges, weight))


@DTYPES
def test_histograms_of_few_values(dtype: torch.dtype) -> None:
    count = {
        "three": lambda t: torch.histogram(t, 3)[0],
        "edges": lambda t: torch.histogram(t, 3)[1],
    }
    assert_as_eager(count, (torch.ones(4, dtype=dtype),))
    assert_as_eager(count, (torch.zeros(0, dtype=dtype),))
    assert_as_eager(count, (torch.tensor(2.5, dtype=dtype),))
    ranged = {"ranged": lambda t: torch.histogram(t, 3, range=(1.0, 4.0))[0]}
    assert_as_eager(ranged, (torch.tensor([1, 2, NAN, 4, 5, INF, -INF, 3.999], dtype=dtype),))
    compiled = compile_functions(list(count.values()), (torch.ones(3, dtype=dtype),))
    for wrong in (NAN, INF):
        with pytest.raises(RuntimeError, match="got elements that are not finite"):
            compiled(torch.tensor([1, wrong, 2], dtype=dtype))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "prod"])
def test_segments(reduce: str) -> None:
    data, bad = torch.randn(9, 4), torch.randn(9, 4)
    bad[3, 2], bad[8, 0] = NAN, INF
    lengths, offsets = torch.tensor([2, 0, 4, 3]), torch.tensor([0, 2, 2, 6, 9])
    several = torch.tensor([[2, 0, 7], [4, 5, 0], [0, 0, 9], [3, 3, 3]])

    def segments(t: torch.Tensor, **given: Any) -> torch.Tensor:
        return torch.segment_reduce(t, reduce, **given)

    table: dict[str, Any] = {
        "lengths": (lambda t, b, n, o, m: segments(t, lengths=n), 4),
        "offsets": (lambda t, b, n, o, m: segments(t, offsets=o), 4),
        "initial": (lambda t, b, n, o, m: segments(t, lengths=n, initial=0.75), 4),
        "second": (lambda t, b, n, o, m: segments(t.mT, lengths=m, axis=1), 4),
        "flat": (lambda t, b, n, o, m: segments(t[:, 0], lengths=n, unsafe=True), 4),
        "special": (lambda t, b, n, o, m: segments(b, lengths=n), 4),
    }
    assert_as_eager(table, (data, bad, lengths, offsets, several))


def test_lengths_of_segments_are_checked() -> None:
    data, lengths = torch.randn(6, 2), torch.tensor([2, 0, 4])
    compiled = compile_functions(
        [lambda t, n: torch.segment_reduce(t, "sum", lengths=n)], (data, lengths)
    )
    with pytest.raises(RuntimeError, match="got lengths whose sum is not the size"):
        compiled(data, torch.tensor([2, 0, 3]))
    with pytest.raises(RuntimeError, match="got a negative length"):
        compiled(data, torch.tensor([3, -1, 4]))


def test_elements_are_taken_without_an_axis() -> None:
    x, index = torch.randn(3, 4), torch.tensor([[0, 11], [5, 5]])
    assert_as_eager({"taken": torch.take_along_dim}, (x, index))
    compiled = compile_functions([torch.take_along_dim], (x, index))
    for wrong in (-1, 12):
        with pytest.raises(IndexError, match="take_along_dim"):
            compiled(x, torch.full((2, 2), wrong))


def test_weights_of_nothing_are_left_to_pytorch() -> None:
    """torch.export records their dtype, and PyTorch gives integers."""
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    with pytest.raises(RuntimeError, match="got weights of no elements"):
        compile_functions([torch.bincount], nothing)


@pytest.mark.parametrize("order", [1.0, 2.0, INF])
@DTYPES
def test_rows_that_are_taken_have_a_largest_norm(order: float, dtype: torch.dtype) -> None:
    table, index = torch.randn(6, 5, dtype=dtype), torch.tensor([[1, 3], [3, 0]])
    table[0] /= 100
    table[3] = 0
    functions = {
        "table": (lambda t, i: torch.ops.aten.embedding_renorm(t, i, 1.5, order), 4),
        "rows": (
            lambda t, i: torch.nn.functional.embedding(i, t.clone(), max_norm=1.5, norm_type=order),
            4,
        ),
    }
    assert_as_eager(functions, (table, index))
