"""Operators with PyTorch's own samples, in engines: a part of what tests/opinfo/sweep.py tries."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("expecttest")
sys.path.insert(0, str(Path(__file__).parents[2] / "opinfo"))
from one_op import all_ops, full_name, try_op  # noqa: E402

# Every sample of these must pass; others have samples that are too large, or whose sizes depend on data.
PASS = [
    "add",
    "amax",
    "argwhere",
    "bincount",
    "argmax",
    "bmm",
    "cat",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "diagonal_scatter",
    "gather",
    "gcd",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_select",
    "logcumsumexp",
    "lcm",
    "linalg.lu",
    "linalg.matrix_rank",
    "linalg.pinv",
    "linalg.qr",
    "linalg.svdvals",
    "masked_scatter",
    "mm",
    "mode",
    "nextafter",
    "nn.functional.unfold",
    "nonzero",
    "put",
    "scatter",
    "scatter_add",
    "scatter_reduce.amax",
    "scatter_reduce.amin",
    "scatter_reduce.mean",
    "scatter_reduce.prod",
    "scatter_reduce.sum",
    "searchsorted",
    "softmax",
    "topk",
    "where",
]
MAYBE_REFUSED = [
    "argsort",
    "kthvalue",
    "matmul",
    "median",
    "msort",
    "nanmedian",
    "sort",
]
OPS = {full_name(op): op for op in all_ops()}


@pytest.mark.parametrize("name", PASS + MAYBE_REFUSED)
@pytest.mark.parametrize("dtype", ["f32", "i64"])
def test_samples(name: str, dtype: str) -> None:
    outcome = try_op(OPS[name], dtype, 3)
    allowed = {"no samples", "pass"} | ({"refused"} if name in MAYBE_REFUSED else set())
    assert outcome.status in allowed, (outcome.status, outcome.reasons)
