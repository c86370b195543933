"""Times of kernels as files for other tools."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_tensorrt._files import write_text

FORMATS = ("perfetto", "trex")


def check_format(profile_format: str) -> None:
    """ValueError unless `write_profile` knows the format."""
    if profile_format == "cudagraph":
        raise ValueError(
            "profile_format='cudagraph' is about CUDA graphs, which engines on the CPU do not have; "
            "use 'perfetto' or 'trex'"
        )
    if profile_format not in FORMATS:
        raise ValueError(f"profile_format is {profile_format!r}, expected one of {FORMATS}")


def write_profile(
    path: str | os.PathLike[str],
    kernels: Sequence[dict[str, Any]],
    profile_format: str = "perfetto",
    name: str = "engine",
) -> None:
    """Writes the times of one call.

    Args:
        path: of the file, which appears only when it is complete.
        kernels: what `TorchTensorRTModule.profile` gives.
        profile_format: "perfetto" for ui.perfetto.dev and chrome://tracing, "trex" for tables of layers.
        name: of the engine.
    """
    check_format(profile_format)
    content = _perfetto(kernels, name) if profile_format == "perfetto" else _trex(kernels)
    write_text(Path(path), json.dumps(content, indent=1))


def _perfetto(kernels: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """One event per kernel, one after the other: kernels of an engine never overlap."""
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": name}}
    ]
    start = 0.0
    for kernel in kernels:
        microseconds = kernel["nanoseconds"] / 1000
        details = {key: kernel[key] for key in ("sources", "tasks", "threads")}
        event = {"name": kernel["kernel"], "cat": kernel["kind"], "ph": "X", "pid": 0, "tid": 0}
        events.append({**event, "ts": start, "dur": microseconds, "args": details})
        start += microseconds
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _trex(kernels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    total = sum(kernel["nanoseconds"] for kernel in kernels) or 1
    rows: list[dict[str, Any]] = [{"count": 1}]
    for kernel in kernels:
        milliseconds = kernel["nanoseconds"] / 1e6
        rows.append(
            {
                "name": kernel["kernel"],
                "timeMs": milliseconds,
                "averageMs": milliseconds,
                "medianMs": milliseconds,
                "percentage": 100 * kernel["nanoseconds"] / total,
            }
        )
    return rows
