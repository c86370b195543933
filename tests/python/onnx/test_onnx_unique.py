"""Unique: elements and rows, sorted and in the order in which they come, beside NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

import kiln  # noqa: E402

CODES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def expected(x: np.ndarray, axis: int | None, is_sorted: int) -> list[np.ndarray]:
    values, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not is_sorted:
        order = np.argsort(first)
        values = np.take(values, order, axis=axis or 0)
        first, inverse, counts = first[order], np.argsort(order)[inverse], counts[order]
    return [values, first, inverse, counts]


@pytest.mark.parametrize("dtype", CODES)
def test_different_elements_and_rows(tmp_path: Path, dtype: str) -> None:
    nodes: list[Any] = []
    kinds = [(axis, is_sorted) for axis in (None, 0, -2, 2) for is_sorted in (0, 1)]
    for i, (axis, is_sorted) in enumerate(kinds):
        names = [f"{what}{i}" for what in ("values", "first", "inverse", "counts")]
        given = {} if axis is None else {"axis": axis}
        nodes.append(helper.make_node("Unique", ["x"], names, sorted=is_sorted, **given))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", CODES[dtype], ["n", 5, 2])],
        [onnx.ValueInfoProto(name=name) for node in nodes for name in node.output],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 18)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    ranges = [kiln.InputRange("x", 0, min=0, opt=8, max=64)]
    session = kiln.load(kiln.compile(path, ranges=ranges, verify_passes=True)).session()
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 37):
        x = rng.integers(0, 2, (count, 5, 2)).astype(dtype)
        x[1::3] = x[:1]  # some rows twice
        found = session.run(x)
        for i, (axis, is_sorted) in enumerate(kinds):
            if count == 0 and axis in (-2, 2):
                continue  # NumPy does not compare rows of no elements
            for y, want in zip(found[4 * i :], expected(x, axis, is_sorted), strict=False):
                assert y.dtype == want.dtype
                np.testing.assert_array_equal(y, want)
