"""A case: a function of tensors, checked against PyTorch. Many cases share one export and one run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import reference
import torch
from torch.utils import _pytree as pytree

# Largest error, relative to the norm of the expected values.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.bfloat16: 1e-2,
    torch.float16: 1e-2,
}


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    function: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]

    def expected(self) -> list[torch.Tensor]:
        # A function may change its inputs in place.
        return leaves(self.function(*(tensor.clone() for tensor in self.inputs)))


def leaves(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


class Batch(torch.nn.Module):
    """The cases one after the other; takes all their inputs and returns all their outputs."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = []
        start = 0
        for case in self.cases:
            stop = start + len(case.inputs)
            outputs += leaves(case.function(*tensors[start:stop]))
            start = stop
        return outputs


def run_batch(cases: Sequence[Case], passes: bool = False) -> dict[str, list[torch.Tensor]]:
    """Outputs by case name."""
    inputs = tuple(tensor for case in cases for tensor in case.inputs)
    with torch.no_grad():
        program = torch.export.export(Batch(cases).eval(), inputs, strict=False)
        outputs = iter(reference.run(program, inputs, passes))
        return {case.name: [next(outputs) for _ in case.expected()] for case in cases}


@functools.cache
def batch_results(cases: tuple[Case, ...]) -> dict[str, list[torch.Tensor]]:
    """The same; where the batch fails as a whole, each case on its own (a failed one is left out)."""
    try:
        return run_batch(cases)
    except Exception:
        results: dict[str, list[torch.Tensor]] = {}
        for case in cases:
            try:
                results |= run_batch([case])
            except Exception:  # noqa: S112 - reported by the case's own test
                continue
        return results


def check(case: Case, cases: tuple[Case, ...]) -> None:
    actual = batch_results(cases).get(case.name)
    if actual is None:
        actual = run_batch([case])[case.name]  # raises the reason
    for got, expected in zip(actual, case.expected(), strict=True):
        assert_same(got, expected)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if not expected.dtype.is_floating_point:
        assert torch.equal(actual, expected), f"got {actual}, expected {expected}"
        return
    a, e = actual.double(), expected.double()
    finite = torch.isfinite(e)
    assert torch.equal(a.isnan(), e.isnan()), (
        f"got NaN at other places: {actual}, expected {expected}"
    )
    assert torch.equal(a[e.isinf()], e[e.isinf()]), f"got {actual}, expected {expected}"
    error = torch.linalg.norm(a[finite] - e[finite]).item()
    scale = torch.linalg.norm(e[finite]).item()
    assert error <= TOLERANCES[expected.dtype] * scale, (
        f"relative error {error / max(scale, 1e-300):.2e}"
    )
