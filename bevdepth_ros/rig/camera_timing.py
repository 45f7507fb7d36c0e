"""Measures the rate, the exposure time and the clock of one camera from stamps and arrival times.

* A line through stamps and cycle numbers gives the image rate, also if stamps jitter or images are
  lost.
* The deviation is the stamp minus the offset, compared with the other cameras. It changes if the
  clock or the trigger of the camera moves. It is known only modulo the trigger cycle.
* The lateness is the arrival time minus the stamp, compared with the images of the other cameras
  in the same cycle, in seconds of stamps: the rate of a replay does not change it. It changes with
  the clock and with the transport. Together with stamps that skip or repeat a cycle, it shows that
  a clock jumped by whole cycles.
* The backlog is the arrival time compared with the usual one of the same stamp. Images that waited
  for the executor arrive in any order of the cameras, so their lateness shows nothing.
"""

from __future__ import annotations

import cmath
import math
import statistics
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

WINDOW = 20
"""Images that deviations and lateness are measured over."""
RATE_WINDOW = 2 * WINDOW
"""Images that rates are measured over."""
LATE_NS = 250_000_000
"""An image that is older than the newest one by at most this arrived out of order; an older one
means that the clock went back."""
CHANGE = 5
"""Intervals in a row that show a change of the rate."""
OPPOSITE = 1 / 3
"""Share of the cycle; images that deviate by more may be too early as well as too late."""
LONGEST_PAUSE = 6
"""Images that sets wait for at most because the clock may have jumped; fewer than those that can
wait."""
SAME = 1 / 4
"""Share of the cycle; two stamps of a camera that are nearer to each other are of one cycle."""
SHORTEST_JUMP = 0.6
"""Share of the cycle; images must be earlier or later by more if the clock jumped by a cycle."""
STEEP = 3.0
"""Multiple of the jitter; deviations that change by more within half a window show a drift."""
CERTAIN = 1.25
"""Multiple of the shortest jump; arrival times surely show larger errors of a clock. Smaller ones
can be hidden, because only images of other cameras that have arrived already are compared."""
JUMP_IMAGES = 5
"""Images after a possible jump of the clock whose lateness decides."""
LONGEST_BACKLOG_S = 4.0
"""Seconds after which images that arrive later or earlier than usual are the usual ones."""
FASTEST = 0.1
"""Seconds of arrival per second of stamps below which arrival times show nothing."""
FASTER, SLOWER = 0.85, 1.15
"""Shares of the usual interval; intervals beyond them show a change of the rate."""
SHORT = 0.65
"""An interval below this share of the usual one may be the first of a higher rate."""
LOST = 1.5
"""An interval above this share of the usual one contains lost images."""
FEWEST = 4
"""Stamps that are necessary to measure their jitter."""
IRREGULAR = 0.1
"""Intervals are irregular if half of them differ by more than this share of the period."""
CANDIDATES = np.geomspace(0.85, 1.4, 48)
"""Periods to try, as shares of a first guess, which is up to 10 % too small if stamps jitter."""
PREFER_USUAL = 0.75
"""Share of the best agreement of phases with which the usual period is kept."""
KEEP = 0.95
"""Share of the scatter of the lateness that is kept at each of its measurements."""
SMOOTH = 1 / 16
"""Weight of an image in the usual backlog and its scatter."""


