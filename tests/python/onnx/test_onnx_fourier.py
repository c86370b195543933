"""DFT and STFT beside NumPy's transforms, with lengths on both sides of what is one product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import kiln  # noqa: E402

CODES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
}
rng = np.random.default_rng(0)


def run(
    folder: Path, nodes: list[Any], x: np.ndarray, shape: list[Any], opset: int, constants: dict
) -> list[np.ndarray]:
    """The outputs y0, y1... of one model of many nodes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", CODES[str(x.dtype)], shape)],
        [onnx.ValueInfoProto(name=node.output[0]) for node in nodes],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    ranges = [kiln.InputRange("x", 1, min=9, opt=16, max=64)] if "n" in shape else []
    return kiln.load(kiln.compile(path, ranges=ranges, verify_passes=True)).session().run(x)


def pairs(x: np.ndarray) -> np.ndarray:
    return np.stack([x.real, x.imag], -1)


def check(found: list[np.ndarray], wanted: list[np.ndarray], dtype: str) -> None:
    assert len(found) == len(wanted)
    bound = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
    for y, expected in zip(found, wanted, strict=True):
        assert y.dtype == dtype and y.shape == expected.shape
        assert np.linalg.norm(y - expected) <= bound * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("opset", "shape", "sizes", "dtype"),
    [
        (17, (2, 9, 3), (2, 9, 3), "float32"),
        (20, (2, 16, 3), (2, "n", 3), "float32"),  # the length is a size of the input
        (20, (2, 9, 3), (2, "n", 3), "float32"),
        (20, (2, 131, 1), (2, 131, 1), "float32"),
        (20, (1, 8, 2), (1, 8, 2), "float16"),
        (20, (2, 66, 1), (2, 66, 1), "float64"),
    ],
)
def test_transforms(tmp_path: Path, opset: int, shape: Any, sizes: Any, dtype: str) -> None:
    x = rng.standard_normal((*shape, 2)).astype(dtype)
    nodes, wanted = [], []
    n = shape[1]
    constants = {"axis": np.int64(1), "short": np.int64(7), "long": np.int64(n + 4)}
    signal, real = x[..., 0] + 1j * x[..., 1].astype(np.float64), x[..., 0].astype(np.float64)
    constants |= {"zero": np.array([0]), "one": np.array([1]), "last": np.array([3])}
    before = [helper.make_node("Slice", ["x", "zero", "one", "last"], ["real"])]

    def add(source: str, length: str, expected: np.ndarray, **flags: int) -> None:
        inputs = [source, length]
        if opset < 20:
            flags["axis"] = -3  # of [batch, n, rest, parts]
        else:
            inputs.append("axis")
        nodes.append(helper.make_node("DFT", inputs, [f"y{len(nodes)}"], **flags))
        wanted.append(expected)

    for length, size in (("", n), ("short", 7), ("long", n + 4)):
        add("x", length, pairs(np.fft.fft(signal, size, 1)))
        add("x", length, pairs(np.fft.ifft(signal, size, 1)), inverse=1)
        add("real", length, pairs(np.fft.rfft(real, size, 1)), onesided=1)
        add("real", length, pairs(np.fft.fft(real, size, 1)))
        if length:
            wanted_real = np.fft.irfft(signal, size, 1)[..., None]
            add("x", length, wanted_real, inverse=1, onesided=1)
    if opset < 20:
        del constants["axis"]
    graph_nodes = before + nodes
    found = run(tmp_path, graph_nodes, x, [*sizes, 2], opset, constants)
    check(found[1:], wanted, dtype)


@pytest.mark.parametrize(
    ("length", "sizes"), [(37, (2, 37, 1)), (37, (2, "n", 1)), (16, (2, 16, 1))]
)
def test_transforms_of_windows(tmp_path: Path, length: int, sizes: Any) -> None:
    x = rng.standard_normal((2, length, 1)).astype(np.float32)
    window = np.hanning(9).astype(np.float32)
    constants = {"step": np.int64(4), "window": window, "size": np.int64(8)}
    nodes, wanted = [], []
    for inputs, taper in ((["window"], window), (["", "size"], np.ones(8))):
        for onesided in (0, 1):
            n = len(taper)
            starts = range(0, length - n + 1, 4)
            frames = np.stack([x[:, i : i + n, 0] * taper for i in starts], 1).astype(np.float64)
            wanted.append(pairs(np.fft.rfft(frames) if onesided else np.fft.fft(frames)))
            name = f"y{len(nodes)}"
            nodes.append(
                helper.make_node("STFT", ["x", "step", *inputs], [name], onesided=onesided)
            )
    check(run(tmp_path, nodes, x, list(sizes), 17, constants), wanted, "float32")


@pytest.mark.parametrize(
    ("width", "inputs", "flags", "text"),
    [
        (2, ["x"], {"onesided": 1}, "onesided = 1 and complex"),
        (3, ["x"], {}, "a last axis of 1 element"),
        (2, ["x", "", "last"], {}, "axis 2, the last one"),
        (2, ["x", "none"], {}, "dft_length 0"),
    ],
)
def test_what_is_no_transform(
    tmp_path: Path, width: int, inputs: Any, flags: Any, text: str
) -> None:
    x = np.ones((2, 9, width), np.float32)
    constants = {"last": np.int64(2), "none": np.int64(0)}
    node = helper.make_node("DFT", inputs, ["y0"], **flags)
    with pytest.raises(kiln.KilnError, match=text):
        run(tmp_path, [node], x, list(x.shape), 20, constants)
