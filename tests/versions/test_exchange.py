"""What one PyTorch saved, another loads: every format, both ways.

Run by `make test-torch`, in an environment with the wheel and the PyTorch to be tested. The other
one is that of KILN_OTHER_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

EXCHANGE = Path(__file__).with_name("exchange.py")
PYTHONS = {"this": sys.executable, "other": os.environ.get("KILN_OTHER_PYTHON")}
# Least numbers of things that are saved and loaded: a test that tries nothing proves nothing.
SAVED, LOADED = 23, 40


def outcomes(python: str | None, action: str, folder: Path) -> dict[str, str | None]:
    """The error of each case, or None."""
    if python is None:
        pytest.skip("KILN_OTHER_PYTHON is not set: run make test-torch TORCH=<version>")
    done = subprocess.run(
        [python, EXCHANGE, action, folder],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    if done.returncode:
        case = lines[-1]["case"] if lines else "at the start"
        pytest.fail(f"{case}: ended with code {done.returncode}\n{done.stderr[-4000:]}")
    return {line["case"]: line["error"] for line in lines if "error" in line}


@pytest.fixture(scope="module", params=PYTHONS)
def saved(request, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, outcomes(PYTHONS[request.param], "save", folder), request.param


def failures(results: dict[str, str | None]) -> str:
    return "\n".join(f"{case}:\n{error}" for case, error in results.items() if error)


def test_the_wheel_is_tested_and_nothing_else() -> None:
    import torch_tensorrt

    if PYTHONS["other"] is not None:
        assert Path(torch_tensorrt.__file__).is_relative_to(sys.prefix)
        assert Path(torch.__file__).is_relative_to(sys.prefix)


def test_saves_every_format(saved) -> None:
    assert not failures(saved[1])
    assert len(saved[1]) >= SAVED


@pytest.mark.parametrize("loader", PYTHONS)
def test_loads_every_format(saved, loader) -> None:
    folder, _, saver = saved
    if saver == loader == "other":
        pytest.skip("the development environment's own tests do that")
    results = outcomes(PYTHONS[loader], "load", folder)
    assert not failures(results)
    assert len(results) >= LOADED
