"""The tables of the conformance tests, whole in engines on a GPU: what eager PyTorch gives on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from gpu.conformance_cases import TABLES, Batch, Case, assert_same
from torch.export.passes import move_to_device_pass

import torch_tensorrt

DEVICE = "cuda"
# Cases of one family share engines of at most this many.
BATCH = 32


def stays_in_pytorch(case: Case) -> bool:
    """Loops of steps that are not known and sizes that depend on data, which engines for GPUs have not."""
    return case.name.startswith(("singular-", "divisors-")) or case.name == "masks-selected"


def batches() -> Iterator[Any]:
    for table in TABLES:
        for family in table.FAMILIES:
            for whole in (True, False):
                cases = [case for case in family.cases if stays_in_pytorch(case) != whole]
                for first in range(0, len(cases), BATCH):
                    name = f"{family.name}-{first}" + ("" if whole else "-in-part")
                    yield pytest.param(cases[first : first + BATCH], whole, id=name)


def compiled(cases: Sequence[Case], whole: bool) -> Any:
    """Exported on the CPU, where functions make their constants, and moved."""
    inputs = tuple(tensor for case in cases for tensor in case.inputs)
    with torch.no_grad():
        program = torch.export.export(Batch(cases).eval(), inputs, strict=False)
    moved = move_to_device_pass(program, DEVICE)
    examples = tuple(tensor.to(DEVICE) for tensor in inputs)
    return torch_tensorrt.dynamo.compile(
        moved, arg_inputs=examples, require_full_compilation=whole, min_block_size=1
    )


def problems(cases: Sequence[Case], whole: bool) -> Iterator[str]:
    """What is wrong with each case; where they do not compile together, with each on its own."""
    try:
        module = compiled(cases, whole)
    except Exception as error:
        if len(cases) == 1:
            yield f"{cases[0].name}: {error}"
            return
        for case in cases:
            yield from problems([case], whole)
        return
    values = [tensor for case in cases for tensor in case.inputs]
    inputs = [tensor.to(DEVICE, copy=True) for tensor in values]
    for _ in range(3):  # run, captured, replayed
        for tensor, value in zip(inputs, values, strict=True):
            tensor.copy_(value)  # which a function may change
        outputs = iter(module(*inputs))
        for case in cases:
            for expected in case.expected():
                got = next(outputs)
                assert got.device.type == DEVICE
                try:
                    assert_same(got.cpu(), expected)
                except AssertionError as error:
                    yield f"{case.name}: {error}"
        assert next(outputs, None) is None


@pytest.mark.parametrize(("cases", "whole"), batches())
def test_cases(cases: Sequence[Case], whole: bool) -> None:
    found = list(problems(cases, whole))
    assert not found, "\n".join(found)
