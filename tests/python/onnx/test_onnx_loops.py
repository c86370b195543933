"""Loops of ONNX models: Loop and NonMaxSuppression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import kiln  # noqa: E402

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def compiled(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Any, folder: Path
) -> tuple[kiln.Session, onnx.ModelProto]:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return kiln.load(kiln.compile(path, verify_passes=True)).session(), model


def body(nodes: list[Any], *outputs: Any) -> onnx.GraphProto:
    values = [
        helper.make_tensor_value_info(*each)
        for each in (("i", INT64, []), ("go", BOOL, []), ("y", FLOAT, ["n", 3]))
    ]
    results = [helper.make_tensor_value_info(*each) for each in outputs]
    return helper.make_graph(nodes, "body", values, results)


def test_a_loop_ends_by_its_number_or_its_condition(tmp_path: Path) -> None:
    step = body(
        [
            helper.make_node("Add", ["y", "x"], ["sum"]),  # x and limit are of the graph around it
            helper.make_node("Cast", ["i"], ["number"], to=FLOAT),
            helper.make_node("Add", ["sum", "number"], ["next"]),
            helper.make_node("ReduceMax", ["next"], ["most"], keepdims=0),
            helper.make_node("Less", ["most", "limit"], ["again"]),
        ],
        ("again", BOOL, []),
        ("next", FLOAT, ["n", 3]),
    )
    session, model = compiled(
        [helper.make_node("Loop", ["steps", "true", "x"], ["out"], body=step)],
        [("x", FLOAT, ["n", 3]), ("steps", INT64, [])],
        [("out", FLOAT, ["n", 3])],
        {"limit": np.float32(50), "true": np.array(True)},
        tmp_path,
    )
    for rows, steps in ((2, 5), (4, 100), (3, 0), (1, 1)):
        inputs = {"x": np.random.rand(rows, 3).astype(np.float32), "steps": np.int64(steps)}
        expected = ReferenceEvaluator(model).run(None, inputs)
        np.testing.assert_allclose(session.run(*inputs.values())[0], expected[0], rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 128])
def test_a_loop_of_few_steps_has_rows_of_each(steps: int, tmp_path: Path) -> None:
    step = body(
        [
            helper.make_node("Add", ["y", "x"], ["next"]),
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Mul", ["next", "next"], ["square"]),
        ],
        ("again", BOOL, []),
        ("next", FLOAT, ["n", 3]),
        ("square", FLOAT, ["n", 3]),
    )
    session, _ = compiled(
        [helper.make_node("Loop", ["steps", "", "x"], ["out", "rows"], body=step)],
        [("x", FLOAT, ["n", 3])],
        [("out", FLOAT, ["n", 3]), ("rows", FLOAT, [steps, "n", 3])],
        {"steps": np.int64(steps)},
        tmp_path,
    )
    x = np.random.rand(2, 3).astype(np.float32)
    out, rows = session.run(x)
    np.testing.assert_allclose(out, x * (steps + 1), rtol=1e-4)
    factors = np.arange(2, steps + 2, dtype=np.float32).reshape(-1, 1, 1)
    np.testing.assert_allclose(rows, (x * factors) ** 2, rtol=1e-4)


@pytest.mark.parametrize("by_center", [0, 1])
def test_suppression_of_boxes(by_center: int, tmp_path: Path) -> None:
    session, model = compiled(
        [
            helper.make_node(
                "NonMaxSuppression",
                ["boxes", "scores", "most", "overlap", "least"],
                ["out"],
                center_point_box=by_center,
            )
        ],
        [("boxes", FLOAT, [2, "n", 4]), ("scores", FLOAT, [2, 3, "n"])],
        [("out", INT64, [None, 3])],
        {
            "most": np.array([4]),
            "overlap": np.array([0.4], np.float32),
            "least": np.array([0.2], np.float32),
        },
        tmp_path,
    )
    for count in (1, 2, 20, 60):
        corner = np.random.rand(2, count, 2) * 4
        boxes = np.concatenate([corner, corner + np.random.rand(2, count, 2) * 3], 2)
        inputs = {
            "boxes": boxes.astype(np.float32),
            "scores": np.random.rand(2, 3, count).astype(np.float32),
        }
        (expected,) = ReferenceEvaluator(model).run(None, inputs)
        np.testing.assert_array_equal(session.run(*inputs.values())[0], expected)
