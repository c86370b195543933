"""Every element-wise function over the whole range of every dtype: within 4 units in the last place of the exact value,
or no further from it than PyTorch is. Compiled code for each CPU level, and the reference interpreter.

KILN_SHOW_ULPS=1 prints the largest errors, for the table in docs/cpu_backend.md."""

from __future__ import annotations

import functools
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import accuracy
import numpy as np
import pytest
import reference
import torch
from accuracy import BOUND, FLOATS, Function
from accuracy_table import BINARY, ELSEWHERE, UNARY

import kiln

VARIANTS = ("x86-64-v4", "x86-64-v3", "reference")
GROUPS = {"unary": UNARY, "binary": BINARY}


class Model(torch.nn.Module):
    def __init__(self, functions: Sequence[Function]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, *x: torch.Tensor) -> list[torch.Tensor]:
        return [function.call(*x) for function in self.functions]


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def functions_of(group: str, dtype: torch.dtype) -> list[Function]:
    functions = []
    for function in GROUPS[group]:
        sample = inputs_of(group, dtype)
        try:
            function.call(*(x[:2] for x in sample))
        except (RuntimeError, NotImplementedError):
            continue  # PyTorch has no such function of this dtype
        functions.append(function)
    return functions


@functools.cache
def inputs_of(group: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return (accuracy.sweep(dtype),) if group == "unary" else accuracy.pairs(dtype)


@functools.cache
def program_of(group: str, dtype: torch.dtype) -> torch.export.ExportedProgram:
    functions = functions_of(group, dtype)
    return torch.export.export(Model(functions), inputs_of(group, dtype), strict=False)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("accuracy")

    @functools.cache
    def engine(group: str, dtype: torch.dtype) -> Path:
        path = folder / f"{group}_{short(dtype)}.pt2"
        torch.export.save(program_of(group, dtype), path)
        kiln.compile(path, output=path.with_suffix(".kiln"))
        return path.with_suffix(".kiln")

    return engine


def results(engines, group: str, dtype: torch.dtype, variant: str) -> list[torch.Tensor]:
    inputs = inputs_of(group, dtype)
    if variant != "reference":
        return run_engine(engines(group, dtype), inputs, variant)
    if not reference.find_runner().exists():
        pytest.skip(f"{reference.find_runner()} is not built")
    return reference.run(program_of(group, dtype), inputs)


def same(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Equal, or NaN both. The signs of zeros have a test of their own: PyTorch's depend on the vector's length."""
    return ((a == b) | (a.isnan() & b.isnan())).numpy()


def wrong(
    function: Function, inputs: Sequence[torch.Tensor], got: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Where the bound is broken, and the errors."""
    eager = function.call(*inputs)
    assert got.dtype == eager.dtype
    if function.exact is None:
        return ~same(got, eager), np.zeros(got.shape)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operands = [accuracy.to_long(x) for x in inputs]
        exact = function.exact(*operands)
        scale = function.scale(*operands) if function.scale else None
        ours, theirs = (accuracy.errors(x, exact, scale) for x in (got, eager))
    theirs = np.where(np.isnan(theirs), 0, theirs)
    allowed = theirs + BOUND if function.inherent else np.maximum(theirs, BOUND)
    return (ours > allowed) & ~same(got, eager), ours


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=short)
@pytest.mark.parametrize("group", GROUPS)
def test_errors_are_bounded(engines, group: str, dtype: torch.dtype, variant: str) -> None:
    inputs = inputs_of(group, dtype)
    faults = []
    functions = functions_of(group, dtype)
    for function, got in zip(functions, results(engines, group, dtype, variant), strict=True):
        broken, errors = wrong(function, inputs, got)
        if os.environ.get("KILN_SHOW_ULPS"):
            usual = np.where(np.isfinite(errors), errors, 0)
            print(f"{function.name:20} {short(dtype):9} {variant:10} {float(usual.max()):.3g}")
        if broken.any():
            places = np.flatnonzero(broken)
            at = int(places[np.argmax(np.where(np.isfinite(errors[places]), errors[places], 1e30))])
            eager = function.call(*(x[at : at + 1] for x in inputs))
            faults.append(
                f"{function.name}: {len(places)} of {broken.size}, worst at {[x[at].item() for x in inputs]}: "
                f"got {got[at].item()}, PyTorch gives {eager.item()}, error {float(errors[at]):.4g} ulp"
            )
    assert not faults, "\n".join(faults)


def test_every_function_is_measured() -> None:
    names = {function.name.split("-")[0] for function in UNARY + BINARY}
    measured = names | {name.rstrip("0123456789.") for name in names}
    targets = accuracy.pointwise_targets()
    assert targets - measured - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) - targets == set(), "exceptions for functions that are no longer there"


def run_exported(
    program: torch.export.ExportedProgram, inputs: Sequence[torch.Tensor], variant: str | None
) -> list[torch.Tensor]:
    if variant == "reference":
        return reference.run(program, inputs)
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, f"{folder}/model.pt2")
        return run_engine(kiln.compile(f"{folder}/model.pt2"), inputs, variant)


def run_engine(
    source: Path | bytes, inputs: Sequence[torch.Tensor], variant: str | None
) -> list[torch.Tensor]:
    try:
        engine = kiln.load(source, target=f"cpu:{variant}" if variant else None)
    except kiln.UnsupportedError:
        pytest.skip(f"this CPU cannot run {variant}")
    outputs = engine.session().run(*(reference.to_numpy(x) for x in inputs))
    return [reference.from_numpy(output) for output in outputs]


