"""Symbolic sizes and the operator's spec: what is printed evaluates to the same."""

from __future__ import annotations

import pytest
import sympy
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod

from torch_tensorrt._operator import _parse_spec, execute_engine
from torch_tensorrt.dynamo._symbols import SymbolError, fold, print_size


class Sizes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows, columns = x.shape
        return (
            x.new_zeros(rows * 2 + 1),
            x.new_zeros((rows + 8) // 4, columns),
            x.new_zeros(rows % 5 + 2),
            x.new_zeros(rows * rows * columns),
            x.reshape(-1),
        )


def test_sizes_of_a_program_survive_the_spec() -> None:
    dims = {
        "x": {
            0: torch.export.Dim("rows", min=2, max=64),
            1: torch.export.Dim("columns", min=2, max=64),
        }
    }
    program = torch.export.export(Sizes(), (torch.randn(6, 7),), dynamic_shapes=dims, strict=False)
    (x,) = program.graph.find_nodes(op="placeholder")
    names = {size.node.expr: f"i0_{dim}" for dim, size in enumerate(x.meta["val"].shape)}
    results = [node.meta["val"] for node in program.graph.output_node().args[0]]
    spec = ";".join(
        f"f32[{','.join(print_size(size, names) for size in result.shape)}]" for result in results
    )
    for shape in ((2, 3), (6, 7), (64, 64)):
        with FakeTensorMode():
            fakes = execute_engine([torch.empty(shape)], torch.empty(1, dtype=torch.uint8), spec)
        assert [fake.shape for fake in fakes] == [y.shape for y in Sizes()(torch.empty(shape))]


def test_printing() -> None:
    a, b = sympy.symbols("a b", integer=True, positive=True)
    names = {a: "i0_0", b: "i1_2"}

    def text(expr: sympy.Expr) -> str:
        printed = print_size(expr, names)
        values = {a: 7, b: 3}
        assert eval(printed, {"i0_0": 7, "i1_2": 3}) == fold(expr, values.__getitem__, _apply_int)
        return printed

    assert text(a * 2 + 1) == "(i0_0*2)+1"
    assert text(FloorDiv(a + 3, 4)) == "(i0_0+3)//4"
    assert text(Mod(a, 5)) == "i0_0%5"
    assert text(Max(a, b)) == "max(i0_0,i1_2)"
    assert text(Min(a, 4)) == "min(i0_0,4)"
    assert text(a**3) == "i0_0**3"
    assert text((a + b) * (a + 1)) == "(i0_0+1)*(i0_0+i1_2)"


def _apply_int(function, left, right):
    return {torch.sym_max: max, torch.sym_min: min}.get(function, function)(left, right)


def test_what_cannot_be_printed() -> None:
    a = sympy.Symbol("a", integer=True, positive=True)
    for expr in (sympy.sqrt(a), sympy.sin(a), 2**a):
        with pytest.raises(SymbolError):
            print_size(expr, {a: "i0_0"})
    with pytest.raises(SymbolError, match="no input has a"):
        print_size(a, {})


@pytest.mark.parametrize(
    "spec",
    [
        "f32",
        "f33[1]",
        "f32[x]",
        "f32[i0_0.real]",
        "f32[__import__]",
        "f32[open(1)]",
        "f32[1.5]",
        "f32[i0_0]]",
        "f32[(1,2)]x",
    ],
)
def test_bad_specs(spec) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        _parse_spec(spec)


def test_spec_of_nothing_and_of_scalars() -> None:
    assert _parse_spec("") == ()
    with FakeTensorMode():
        (scalar,) = execute_engine([], torch.empty(1, dtype=torch.uint8), "i64[]")
    assert scalar.shape == () and scalar.dtype == torch.int64
