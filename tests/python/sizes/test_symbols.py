"""Symbolic sizes, size programs and the operator's spec: what is written evaluates to the same."""

from __future__ import annotations

import pytest
import sympy
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._sympy.functions import (
    CeilToInt,
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    Max,
    Min,
    Mod,
    ToFloat,
    TruncToInt,
)

from torch_tensorrt._operator import ResultSpec, _parse_spec, execute_engine, write_spec
from torch_tensorrt._sizes import FUNCTIONS, SizeProgram
from torch_tensorrt.dynamo._symbols import SymbolError, fold, print_size, size_operand


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
    sizes = SizeProgram()
    spec = write_spec(
        sizes,
        [
            ResultSpec(torch.float32, tuple(size_operand(size, sizes, names) for size in y.shape))
            for y in results
        ],
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
        expected = fold(expr, values.__getitem__, _apply_int)
        assert eval(printed, {"i0_0": 7, "i1_2": 3}) == expected
        program = SizeProgram()
        operand = size_operand(expr, program, names)
        assert SizeProgram(program.instructions).evaluate([operand], {"i0_0": 7, "i1_2": 3}) == [
            expected
        ]
        return printed

    assert text(a * 2 + 1) == "(i0_0*2)+1"
    assert text(FloorDiv(a + 3, 4)) == "(i0_0+3)//4"
    assert text(Mod(a, 5)) == "i0_0%5"
    assert text(Max(a, b)) == "max(i0_0,i1_2)"
    assert text(Min(a, 4)) == "min(i0_0,4)"
    assert text(a**3) == "i0_0**3"
    assert text(TruncToInt(1.5 * ToFloat(a))) == "(i0_0*3)//2"
    assert text(TruncToInt(2.0 * ToFloat(a + b))) == "(i0_0+i1_2)*2"
    assert text(FloorToInt(FloatTrueDiv(ToFloat(a), sympy.Float(2)))) == "i0_0//2"
    assert text(CeilToInt(FloatTrueDiv(ToFloat(a), sympy.Float(2)))) == "((i0_0*-1)//2)*-1"
    assert text(CeilToInt(FloatTrueDiv(ToFloat(a) - 1.0, sympy.Float(-2)))) == "((i0_0+-1)//2)*-1"
    assert text((a + b) * (a + 1)) == "(i0_0+1)*(i0_0+i1_2)"


def _apply_int(function, left, right):
    return {torch.sym_max: max, torch.sym_min: min}.get(function, function)(left, right)


def test_what_cannot_be_printed() -> None:
    a = sympy.Symbol("a", integer=True, positive=True)
    # A third is none as a float, and what may be negative is not rounded down.
    parts = (TruncToInt(ToFloat(a) / 3.0), TruncToInt(0.5 * ToFloat(a - 2)))
    for expr in (sympy.sqrt(a), sympy.sin(a), 2**a, *parts):
        with pytest.raises(SymbolError):
            print_size(expr, {a: "i0_0"})
        with pytest.raises(SymbolError):
            size_operand(expr, SizeProgram(), {a: "i0_0"})
    with pytest.raises(SymbolError, match="no input has a"):
        print_size(a, {})
    with pytest.raises(SymbolError, match="no input has a"):
        size_operand(a, SizeProgram(), {})


def value(text: str, **sizes: int) -> int | None:
    """Of instructions with commas between them, and at last an operand."""
    *instructions, operand = text.split(",")
    program = SizeProgram(instructions)
    return program.evaluate([program.operand(operand)], sizes)[0]


def test_functions_of_sizes() -> None:
    """The same numbers as tests/support/size_arithmetic_test.cpp."""
    lowest, highest = -(2**63), 2**63 - 1
    expected = {
        ("add", 7, 3): 10,
        ("sub", 7, 10): -3,
        ("mul", -7, 3): -21,
        ("max", 7, 3): 7,
        ("min", 7, 3): 3,
        ("floordiv", -7, 2): -4,
        ("floordiv", 7, -2): -4,
        ("mod", -7, 2): 1,
        ("mod", 7, -2): -1,
        ("mod", lowest, -1): 0,
        ("pow", 10, 18): 10**18,
        ("pow", 0, 0): 1,
        ("pow", -1, highest): -1,
        ("pow", 0, highest): 0,
        ("eq", 7, 7): 1,
        ("ne", 7, 7): 0,
        ("lt", 7, 7): 0,
        ("le", 7, 7): 1,
        ("gt", 8, 7): 1,
        ("ge", 7, 8): 0,
        ("and", 2, 3): 1,
        ("and", 2, 0): 0,
        ("or", 0, 3): 1,
        ("or", 0, 0): 0,
        ("add", highest, 1): None,
        ("sub", lowest, 1): None,
        ("mul", highest, 2): None,
        ("floordiv", lowest, -1): None,
        ("floordiv", 1, 0): None,
        ("mod", 1, 0): None,
        ("pow", 2, 63): None,
        ("pow", 2, highest): None,
        ("pow", 2, -1): None,
    }
    assert {function for function, _, _ in expected} == FUNCTIONS.keys() - {"data"}
    for (function, left, right), result in expected.items():
        assert value(f"{function} {left} {right},#0") == result, (function, left, right)


def test_the_first_operand_may_decide() -> None:
    assert value("floordiv 1 i0_0,eq i0_0 0,or #1 #0,#2", i0_0=0) == 1
    assert value("floordiv 1 i0_0,ne i0_0 0,and #1 #0,#2", i0_0=0) == 0
    assert value("floordiv 1 i0_0,ne i0_0 0,and #0 #1,#2", i0_0=0) is None


def test_a_program_is_as_long_as_it_is_deep() -> None:
    program = SizeProgram()
    size = program.add("add", "i0_0", 1)
    for _ in range(1000):  # of which a formula would have 2**1000 terms
        size = program.add("max", size, size)
    assert len(program.instructions) == 1001
    assert program.add("add", "i0_0", 1) == "#0"
    assert program.evaluate([size], {"i0_0": 6}) == [7]
    grown = SizeProgram(["mul i0_0 i0_0", *(f"mul #{index} #{index}" for index in range(199))])
    assert grown.evaluate(["#199"], {"i0_0": 3}) == [None]


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
        "f32[i0_0*2]",
        "f32[#0]",
        "add i0_0|f32[1]",
        "plus i0_0 1|f32[#0]",
        "add i0_0 #0|f32[#0]",
        "add i0_0 1|f32[#1]",
        "add i0_0  1|f32[#0]",
        "add i0_0 1|",
        "f32[01x]",
        "f32[i00_0]",
        "f32[1,2]{0,0}",
    ],
)
def test_bad_specs(spec) -> None:
    with pytest.raises(ValueError, match="spec"):
        _parse_spec(spec)


def test_specs_that_do_not_fit_the_inputs() -> None:
    with FakeTensorMode():
        inputs, engine = [torch.empty(0, 4)], torch.empty(1, dtype=torch.uint8)
        with pytest.raises(ValueError, match="lack the size 'i0_2'"):
            execute_engine(inputs, engine, "f32[i0_2]")
        with pytest.raises(ValueError, match="divides by zero"):
            execute_engine(inputs, engine, "floordiv i0_1 i0_0|f32[#0]")


def test_spec_of_nothing_and_of_scalars() -> None:
    assert _parse_spec("")[1] == []
    with FakeTensorMode():
        (scalar,) = execute_engine([], torch.empty(1, dtype=torch.uint8), "i64[]")
    assert scalar.shape == () and scalar.dtype == torch.int64
