"""A message_filters filter that groups images of several cameras into image sets.

An image set holds the images of one trigger cycle. Each camera exposes at its own offset within
the cycle. ``message_filters.ApproximateTimeSynchronizer`` alone cannot keep cycles apart: six
cameras of nuScenes expose 43 ms apart and cycles follow every 83 ms, so with some images missing
the last image of one cycle is nearer to the first of the next cycle than to the first of its own.
This filter therefore learns the offsets, subtracts them from the stamps, and lets the library
match the corrected stamps with a tolerance of at most a third of the cycle. Each image then
matches only images of its own cycle.

Offsets, for all cameras together:

| state | meaning | entry | exit |
| --- | --- | --- | --- |
| searching | offsets are unknown, no sets | start; the image rate changed; as many cameras deviate
  as agree | two clear sets agree: all cameras within ``slop_s``, with larger gaps before and after
  than inside; or one complete set after which no images arrive |
| provisional | offsets of one set | found | ``LEARNED`` sets, whose median becomes the offset |
| learned | offsets are fixed | ``LEARNED`` sets | as the entry of searching |

Each camera:

| state | meaning | entry | exit |
| --- | --- | --- | --- |
| used | sets wait for its images | start; recovered | to silent or misaligned |
| silent | no images arrive | named by the caller of ``check`` | its next image |
| returning | images arrive again | after silent | used after ``RETURN`` steady images |
| misaligned | its stamps do not fit those of the majority | ``ONE_SIDED`` images in a row
  are a sixth of a cycle too early or too late, or stamps are off by the timeout | used after
  ``RETURN`` steady images at its old offset, or ``WINDOW`` at a new one if arrival times show that
  the trigger moved and not the clock |

A camera returns by its own stamps and arrival times only, whether or not image sets are formed or
images can be decoded. When as many cameras deviate as agree, the cameras are *untriggered*: they
are not triggered together. That state ends after ``LEARNED`` sets in a row with steady offsets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from message_filters import ApproximateTimeSynchronizer, SimpleFilter
from rclpy.time import Time

from bevdepth_ros.rig.camera_timing import LATE_NS, CameraTiming, drift, largest_gap
from bevdepth_ros.rig.stamps import stamp_ns

LEARNED = 20
"""Sets whose median gives the offsets."""
REFINED = 5
"""Number of sets after which provisional offsets are first improved."""
ONE_SIDED = 5
"""Images in a row that must deviate to the same side before a camera is left out."""
RETURN = 10
"""Images with a steady deviation after which a camera is used again."""
TOLERANCE = 1 / 3
"""Corrected stamps of a set may differ by this share of the cycle. With more than a half, images
of two cycles could match."""
TIGHT = 1 / 5
"""The same for stamps without jitter; three times the measured jitter is added."""
MISALIGNED, AT_PLACE, STEADY = 1 / 6, 1 / 8, 1 / 16
"""Shares of the cycle: the deviation that excludes a camera, the deviation with which it may
return, and the change of the deviation that does not count as drift."""
CLEAR = 1.2
"""A set is clear when the gaps around it are larger than those inside by this factor."""
RATE_TOLERANCE = 0.03
"""Image rates are multiples of each other within this share."""
NEAR = 0.6
"""Images further apart than this share of the cycle are compared only if there are no others."""
CHECKS = 4
"""Calls of ``check`` in a row in which image rates must differ."""
BASE_NS = 1 << 50
"""Keeps corrected stamps positive, which rclpy requires, where time starts at zero."""


RATES_DIFFER = 'their image rates differ'
DRIFT = 'their stamps drift against each other'


@dataclass(frozen=True)
class ImageSet:
    """Images of one trigger cycle.

    Attributes:
        cameras: index of each image's camera, ascending; cameras that are not used are missing.
        messages: sensor_msgs/CompressedImage or Image of these cameras.
        stamps_ns: int64, their header stamps.
        received: time.monotonic() when the last of them was received, seconds.
    """

    cameras: tuple[int, ...]
    messages: tuple
    stamps_ns: np.ndarray
    received: float

    @property
    def spread_s(self) -> float:
        """Time between the first and the last image, seconds."""
        return float(self.stamps_ns.max() - self.stamps_ns.min()) * 1e-9


class _Camera(CameraTiming):
    """A camera with its state and the images that wait for their set."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.lateness_s = 'used', 0.0
        self.waiting: dict[int, Any] = {}
        self.newest: tuple[int, Any] | tuple[()] = ()
        self.input = SimpleFilter()


