"""Measures the rate, the exposure time and the clock of one camera from stamps and arrival times.

* The interval between stamps gives the image rate.
* The deviation is the stamp minus the offset, compared with the other cameras. It changes if the
  clock or the trigger of the camera moves. It is known only modulo the trigger cycle.
* The lateness is the arrival time minus the stamp, compared with the other cameras. It changes
  with the clock and with the transport. Together with an interval that skips or repeats a cycle,
  it shows that a clock jumped by whole cycles.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

WINDOW = 20
"""Images that everything is measured over."""
LATE_NS = 250_000_000
"""An image that is older than the newest one by at most this arrived out of order; an older one
means that the clock went back."""
CHANGE = 5
"""Intervals in a row that show a change of the rate."""
FASTER, SLOWER = 0.85, 1.15
"""Shares of the usual interval; intervals beyond them show a change of the rate."""
SHORT = 0.65
"""An interval below this share of the usual one may be the first of a higher rate."""
LOST = 1.5
"""An interval above this share of the usual one contains lost images."""


class CameraTiming:
    """Statistics of the last images of one camera; times in nanoseconds unless named otherwise.

    Attributes:
        state: 'used', 'silent', 'returning' or 'misaligned'; see ``synchronizer``.
        offset_ns: offset of the camera within the trigger cycle.
        stamps: the last stamps, in order of arrival.
        period_ns: mean interval between images, lost ones included; 0 while unknown.
        deviations: the last deviations.
        lateness_s: lateness of the last images, seconds.
        received: images so far.
        ignored: images so far that repeated another one or had no stamp.
    """

    def __init__(self) -> None:
        self.state = 'used'
        self.offset_ns = self.received = self.ignored = 0
        self.has_restarted = False
        self.usual_s: float | None = None
        self._earliest_s, self._scatter_s = math.inf, 0.0
        self.restart()

    def restart(self) -> None:
        """Drop all images; keep the offset and the usual lateness."""
        self.drop_stamps()
        self.deviations: deque[float] = deque(maxlen=WINDOW)
        self.lateness_s: deque[float] = deque(maxlen=WINDOW)

    def drop_stamps(self, last: int = 0) -> None:
        """Drop all stamps except the newest ones."""
        self.stamps: deque[int] = deque(sorted(self.stamps)[-last:] if last else (), WINDOW)
        self._skips = self._repeats = False
        self._doubts = 0
        self._measure_intervals()

    @property
    def newest_ns(self) -> int:
        """The newest stamp, 0 before the first."""
        return max(self.stamps, default=0)

    def take(self, stamp: int) -> bool:
        """Add the stamp of an image; return True if the clock of the camera went back."""
        newest, period = self.newest_ns, self.period_ns
        went_back = stamp < newest - LATE_NS
        self._skips = bool(period) and stamp > newest + LOST * period
        self._repeats = went_back or any(abs(stamp - one) < period / 2 for one in self.stamps)
        if went_back:
            self.stamps.clear()
        self.stamps.append(stamp)
        self.received += 1
        self._measure_intervals()
        return went_back

    def _measure_intervals(self) -> None:
        stamps = sorted(self.stamps)
        self.intervals = [later - earlier for earlier, later in pairwise(stamps)]
        ordered = sorted(self.intervals)
        longest = LOST * ordered[len(ordered) // 4] if ordered else 0
        usual = statistics.fmean(one for one in ordered if one < longest) if longest else 1
        cycles = sum(max(1, round(one / usual)) for one in ordered)
        self.period_ns = round(sum(ordered) / cycles) if cycles else 0

    @property
    def is_faster(self) -> bool:
        """True if the rate rose."""
        span = sum(self.intervals[-CHANGE:])
        return len(self.intervals) > CHANGE and span < FASTER * CHANGE * self.period_ns

    @property
    def is_slower(self) -> bool:
        """True if the rate fell, or images are lost again and again."""
        shortest = min(self.intervals[-CHANGE:], default=0)
        return len(self.intervals) > CHANGE and shortest > SLOWER * self.period_ns

    @property
    def is_unsure(self) -> bool:
        """True if the next image must show whether the rate changed or the clock jumped."""
        return self._doubts > 0 or (
            len(self.intervals) > 1 and self.intervals[-1] < SHORT * self.period_ns
        )

    def add_deviation(self, differences: Sequence[int], period_ns: int) -> None:
        """Add the deviation of an image.

        Args:
            differences: how much later the image is than that of each other camera, after
                subtraction of the offsets; not empty.
            period_ns: of the trigger.
        """
        # Continue from the last deviations: otherwise a clock that drifts would look correct each
        # time it has drifted by a whole cycle. Jitter alone must not lead away from zero.
        last = statistics.median(list(self.deviations)[-WINDOW // 2 :]) if self.deviations else 0
        last = last if abs(last) > period_ns / 4 else 0
        cycles = (period_ns * round((last - one) / period_ns) for one in differences)
        unwrapped = (one + by for one, by in zip(differences, cycles, strict=True))
        self.deviations.append(statistics.median(unwrapped))

    def correct_deviations(self, shift_ns: float) -> None:
        """Convert the deviations after ``offset_ns`` was raised by ``shift_ns``."""
        self.deviations = deque((one - shift_ns for one in self.deviations), WINDOW)

    @property
    def jitter_ns(self) -> float:
        """Nine of ten deviations differ from the usual one by at most this."""
        if len(self.deviations) < WINDOW // 2:
            return math.inf
        middle = statistics.median(self.deviations)
        return sorted(abs(one - middle) for one in self.deviations)[len(self.deviations) * 9 // 10]

    def is_one_sided(self, count: int, limit: float) -> bool:
        """Return True if the last ``count`` images were all too early or all too late."""
        last = list(self.deviations)[-count:]
        return len(last) == count and (min(last) > limit or max(last) < -limit)

    def add_lateness(self, lateness_s: float) -> None:
        """Add the lateness of an image, seconds."""
        self.lateness_s.append(lateness_s)

    def note_usual_lateness(self) -> None:
        """Take the lateness of the last images for the usual one."""
        count = len(self.lateness_s)
        if count < WINDOW // 2 or self._doubts:
            return
        ordered = sorted(self.lateness_s)
        self.usual_s = statistics.median(ordered)
        self._earliest_s = min(self._earliest_s, self.usual_s)
        self._scatter_s = ordered[count * 9 // 10] - ordered[count // 10]

    def lateness_change(self, count: int, period_s: float) -> int:
        """Return 1 if the last images arrive later than ever since their camera was last used by
        more than half a cycle, -1 if they arrive earlier, 0 otherwise.

        No camera can send an image before its exposure: earlier images show a wrong clock.
        """
        if self.usual_s is None or not self.lateness_s:
            return 0
        now_s = statistics.median(list(self.lateness_s)[-count:])
        limit_s = max(period_s / 2, self._scatter_s)
        return int(now_s > self.usual_s + limit_s) - int(now_s < self._earliest_s - limit_s)

    def has_jumped(self, period_s: float) -> bool:
        """Return True if the clock jumped: stamps skipped or repeated a cycle, and two images have
        arrived earlier or later than usual since.
        """
        change = self.lateness_change(1, period_s)
        begins = (self._skips and change < 0) or (self._repeats and change > 0)
        self._doubts = self._doubts + 1 if begins or (self._doubts and change) else 0
        return self._doubts > 1

    def trust_clock(self) -> None:
        """Measure the usual lateness from now on."""
        self.usual_s, self._earliest_s, self._scatter_s = None, math.inf, 0.0

    def clock_error_s(self, period_s: float) -> float:
        """Return the error of the camera's stamps, seconds.

        Errors of more than half a cycle are estimated from arrival times, smaller ones from
        stamps.
        """
        by_arrival_s = -statistics.median(self.lateness_s) if self.lateness_s else 0.0
        by_arrival_s += self.usual_s or 0.0
        if abs(by_arrival_s) > period_s / 2 or not self.deviations:
            return by_arrival_s
        return 1e-9 * self.deviations[-1]


def drift(values: Iterable[float]) -> float:
    """Return the median of the later half of ``values`` minus that of the earlier half."""
    values = list(values)
    half = len(values) // 2
    return statistics.median(values[half:]) - statistics.median(values[:half])
