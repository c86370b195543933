"""Loops of ONNX models: Loop, Scan and NonMaxSuppression."""

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


def test_a_loop_has_rows_of_as_many_steps_as_it_makes(tmp_path: Path) -> None:
    # Three loops: as many steps as a tensor says, as many as an input has rows, and until a value is large.
    def step(letter: str, *condition: Any) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Add", [f"{letter}_y", "x"], [f"{letter}_next"]),
            helper.make_node("Cast", [f"{letter}_i"], [f"{letter}_number"], to=FLOAT),
            helper.make_node("Mul", [f"{letter}_y", f"{letter}_number"], [f"{letter}_row"]),
            # a shape of the graph around it, which depends on sizes alone
            helper.make_node("Reshape", [f"{letter}_row", "flat"], [f"{letter}_flat"]),
            *condition,
        ]
        value = helper.make_tensor_value_info
        return helper.make_graph(
            nodes,
            letter,
            [
                value(f"{letter}_i", INT64, []),
                value(f"{letter}_go", BOOL, []),
                value(f"{letter}_y", FLOAT, ["n", 3]),
            ],
            [
                value(f"{letter}_again" if condition else f"{letter}_go", BOOL, []),
                value(f"{letter}_next", FLOAT, ["n", 3]),
                value(f"{letter}_flat", FLOAT, [None]),
                value(f"{letter}_i", INT64, []),
            ],
        )

    ends = [
        helper.make_node("ReduceMax", ["c_next"], ["c_most"], keepdims=0),
        helper.make_node("Less", ["c_most", "limit"], ["c_again"]),
    ]
    session, model = compiled(
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("ReduceProd", ["shape"], ["flat"], keepdims=1),
            helper.make_node("Shape", ["z"], ["rows"]),
            helper.make_node("Squeeze", ["rows"], ["many"]),
            helper.make_node("Loop", ["steps", "go", "x"], ["a", "a_0", "a_1"], body=step("a")),
            helper.make_node("Loop", ["many", "", "x"], ["b", "b_0", "b_1"], body=step("b")),
            helper.make_node("Loop", ["most", "", "x"], ["c", "c_0", "c_1"], body=step("c", *ends)),
        ],
        [("x", FLOAT, ["n", 3]), ("z", FLOAT, ["k"]), ("steps", INT64, []), ("go", BOOL, [])],
        [
            (f"{loop}{end}", *kind)
            for loop in "abc"
            for end, kind in (
                ("", (FLOAT, ["n", 3])),
                ("_0", (FLOAT, [None, None])),
                ("_1", (INT64, [None])),
            )
        ],
        {"limit": np.float32(50), "most": np.int64(2**62)},
        tmp_path,
    )
    for rows, k, steps, go in (
        (2, 1, 5, True),
        (1, 300, 200, True),
        (3, 7, 0, True),
        (2, 2, -4, True),
        (2, 2, 3, False),
    ):
        inputs = {
            "x": np.random.rand(rows, 3).astype(np.float32) + 0.1,
            "z": np.zeros(k, np.float32),
            "steps": np.int64(steps),
            "go": np.bool_(go),
        }
        found = session.run(*inputs.values())
        expected: list[np.ndarray] = []
        for count, limit in ((max(steps, 0) * go, np.inf), (k, np.inf), (2**62, 50)):
            y, flat = inputs["x"], []
            while len(flat) < count and (not flat or y.max() < limit):
                flat.append((y * len(flat)).reshape(-1))
                y = y + inputs["x"]
            shape = (len(flat), rows * 3)
            expected += [y, np.array(flat, np.float32).reshape(shape), np.arange(len(flat))]
        for got, want in zip(found, expected, strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 300])
def test_a_number_of_steps_that_folds(steps: int, tmp_path: Path) -> None:
    step = body(
        [helper.make_node("Add", ["y", "x"], ["next"])],
        ("go", BOOL, []),
        ("next", FLOAT, [2, 3]),
        ("y", FLOAT, [2, 3]),
    )
    session, _ = compiled(
        [
            helper.make_node("Div", ["width", "each"], ["ratio"]),
            helper.make_node("Ceil", ["ratio"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["steps"], to=INT64),
            helper.make_node("Loop", ["steps", "", "x"], ["out", "rows"], body=step),
        ],
        [("x", FLOAT, [2, 3])],
        [("out", FLOAT, [2, 3]), ("rows", FLOAT, [steps, 2, 3])],  # no size is left open
        {"width": np.float32(steps - 0.5 if steps else 0), "each": np.float32(1)},
        tmp_path,
    )
    x = np.ones((2, 3), np.float32)
    out, rows = session.run(x)
    np.testing.assert_array_equal(out, x * (steps + 1))
    np.testing.assert_array_equal(rows, np.arange(1, steps + 1).reshape(-1, 1, 1) * x)


def scan_body() -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [
            helper.make_node("Mul", ["s", "decay"], ["kept"]),  # decay and bias are around it
            helper.make_node("Add", ["kept", "row"], ["sum"]),
            helper.make_node("Add", ["sum", "bias"], ["s_next"]),
            helper.make_node("Add", ["count", "by"], ["count_next"]),
            helper.make_node("Mul", ["s_next", "factor"], ["out"]),
            helper.make_node("Identity", ["count_next"], ["number"]),
        ],
        "body",
        [
            value("s", FLOAT, ["n"]),
            value("count", INT64, []),
            value("row", FLOAT, ["n"]),
            value("factor", FLOAT, []),
        ],
        [
            value("s_next", FLOAT, ["n"]),
            value("count_next", INT64, []),
            value("out", FLOAT, ["n"]),
            value("number", INT64, []),
        ],
        [numpy_helper.from_array(np.int64(3), "by")],
    )


