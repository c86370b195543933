"""Compile an ONNX model for any batch size, and run it. Needs no PyTorch."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import kiln

random = np.random.default_rng(0)
weights = {
    "w1": random.standard_normal((16, 8), np.float32),
    "b1": random.standard_normal(16, np.float32),
    "w2": random.standard_normal((4, 16), np.float32),
}
graph = helper.make_graph(
    [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ],
    "classifier",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    [numpy_helper.from_array(value, name) for name, value in weights.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "classifier.onnx"
    onnx.save(model, path)
    # The same as: kiln compile classifier.onnx -o classifier.kiln --shape x=1..8..64,8
    engine = kiln.compile(path, ranges=[kiln.InputRange("x", 0, min=1, opt=8, max=64)])

session = kiln.load(engine).session()
for batch in (1, 8, 64):
    x = random.standard_normal((batch, 8), np.float32)
    (y,) = session.run(x)
    scores = np.maximum(x @ weights["w1"].T + weights["b1"], 0) @ weights["w2"].T
    expected = np.exp(scores - scores.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    error = np.abs(y - expected).max()
    print(f"batch {batch:2}: largest difference from NumPy {error:.1e}")
    assert error < 1e-5
