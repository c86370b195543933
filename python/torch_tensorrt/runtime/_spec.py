"""What the operator's `spec` says about the results of an engine, from the engine's own description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9.]*")
_FUNCTIONS = ("min", "max")


def spec_of(description: Mapping[str, Any]) -> str:
    """The spec of an engine (torch_tensorrt/_operator.py has the grammar).

    Args:
        description: what `kiln.Engine.describe` gives.

    Raises:
        ValueError: a size of a result is too long a formula to be in the description.
    """
    names = {
        symbol["name"]: f"i{symbol['input']}_{symbol['dim']}" for symbol in description["symbols"]
    }

    def rename(match: re.Match[str]) -> str:
        return match[0] if match[0] in _FUNCTIONS else names[match[0]]

    entries = []
    for output in description["outputs"]:
        shape = output["shape"]
        if "..." in shape:
            raise ValueError(
                f"output {output['name']!r} of the engine has the shape {shape}, which is too long a formula to trace "
                "with: use torch_tensorrt.compile, whose modules know the shapes of their results"
            )
        entries.append(f"{output['dtype']}{_NAME.sub(rename, shape).replace(' ', '')}")
    return ";".join(entries)
