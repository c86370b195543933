"""Compiles a random model and compares it with eager PyTorch.

How far a result may be from eager's is measured: the model is run several times with small errors added where an
operator rounds, and an element may differ by a few times what those differ by. So what is ill-conditioned has wide
bounds, an operator behind it that jumps has none there, and what is exact has to be exact. Steps say how they round:

    exact        no error of their own
    rounds       a few units in the last place of the result
    accumulates  the same, and those of their operands, since terms may cancel
    as operand   a few units in the last place of the operand, of which little is left: the tail of gelu

What differs by more gets a second opinion, and has the status "rounding" and not "wrong" if one of these holds:

    steps of 16 bits  the model compiled with `emulate_precision_casts`, which rounds each step, has the right result
    f64               no element is farther from what eager PyTorch gives in f64 than twice the farthest of eager's
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from graph import Graph

import torch_tensorrt

# Of one step, relative to a number. Twice the largest errors that docs/cpu_backend.md allows.
ERROR = {
    torch.float64: 2.0**-50,
    torch.float32: 2.0**-21,
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
}
# Beyond the measured differences, and how often those count.
FACTOR = 4.0
RUNS, RUNS_IN_DOUBT = 6, 60


def check(graph: Graph) -> dict[str, Any]:
    """A status (pass, rounding, wrong, refused, error, not exported) and reasons."""
    module = graph.module()
    calls = [(sizes, graph.tensors(sizes)) for sizes in graph.sizes()]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(
                module, tuple(calls[0][1]), dynamic_shapes=_dynamic_shapes(graph), strict=False
            )
        except Exception as error:
            return _outcome("not exported", error)
        try:
            compiled, reasons = _compile(program, graph)
            rounding: dict[str, int] = {}
        except Exception as error:
            return _outcome("error", error)
        low = {name: limits[0] for name, limits in graph.symbols.items()}
        if "small sizes" in reasons:
            low = {name: max(limits[0], 2) for name, limits in graph.symbols.items()}
        for sizes, inputs in [*calls, calls[0]]:
            if any(sizes[name] < low[name] for name in sizes):
                continue
            try:
                results = compiled(*[x.clone() for x in inputs])
            except Exception as error:
                # Sizes of 0 and 1 are in a range where the traced graph is the model's for them, too.
                if min(sizes.values(), default=2) < 2 and "expected" in str(error):
                    reasons = {**reasons, "small sizes": 1}
                    continue
                if "do not fit together" in str(error) and (said := _refusal(program, inputs)):
                    return _outcome("not exported", said)
                return _outcome("error", error, f"the call with {sizes}: ")
            for i, problem in enumerate(_problems(graph, inputs, results)):
                if not problem:
                    continue
                opinion = _second_opinion(program, graph, inputs, results, i)
                if opinion:
                    rounding[f"rounding: {opinion}"] = 1
                    continue
                text = f"{graph.outputs[i]} with {sizes}: {problem}"
                return {"status": "wrong", "reasons": {text: 1}, "output": graph.outputs[i]}
    status = "refused" if reasons else "rounding" if rounding else "pass"
    return {"status": status, "reasons": reasons | rounding}


def _second_opinion(
    program: Any, graph: Graph, inputs: list[torch.Tensor], results: Any, output: int
) -> str | None:
    """Why a result that differs from eager's is a matter of rounding, if it is."""
    exact = run(in_f64(graph), [_widened(x) for x in inputs], None, _widened)[output]
    if _is_as_near(results[output], run(graph, inputs, None)[output], exact):
        return "as near to f64 as eager"
    if "float16" not in graph.to_json():
        return None
    rounded, _ = _compile(program, graph, emulate_precision_casts=True)
    problem = _problems(graph, inputs, rounded(*[x.clone() for x in inputs]))[output]
    return None if problem else "right with steps of 16 bits"


def in_f64(graph: Graph) -> Graph:
    """The model with f64 in the place of what is narrower, for inputs that are wider too."""
    wider = (
        (r"torch\.(float32|float16|bfloat16)\b", "torch.float64"),
        (r"torch\.complex64\b", "torch.complex128"),
        (r"\.float\(\)", ".double()"),
    )
    steps = []
    for step in graph.steps:
        source = step.source
        for pattern, by in wider:
            source = re.sub(pattern, by, source)
        steps.append(replace(step, source=source))
    return replace(graph, steps=tuple(steps))


