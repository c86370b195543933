"""Compiles a random model and compares it with eager PyTorch.

How far a result may be from eager's is measured (noise.py); what differs by more gets second opinions (opinions.py).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from graph import Graph
from noise import Runs, Wrong, wrong_elements
from opinions import Case, explained

import torch_tensorrt


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
            runs = Runs(graph, inputs)
            wrong, opinions = _judged(program, runs, list(results))
            rounding.update({f"rounding: {each}": 1 for each in opinions})
            for name, got, right, where in zip(
                graph.outputs, results, runs.expected, wrong, strict=True
            ):
                if where is not None:
                    text = f"{name} with {sizes}: {_described(got, right, where)}"
                    return {"status": "wrong", "reasons": {text: 1}, "output": name}
    status = "refused" if reasons else "rounding" if rounding else "pass"
    return {"status": status, "reasons": reasons | rounding}


def _judged(
    program: torch.export.ExportedProgram, runs: Runs, results: list[torch.Tensor]
) -> tuple[Wrong, list[str]]:
    """What is wrong with each result, and which second opinions explain what is not."""

    def rounded() -> list[torch.Tensor]:
        compiled, _ = _compile(program, runs.graph, emulate_precision_casts=True)
        return list(compiled(*[x.clone() for x in runs.inputs]))

    wrong = wrong_elements(runs, results)
    if all(each is None for each in wrong):
        return wrong, []
    return explained(Case(runs, program, results), wrong, rounded)


def _described(got: torch.Tensor, expected: torch.Tensor, wrong: torch.Tensor | str) -> str:
    if isinstance(wrong, str):
        return wrong
    at = wrong.flatten().nonzero().flatten()[:4]
    pairs = [tensor.flatten()[at].tolist() for tensor in (got, expected)]
    return (
        f"{expected.dtype} {tuple(expected.shape)}: {int(wrong.sum())} of {wrong.numel()} differ, at "
        f"{at.tolist()} got {pairs[0]}, expected {pairs[1]}"
    )


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
