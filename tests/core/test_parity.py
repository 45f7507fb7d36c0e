"""The network equals the official code, stage by stage."""

import pytest

from tests.core.parity import CASES, compare, compare_head_only


def assert_all_met(rows):
    missed = [row for row in rows if not row.met]
    assert not missed, '\n'.join(str(row) for row in missed)


@pytest.mark.parametrize('case', CASES)
def test_every_stage_equals_the_official_code(case):
    rows = list(compare(case))
    assert len(rows) > 60
    assert_all_met(rows)


def test_bev_head_equals_the_official_code():
    rows = list(compare_head_only())
    assert len(rows) > 40
    assert_all_met(rows)
