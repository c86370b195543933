"""Attention of ONNX with masks in another dtype than its operands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

import kiln  # noqa: E402

CODES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
}
HEADS, ROWS, KEYS, SIZE = 3, 4, 6, 8


def model_of(path: Path, dtype: str, mask_dtype: str, keys: int) -> Path:
    """Attention of [batch, HEADS, ., SIZE] with a mask of `keys` columns."""
    shapes = {
        "q": (dtype, ["n", HEADS, ROWS, SIZE]),
        "k": (dtype, ["n", HEADS, KEYS, SIZE]),
        "v": (dtype, ["n", HEADS, KEYS, SIZE]),
        "mask": (mask_dtype, ["n", 1, ROWS, keys]),
    }
    inputs = [
        helper.make_tensor_value_info(name, CODES[kind], shape)
        for name, (kind, shape) in shapes.items()
    ]
    output = helper.make_tensor_value_info("y", CODES[dtype], ["n", HEADS, ROWS, SIZE])
    node = helper.make_node("Attention", list(shapes), ["y"])
    graph = helper.make_graph([node], "graph", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("dtype", "mask_dtype"),
    [
        ("float16", "float32"),
        ("float16", "int32"),
        ("float32", "float64"),
        ("float32", "float16"),
        ("float32", "int32"),
    ],
)
@pytest.mark.parametrize("keys", [KEYS, KEYS - 2])
def test_masks_of_another_dtype(tmp_path: Path, dtype: str, mask_dtype: str, keys: int) -> None:
    path = model_of(tmp_path / "model.onnx", dtype, mask_dtype, keys)
    session = kiln.load(kiln.compile(path, verify_passes=True)).session()
    rng = np.random.default_rng(0)
    for n in (1, 3):
        q, k, v = (
            rng.standard_normal((n, HEADS, m, SIZE)).astype(dtype) for m in (ROWS, KEYS, KEYS)
        )
        mask = rng.integers(-2, 3, (n, 1, ROWS, keys)).astype(mask_dtype)
        mask[0, 0, 1, 1:3] = -30000
        if mask_dtype != "float16":  # a number that f16 does not have: a row of it alone is a mean
            mask[-1, 0, 2] = -1_000_000_000
        (got,) = session.run(q, k, v, mask)
        scores = q.astype("f4") @ k.astype("f4").swapaxes(-1, -2) / np.sqrt(np.float32(SIZE))
        scores[..., :keys] += mask.astype("f4")
        scores[..., keys:] = -np.inf  # keys that the mask does not reach
        weights = np.exp((scores - scores.max(-1, keepdims=True)).astype("f8"))
        want = weights / weights.sum(-1, keepdims=True) @ v.astype("f8")
        assert got.dtype == dtype
        bound = 2e-3 if dtype == "float16" else 1e-5
        np.testing.assert_allclose(got, want, rtol=bound, atol=bound)
