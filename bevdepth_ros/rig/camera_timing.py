"""Measures the image rate and the errors of the clock of one camera from stamps and arrival times.

The terms of this module, in the order in which they are built on each other:

* Trigger cycle: one round in which every camera exposes once.
* Period: time between two images of a camera if no image is lost. It is the slope of a line that
  is fitted to cycle numbers and stamps. The image rate is the inverse of the period. The usual
  period is the period at the time when the offset (see below) was found.
* Jitter: random error of stamps. About nine of ten stamps differ from the line by at most the
  measured jitter.
* Offset: time from the start of the trigger cycle to the exposure of a camera. A corrected stamp
  is the stamp minus the offset.
* Deviation of an image: its corrected stamp minus the corrected stamps of the images of the other
  cameras in the same cycle (median of the differences). The image is too late if the deviation is
  positive. The deviation changes if the clock or the trigger of the camera changes. It is known
  only modulo the trigger cycle, because stamps do not contain the number of their cycle.
* Arrival time: time at which the executor processes an image, measured with the clock of this
  computer. Images that waited for the executor therefore have late arrival times.
* Pace: increase of the arrival time divided by the increase of the stamp. It is 1 for live cameras
  and 2 for a replay at half speed.
* Usual arrival time: arrival time that follows from the stamp of an image, from the pace, and from
  the earlier images of the same camera. See ``UsualArrivals``.
* Lateness of an image: how much later it arrived than an image of another camera with the same
  stamp would have arrived (median over the other cameras). Differences of arrival times are
  divided by the pace, so the lateness does not depend on the speed of a replay. The lateness falls
  if the clock of the camera jumps forward. It rises if the clock jumps back, or if the transport
  becomes slower. Unless clocks drift, images of other cameras that did not arrive as usual are not
  compared, because the executor processes waiting images of several cameras in any order.
* Usual lateness: median lateness of the last images, measured while the deviation is near zero.
  The scatter is the difference between the largest and the smallest lateness of these images.
* Drift: slow change of the error of a clock. The deviations follow the drift.
* Jump: sudden change of the error of a clock. A jump by whole cycles does not change the
  deviation, but stamps skip or repeat a cycle, and the lateness changes. A jump check begins at
  such a stamp, and decides with the lateness of the next images whether the clock jumped.
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
"""Number of last images from which deviations, lateness and jitter are measured."""
RATE_WINDOW = 2 * WINDOW
"""Number of last images from which periods are measured."""
SHORT_WINDOW = 5
"""Number of last images or intervals in which a fast change is detected. Values that change slowly
are updated only once in this number of images."""
LATE_NS = 250_000_000
"""If the stamp of a single image is older than the newest stamp of its camera by at most this
time, in nanoseconds, the image arrived out of order. If it is even older, the clock went back."""
UNCLEAR_SIGN = 1 / 3
"""The sign of a deviation is unclear if the deviation exceeds this share of the cycle: an image
that is half a cycle late is also half a cycle early, because deviations are known only modulo the
cycle. With jitter, the sign can then change from image to image."""
SAME_CYCLE = 1 / 4
"""Two stamps of a camera belong to the same cycle if they differ by less than this share of the
period."""
SHORTEST_JUMP = 0.6
"""A change of the lateness shows a jump of the clock only if it exceeds this share of the cycle.
A jump by whole cycles changes the lateness by at least one cycle. An image arrives as usual
if its arrival time differs from the usual arrival time by at most this share of the cycle, or by
at most four times the mean difference."""
SURE_ERROR = 1.25
"""An error of a clock that exceeds the shortest jump by this factor surely changes the measured
lateness by more than the shortest jump. The lateness may not show a smaller error, because the
lateness scatters."""
JUMP_IMAGES = 5
"""A jump check decides with the lateness of this many images, beginning with the image whose stamp
skips or repeats a cycle."""
LONGEST_JUMP_PAUSE = JUMP_IMAGES + 1
"""While the clock of a camera may have jumped, no sets are formed, for at most this many images of
the camera. The jump check needs one image more than ``JUMP_IMAGES``, because the lateness of an
image is measured when the next image arrives. During this pause, images wait for their sets. By
default, the queue for waiting images (parameter ``sync_queue_size``) is long enough."""
FAST_DRIFT = 3.0
"""A clock drifts fast if the deviations of the last ``WINDOW // 2`` images change by more than
this multiple of the jitter."""
LONGEST_UNUSUAL_S = 4.0
"""If no image of a camera arrives as usual for this many seconds, the usual arrival times are
measured again."""
SMALLEST_PACE = 0.1
"""Lower limit of the pace; a replay at ten times real time has this pace. If the pace is not above
this limit, or is unknown, it is not examined whether stamps and arrival times of a camera increase
differently, and differences of arrival times of cameras are divided by this limit."""
FASTER, SLOWER = 0.85, 1.15
"""The image rate rose if the mean of the last ``SHORT_WINDOW`` intervals is below the first
multiple of the usual period. The rate fell if each of these intervals is above the second
multiple."""
SHORT_INTERVAL = 0.65
"""An interval below this multiple of the period may be the first interval of a higher rate."""
LONG_INTERVAL = 1.5
"""An interval above this multiple of the period contains lost images."""
FEWEST_FOR_JITTER = 4
"""Smallest number of stamps from which their jitter is measured."""
IRREGULAR = 0.1
"""Intervals are irregular if their 20th and 75th percentiles differ by more than this share of the
period."""
CANDIDATES = np.geomspace(0.85, 1.4, 48)
"""If intervals are irregular, the median of the short intervals is only a first estimate of the
period. If stamps jitter, this estimate is up to 10 % too small. The candidates for the period are
the first estimate multiplied by these numbers.

