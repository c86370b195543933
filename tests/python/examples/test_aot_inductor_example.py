"""examples/cpp/aot_inductor is built against the LibTorch of this environment, and runs packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models_small import Mlp, batch_input, compile_all

import torch_tensorrt
from torch_tensorrt.formats import aoti

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples/cpp/aot_inductor"


def find_cmake() -> str | None:
    beside_python = Path(sys.executable).parent / "cmake"
    return str(beside_python) if beside_python.is_file() else shutil.which("cmake")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cmake = find_cmake()
    if cmake is None or not aoti.package.has_compiler({}):
        pytest.skip("there is no cmake or no C++ compiler to build the example with")
    folder = tmp_path_factory.mktemp("build")
    configure = [cmake, "-S", EXAMPLE, "-B", folder, "-DCMAKE_BUILD_TYPE=Release"]
    configure.append(f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}")
    if shutil.which("ccache"):
        configure.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
    for command in (configure, [cmake, "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run_package"


def run(program: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_example(program, tmp_path) -> None:
    model = Mlp().eval()
    package = tmp_path / "model.pt2"
    torch_tensorrt.save(
        compile_all(model, batch_input()),
        package,
        arg_inputs=[batch_input()],
        output_format="aot_inductor",
    )
    for batch in (1, 7):
        done = run(program, package, f"{batch}x16")
        assert done.returncode == 0, done.stderr
        shape, total = re.search(r"output (\[.*\]) sum (\S+)", done.stdout).groups()
        assert shape == f"[{batch}, 8]"
        with torch.no_grad():
            expected = float(model(torch.ones(batch, 16)).sum())
        assert abs(float(total) - expected) < 1e-3
    refused = run(program, package, "33x16")
    assert refused.returncode == 1
    assert 'input "x" dim 0: got 33, expected 1..32' in refused.stderr
