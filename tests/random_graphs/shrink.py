"""Makes a failing graph smaller while it fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from graph import Graph, Input, without_unused
from noise import run

Check = Callable[[Graph], dict[str, Any]]


def shrink(graph: Graph, outcome: dict[str, Any], check: Check, seconds: float = 120) -> Graph:
    """The smallest graph found within a time that has the status of `outcome`."""
    end = time.monotonic() + seconds
    status, kind = outcome["status"], _kind(outcome)

    def fails(candidate: Graph) -> bool:
        answer = check(candidate)
        return answer["status"] == status and _kind(answer) == kind

    if outcome.get("output"):
        only = without_unused(replace(graph, outputs=(outcome["output"],)))
        graph = only if fails(only) else graph
    improved = True
    while improved:
        improved = False
        for candidate in _smaller(graph):
            if time.monotonic() > end:
                return graph
            if fails(candidate):
                graph, improved = candidate, True
                break
    return graph


def _kind(outcome: dict[str, Any]) -> str:
    """What an error says, without names and numbers."""
    if outcome["status"] != "error":
        return ""
    reason = next(iter(outcome["reasons"]))
    return "".join(c for c in reason if c.isalpha())[:40]


def _smaller(graph: Graph) -> Iterator[Graph]:
    """Graphs with less of something, those with the least first."""
    for name in graph.outputs:
        if len(graph.outputs) > 1:
            yield without_unused(replace(graph, outputs=(name,)))
    results = {step.result: step for step in graph.steps}
    # Steps in the middle become outputs: what fails may lie before the end.
    if len(graph.steps) > 1:
        for step in graph.steps[:-1]:
            if (step.result,) != graph.outputs:
                yield without_unused(replace(graph, outputs=(step.result,)))
    shapes = _shapes(graph)
    for step in reversed(graph.steps):
        if step.result in graph.outputs and len(graph.steps) == 1:
            continue
        dtype, shape = shapes[step.result]
        for other, (other_dtype, other_shape) in shapes.items():
            is_earlier = other not in results or list(results).index(other) < list(results).index(
                step.result
            )
            if (dtype, shape) == (other_dtype, other_shape) and other != step.result and is_earlier:
                yield without_unused(_renamed(graph, step.result, other))
                break
        if step.result not in graph.outputs and shape is not None:
            made = Input(f"x_{step.result}", dtype, shape, 7)
            smaller = replace(graph, inputs=(*graph.inputs, made))
            yield without_unused(_renamed(smaller, step.result, made.name))
    for name, (_, opt, _) in graph.symbols.items():
        inputs = tuple(
            replace(each, shape=tuple(opt if size == name else size for size in each.shape))
            for each in graph.inputs
        )
        symbols = {other: limits for other, limits in graph.symbols.items() if other != name}
        yield replace(graph, inputs=inputs, symbols=symbols)


def _renamed(graph: Graph, name: str, other: str) -> Graph:
    """A graph that uses another value in place of one; the step that made it is not needed any more."""
    import re

    word = re.compile(rf"\b{name}\b")
    steps = tuple(
        replace(
            step,
            source=word.sub(other, step.source),
            operands=tuple(other if each == name else each for each in step.operands),
        )
        for step in graph.steps
        if step.result != name
    )
    outputs = tuple(other if each == name else each for each in graph.outputs)
    return replace(graph, steps=steps, outputs=tuple(dict.fromkeys(outputs)))


def _shapes(graph: Graph) -> dict[str, tuple[str, tuple[int | str, ...] | None]]:
    """The dtype of each value, and its shape with symbols; none if a size is an expression of them."""
    names = [*(each.name for each in graph.inputs), *(step.result for step in graph.steps)]
    whole = replace(graph, outputs=tuple(names))
    sizes = graph.sizes()
    with torch.no_grad():
        runs = [run(whole, graph.tensors(each), None) for each in sizes]
    found = {}
    for i, name in enumerate(names):
        shape: list[int | str] | None = []
        for dim in range(runs[0][i].dim()):
            seen = [results[i].shape[dim] for results in runs]
            symbol = next((s for s in graph.symbols if seen == [each[s] for each in sizes]), None)
            if len(set(seen)) > 1 and symbol is None:
                shape = None
                break
            shape.append(symbol if len(set(seen)) > 1 else seen[0])
        dtype = str(runs[0][i].dtype).removeprefix("torch.")
        found[name] = (dtype, tuple(shape) if shape is not None else None)
    return found
