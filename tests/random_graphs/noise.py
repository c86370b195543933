"""How far results may be apart: a model run in eager PyTorch with small errors added where its operators round.

So what is ill-conditioned has wide bounds, an operator behind it that jumps has none there, and what is exact has to be
exact. Steps say how they round:

    exact        no error of their own
    picks        the same, but of two zeros either one
    whole        those of their operands: results are whole numbers
    rounds       a few units in the last place of the result
    accumulates  the same, and those of their operands, since terms may cancel; zeros have either sign, and what is
                 less than the errors of the operands may be zero
    as operand   a few units in the last place of the operand, of which little is left: the tail of gelu
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from graph import Graph, Step

# Of one step, relative to a number. Twice the largest errors that docs/cpu_backend.md allows.
ERROR = {
    torch.float64: 2.0**-50,
    torch.float32: 2.0**-21,
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
}
# Of f64 terms: eager's transforms of 8 x 17 numbers are off by 3e-15 of the norm.
ERROR_OF_TERMS, ERROR_OF_WAVES = 2.0**-50, 2.0**-47
# Beyond the measured differences, and how often those count.
FACTOR = 4.0
RUNS, RUNS_IN_DOUBT, RUNS_AT_MOST = 6, 60, 600


def run(
    graph: Graph,
    inputs: list[torch.Tensor],
    noise: torch.Generator | None,
    constant: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
) -> list[torch.Tensor]:
    """The model step by step in eager PyTorch, with errors added if there is a generator for them."""
    scope: dict[str, Any] = {"torch": torch, "functional": torch.nn.functional}
    given = iter(inputs)
    for each in graph.inputs:
        scope[each.name] = constant(each.make({})) if each.constant else next(given)
    for step in graph.steps:
        if noise is None or step.rounding == "exact":
            scope[step.result] = _run_step(step, scope)
        else:
            scope[step.result] = _run_with_errors(step, scope, noise)
    return [scope[name] for name in graph.outputs]


def _run_step(step: Step, scope: dict[str, Any]) -> torch.Tensor:
    local = dict(scope)
    exec(step.source, local)
    return local[step.result]


def _run_with_errors(step: Step, scope: dict[str, Any], noise: torch.Generator) -> torch.Tensor:
    if step.rounding == "rounds":
        return _disturbed(_run_step(step, scope), noise)
    if step.rounding == "whole":
        return _run_step(
            step, scope | {name: _disturbed(scope[name], noise) for name in step.operands}
        )
    if step.rounding == "picks":
        return _with_either_zero(_run_step(step, scope), noise)
    if step.rounding == "as operand":
        operand = scope[step.operands[0]]
        return _run_step(step, scope) + (_disturbed(operand, noise) - operand)
    # Terms are rounded to the dtype of the result, where that has fewer bits.
    result, error = None, 0.0
    least = ERROR_OF_WAVES if "torch.fft" in step.source else ERROR_OF_TERMS
    while result is None or ERROR.get(result.dtype, 0) > error:
        error = max(error, ERROR.get(result.dtype, 0)) if result is not None else least
        of = {name: _disturbed(scope[name], noise, error) for name in step.operands}
        result = _run_step(step, scope | of)
    result = _disturbed(result, noise, _error_of_sum(step, scope, result))
    if result.dtype not in ERROR:
        return result
    vanishes = (result.abs() < _least(step, scope, error)) & _coins(result, noise)
    return _with_either_zero(result.masked_fill(vanishes, 0), noise)


def _with_either_zero(x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    if x.dtype not in ERROR:
        return x
    return torch.where((x == 0) & _coins(x, noise), -x, x)


def _coins(x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    return torch.rand(x.shape, generator=noise) < 0.5


def _least(step: Step, scope: dict[str, Any], error: float) -> float:
    """What the largest term loses in rounding."""
    terms = [scope[name].double().abs() for name in step.operands if scope[name].dtype in ERROR]
    finite = [x[x.isfinite()] for x in terms]
    return max((x.amax().item() * error for x in finite if x.numel()), default=0.0)


def _error_of_sum(step: Step, scope: dict[str, Any], result: torch.Tensor) -> float:
    """In f64, of which there is no wider opinion, sums err by the square root of how many terms they have."""
    if result.dtype != torch.float64 or not result.numel():
        return 0
    terms = scope[step.operands[0]].numel() / result.numel()
    return ERROR[torch.float64] * math.sqrt(max(terms, 1)) / 8


def _disturbed(x: torch.Tensor, noise: torch.Generator, at_least: float = 0) -> torch.Tensor:
    if x.dtype not in ERROR:
        return x
    by = torch.rand(x.shape, generator=noise, dtype=torch.float64) * 2 - 1
    wide = x.double()
    changed = wide * (1 + by * max(ERROR[x.dtype], at_least))
    # Denormals have fewer digits.
    smallest = torch.finfo(x.dtype).smallest_normal
    is_denormal = (wide.abs() < smallest) & (wide != 0)
    return torch.where(is_denormal, wide + by * smallest * ERROR[x.dtype], changed).to(x.dtype)


class Runs:
    """A call of a model in eager PyTorch: the results, and those with errors, as many as somebody asked for."""

    def __init__(self, graph: Graph, inputs: list[torch.Tensor]) -> None:
        self.graph, self.inputs = graph, inputs
        self.expected = run(graph, inputs, None)
        self._noisy: list[list[torch.Tensor]] = []

    def noisy(self, output: int, count: int) -> list[torch.Tensor]:
        for seed in range(len(self._noisy), count):
            generator = torch.Generator().manual_seed(seed)
            self._noisy.append(run(self.graph, self.inputs, generator))
        return [results[output] for results in self._noisy]


Wrong = list["torch.Tensor | str | None"]


def wrong_elements(runs: Runs, results: list[torch.Tensor], most: int = RUNS_IN_DOUBT) -> Wrong:
    """Of each result what is wrong: a mask of its elements, or what is wrong with its type; None if nothing is."""
    found: Wrong = []
    for i, (got, right) in enumerate(zip(results, runs.expected, strict=True)):
        wrong = differing(got, right, runs.noisy(i, RUNS))
        if isinstance(wrong, torch.Tensor):
            # A few elements of many runs.
            at = wrong.flatten().nonzero().flatten()
            few = [x.flatten()[at] for x in (got, right, *runs.noisy(i, most))]
            still = differing(few[0], few[1], few[2:])
            wrong = _scattered(still, at, wrong.shape)
        found.append(wrong)
    return found


def _scattered(still: torch.Tensor | None, at: torch.Tensor, shape: Any) -> torch.Tensor | None:
    if still is None:
        return None
    return torch.zeros(shape, dtype=torch.bool).flatten().index_put((at,), still).view(shape)


def differing(
    got: torch.Tensor, expected: torch.Tensor, noisy: list[torch.Tensor]
) -> torch.Tensor | str | None:
    """Where a result differs by more than it may."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return (
            f"got {got.dtype} {tuple(got.shape)}, expected {expected.dtype} {tuple(expected.shape)}"
        )
    if not got.numel():
        return None
    a, e = got.double(), expected.double()
    others = torch.stack([each.double() for each in noisy])
    same = (got == expected) | (a.isnan() & e.isnan())
    steady = ((others == e) | (others.isnan() & e.isnan())).all(0)
    if expected.dtype in ERROR:
        finite = e.isfinite() & others.isfinite().all(0)
        spread = (others - e).abs().amax(0)
        tiny = torch.finfo(expected.dtype).smallest_normal * ERROR[expected.dtype] * 8
        allowed = FACTOR * spread + tiny
        unsure = ~finite & ~steady
        same |= unsure | (finite & ((a - e).abs() <= allowed))
    else:
        same |= ~steady
    return None if same.all() else ~same
