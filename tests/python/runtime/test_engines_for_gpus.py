"""Engines for GPUs on a machine without one: compiled, described and refused in one sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models_small import Mlp

import kiln
import torch_tensorrt
from torch_tensorrt._operator import engine_tensor, execute_engine
from torch_tensorrt.runtime._spec import spec_of

KILN = Path(__file__).parents[3] / "python" / "kiln" / "bin" / "kiln"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "mlp.pt2"
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    program = torch.export.export(Mlp().eval(), (torch.ones(2, 16),), dynamic_shapes=dims)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def engine(archive: Path) -> memoryview:
    try:
        return kiln.compile(archive, targets=["cuda:sm_90"])
    except kiln.KilnError as error:
        if "NVRTC" in str(error):
            pytest.skip(str(error))
        raise


def test_the_description(engine: memoryview) -> None:
    description = kiln.inspect(engine)
    assert [(p["target"], p["variant"]) for p in description["programs"]] == [("cuda", "sm_90")]
    assert description["inputs"][0]["name"] == "x"


def test_code_for_all_gpus(archive: Path, engine: memoryview, tmp_path: Path) -> None:
    """Machine code for each generation, and PTX, as text, for those to come."""
    path = tmp_path / "all.kiln"
    kiln.compile(archive, targets=["cuda"], output=path)
    programs = kiln.inspect(path)["programs"]
    variants = [program["variant"] for program in programs]
    assert variants == ["sm_90", "sm_89", "sm_86", "sm_80", "compute_90"]
    assert programs[-1]["needs"] == ["compute_90"]

    shown = ["inspect", str(path), "--target", "cuda:compute_90"]
    arguments = [KILN, *shown, "--json"]
    description = json.loads(subprocess.run(arguments, capture_output=True, check=True).stdout)
    name = description["kernels"][0]["name"]
    code = tmp_path / "kernel.ptx"
    arguments = [KILN, *shown, "--kernel", name, "--code", str(code)]
    text = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert f"kernel {name} of cuda:compute_90" in text and "of PTX" in text
    ptx = code.read_text()
    assert ".target sm_90\n" in ptx and ".visible .entry kernel(" in ptx
    assert not re.search(r"wgmma|setmaxnreg|tcgen05", ptx)  # instructions of one generation


def test_the_same_bytes_again(archive: Path, engine: memoryview) -> None:
    assert bytes(kiln.compile(archive, targets=["cuda:sm_90"])) == bytes(engine)


def test_a_refit_gives_the_bytes_of_a_compile(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt2"
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    torch.manual_seed(7)
    torch.export.save(
        torch.export.export(Mlp().eval(), (torch.ones(2, 16),), dynamic_shapes=dims), other
    )
    options = {"targets": ["cuda:sm_90"], "refittable": True}
    try:
        old = kiln.compile(archive, **options)
    except kiln.KilnError as error:
        pytest.skip(str(error))
    assert bytes(kiln.refit(old, other)) == bytes(kiln.compile(other, **options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(engine: memoryview) -> None:
    with pytest.raises(kiln.UnsupportedError, match=r"cuda:sm_90 \(.*NVIDIA"):
        kiln.load(engine)
    x = torch.ones(2, 16)
    for _ in range(2):  # what could not be loaded is tried again
        with pytest.raises(RuntimeError, match=r"runs no program.*cuda:sm_90 \(.*NVIDIA"):
            execute_engine([x], engine_tensor(engine), spec_of(kiln.inspect(engine)))


# What a process says of an engine for a GPU, and which files of Kiln it has in memory then.
SAY_WHY = """
import sys, kiln
try:
    print(kiln.load(open(sys.argv[1], "rb").read()).target)
except kiln.UnsupportedError as error:
    print(error)
print(kiln.load(open(sys.argv[2], "rb").read()).target)
print(*{line.split()[-1] for line in open("/proc/self/maps") if "kiln" in line})
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_the_library_for_gpus_lies_beside_the_others(
    archive: Path, engine: memoryview, tmp_path: Path, is_there: bool
) -> None:
    """In a folder with copies, as those of a wheel are, and where the library is missing."""
    libraries = tmp_path / "lib"
    libraries.mkdir()
    names = ["libkiln_runtime.so", *(["libkiln_cuda.so"] if is_there else [])]
    for name in names:
        shutil.copyfile(kiln.library_directory() / name, libraries / name)
    for_gpu, for_cpu = tmp_path / "gpu.kiln", tmp_path / "cpu.kiln"
    for_gpu.write_bytes(engine)
    for_cpu.write_bytes(kiln.compile(archive))

    def say_why(*engines: Path) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", SAY_WHY, *engines],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "KILN_LIBRARY_DIR": str(libraries)},
        )
        return done.stdout.splitlines()

    library = str(libraries / "libkiln_cuda.so")
    why, target, files = say_why(for_gpu, for_cpu)
    assert (f"there is no {library}, which runs programs for cuda" in why) != is_there
    assert (library in files) == is_there
    assert target == "cpu"
    why, target, files = say_why(for_cpu, for_cpu)
    assert library not in files


def test_an_unknown_generation(archive: Path) -> None:
    with pytest.raises(kiln.KilnError, match="sm_12.*sm_90"):
        kiln.compile(archive, targets=["cuda:sm_12"])


