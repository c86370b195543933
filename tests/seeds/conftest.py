"""What the snippets of the two pages take for granted: a model, and a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class SmallConvNet(torch.nn.Module):
    """A convolutional classifier for images of 224 x 224, as the pages have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 7, stride=4, padding=3)
        self.norm = torch.nn.BatchNorm2d(8)
        self.body = torch.nn.Conv2d(8, 16, 3, stride=4, padding=1)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.body(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets write files with relative names."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def my_model() -> Callable[[], torch.nn.Module]:
    """`MyModel` of the pages. Every instance has the same weights."""

    def make() -> torch.nn.Module:
        torch.manual_seed(1)
        return SmallConvNet()

    return make


@pytest.fixture
def device() -> str:
    """Where the snippets say `.cuda()`: the GPU if there is one."""
    return DEVICE


@pytest.fixture
def assert_equal_results() -> Callable[[Any, Any], None]:
    """Compares by relative error in the norm, with the bound of f32."""

    def check(actual: Any, expected: Any) -> None:
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        error = (actual - expected).norm() / expected.norm()
        assert error <= 1e-5, f"relative error {error:.1e}"

    return check
