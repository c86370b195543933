"""Second opinions of elements that differ from eager's by more than errors of rounding that were tried (noise.py).

Eager PyTorch is one computation of several that are right, and not always the best. An element is explained, and the
model's status is "rounding" and not "wrong", if one of these holds:

    f64               no element is farther from what eager gives in f64 than twice the farthest of eager's; what is
                      finite in f64 and overflows in eager may do so
    f32               results of f64 are as near as eager's error in f32 lets expect: it is scaled to f64's digits
    other attention   eager's attention of products and softmax, in the place of its fused kernel, gives the element
    as exported       the program that torch.export made of the model, run by PyTorch, gives the element
    steps of 16 bits  the model compiled with `emulate_precision_casts`, which rounds each step, has the right element
    more runs         ten times as many errors that were tried
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from graph import Graph
from noise import ERROR, FACTOR, RUNS, RUNS_AT_MOST, Runs, Wrong, differing, run, wrong_elements

Results = list[torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One call of a model: what it was called with and what an engine gave."""

    runs: Runs
    program: torch.export.ExportedProgram
    results: Results


def explained(case: Case, wrong: Wrong, rounded: Callable[[], Results]) -> tuple[Wrong, list[str]]:
    """What stays wrong, and the opinions that were needed. `rounded` runs the model with steps of 16 bits."""
    names = []
    for name, opinion in _opinions(case, rounded):
        left = []
        for i, each in enumerate(wrong):
            still = None if each is None else _without(each, opinion(i))
            if still is not each and name not in names:
                names.append(name)
            left.append(still)
        wrong = left
        if all(each is None for each in wrong):
            break  # the next one would be computed
    return wrong, names


def _without(wrong: torch.Tensor | str, right: torch.Tensor | bool) -> torch.Tensor | str | None:
    if isinstance(right, bool):
        return None if right else wrong
    if isinstance(wrong, str) or not (wrong & right).any():
        return wrong
    return wrong & ~right if (wrong & ~right).any() else None


Opinion = Callable[[int], "torch.Tensor | bool"]


def _opinions(case: Case, rounded: Callable[[], Results]) -> Iterator[tuple[str, Opinion]]:
    graph, inputs, results = case.runs.graph, case.runs.inputs, case.results
    expected = case.runs.expected
    text = graph.to_json()
    exact = _in_f64(graph, inputs)
    if exact is not None:
        yield "as near to f64 as eager", lambda i: is_as_near(results[i], expected[i], exact[i])
    if any(x.dtype == torch.float64 for x in results):
        errors = _errors_in_f32(graph, inputs)
        yield (
            "as near as f32 lets expect",
            lambda i: _is_within(results[i], expected[i], errors[i]),
        )
    if "scaled_dot_product_attention" in text:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            other = wrong_elements(Runs(graph, inputs), results)
        yield "as eager's other attention", lambda i: _right(other[i])
    noisy = [run(graph, inputs, torch.Generator().manual_seed(i)) for i in range(RUNS)]
    for again in _exported_results(case):
        yield (
            "as exported",
            lambda i, a=again: _as_exported(results[i], a[i], [x[i] for x in noisy]),
        )
    if "float16" in text:
        steps = wrong_elements(case.runs, rounded())
        yield "right with steps of 16 bits", lambda i: _right(steps[i])
    last = wrong_elements(case.runs, results, RUNS_AT_MOST)
    yield "more runs", lambda i: _right(last[i])


def _exported_results(case: Case) -> Iterator[Results]:
    """What PyTorch makes of the program as it is, and decomposed: writes to what may be a view are fixed then."""
    for made in (lambda: case.program, lambda: case.program.run_decompositions()):
        try:
            yield list(made().module()(*[x.clone() for x in case.runs.inputs]))
        except Exception:
            continue  # sizes that the program refuses


def _in_f64(graph: Graph, inputs: Results) -> Results | None:
    """Quotients of integers have the default dtype. Nothing where an operator does not take f64."""
    wider = in_dtype(graph, "float64")
    torch.set_default_dtype(torch.float64)
    try:
        return run(wider, [_wide(x) for x in inputs], None, _wide)
    except RuntimeError:
        return None
    finally:
        torch.set_default_dtype(torch.float32)


