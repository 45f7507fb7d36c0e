"""Measures the rate, the exposure time and the clock of one camera from stamps and arrival times.

* The image rate is the slope of a line through stamps and cycle numbers. Jitter and lost images do
  not change it.
* The deviation is the stamp minus the offset, compared with the stamps minus the offsets of the
  other cameras. The deviation changes if the clock or the trigger of the camera moves. It is known
  only modulo the trigger cycle.
* The lateness is the arrival time minus the stamp, compared with the images of the other cameras
  in the same cycle. The lateness is measured in seconds of stamps, so it does not depend on the
  rate of a replay. It changes with the clock and with the transport. If stamps skip or repeat
  a cycle and the lateness changes, too, the clock jumped by whole cycles.
* The backlog is the difference between the arrival time of an image and the usual arrival time of
  an image with this stamp. Images of several cameras that waited for the executor arrive in any
  order. The lateness of such images therefore does not show errors of clocks.
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
"""Number of last images from which deviations and lateness are measured."""
RATE_WINDOW = 2 * WINDOW
"""Number of last images from which rates are measured."""
LATE_NS = 250_000_000
"""Limit for a stamp that is earlier than the newest stamp of its camera, nanoseconds. If the
difference is at most this limit, the image arrived out of order. If the difference is larger, the
clock went back."""
CHANGE = 5
"""Number of consecutive intervals from which a change of the rate is detected."""
OPPOSITE = 1 / 3
"""If an image deviates by more than this share of the cycle, it may be too early for its own cycle
or too late for the previous cycle."""
LONGEST_PAUSE = 6
"""While the clock of a camera may have jumped, no sets are formed, for at most this many images of
the camera. By default, more images than this can wait for their sets, so no image is lost."""
SAME = 1 / 4
"""Two stamps of a camera belong to the same cycle if they are nearer to each other than this share
of the cycle."""
SHORTEST_JUMP = 0.6
"""A clock jumped by a cycle only if images arrive earlier or later than usual by more than this
share of the cycle."""
STEEP = 3.0
"""The clock drifts if deviations change within half a window by more than this multiple of the
jitter."""
CERTAIN = 1.25
"""Arrival times surely show an error of a clock that is larger than this multiple of the shortest
jump. A smaller error may stay undetected, because an image is compared only with images that have
already arrived."""
JUMP_IMAGES = 5
"""The lateness of this many images after a possible jump decides whether the clock jumped."""
LONGEST_BACKLOG_S = 4.0
"""If images arrive later or earlier than usual for this many seconds, the usual arrival times are
measured again."""
FASTEST = 0.1
"""Arrival times are compared only if the pace is higher than this value. The pace is the increase
of the arrival time per increase of the stamp. A replay at ten times real time has this pace."""
FASTER, SLOWER = 0.85, 1.15
"""Shares of the usual interval. Intervals below the first share show a higher rate, and intervals
above the second share show a lower rate."""
SHORT = 0.65
"""An interval below this share of the usual interval may be the first interval of a higher
rate."""
LOST = 1.5
"""An interval above this share of the usual interval contains lost images."""
FEWEST = 4
"""Smallest number of stamps from which their jitter is measured."""
IRREGULAR = 0.1
"""Intervals are irregular if their 20th and 75th percentiles differ by more than this share of the
period."""
CANDIDATES = np.geomspace(0.85, 1.4, 48)
"""Candidates for the period, as shares of a first estimate. If stamps jitter, the first estimate
is up to 10 % too small."""
PREFER_USUAL = 0.75
"""The usual period is the first estimate of the period if the agreement of its phases is above
this share of the agreement of the best candidate."""
KEEP = 0.95
"""With each new measurement, the scatter of the lateness falls at most to this share of its last
value."""
SMOOTH = 1 / 16
"""Weight of a new image in the usual arrival time, and in the scatter of the arrival times."""


def fit_line(stamps: Sequence[int], usual_ns: float = 0.0) -> tuple[float, float]:
    """Fit a line through ascending stamps and their cycle numbers.

    Returns:
        The slope of the line, which is the period, and the jitter of the last ``WINDOW`` stamps,
        both in nanoseconds. About nine of ten stamps differ from the line by at most the jitter.
        For fewer than two stamps, the period is 0. For fewer than ``FEWEST`` stamps, the jitter is
        infinite.

    If intervals are irregular, the period is first estimated as the candidate whose phases agree
    best.

    Args:
        stamps: ascending stamps of one camera, nanoseconds.
        usual_ns: usual period, nanoseconds; 0 if unknown. If the phases agree with this period
            nearly as well as with the best candidate, this period is the first estimate.
    """
    if len(stamps) < 2:
        return 0.0, math.inf
    times = np.array(stamps, np.float64) - stamps[len(stamps) // 2]
    intervals = sorted((times[1:] - times[:-1]).tolist())
    # A nuScenes camera has images in 12 of 20 cycles. One third of the intervals between these
    # images are one cycle long, and two thirds are two cycles long.
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
    # A jump of the clock changes only one difference of residuals. The differences jitter more
    # than the residuals, by a factor of the root of two. A line through few stamps follows the
    # jitter of these stamps, so the residuals are too small.
    changes = np.sort(abs(np.diff(residuals)))
    few = FEWEST / count - FEWEST / WINDOW
    return float(changes[(count - 1) * 9 // 10]) * (1 + few) / math.sqrt(2)


class Backlog:
    """Compares arrival times with a line of usual arrival times; all times are in seconds.

    Attributes:
        pace: increase of the arrival time per increase of the stamp, such as 2 for a replay at
            half speed; 0 if unknown.
        is_usual: True if the last image arrived as usual.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the usual arrival times, and measure them again from now on."""
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
    """Statistics of the last images of one camera; times are in nanoseconds unless the name
    or the description gives another unit.

    Attributes:
        state: 'used', 'silent', 'returning' or 'misaligned'; see ``synchronizer``.
        offset_ns: offset of the camera within the trigger cycle.
        stamps: the last stamps, ascending.
        newest_ns: the newest stamp; 0 before the first image.
        last: for each of the last two images: stamp, arrival time in seconds, and whether the
            image arrived as usual.
        period_ns: interval between images if no image is lost; 0 while unknown.
        usual_period_ns: period for which the offset was found; 0 while unknown.
        is_faster: True if the rate rose.
        is_slower: True if the rate fell, or if images are lost again and again.
        is_unsure: True if the next image must show whether the rate changed or the clock jumped.
        may_have_jumped: True if the next images must show whether the clock jumped.
        has_restarted: True if the offset of the camera may have changed when its images arrive
            again, as after a restart of the camera.
        backlog: backlog of the images of this camera.
        deviations: deviations of the last images.
        jitter_ns: largest jitter of about nine of ten stamps; infinite while unknown.
        received: number of images so far.
        skipped_ns: if the clock may last have jumped forward, the stamp that an image in the first
            skipped cycle would have had. If the clock may last have jumped back, 0.
        jump_sign: 1 while it is checked whether the clock jumped forward, -1 while it is checked
            whether the clock jumped back, otherwise 0.
        ignored: number of images so far that repeated another image or had no stamp.
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
        """Count an image that has no stamp, or the same stamp as an earlier image."""
        self.ignored += 1
        if stamp > 0:
            self._look_for_jump(stamp, arrival_s)

    def repeats(self, stamp: int, arrival_s: float) -> bool:
        """Return True if the clock may have gone back. There are three signs for this:

        * ``stamp`` is older than the newest stamp by more than ``LATE_NS``.
        * Two images in a row are older than the newest stamp.
        * ``stamp`` belongs to the cycle of an earlier image, although the arrival time has
          increased more than the stamp, by more than ``SHORTEST_JUMP`` of a cycle.
        """
        newest, same_ns = self.newest_ns, SAME * self.period_ns
        # A single image that is a little older than the newest image arrived out of order.
        if stamp < newest - LATE_NS or (self.last and max(stamp, self.last[-1][0]) < newest):
            return True
        return (
            stamp < newest + same_ns
            and any(abs(stamp - one) < same_ns for one in self.stamps)
            and self._moved_s(stamp, arrival_s) < -SHORTEST_JUMP * 1e-9 * self.period_ns
        )

    def _moved_s(self, stamp: int, arrival_s: float) -> float:
        """Return the increase of the stamp since the last image minus the increase of the arrival
        time, in seconds of stamps. Return 0 if arrival times cannot be compared.
        """
        pace = self.backlog.pace
        if pace <= FASTEST:
            return 0.0
        last, last_s, _ = self.last[-1]
        return 1e-9 * (stamp - last) - (arrival_s - last_s) / pace

    def _look_for_jump(self, stamp: int, arrival_s: float) -> None:
        """Begin to check whether the clock jumped, if the stamp skips or repeats a cycle but the
        arrival time does not.
        """
        newest, period = self.newest_ns, self.period_ns
        skips = bool(period) and stamp > newest + LOST * period
        sign = int(skips) - int(self.repeats(stamp, arrival_s))
        if sign in (0, self.jump_sign) or self._usual_s is None:
            return
        if sign * self._moved_s(stamp, arrival_s) > self._shortest_jump_s(1e-9 * period):
            # The next call of add_lateness is for the image before this image, so the count begins
            # at -1.
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
            differences: how much later the image is than the image of each other camera, after
                subtraction of the offsets, nanoseconds; not empty.
            period_ns: period of the trigger, nanoseconds.
        """
        # Deviations are known only modulo the cycle. Each deviation is shifted by whole cycles so
        # that it is near the last deviations. Otherwise a clock that drifts would look correct
        # each time it has drifted by a whole cycle. Jitter alone must not cause such a shift.
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
        """Return True if the last ``count`` images were all too early or all too late, by more
        than ``limit``. An image that deviates by about half a cycle counts as too early and as too
        late.
        """
        if len(self.deviations) < count or abs(self.deviations[-1]) <= limit:
            return False
        last = list(self.deviations)[-count:]
        is_far = min(map(abs, last)) > max(limit, OPPOSITE * period_ns)
        return is_far or min(last) > limit or max(last) < -limit

    def median_deviation(self, count: int) -> float:
        """Return the median deviation of the last ``count`` images; infinite if there are fewer
        than ``count`` images.
        """
        last = list(self.deviations)[-count:]
        return statistics.median(last) if len(last) == count else math.inf

    def add_lateness(self, lateness_s: float) -> None:
        """Add the lateness of an image, seconds."""
        self._lateness_s.append(lateness_s)
        self._jump_images += 1

    def keep_lateness(self, count: int) -> None:
        """Drop the lateness of all images except the last ``count``."""
        self._lateness_s = deque(list(self._lateness_s)[-count:], WINDOW)

    def note_usual_lateness(self) -> None:
        """Update the usual lateness from the lateness of the last images."""
        count = len(self._lateness_s)
        if count < WINDOW // 2 or self.jump_sign:
            return
        ordered = sorted(self._lateness_s)
        self._usual_s = statistics.median(ordered)
        self._earliest_s = min(self._earliest_s, self._usual_s)
        self._scatter_s = max(KEEP * self._scatter_s, ordered[-1] - ordered[0])

    def lateness_change(self, count: int, period_s: float, share: float = 1.0) -> int:
        """Compare the lateness of the last ``count`` images with the usual lateness.

        The limit is ``share`` times the shortest jump. Return 1 if these images arrive later than
        usual by more than the limit, -1 if they arrive earlier than ever before by more than the
        limit, otherwise 0.
        """
        last = list(self._lateness_s)[-count:]
        return self._change(statistics.median(last), period_s, share) if last else 0

    def _change(self, lateness_s: float, period_s: float, share: float = 1.0) -> int:
        # No camera can send an image before its exposure. If images arrive earlier than ever
        # before, the clock is wrong.
        if self._usual_s is None:
            return 0
        limit_s = share * self._shortest_jump_s(period_s)
        return int(lateness_s > self._usual_s + limit_s) - int(
            lateness_s < self._earliest_s - limit_s
        )

    def lateness_shows(self, error_s: float, period_s: float) -> bool:
        """Return True if ``lateness_change`` surely detects that a clock is wrong by ``error_s``
        seconds.
        """
        if self._usual_s is None:
            return False
        # If stamps are too late, images seem to arrive early. Early arrivals are compared with the
        # earliest lateness so far.
        span_s = self._usual_s - self._earliest_s if error_s > 0 else 0.0
        return span_s + CERTAIN * self._shortest_jump_s(period_s) < abs(error_s)

    def _shortest_jump_s(self, period_s: float) -> float:
        return max(SHORTEST_JUMP * period_s, self._scatter_s)

    def is_far(self, limit_s: float) -> bool:
        """Return True if the last ``JUMP_IMAGES`` images arrived earlier or later than images of
        other cameras with the same stamps, each by more than ``limit_s``.
        """
        if not self._lateness_s or abs(self._lateness_s[-1]) <= limit_s:
            return False
        last = list(self._lateness_s)[-JUMP_IMAGES:]
        return len(last) == JUMP_IMAGES and min(map(abs, last)) > limit_s

    def has_jumped(self, period_s: float) -> bool:
        """Return True if the clock jumped: stamps skipped or repeated a cycle, and since then all
        images have arrived earlier or later than usual.
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
        """Forget the usual lateness, and measure it again from now on."""
        self._usual_s, self._earliest_s, self._scatter_s = None, math.inf, 0.0

    def clock_error_s(self, period_s: float) -> float:
        """Return the error of the camera's stamps, seconds.

        Errors of more than half a cycle are estimated from arrival times, smaller errors from
        stamps.
        """
        by_arrival_s = -statistics.median(self._lateness_s) if self._lateness_s else 0.0
        by_arrival_s += self._usual_s or 0.0
        if abs(by_arrival_s) > period_s / 2 or not self.deviations:
            return by_arrival_s
        return 1e-9 * self.deviations[-1]


def drift(values: Iterable[float]) -> float:
    """Return the median of the later half of ``values`` minus the median of the earlier half."""
    values = list(values)
    half = len(values) // 2
    return statistics.median(values[half:]) - statistics.median(values[:half])
