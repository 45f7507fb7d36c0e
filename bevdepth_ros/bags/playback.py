"""Controls the bag time of a replay: rate, pauses and steps.

The terms of this module:

* Bag time: time of the replayed recording, in nanoseconds. A message is due when the bag time is
  its log time. /clock contains the bag time.
* Steady time: value of ``time.monotonic()``, in seconds.
* Anchor: a bag time and the steady time at which the replay had this bag time. From the anchor on,
  the bag time increases by ``rate`` times the increase of the steady time. While the timeline is
  paused, the bag time stays at the anchor.
* Stop: bag time at which a step ends and the timeline pauses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf

from bevdepth_ros.process import sleep_until

TICK_S = 0.01
"""Period of /clock, and the longest delay until a pause begins, seconds."""


class Timeline:
    """Maps steady time to bag time; any thread may call the methods.

    Attributes:
        paused: True while bag time stands still. After a step, it becomes True with the next call
            of ``due``.
    """

    def __init__(self, rate: float, first_ns: int, paused: bool = False) -> None:
        """Start the timeline.

        Args:
            rate: speed of bag time relative to real time, greater than 0.
            first_ns: bag time at the start.
            paused: True if bag time stands still until ``resume`` is called.
        """
        self._rate, self.paused = rate, paused
        self._lock = threading.Lock()
        self._plays_next_message = False
        self.begin(first_ns)

    def begin(self, first_ns: int) -> None:
        """Set the current bag time to ``first_ns``."""
        with self._lock:
            self._stop_ns: int | None = None
            self._anchor(first_ns)

    def at(self, steady: float) -> int:
        """Return the bag time at the steady time ``steady``, which must not be in the future."""
        with self._lock:
            return self._at(steady)

    def due(self, stamp_ns: int) -> float:
        """Return the steady time at which the bag time ``stamp_ns`` is due. Return infinity if the
        timeline is paused, or will pause before this bag time. The first call after ``let_next``
        moves the bag time to ``stamp_ns``, and returns the current steady time.
        """
        with self._lock:
            now = time.monotonic()
            if self._stop_ns is not None and self._at(now) >= self._stop_ns:
                self._pause_at(self._stop_ns)
            if self.paused and self._plays_next_message:
                self._plays_next_message = False
                self._anchor(max(stamp_ns, self._anchor_ns))
                return now
            if self.paused or (self._stop_ns is not None and stamp_ns > self._stop_ns):
                return inf
            return self._anchored_at + (stamp_ns - self._anchor_ns) * 1e-9 / self._rate

    def pause(self) -> None:
        """Stop bag time."""
        with self._lock:
            self._pause_at(self._at(time.monotonic()))

    def resume(self) -> None:
        """Continue bag time after a pause."""
        with self._lock:
            self._continue()

    def step(self, seconds: float) -> None:
        """Continue for ``seconds`` of bag time, then pause."""
        with self._lock:
            now_ns = self._at(time.monotonic())
            self._continue()
            self._stop_ns = now_ns + round(seconds * 1e9)

    def let_next(self) -> None:
        """Pause, and make the next message due immediately, although the timeline is paused."""
        with self._lock:
            self._pause_at(self._at(time.monotonic()))
            self._plays_next_message = True

    def _continue(self) -> None:
        self._anchor(self._at(time.monotonic()))
        self.paused, self._plays_next_message, self._stop_ns = False, False, None

    def _pause_at(self, bag_ns: int) -> None:
        self._anchor(bag_ns)
        self.paused, self._stop_ns = True, None

    def _anchor(self, bag_ns: int) -> None:
        """Make the bag time ``bag_ns`` and the current steady time the anchor."""
        self._anchor_ns, self._anchored_at = bag_ns, time.monotonic()

    def _at(self, steady: float) -> int:
        if self.paused:
            return self._anchor_ns
        bag_ns = self._anchor_ns + round(max(0.0, steady - self._anchored_at) * self._rate * 1e9)
        return bag_ns if self._stop_ns is None else min(bag_ns, self._stop_ns)


class Follower:
    """Waits until bag times are due, and calls ``tick`` regularly while it waits."""

    def __init__(self, timeline: Timeline, tick: Callable[[int], None]) -> None:
        """Prepare the follower; ``begin`` makes the first call of ``tick``.

        Args:
            timeline: determines when a bag time is due.
            tick: called with the bag time every ``TICK_S`` seconds of real time.
        """
        self._timeline, self._tick = timeline, tick
        self._next_tick = time.monotonic()

    def begin(self) -> None:
        """Call ``tick`` now, and then regularly."""
        self._next_tick = time.monotonic()
        self._sleep_and_tick(self._next_tick)

    def wait_for(self, stamp_ns: int) -> float:
        """Wait until the bag time ``stamp_ns`` is due, and return the steady time at which it was
        due. SIGINT and SIGTERM raise KeyboardInterrupt.
        """
        while (due := self._timeline.due(stamp_ns)) > time.monotonic():
            self._sleep_and_tick(min(due, self._next_tick))
        self._sleep_and_tick(due)
        return due

    def wait(self, seconds: float) -> None:
        """Wait for ``seconds`` of real time, with the regular calls of ``tick``."""
        end = time.monotonic() + seconds
        while self._next_tick < end:
            self._sleep_and_tick(self._next_tick)
        sleep_until(end)

    def _sleep_and_tick(self, steady: float) -> None:
        """Sleep until the steady time ``steady``, which must not be after the next tick. Then call
        ``tick`` if the next tick is due.
        """
        sleep_until(steady)
        late_s = time.monotonic() - self._next_tick
        if late_s >= 0:
            self._tick(self._timeline.at(self._next_tick))
            self._next_tick += TICK_S * max(1, int(late_s / TICK_S))
