"""examples/04_decode.py decodes with a cache, and compares it with eager PyTorch."""

import sys

from building import ROOT, output_of


def test_the_decode_example_runs() -> None:
    assert "tokens [7, 3, 55, 20, 9, " in output_of(
        [sys.executable, ROOT / "examples" / "04_decode.py"]
    )
