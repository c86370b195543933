"""The `kiln` command, from compiling an exported program to running it; no Python in between."""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from models_small import UNSUPPORTED, unsupported

KILN = Path(__file__).parents[3] / "python" / "kiln" / "bin" / "kiln"


def kiln(*arguments, code=0):
    done = subprocess.run(
        [str(KILN), *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(16, 4)

    def forward(self, x, scale):
        return torch.relu(self.linear(x)) * scale, x.sum(dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with model.pt2 and the engine made of it."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        Network(),
        (torch.randn(3, 16), torch.randn(4)),
        dynamic_shapes={"x": {0: batch}, "scale": None},
    )
    torch.export.save(exported, folder / "model.pt2")
    output = kiln(
        "compile", folder / "model.pt2", "-o", folder / "model.kiln", "--shape", "x=1..8..32,16"
    )
    assert "compiled in" in output
    return folder


@pytest.fixture(scope="module")
def arrays(folder):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((5, 16), dtype=np.float32)
    scale = generator.standard_normal(4, dtype=np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "x_fortran.npy", np.asfortranarray(x))
    np.save(folder / "scale.npy", scale)
    with torch.no_grad():
        program = torch.export.load(folder / "model.pt2").module()
        expected = program(torch.from_numpy(x), torch.from_numpy(scale))
    return [tensor.numpy() for tensor in expected]


def test_run_gives_what_pytorch_gives(folder, arrays):
    kiln(
        "run", folder / "model.kiln",
        "--input", folder / "x.npy", "--input", f"scale={folder}/scale.npy",
        "--output", folder / "y.npy", "--output", folder / "sum.npy",
    )  # fmt: skip
    np.testing.assert_allclose(np.load(folder / "y.npy"), arrays[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.load(folder / "sum.npy"), arrays[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
def test_every_code_variant_can_be_forced(folder, arrays, cpu):
    flags = Path("/proc/cpuinfo").read_text()
    if cpu == "x86-64-v4" and "avx512vl" not in flags:
        pytest.skip("this CPU has no AVX-512")
    arguments = ["--input", folder / "x.npy", "--input", folder / "scale.npy"]
    kiln(
        "run",
        folder / "model.kiln",
        "--target",
        f"cpu:{cpu}",
        *arguments,
        "--output",
        folder / "v.npy",
    )
    np.testing.assert_allclose(np.load(folder / "v.npy"), arrays[0], rtol=1e-5, atol=1e-6)


def test_column_major_input(folder, arrays):
    arguments = ["--input", folder / "x_fortran.npy", "--input", folder / "scale.npy"]
    kiln("run", folder / "model.kiln", *arguments, "--output", folder / "f.npy")
    np.testing.assert_allclose(np.load(folder / "f.npy"), arrays[0], rtol=1e-5, atol=1e-6)


def test_run_with_random_inputs_and_timing(folder):
    output = kiln("run", folder / "model.kiln", "--random", "--shape", "x=7,16", "--repeat", 10)
    assert "float32[7, 4]" in output
    assert "median" in output


def test_bench_measures_every_shape(folder):
    output = kiln(
        "bench", folder / "model.kiln", "--shape", "x=1,16", "--shape", "x=8,16", "--runs", 5
    )
    assert "loaded in" in output
    assert "1x16 4" in output
    assert "8x16 4" in output


def test_bench_shows_kernels_beside_what_the_machine_could_do(folder):
    output = kiln("bench", folder / "model.kiln", "--runs", 3, "--threads", 1, "--roofline")
    peaks = re.search(r"peaks, measured: f32 (\d+) GF/s.*; memory ([\d.]+) GB/s", output)
    assert float(peaks[1]) > 1 and float(peaks[2]) > 0.1
    rows = [line.split() for line in output.split("bound by\n")[1].splitlines()]
    assert rows[-1][0] == "all"
    assert int(rows[-1][1]) == sum(int(row[1]) for row in rows[:-1]) >= 2
    assert any("linear" in row[0] and row[-1] in ("arithmetic", "memory") for row in rows)


def test_inspect_as_text(folder):
    output = kiln("inspect", folder / "model.kiln")
    assert "x: float32[1..8..32, 16]" in output
    assert "x86-64-v3" in output
    assert "weights" in output


def test_inspect_as_json(folder):
    description = json.loads(kiln("inspect", folder / "model.kiln", "--json"))
    assert [entry["name"] for entry in description["inputs"]] == ["x", "scale"]
    assert len(description["outputs"]) == 2
    assert description["kernels"]
    assert description["sections"]


def test_ops(folder):
    assert "aten.add.Tensor" in kiln("ops").splitlines()
    assert "aten.add.Tensor" in json.loads(kiln("ops", "--json"))["aten"]
    assert "can be compiled" in kiln("ops", folder / "model.pt2")


def test_ops_names_what_is_unsupported(tmp_path):
    class Unsupported(torch.nn.Module):
        def forward(self, x):
            return unsupported(x)

    exported = torch.export.export(Unsupported(), (torch.randn(3, 3),))
    torch.export.save(exported, tmp_path / "gradient.pt2")
    error = kiln("ops", tmp_path / "gradient.pt2", code=1)
    assert "cannot be compiled" in error
    error = kiln("compile", tmp_path / "gradient.pt2", "-o", tmp_path / "gradient.kiln", code=1)
    assert UNSUPPORTED in error
    assert not (tmp_path / "gradient.kiln").exists()


def test_compiling_twice_gives_the_same_bytes(folder):
    for name in ["a.kiln", "b.kiln"]:
        kiln("compile", folder / "model.pt2", "-o", folder / name)
    assert (folder / "a.kiln").read_bytes() == (folder / "b.kiln").read_bytes()


def test_dumps_are_written(folder):
    dumps = folder / "dumps"
    kiln("compile", folder / "model.pt2", "-o", folder / "d.kiln", "--dump-dir", dumps, "--verify")
    assert any(dumps.iterdir())


def test_version():
    assert kiln("--version").startswith("kiln 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["compile"],
        ["compile", "m.pt2", "-o", "m.kiln", "--shape", "x=4..2"],
        ["compile", "m.pt2", "-o", "m.kiln", "--shape", "x=four"],
        ["compile", "m.pt2", "-o", "m.kiln", "--shape", "4,4"],
        ["run", "m.kiln", "--random", "--input", "x.npy"],
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    assert kiln(*arguments, code=2)


def test_missing_files_are_named(tmp_path):
    missing = tmp_path / "missing"
    assert str(missing) in kiln("compile", missing, "-o", tmp_path / "m.kiln", code=1)
    assert str(missing) in kiln("run", missing, "--random", code=1)


def test_size_out_of_range_names_input_and_range(folder):
    error = kiln("run", folder / "model.kiln", "--random", "--shape", "x=33,16", code=1)
    assert "x" in error
    assert "33" in error
    assert "32" in error


def test_missing_input_is_named(folder, arrays):
    error = kiln("run", folder / "model.kiln", "--input", folder / "x.npy", code=2)
    assert "scale" in error


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x01\x00\xff\xff{'descr'",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4' ",
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(70),
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(70),
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }"[:70],
    ],
)
def test_malformed_npy_is_refused(folder, tmp_path, content):
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    error = kiln("run", folder / "model.kiln", "--input", path, "--input", path, code=1)
    assert str(path) in error


def test_corrupted_engine_is_refused(folder, tmp_path):
    content = bytearray((folder / "model.kiln").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    content[64:96] = bytes(32)
    path = tmp_path / "bad.kiln"
    path.write_bytes(content)
    assert "bad.kiln" in kiln("inspect", path, code=1)


def export_network(path, seed):
    torch.manual_seed(seed)
    torch.export.save(torch.export.export(Network(), (torch.randn(3, 16), torch.randn(4))), path)


def test_refit_gives_the_engine_of_a_compile(tmp_path):
    a, b, engine = tmp_path / "a.pt2", tmp_path / "b.pt2", tmp_path / "a.kiln"
    export_network(a, 1)
    export_network(b, 2)
    kiln("compile", a, "-o", engine)
    kiln("compile", b, "-o", tmp_path / "b.kiln")
    kiln("refit", engine, b, "-o", engine)
    assert engine.read_bytes() == (tmp_path / "b.kiln").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.kiln",
        "a.pt2",
        "b.kiln",
        "b.pt2",
    ]


def test_refit_of_a_stripped_engine(tmp_path):
    model, engine = tmp_path / "model.pt2", tmp_path / "model.kiln"
    export_network(model, 1)
    kiln("compile", model, "-o", engine, "--strip-weights", "--refittable")
    assert "weights stripped" in kiln("inspect", engine)
    assert json.loads(kiln("inspect", "--json", engine))["memory"]["stripped"]
    assert "kiln refit" in kiln("run", engine, "--random", code=1)
    kiln("refit", engine, model, "-o", engine)
    kiln("run", engine, "--random")


class Rounding(torch.nn.Module):
    def forward(self, x):
        return x + 1 - 1


@pytest.mark.parametrize("emulate", [False, True])
def test_rounding_of_every_operator(tmp_path, emulate):
    model, engine, x = tmp_path / "model.pt2", tmp_path / "model.kiln", torch.randn(64).half()
    torch.export.save(torch.export.export(Rounding(), (x,)), model)
    option = ["--emulate-precision-casts"] if emulate else []
    kiln("compile", model, "-o", engine, *option)
    np.save(tmp_path / "x.npy", x.numpy())
    result = tmp_path / "result.npy"
    kiln("run", engine, "--input", f"x={tmp_path / 'x.npy'}", "--output", result)
    assert np.array_equal(np.load(result), (x + 1 - 1).numpy()) is emulate
    assert json.loads(kiln("inspect", "--json", engine))["emulate_precision_casts"] is emulate


def test_refit_with_another_model_says_what_differs(folder, tmp_path):
    class Other(Network):
        def forward(self, x, scale):
            return torch.tanh(self.linear(x)) * scale, x.sum(dim=1)

    exported = torch.export.export(Other(), (torch.randn(3, 16), torch.randn(4)))
    torch.export.save(exported, tmp_path / "other.pt2")
    text = kiln(
        "refit", folder / "model.kiln", tmp_path / "other.pt2", "-o", tmp_path / "x", code=1
    )
    assert "compile the model again" in text
    assert not (tmp_path / "x").exists()


def test_tuning_without_a_gpu_is_said_and_compiles(tmp_path):
    model, engine = tmp_path / "model.pt2", tmp_path / "model.kiln"
    export_network(model, 1)
    text = kiln("compile", model, "-o", engine, "--timing-cache", tmp_path / "times", code=2)
    assert "--timing-cache is for --tune" in text
    kiln("compile", model, "-o", engine)
    plain = engine.read_bytes()
    kiln("compile", model, "-o", engine, "--tune", "--timing-cache", tmp_path / "times", "--tf32")
    assert not (tmp_path / "times").exists()  # nothing of a CPU's is timed
    description = json.loads(kiln("inspect", "--json", engine))
    assert description["tf32"] == ["matmul", "convolution"]
    assert len(engine.read_bytes()) >= len(plain) > 0


def test_compile_through_a_cache(tmp_path):
    model, engine, cache = tmp_path / "model.pt2", tmp_path / "model.kiln", tmp_path / "cache"
    export_network(model, 1)
    assert "compiled" in kiln("compile", model, "-o", engine, "--cache-dir", cache)
    first = engine.read_bytes()
    assert "found in the cache" in kiln("compile", model, "-o", engine, "--cache-dir", cache)
    assert engine.read_bytes() == first


@pytest.fixture(scope="module")
def for_both(folder):
    """The engine with programs for CPUs and for a GPU."""
    path = folder / "both.kiln"
    options = ["--target", "cpu,cuda:sm_90", "--dump-dir", folder / "dumps"]
    done = subprocess.run(
        [KILN, "compile", folder / "model.pt2", "-o", path, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KILN_CUDA_LIBRARIES": nvrtc_folder()},
    )
    if "NVRTC" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return path


def nvrtc_folder():
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else list(spec.submodule_search_locations)
    return ":".join(str(Path(root) / "cu13" / "lib") for root in roots)


def test_an_engine_for_both_runs_on_the_cpu(for_both, folder, arrays):
    arguments = ["--input", folder / "x.npy", "--input", folder / "scale.npy"]
    for device in ([], ["--device", "cpu"], ["--target", "cpu"]):
        kiln("run", for_both, *device, *arguments, "--output", folder / "both.npy")
        np.testing.assert_allclose(np.load(folder / "both.npy"), arrays[0], rtol=1e-5, atol=1e-6)
    assert "program cpu:" in kiln("bench", for_both, "--runs", 3)
    output = kiln("inspect", for_both)
    assert "cuda:sm_90" in output and "cpu:x86-64-v3" in output


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_device_is_an_error(for_both):
    for command in ("run", "bench"):
        arguments = ["--random"] if command == "run" else []
        error = kiln(command, for_both, "--device", "cuda", *arguments, code=1)
        assert "runs no program of the engine: cuda:sm_90" in error and "NVIDIA" in error


def test_devices_that_are_wrong(folder):
    engine = folder / "model.kiln"
    assert "cpu, cuda or cuda:N" in kiln("run", engine, "--random", "--device", "gpu", code=2)
    for text in ("cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cpu:0"):
        assert "cuda:N" in kiln("run", engine, "--random", "--device", text, code=2)
    error = kiln("bench", engine, "--device", "cuda", code=1)
    assert 'got the program "cuda", expected one of cpu:x86-64-v4, cpu:x86-64-v3' in error
    error = kiln("run", engine, "--random", "--device", "cpu", "--target", "cuda", code=2)
    assert "does not run on --device cpu" in error


def test_inspect_shows_the_kernels_of_the_target_asked_for(for_both, folder):
    description = json.loads(kiln("inspect", for_both, "--json", "--target", "cuda"))
    assert (description["target"], description["variant"]) == ("cuda", "sm_90")
    for kernel in description["kernels"]:
        assert 16 <= kernel["registers"] <= 255
        assert kernel["shared_bytes"] < 232448 and kernel["stack_bytes"] == 0
    assert "registers" not in json.loads(kiln("inspect", for_both, "--json"))["kernels"][0]
    assert "registers" in kiln("inspect", for_both, "--target", "cuda:sm_90")
    assert "expected one of" in kiln("inspect", for_both, "--target", "cuda:sm_80", code=1)


def test_inspect_of_one_kernel(for_both, folder):
    kernels = json.loads(kiln("inspect", for_both, "--json", "--target", "cuda"))["kernels"]
    name = kernels[0]["name"]
    cubin = folder / "kernel.cubin"
    output = kiln("inspect", for_both, "--target", "cuda", "--kernel", name, "--code", cubin)
    assert f"kernel {name} of cuda:sm_90" in output and "registers" in output
    assert cubin.read_bytes()[:4] == b"\x7fELF"
    assert "--dump-dir" in output  # that is where its text is
    text = folder / "dumps" / "cuda" / f"sm_90_{name}.cu"
    assert "__global__" in text.read_text()
    assert "--dump-dir" in kiln("inspect", for_both, "--kernel", kernel_of_cpu(for_both))
    assert name in kiln("inspect", for_both, "--target", "cuda", "--kernel", "nothing", code=1)
    kiln("inspect", for_both, "--code", cubin, code=2)
    kiln("inspect", for_both, "--kernel", kernel_of_cpu(for_both), "--code", cubin, code=1)


def kernel_of_cpu(engine):
    return json.loads(kiln("inspect", engine, "--json"))["kernels"][0]["name"]
