"""Tests that need an NVIDIA GPU: skipped, with the reason, where there is none (docs/gpu.md has their last results)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

_REASON = "" if torch.cuda.is_available() else "PyTorch sees no NVIDIA GPU"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if _REASON and here in Path(item.path).parents:
            item.add_marker(pytest.mark.skip(reason=_REASON))


# As near as two orders of summing are; 16-bit types: a few roundings.
_BOUNDS = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 2e-2, torch.float64: 1e-12}


@pytest.fixture
def assert_near() -> Callable[[Any, Any], None]:
    """Checks that two results on a GPU have one structure, dtypes and shapes, and values that are near in the norm."""

    def check(actual: Any, expected: Any) -> None:
        left, spec = pytree.tree_flatten(actual)
        right, expected_spec = pytree.tree_flatten(expected)
        assert spec == expected_spec
        for a, b in zip(left, right, strict=True):
            assert (a.device, a.dtype, a.shape) == (b.device, b.dtype, b.shape)
            if not a.is_floating_point():
                assert torch.equal(a, b)
                continue
            error = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)
            assert error <= _BOUNDS[a.dtype], f"relative error {error:.1e}"

    return check


@pytest.fixture(autouse=True)
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's products of f32 in f32, so that they can be compared with."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
