from __future__ import annotations

import pytest

from bevdepth_ros.detections.rate_limit import RateLimit

START_NS = 1_700_000_000_000_000_000


def allowed(limit: RateLimit, max_rate_hz: float, *times_s: float) -> list[bool]:
    return [limit.allows(START_NS + round(time * 1e9), max_rate_hz) for time in times_s]


def test_without_a_limit_all_results_are_published() -> None:
    assert allowed(RateLimit(), 0.0, 0.0, 0.0, 0.001, -5.0) == [True] * 4


@pytest.mark.parametrize(('max_rate_hz', 'expected'), [(10.0, 100), (5.0, 50), (20.0, 120)])
def test_the_mean_rate_equals_the_limit_or_the_camera_rate_if_the_camera_rate_is_lower(
    max_rate_hz: float, expected: int
) -> None:
    results = allowed(RateLimit(), max_rate_hz, *(number / 12 for number in range(120)))
    assert results[0]
    assert sum(results) == expected


def test_after_a_pause_at_most_two_results_are_published_in_a_burst() -> None:
    limit = RateLimit()
    assert allowed(limit, 1.0, 0.0, 10.5, 10.6, 10.7, 10.8) == [True, True, True, False, False]


def test_the_first_result_of_a_bag_that_starts_again_is_published_immediately() -> None:
    limit = RateLimit()
    assert allowed(limit, 1.0, 50.0, 0.0, 0.5, 1.0) == [True, True, False, True]


def test_a_limit_that_is_set_later_applies_from_the_next_result_on() -> None:
    limit = RateLimit()
    assert allowed(limit, 1.0, 0.0, 0.1) == [True, False]
    assert allowed(limit, 0.0, 0.2) == [True]
    assert allowed(limit, 1.0, 0.3, 0.4, 1.3) == [True, False, True]


def test_a_result_whose_stamp_is_over_one_period_before_the_last_published_stamp_is_published():
    limit = RateLimit()
    assert allowed(limit, 1.0, 0.0, -1.0, -1.001, -1.0) == [True, False, True, False]
