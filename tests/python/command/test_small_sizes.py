"""Sizes of 0 and 1 that the tracer leaves out: the compiler of archives takes them where the front end does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import kiln
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._ranges import symbol_ranges


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)).flatten(1)


class Squeeze(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 2).squeeze(0)


class Extreme(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax(0)


class First(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[0] + 1


class Second(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[1] + 1


AUTO, DYNAMIC = torch.export.Dim.AUTO, torch.export.Dim.DYNAMIC
D = torch.export.Dim("d", max=32)


def export(module: torch.nn.Module, dim: Any) -> torch.export.ExportedProgram:
    return torch.export.export(module.eval(), (torch.randn(4, 16),), dynamic_shapes=({0: dim},))


@pytest.mark.parametrize(
    "module", [Network(), Squeeze(), Extreme(), First(), Second()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize(
    "dim, factor", [(AUTO, 1), (DYNAMIC, 1), (D, 1), (2 * D, 2)], ids=["auto", "dynamic", "d", "2d"]
)
def test_the_compiler_and_the_front_end_take_the_same_sizes(tmp_path, module, dim, factor) -> None:
    exported = export(module, dim)
    torch.export.save(exported, tmp_path / "m.pt2")
    engine = kiln.load(kiln.compile(tmp_path / "m.pt2"))
    [wanted] = symbol_ranges(Program(exported), None).values()
    [x] = engine.describe()["inputs"]
    # A declared size for which an operator has no result is an error of the run, as in PyTorch.
    keeps = isinstance(module, Extreme) and dim in (D, 2 * D)
    assert x["dims"][0]["min"] == (0 if keeps else wanted.min * factor)
    session = engine.session()
    for size in range(0, 4, factor):
        x = torch.randn(size, 16)
        if size < wanted.min * factor:
            with pytest.raises(kiln.KilnError, match="x"):
                session.run(x.numpy())
        else:
            [y] = session.run(x.numpy())
            expected = module(x).detach().numpy()
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_what_is_expected_of_each(tmp_path) -> None:
    """So that the two cannot agree on something else."""
    least = {Network: 0, Extreme: 1, First: 1, Second: 2, Squeeze: 2}
    for module, expected in least.items():
        torch.export.save(export(module(), AUTO), tmp_path / "m.pt2")
        description = kiln.inspect(kiln.compile(tmp_path / "m.pt2"))
        assert description["inputs"][0]["dims"][0]["min"] == expected, module


def test_a_range_that_is_asked_for_is_the_range(tmp_path) -> None:
    torch.export.save(export(Network(), AUTO), tmp_path / "m.pt2")
    engine = kiln.compile(tmp_path / "m.pt2", ranges=[kiln.InputRange("x", 0, 2, 4, 8)])
    assert kiln.inspect(engine)["inputs"][0]["dims"][0]["min"] == 2
