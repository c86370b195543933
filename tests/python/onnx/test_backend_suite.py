"""ONNX's own tests of operators and models, in engines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parents[2] / "onnx"))


def test_the_backend_suite_passes_but_for_what_is_listed() -> None:
    import backend_suite

    cases = backend_suite.all_cases()
    listed = {line.split(":")[0] for line in backend_suite.REFUSED.read_text().splitlines()[1:]}
    outcomes = backend_suite.run(cases, len(os.sched_getaffinity(0)))
    assert len(outcomes) > 1900
    failed = [
        f"{outcome.status} {outcome.name}: {outcome.reason}"
        for outcome in outcomes
        if outcome.status in ("wrong", "crashed")
        or (outcome.status == "refused" and outcome.name not in listed)
    ]
    assert not failed, "\n".join(failed)
