"""Compares stages and gradients of small networks with recorded numbers. The numbers were
recorded when the networks agreed with the official code.
"""

from __future__ import annotations

import pytest

from tests.core.model.recorded_stages import NETWORKS, measured, recorded


@pytest.mark.parametrize('name', NETWORKS)
def test_stages_and_gradients_agree_with_the_recorded_numbers(name: str) -> None:
    expected = recorded()[name]
    found = measured(name)
    assert found.keys() == expected.keys()
    for stage, pair in expected.items():
        assert found[stage] == pytest.approx(pair, abs=1e-4 * pair[0]), stage
