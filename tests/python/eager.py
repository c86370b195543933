"""Compares functions in an engine with eager PyTorch, element by element.

A table has many functions of the same inputs; they are compiled into one engine, which must hold them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

import torch_tensorrt

# A function, or one with the distance that its results may have from eager's, in units in the last place.
Entry = Callable[..., torch.Tensor] | tuple[Callable[..., torch.Tensor], int]
Table = Mapping[str, Entry]


class _Functions(torch.nn.Module):
    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, *args: torch.Tensor) -> tuple[Any, ...]:
        return tuple(function(*args) for function in self.functions)


def compile_functions(
    functions: Sequence[Callable[..., Any]],
    args: tuple[torch.Tensor, ...],
    dynamic_shapes: Any = None,
    **options: Any,
) -> torch.fx.GraphModule:
    """One module that computes all functions, in one engine unless `require_full_compilation=False`."""
    program = torch.export.export(
        _Functions(functions).eval(), args, dynamic_shapes=dynamic_shapes, strict=False
    )
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=args, **{"require_full_compilation": True} | options
    )


def check(call: Any, model: Any, *inputs: Any) -> None:
    """Checks that a module gives what the model does on these inputs, whatever they are made of: to 1e-5 of each
    element, or, where a sum cancelled, 1e-6 of the root mean square of its tensor."""
    with torch.no_grad():
        actual, expected = pytree.tree_leaves(call(*inputs)), pytree.tree_leaves(model(*inputs))
    assert len(actual) == len(expected)
    for result, reference in zip(actual, expected, strict=True):
        scale = 1.0
        if reference.numel() and (reference.is_floating_point() or reference.is_complex()):
            finite = torch.nan_to_num(reference.detach().abs().double(), nan=0, posinf=0)
            scale = max(1.0, float(finite.square().mean().sqrt()))
        torch.testing.assert_close(result, reference, rtol=1e-5, atol=1e-6 * scale, equal_nan=True)


def assert_as_eager(
    table: Table,
    args: tuple[torch.Tensor, ...],
    *,
    calls: Sequence[tuple[torch.Tensor, ...]] = (),
    dynamic_shapes: Any = None,
    **options: Any,
) -> None:
    """Checks every function of the table on `args`, and on each of `calls` if there are any."""
    entries = [entry if isinstance(entry, tuple) else (entry, 0) for entry in table.values()]
    module = compile_functions([f for f, _ in entries], args, dynamic_shapes, **options)
    problems = []
    for call in calls or [args]:
        for name, (function, ulps), result in zip(table, entries, module(*call), strict=True):
            if problem := difference(result, function(*call), ulps):
                problems.append(f"{name}: {problem}")
    assert not problems, "\n".join(problems)


def difference(got: torch.Tensor, expected: torch.Tensor, ulps: int = 0) -> str | None:
    """What differs, as text. NaNs are equal to each other, and so are zeros of both signs."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return (
            f"got {got.dtype} {tuple(got.shape)}, expected {expected.dtype} {tuple(expected.shape)}"
        )
    same = (got == expected) | ((got != got) & (expected != expected))
    if ulps and expected.is_floating_point():
        close = (_order(got) - _order(expected)).abs() <= ulps
        same |= close & ~got.isnan() & ~expected.isnan()
    wrong = (~same).flatten().nonzero().flatten()[:4]
    if not len(wrong):
        return None
    values = [tensor.flatten()[wrong].tolist() for tensor in (got, expected)]
    return f"{int((~same).sum())} of {same.numel()} differ, at {wrong.tolist()} got {values[0]}, expected {values[1]}"


def _order(x: torch.Tensor) -> torch.Tensor:
    """Integers in the order of the numbers, neighbours one apart."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = x.contiguous().view(kinds[x.element_size()]).to(torch.int64)
    magnitude = bits & (2 ** (8 * x.element_size() - 1) - 1)
    return torch.where(bits < 0, -magnitude, magnitude)
