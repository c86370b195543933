"""Compiles an architecture into one engine and compares it with eager PyTorch."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from architecture import BATCH, LENGTH, Architecture

import torch_tensorrt
from torch_tensorrt._operator import execute_engine

LIMIT = 1e-5


def compare(case: Architecture, dynamic: bool) -> dict[str, Any]:
    """A status (pass, refused, wrong, error, not exported), the error, the number of engines and reasons."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            module, inputs = case.module(), case.tensors(BATCH[1], LENGTH[1])
            expected = module(*inputs)
        except Exception as error:
            return _outcome("not run", error)
        try:
            program = torch_tensorrt.dynamo.trace(
                module,
                arg_inputs=inputs,
                dynamic_shapes=_dynamic_shapes(case) if dynamic else None,
            )
        except Exception as error:
            return _outcome("not exported", error)
        try:
            compiled = torch_tensorrt.dynamo.compile(
                program,
                arg_inputs=_ranges(case) if dynamic else list(inputs),
                min_block_size=1,
                require_full_compilation=True,
            )
        except Exception as error:
            return _outcome("refused" if _refusals(error) else "error", error)
        engines = len(compiled.graph.find_nodes(op="call_function", target=execute_engine))
        worst = 0.0
        for batch, length in _sizes(dynamic):
            inputs = case.tensors(batch, length)
            try:
                expected, got = module(*inputs), compiled(*inputs)
            except Exception as error:
                # What the model assumes of sizes is checked at the call.
                if "do not fit together" not in str(error):
                    return _outcome("error", error)
                refused_by_torch = _refusal_of(program, inputs)
                return (
                    _outcome("not exported", refused_by_torch)
                    if refused_by_torch
                    else _outcome("refused", error)
                )
            for a, b in zip(got, expected, strict=True):
                if a.shape != b.shape or a.dtype != b.dtype:
                    text = f"got {a.dtype} {tuple(a.shape)}, expected {b.dtype} {tuple(b.shape)}"
                    return {"status": "wrong", "engines": engines, "reasons": {text: 1}}
                worst = max(worst, relative_error(a, b))
    status = "pass" if worst <= LIMIT and engines == 1 else "wrong"
    reasons = {} if status == "pass" else {f"error {worst:.1e}, {engines} engines": 1}
    return {"status": status, "engines": engines, "error": worst, "reasons": reasons}


def _refusal_of(program: torch.export.ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> Any:
    """What torch.export's own module says of sizes that it excludes although it was asked for them, or None."""
    try:
        program.module()(*inputs)
    except Exception as error:
        return error
    return None


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the norm, or infinity where one is not finite and the other another."""
    a, b = got.double().flatten(), expected.double().flatten()
    finite = b.isfinite()
    if (
        not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num())
        or not a[finite].isfinite().all()
    ):
        return float("inf")
    return float((a[finite] - b[finite]).norm() / b[finite].norm().clamp_min(1e-30))


def _sizes(dynamic: bool) -> list[tuple[int, int]]:
    usual = (BATCH[1], LENGTH[1])
    return [usual, (BATCH[0], LENGTH[0]), (BATCH[2], LENGTH[2]), usual] if dynamic else [usual]


def _dynamic_shapes(case: Architecture) -> Any:
    dims = {
        "batch": torch.export.Dim("batch", min=BATCH[0], max=BATCH[2]),
        "length": torch.export.Dim("length", min=LENGTH[0], max=LENGTH[2]),
    }
    each = tuple(
        {i: dims[size] for i, size in enumerate(given.shape) if isinstance(size, str)}
        for given in case.inputs
    )
    return (each,)


def _ranges(case: Architecture) -> list[torch_tensorrt.Input]:
    ranges = []
    for given in case.inputs:
        limits = {
            key: tuple(
                {"batch": BATCH, "length": LENGTH}[size][i] if isinstance(size, str) else size
                for size in given.shape
            )
            for i, key in enumerate(("min_shape", "opt_shape", "max_shape"))
        }
        dtype = torch.int64 if given.high else torch.float32
        ranges.append(torch_tensorrt.Input(**limits, dtype=dtype))
    return ranges


def _refusals(error: Exception) -> list[str]:
    nodes = re.findall(r"^  \S+ \(([^)]*)\): (.*)$", str(error), re.MULTILINE)
    # What uses the result of something that was refused says nothing new.
    return [
        f"{target}: {reason}" for target, reason in nodes if "got the unknown tensor" not in reason
    ]


def _outcome(status: str, error: Exception) -> dict[str, Any]:
    lines = str(error).strip().splitlines()
    # What torch.export says of sizes has its reasons in a list below the first line.
    details = [line.strip() for line in lines if line.startswith("  - ")]
    text = details[0].removeprefix("- ") if details else "".join(lines[:1])
    first = f"{type(error).__name__}: {text}"[:300]
    return {"status": status, "reasons": dict.fromkeys(_refusals(error) or [first], 1)}
