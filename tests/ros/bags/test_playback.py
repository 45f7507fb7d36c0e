"""Tests bag time with a simulated wall clock."""

from __future__ import annotations

from math import inf

import pytest

from bevdepth_ros.bags import playback
from bevdepth_ros.bags.playback import TICK_S, Follower, Timeline

FIRST_NS = 1_700_000_000_000_000_000
SECOND_NS = 10**9


class Now:
    """Simulated wall clock. Its time ``s``, in seconds, advances only while ``sleep_until`` is
    called or when a test changes it."""

    def __init__(self) -> None:
        self.s, self.delay_s = 100.0, 0.0

    def sleep_until(self, due: float) -> None:
        assert due < inf
        self.s = max(self.s, due) + self.delay_s


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    now = Now()
    monkeypatch.setattr(playback.time, 'monotonic', lambda: now.s)
    monkeypatch.setattr(playback, 'sleep_until', now.sleep_until)
    return now


def since_ns(timeline: Timeline, now: Now) -> int:
    """Return the current bag time relative to the first bag time."""
    return timeline.at(now.s) - FIRST_NS


def test_bag_time_advances_at_the_rate(now: Now) -> None:
    timeline = Timeline(2.0, FIRST_NS)
    now.s += 3.0
    assert since_ns(timeline, now) == 6 * SECOND_NS
    assert timeline.at(99.0) == FIRST_NS
    assert timeline.due(FIRST_NS + 8 * SECOND_NS) == 104.0
    timeline.begin(FIRST_NS)
    assert since_ns(timeline, now) == 0


def test_a_pause_stops_bag_time_and_no_message_is_due_until_the_pause_ends(now: Now) -> None:
    timeline = Timeline(2.0, FIRST_NS)
    now.s += 1.0
    timeline.pause()
    assert timeline.paused
    now.s += 50.0
    assert since_ns(timeline, now) == 2 * SECOND_NS
    assert timeline.due(FIRST_NS) == inf
    timeline.resume()
    assert not timeline.paused
    now.s += 1.0
    assert since_ns(timeline, now) == 4 * SECOND_NS


def test_a_timeline_that_begins_paused_does_not_advance(now: Now) -> None:
    timeline = Timeline(1.0, FIRST_NS, paused=True)
    now.s += 1.0
    assert since_ns(timeline, now) == 0


def test_a_step_advances_bag_time_by_its_length_at_the_rate_and_then_pauses(now: Now) -> None:
    timeline = Timeline(2.0, FIRST_NS, paused=True)
    timeline.step(1.0)
    assert timeline.due(FIRST_NS + SECOND_NS) == now.s + 0.5
    assert timeline.due(FIRST_NS + SECOND_NS + 1) == inf
    assert not timeline.paused
    now.s += 0.25
    assert since_ns(timeline, now) == SECOND_NS // 2
    now.s += 10.0
    assert since_ns(timeline, now) == SECOND_NS
    assert timeline.due(FIRST_NS + SECOND_NS) == inf
    assert timeline.paused
    timeline.resume()
    now.s += 0.5
    assert since_ns(timeline, now) == 2 * SECOND_NS


def test_a_step_that_is_requested_during_playback_starts_at_the_current_bag_time(now: Now) -> None:
    timeline = Timeline(1.0, FIRST_NS)
    now.s += 5.0
    timeline.step(1.0)
    now.s += 5.0
    assert since_ns(timeline, now) == 6 * SECOND_NS


def test_let_next_makes_only_the_next_message_due_and_bag_time_becomes_its_stamp(now: Now) -> None:
    timeline = Timeline(1.0, FIRST_NS)
    timeline.let_next()
    assert timeline.paused
    assert timeline.due(FIRST_NS + 7) == now.s
    assert since_ns(timeline, now) == 7
    assert timeline.due(FIRST_NS + 8) == inf
    timeline.let_next()
    assert timeline.due(FIRST_NS) == now.s  # an earlier stamp does not set bag time back
    assert since_ns(timeline, now) == 7
    timeline.let_next()
    timeline.resume()
    timeline.pause()
    assert timeline.due(FIRST_NS + 9) == inf


def followed(now: Now, rate: float = 1.0) -> tuple[Follower, list[int]]:
    """Return a follower that has begun, and a list of the bag times of its ticks, in ms relative
    to the first bag time."""
    ticks: list[int] = []
    timeline = Timeline(rate, FIRST_NS)
    follower = Follower(timeline, lambda at: ticks.append(round((at - FIRST_NS) / 1e6)))
    follower.begin()
    return follower, ticks


def test_during_the_wait_for_a_message_there_is_a_tick_every_10_ms_of_wall_time(now: Now) -> None:
    follower, ticks = followed(now, rate=2.0)
    assert follower.wait_for(FIRST_NS + 90_000_000) == pytest.approx(100.045)
    assert now.s == pytest.approx(100.045)
    assert ticks == [0, 20, 40, 60, 80]
    assert TICK_S == 0.01


def test_wait_for_returns_immediately_with_the_due_time_if_a_message_is_overdue(now: Now) -> None:
    follower, ticks = followed(now)
    now.s += 0.035
    assert follower.wait_for(FIRST_NS + 5_000_000) == pytest.approx(100.005)
    assert now.s == pytest.approx(100.035)
    assert ticks == [0, 10]
    follower.wait_for(FIRST_NS + 45_000_000)
    assert ticks == [0, 10, 30, 40]  # ticks in the past are left out


def test_ticks_continue_until_the_end_of_a_wait(now: Now) -> None:
    follower, ticks = followed(now)
    follower.wait(0.025)
    assert now.s == pytest.approx(100.025)
    assert ticks == [0, 10, 20]
