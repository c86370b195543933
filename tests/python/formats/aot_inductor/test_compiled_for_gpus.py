"""What AOTInductor compiles for a GPU with, and what calls engines from there; tests/python/gpu runs it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

import kiln
from torch_tensorrt.formats.aoti import compile as aoti_compile
from torch_tensorrt.formats.aoti import gpu

HEADERS = ("cuda.h", "cuda_runtime.h", "cuda_fp8.h", "crt/host_defines.h", "nv/target")


def make_toolkit(folder: Path, headers: tuple[str, ...] = HEADERS) -> Path:
    for header in headers:
        (folder / "include" / header).parent.mkdir(parents=True, exist_ok=True)
        (folder / "include" / header).touch()
    return folder


@pytest.fixture
def pip_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip's packages of NVIDIA's would be; no toolkit, and no other packages."""
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    folder = tmp_path / "nvidia"
    folder.mkdir()
    monkeypatch.setattr(gpu, "_folders_of_pip", lambda: sorted(folder.glob("cu*"))[::-1])
    return folder


def test_headers_of_a_toolkit_come_first(pip_packages: Path, tmp_path: Path, monkeypatch) -> None:
    pip = make_toolkit(pip_packages / "cu13")
    assert gpu.cuda_home() == pip
    toolkit = make_toolkit(tmp_path / "toolkit")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(toolkit))
    assert gpu.cuda_home() == toolkit


@pytest.mark.parametrize("number", [3, 4])
def test_packages_of_pytorch_alone_lack_headers(
    number: int, pip_packages: Path, monkeypatch
) -> None:
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: object())
    make_toolkit(pip_packages / "cu13", HEADERS[:number])
    assert gpu.cuda_home() is None
    assert "pip install nvidia-cuda-crt nvidia-cuda-cccl" in str(gpu.missing_for_gpu())
    make_toolkit(pip_packages / "cu13")
    assert gpu.missing_for_gpu() is None


def test_triton_is_needed(pip_packages: Path, monkeypatch) -> None:
    make_toolkit(pip_packages / "cu13")
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert gpu.missing_for_gpu() == "Triton is not installed: pip install triton"


def test_pytorch_finds_the_headers_inside(pip_packages: Path, tmp_path: Path, monkeypatch) -> None:
    pip = make_toolkit(pip_packages / "cu13")
    driver = tmp_path / "libcuda.so.1"
    driver.touch()
    monkeypatch.setattr(gpu, "_driver_library", lambda: str(driver))
    with gpu.cuda_toolkit() as folder:
        assert str(pip) == cpp_extension.CUDA_HOME
        assert os.path.samefile(folder / "libcuda.so", driver)
    assert cpp_extension.CUDA_HOME is None
    assert not folder.exists()


def test_what_goes_wrong_for_a_gpu_is_a_reason(pip_packages: Path) -> None:
    with (
        pytest.raises(
            aoti_compile.NoCodeError, match="AOTInductor cannot compile for the GPU"
        ) as e,
        aoti_compile._finding_libraries("cuda"),
    ):
        raise ValueError("no ptxas: none\nmore")
    reason, _, remedy = str(e.value).partition(": ")
    assert "ValueError - no ptxas - none" in reason and "more" not in reason
    assert remedy
    assert isinstance(e.value.__cause__, ValueError)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_engines_are_called_by_the_device_of_their_results(device: str) -> None:
    name = f"aoti_torch_{device}_execute_engine"
    assert any(f" {name}(" in shim for shim in aoti_compile._SHIMS)
    library = kiln.library_directory() / "libkiln_aoti_shim.a"
    symbols = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    assert re.search(rf" T {name}$", symbols, re.MULTILINE)


def test_without_a_gpu_no_driver_is_loaded() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu._driver_library() is None
