"""The BEV encoder and the head equal the official code at full size. Whole networks are compared
in tests/golden, and small networks in tests/core/model/test_recorded_stages.py."""

from __future__ import annotations

from tests.core.parity import compare_head_only, require_all_met


def test_the_bev_encoder_and_the_head_equal_the_official_code() -> None:
    rows = list(compare_head_only())
    assert len(rows) > 40
    require_all_met(rows)