def test_without_nvrtc_the_package_is_named(archive: Path) -> None:
    """In a process that is told of no folders, and where the loader knows of none."""
    done = subprocess.run(
        [KILN, "compile", archive, "-o", os.devnull, "--target", "cuda:sm_90"],
        capture_output=True,
        text=True,
        env={**os.environ, "KILN_NVRTC": "/nonexistent/libnvrtc.so"},
    )
    assert done.returncode != 0
    assert "/nonexistent/libnvrtc.so" in done.stderr


def test_the_command(archive: Path, engine: memoryview, tmp_path: Path) -> None:
    path = tmp_path / "mlp.kiln"
    arguments = ["compile", str(archive), "-o", str(path), "--target", "cuda:sm_90"]
    subprocess.run([sys.executable, "-m", "kiln", *arguments], check=True, capture_output=True)
    assert path.read_bytes() == bytes(engine)
    shown = subprocess.run(
        [KILN, "inspect", path], check=True, capture_output=True, text=True
    ).stdout
    assert "cuda:sm_90" in shown


def compile_for_both(
    model: torch.nn.Module, x: torch.Tensor, **options: object
) -> torch.fx.GraphModule:
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[x], min_block_size=1, targets="cpu,cuda:sm_90", **options
    )
    if not any(node.target is execute_engine for node in compiled.graph.nodes):
        pytest.skip("NVRTC was not found")
    return compiled


def programs_of(engine: object) -> list[tuple[str, str]]:
    return [(p["target"], p["variant"]) for p in kiln.inspect(engine)["programs"]]


BOTH = [("cpu", "x86-64-v4"), ("cpu", "x86-64-v3"), ("cuda", "sm_90")]


def test_an_engine_for_both(archive: Path, engine: memoryview) -> None:
    both = kiln.compile(archive, targets="cpu,cuda:sm_90")
    assert programs_of(both) == BOTH
    assert bytes(kiln.compile(archive, targets=["cpu", "cuda:sm_90"])) == bytes(both)
    alone = kiln.compile(archive)
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    for target in (None, "cpu"):
        loaded = kiln.Engine(both, target=target)
        assert loaded.target == "cpu"
        assert np.array_equal(loaded.session().run(x), kiln.load(alone).session().run(x))
    assert kiln.compile_key(archive, targets="cpu,cuda:sm_90") not in {
        kiln.compile_key(archive, targets=targets)
        for targets in ("cpu", "cuda:sm_90", "cuda:sm_90,cpu")
    }
    assert kiln.verify(both) == []


def test_a_refit_of_an_engine_for_both(archive: Path, engine: memoryview, tmp_path: Path) -> None:
    other = tmp_path / "other.pt2"
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    torch.manual_seed(7)
    torch.export.save(
        torch.export.export(Mlp().eval(), (torch.ones(2, 16),), dynamic_shapes=dims), other
    )
    options = {"targets": "cpu,cuda:sm_90", "refittable": True}
    old = kiln.compile(archive, **options)
    assert bytes(kiln.refit(old, other)) == bytes(kiln.compile(other, **options))


@pytest.mark.parametrize("ending", ["ep", "ts", "pt2"])
def test_modules_for_both_run_on_a_cpu(ending: str, tmp_path: Path) -> None:
    model, x = Mlp().eval(), torch.randn(2, 16)
    compiled = compile_for_both(model, x)
    path = tmp_path / f"model.{ending}"
    kinds = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
    torch_tensorrt.save(compiled, str(path), arg_inputs=[x], output_format=kinds[ending])
    loaded = torch_tensorrt.load(str(path))
    module = loaded.module() if hasattr(loaded, "module") else loaded
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x))
        if ending == "ts":
            torch.testing.assert_close(torch.jit.load(str(path))(x), model(x))
            buffers = dict(torch.jit.load(str(path)).named_buffers())
            assert [programs_of(each.numpy()) for each in buffers.values()] == [BOTH]


def test_a_module_for_both_is_refitted(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, second, x = Mlp().eval(), Mlp().eval(), torch.randn(2, 16)
    compiled = compile_for_both(first, x, immutable_weights=False)
    program = torch.export.export(second, (x,))
    refitted = torch_tensorrt.dynamo.refit_module_weights(compiled, program, in_place=False)
    with torch.no_grad():
        torch.testing.assert_close(refitted(x), second(x))
    expected = compile_for_both(second, x, immutable_weights=False)
    assert [bytes(b.numpy()) for b in refitted.buffers()] == [
        bytes(b.numpy()) for b in expected.buffers()
    ]


def test_targets_that_leave_the_device_of_the_module_out() -> None:
    with pytest.raises(ValueError, match=r"targets is \['cuda:sm_90'\], expected one for cpu"):
        torch_tensorrt.compile(
            Mlp().eval(), ir="dynamo", inputs=[torch.ones(2, 16)], targets="cuda:sm_90"
        )
    with pytest.raises(ValueError, match="npu"):
        torch_tensorrt.compile(
            Mlp().eval(), ir="dynamo", inputs=[torch.ones(2, 16)], targets=["cpu", "npu"]
        )
