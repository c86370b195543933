"""The tables of the conformance tests, which lie in a folder of their own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "conformance"))

import complex_cases  # noqa: E402
import index_cases  # noqa: E402
import matrix_cases  # noqa: E402
import number_cases  # noqa: E402
import op_cases  # noqa: E402
import quantised_cases  # noqa: E402
from case import Batch, Case, assert_same  # noqa: E402

TABLES = (op_cases, index_cases, quantised_cases, complex_cases, matrix_cases, number_cases)

__all__ = ["TABLES", "Batch", "Case", "assert_same"]
