"""The ranges of a program's symbolic sizes: what was exported, narrowed by the user's `Input`s."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from torch_tensorrt._input import Input
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._small_sizes import holds
from torch_tensorrt.dynamo._symbols import (
    UNBOUNDED,
    Linear,
    Range,
    free_symbols,
    linear,
    tensor_of,
)

logger = logging.getLogger(__name__)

# torch.export's tracer takes 0 and 1 for constants, and writes 2 as the lower bound of what is left. By its own rule,
# that does not exclude them: the module that it gives back checks no lower bound of 2 or less.
TRACERS_LEAST = 2


def symbol_ranges(program: Program, inputs: Sequence[Any] | None) -> dict[sympy.Symbol, Range]:
    """Ranges by symbol. Sizes of 0 and 1 are in them wherever the exporter's own module takes them and the program,
    which was traced without them, holds for them.

    Args:
        program: what was exported.
        inputs: one Input, tensor or other value per user input, flat, or None if none were given. Only Inputs with a
            range narrow; others say what size to optimise for.
    """
    symbols = _symbols(program) - program.data_symbols.keys()
    ranges = {symbol: _exported_range(program, symbol) for symbol in symbols}
    for node, given in zip(program.user_inputs, inputs or (), strict=bool(inputs)):
        tensor = tensor_of(node)
        if tensor is None or not isinstance(given, (Input, torch.Tensor)):
            continue
        low, opt, high = _shapes(given)
        if len(opt) != tensor.dim():
            raise ValueError(
                f"input {node.name!r} has {len(opt)} dimensions, but was exported with {tensor.dim()}"
            )
        narrows = isinstance(given, Input) and given.is_dynamic
        for dim, size in enumerate(tensor.shape):
            where = f"input {node.name!r}, dimension {dim}"
            if isinstance(size, int):
                _check_fixed(where, size, low[dim], high[dim])
                continue
            found = linear(size)
            if found is not None and found.symbol in ranges:
                bounds = (low[dim], opt[dim], high[dim])
                if not narrows:
                    bounds = _static(where, found, ranges[found.symbol], given, opt[dim])
                ranges[found.symbol] = _narrow(where, found, ranges[found.symbol], bounds)
    return _without_special_cases(program, ranges)


def tracers_ranges(
    program: Program, ranges: Mapping[sympy.Symbol, Range], least_size: int = TRACERS_LEAST
) -> dict[sympy.Symbol, Range]:
    """The ranges without the 0 and 1 that the tracer left out, or without the 0 alone (`least_size=1`), for what cannot
    be compiled with them."""
    result = {}
    for symbol, r in ranges.items():
        least = max(r.min, min(_written_least(program, symbol), least_size, r.max))
        result[symbol] = replace(r, min=least, opt=max(r.opt, least))
    return result


def as_constraints(
    program: Program, ranges: Mapping[sympy.Symbol, Range]
) -> dict[sympy.Symbol, ValueRanges[Any]]:
    """The ranges as torch.export has them."""
    result = dict(program.exported.range_constraints)
    for symbol, r in ranges.items():
        result[symbol] = value_range(r.min, r.max)
    for size in list(result):
        found = linear(size)
        if found is not None and not found.is_plain and found.symbol in ranges:
            r = ranges[found.symbol]
            result[size] = value_range(found.size(r.min), found.size(r.max))
    return result


def value_range(low: int, high: int | None) -> ValueRanges[Any]:
    """Sizes from `low` to `high`; UNBOUNDED or None: any."""
    return ValueRanges(low, int_oo if high is None or high >= UNBOUNDED else high)


def _symbols(program: Program) -> set[sympy.Symbol]:
    found: set[sympy.Symbol] = set()
    for node in program.graph.nodes:
        tensor = tensor_of(node)
        if tensor is not None:
            found |= free_symbols(tensor.shape)
    return found


def range_bounds(bounds: Any) -> tuple[int, int]:
    """The least and the largest size of a constraint of torch.export; UNBOUNDED for none."""
    unbounded = bounds.upper in (int_oo, sympy.oo)
    return max(int(bounds.lower), 0), UNBOUNDED if unbounded else min(int(bounds.upper), UNBOUNDED)


def _written(program: Program, size: sympy.Expr) -> tuple[int, int]:
    """The bounds that the program writes down for a size or a symbol."""
    bounds = program.exported.range_constraints.get(size)
    return (1, UNBOUNDED) if bounds is None else range_bounds(bounds)


def _written_least(program: Program, symbol: sympy.Symbol) -> int:
    """The smallest value of a symbol that the program writes down, in whatever size."""
    least, _ = _written(program, symbol)
    shown = [found.least(_written(program, size)[0]) for size, found in _sizes(program, symbol)]
    return max(0, min([least, *shown]))


def _exported_range(program: Program, symbol: sympy.Symbol) -> Range:
    """What the exporter's own module takes: of the sizes of inputs, lower bounds above 2 alone are meant."""
    least, high = _written(program, symbol)
    sizes = _sizes(program, symbol)
    if program.guarded or not sizes:
        return Range(least, least, high)
    low = 0 if least == TRACERS_LEAST else least
    for size, found in sizes:
        if found.is_plain or size not in program.exported.range_constraints:
            continue
        size_low, size_high = _written(program, size)
        follows = least == TRACERS_LEAST and size_low == found.size(TRACERS_LEAST)
        is_meant = size_low > TRACERS_LEAST and not follows
        low = max(low, found.least(size_low if is_meant else 0))
        high = min(high, found.largest(size_high))
    return Range(low, min(max(low, least), high), high)


