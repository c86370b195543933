"""Results of ONNX Runtime, where it is installed, for tests that compare with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest


def results_of_onnx_runtime(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Of a model on CPUs; the rest of a test is skipped where there is none."""
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed: compared with numpy only")
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {info.name: given[info.name] for info in session.get_inputs()})