class ImageSetSynchronizer(SimpleFilter):
    """Calls back with an ``ImageSet`` for each complete trigger cycle; for one thread.

    Attributes:
        slop_s: largest time between two images of a set, seconds.
        untriggered: why the cameras are not triggered together; None if they are, or if it is
            unknown.
        formed: number of sets so far.
        too_wide: number of sets so far that were dropped because they exceed ``slop_s``.
        cameras: one ``CameraTiming`` per input, with its ``state`` (see the module).
    """

    def __init__(
        self,
        filters: Sequence[SimpleFilter],
        queue_size: int,
        slop_s: float,
        use_untriggered: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to the inputs, with all cameras used.

        Args:
            filters: one per camera, such as ``message_filters.Subscriber``.
            queue_size: images per camera that wait for their set.
            slop_s: largest time between two images of a set, seconds.
            use_untriggered: whether sets of the newest images are formed while the cameras are not
                triggered together.
            now: a clock that never jumps, seconds.
        """
        super().__init__()
        self.slop_s = slop_s
        self.untriggered: str | None = None
        self._queue_size, self._use_untriggered, self._now = queue_size, use_untriggered, now
        self.cameras = [_Camera() for _ in filters]
        self.formed = self.too_wide = 0
        self._matcher: ApproximateTimeSynchronizer | None = None
        self._found: list[dict[int, int]] = []
        self._far: set[int] = set()
        self._rates_differ = 0
        self._search()
        self.reset()
        self.input_connections = [
            one.registerCallback(self.add, camera) for camera, one in enumerate(filters)
        ]

    def reset(self) -> None:
        """Forget all waiting images; offsets and states of cameras stay."""
        self._last_ns = 0
        self._received_at_check = -1
        for camera in self.cameras:
            camera.waiting.clear()
            camera.forget_stamps()
        self._build()

    @property
    def members(self) -> list[int]:
        """Indices of the cameras that are used."""
        return [index for index, camera in enumerate(self.cameras) if camera.state == 'used']

    @property
    def period_s(self) -> float:
        """Time between two trigger cycles, seconds; 0 while unknown."""
        return self._period_ns() * 1e-9

    @property
    def is_learned(self) -> bool:
        """True if the offsets were learned from enough sets."""
        return self._residuals is None

    def add(self, message: Any, camera: int) -> None:
        """Take an image of the camera with index ``camera``; calls back before it returns."""
        one, stamp = self.cameras[camera], stamp_ns(message)
        if stamp <= 0 or one.is_repeated(stamp):
            one.ignored += 1
            return
        was_unsure = self._is_unsure()
        if one.state == 'silent':
            one.restart()
            one.waiting.clear()
            one.state = 'returning'
        if one.take(stamp):
            one.waiting.clear()
            self._build()
        one.waiting[stamp], one.newest = message, (stamp, message)
        while len(one.waiting) > self._queue_size:
            del one.waiting[min(one.waiting)]
        self._observe(camera, stamp)
        if self._matcher is None:
            self._find_offsets()
        elif (was_unsure and not self._is_unsure()) or self._is_tolerance_stale():
            self._build()
        elif one.state == 'used' and not self._is_unsure():
            self._feed(camera, stamp)
        self._emit_found()
        if self.untriggered and self._use_untriggered:
            self._emit_newest(camera)

    def check(self, silent: Iterable[int], timeout_s: float) -> None:
        """Exclude cameras that are silent or whose stamps are far from the others; call this a few
        times per second.

        Args:
            silent: indices of the cameras that have sent no image for too long.
            timeout_s: largest distance of a camera's stamps from those of the others, seconds.
        """
        before, silent = self.members, set(silent)
        if len(silent) < len(self.cameras):
            for index in silent:
                self.cameras[index].state = 'silent'
            if not self.members:
                self._search()
        self._exclude_far(timeout_s)
        self._compare_rates()
        if not self._has_offsets and self._now() - self._searches_since_s > timeout_s:
            self._exclude_unmatched()
        if self.members != before:
            self._build()
            self._emit_found()
        received = sum(camera.received for camera in self.cameras)
        if self._matcher is None and received == self._received_at_check:
            self.flush()
        self._received_at_check = received

    def flush(self) -> None:
        """Form the sets that would otherwise wait for the first image of the next cycle."""
        if self._matcher is None:
            self._find_offsets(is_over=True)
            self._emit_found()

    def _search(self) -> None:
        """Forget the offsets."""
        self._residuals: list[dict[int, int]] | None = []
        self._candidate: dict[int, int] | None = None
        self._has_offsets = len(self.cameras) == 1
        self._searches_since_s = self._now()
        for camera in self.cameras:
            camera.forget_deviations()
            if camera.state in ('misaligned', 'returning'):
                camera.state = 'used'
        self._build()

    def _is_unsure(self) -> bool:
        return any(self.cameras[index].is_unsure for index in self.members)

    def _period_ns(self) -> int:
        periods = [self.cameras[index].period_ns for index in self.members]
        return min((period for period in periods if period), default=0)

    def _jitter_ns(self) -> float:
        return statistics.median_low(self.cameras[index].jitter_ns for index in self.members)

    def _tolerance_ns(self) -> int:
        """Return how far apart the corrected stamps of a set may be."""
        slop, period = round(self.slop_s * 1e9), self._period_ns()
        limit = min(TIGHT * period + 3 * self._jitter_ns(), TOLERANCE * period)
        return min(slop, round(limit)) if period else slop

    def _is_tolerance_stale(self) -> bool:
        """Return True if the tolerance differs from that of the matcher by more than 20 %."""
        return abs(self._tolerance_ns() / self._matched_within_ns - 1) > 0.2

    # Matching

    def _build(self) -> None:
        """Create a matcher for the used cameras, and pass the waiting images to it."""
        self._matcher = None
        members = self.members
        if not members or not self._has_offsets:
            return
        for index in members:
            self.cameras[index].input = SimpleFilter()
        self._matched_within_ns = self._tolerance_ns()
        self._matcher = ApproximateTimeSynchronizer(
            [self.cameras[index].input for index in members],
            self._queue_size,
            self._matched_within_ns * 1e-9,
        )
        # The library keeps its lock when a callback raises, so this one only appends.
        self._matcher.registerCallback(
            lambda *images: self._found.append({one.camera: one.stamp for one in images})
        )
        waiting = sorted(
            (stamp, index) for index in members for stamp in self.cameras[index].waiting
        )
        for stamp, index in waiting:
            self._feed(index, stamp)

    def _feed(self, index: int, stamp: int) -> None:
        camera = self.cameras[index]
        header = SimpleNamespace(stamp=Time(nanoseconds=BASE_NS + stamp - camera.offset_ns))
        camera.input.signalMessage(SimpleNamespace(header=header, camera=index, stamp=stamp))

    def _emit_found(self) -> None:
        found, self._found = self._found, []
        for stamps in found:
            if all(stamp in self.cameras[index].waiting for index, stamp in stamps.items()):
                self._emit(stamps)

    def _emit(self, stamps: dict[int, int]) -> None:
        """Call back with the images of these stamps, unless they are too far apart or late."""
        indices = tuple(sorted(stamps))
        stamps_ns = np.array([stamps[index] for index in indices], np.int64)
        images = tuple(self.cameras[index].waiting[stamps[index]] for index in indices)
        for index in indices:
            waiting = self.cameras[index].waiting
            for stamp in [one for one in waiting if one <= stamps[index]]:
                del waiting[stamp]
        if np.ptp(stamps_ns) >= self.slop_s * 1e9:
            self.too_wide += 1
            return
        start = int(stamps_ns.min())
        if self._last_ns - LATE_NS <= start <= self._last_ns:
            return
        self._last_ns = start
        self._learn(stamps)
        if self.untriggered is None:
            self.formed += 1
            self.signalMessage(ImageSet(indices, images, stamps_ns, self._now()))

    def _emit_newest(self, camera: int) -> None:
        """Call back with the newest image of every camera, once per image of the slowest."""
        members = self.members
        slowest = max(members, key=lambda index: self.cameras[index].period_ns, default=None)
        newest = [image for index in members if (image := self.cameras[index].newest)]
        if slowest is None or camera != slowest or len(newest) < len(members):
            return
        stamps_ns = np.array([stamp for stamp, _ in newest], np.int64)
        if np.ptp(stamps_ns) > self.cameras[slowest].period_ns:
            return
        self.formed += 1
        images = tuple(image for _, image in newest)
        self.signalMessage(ImageSet(tuple(members), images, stamps_ns, self._now()))

    # Offsets

    def _find_offsets(self, is_over: bool = False) -> None:
        """Take the offsets of the first clear set that a second one confirms.

        Any run of one image per camera could be a set. It is clear if the gaps around it are
        larger than those inside. One clear set may still be wrong, for example after lost images.

        Args:
            is_over: no further images arrive, so the last set is complete and needs no second one.
        """
        members = self.members
        timeline = sorted(
            (stamp, index) for index in members for stamp in self.cameras[index].waiting
        )
        count = len(members)
        for first in range(len(timeline) - count + 1 if members else 0):
            offsets = self._clear_set(timeline, first, count, is_over)
            if offsets is None:
                continue
            if is_over or self._confirms(offsets):
                self._take_offsets(offsets)
                return
            self._candidate = offsets

    def _clear_set(
        self, timeline: list[tuple[int, int]], first: int, count: int, is_over: bool
    ) -> dict[int, int] | None:
        """Return the offsets of the images from ``first`` on if they are clearly one set."""
        part = timeline[first : first + count]
        stamps = [stamp for stamp, _ in part]
        if (
            len({index for _, index in part}) < count
            or stamps[-1] - stamps[0] >= 1e9 * self.slop_s
        ):
            return None
        inside = CLEAR * largest_gap(stamps)
        last = first + count
        if first and stamps[0] - timeline[first - 1][0] < inside:
            return None
        if last == len(timeline):
            if not is_over:
                return None
        elif timeline[last][0] - stamps[-1] < inside:
            return None
        return {index: stamp - stamps[0] for stamp, index in part} | {-1: stamps[0]}

    def _confirms(self, offsets: dict[int, int]) -> bool:
        """Return True if ``offsets`` are those of the candidate, found at another time."""
        candidate = self._candidate
        if candidate is None or candidate.keys() != offsets.keys():
            return False
        if candidate[-1] == offsets[-1]:
            return False
        limit = AT_PLACE * (self._period_ns() or 1e9 * self.slop_s)
        return all(abs(offsets[index] - candidate[index]) < 2 * limit for index in self.members)

    def _take_offsets(self, offsets: dict[int, int]) -> None:
        for index in self.members:
            self.cameras[index].offset_ns = offsets[index]
            self.cameras[index].forget_deviations()
        self._has_offsets = True
        self._build()

    def _learn(self, stamps: dict[int, int]) -> None:
        """Improve the offsets with a set, until ``LEARNED`` sets were used."""
        if self._residuals is None:
            return
        corrected = {
            index: stamp - self.cameras[index].offset_ns for index, stamp in stamps.items()
        }
        middle = round(statistics.median(corrected.values()))
        self._residuals.append({index: one - middle for index, one in corrected.items()})
        if len(self._residuals) == REFINED or len(self._residuals) >= LEARNED:
            self._apply_residuals()

    def _apply_residuals(self) -> None:
        residuals = self._residuals or []
        last = residuals[-LEARNED:]
        limit = STEADY * self._period_ns()
        is_done = len(last) == LEARNED
        for index in self.members:
            own = [one[index] for one in last if index in one]
            if not own:
                continue
            is_done &= not self.untriggered or (len(own) > 1 and abs(drift(own)) <= limit / 2)
            if len(residuals) in (REFINED, LEARNED):
                self._shift(index, round(statistics.median(own)))
        if is_done:
            self._residuals = self.untriggered = None
        elif len(residuals) >= LEARNED:
            self._residuals = []
        self._build()

    def _shift(self, index: int, by: int) -> None:
        """Change the offset of a camera, and convert deviations that were measured with the old
        one.
        """
        camera = self.cameras[index]
        camera.offset_ns += by
        for position, one in enumerate(camera.deviations):
            camera.deviations[position] = one - by
        for residuals in self._residuals or []:
            if index in residuals:
                residuals[index] -= by

    # States of cameras

    def _observe(self, index: int, stamp: int) -> None:
        """Compare an image with the other cameras; exclude the camera or use it again."""
        camera, period = self.cameras[index], self._period_ns()
        camera.lateness_s = self._now() - stamp * 1e-9
        others = [self.cameras[one].lateness_s for one in {*self.members, index}]
        camera.add_lateness(camera.lateness_s - statistics.median(others))
        if self._has_rate_changed(camera):
            self._search()
            for one in self.cameras:
                one.forget_rate()
        if not self._has_offsets or not period:
            return
        camera.add_deviation(self._differences(index, period), period)
        if camera.state == 'used':
            if camera.is_one_sided(ONE_SIDED, max(MISALIGNED * period, 0.8 * self._jitter_ns())):
                self._exclude({index})
        elif camera.is_steady(RETURN, STEADY * period) and camera.may_return(
            RETURN, AT_PLACE * period, camera.state == 'returning', self._allowed_offsets()
        ):
            camera.state = 'used'
            camera.forget_deviations()
            self._build()

    def _allowed_offsets(self) -> tuple[float, float]:
        """Return the lowest and highest offset with which a camera fits into ``slop_s``."""
        offsets = [self.cameras[index].offset_ns for index in self.members]
        slop = 1e9 * self.slop_s
        return max(offsets, default=0) - slop, min(offsets, default=0) + slop

    def _has_rate_changed(self, camera: _Camera) -> bool:
        if camera.state != 'used':
            return False
        return camera.is_faster or all(self.cameras[index].is_slower for index in self.members)

    def _differences(self, index: int, period: int) -> list[int]:
        """Return how much later the camera's last image but one is than the nearest image of each
        other used camera.

        The newest image is not used, because the other images of its cycle may not have arrived.
        """
        camera = self.cameras[index]
        if len(camera.stamps) < 2:
            return []
        own = camera.stamps[-2] - camera.offset_ns
        nearest = [
            min((own - other for other in self.cameras[one].corrected()), key=abs)
            for one in self.members
            if one != index and self.cameras[one].stamps
        ]
        # If the clock is ahead, the other cameras have no image of that time yet.
        return [one for one in nearest if abs(one) <= NEAR * period] or nearest

    def _exclude(self, suspects: set[int]) -> None:
        """Exclude cameras if the majority of cameras agrees without them.

        Otherwise it is unknown which cameras are wrong, and all offsets are searched again.
        """
        active = [camera for camera in self.cameras if camera.state != 'silent']
        out = len(suspects) + sum(camera.state == 'misaligned' for camera in active)
        if 2 * out >= len(active):
            self.untriggered = DRIFT
            self._search()
            return
        for index, camera in enumerate(self.cameras):
            if index in suspects:
                camera.state = 'misaligned'
            elif camera.state == 'used':
                camera.forget_deviations()
        self._build()

    def _exclude_far(self, timeout_s: float) -> None:
        """Exclude cameras whose stamps are far from those of the majority in two calls in a
        row.
        """
        newest = {index: self.cameras[index].newest_ns for index in self.members}
        if not all(newest.values()) or len(newest) < 3:
            self._far = set()
            return
        middle = statistics.median_low(newest.values())
        far = {index for index, one in newest.items() if abs(one - middle) > timeout_s * 1e9}
        if far & self._far and 2 * len(far) < len(newest):
            self._exclude(far & self._far)
        self._far = far

    def _exclude_unmatched(self) -> None:
        """Exclude cameras that have no image near those of at least half of the others.

        Called if no set was found for some time.
        """
        slop, members = 1e9 * self.slop_s, self.members
        waiting = {index: self.cameras[index].waiting for index in members}

        def is_near(one: int, other: int) -> bool:
            return any(abs(a - b) < slop for a in waiting[one] for b in waiting[other])

        unmatched = {
            one
            for one in members
            if 2 * sum(is_near(one, other) for other in members if other != one) < len(members) - 1
        }
        self._searches_since_s = self._now()
        if unmatched and 2 * len(unmatched) < len(members):
            self._exclude(unmatched)

    def _compare_rates(self) -> None:
        """Detect image rates that are not multiples of each other."""
        periods = [self.cameras[index].mean_period_ns() for index in self.members]
        if not periods or not min(periods):
            return
        ratios = [period / min(periods) for period in periods]
        differ = any(abs(one - round(one)) > RATE_TOLERANCE * one for one in ratios)
        self._rates_differ = self._rates_differ + 1 if differ else 0
        if self._rates_differ >= CHECKS:
            self.untriggered = RATES_DIFFER
        elif self.untriggered == RATES_DIFFER:
            self.untriggered = None
