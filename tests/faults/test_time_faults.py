"""Injects the clock, tf, load and tracking faults of the matrix, one after the other, into one
running node."""

from __future__ import annotations

import pytest

from tests.faults.bench import Bench
from tests.faults.cases import TIME_CASES, Case
from tests.faults.matrix import require_report_and_recovery


@pytest.mark.parametrize('case', TIME_CASES, ids=lambda case: case.name)
def test_the_node_reports_the_fault_publishes_no_false_result_and_recovers(
    bench: Bench, case: Case
) -> None:
    require_report_and_recovery(bench, case)
