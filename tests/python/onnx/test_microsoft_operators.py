"""Operators of com.microsoft beside their definitions in numpy, and beside ONNX Runtime, whose tools write them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_runtime import results_of_onnx_runtime  # noqa: E402

import kiln  # noqa: E402

DOMAIN = "com.microsoft"
CODES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
}
rng = np.random.default_rng(0)


def saved(
    folder: Path, operator: str, inputs: dict, constants: dict, outputs: int = 1, **attributes: Any
) -> Path:
    """A model of one operator; inputs and constants in the order given, None where one is left out."""
    names = list(inputs) + list(constants)
    given = {**inputs, **constants}
    domain = attributes.pop("domain", DOMAIN)
    node = helper.make_node(
        operator,
        [name if given[name] is not None else "" for name in names],
        ["" if i in (1, 2) else f"y{i}" for i in range(outputs)],
        domain=domain,
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [
            helper.make_tensor_value_info(name, CODES[str(x.dtype)], x.shape)
            for name, x in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [numpy_helper.from_array(x, name) for name, x in constants.items() if x is not None],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    return path


def results(path: Path, inputs: dict) -> list[np.ndarray]:
    engine = kiln.load(kiln.compile(path, verify_passes=True))
    return engine.session().run(*(inputs[info.name] for info in engine.inputs))


def packed(q: np.ndarray, bits: int) -> np.ndarray:
    """Rows of numbers in bytes, the first one lowest."""
    each = 8 // bits
    rows = np.zeros((q.shape[0], -(-q.shape[1] // each)), np.uint8)
    for i in range(q.shape[1]):
        rows[:, i // each] |= (q[:, i] << (i % each * bits)).astype(np.uint8)
    return rows


@pytest.mark.parametrize("zeros", ["none", "integers", "floats"])
@pytest.mark.parametrize(
    ("bits", "block", "k", "n", "rows", "dtype"),
    [
        (4, 32, 128, 64, 1, "float32"),
        (4, 16, 48, 7, 3, "float32"),
        (4, 32, 100, 33, 9, "float32"),  # the last block is not whole
        (4, 128, 128, 1, 0, "float32"),
        (4, 64, 64, 32, 70, "float16"),
        (4, 256, 32, 5, 2, "float32"),  # one block, larger than k
        (8, 32, 64, 40, 5, "float32"),
        (2, 32, 96, 16, 2, "float32"),
    ],
)
def test_products_with_weights_of_few_bits(tmp_path, bits, block, k, n, rows, dtype, zeros) -> None:
    blocks = -(-k // block)
    q = rng.integers(0, 2**bits, (n, blocks * block), dtype=np.uint8)
    scale = rng.uniform(0.01, 0.1, (n, blocks)).astype(dtype)
    points = {
        "none": np.full((n, blocks), 2 ** (bits - 1), np.uint8),
        "integers": rng.integers(0, 2**bits, (n, blocks), dtype=np.uint8),
        "floats": rng.uniform(0, 2**bits, (n, blocks)).astype(dtype),
    }[zeros]
    zero = None if zeros == "none" else points if zeros == "floats" else packed(points, bits)
    bias = rng.standard_normal(n).astype(dtype)
    exact = zeros != "floats"  # 4: ONNX Runtime may quantise x
    inputs = {"x": rng.standard_normal((rows, k)).astype(dtype)}
    constants = {
        "b": packed(q, bits).reshape(n, blocks, -1),
        "scales": scale.reshape(-1),
        "zeros": zero,
        "g_idx": None,
        "bias": bias,
    }
    path = saved(
        tmp_path, "MatMulNBits", inputs, constants, K=k, N=n, bits=bits, block_size=block,
        accuracy_level=1 if exact else 4,
    )  # fmt: skip
    weight = (q.astype(np.float64) - np.repeat(points.astype(np.float64), block, 1)) * np.repeat(
        scale.astype(np.float64), block, 1
    )
    expected = inputs["x"].astype(np.float64) @ weight[:, :k].T + bias.astype(np.float64)
    (y,) = results(path, inputs)
    assert y.dtype == dtype and y.shape == expected.shape
    bound = 1e-5 if dtype == "float32" else 1e-2
    assert np.linalg.norm(y - expected) <= bound * np.linalg.norm(expected)
    if exact and dtype == "float32" and rows > 0:
        (peer,) = results_of_onnx_runtime(path, inputs)
        assert np.linalg.norm(peer - expected) <= bound * np.linalg.norm(expected)


def test_weights_of_four_bits_stay_so(tmp_path) -> None:
    k, n = 512, 1024
    constants = {
        "b": rng.integers(0, 256, (n, k // 32, 16), dtype=np.uint8),
        "scales": np.ones(n * k // 32, np.float16),
    }
    inputs = {"x": np.ones((1, k), np.float16)}
    path = saved(tmp_path, "MatMulNBits", inputs, constants, K=k, N=n, bits=4, block_size=32)
    weights = k * n // 2 + 2 * k * n // 32
    engine = kiln.compile(path, targets="cpu:x86-64-v3")
    assert len(bytes(engine)) < 1.2 * weights + 100_000


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bits": 3}, "3 bits, expected 2, 4 or 8"),
        ({"block_size": 24}, "block_size = 24"),
        ({"K": 96}, "B of shape"),
    ],
)
def test_what_is_no_weight_of_few_bits(tmp_path, change, text) -> None:
    inputs = {"x": np.ones((1, 64), np.float32)}
    constants = {
        "b": np.zeros((8, 2, 16), np.uint8),
        "scales": np.ones(16, np.float32),
    }
    attributes = {"K": 64, "N": 8, "bits": 4, "block_size": 32} | change
    with pytest.raises(kiln.KilnError, match=text):
        results(saved(tmp_path, "MatMulNBits", inputs, constants, **attributes), inputs)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def fast_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: np.ndarray, eps: float) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def rms_norm(x: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


X = rng.standard_normal((2, 3, 16)) * 3
SKIP, BIAS, GAMMA, BETA = (rng.standard_normal(s) for s in ((2, 3, 16), (16,), (16,), (16,)))
W = rng.standard_normal((2, 3, 5))
# operator, inputs, outputs that are looked at, attributes, what they are
CASES = {
    "Gelu": ("Gelu", [X], {}, lambda: [gelu(X)]),
    "FastGelu": ("FastGelu", [X], {}, lambda: [fast_gelu(X)]),
    "FastGelu of a sum": ("FastGelu", [X, BIAS], {}, lambda: [fast_gelu(X + BIAS)]),
    "BiasGelu": ("BiasGelu", [X, BIAS], {}, lambda: [gelu(X + BIAS)]),
    "QuickGelu": ("QuickGelu", [X], {"alpha": 1.5}, lambda: [X / (1 + np.exp(-1.5 * X))]),
    "FusedMatMul": (
        "FusedMatMul",
        [X, W],
        {"alpha": 0.25, "transA": 1},
        lambda: [0.25 * X.swapaxes(1, 2) @ W],
    ),
    "FusedMatMul transposed": ("FusedMatMul", [X, SKIP], {"transB": 1}, lambda: [X @ SKIP.swapaxes(1, 2)]),
    "SkipLayerNormalization": (
        "SkipLayerNormalization",
        [X, SKIP, GAMMA, BETA, BIAS],
        {"epsilon": 1e-5},
        lambda: [layer_norm(X + SKIP + BIAS, 1e-5) * GAMMA + BETA, X + SKIP + BIAS],
    ),
    "SkipLayerNormalization of one row": (
        "SkipLayerNormalization",
        [X, SKIP[0], GAMMA],
        {},
        lambda: [layer_norm(X + SKIP[0], 1e-12) * GAMMA, X + SKIP[0]],
    ),
    "SkipSimplifiedLayerNormalization": (
        "SkipSimplifiedLayerNormalization",
        [X, SKIP, GAMMA, BIAS],
        {"epsilon": 1e-6},
        lambda: [rms_norm(X + SKIP + BIAS, 1e-6) * GAMMA, X + SKIP + BIAS],
    ),
    "SimplifiedLayerNormalization": (
        "SimplifiedLayerNormalization",
        [X, GAMMA],
        {"epsilon": 1e-6, "axis": -1, "stash_type": 1, "domain": ""},
        lambda: [rms_norm(X, 1e-6) * GAMMA],
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_operators_are_as_they_are_defined(tmp_path, name, dtype) -> None:
    operator, operands, attributes, function = CASES[name]
    inputs = {f"x{i}": x.astype(dtype) for i, x in enumerate(operands)}
    wanted = function()
    path = saved(tmp_path, operator, inputs, {}, 4 if len(wanted) == 2 else 1, **attributes)
    bound = 1e-5 if dtype == "float32" else 1e-2
    found = results(path, inputs)
    assert len(found) == len(wanted)
    for y, expected in zip(found, wanted, strict=True):
        assert y.dtype == dtype and y.shape == expected.shape
        assert np.linalg.norm(y - expected) <= bound * np.linalg.norm(expected)
    if dtype == "float32":  # CPUs have few of them for others
        for y, expected in zip(results_of_onnx_runtime(path, inputs), wanted, strict=True):
            assert np.linalg.norm(y - expected) <= bound * np.linalg.norm(expected)


@pytest.mark.parametrize("case", ["all", "words and places", "given places", "more words"])
def test_embeddings_are_added_and_normalised(case: str, tmp_path: Path) -> None:
    length = 9 if case == "more words" else 5
    words = rng.integers(0, 12, (2, length)).astype(np.int32)
    segments = (words % 2).astype(np.int32)
    tables = [rng.standard_normal((rows, 16)).astype(np.float32) for rows in (12, 7, 2)]
    gamma, beta = rng.standard_normal((2, 16)).astype(np.float32)
    mask = (words > 3).astype(np.int32)
    places = (words[:1] % 7).astype(np.int32)
    has_all, has_places = case == "all", case == "given places"
    given = {
        "words": words,
        "segments": segments if has_all else None,
        "word_table": tables[0],
        "place_table": tables[1],
        "segment_table": tables[2] if has_all else None,
        "gamma": gamma,
        "beta": beta,
        "mask": mask if has_all else None,
        "places": places if has_places else None,
    }
    inputs = {name: x for name, x in given.items() if x is not None}
    node = helper.make_node(
        "EmbedLayerNormalization",
        [name if x is not None else "" for name, x in given.items()],
        ["y", "counts", "sum"],
        domain=DOMAIN,
        epsilon=1e-5,
    )
    info = helper.make_tensor_value_info
    # no bound of n: the table of places may be too short
    sizes = {"places": [1, "n"]} | dict.fromkeys(("words", "segments", "mask"), ["b", "n"])
    graph = helper.make_graph(
        [node],
        "graph",
        [
            info(name, CODES[str(x.dtype)], sizes.get(name, x.shape))
            for name, x in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path.write_bytes(model.SerializeToString())
    if case == "more words":
        with pytest.raises(kiln.KilnError, match="EmbedLayerNormalization.*index"):
            results(path, inputs)
        return
    total = tables[0][words] + (tables[1][places] if has_places else tables[1][:length])
    if has_all:
        total = total + tables[2][segments]
    counts = mask.sum(1) if has_all else np.zeros(2, np.int32)
    wanted = [layer_norm(total, 1e-5) * gamma + beta, counts, total]
    for found in (results(path, inputs), results_of_onnx_runtime(path, inputs)):
        for y, expected in zip(found, wanted, strict=True):
            assert y.shape == expected.shape
            assert np.linalg.norm(y - expected) <= 1e-5 * np.linalg.norm(expected)
