"""examples/cpp/torchscript: compiled models run by LibTorch, without Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from models_small import SortInTheMiddle, batch_input, compile_all

import kiln
import torch_tensorrt

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/cpp/torchscript"
OPERATOR = kiln.library_directory() / "libkiln_torch.so"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built as its CMakeLists.txt says."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or shutil.which("cmake") is None:
        pytest.skip("no C++ compiler or no CMake on this machine: the example cannot be built")
    folder = tmp_path_factory.mktemp("torchscript_example")
    configure = [
        "cmake", "-S", EXAMPLE, "-B", folder, "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
    ]  # fmt: skip
    if shutil.which("ccache"):
        configure.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
    for command in (configure, ["cmake", "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run_torchscript"


def run(program: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={})


@pytest.mark.parametrize("batch", [1, 7])
def test_same_results(program, tmp_path, batch) -> None:
    model, x = SortInTheMiddle().eval(), torch.randn(batch, 16)
    compiled = compile_all(model, batch_input())
    torch_tensorrt.save(compiled, tmp_path / "m.ts", output_format="torchscript")
    with torch.no_grad():
        torch.save(([x], [model(x)]), tmp_path / "sample.pt")
    done = run(program, OPERATOR, tmp_path / "m.ts", tmp_path / "sample.pt")
    assert done.returncode == 0, done.stderr
    assert "those expected" in done.stdout

    torch.save(([x], [model(x) + 1]), tmp_path / "sample.pt")
    assert run(program, OPERATOR, tmp_path / "m.ts", tmp_path / "sample.pt").returncode == 1


def test_errors(program, mlp, tmp_path) -> None:
    compiled = compile_all(mlp, batch_input())
    torch_tensorrt.save(compiled, tmp_path / "m.ts", output_format="torchscript")
    torch.save(([torch.randn(33, 16)], []), tmp_path / "sample.pt")
    done = run(program, OPERATOR, tmp_path / "m.ts", tmp_path / "sample.pt")
    assert done.returncode == 1
    assert "dim 0" in done.stderr
    done = run(program, tmp_path / "none.so", tmp_path / "m.ts", tmp_path / "sample.pt")
    assert done.returncode == 1
    assert "none.so" in done.stderr
