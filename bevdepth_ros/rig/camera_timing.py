"""Estimates clock and trigger of one camera from the stamps and arrival times of its images.

Three quantities are measured:

* the interval between stamps gives the image rate and its changes;
* the deviation is the stamp less the offset, compared with the other cameras of the same cycle. It
  moves if the clock drifts or jumps, or if the camera is triggered at another time;
* the lateness is the arrival time less the stamp, compared with the other cameras. It moves if the
  clock drifts or jumps, but not if the trigger moves.

Deviation and lateness together therefore separate a wrong clock from another trigger time.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from itertools import pairwise

WINDOW = 20
"""Images that rates, deviations and arrival times are measured over."""
SETTLED = 100
"""Images without drift after which the clock of a camera is trusted again."""
LATE_NS = 250_000_000
"""An image that is older than the newest one by at most this arrived out of order; an older one
means that the clock of the camera went back."""
RATE_CHANGE = 4
"""The rate has changed if this many intervals in a row differ from the usual interval."""
CONSTANT = 0.03
"""Relative change of the rate within the window that counts as jitter."""
BASELINE = 5
"""Images between two stamps that the mean rate is measured over."""
FASTER, SLOWER = 0.7, 1.5
"""Intervals shorter or longer than these shares of the usual interval are not jitter."""
GAP_SHARE = 0.25
"""A change of the lateness is a whole number of cycles if the remainder is below this share."""


class CameraTiming:
    """Statistics of the last images of one camera; times in nanoseconds unless named otherwise.

    Attributes:
        offset_ns: offset of the camera within the trigger cycle; 0 until it is known.
        newest_ns: stamp of the newest image, 0 before the first.
        stamps: the last stamps in order of arrival.
        deviations: how much later than ``offset_ns`` the last images were exposed, compared with
            the other cameras.
        moved_cycles: whole cycles by which the clock jumped.
        ignored: images so far that repeated another one or have no stamp.
    """

    def __init__(self) -> None:
        self.received = self.ignored = 0
        self.offset_ns = 0
        self.restart()

    def restart(self) -> None:
        """Forget everything except the offset: the camera was silent and its clock may be new."""
        self.moved_cycles = self._hold = 0
        self.forget_stamps()
        self._intervals: deque[int] = deque(maxlen=WINDOW)
        self.period_ns = 0
        self.forget_deviations()
        self._arrival_s: deque[float] = deque(maxlen=WINDOW)
        self._usual_arrival_s: float | None = None
        self._jump: tuple[int, float] | None = None
        self._since_jump = self._skipped = 0

    def forget_stamps(self) -> None:
        """Accept the next image whatever its stamp is."""
        self.newest_ns = self._previous_ns = 0
        self.stamps: deque[int] = deque(maxlen=WINDOW)

    def forget_deviations(self) -> None:
        """Measure deviations anew, such as after the offset changed."""
        self.deviations: deque[int] = deque(maxlen=WINDOW)
        self.jitter_ns = math.inf
        self._settled_at: tuple[int, float] | None = None

    def forget_rate(self) -> None:
        """Measure the rate by the newest images alone."""
        self._intervals = deque(list(self._intervals)[-RATE_CHANGE:], WINDOW)
        self.period_ns = self._usual_interval() if self._intervals else 0
        self._hold = 0

    def is_repeated(self, stamp: int) -> bool:
        """Return True if an image with this stamp was already received since the clock last went
        back.
        """
        return stamp in self.stamps and stamp >= self.newest_ns - LATE_NS

    def take(self, stamp: int) -> bool:
        """Add the stamp of an image; return True if the clock of the camera went back."""
        went_back = stamp < self.newest_ns - LATE_NS
        if went_back:
            self.newest_ns = 0
            self.stamps.clear()
        self._note_interval(stamp)
        self._note_jump(stamp)
        self._previous_ns = stamp
        self.newest_ns = max(self.newest_ns, stamp)
        self.stamps.append(stamp)
        self.received += 1
        return went_back

    def _note_interval(self, stamp: int) -> None:
        interval = stamp - self.newest_ns
        if not self.newest_ns or interval <= 0:
            return
        self._hold = max(0, self._hold - 1)
        if len(self._intervals) >= RATE_CHANGE and interval < FASTER * min(self._intervals):
            self._hold = RATE_CHANGE - 1
        self._intervals.append(interval)
        self.period_ns = self._usual_interval()

    def _note_jump(self, stamp: int) -> None:
        """Store the usual lateness when stamps skip or repeat cycles, for ``_judge_jump``."""
        period = self.period_ns
        if not self._previous_ns or not period:
            return
        self._skipped = round((stamp - self._previous_ns) / period) - 1
        if self._skipped and self._jump is None and len(self._arrival_s) == WINDOW:
            self._jump, self._since_jump = (self._skipped, self._median_arrival_s()), 0

    def _usual_interval(self) -> int:
        """Return the median interval between images; longer intervals, where images were lost, are
        excluded.
        """
        ordered = sorted(self._intervals)
        shortest = ordered[len(ordered) // 4]
        return round(statistics.median(one for one in ordered if one < SLOWER * shortest))

    def mean_period_ns(self) -> float:
        """Return the mean interval between images; lost images and one jump of the clock do not
        change it. 0 while there are too few images or the rate changes.
        """
        period, stamps = self.period_ns, list(self.stamps)
        if len(stamps) < WINDOW or not period:
            return 0.0
        pairs = zip(stamps, stamps[BASELINE:], strict=False)
        means = [(late - early) / max(1, round((late - early) / period)) for early, late in pairs]
        middle = statistics.median(means)
        return middle if abs(drift(means)) < CONSTANT * middle else 0.0

    @property
    def is_unsure(self) -> bool:
        """True if an interval was too short, and the next ones must confirm that the rate
        changed.
        """
        return self._hold > 0

    @property
    def is_faster(self) -> bool:
        """True if the rate rose."""
        last, earlier = self._last_intervals()
        return bool(earlier) and max(last) < FASTER * statistics.median(earlier)

    @property
    def is_slower(self) -> bool:
        """True if the rate fell, or images are lost."""
        last, earlier = self._last_intervals()
        return bool(earlier) and min(last) > SLOWER * statistics.median(earlier)

    def _last_intervals(self) -> tuple[list[int], list[int]]:
        """Return the newest intervals and the earlier ones; both are empty if there are too
        few.
        """
        intervals = list(self._intervals)
        if len(intervals) < 2 * RATE_CHANGE:
            return [], []
        return intervals[-RATE_CHANGE:], intervals[:-RATE_CHANGE]

    def corrected(self) -> list[int]:
        """Return the last stamps minus the offset."""
        return [stamp - self.offset_ns for stamp in self.stamps]

    def add_deviation(self, differences: Iterable[int], period: int) -> None:
        """Add the deviation of an image.

        Args:
            differences: how much later the image is than the nearest one of each other camera,
                after subtraction of the offsets.
            period: of the trigger.
        """
        last = self.deviations[-1] if self.deviations else 0
        # Differences are only known modulo the cycle. Continue from the last deviation: otherwise
        # a clock that drifts would look correct each time it has drifted by a whole cycle.
        unwrapped = [one + period * round((last - one) / period) for one in differences]
        if unwrapped:
            self.deviations.append(round(statistics.median(unwrapped)))
            self.jitter_ns = self._measured_jitter()

    def is_one_sided(self, count: int, limit: float) -> bool:
        """Return True if the last ``count`` images were all too early or all too late."""
        last = list(self.deviations)[-count:]
        return len(last) == count and (min(last) > limit or max(last) < -limit)

    def is_steady(self, count: int, limit: float) -> bool:
        """Return True if the deviation of the last ``count`` images moved by at most ``limit``."""
        last = list(self.deviations)[-count:]
        return len(last) == count and abs(drift(last)) <= limit

    def deviation(self, count: int) -> float:
        """Return the median deviation of the last ``count`` images."""
        return statistics.median(list(self.deviations)[-count:])

    def _measured_jitter(self) -> float:
        if len(self.deviations) < WINDOW // 2:
            return math.inf
        middle = statistics.median(self.deviations)
        return sorted(abs(one - middle) for one in self.deviations)[len(self.deviations) * 9 // 10]

    def add_lateness(self, lateness_s: float) -> None:
        """Add the lateness of an image, compared with the other cameras, seconds."""
        self._notice_clock_set(lateness_s)
        self._arrival_s.append(lateness_s)
        if len(self._arrival_s) == WINDOW and self._usual_arrival_s is None:
            self._usual_arrival_s = self._median_arrival_s()
        self._judge_jump(self.period_ns)

    def _notice_clock_set(self, lateness_s: float) -> None:
        """Forget the deviations if the clock was set: stamps skip or repeat cycles, but images
        arrive as before.
        """
        period = self.period_ns
        if not self._skipped or not period or not self._arrival_s:
            return
        # Arrival times decide only if they scatter less than a cycle, or if the jump is large.
        is_clear = 1e9 * self._arrival_scatter_s() < period / 8 or abs(self._skipped) > RATE_CHANGE
        later = 1e9 * (lateness_s - self._median_arrival_s()) / period
        # A clock set ahead by n cycles makes images arrive n cycles "earlier": later = -n.
        if is_clear and abs(later + self._skipped) <= max(0.5, abs(self._skipped) / 2):
            self.forget_deviations()

    def may_return(
        self, count: int, at_place: float, is_new: bool, allowed: tuple[float, float]
    ) -> bool:
        """Return True if the camera may be used again; adopt its new offset if the trigger moved.

        The camera may be used if its images are at the old offset. It may also be used at a new
        offset if the trigger moved and not the clock. A wrong clock shifts the lateness as much as
        the deviation, another trigger time does not. If arrival times scatter too much to decide,
        the deviation must not change for ``SETTLED`` images.

        Args:
            count: number of newest images to use; their deviation is steady.
            at_place: largest deviation from the offset, nanoseconds.
            is_new: the camera was silent, so its clock and its trigger may be new.
            allowed: lowest and highest new offset, nanoseconds.
        """
        by, period = self.deviation(count), self.period_ns
        cycles = round(by / period) if period else 0
        is_at_place = abs(by - cycles * period) <= at_place
        has_settled = self._has_settled(by, at_place)
        if is_at_place and not cycles:
            return True
        error_ns = 2e9 * self._arrival_scatter_s()
        if not is_new and error_ns < abs(by) / 4:  # arrival times are precise enough to decide
            may_return = abs(self.arrival_shift_ns()) + error_ns < abs(by) / 2
        else:
            agrees = abs(self.arrival_shift_ns()) <= error_ns
            may_return = is_new or (has_settled and agrees)
        if may_return and not is_at_place:
            may_return = allowed[0] < self.offset_ns + by < allowed[1]
            self.offset_ns += round(by) if may_return else 0
        return may_return

    def _has_settled(self, by: float, limit: float) -> bool:
        """Return True if the deviation has not changed for ``SETTLED`` images."""
        if self._settled_at is None or abs(by - self._settled_at[1]) > limit / 2:
            self._settled_at = self.received, by
        return self.received - self._settled_at[0] >= SETTLED

    def arrival_shift_ns(self) -> float:
        """Return how much the lateness, compared with the other cameras, has grown since the first
        images.
        """
        if self._usual_arrival_s is None:
            return 0.0
        return 1e9 * (self._median_arrival_s() - self._usual_arrival_s)

    def clock_error_s(self, period_s: float) -> float:
        """Return the error of the camera's stamps, seconds.

        Errors of more than half a cycle are estimated from arrival times, smaller ones from
        stamps.
        """
        by_arrival_s = -self._median_arrival_s()
        if abs(by_arrival_s) > period_s / 2 or not self.deviations:
            return by_arrival_s
        return 1e-9 * self.deviations[-1]

    def _judge_jump(self, period: int) -> None:
        """Decide whether the clock jumped, images were lost, or the transport changed.

        If the clock jumps, stamps skip or repeat cycles while images arrive as before. Lost images
        skip both stamps and arrivals. A change of the transport changes only arrivals.
        """
        self._since_jump += 1
        if self._jump is None or self._since_jump < WINDOW:
            return
        (skipped, before_s), self._jump = self._jump, None
        sooner_ns = 1e9 * (before_s - self._median_arrival_s())
        if abs(sooner_ns - skipped * period) < GAP_SHARE * period:
            self.moved_cycles += skipped

    def _median_arrival_s(self) -> float:
        return statistics.median(self._arrival_s) if self._arrival_s else 0.0

    def _arrival_scatter_s(self) -> float:
        middle = self._median_arrival_s()
        return statistics.median(abs(one - middle) for one in self._arrival_s)


def drift(values: Iterable[float]) -> float:
    """Return the median of the later half of ``values`` minus that of the earlier half."""
    values = list(values)
    half = len(values) // 2
    return statistics.median(values[half:]) - statistics.median(values[:half])


def largest_gap(stamps: list[int]) -> int:
    """Return the largest distance between neighbors of ``stamps``, which are in order."""
    return max((later - earlier for earlier, later in pairwise(stamps)), default=0)