def _right(wrong: torch.Tensor | str | None) -> torch.Tensor | bool:
    return ~wrong if isinstance(wrong, torch.Tensor) else wrong is None


def _as_exported(
    got: torch.Tensor, again: torch.Tensor, noisy: list[torch.Tensor]
) -> torch.Tensor | bool:
    alike = all(x.shape == again.shape for x in noisy)
    return _right(differing(got, again, noisy if alike else [again]))


def in_dtype(graph: Graph, dtype: str) -> Graph:
    """The model with f64 in the place of what is narrower, or f32 in that of f64, for inputs of that dtype."""
    if dtype == "float64":
        changes = (
            (r"torch\.(float32|float16|bfloat16)\b", "torch.float64"),
            (r"torch\.complex64\b", "torch.complex128"),
            (r"\.float\(\)", ".double()"),
        )
    else:
        changes = (
            (r"torch\.float64\b", "torch.float32"),
            (r"torch\.complex128\b", "torch.complex64"),
            (r"\.double\(\)", ".float()"),
        )
    dtypes = _dtypes(graph)

    def limited(match: re.Match[str]) -> str:
        # The largest number is that of the dtype it had; integers are numbers as they are.
        limits = torch.float32 if match[2] else dtypes[match[1]]
        if not limits.is_floating_point:
            return match[0]
        most = torch.finfo(limits).max
        return f"torch.nan_to_num({match[1]}{match[2] or ''}, 0.0, {most}, {-most})"

    steps = []
    for step in graph.steps:
        source = step.source
        if dtype == "float64":
            source = re.sub(r"torch\.nan_to_num\((\w+)(\.float\(\))?\)", limited, source)
        for pattern, by in changes:
            source = re.sub(pattern, by, source)
        steps.append(replace(step, source=source))
    return replace(graph, steps=tuple(steps))


def _dtypes(graph: Graph) -> dict[str, torch.dtype]:
    names = [*(each.name for each in graph.inputs), *(step.result for step in graph.steps)]
    values = run(replace(graph, outputs=tuple(names)), graph.tensors(graph.sizes()[0]), None)
    return {name: value.dtype for name, value in zip(names, values, strict=True)}


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x


def _narrow(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype == torch.float64 else x


def is_as_near(got: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor) -> torch.Tensor | bool:
    """Where an element is the exact one rounded, or twice as far from it as the farthest of eager's at most."""
    if not got.shape == eager.shape == exact.shape:
        return False
    if not got.is_floating_point() or not exact.is_floating_point():
        return got == exact
    g, e = got.double(), eager.double()
    rounded = exact.to(got.dtype).double()
    same = (g == rounded) | (g.isnan() & rounded.isnan())
    # Sums that overflow on the way, in an order of their own, or in eager alone.
    overflows = ~e.isfinite() & rounded.isfinite()
    near = (g - rounded).abs() <= ERROR[got.dtype] ** 0.5 * rounded.abs()
    same |= overflows & (~g.isfinite() | near)
    errors = (e - exact).abs()
    most = errors[errors.isfinite()].amax() if errors.isfinite().any() else 0
    return same | ((g - exact).abs() <= 2 * most)


def _errors_in_f32(graph: Graph, inputs: Results) -> list[torch.Tensor | None]:
    """The farthest that eager's results in f32 are from those in f64, for the same inputs."""
    small = [_narrow(x) for x in inputs]
    narrow = run(in_dtype(graph, "float32"), small, None, _narrow)
    wide = [
        x.double() if y.dtype == torch.float64 else x for x, y in zip(small, inputs, strict=True)
    ]
    exact = run(graph, wide, None, lambda x: _narrow(x).double() if x.dtype == torch.float64 else x)
    found: list[torch.Tensor | None] = []
    for a, e in zip(narrow, exact, strict=True):
        if e.dtype != torch.float64 or a.shape != e.shape:
            found.append(None)
            continue
        errors = (a.double() - e).abs()
        errors = errors[errors.isfinite()]
        found.append(errors.amax() if errors.numel() else None)
    return found


def _is_within(
    got: torch.Tensor, expected: torch.Tensor, error: torch.Tensor | None
) -> torch.Tensor | bool:
    if error is None or got.shape != expected.shape:
        return False
    return (got - expected).abs() <= FACTOR * error * 2.0 ** (24 - 53)
