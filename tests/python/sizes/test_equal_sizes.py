"""Sizes with names of their own that an operator needs to be equal: one engine, which compares them at every call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_small import compile_all, engines_of, torch_operators_of

import kiln
import torch_tensorrt
from torch_tensorrt import Input


class Attention(torch.nn.Module):
    """PyTorch records no condition on the lengths of keys and values."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).relu() + 1


def lengths(low: int, high: int) -> Input:
    return Input(min_shape=(1, 2, low, 8), opt_shape=(1, 2, high, 8), max_shape=(1, 2, high, 8))


def attention_operands(keys: int, values: int) -> list[torch.Tensor]:
    torch.manual_seed(keys)
    return [torch.randn(1, 2, length, 8) for length in (4, keys, values)]


@pytest.mark.parametrize(
    ("keys", "values", "fit", "wrong"),
    [
        ((1, 8), (1, 8), (1, 2, 7, 8), [(4, 5), (8, 7), (1, 8), (9, 9)]),
        ((1, 8), (4, 16), (4, 8), [(4, 5), (3, 3), (9, 9), (8, 16)]),
        ((3, 8), (5, 5), (5,), [(4, 5), (6, 5), (5, 4)]),
        ((6, 6), (2, 9), (6,), [(6, 5), (6, 9)]),
        ((2, 8), (8, 9), (8,), [(7, 8), (8, 9), (9, 9)]),  # one size is left
    ],
)
def test_keys_and_values_of_their_own_lengths(keys, values, fit, wrong) -> None:
    module = Attention().eval()
    compiled = compile_all(module, Input((1, 2, 4, 8)), lengths(*keys), lengths(*values))
    assert len(engines_of(compiled)) == 1 and not torch_operators_of(compiled)
    for length in fit:
        operands = attention_operands(length, length)
        torch.testing.assert_close(compiled(*operands), module(*operands))
    for pair in wrong:
        with pytest.raises(RuntimeError, match="expected"):
            compiled(*attention_operands(*pair))


def test_the_error_names_both_inputs(tmp_path: Path) -> None:
    program = torch_tensorrt.dynamo.trace(
        Attention().eval(), arg_inputs=[Input((1, 2, 4, 8)), lengths(1, 8), lengths(1, 8)]
    )
    torch.export.save(program, tmp_path / "model.pt2")
    session = kiln.load(kiln.compile(tmp_path / "model.pt2", verify_passes=True)).session()
    operands = [each.numpy() for each in attention_operands(4, 5)]
    with pytest.raises(kiln.KilnError, match=r'"v".*got 5, expected 4'):
        session.run(*operands)
    (y,) = session.run(*(each.numpy() for each in attention_operands(3, 3)))
    torch.testing.assert_close(torch.from_numpy(y), Attention()(*attention_operands(3, 3)))


def test_lengths_that_never_meet_stay_in_torch() -> None:
    compiled = torch_tensorrt.compile(
        Attention().eval(),
        inputs=[Input((1, 2, 4, 8)), lengths(2, 4), lengths(5, 8)],
        min_block_size=1,
    )
    assert any("attention" in name for name in torch_operators_of(compiled))


# node, attributes, shapes of the inputs, ranges of a size, shapes that fit, and those that do not
ONNX_CASES: dict[str, tuple[Any, ...]] = {
    "inner": ("MatMul", {}, [("a", "b"), ("c", "d")], (1, 9), [(3, 4), (4, 2)], [(3, 4), (5, 2)]),
    "batch": (
        "MatMul",
        {},
        [("a", 3, 2), ("b", 2, 3)],
        (2, 9),
        [(5, 3, 2), (5, 2, 3)],
        [(5, 3, 2), (4, 2, 3)],
    ),
    "gemm": ("Gemm", {}, [("a", "b"), ("c", 2)], (0, 9), [(3, 4), (4, 2)], [(3, 4), (5, 2)]),
    "weight": ("MatMul", {}, [("a", "b"), (4, 2)], (0, 9), [(3, 4), (4, 2)], [(3, 5), (4, 2)]),
    "concat": (
        "Concat",
        {"axis": 1},
        [("a", "b"), ("c", "d"), ("e", 3)],
        (0, 9),
        [(4, 2), (4, 5), (4, 3)],
        [(4, 2), (4, 5), (5, 3)],
    ),
    "sum": ("Add", {}, [("a", "b"), ("c", "d")], (2, 9), [(3, 4), (3, 4)], [(3, 4), (3, 5)]),
    "row": ("Mul", {}, [("a", "b"), ("c",)], (2, 9), [(3, 4), (4,)], [(3, 4), (5,)]),
}


def onnx_model(operator: str, attributes: dict[str, Any], shapes: list[Any], path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    names = [f"x{i}" for i in range(len(shapes))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, names, ["y"], **attributes)],
        "graph",
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in zip(names, shapes, strict=True)
        ],
        [onnx.ValueInfoProto(name="y")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    path.write_bytes(model.SerializeToString())
    return path


def ranges_of(shapes: list[Any], low: int, high: int) -> list[kiln.InputRange]:
    return [
        kiln.InputRange(f"x{i}", axis, low, low, high)
        for i, shape in enumerate(shapes)
        for axis, size in enumerate(shape)
        if isinstance(size, str)
    ]


REFERENCES: dict[str, Any] = {
    "MatMul": np.matmul,
    "Gemm": np.matmul,
    "Concat": lambda *parts: np.concatenate(parts, 1),
    "Add": np.add,
    "Mul": np.multiply,
}


@pytest.mark.parametrize("case", ONNX_CASES)
def test_onnx_sizes_of_different_names(case: str, tmp_path: Path) -> None:
    operator, attributes, shapes, (low, high), fit, wrong = ONNX_CASES[case]
    path = onnx_model(operator, attributes, shapes, tmp_path / "model.onnx")
    engine = kiln.compile(path, ranges=ranges_of(shapes, low, high), verify_passes=True)
    session = kiln.load(engine).session()
    numbers = np.random.default_rng(0)
    given = [numbers.standard_normal(shape).astype(np.float32) for shape in fit]
    (y,) = session.run(*given)
    np.testing.assert_allclose(y, REFERENCES[operator](*given), rtol=1e-5, atol=1e-6)
    with pytest.raises(kiln.KilnError, match=r"got \d, expected \d"):
        session.run(*(np.zeros(shape, np.float32) for shape in wrong))


def test_a_size_that_may_be_1_is_not_taken_for_another(tmp_path: Path) -> None:
    # (1, 4) + (3, 4) is (3, 4): neither size is the result's for every call.
    shapes = [("a", 4), ("b", 4)]
    path = onnx_model("Add", {}, shapes, tmp_path / "model.onnx")
    with pytest.raises(kiln.KilnError, match="expected sizes that are equal or 1"):
        kiln.compile(path, ranges=ranges_of(shapes, 1, 9))
