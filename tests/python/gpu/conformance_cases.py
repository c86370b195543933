"""The tables of the conformance tests, which lie in a folder of their own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "conformance"))

import index_cases  # noqa: E402
from case import Batch, assert_same  # noqa: E402

__all__ = ["Batch", "assert_same", "index_cases"]
