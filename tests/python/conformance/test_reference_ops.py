"""Every importer and every op of the reference interpreter against PyTorch."""

from __future__ import annotations

import complex_cases
import index_cases
import matrix_cases
import number_cases
import op_cases
import pytest
import quantised_cases
import reference
from case import Case, check

if not reference.find_runner().exists():
    pytest.skip(f"{reference.find_runner()} is not built", allow_module_level=True)

# Cases of one family share exports of at most this size.
BATCH = 60


def batches() -> list[tuple[Case, ...]]:
    result: list[tuple[Case, ...]] = []
    for family in [
        *op_cases.FAMILIES,
        *index_cases.FAMILIES,
        *quantised_cases.FAMILIES,
        *complex_cases.FAMILIES,
        *matrix_cases.FAMILIES,
        *number_cases.FAMILIES,
    ]:
        cases = family.cases
        result += [tuple(cases[i : i + BATCH]) for i in range(0, len(cases), BATCH)]
    return result


ALL = [(case, batch) for batch in batches() for case in batch]


@pytest.mark.parametrize(("case", "batch"), ALL, ids=[case.name for case, _ in ALL])
def test_op(case: Case, batch: tuple[Case, ...]) -> None:
    check(case, batch)