# --- Integers ---

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def wrapped(value: int, dtype: torch.dtype) -> int:
    info = torch.iinfo(dtype)
    return (value - info.min) % (info.max - info.min + 1) + info.min


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


class Divisions(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.floor_divide(a, b),
            torch.remainder(a, b),
            torch.fmod(a, b),
            torch.div(a, b, rounding_mode="floor"),
            torch.div(a, b, rounding_mode="trunc"),
        ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=short)
def test_divisions_of_integers_are_exact(dtype: torch.dtype, variant: str) -> None:
    """Signs as Python's // and %, the least number by -1 wraps around."""
    info = torch.iinfo(dtype)
    numbers = sorted(
        {
            wrapped(n, dtype)
            for n in (*range(-9, 10), info.min, info.min + 1, info.max - 1, info.max)
        }
    )
    couples = [(a, b) for a in numbers for b in numbers if b != 0]
    a, b = (torch.tensor(column, dtype=dtype) for column in zip(*couples, strict=True))
    exported = torch.export.export(
        Divisions(), (torch.ones_like(a), torch.ones_like(b)), strict=False
    )
    got = run_exported(exported, (a, b), variant)
    floor = [wrapped(x // y, dtype) for x, y in couples]
    trunc = [wrapped(truncated(x, y), dtype) for x, y in couples]
    rest = [x % y for x, y in couples]
    signed_rest = [x - truncated(x, y) * y for x, y in couples]
    for result, expected in zip(got, (floor, rest, signed_rest, floor, trunc), strict=True):
        assert result.tolist() == expected


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=short)
def test_signs_of_zeros(dtype: torch.dtype, variant: str) -> None:
    """Where they are defined: divisions with a rest, and functions that are odd."""
    a = torch.tensor([4.0, -4.0, 4.0, -4.0, 0.0, -0.0, 0.0, -0.0, 1.0, -1.0], dtype=dtype)
    b = torch.tensor([2.0, 2.0, -2.0, -2.0, 3.0, 3.0, -3.0, -3.0, 9.0, -9.0], dtype=dtype)

    def divisions(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        trunc = torch.div(a, b, rounding_mode="trunc")
        return [torch.fmod(a, b), torch.remainder(a, b), torch.floor_divide(a, b), trunc]

    for got, expected in zip(
        compiled(divisions, a, b, variant=variant), divisions(a, b), strict=True
    ):
        assert torch.equal(got, expected)
        assert torch.equal(torch.signbit(got), torch.signbit(expected))
    odd = [
        "sin",
        "tan",
        "asin",
        "atan",
        "sinh",
        "tanh",
        "asinh",
        "atanh",
        "erf",
        "expm1",
        "log1p",
        "sqrt",
    ]
    zeros = torch.tensor([0.0, -0.0], dtype=dtype)
    for got in compiled(
        lambda x: [getattr(torch, name)(x) for name in odd], zeros, variant=variant
    ):
        assert torch.signbit(got).tolist() == [False, True]
    (got,) = compiled(torch.sign, zeros, variant=variant)
    assert not torch.signbit(got).any()


# --- What scripts rely on ---


def compiled(
    function: Callable[..., object], *inputs: torch.Tensor, variant: str | None = None
) -> list[torch.Tensor]:
    class One(torch.nn.Module):
        def forward(self, *x: torch.Tensor) -> object:
            return function(*x)

    return run_exported(torch.export.export(One(), inputs, strict=False), inputs, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "lowest", "highest"), [(torch.float32, -149, 128), (torch.float64, -1074, 1024)]
)
def test_logarithms_of_powers_are_integers(
    dtype: torch.dtype, lowest: int, highest: int, variant: str
) -> None:
    powers = torch.arange(lowest, highest, dtype=torch.float64)
    (got,) = compiled(torch.log2, torch.exp2(powers).to(dtype), variant=variant)
    assert got.double().tolist() == powers.tolist()
    decimals = range(-37, 39) if dtype == torch.float32 else range(-307, 309)
    (got,) = compiled(
        torch.log10, torch.tensor([float(f"1e{k}") for k in decimals], dtype=dtype), variant=variant
    )
    assert got.tolist() == list(decimals)


@pytest.mark.parametrize("dtype", FLOATS, ids=short)
def test_folded_constants_are_the_same(dtype: torch.dtype) -> None:
    """A function of a constant is what the function of an operand is."""
    for value in (0.3, 0.7, 1.5, 5.0):
        functions = [f for f in functions_of("unary", dtype) if f.exact]
        x = torch.tensor([value, value], dtype=dtype)

        def run(x: torch.Tensor, functions=functions) -> list[torch.Tensor]:
            return [function.call(x) for function in functions]

        folded = compiled(lambda y, v=value: [r + 0 * y for r in run(torch.full_like(y, v))], x)
        for function, a, b in zip(functions, folded, compiled(run, x), strict=True):
            exact = function.exact(accuracy.to_long(x))
            scale = function.scale(accuracy.to_long(x)) if function.scale else None
            worst = max(accuracy.errors(y, exact, scale).max() for y in (a, b))
            theirs = accuracy.errors(function.call(x), exact, scale).max()
            assert worst <= max(BOUND, float(np.nan_to_num(theirs))), function.name
