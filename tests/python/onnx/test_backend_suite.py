"""ONNX's own tests of operators and models, in engines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
SUITE = Path(__file__).parents[2] / "onnx" / "backend_suite.py"


def test_the_backend_suite_passes_but_for_what_is_listed() -> None:
    # In a process of its own: it forks, which one with threads must not.
    done = subprocess.run(
        [sys.executable, str(SUITE), "--check"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'passed': 1" in done.stdout, done.stdout  # more than a thousand


def test_a_list_that_says_too_much_is_seen() -> None:
    code = """
import backend_suite as suite
outcomes = [suite.Outcome("a", "passed"), suite.Outcome("b", "refused", "no"), suite.Outcome("c", "constant")]
for whole in (True, False):
    print([text.split()[0] for text in suite.stale({"a", "b", "c", "d"}, outcomes, whole)])
print(suite.stale({"b"}, outcomes, True))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SUITE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["['a', 'c', 'd']", "['a', 'c']", "[]"]
