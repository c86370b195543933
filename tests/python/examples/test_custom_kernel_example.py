"""examples/05_custom_kernel.py builds a kernel in C, and compares an engine that calls it with eager PyTorch."""

import sys

from building import ROOT, output_of


def test_engine_calls_the_kernel() -> None:
    text = output_of([sys.executable, ROOT / "examples" / "05_custom_kernel.py"])
    assert text.splitlines()[-1] == "the engine calls ['mylib::scaled_sine']"
