"""ONNX models whose shapes and attributes do not fit each other end with an error, before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln

onnx = pytest.importorskip("onnx")
F32, I64, I8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT8
MICROSOFT = "com.microsoft"


def compile_node(
    folder: Path,
    node: Any,
    inputs: dict[str, tuple[int, Any]],
    constants: dict[str, Any] | None = None,
) -> bytes:
    """An engine of one node; inputs are a type and a shape, outputs have shapes of their own."""
    helper = onnx.helper
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()],
        [
            helper.make_tensor_value_info(
                name, I8 if node.op_type == "QuantizeLinear" else F32, None
            )
            for name in node.output
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return kiln.compile(path)


def make(*args: Any, **attributes: Any) -> Any:
    return onnx.helper.make_node(*args, **attributes)


HEADS, PAST = (F32, [1, 4, 3, 2]), (F32, [1, 4, 2, 2])
SCALES = np.ones((4, 3), np.float32)
CASES = {
    "an index that is larger than what it is for": (
        make("GatherElements", ["x", "i"], ["y"], axis=1),
        {"x": (F32, [2, 3]), "i": (I64, [5, 3])},
        {},
        "dimension 0 of .* no larger than that of x",
    ),
    "an index that is larger than its source": (
        make("ScatterElements", ["x", "i", "s"], ["y"], axis=1),
        {"x": (F32, [5, 3]), "i": (I64, [5, 3]), "s": (F32, [2, 3])},
        {},
        "no larger than that of s",
    ),
    "an index that is larger than what is written to": (
        make("ScatterElements", ["x", "i", "s"], ["y"], axis=1),
        {"x": (F32, [2, 3]), "i": (I64, [5, 3]), "s": (F32, [5, 3])},
        {},
        "no larger than that of x",
    ),
    "a zero point of another rank, quantize": (
        make("QuantizeLinear", ["x", "s", "z"], ["y"], axis=1, block_size=2),
        {"x": (F32, [4, 6])},
        {"s": SCALES, "z": np.zeros((), np.int8)},
        r"zero point of shape \[\], expected rank 2",
    ),
    "a zero point of another rank, dequantize": (
        make("DequantizeLinear", ["x", "s", "z"], ["y"], axis=1, block_size=2),
        {"x": (I8, [4, 6])},
        {"s": SCALES, "z": np.zeros((), np.int8)},
        r"zero point of shape \[\], expected rank 2",
    ),
    "a negative block": (
        make("DequantizeLinear", ["x", "s"], ["y"], axis=1, block_size=-2),
        {"x": (I8, [4, 6])},
        {"s": SCALES},
        "block_size -2, expected 0 or more",
    ),
    "keys without heads": (
        make("Attention", ["q", "k", "v"], ["y"]),
        {"q": HEADS, "k": (F32, [1, 0, 3, 2]), "v": (F32, [1, 0, 3, 2])},
        {},
        "keys without heads",
    ),
    "a past key of another rank": (
        make("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "a", "b"]),
        {"q": HEADS, "k": HEADS, "v": HEADS, "pk": (F32, [1, 4]), "pv": PAST},
        {},
        r"a past of shape \[1, 4\], expected rank 4",
    ),
    "lengths of another rank": (
        make("Attention", ["q", "k", "v", "", "", "", "l"], ["y"]),
        {"q": HEADS, "k": HEADS, "v": HEADS, "l": (I64, [1, 1])},
        {},
        r"lengths of shape \[1, 1\], expected rank 1",
    ),
    "a past value of another rank": (
        make("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "a", "b"]),
        {"q": HEADS, "k": HEADS, "v": HEADS, "pk": PAST, "pv": (F32, [2])},
        {},
        r"a past of shape \[2\], expected rank 4",
    ),
    "fewer past values than keys": (
        make(
            "GroupQueryAttention",
            ["q", "k", "v", "pk", "pv", "l", "t"],
            ["y", "a", "b"],
            num_heads=4,
            kv_num_heads=2,
            domain=MICROSOFT,
        ),
        {
            "q": (F32, [1, 1, 8]),
            "k": (F32, [1, 1, 4]),
            "v": (F32, [1, 1, 4]),
            "pk": (F32, [1, 2, 8, 2]),
            "pv": (F32, [1, 2, 4, 2]),
            "l": (onnx.TensorProto.INT32, [1]),
        },
        {"t": np.array([3], np.int32)},
        "as many past keys as values",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit(name: str, tmp_path: Path) -> None:
    node, inputs, constants, expected = CASES[name]
    with pytest.raises(kiln.UnsupportedError, match=expected):
        compile_node(tmp_path, node, inputs, constants)


def test_sizes_that_a_call_decides(tmp_path: Path) -> None:
    """Reading and writing behind the end of a tensor would be the alternative."""
    gather = kiln.load(
        compile_node(
            tmp_path,
            make("GatherElements", ["x", "i"], ["y"], axis=1),
            {"x": (F32, ["a", 3]), "i": (I64, ["b", 3])},
        )
    ).session()
    x, index = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([[2, 0, 1]] * 4)
    for rows in (1, 3, 4):
        (y,) = gather.run(x, index[:rows])
        assert np.array_equal(y, np.take_along_axis(x[:rows], index[:rows], 1))
    for rows in (1, 3):
        with pytest.raises(kiln.KilnError, match="no larger than that of x"):
            gather.run(x[:rows], index)
    scatter = kiln.load(
        compile_node(
            tmp_path,
            make("ScatterElements", ["x", "i", "s"], ["y"], axis=1),
            {"x": (F32, ["a", 3]), "i": (I64, ["b", 3]), "s": (F32, ["c", 3])},
        )
    ).session()
    (y,) = scatter.run(x, index[:2], -x[:3])
    expected = x.copy()
    np.put_along_axis(expected[:2], index[:2], -x[:2], 1)
    assert np.array_equal(y, expected)
    with pytest.raises(kiln.KilnError, match="no larger than that of s"):
        scatter.run(x, index, -x[:3])
    with pytest.raises(kiln.KilnError, match="no larger than that of x"):
        scatter.run(x[:1], index[:2], -x[:3])
