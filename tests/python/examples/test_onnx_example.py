"""examples/03_onnx.py makes a model, compiles it and compares it."""

import sys

import pytest
from building import ROOT, output_of


def test_the_onnx_example_runs() -> None:
    pytest.importorskip("onnx")
    assert "batch 64" in output_of([sys.executable, ROOT / "examples" / "03_onnx.py"])
