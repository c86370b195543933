"""Shared by the Python tests."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from models_small import Mlp
from torch.utils import _pytree as pytree

# glibc fills what it allocates with 0xa5: an engine that reads memory before it was written gets wrong numbers.
_M_PERTURB = -6
ctypes.CDLL(None).mallopt(_M_PERTURB, 0x5A)


def pytest_collectstart(collector: pytest.Collector) -> None:
    # What a module draws while it is imported is the same in each process and whichever modules came before it.
    if isinstance(collector, pytest.Module):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def mlp() -> torch.nn.Module:
    return Mlp().eval()


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Checks that two results have one structure, dtypes and shapes, and close values."""

    def check(actual: Any, expected: Any, **tolerances: float) -> None:
        actual_leaves, actual_spec = pytree.tree_flatten(actual)
        expected_leaves, expected_spec = pytree.tree_flatten(expected)
        assert actual_spec == expected_spec
        for a, b in zip(actual_leaves, expected_leaves, strict=True):
            torch.testing.assert_close(a, b, **({"rtol": 1e-4, "atol": 1e-5} | tolerances))

    return check


@pytest.fixture
def assert_same_on_threads() -> Callable[..., None]:
    """Checks that a module of rows of 16 gives what another does, called on many threads at once."""

    def check(module: Callable[..., Any], other: Callable[..., Any]) -> None:
        inputs = [torch.randn(1 + index, 16) for index in range(8)]
        expected = [other(x).detach() for x in inputs]

        def work(index: int) -> bool:
            return all(
                torch.allclose(module(inputs[index]), expected[index], atol=1e-5) for _ in range(50)
            )

        # A pool hands on what a call raises; a bare thread would only warn of it.
        with ThreadPoolExecutor(len(inputs)) as pool:
            right = list(pool.map(work, range(len(inputs))))
        assert right == [True] * len(inputs)

    return check


@pytest.fixture
def refused(capfd) -> Callable[[str], Any]:
    """Expects that the loader of a package raises what the package says. Loaders before torch 2.13 do not ask a package
    for the text, which writes it to stderr for them."""
    asks = torch.__version__ >= (2, 13)

    @contextmanager
    def check(message: str) -> Iterator[None]:
        capfd.readouterr()
        with pytest.raises(RuntimeError, match=message if asks else "API call failed"):
            yield
        if not asks:
            said = capfd.readouterr().err
            assert re.search(message, said), said

    return check
