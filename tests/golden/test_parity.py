"""Compares the output of every stage of the network with the output of the official code."""

from __future__ import annotations

import pytest

from tests.core.parity import CASES, compare, require_all_met


@pytest.mark.parametrize('case', CASES)
def test_the_output_of_every_stage_equals_the_official_output(case: str) -> None:
    rows = list(compare(case))
    assert len(rows) > 60
    require_all_met(rows)
