"""Files of ONNX: how tensors lie in them, sizes, functions, and files that are not what they seem."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import kiln  # noqa: E402

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(
    nodes: list[Any], inputs: list[Any], outputs: list[str], constants: Any = (), **options: Any
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        list(constants),
    )
    return helper.make_model(
        graph, opset_imports=options.pop("opsets", [helper.make_opsetid("", 21)]), **options
    )


def compiled(model: onnx.ModelProto, folder: Path, **options: Any) -> kiln.Session:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return kiln.load(kiln.compile(path, verify_passes=True, **options)).session()


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    with pytest.raises(kiln.KilnError) as caught:
        compiled(model, folder)
    assert not isinstance(caught.value, kiln.InternalError)
    return str(caught.value)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"]
)
def test_constants_of_every_type_keep_their_elements(tmp_path: Path, dtype: str, raw: bool) -> None:
    values = np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype)
    code = helper.np_dtype_to_tensor_dtype(values.dtype)
    data = values.tobytes() if raw else values.flatten().tolist()
    tensor = helper.make_tensor("c", code, values.shape, data, raw=raw)
    session = compiled(
        model_of([helper.make_node("Identity", ["c"], ["y"])], [], ["y"], [tensor]), tmp_path
    )
    (y,) = session.run()
    assert y.dtype == values.dtype
    np.testing.assert_array_equal(y, values)


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT8"])
def test_weights_of_blocks_stay_small(tmp_path: Path, kind: str) -> None:
    """[K, N] with a scale and a zero point for 32 of K."""
    low, high = {"INT4": (-8, 8), "UINT4": (0, 16), "INT8": (-128, 128)}[kind]
    dtype = getattr(TensorProto, kind)
    random_numbers = np.random.default_rng(0)
    weight = random_numbers.integers(low, high, (256, 320))
    zeros = random_numbers.integers(low, high, (8, 320)) // 2
    scales = random_numbers.uniform(0.01, 0.1, (8, 320)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    constants = [
        helper.make_tensor("w", dtype, weight.shape, weight.flatten().tolist()),
        helper.make_tensor("z", dtype, zeros.shape, zeros.flatten().tolist()),
        numpy_helper.from_array(scales, "s"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 256])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 320])
    graph = helper.make_graph(nodes, "blocks", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    rows = random_numbers.normal(size=(3, 256)).astype(np.float32)
    whole = (weight - np.repeat(zeros, 32, 0)) * np.repeat(scales, 32, 0).astype(np.float64)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    engine = kiln.compile(path)
    (got,) = kiln.load(engine).session().run(rows)
    expected = rows @ whole
    assert np.linalg.norm(got - expected) <= 1e-5 * np.linalg.norm(expected)
    assert len(bytes(engine)) < weight.size * (1 if kind == "INT8" else 0.5) + 64_000


def test_sizes_with_one_name_are_one_size(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [("a", FLOAT, ["n", 3]), ("b", FLOAT, ["n", 3])],
        ["y"],
    )
    session = compiled(model, tmp_path, ranges=[kiln.InputRange("b", 0, 1, 4, 16)])
    ones = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(session.run(ones, ones)[0], 2 * ones)
    with pytest.raises(kiln.KilnError):
        session.run(ones, ones[:4])
    with pytest.raises(kiln.OutOfRangeError):
        session.run(np.ones((17, 3), np.float32), np.ones((17, 3), np.float32))


def test_shapes_are_followed_through_arithmetic(tmp_path: Path) -> None:
    """[n, 4, 6] to [n * 2, 12], by way of Shape, Gather, Mul, Unsqueeze and Concat."""
    number = [
        numpy_helper.from_array(np.array(v, np.int64), k)
        for k, v in {"zero": 0, "two": 2, "axes": [0], "rest": [-1]}.items()
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Mul", ["n", "two"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows", "axes"], ["row"]),
        helper.make_node("Concat", ["row", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["y"]),
    ]
    session = compiled(model_of(nodes, [("x", FLOAT, ["n", 4, 6])], ["y"], number), tmp_path)
    x = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(session.run(x)[0], x.reshape(6, 12))


def test_functions_are_inlined_with_their_attributes(tmp_path: Path) -> None:
    reference = onnx.AttributeProto(
        name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT
    )
    leaky = helper.make_node("LeakyRelu", ["x"], ["y"])
    leaky.attribute.append(reference)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Sloped", ["x"], ["y"], [leaky], opsets[:1], ["slope"])
    model = model_of(
        [helper.make_node("Sloped", ["x"], ["y"], domain="mine", slope=0.5)],
        [("x", FLOAT, [2])],
        ["y"],
        opsets=opsets,
        functions=[function],
    )
    (y,) = compiled(model, tmp_path).run(np.array([-2, 2], np.float32))
    np.testing.assert_array_equal(y, [-1, 2])


def external(location: str, **entries: str) -> onnx.TensorProto:
    tensor = TensorProto(name="c", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def with_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model_of([helper.make_node("Identity", ["c"], ["y"])], [], ["y"], [tensor])


def test_external_data_lie_beside_the_model(tmp_path: Path) -> None:
    values = np.arange(8, dtype=np.float32)
    (tmp_path / "weights.bin").write_bytes(values.tobytes())
    model = with_constant(external("weights.bin", offset="8", length="16"))
    np.testing.assert_array_equal(compiled(model, tmp_path).run()[0], values[2:6])


@pytest.mark.parametrize(
    ("location", "entries", "expected"),
    [
        ("../secret.bin", {}, "within the model's folder"),
        ("inner/../../secret.bin", {}, "within the model's folder"),
        ("/etc/passwd", {}, "within the model's folder"),
        ("", {}, "within the model's folder"),
        ("link.bin", {}, "a file within"),
        ("missing.bin", {}, "cannot be read"),
        ("weights.bin", {"offset": "20"}, "16"),
        ("weights.bin", {"offset": "99999999999999999999"}, "a number"),
        ("weights.bin", {"offset": "-4"}, "a number"),
        ("weights.bin", {"offset": "8", "length": "16"}, "no more than the file has"),
        ("weights.bin", {"length": "12"}, "got 12 bytes, expected 16"),
    ],
)
def test_external_data_elsewhere_are_refused(
    tmp_path: Path, location: str, entries: dict[str, str], expected: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "weights.bin").write_bytes(bytes(16))
    assert expected in refusal(with_constant(external(location, **entries)), folder)


def broken(change: Any) -> onnx.ModelProto:
    model = model_of(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Add", ["a", "c"], ["y"], name="sum"),
        ],
        [("x", FLOAT, [2])],
        ["y"],
        [numpy_helper.from_array(np.ones(2, np.float32), "c")],
    )
    change(model)
    return model


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.graph.node[0].input.__setitem__(0, "y"), "unknown tensor y"),
        (lambda m: m.graph.node[1].output.__setitem__(0, "a"), "the name a twice"),
        (lambda m: m.graph.node[1].input.pop(), "no input 1"),
        (lambda m: m.graph.node[1].input.append("c"), "input 2"),
        (lambda m: m.graph.node[0].output.append("mask"), "a use of output 1"),
        (
            lambda m: m.graph.node[0].attribute.append(helper.make_attribute("fancy", 1)),
            "the attribute fancy",
        ),
        (
            lambda m: setattr(m.graph.node[0], "op_type", "Frobnicate"),
            "Frobnicate of ai.onnx, version 21: the operator is not supported",
        ),
        (lambda m: setattr(m.graph.node[0], "domain", "com.acme"), "com.acme"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "version 99"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 3), "8 bytes, expected 12"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -2), "the size -2"),
        (lambda m: m.graph.initializer[0].dims.extend([1 << 40, 1 << 40]), "2^48"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 17), "FLOAT8E4M3FN"),
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two initializers"),
        (lambda m: m.graph.input.append(m.graph.input[0]), "the input name"),
        (lambda m: m.graph.output.append(m.graph.output[0]), "the output name"),
        (lambda m: setattr(m.graph.output[0], "name", "nowhere"), "nowhere"),
        (
            lambda m: m.graph.value_info.append(helper.make_tensor_value_info("a", INT64, [2])),
            "INT64 as the model says",
        ),
        (
            lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", -1),
            "-1",
        ),
    ],
)
def test_a_broken_model_is_refused_with_what_is_wrong(
    tmp_path: Path, change: Any, expected: str
) -> None:
    assert expected in refusal(broken(change), tmp_path)


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("mine", 1)]
    call = helper.make_node("Again", ["x"], ["y"], domain="mine")
    function = helper.make_function("mine", "Again", ["x"], ["y"], [call], opsets)
    model = model_of([call], [("x", FLOAT, [2])], ["y"], opsets=opsets, functions=[function])
    assert "too deep" in refusal(model, tmp_path)


def test_damaged_files_are_refused_or_compiled_and_never_worse(tmp_path: Path) -> None:
    """Cut off at every length, and with bytes changed: an error, or a model that is another."""
    data = broken(lambda model: None).SerializeToString()
    path = tmp_path / "model.onnx"
    numbers = random.Random(0)
    files = [data[:length] for length in range(len(data))]
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(numbers.randint(1, 4)):
            damaged[numbers.randrange(len(data))] = numbers.choice(
                [0, 1, 0x7F, 0x80, 0xFF, numbers.randrange(256)]
            )
        files.append(bytes(damaged))
    refused = 0
    for content in files:
        path.write_bytes(content)
        try:
            model = kiln.Model.open(path)
            model.check()
        except kiln.InternalError as error:
            pytest.fail(f"{content!r}: {error}")
        except kiln.KilnError:
            refused += 1
    assert refused > len(data) // 2


def test_check_names_what_is_not_supported(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    change = broken(lambda m: setattr(m.graph.node[0], "op_type", "Frobnicate"))
    path.write_bytes(change.SerializeToString())
    first, second = kiln.Model.open(path).check()
    assert (first.name, first.target, first.supported) == ("a", "ai.onnx.Frobnicate", False)
    assert not second.supported
    assert "a" in second.reason


def test_an_engine_takes_the_weights_of_another_model(tmp_path: Path) -> None:
    def model(value: float) -> Path:
        path = tmp_path / f"{value}.onnx"
        weight = numpy_helper.from_array(np.full((3, 3), value, np.float32), "w")
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        path.write_bytes(
            model_of(nodes, [("x", FLOAT, ["n", 3])], ["y"], [weight]).SerializeToString()
        )
        return path

    engine = kiln.compile(model(1.0), refittable=True)
    refitted = kiln.load(kiln.refit(engine, model(2.0))).session()
    (y,) = refitted.run(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(y, np.full((2, 3), 6, np.float32))
    assert kiln.compile_key(model(1.0)) != kiln.compile_key(model(2.0))


def test_an_engine_is_written_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(broken(lambda model: None).SerializeToString())
    kiln.compile(path, output=tmp_path / "model.kiln")
    (y,) = kiln.load(tmp_path / "model.kiln").session().run(np.array([-1, 2], np.float32))
    np.testing.assert_array_equal(y, [1, 3])