def fit_line(stamps: Sequence[int], usual_ns: float = 0.0) -> tuple[float, float]:
    """Fit a line through ascending stamps and their cycle numbers.

    Returns:
        Its slope, which is the period, and the jitter of the last ``WINDOW`` stamps: nine of ten
        differ from the line by at most about this. In nanoseconds; 0 and infinite for fewer than
        two stamps, and infinite jitter for fewer than ``FEWEST``.

    If intervals are irregular, the period is first searched as the one whose phases agree best.

    Args:
        stamps: of one camera, nanoseconds.
        usual_ns: period to prefer if phases agree about as well, nanoseconds; 0 if unknown.
    """
    if len(stamps) < 2:
        return 0.0, math.inf
    times = np.array(stamps, np.float64) - stamps[len(stamps) // 2]
    intervals = sorted((times[1:] - times[:-1]).tolist())
    # nuScenes takes 12 of 20 cycles: one of three intervals is a cycle, the others are two.
    shortest, longest = intervals[(len(intervals) - 1) // 5], intervals[len(intervals) * 3 // 4]
    period = statistics.median([one for one in intervals if one <= LOST * shortest])
    if longest - shortest > IRREGULAR * period:
        periods = np.append(period * CANDIDATES, usual_ns or period)
        agreements = abs(np.exp(2j * np.pi / periods[:, None] * times).sum(1))
        is_usual = agreements[-1] > PREFER_USUAL * agreements.max()
        period = float(periods[-1 if usual_ns and is_usual else agreements[:-1].argmax()])
    phase = cmath.phase(np.exp(2j * np.pi / period * times).sum()) / (2 * math.pi)
    cycles = np.rint(times / period - phase)
    cycles -= cycles.mean()
    square = cycles @ cycles
    period = float(cycles @ times / square) if square else period
    return period, _jitter((times - period * cycles)[-WINDOW:])


def _jitter(residuals: np.ndarray) -> float:
    count = len(residuals)
    if count < FEWEST:
        return math.inf
    # Differences do not contain a jump of the clock; they jitter by the root of two more. A line
    # through few stamps follows their jitter, and may show too little of it.
    changes = np.sort(abs(np.diff(residuals)))
    few = FEWEST / count - FEWEST / WINDOW
    return float(changes[(count - 1) * 9 // 10]) * (1 + few) / math.sqrt(2)


class Backlog:
    """Compares arrival times with a line of usual arrival times; in seconds.

    Attributes:
        pace: seconds of arrival per second of stamps: 2 for a replay at half speed, 0 if unknown.
        is_usual: True if the last image arrived as usual.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Measure the usual arrival times from now on."""
        self.pace, self.is_usual, self._count, self._scatter_s = 0.0, False, 0, 0.0

    def take(self, stamp: int, arrival_s: float, period_s: float) -> None:
        """Add an image."""
        if not self._count:
            self._first = self._last = (arrival_s, stamp)
            self._usual_at_s = arrival_s
        self._count += 1
        usual_s, usual_stamp = self._last
        expected_s = usual_s + self.pace * 1e-9 * (stamp - usual_stamp)
        excess_s = arrival_s - expected_s
        limit_s = max(SHORTEST_JUMP * self.pace * period_s, 4 * self._scatter_s)
        is_first = self._count <= WINDOW
        self.is_usual = not is_first and abs(excess_s) <= limit_s
        if self.is_usual or is_first:
            self._scatter_s += SMOOTH * (abs(excess_s) - self._scatter_s)
            self._last = (arrival_s if is_first else expected_s + SMOOTH * excess_s, stamp)
            if stamp > self._first[1]:
                pace = 1e9 * (self._last[0] - self._first[0]) / (stamp - self._first[1])
                self.pace = max(0.0, pace)
            self._usual_at_s = arrival_s
        elif arrival_s > self._usual_at_s + LONGEST_BACKLOG_S:
            self.restart()


class CameraTiming:
    """Statistics of the last images of one camera; times in nanoseconds unless named otherwise.

    Attributes:
        state: 'used', 'silent', 'returning' or 'misaligned'; see ``synchronizer``.
        offset_ns: offset of the camera within the trigger cycle.
        stamps: the last stamps, ascending.
        newest_ns: the newest stamp, 0 before the first.
        last: stamp, arrival time in seconds, and whether it is as usual, of the last two images.
        period_ns: interval between images, lost ones included; 0 while unknown.
        usual_period_ns: the period that the offset was found for; 0 while unknown.
        is_faster, is_slower: True if the rate rose or fell; also if images are lost again and
            again.
        is_unsure: True if the next image must show whether the rate changed or the clock jumped.
        backlog: of the images of this camera.
        deviations: the last deviations.
        jitter_ns: nine of ten stamps jitter by at most about this; infinite while unknown.
        received: images so far.
        skipped_ns: stamp of the first image that was missing when the clock last may have jumped
            ahead; 0 if it may have jumped back.
        jump_sign: 1 while it is checked whether the clock jumped ahead, -1 if back, otherwise 0.
        ignored: images so far that repeated another one or had no stamp.
    """

    def __init__(self) -> None:
        self.state = 'used'
        self.offset_ns = self.received = self.ignored = 0
        self.has_restarted = False
        self.usual_period_ns = 0
        self.backlog = Backlog()
        self._paused_until = self.skipped_ns = self.jump_sign = 0
        self._usual_s: float | None = None
        self._earliest_s, self._scatter_s = math.inf, 0.0
        self.restart()

    def restart(self) -> None:
        """Drop all images; keep the offset and the usual lateness."""
        self.clear_deviations()
        self._lateness_s: deque[float] = deque(maxlen=WINDOW)
        self.drop_stamps()

    def clear_deviations(self) -> None:
        """Drop all deviations."""
        self.deviations: deque[float] = deque(maxlen=WINDOW)

    def drop_stamps(self) -> None:
        """Drop all stamps."""
        self.stamps: list[int] = []
        self.last: deque[tuple[int, float, bool]] = deque(maxlen=2)
        self.newest_ns = self.period_ns = 0
        self.backlog.restart()
        self._end_jump_check()
        self._measure_rate()

    def keep_new_rate(self) -> None:
        """Drop the stamps before the last change of the rate."""
        intervals = [later - earlier for earlier, later in pairwise(self.stamps)]
        count = 1
        while count <= min(CHANGE, len(intervals)) and (
            SHORT * intervals[-1] < intervals[-count] < LOST * intervals[-1]
        ):
            count += 1
        del self.stamps[:-count]
        self.usual_period_ns = 0
        self.trust_clock()
        self._end_jump_check()
        self._measure_rate()

    def take(self, stamp: int, arrival_s: float) -> None:
        """Add an image."""
        self._look_for_jump(stamp, arrival_s)
        if self.received >= self._paused_until:
            self.may_have_jumped = False
        if stamp < self.newest_ns - LATE_NS:
            self.stamps.clear()
            self.backlog.restart()
        insort(self.stamps, stamp)
        del self.stamps[:-RATE_WINDOW]
        self.newest_ns = self.stamps[-1]
        self.received += 1
        self._measure_rate()
        self.backlog.take(stamp, arrival_s, 1e-9 * self.period_ns)
        self.last.append((stamp, arrival_s, self.backlog.is_usual))

    def ignore(self, stamp: int, arrival_s: float) -> None:
        """Count an image without a stamp, or with the same stamp as another one."""
        self.ignored += 1
        if stamp > 0:
            self._look_for_jump(stamp, arrival_s)

    def repeats(self, stamp: int, arrival_s: float) -> bool:
        """Return True if the next stamp is of a cycle that already had an image, although time
        went on: the clock may have gone back.
        """
        newest, same_ns = self.newest_ns, SAME * self.period_ns
        # A single image that is a little older than the newest one arrived out of order.
        if stamp < newest - LATE_NS or (self.last and max(stamp, self.last[-1][0]) < newest):
            return True
        return (
            stamp < newest + same_ns
            and any(abs(stamp - one) < same_ns for one in self.stamps)
            and self._moved_s(stamp, arrival_s) < -SHORTEST_JUMP * 1e-9 * self.period_ns
        )

    def _moved_s(self, stamp: int, arrival_s: float) -> float:
        """Return by how much more stamps than arrival times went on since the last image; 0 if
        arrival times show nothing.
        """
        pace = self.backlog.pace
        if pace <= FASTEST:
            return 0.0
        last, last_s, _ = self.last[-1]
        return 1e-9 * (stamp - last) - (arrival_s - last_s) / pace

    def _look_for_jump(self, stamp: int, arrival_s: float) -> None:
        """Notice stamps that skip or repeat a cycle although time went on as usual."""
        newest, period = self.newest_ns, self.period_ns
        skips = bool(period) and stamp > newest + LOST * period
        sign = int(skips) - int(self.repeats(stamp, arrival_s))
        if sign in (0, self.jump_sign) or self._usual_s is None:
            return
        if sign * self._moved_s(stamp, arrival_s) > self._shortest_jump_s(1e-9 * period):
            # The image before this one is the next whose lateness is added.
            self._jump_images, self.jump_sign = -1, sign
            self.skipped_ns = newest + period if sign > 0 else 0
            self.may_have_jumped = self.backlog.is_usual
            self._paused_until = self.received + LONGEST_PAUSE

    def _end_jump_check(self) -> None:
        self._jump_images, self.jump_sign, self.may_have_jumped = 0, 0, False

    def _measure_rate(self) -> None:
        stamps = self.stamps
        if len(stamps) < WINDOW or self.received % CHANGE == 0:
            period, self.jitter_ns = fit_line(stamps, self.usual_period_ns or self.period_ns)
            self.period_ns = round(period)
        recent = [later - one for one, later in pairwise(stamps[-CHANGE - 1 :])]
        usual = self.usual_period_ns or self.period_ns
        has_enough = len(stamps) > CHANGE + 1
        self.is_faster = has_enough and sum(recent) < FASTER * CHANGE * usual
        self.is_slower = has_enough and min(recent) > SLOWER * usual
        is_short = len(stamps) > 2 and recent[-1] < SHORT * self.period_ns
        self.is_unsure = self.may_have_jumped or is_short

    def add_deviation(self, differences: Sequence[int], period_ns: int) -> None:
        """Add the deviation of an image.

        Args:
            differences: how much later the image is than that of each other camera, after
                subtraction of the offsets; not empty.
            period_ns: period of the trigger.
        """
        # Continue from the last deviations: otherwise a clock that drifts would look correct each
        # time it has drifted by a whole cycle. Jitter alone must not lead away from zero.
        last, quarter = list(self.deviations)[-WINDOW // 2 :], period_ns / 4
        has_moved = len(last) >= CHANGE and abs(last[-1]) > quarter
        middle = statistics.median(last) if has_moved else 0.0
        moved = drift(last) if len(last) == WINDOW // 2 else 0.0
        if abs(moved) > STEEP * self.jitter_ns:  # the median lags behind a clock that drifts fast
            middle = statistics.median(last[-CHANGE:]) + moved / 2
        middle = middle if abs(middle) > quarter else 0.0
        unwrapped = [one + period_ns * round((middle - one) / period_ns) for one in differences]
        self.deviations.append(statistics.median(unwrapped))

    def set_offset(self, offset_ns: int) -> None:
        """Set the offset for the current period, and start new deviations."""
        self.offset_ns, self.usual_period_ns = offset_ns, self.period_ns
        self.clear_deviations()

    def is_misaligned(self, count: int, limit: float, period_ns: int) -> bool:
        """Return True if the last ``count`` images were all too early or all too late; those about
        half a cycle away are both.
        """
        if len(self.deviations) < count or abs(self.deviations[-1]) <= limit:
            return False
        last = list(self.deviations)[-count:]
        is_far = min(map(abs, last)) > max(limit, OPPOSITE * period_ns)
        return is_far or min(last) > limit or max(last) < -limit

    def median_deviation(self, count: int) -> float:
        """Return the median deviation of the last ``count`` images; infinite for fewer."""
        last = list(self.deviations)[-count:]
        return statistics.median(last) if len(last) == count else math.inf

    def add_lateness(self, lateness_s: float) -> None:
        """Add the lateness of an image, seconds."""
        self._lateness_s.append(lateness_s)
        self._jump_images += 1

    def keep_lateness(self, count: int) -> None:
        """Drop the lateness of all images but the last ``count``."""
        self._lateness_s = deque(list(self._lateness_s)[-count:], WINDOW)

    def note_usual_lateness(self) -> None:
        """Take the lateness of the last images for the usual one."""
        count = len(self._lateness_s)
        if count < WINDOW // 2 or self.jump_sign:
            return
        ordered = sorted(self._lateness_s)
        self._usual_s = statistics.median(ordered)
        self._earliest_s = min(self._earliest_s, self._usual_s)
        self._scatter_s = max(KEEP * self._scatter_s, ordered[-1] - ordered[0])

    def lateness_change(self, count: int, period_s: float, share: float = 1.0) -> int:
        """Return 1 if the last images arrive later than usual by more than ``share`` of the
        shortest jump, -1 if they arrive earlier than ever by as much, 0 otherwise.
        """
        last = list(self._lateness_s)[-count:]
        return self._change(statistics.median(last), period_s, share) if last else 0

    def _change(self, lateness_s: float, period_s: float, share: float = 1.0) -> int:
        # No camera can send an image before its exposure: earlier images show a wrong clock.
        if self._usual_s is None:
            return 0
        limit_s = share * self._shortest_jump_s(period_s)
        return int(lateness_s > self._usual_s + limit_s) - int(
            lateness_s < self._earliest_s - limit_s
        )

    def lateness_shows(self, error_s: float, period_s: float) -> bool:
        """Return True if ``lateness_change`` surely detects an error of the clock of this size."""
        if self._usual_s is None:
            return False
        # Stamps that are too late look like early arrivals, which are compared with the earliest.
        span_s = self._usual_s - self._earliest_s if error_s > 0 else 0.0
        return span_s + CERTAIN * self._shortest_jump_s(period_s) < abs(error_s)

    def _shortest_jump_s(self, period_s: float) -> float:
        return max(SHORTEST_JUMP * period_s, self._scatter_s)

    def is_far(self, limit_s: float) -> bool:
        """Return True if the last images all arrive earlier or later by more than ``limit_s`` than
        images of the other cameras with the same stamps.
        """
        if not self._lateness_s or abs(self._lateness_s[-1]) <= limit_s:
            return False
        last = list(self._lateness_s)[-JUMP_IMAGES:]
        return len(last) == JUMP_IMAGES and min(map(abs, last)) > limit_s

    def has_jumped(self, period_s: float) -> bool:
        """Return True if the clock jumped: stamps skipped or repeated a cycle, and all images have
        arrived earlier or later than usual since.
        """
        if not self.jump_sign:
            return False
        if self._jump_images > 0 and self.lateness_change(1, period_s) != -self.jump_sign:
            self.may_have_jumped = False
        if self._jump_images < JUMP_IMAGES:
            return False
        last = sorted(list(self._lateness_s)[-JUMP_IMAGES:])
        nearest_s = last[-1 if self.jump_sign > 0 else 0]
        has_jumped = self._change(nearest_s, period_s) == -self.jump_sign
        self._end_jump_check()
        return has_jumped

    def trust_clock(self) -> None:
        """Measure the usual lateness from now on."""
        self._usual_s, self._earliest_s, self._scatter_s = None, math.inf, 0.0

    def clock_error_s(self, period_s: float) -> float:
        """Return the error of the camera's stamps, seconds.

        Errors of more than half a cycle are estimated from arrival times, smaller ones from
        stamps.
        """
        by_arrival_s = -statistics.median(self._lateness_s) if self._lateness_s else 0.0
        by_arrival_s += self._usual_s or 0.0
        if abs(by_arrival_s) > period_s / 2 or not self.deviations:
            return by_arrival_s
        return 1e-9 * self.deviations[-1]


def drift(values: Iterable[float]) -> float:
    """Return the median of the later half of ``values`` minus that of the earlier half."""
    values = list(values)
    half = len(values) // 2
    return statistics.median(values[half:]) - statistics.median(values[:half])
