"""A network equals the official code where inputs follow from formulas; the other cases are in
tests/golden."""

from __future__ import annotations

from tests.core.parity import compare, compare_head_only, require_all_met


def test_every_stage_of_the_refined_two_frame_network_equals_the_official_code() -> None:
    rows = list(compare('synth_2key_da'))
    assert len(rows) > 60
    require_all_met(rows)


def test_bev_head_equals_the_official_code() -> None:
    rows = list(compare_head_only())
    assert len(rows) > 40
    require_all_met(rows)
