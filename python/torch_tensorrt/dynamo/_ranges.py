"""The ranges of a program's symbolic sizes: what was exported, narrowed by the user's `Input`s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from torch_tensorrt._input import Input
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._symbols import UNBOUNDED, Range, expression, free_symbols, tensor_of

# Sizes of one pass of export's tracer are at least this unless the range was given: its assumption, not the user's.
_LEAST = 1


def symbol_ranges(program: Program, inputs: Sequence[Any] | None) -> dict[sympy.Symbol, Range]:
    """Ranges by symbol.

    Args:
        program: what was exported.
        inputs: one Input, tensor or other value per user input, flat, or None if none were given. Tensors only say what
            size to optimise for.
    """
    ranges = {symbol: _exported_range(program, symbol) for symbol in _symbols(program)}
    for node, given in zip(program.user_inputs, inputs or (), strict=bool(inputs)):
        tensor = tensor_of(node)
        if tensor is None or not isinstance(given, (Input, torch.Tensor)):
            continue
        low, opt, high = _shapes(given)
        if len(opt) != tensor.dim():
            raise ValueError(
                f"input {node.name!r} has {len(opt)} dimensions, but was exported with {tensor.dim()}"
            )
        for dim, size in enumerate(tensor.shape):
            where = f"input {node.name!r}, dimension {dim}"
            if isinstance(size, int):
                _check_fixed(where, size, low[dim], high[dim])
            elif (symbol := expression(size)) in ranges:
                bounds = (low[dim], high[dim]) if isinstance(given, Input) else (0, UNBOUNDED)
                ranges[symbol] = _narrow(where, ranges[symbol], bounds, opt[dim])
    return ranges


def as_constraints(
    program: Program, ranges: Mapping[sympy.Symbol, Range]
) -> dict[sympy.Symbol, ValueRanges[Any]]:
    """The ranges as torch.export has them."""
    result = dict(program.exported.range_constraints)
    for symbol, r in ranges.items():
        result[symbol] = ValueRanges(r.min, int_oo if r.max == UNBOUNDED else r.max)
    return result


def _symbols(program: Program) -> set[sympy.Symbol]:
    found: set[sympy.Symbol] = set()
    for node in program.graph.nodes:
        tensor = tensor_of(node)
        if tensor is not None:
            found |= free_symbols(tensor.shape)
    return found


def _exported_range(program: Program, symbol: sympy.Symbol) -> Range:
    bounds = program.exported.range_constraints.get(symbol)
    if bounds is None:
        return Range(_LEAST, _LEAST, UNBOUNDED)
    low = max(int(bounds.lower), _LEAST)
    high = UNBOUNDED if bounds.upper in (int_oo, sympy.oo) else min(int(bounds.upper), UNBOUNDED)
    return Range(low, low, high)


def _shapes(given: Input | torch.Tensor) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    if isinstance(given, Input):
        return given.min_shape, given.opt_shape, given.max_shape
    return (tuple(given.shape),) * 3


def _check_fixed(where: str, size: int, low: int, high: int) -> None:
    if low <= size <= high and low != high:
        raise ValueError(
            f"{where} may vary from {low} to {high}, but was exported with the fixed size {size}: export with a "
            "dynamic size there, or let torch_tensorrt.dynamo.trace do it"
        )
    if not low <= size <= high:
        raise ValueError(
            f"{where} is {low if low == high else f'{low}..{high}'}, but was exported as {size}"
        )


def _narrow(where: str, current: Range, bounds: tuple[int, int], opt: int) -> Range:
    low, high = max(current.min, bounds[0]), min(current.max, bounds[1])
    if low > high:
        raise ValueError(
            f"{where} may be {bounds[0]} to {bounds[1]}, but was exported for {current.min} to {current.max}"
        )
    return Range(low, min(max(opt, low), high), high)
