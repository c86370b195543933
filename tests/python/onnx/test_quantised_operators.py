"""Operators on 8-bit numbers are kernels of integers, with the results that ONNX defines, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402

import kiln  # noqa: E402

rng = np.random.default_rng(1)


def numbers(dtype: type, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, size=shape).astype(dtype)


def compiled(
    folder: Path, operator: str, x: np.ndarray, constants: list[np.ndarray], **attributes: Any
) -> memoryview:
    """An engine of one operator: x, of any batch, and constants behind it."""
    names = ["x"] + [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(operator, names, ["y"], **attributes)
    code = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", code, ["batch", *x.shape[1:]])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(c, n) for n, c in zip(names[1:], constants, strict=True)],
    )
    path = folder / "model.onnx"
    opsets = [helper.make_opsetid("", 19)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    return kiln.compile(path, verify_passes=True)


def run(*args: Any, **attributes: Any) -> tuple[np.ndarray, set[str]]:
    """The result, and the precisions of the kernels that make it."""
    session = kiln.load(compiled(*args, **attributes)).session()
    session.enable_profiling(True)
    (y,) = session.run(args[2])
    return y, {kernel["precision"] for kernel in session.profile()}


def convolved(
    x: np.ndarray, w: np.ndarray, groups: int, pads: list[int], strides: list[int]
) -> np.ndarray:
    """Of integers, with zeros around them."""
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    sizes = [padded.shape[i + 2] - w.shape[i + 2] + 1 for i in range(2)]
    out = np.zeros((x.shape[0], w.shape[0], *sizes), np.int64)
    for o in range(w.shape[0]):
        first = o // (w.shape[0] // groups) * w.shape[1]
        for ky in range(w.shape[2]):
            for kx in range(w.shape[3]):
                part = padded[:, first : first + w.shape[1], ky : ky + sizes[0], kx : kx + sizes[1]]
                out[:, o] += np.einsum("bcyx,c->byx", part, w[o, :, ky, kx].astype(np.int64))
    return out[:, :, :: strides[0], :: strides[1]]


def requantised(sums: np.ndarray, ratio: np.ndarray, zero: np.ndarray) -> np.ndarray:
    info = np.iinfo(zero.dtype)
    steps = np.round(sums.astype(np.float32) * ratio.astype(np.float32))
    return np.clip(steps + zero, info.min, info.max).astype(zero.dtype)


@pytest.mark.parametrize("x_dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_qlinear_conv(tmp_path: Path, x_dtype: type, groups: int) -> None:
    x, w = numbers(x_dtype, 2, 12, 7, 9), numbers(np.int8, 24, 12 // groups, 3, 3)
    x_zero = np.array(7, x_dtype)
    scales = (np.arange(24) + 1).astype(np.float32) / 1024
    bias = rng.integers(-5000, 5000, size=24).astype(np.int32)
    y_scale, y_zero = np.float32(16), np.array(11, x_dtype)
    constants = [np.float32(0.5), x_zero, w, scales, np.zeros(24, np.int8), y_scale, y_zero, bias]
    y, precisions = run(tmp_path, "QLinearConv", x, constants, group=groups, pads=[1, 1, 1, 1])
    sums = convolved(x.astype(np.int64) - x_zero, w, groups, [1] * 4, [1, 1]) + bias[:, None, None]
    np.testing.assert_array_equal(
        y, requantised(sums, (0.5 * scales / y_scale)[:, None, None], y_zero)
    )
    assert "u8" in precisions or groups == 12, precisions  # depthwise: a nest


@pytest.mark.parametrize("seed", range(10))
def test_random_convolutions_in_every_program(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = int(random.choice([1, 1, 2, 9, 33]))  # depthwise, narrow and wide
    channels = groups * (int(random.integers(1, 4)) if groups > 1 else int(random.integers(1, 70)))
    filters = groups * int(random.integers(1, 4)) if groups > 1 else int(random.integers(1, 70))
    kernel, strides = random.integers(1, 4, 2).tolist(), random.integers(1, 3, 2).tolist()
    pads = [int(random.integers(0, size)) for size in kernel * 2]
    sizes = random.integers(3, 40, 2)
    x_dtype = [np.uint8, np.int8][seed % 2]
    x = numbers(x_dtype, int(random.integers(1, 4)), channels, *sizes)
    w = numbers(np.int8, filters, channels // groups, *kernel)
    zeros = [np.array(random.integers(0, 128), x_dtype) for _ in range(2)]
    scales = (random.integers(1, 2**12, filters) / 2**20).astype(np.float32)
    w_zeros = np.zeros(filters, np.int8)
    bias = random.integers(-5000, 5000, size=filters).astype(np.int32)
    constants = [np.float32(1), zeros[0], w, scales, w_zeros, np.float32(1), zeros[1], bias]
    attributes = {"group": groups, "pads": pads, "strides": strides}
    engine = compiled(tmp_path, "QLinearConv", x, constants, **attributes)
    sums = convolved(x.astype(np.int64) - zeros[0], w, groups, pads, strides)
    expected = requantised(sums + bias[:, None, None], scales[:, None, None], zeros[1])
    programs = [p["variant"] for p in kiln.inspect(engine)["programs"] if p["runs_here"]]
    assert programs
    for program in programs:
        session = kiln.load(engine, target="cpu:" + program).session(num_threads=2)
        np.testing.assert_array_equal(session.run(x)[0], expected, err_msg=program)


@pytest.mark.parametrize("steps", [33, 700])  # below and above what sums of f32 hold exactly
@pytest.mark.parametrize("w_zero", [np.int8(0), np.int8(-9), np.uint8(130)])
def test_matmul_integer(tmp_path: Path, steps: int, w_zero: Any) -> None:
    a, b = numbers(np.uint8, 5, steps), numbers(type(w_zero), steps, 40)
    a_zero = np.array(131, np.uint8)
    y, precisions = run(tmp_path, "MatMulInteger", a, [b, a_zero, np.array(w_zero)])
    expected = (a.astype(np.int64) - a_zero) @ (b.astype(np.int64) - int(w_zero))
    np.testing.assert_array_equal(y, expected)
    assert "u8" in precisions, precisions


def test_qlinear_matmul(tmp_path: Path) -> None:
    a, b = numbers(np.int8, 5, 400), numbers(np.int8, 400, 40)
    zeros = [np.array(z, np.int8) for z in (3, 0, -20)]
    scale, y_scale = np.float32(1 / 64), np.float32(4)
    constants = [scale, zeros[0], b, scale, zeros[1], y_scale, zeros[2]]
    y, precisions = run(tmp_path, "QLinearMatMul", a, constants)
    sums = (a.astype(np.int64) - 3) @ b.astype(np.int64)
    np.testing.assert_array_equal(y, requantised(sums, scale * scale / y_scale, zeros[2]))
    assert "u8" in precisions, precisions


def test_conv_integer(tmp_path: Path) -> None:
    x, w = numbers(np.uint8, 2, 8, 6, 7), numbers(np.int8, 20, 8, 3, 3)
    y, precisions = run(tmp_path, "ConvInteger", x, [w, np.array(128, np.uint8)], pads=[1, 1, 1, 1])
    np.testing.assert_array_equal(y, convolved(x.astype(np.int64) - 128, w, 1, [1] * 4, [1, 1]))
    assert "u8" in precisions, precisions