def _sizes(program: Program, symbol: sympy.Symbol) -> list[tuple[sympy.Expr, Linear]]:
    """The sizes of inputs from which a symbol follows."""
    return [(size, found) for size, found in _linear_sizes(program) if found.symbol == symbol]


def _linear_sizes(program: Program) -> Iterator[tuple[sympy.Expr, Linear]]:
    for node in program.user_inputs:
        tensor = tensor_of(node)
        for size in tensor.shape if tensor is not None else ():
            found = linear(size) if isinstance(size, torch.SymInt) else None
            if found is not None:
                yield size.node.expr, found


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


def _static(
    where: str, size: Linear, current: Range, given: Any, value: int
) -> tuple[int, int, int]:
    """A fixed shape keeps the range of the program; an Input's has to be in it."""
    if isinstance(given, Input) and not size.size(current.min) <= value <= size.size(current.max):
        raise ValueError(
            f"{where} is {value}, but was exported for {size.size(current.min)} to {size.size(current.max)}"
        )
    return 0, value, UNBOUNDED


def _narrow(where: str, size: Linear, current: Range, bounds: tuple[int, int, int]) -> Range:
    least, opt, most = bounds
    low, high = max(current.min, size.least(least)), min(current.max, size.largest(most))
    if low > high:
        raise ValueError(
            f"{where} may be {least} to {most}, but was exported for {size.size(current.min)} to "
            f"{size.size(current.max)}"
        )
    return Range(low, min(max(size.largest(opt), low), high), high)


def _without_special_cases(
    program: Program, ranges: dict[sympy.Symbol, Range]
) -> dict[sympy.Symbol, Range]:
    """Leaves out 0 and 1 where the traced graph is not the model's: it may squeeze, or reduce what is not there."""
    if program.guarded:
        return ranges
    of_inputs = {found.symbol for _, found in _linear_sizes(program)}
    for symbol in sorted(of_inputs & ranges.keys(), key=str):
        r = ranges[symbol]
        declared = _written_least(program, symbol)
        for value in range(min(r.max, TRACERS_LEAST) - 1, r.min - 1, -1):
            if not holds(program, ranges, symbol, value, unless_known=value >= declared):
                logger.info("size %s: the traced model does not hold for %d", symbol, value)
                ranges[symbol] = replace(r, min=value + 1, opt=max(r.opt, value + 1))
                break
    return ranges
