"""The time that an image took from its publisher to the node."""

from __future__ import annotations

import time

import pytest

from bevdepth_ros.detector.intake import LONGEST_TRANSPORT_S, transport_s
from tests.ros.graph import wait_until


def test_the_time_since_the_middleware_took_the_message_counts():
    assert transport_s(time.time_ns() - 200_000_000) == pytest.approx(0.2, abs=0.15)


@pytest.mark.parametrize('age_s', [-5.0, LONGEST_TRANSPORT_S + 5.0])
def test_a_clock_of_another_machine_does_not_count(age_s: float):
    assert transport_s(time.time_ns() - round(age_s * 1e9)) == 0.0


def test_a_middleware_that_does_not_tell_counts_as_no_time():
    assert transport_s(0) == 0.0


def test_the_node_reports_the_transport_of_the_last_image(detector):
    node = detector()
    node.start()
    for number in range(3):
        node.rig.send_all(0.1 * number)
    wait_until(lambda: node.diagnostics.values('latency'), 'latency')
    assert float(node.diagnostics.values('latency')['transport_p95_ms']) > 0
