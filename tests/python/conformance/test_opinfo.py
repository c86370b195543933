"""Operators with PyTorch's own samples, in engines: a part of what tests/opinfo/sweep.py and edges.py try."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("expecttest")
sys.path.insert(0, str(Path(__file__).parents[2] / "opinfo"))
from edges import try_edges  # noqa: E402
from one_op import all_ops, full_name, try_op  # noqa: E402

# Every sample of these must pass; others have samples that are too large, or whose sizes depend on data.
PASS = [
    "_segment_reduce.lengths",
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
    "histogram",
    "igamma",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_select",
    "logcumsumexp",
    "lcm",
    "linalg.eigh",
    "linalg.lu",
    "linalg.matrix_rank",
    "linalg.pinv",
    "linalg.qr",
    "linalg.svd",
    "linalg.svdvals",
    "masked_scatter",
    "max_pool2d_with_indices_backward",
    "mm",
    "mode",
    "native_dropout_backward",
    "nextafter",
    "nn.functional.avg_pool2d",
    "nn.functional.conv2d",
    "nn.functional.conv_transpose2d",
    "nn.functional.multilabel_margin_loss",
    "nn.functional.unfold",
    "nonzero",
    "put",
    "resize_as_",
    "scatter",
    "scatter_add",
    "scatter_reduce.amax",
    "scatter_reduce.amin",
    "scatter_reduce.mean",
    "scatter_reduce.prod",
    "scatter_reduce.sum",
    "searchsorted",
    "softmax",
    "special.bessel_y1",
    "special.chebyshev_polynomial_t",
    "special.zeta",
    "take_along_dim",
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
EDGES = [
    "add",
    "amax",
    "argmax",
    "cat",
    "cdist",
    "clamp",
    "cummax",
    "cumsum",
    "dist",
    "gather",
    "index_put",
    "logsumexp",
    "masked.softmax",
    "maximum",
    "nan_to_num",
    "nansum",
    "nn.functional.grid_sample",
    "nn.functional.hardswish",
    "nn.functional.interpolate.bilinear",
    "nn.functional.layer_norm",
    "nn.functional.max_pool1d",
    "nn.functional.silu",
    "nn.functional.binary_cross_entropy",
    "nn.functional.max_unpool2d",
    "norm",
    "pow",
    "quantile",
    "round",
    "scatter_reduce.mean",
    "sign",
    "softmax",
    "sort",
    "topk",
    "where",
]
OPS = {full_name(op): op for op in all_ops()}


@pytest.mark.parametrize("name", PASS + MAYBE_REFUSED)
@pytest.mark.parametrize("dtype", ["f32", "i64"])
def test_samples(name: str, dtype: str) -> None:
    outcome = try_op(OPS[name], dtype, 3)
    allowed = {"no samples", "pass"} | ({"refused"} if name in MAYBE_REFUSED else set())
    assert outcome.status in allowed, (outcome.status, outcome.reasons)


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("dtype", ["f32", "f16", "i64"])
def test_values_at_the_edges(name: str, dtype: str) -> None:
    outcome = try_edges(OPS[name], dtype, 2)
    assert outcome.status in ("no samples", "pass"), (outcome.status, outcome.reasons)
