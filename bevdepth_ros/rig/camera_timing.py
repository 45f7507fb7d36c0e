"""Measures the rate, the exposure time and the clock of one camera from stamps and arrival times.

* The interval between stamps gives the image rate.
* The deviation is the stamp minus the offset, compared with the other cameras. It changes if the
  clock or the trigger of the camera moves. It is known only modulo the trigger cycle.
* The lateness is the arrival time minus the stamp, compared with the images of the other cameras
  in the same cycle, in seconds of stamps: a late executor and the rate of a replay do not change
  it. It changes with the clock and with the transport. Together with an interval that skips or
  repeats a cycle, it shows that a clock jumped by whole cycles.
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
OPPOSITE = 1 / 3
"""Share of the cycle; images that deviate by more may be too early as well as too late."""
BURST = 0.5
"""Images that arrive within this share of the cycle after another one were delayed."""
LONGEST_PAUSE = 6
"""Images that sets wait for at most because the clock may have jumped; fewer than those that can
wait."""
SHORTEST_JUMP = 0.5
"""Share of the cycle; images must be earlier or later by more if the clock jumped by a cycle."""
JUMP_IMAGES = 5
"""Images after a possible jump of the clock whose lateness decides."""
FASTEST = 0.1
"""Seconds of arrival per second of stamps below which arrival times show nothing."""
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
        pace: seconds of arrival per second of stamps: 2 for a replay at half speed, 0 if unknown.
        period_ns: mean interval between images, lost ones included; 0 while unknown.
        usual_period_ns: the period that the offset was found for; 0 while unknown.
        deviations: the last deviations.
        lateness_s: lateness of the last images, seconds.
        received: images so far.
        skipped_ns: stamp of the first image that was missing when the clock last may have jumped
            ahead; 0 if it may have jumped back.
        ignored: images so far that repeated another one or had no stamp.
    """

    def __init__(self) -> None:
        self.state = 'used'
        self.offset_ns = self.received = self.ignored = 0
        self.has_restarted = False
        self.usual_period_ns = 0
        self._jump_sign: int = 0
        self._paused_until = self.skipped_ns = 0
        self.usual_s: float | None = None
        self._earliest_s, self._scatter_s = math.inf, 0.0
        self.restart()

    def restart(self) -> None:
        """Drop all images; keep the offset and the usual lateness."""
        self.deviations: deque[float] = deque(maxlen=WINDOW)
        self.lateness_s: deque[float] = deque(maxlen=WINDOW)
        self.drop_stamps()

    def drop_stamps(self) -> None:
        """Drop all stamps."""
        self.stamps: deque[int] = deque(maxlen=WINDOW)
        self.arrivals_s: deque[float] = deque(maxlen=WINDOW)
        self._end_jump_check()
        self._measure_intervals()

    def keep_new_rate(self) -> None:
        """Drop the stamps before the last change of the rate."""
        intervals = [later - earlier for earlier, later in pairwise(self.stamps)]
        count = 1
        while count <= len(intervals) and (
            SHORT * intervals[-1] < intervals[-count] < LOST * intervals[-1]
        ):
            count += 1
        self.stamps = deque(list(self.stamps)[-count:], WINDOW)
        self.arrivals_s = deque(list(self.arrivals_s)[-count:], WINDOW)
        self._end_jump_check()
        self._measure_intervals()

    @property
    def newest_ns(self) -> int:
        """The newest stamp, 0 before the first."""
        return max(self.stamps, default=0)

    def take(self, stamp: int, arrival_s: float) -> bool:
        """Add an image; return True if the clock of the camera went back."""
        newest, period = self.newest_ns, self.period_ns
        went_back = stamp < newest - LATE_NS
        skips = bool(period) and stamp > newest + LOST * period
        repeats = went_back or any(abs(stamp - one) < period / 2 for one in self.stamps)
        sign = int(skips) - int(repeats)
        if sign not in (0, self._jump_sign) and self.usual_s is not None and self.pace > FASTEST:
            waited_s = (arrival_s - self.arrivals_s[-1]) / self.pace
            moved_s = 1e-9 * (stamp - self.stamps[-1]) - waited_s
            # The image before this one is the next whose lateness is added.
            self._jump_images, self._jump_sign = -1, sign
            self.skipped_ns = newest + period if sign > 0 else 0
            self.may_have_jumped = abs(moved_s) > self._shortest_jump_s(1e-9 * period)
            self._paused_until = self.received + LONGEST_PAUSE
        if went_back:
            self.stamps.clear()
            self.arrivals_s.clear()
        self.stamps.append(stamp)
        self.arrivals_s.append(arrival_s)
        self.received += 1
        if self.received > self._paused_until:
            self.may_have_jumped = False
        self._measure_intervals()
        return went_back

    def _measure_pace(self) -> float:
        arrivals, stamps = pairwise(self.arrivals_s), pairwise(self.stamps)
        usual = [
            (after_s - before_s, after - before)
            for (before_s, after_s), (before, after) in zip(arrivals, stamps, strict=True)
            if SHORT * self.period_ns < after - before < LOST * self.period_ns
        ]
        if not usual:
            return 0.0
        return 1e9 * sum(one for one, _ in usual) / sum(one for _, one in usual)

    def _end_jump_check(self) -> None:
        self._jump_images, self._jump_sign, self.may_have_jumped = 0, 0, False

    def _measure_intervals(self) -> None:
        stamps = sorted(self.stamps)
        self.intervals = [later - earlier for earlier, later in pairwise(stamps)]
        ordered = sorted(self.intervals)
        longest = LOST * ordered[len(ordered) // 4] if ordered else 0
        usual = statistics.fmean(one for one in ordered if one < longest) if longest else 1
        cycles = sum(max(1, round(one / usual)) for one in ordered)
        self.period_ns = round(sum(ordered) / cycles) if cycles else 0
        self.pace = self._measure_pace()

    @property
    def is_faster(self) -> bool:
        """True if the rate rose."""
        usual, span = self.usual_period_ns or self.period_ns, sum(self.intervals[-CHANGE:])
        return len(self.intervals) > CHANGE and span < FASTER * CHANGE * usual

    @property
    def is_slower(self) -> bool:
        """True if the rate fell, or images are lost again and again."""
        usual, recent = self.usual_period_ns or self.period_ns, self.intervals[-CHANGE:]
        return len(self.intervals) > CHANGE and min(recent) > SLOWER * usual

    @property
    def is_unsure(self) -> bool:
        """True if the next image must show whether the rate changed or the clock jumped."""
        return self.may_have_jumped or (
            len(self.intervals) > 1 and self.intervals[-1] < SHORT * self.period_ns
        )

    @property
    def is_burst(self) -> bool:
        """True if the last image but one arrived so soon after the one before it that its arrival
        time shows nothing.
        """
        if len(self.stamps) < 3:
            return True
        waited_s = self.arrivals_s[-2] - self.arrivals_s[-3]
        return waited_s < BURST * self.pace * 1e-9 * self.period_ns

    def add_deviation(self, differences: Sequence[int], period_ns: int) -> None:
        """Add the deviation of an image.

        Args:
            differences: how much later the image is than that of each other camera, after
                subtraction of the offsets; not empty.
            period_ns: period of the trigger.
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

    def is_misaligned(self, count: int, limit: float, period_ns: int) -> bool:
        """Return True if the last ``count`` images were all too early or all too late; those about
        half a cycle away are both.
        """
        last = list(self.deviations)[-count:]
        is_far = bool(last) and min(map(abs, last)) > max(limit, OPPOSITE * period_ns)
        return len(last) == count and (is_far or min(last) > limit or max(last) < -limit)

    def is_in_place(self, count: int, limit: float) -> bool:
        """Return True if the median deviation of the last ``count`` images is below ``limit``."""
        last = list(self.deviations)[-count:]
        return len(last) == count and abs(statistics.median(last)) < limit

    def add_lateness(self, lateness_s: float) -> None:
        """Add the lateness of an image, seconds."""
        self.lateness_s.append(lateness_s)
        self._jump_images += 1

    def note_usual_lateness(self) -> None:
        """Take the lateness of the last images for the usual one."""
        count = len(self.lateness_s)
        if count < WINDOW // 2 or self._jump_sign:
            return
        ordered = sorted(self.lateness_s)
        self.usual_s = statistics.median(ordered)
        self._earliest_s = min(self._earliest_s, self.usual_s)
        self._scatter_s = ordered[count * 9 // 10] - ordered[count // 10]

    def lateness_change(self, count: int, period_s: float, share: float = 1.0) -> int:
        """Return 1 if the last images arrive later than usual by more than ``share`` of the
        shortest jump, -1 if they arrive earlier than ever by as much, 0 otherwise.

        No camera can send an image before its exposure: earlier images show a wrong clock.
        """
        if self.usual_s is None or not self.lateness_s:
            return 0
        now_s = statistics.median(list(self.lateness_s)[-count:])
        limit_s = share * self._shortest_jump_s(period_s)
        return int(now_s > self.usual_s + limit_s) - int(now_s < self._earliest_s - limit_s)

    def lateness_shows_cycles(self, period_s: float) -> bool:
        """Return True if ``lateness_change`` detects one cycle."""
        return self.usual_s is not None and self._scatter_s <= period_s / 2

    def _shortest_jump_s(self, period_s: float) -> float:
        return max(SHORTEST_JUMP * period_s, self._scatter_s)

    def has_jumped(self, period_s: float) -> bool:
        """Return True if the clock jumped: stamps skipped or repeated a cycle, and images have
        arrived earlier or later than usual since.
        """
        if self._jump_images > 0 and self.lateness_change(1, period_s) != -self._jump_sign:
            self.may_have_jumped = False
        if not self._jump_sign or self._jump_images < JUMP_IMAGES:
            return False
        has_jumped = self.lateness_change(self._jump_images, period_s) == -self._jump_sign
        may_have = self.lateness_change(self._jump_images, period_s, 0.5) == -self._jump_sign
        if has_jumped or not may_have or self._jump_images >= WINDOW // 2:
            self._end_jump_check()
        return has_jumped

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