def _widened(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x


def _is_as_near(got: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether each element is the exact one rounded, or twice as far from it as the farthest of eager's at most."""
    if got.shape != exact.shape or not got.is_floating_point() or not exact.is_floating_point():
        return False
    g, e = got.double(), eager.double()
    rounded = exact.to(got.dtype).double()
    same = (g == e) | (g == rounded) | (g.isnan() & (e.isnan() | rounded.isnan()))
    errors = (e - exact).abs()
    most = errors[errors.isfinite()].amax() if errors.isfinite().any() else 0
    return bool((same | ((g - exact).abs() <= 2 * most)).all())


def _refusal(program: torch.export.ExportedProgram, inputs: list[torch.Tensor]) -> Any:
    """What torch.export's own module says of sizes that it excludes although it was asked for them, or None."""
    try:
        program.module()(*inputs)
    except Exception as error:
        return error
    return None


def _compile(program: Any, graph: Graph, **settings: Any) -> tuple[Any, dict[str, int]]:
    """One engine; where that is refused, engines and PyTorch in turn, or ranges without 0 and 1, with the reason."""
    reasons: dict[str, int] = {}
    low, options = 0, {"require_full_compilation": True}
    while True:
        try:
            inputs = [_range(each, graph, low) for each in graph.arguments()]
            return torch_tensorrt.dynamo.compile(
                program,
                arg_inputs=inputs,
                min_block_size=1,
                targets=graph.target,
                **options,
                **settings,
            ), reasons
        except Exception as error:
            found = _refusals(error)
            small = any(limits[0] < 2 for limits in graph.symbols.values()) and not low
            if found and options:
                reasons.update(found)
                options = {}
            elif small and not found:
                reasons["small sizes"] = 1
                reasons[_first_line(error)] = 1
                low = 2
            else:
                raise


def _range(each: Any, graph: Graph, low: int) -> torch_tensorrt.Input:
    limits = {name: (max(v[0], low), v[1], v[2]) for name, v in graph.symbols.items()}
    shapes = [
        tuple(limits[size][i] if isinstance(size, str) else size for size in each.shape)
        for i in range(3)
    ]
    return torch_tensorrt.Input(
        min_shape=shapes[0],
        opt_shape=shapes[1],
        max_shape=shapes[2],
        dtype=getattr(torch, each.dtype),
        name=each.name,
    )


def _dynamic_shapes(graph: Graph) -> Any:
    if not graph.symbols:
        return None
    dims = {
        name: torch.export.Dim(name, min=low, max=high)
        for name, (low, _, high) in graph.symbols.items()
    }
    return tuple(
        {i: dims[size] for i, size in enumerate(each.shape) if isinstance(size, str)}
        for each in graph.arguments()
    )


def _refusals(error: Exception) -> dict[str, int]:
    found = {}
    for line in str(error).splitlines():
        name, colon, reason = line.strip().partition("): ")
        if colon and " (" in name:
            found[f"{name.split(' (', 1)[1]}: {reason}"[:300]] = 1
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:400]


def _outcome(status: str, error: Exception, where: str = "") -> dict[str, Any]:
    return {"status": status, "reasons": {where + _first_line(error): 1}}


def _problems(graph: Graph, inputs: list[torch.Tensor], results: Any) -> list[str | None]:
    expected = run(graph, inputs, None)
    noisy = [run(graph, inputs, torch.Generator().manual_seed(i)) for i in range(RUNS)]
    problems = []
    for i, (got, right) in enumerate(zip(results, expected, strict=True)):
        problem = difference(got, right, [each[i] for each in noisy])
        if problem:
            while len(noisy) < RUNS_IN_DOUBT:
                noisy.append(run(graph, inputs, torch.Generator().manual_seed(len(noisy))))
            problem = difference(got, right, [each[i] for each in noisy])
        problems.append(problem)
    return problems


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
        local = dict(scope)
        if noise is not None and step.rounding == "accumulates":
            local.update({name: _disturbed(scope[name], noise) for name in step.operands})
        exec(step.source, local)
        result = local[step.result]
        if noise is not None and step.rounding == "as operand":
            operand = scope[step.operands[0]]
            result = result + (_disturbed(operand, noise) - operand)
        elif noise is not None and step.rounding != "exact":
            result = _disturbed(result, noise)
        scope[step.result] = result
    return [scope[name] for name in graph.outputs]


def _disturbed(x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    if x.dtype not in ERROR:
        return x
    by = torch.rand(x.shape, generator=noise, dtype=torch.float64) * 2 - 1
    return (x.double() * (1 + by * ERROR[x.dtype])).to(x.dtype)


def difference(got: torch.Tensor, expected: torch.Tensor, noisy: list[torch.Tensor]) -> str | None:
    """What differs by more than it may, as text."""
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
    wrong = (~same).flatten().nonzero().flatten()[:4]
    if not len(wrong):
        return None
    pairs = [tensor.flatten()[wrong].tolist() for tensor in (got, expected)]
    return (
        f"{expected.dtype} {tuple(expected.shape)}: {int((~same).sum())} of {same.numel()} differ, at "
        f"{wrong.tolist()} got {pairs[0]}, expected {pairs[1]}"
    )