The phase of a stamp is the stamp modulo a candidate, as an angle on a circle. The agreement of the
phases is the length of the sum of the unit vectors with these angles. It is largest if all phases
are equal, which means that all intervals are multiples of the candidate."""
PREFER_USUAL = 0.75
"""The usual period is preferred to all candidates if the agreement of the phases for the usual
period is above this share of the largest agreement. Jitter alone then does not replace the usual
period by a candidate with a slightly larger agreement."""
SCATTER_DECAY = 0.95
"""With each measurement, the scatter of the lateness falls at most to this share of its last
value, because a measurement from few images can be too small."""
SMOOTH = 1 / 16
"""Weight of a new image in the usual arrival time, and in the mean difference between arrival
times and usual arrival times."""


def fit_line(stamps: Sequence[int], usual_ns: float = 0.0) -> tuple[float, float]:
    """Fit a line to cycle numbers and ascending stamps.

    If intervals are regular, cycle numbers are computed with the median interval. If intervals are
    irregular, cycle numbers are computed with the usual period or with the best candidate for the
    period (see ``CANDIDATES`` and ``PREFER_USUAL``).

    Args:
        stamps: ascending stamps of one camera, nanoseconds.
        usual_ns: usual period, nanoseconds; 0 if unknown.

    Returns:
        The slope of the line, which is the period, and the jitter of the last ``WINDOW`` stamps,
        both in nanoseconds. For fewer than two stamps, the period is 0. For fewer than
        ``FEWEST_FOR_JITTER`` stamps, the jitter is infinite.
    """
    if len(stamps) < 2:
        return 0.0, math.inf
    times = np.array(stamps, np.float64) - stamps[len(stamps) // 2]
    intervals = sorted((times[1:] - times[:-1]).tolist())
    # A nuScenes camera has images in 12 of 20 cycles. One third of the intervals between these
    # images are one cycle long, and two thirds are two cycles long.
    shortest, longest = intervals[(len(intervals) - 1) // 5], intervals[len(intervals) * 3 // 4]
    period = statistics.median([one for one in intervals if one <= LONG_INTERVAL * shortest])
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
    if count < FEWEST_FOR_JITTER:
        return math.inf
    # The jitter is computed from the differences of consecutive residuals, because a jump of the
    # clock changes only one of these differences. The differences are larger than the residuals by
    # a factor of the root of two. If there are few stamps, the line follows their jitter, so the
    # residuals are too small. The factor 1 + few compensates for this error.
    changes = np.sort(abs(np.diff(residuals)))
    few = FEWEST_FOR_JITTER / count - FEWEST_FOR_JITTER / WINDOW
    return float(changes[(count - 1) * 9 // 10]) * (1 + few) / math.sqrt(2)


class UsualArrivals:
    """Compares the arrival times of one camera with the usual arrival times, in seconds.

    The usual arrival times are a straight line over the stamps. The slope of the line is the pace.
    The first ``WINDOW`` images define the line, and later images that arrive as usual correct it.

    Attributes:
        pace: pace of the arrival times (see the module); 0 if unknown.
        is_usual: True if the last image arrived as usual, that is, near its usual arrival time.
            False while the first ``WINDOW`` images define the line.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the usual arrival times, and measure them again from now on."""
        self.pace, self.is_usual, self._count, self._scatter_s = 0.0, False, 0, 0.0

    def take(self, stamp: int, arrival_s: float, period_s: float) -> None:
        """Add an image that arrived at ``arrival_s``. ``period_s`` is the period of the camera."""
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
        elif arrival_s > self._usual_at_s + LONGEST_UNUSUAL_S:
            self.restart()


class CameraTiming:
    """Statistics of the last images of one camera. The module explains the terms. Times are in
    nanoseconds unless the name or the description gives another unit.

    Attributes:
        state: 'used', 'silent', 'returning' or 'misaligned'; see ``synchronizer``.
        offset_ns: offset of the camera.
        stamps: the last stamps, ascending.
        newest_ns: the newest stamp; 0 before the first image.
        last: for each of the last two images: stamp, arrival time in seconds, and whether the
            image arrived as usual.
        period_ns: period of the camera; 0 while unknown.
        usual_period_ns: usual period of the camera; 0 while unknown.
        jitter_ns: jitter of the stamps; infinite while unknown.
        is_faster: True if the image rate rose.
        is_slower: True if the image rate fell, or if images are lost again and again.
        is_unsure: True if ``may_have_jumped``, or if the last interval was so short that the image
            rate may have risen. The next images show whether this is true.
        may_have_jumped: True while no sets may be formed because of a jump check.
        jump_sign: 1 during a check for a jump forward, -1 during a check for a jump back, 0 while
            there is no jump check.
        skipped_ns: stamp that an image in the first skipped cycle would have had, if the last jump
            check was for a jump forward, otherwise 0.
        may_need_new_offset: True if the old offset may be wrong when the camera is used again. The
            camera was silent and may have restarted, or it was excluded while the cameras were not
            triggered together.
        arrivals: the usual arrival times of the images of this camera.
        deviations: deviations of the last images.
        received: number of images so far, without ignored images.
        ignored: number of images so far that were ignored, because they repeated another image or
            had no stamp.
    """

    def __init__(self) -> None:
        self.state = 'used'
        self.offset_ns = self.received = self.ignored = 0
        self.may_need_new_offset = False
        self.usual_period_ns = 0
        self.arrivals = UsualArrivals()
        self._paused_until = self.skipped_ns = self.jump_sign = 0
        self._usual_s: float | None = None
        self._earliest_s, self._scatter_s = math.inf, 0.0
        self.restart()

    def restart(self) -> None:
        """Drop the deviations, the stamps and the lateness of all images. The offset and the usual
        lateness remain.
        """
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
        self.arrivals.restart()
        self._end_jump_check()
        self._measure_rate()

    def keep_new_rate(self) -> None:
        """Drop the stamps before the last change of the image rate. Forget the usual period and
        the usual lateness.
        """
        intervals = [later - earlier for earlier, later in pairwise(self.stamps)]
        count = 1
        while count <= min(SHORT_WINDOW, len(intervals)) and (
            SHORT_INTERVAL * intervals[-1] < intervals[-count] < LONG_INTERVAL * intervals[-1]
        ):
            count += 1
        del self.stamps[:-count]
        self.usual_period_ns = 0
        self.forget_usual_lateness()
        self._end_jump_check()
        self._measure_rate()

    def take(self, stamp: int, arrival_s: float) -> None:
        """Add an image that arrived at ``arrival_s``."""
        self._look_for_jump(stamp, arrival_s)
        if self.received >= self._paused_until:
            self.may_have_jumped = False
        if stamp < self.newest_ns - LATE_NS:
            self.stamps.clear()
            self.arrivals.restart()
        insort(self.stamps, stamp)
        del self.stamps[:-RATE_WINDOW]
        self.newest_ns = self.stamps[-1]
        self.received += 1
        self._measure_rate()
        self.arrivals.take(stamp, arrival_s, 1e-9 * self.period_ns)
        self.last.append((stamp, arrival_s, self.arrivals.is_usual))

    def ignore(self, stamp: int, arrival_s: float) -> None:
        """Count an image that has no stamp, or the same stamp as an earlier image."""
        self.ignored += 1
        if stamp > 0:
            self._look_for_jump(stamp, arrival_s)

    def repeats(self, stamp: int, arrival_s: float) -> bool:
        """Return True if the clock may have gone back, so that this image, which is not added yet,
        repeats earlier stamps. One of these conditions must be true:

        * ``stamp`` is older than the newest stamp by more than ``LATE_NS``.
        * ``stamp`` and the stamp of the last image are both older than the newest stamp.
        * ``stamp`` belongs to the cycle of an earlier image, but the image arrived too late for
          this cycle: since the last image, the arrival time, divided by the pace, increased by
          over ``SHORTEST_JUMP`` of a cycle more than the stamp.
        """
        newest, same_ns = self.newest_ns, SAME_CYCLE * self.period_ns
        # A single image that is a little older than the newest image arrived out of order.
        if stamp < newest - LATE_NS or (self.last and max(stamp, self.last[-1][0]) < newest):
            return True
        return (
            stamp < newest + same_ns
            and any(abs(stamp - one) < same_ns for one in self.stamps)
            and self._stamp_excess_s(stamp, arrival_s) < -SHORTEST_JUMP * 1e-9 * self.period_ns
        )

    def _stamp_excess_s(self, stamp: int, arrival_s: float) -> float:
        """Return the increase of the stamp since the last image minus the increase of the arrival
        time, in seconds. The increase of the arrival time is first divided by the pace. Return 0
        if the pace is unknown or not above ``SMALLEST_PACE``.
        """
        pace = self.arrivals.pace
        if pace <= SMALLEST_PACE:
            return 0.0
        last, last_s, _ = self.last[-1]
        return 1e-9 * (stamp - last) - (arrival_s - last_s) / pace

    def _look_for_jump(self, stamp: int, arrival_s: float) -> None:
        """Begin a jump check if the stamp skips or repeats a cycle but the arrival time does not.

        Lost images also skip cycles, but then the arrival time increases as much as the stamp.
        """
        newest, period = self.newest_ns, self.period_ns
        skips = bool(period) and stamp > newest + LONG_INTERVAL * period
        sign = int(skips) - int(self.repeats(stamp, arrival_s))
        if sign in (0, self.jump_sign) or self._usual_s is None:
            return
        if sign * self._stamp_excess_s(stamp, arrival_s) > self._shortest_jump_s(1e-9 * period):
            # The lateness of an image is added when the next image arrives, because the images of
            # the other cameras in the same cycle must arrive first. The next call of add_lateness
            # is therefore for the image before the possible jump, and must not count.
            self._jump_images, self.jump_sign = -1, sign
            self.skipped_ns = newest + period if sign > 0 else 0
            self.may_have_jumped = self.arrivals.is_usual
            self._paused_until = self.received + LONGEST_JUMP_PAUSE

    def _end_jump_check(self) -> None:
        self._jump_images, self.jump_sign, self.may_have_jumped = 0, 0, False

    def _measure_rate(self) -> None:
        """Measure period and jitter, and detect changes of the image rate."""
        stamps = self.stamps
        if len(stamps) < WINDOW or self.received % SHORT_WINDOW == 0:
            period, self.jitter_ns = fit_line(stamps, self.usual_period_ns or self.period_ns)
            self.period_ns = round(period)
        recent = [later - one for one, later in pairwise(stamps[-SHORT_WINDOW - 1 :])]
        usual = self.usual_period_ns or self.period_ns
        has_enough = len(stamps) > SHORT_WINDOW + 1
        self.is_faster = has_enough and sum(recent) < FASTER * SHORT_WINDOW * usual
        self.is_slower = has_enough and min(recent) > SLOWER * usual
        is_short = len(stamps) > 2 and recent[-1] < SHORT_INTERVAL * self.period_ns
        self.is_unsure = self.may_have_jumped or is_short

    def add_deviation(self, differences: Sequence[int], period_ns: int) -> None:
        """Add the deviation of an image.

        Args:
            differences: for each other camera, the corrected stamp of the image minus the
                corrected stamp of the nearest image of the other camera, nanoseconds; not empty.
            period_ns: length of the trigger cycle, nanoseconds.
        """
        # Deviations are known only modulo the cycle. If the last deviations are far from zero, the
        # new deviation is shifted by whole cycles so that it is near the last deviations. Without
        # this shift, a clock that drifts would look correct each time it has drifted by a whole
        # cycle. If the last deviations are near zero, the expected deviation is zero, because
        # jitter alone must not cause a shift.
        last, quarter = list(self.deviations)[-WINDOW // 2 :], period_ns / 4
        has_moved = len(last) >= SHORT_WINDOW and abs(last[-1]) > quarter
        expected = statistics.median(last) if has_moved else 0.0
        moved = drift(last) if len(last) == WINDOW // 2 else 0.0
        # The median lags behind a clock that drifts fast.
        if abs(moved) > FAST_DRIFT * self.jitter_ns:
            expected = statistics.median(last[-SHORT_WINDOW:]) + moved / 2
        expected = expected if abs(expected) > quarter else 0.0
        unwrapped = [one + period_ns * round((expected - one) / period_ns) for one in differences]
        self.deviations.append(statistics.median(unwrapped))

    def set_offset(self, offset_ns: int) -> None:
        """Set the offset, drop the deviations from the old offset, and make the current period the
        usual period.
        """
        self.offset_ns, self.usual_period_ns = offset_ns, self.period_ns
        self.clear_deviations()

    def is_misaligned(self, count: int, limit: float, period_ns: int) -> bool:
        """Return True if the last ``count`` images were all too early, or all too late, by more
        than ``limit``. If the absolute values of all these deviations exceed ``UNCLEAR_SIGN`` of
        the cycle, their signs do not matter.

        Args:
            count: number of images.
            limit: smallest absolute deviation of a misaligned image, nanoseconds.
            period_ns: length of the trigger cycle, nanoseconds.
        """
        if len(self.deviations) < count or abs(self.deviations[-1]) <= limit:
            return False
        last = list(self.deviations)[-count:]
        is_unclear = min(map(abs, last)) > max(limit, UNCLEAR_SIGN * period_ns)
        return is_unclear or min(last) > limit or max(last) < -limit

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
        """Update the usual lateness and its scatter from the lateness of the last images. Do
        nothing during a jump check, or if there are fewer than ``WINDOW // 2`` images.
        """
        count = len(self._lateness_s)
        if count < WINDOW // 2 or self.jump_sign:
            return
        ordered = sorted(self._lateness_s)
        self._usual_s = statistics.median(ordered)
        self._earliest_s = min(self._earliest_s, self._usual_s)
        self._scatter_s = max(SCATTER_DECAY * self._scatter_s, ordered[-1] - ordered[0])

    def lateness_change(self, count: int, period_s: float, share: float = 1.0) -> int:
        """Compare the lateness of the last ``count`` images with the usual lateness.

        The limit is ``share`` times the shortest jump. Return 1 if the median lateness of these
        images exceeds the usual lateness by more than the limit. Return -1 if it is below the
        smallest usual lateness so far by more than the limit. Otherwise return 0.
        """
        last = list(self._lateness_s)[-count:]
        return self._compare_lateness(statistics.median(last), period_s, share) if last else 0

    def _compare_lateness(self, lateness_s: float, period_s: float, share: float = 1.0) -> int:
        # If a slow transport becomes fast again, the lateness falls to an earlier usual lateness.
        # A fall below every usual lateness so far is therefore taken as an error of the clock.
        if self._usual_s is None:
            return 0
        limit_s = share * self._shortest_jump_s(period_s)
        return int(lateness_s > self._usual_s + limit_s) - int(
            lateness_s < self._earliest_s - limit_s
        )

    def lateness_shows(self, error_s: float, period_s: float) -> bool:
        """Return True if ``lateness_change`` surely detects a clock that is wrong by ``error_s``
        seconds. If ``error_s`` is positive, the stamps are too late.
        """
        if self._usual_s is None:
            return False
        # If stamps are too late, the lateness falls. A lateness that falls is compared with the
        # smallest usual lateness so far, and not with the last usual lateness.
        span_s = self._usual_s - self._earliest_s if error_s > 0 else 0.0
        return span_s + SURE_ERROR * self._shortest_jump_s(period_s) < abs(error_s)

    def _shortest_jump_s(self, period_s: float) -> float:
        """Return the smallest change of the lateness that counts as a jump, seconds. It is at
        least as large as the scatter of the lateness.
        """
        return max(SHORTEST_JUMP * period_s, self._scatter_s)

    def arrives_far_off(self, limit_s: float) -> bool:
        """Return True if the absolute lateness of each of the last ``JUMP_IMAGES`` images exceeds
        ``limit_s``, so the images arrived far apart from images of other cameras with the same
        stamps.
        """
        if not self._lateness_s or abs(self._lateness_s[-1]) <= limit_s:
            return False
        last = list(self._lateness_s)[-JUMP_IMAGES:]
        return len(last) == JUMP_IMAGES and min(map(abs, last)) > limit_s

    def has_jumped(self, period_s: float) -> bool:
        """Return True if a jump check has ended with this image, and the clock jumped. The clock
        jumped forward if the lateness of all ``JUMP_IMAGES`` images fell by more than the shortest
        jump. It jumped back if the lateness of all these images rose by more than the shortest
        jump.

        As soon as the lateness of one image does not show the jump, sets are formed again.
        """
        if not self.jump_sign:
            return False
        if self._jump_images > 0 and self.lateness_change(1, period_s) != -self.jump_sign:
            self.may_have_jumped = False
        if self._jump_images < JUMP_IMAGES:
            return False
        last = sorted(list(self._lateness_s)[-JUMP_IMAGES:])
        nearest_s = last[-1 if self.jump_sign > 0 else 0]
        has_jumped = self._compare_lateness(nearest_s, period_s) == -self.jump_sign
        self._end_jump_check()
        return has_jumped

    def forget_usual_lateness(self) -> None:
        """Forget the usual lateness, and measure it again from now on."""
        self._usual_s, self._earliest_s, self._scatter_s = None, math.inf, 0.0

    def clock_error_s(self, period_s: float) -> float:
        """Return the error of the camera's stamps, seconds; positive if the stamps are too late.

        The error is the last deviation. If the change of the lateness shows an error of more than
        half a cycle, or if there is no deviation, the error is computed from this change.
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
