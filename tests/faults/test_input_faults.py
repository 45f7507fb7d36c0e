"""Injects the camera, image and calibration faults of the matrix, one after the other, into one
running node."""

from __future__ import annotations

import pytest

from tests.faults.bench import Bench
from tests.faults.cases import INPUT_CASES, Case
from tests.faults.matrix import require_report_and_recovery


@pytest.mark.parametrize('case', INPUT_CASES, ids=lambda case: case.name)
def test_the_node_reports_the_fault_publishes_no_false_result_and_recovers(
    bench: Bench, case: Case
) -> None:
    require_report_and_recovery(bench, case)