@pytest.mark.parametrize("steps", [0, 3, 200, "t"])
@pytest.mark.parametrize(
    ("axes", "directions", "out_axes", "out_directions"),
    [
        (None, None, None, None),
        ([1, 0], [0, 1], [1, 0], [1, 0]),
        ([-1, -1], [1, 0], [-1, -1], [1, 1]),
    ],
)
def test_a_scan(steps, axes, directions, out_axes, out_directions, tmp_path: Path) -> None:
    given = {
        "scan_input_axes": axes,
        "scan_input_directions": directions,
        "scan_output_axes": out_axes,
        "scan_output_directions": out_directions,
    }
    axis, back = (axes or [0, 0])[0], (directions or [0, 0])
    session, model = compiled(
        [
            helper.make_node("Neg", ["shift"], ["bias"]),
            helper.make_node(
                "Scan",
                ["first", "zero", "x", "factors"],
                ["last", "count", "outs", "numbers"],
                num_scan_inputs=2,
                body=scan_body(),
                **{name: value for name, value in given.items() if value is not None},
            ),
        ],
        [
            ("first", FLOAT, ["n"]),
            ("zero", INT64, []),
            ("x", FLOAT, [steps, "n"] if axis == 0 else ["n", steps]),
            ("factors", FLOAT, [steps]),
            ("shift", FLOAT, ["n"]),
        ],
        [
            ("last", FLOAT, ["n"]),
            ("count", INT64, []),
            ("outs", FLOAT, [None, None]),
            ("numbers", INT64, [None]),
        ],
        {"decay": np.float32(0.5)},
        tmp_path,
    )
    for n, length in ((1, steps), (4, steps)) if steps != "t" else ((4, 1), (2, 7), (3, 150)):
        rows, factors = np.random.rand(length, n), np.random.rand(length)
        first, shift = np.random.rand(n), np.random.rand(n)
        inputs = [
            first.astype(np.float32),
            np.int64(10),
            np.ascontiguousarray(rows if axis == 0 else rows.T).astype(np.float32),
            factors.astype(np.float32),
            shift.astype(np.float32),
        ]
        state, outs = first, []
        for row, factor in zip(
            rows[::-1] if back[0] else rows, factors[::-1] if back[1] else factors, strict=True
        ):
            state = state * 0.5 + row - shift
            outs.append(state * factor)
        numbers = np.arange(13, 13 + 3 * length, 3)
        result = np.array(outs).reshape(length, n)
        if (out_directions or [0])[0]:
            result = result[::-1]
        if (out_axes or [0])[0]:
            result = result.T
        if (out_directions or [0, 0])[1]:
            numbers = numbers[::-1]
        found = session.run(*inputs)
        for got, want in zip(found, [state, 10 + 3 * length, result, numbers], strict=True):
            assert got.shape == np.shape(want)
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_scans_in_each_other(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [
            helper.make_node("Add", ["inner_s", "element"], ["plain"]),
            helper.make_node("Add", ["plain", "s"], ["inner_next"]),  # s is of the outer body
        ],
        "inner",
        [value("inner_s", FLOAT, []), value("element", FLOAT, [])],
        [value("inner_next", FLOAT, []), value("inner_next", FLOAT, [])],
    )
    outer = helper.make_graph(
        [
            helper.make_node(
                "Scan", ["s", "row"], ["s_next", "row_out"], num_scan_inputs=1, body=inner
            )
        ],
        "outer",
        [value("s", FLOAT, []), value("row", FLOAT, ["m"])],
        [value("s_next", FLOAT, []), value("row_out", FLOAT, ["m"])],
    )
    session, _ = compiled(
        [helper.make_node("Scan", ["zero", "x"], ["last", "y"], num_scan_inputs=1, body=outer)],
        [("x", FLOAT, ["n", "m"])],
        [("last", FLOAT, []), ("y", FLOAT, ["n", "m"])],
        {"zero": np.float32(0.5)},
        tmp_path,
    )
    for shape in ((1, 1), (3, 5)):
        x = np.random.rand(*shape).astype(np.float32) - 0.5
        s, rows = np.float64(0.5), np.zeros(shape)
        for i in range(shape[0]):
            start = s
            for j in range(shape[1]):
                s = s + x[i, j] + start
                rows[i, j] = s
        last, y = session.run(x)
        np.testing.assert_allclose(last, s, rtol=1e-5)
        np.testing.assert_allclose(y, rows, rtol=1e-5)


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
