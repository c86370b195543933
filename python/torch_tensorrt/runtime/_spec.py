"""What the operator's `spec` says about the results of an engine, from the engine's own description."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch_tensorrt._operator import DTYPES, ResultSpec, write_spec
from torch_tensorrt._sizes import SizeProgram


def spec_of(description: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """The spec of an engine (torch_tensorrt/_operator.py has the grammar).

    Args:
        description: what `kiln.Engine.describe` gives.
        without: names of outputs that are no results.
    """
    program = SizeProgram(description["sizes"])
    results = [
        ResultSpec(
            DTYPES[output["dtype"]],
            tuple(program.operand(dim["size"]) for dim in output["dims"]),
        )
        for output in description["outputs"]
        if output["name"] not in without
    ]
    return write_spec(program, results)
