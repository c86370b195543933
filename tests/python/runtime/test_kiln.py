"""The package `kiln`: compiling, loading and running with NumPy alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models_small import Mlp

import kiln
from kiln import _library


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """What torch.export wrote: the only thing here that comes from torch."""
    path = tmp_path_factory.mktemp("kiln") / "mlp.pt2"
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    torch.manual_seed(0)
    program = torch.export.export(
        Mlp().eval(), (torch.ones(2, 16),), dynamic_shapes=dims, strict=False
    )
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def engine_bytes(archive) -> memoryview:
    return kiln.compile(archive)


@pytest.fixture
def engine(engine_bytes) -> kiln.Engine:
    return kiln.load(engine_bytes)


def expected(archive: Path, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.export.load(archive).module()(torch.from_numpy(x)).numpy()


def random(batch: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 16), dtype=np.float32)


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_compile_load_run(archive, engine, batch) -> None:
    x = random(batch)
    (y,) = engine.session().run(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected(archive, x), rtol=1e-4, atol=1e-5)


def test_the_description(engine) -> None:
    (x,), (y,) = engine.inputs, engine.outputs
    assert (x.name, x.dtype) == ("x", "f32")
    assert [(dim.min, dim.max) for dim in x.dims] == [(1, 32), (16, 16)]
    assert str(x) == "x: f32[1..32, 16]"
    assert [dim.max for dim in y.dims] == [32, 8]
    assert "x: f32[1..32, 16]" in repr(engine)
    assert engine.target == "cpu"
    assert engine.variant.startswith("x86-64")
    assert engine.describe()["inputs"]


def test_to_a_file_and_back(archive, tmp_path) -> None:
    path = tmp_path / "mlp.kiln"
    assert kiln.compile(archive, output=path) is None
    x = random(3)
    session = kiln.load(path).session(num_threads=1)
    assert session.num_threads == 1
    (y,) = session.run(x)
    np.testing.assert_allclose(y, expected(archive, x), rtol=1e-4, atol=1e-5)
    assert kiln.inspect(path)["inputs"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["mlp.kiln"]


def test_the_same_bytes_every_time(archive, engine_bytes, tmp_path) -> None:
    assert kiln.compile(archive) == engine_bytes
    kiln.compile(archive, output=tmp_path / "mlp.kiln")
    assert (tmp_path / "mlp.kiln").read_bytes() == engine_bytes


@pytest.mark.parametrize("variant", ["x86-64-v3", "x86-64-v4"])
def test_forced_code_variants(archive, engine_bytes, variant) -> None:
    try:
        engine = kiln.load(engine_bytes, target=f"cpu:{variant}")
    except kiln.UnsupportedError:
        pytest.skip(f"this CPU cannot run {variant}")
    assert engine.variant == variant
    x = random(5)
    np.testing.assert_allclose(
        engine.session().run(x)[0], expected(archive, x), rtol=1e-4, atol=1e-5
    )


def test_ranges_are_narrowed(archive) -> None:
    engine = kiln.load(kiln.compile(archive, ranges=[kiln.InputRange("x", 0, 2, 4, 8)]))
    assert engine.inputs[0].dims[0] == kiln.DimRange(2, 4, 8)
    with pytest.raises(kiln.OutOfRangeError, match=r"x.*9.*2.*8"):
        engine.session().run(random(9))


def test_outputs_of_the_caller(engine) -> None:
    session = engine.session()
    out = [np.empty((4, 8), np.float32)]
    assert session.run(random(4), out=out)[0] is out[0]
    np.testing.assert_array_equal(out[0], session.run(random(4))[0])
    with pytest.raises(kiln.InvalidArgumentError):
        session.run(random(4), out=[np.empty((3, 8), np.float32)])
    with pytest.raises(kiln.InvalidArgumentError):
        session.run(random(4), out=[np.empty((4, 8), np.float64)])
    with pytest.raises(kiln.InvalidArgumentError, match="not contiguous"):
        session.run(random(4), out=[np.empty((8, 4), np.float32).T])
    with pytest.raises(kiln.InvalidArgumentError, match="2 arrays, expected 1"):
        session.run(random(4), out=out * 2)


def test_output_shapes(engine) -> None:
    assert engine.session().output_shapes(random(6)) == [(6, 8)]


def test_inputs_of_every_kind(archive, engine) -> None:
    x = random(4)
    reference = expected(archive, x)
    session = engine.session()
    doubled = np.repeat(x, 2, axis=1)
    for value in (
        x.copy(order="F"),
        doubled[:, ::2],
        x[::-1][::-1],
        torch.from_numpy(x),
        x.tolist(),
    ):
        value = np.asarray(value, np.float32) if isinstance(value, list) else value
        np.testing.assert_allclose(session.run(value)[0], reference, rtol=1e-4, atol=1e-5)
    x.flags.writeable = False
    np.testing.assert_allclose(session.run(x)[0], reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ([], kiln.InvalidArgumentError),
        ([random(2), random(2)], kiln.InvalidArgumentError),
        ([random(2).astype(np.float64)], kiln.InvalidArgumentError),
        ([random(2).astype(np.complex64)], kiln.InvalidArgumentError),
        ([random(2)[0]], kiln.InvalidArgumentError),
        ([random(33)], kiln.OutOfRangeError),
        ([random(0)], kiln.OutOfRangeError),
    ],
)
def test_bad_inputs(engine, inputs, error) -> None:
    with pytest.raises(error) as caught:
        engine.session().run(*inputs)
    assert isinstance(caught.value, kiln.KilnError) and str(caught.value)


def test_errors_are_what_python_would_raise() -> None:
    assert issubclass(kiln.OutOfRangeError, ValueError)
    assert issubclass(kiln.FileError, OSError)
    assert issubclass(kiln.UnsupportedError, NotImplementedError)


def test_bad_files(engine_bytes, tmp_path) -> None:
    with pytest.raises(kiln.NotFoundError):
        kiln.load(tmp_path / "none.kiln")
    with pytest.raises(kiln.NotFoundError):
        kiln.compile(tmp_path / "none.pt2")
    for content in (b"", b"hello", bytes(4096), engine_bytes[:-1], engine_bytes[:100]):
        (tmp_path / "bad.kiln").write_bytes(content)
        with pytest.raises(kiln.InvalidEngineError):
            kiln.load(tmp_path / "bad.kiln")
        with pytest.raises(kiln.InvalidEngineError):
            kiln.load(content)
    (tmp_path / "bad.pt2").write_bytes(b"hello")
    with pytest.raises(kiln.KilnError):
        kiln.compile(tmp_path / "bad.pt2")


def test_an_output_that_cannot_be_written(archive, tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        kiln.compile(archive, output=tmp_path / "none" / "mlp.kiln")
    with pytest.raises(OSError, match="mlp"):
        (tmp_path / "mlp").mkdir()
        kiln.compile(archive, output=tmp_path / "mlp")


def test_models_say_what_is_supported(archive) -> None:
    nodes = kiln.Model.open(archive).check()
    assert all(node.supported for node in nodes), [node for node in nodes if not node.supported]
    assert "torch.ops.aten.linear.default" in {node.target for node in nodes}


def test_supported_operators() -> None:
    ops = kiln.supported_ops()
    assert "aten.relu.default" in ops["aten"]
    assert {"name", "summary"} <= ops["ops"][0].keys()


def test_progress_and_its_exceptions(archive) -> None:
    seen = []
    kiln.compile(archive, progress=lambda stage, fraction: seen.append((stage, fraction)))
    assert seen and all(stage and 0 <= fraction <= 1 for stage, fraction in seen)

    def stop(stage: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kiln.compile(archive, progress=stop)


def test_profiling(engine) -> None:
    session = engine.session()
    session.enable_profiling()
    session.run(random(4))
    assert session.profile()


def test_engines_outlive_their_bytes(archive) -> None:
    session = kiln.load(bytearray(kiln.compile(archive))).session()
    x = random(2)
    np.testing.assert_allclose(session.run(x)[0], expected(archive, x), rtol=1e-4, atol=1e-5)


def test_sessions_need_a_sensible_number_of_threads(engine) -> None:
    with pytest.raises(kiln.InvalidArgumentError, match="num_threads"):
        engine.session(-1)


def test_torch_is_not_imported(archive, tmp_path) -> None:
    kiln.compile(archive, output=tmp_path / "mlp.kiln")
    script = (
        "import sys, kiln, numpy as np\n"
        "kiln.load(sys.argv[1]).session().run(np.zeros((2, 16), np.float32))\n"
        "kiln.compile(sys.argv[2])\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "mlp.kiln", archive]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_a_library_of_another_version_is_named() -> None:
    with pytest.raises(ImportError, match=r"libkiln.so is of another version.*kiln_of_tomorrow"):
        _library._open(("libkiln.so",), {"kiln_of_tomorrow": (None, [])})
