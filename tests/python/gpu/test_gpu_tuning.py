"""TF32 where PyTorch allows it, and choosing kernels by timing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.models import ConvNet, Mixer

import kiln
import torch_tensorrt
from torch_tensorrt.runtime._modes import engines_of


def _error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


def _compile(model: torch.nn.Module, x: torch.Tensor, **options: Any) -> Any:
    return torch_tensorrt.compile(model, ir="dynamo", inputs=[x], min_block_size=1, **options)


def _description(compiled: Any) -> dict[str, Any]:
    (engine,) = engines_of(compiled).values()
    return kiln.inspect(engine.numpy())


class Product(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(512, 384)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


class Filters(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(64, 96, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


CASES = {"matmul": (Product, (300, 512)), "convolution": (Filters, (4, 64, 28, 28))}


@pytest.mark.parametrize("name", CASES)
def test_tf32_follows_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, shape = CASES[name]
    model, x = make().eval().cuda(), torch.randn(shape, device="cuda")
    with torch.no_grad():
        expected = model.double()(x.double())
    model.float()
    exact = _compile(model, x)
    assert _description(exact)["tf32"] == []
    assert _error(exact(x), expected) < 1e-6

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", name == "convolution")
    assert _description(_compile(model, x))["tf32"] == []
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    rounded = _compile(model, x)
    assert _description(rounded)["tf32"] == ["matmul", "convolution"][: 1 + (name == "convolution")]
    assert 1e-5 < _error(rounded(x), expected) < 1e-3

    disabled = _compile(model, x, disable_tf32=True)
    assert _description(disabled)["tf32"] == []
    assert _error(disabled(x), expected) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("make", "shape"), [(Mixer, (2, 10, 64)), (ConvNet, (2, 3, 32, 32))])
def test_tuned_engines_are_right_and_repeat(
    make: Any, shape: tuple[int, ...], dtype: torch.dtype, tmp_path: Path, assert_near: Any
) -> None:
    model = make().eval().cuda().to(dtype)
    x = torch.randn(shape, device="cuda", dtype=dtype)
    with torch.no_grad():
        expected = model(x)
    options = {"optimization_level": 5, "timing_cache_path": str(tmp_path / "times")}
    first, second = _compile(model, x, **options), _compile(model, x, **options)
    assert (tmp_path / "times").stat().st_size > 0
    for _ in range(3):
        assert_near(first(x), expected)
    left, right = (next(iter(engines_of(module).values())) for module in (first, second))
    assert torch.equal(left, right)


def test_files_that_are_no_timing_cache_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, assert_near: Any
) -> None:
    notes = tmp_path / "notes"
    notes.write_text("mine")
    model, x = Product().eval().cuda(), torch.randn(300, 512, device="cuda")
    compiled = _compile(model, x, optimization_level=3, timing_cache_path=str(notes))
    assert notes.read_text() == "mine"
    assert "is not a timing cache" in caplog.text
    with torch.no_grad():
        assert_near(compiled(x), model(x))
