"""A message_filters filter that groups images of several cameras into image sets.

An image set contains the images of one trigger cycle. Each camera exposes at its own offset within
the cycle. The filter finds these offsets with the module ``offsets`` and subtracts them from the
stamps, which gives corrected stamps. A set then contains, from each camera, the image whose
corrected stamp is nearest to the median of the corrected stamps in the set. The tolerance is the
largest allowed distance from this median. The module ``camera_timing`` explains jitter, deviation,
arrival time, lateness and jump.

``message_filters.ApproximateTimeSynchronizer`` cannot keep cycles apart. The six cameras of
nuScenes expose within 43 ms, and a cycle starts every 83 ms on average. If images are missing, the
last image of a cycle can be nearer to the first image of the next cycle than to the first image of
its own cycle. Even with known offsets, ``ApproximateTimeSynchronizer`` compares images only in
pairs. If stamps jitter by a tenth of the cycle, it loses sets of many cameras with a narrow
tolerance, and mixes cycles with a wide tolerance.

Each camera has one of these states (*exclusion* and *return* are explained below):

| state | meaning | the state begins when | the state ends when |
| --- | --- | --- | --- |
| used | sets need its images | offsets are searched, or by *return* | it is silent or excluded |
| silent | it sends no images | the caller of ``check`` names it | its next image arrives |
| returning | it sends images again | an image follows silence | it is used or excluded |
| misaligned | its stamps do not fit most cameras | by *exclusion* | by *return* |

*Exclusion.* A camera becomes misaligned if one of these conditions is true:

* ``ONE_SIDED`` images in a row are too early, or too late, by more than a sixth of a cycle and
  more than the jitter explains.
* ``WINDOW`` images in a row are too early, or too late, by more than the tolerance of sets.
* Its stamps skip or repeat a cycle, and the lateness of the next ``JUMP_IMAGES`` images differs
  from the usual lateness by more than ``SHORTEST_JUMP`` of a cycle and more than the usual
  scatter, so the clock jumped. The camera is not excluded if at least half of the other cameras
  also jumped, or also have no image of the skipped cycle.
* The absolute lateness of ``JUMP_IMAGES`` images in a row exceeds the ``timeout_s`` of ``check``.
* It is returning and has not been used again after ``LONGEST_RETURN`` images.

*Return.* A camera is used again if the deviation of its last ``RETURN`` images is steady and near
zero, and their lateness is usual. After the camera was silent, or was excluded while the cameras
were untriggered (see below), two conditions are weaker. The deviation may be steady at another
value, which is then added to the offset. The lateness may be larger than usual if this lasts for
``SETTLED`` images. In any case, the absolute lateness must not exceed ``timeout_s``. Only the
stamps and arrival times of a camera decide about its return. It does not matter whether image sets
are formed, or whether the images of the camera can be decoded.

*Arrival times.* The lateness is measured only while the images of at least two thirds of the other
cameras arrive as usual. If the executor was busy, it then processes the queued images of the
cameras in any order. While the clock of a used camera may have jumped, no sets are formed, for at
most ``LONGEST_JUMP_PAUSE`` images of this camera.

*Untriggered cameras.* If at least half of the cameras deviate, it is unknown which cameras are
wrong. The cameras are then *untriggered*, and all cameras that send images are used. When the
deviations of most cameras have been steady for ``WINDOW`` images and two seconds, their offsets
are searched again, and the cameras whose deviations still change are excluded. Cameras are also
untriggered while their image rates are not multiples of each other.

*Repeated stamps.* If the stamps of a camera repeat earlier stamps, the clock of this camera or the
clocks of all cameras may have gone back. The images that wait for their set at this moment are
dropped, because images with the same stamps will follow.

*Jitter.* No set is formed while stamps jitter so much that an image could belong to another cycle
than its set although its corrected stamp is near the median.

*Limits.* Some errors of a clock cannot be recognized. The clock may be wrong by whole cycles from
the start. It may jump by whole cycles during about the first 40 images, before the usual lateness
is known. It may jump by whole cycles that are together shorter than the scatter of the lateness.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from message_filters import SimpleFilter

from bevdepth_ros.rig.camera_timing import (
    JUMP_IMAGES,
    LATE_NS,
    SHORT_WINDOW,
    SMALLEST_PACE,
    WINDOW,
    CameraTiming,
    drift,
)
from bevdepth_ros.rig.offsets import find_offsets
from bevdepth_ros.rig.stamps import stamp_ns

FIRST_SEARCH = 8
"""Offsets are first searched when all cameras together have sent this many images, and each camera
has sent at least two."""
ONE_SIDED = 5
"""A camera is excluded if the deviations of this many images in a row exceed a limit and have the
same sign. Jitter alone rarely causes this."""
RETURN = 10
"""An excluded or returning camera is used again if its last images, of which there must be this
many, fulfill the conditions of return."""
LONGEST_RETURN = 30
"""A returning camera becomes misaligned if it is not used again after this many images."""
SETTLED = 100
"""A camera that was silent, or was excluded while cameras were untriggered, is used again after
this many images although its lateness is larger than usual, if its deviation is near zero. Its new
lateness becomes the usual lateness."""
TIGHT = 1 / 10
"""The tolerance without jitter, as a share of the cycle. Twice the jitter is added, up to the
limits in ``_tolerance_ns``."""
WIDEST, WIDEST_OF_TWO = 0.35, 0.25
"""Upper limits of the tolerance, as shares of the cycle, for more than two cameras and for two
cameras. Two images that each differ from their median by a quarter of the cycle are half a cycle
apart, so a larger tolerance for two cameras would mix cycles."""
OUTLIER = 2.8
"""Multiple of the jitter of the difference between a corrected stamp and the median of its set.
Both the stamp and the median contribute to this jitter. The multiple equals 4.6 standard
deviations, and practically no difference is larger. An image of the next or of the previous cycle
is therefore farther from the median than one cycle minus this multiple."""
OWN_JITTER = 3 / 4
"""The tolerance of a camera is computed with the median jitter of the used cameras, or with the
camera's own jitter multiplied by this number, whichever is larger. The number is below 1, because
the jitter of a camera is measured from only ``WINDOW`` images, with an error of about a fifth."""
MISALIGNED = 1 / 6
"""Deviations above this share of the cycle exclude a camera after ``ONE_SIDED`` images."""
NEAR_ZERO = 1 / 8
"""Largest deviation that counts as near zero, as a share of the cycle."""
STEADY = 1 / 16
"""Largest change of a steady deviation, as a share of the cycle. A larger change counts as drift
of the clock."""
JITTERS = 1.5
"""A deviation that excludes a camera must also exceed the jitter multiplied by this number, or by
one more than this number while the offsets are not yet exact (``is_learned`` is False)."""
SETTLE_NS = 100_000_000
"""While cameras are untriggered because their clocks drift, the deviation of a camera is measured
only about once in this time, in nanoseconds. ``WINDOW`` deviations then cover two seconds. At high
image rates, ``WINDOW`` consecutive images cover too little time to show a slow drift."""
RATE_TOLERANCE = 0.07
"""Image rates count as multiples of each other if they differ from exact multiples by at most this
share. The share tolerates that one of ``WINDOW`` intervals is counted as two cycles, which changes
the measured rate by a twentieth."""
CHECKS = 4
"""Image rates must differ in this number of calls of ``check`` in a row before the cameras count
as untriggered."""

RATES_DIFFER = 'their image rates differ'
DRIFT = 'their stamps drift against each other'


@dataclass(frozen=True)
class ImageSet:
    """Images of one trigger cycle.

    Attributes:
        cameras: indices of the used cameras, ascending. There is one image per index.
        messages: the n images, sensor_msgs/CompressedImage or Image, in the order of ``cameras``.
        stamps_ns: (n,) int64, header stamps of the images.
        received: time.monotonic() when the set was formed, seconds. Usually, this is the time at
            which the last of its images was received.
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
    """A camera with the images that wait for their set."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.waiting: dict[int, Any] = {}
        self.newest: tuple[int, Any] | None = None
        self.state_since = 0
        self.repeated_s = -math.inf

    def nearest(self, at_ns: float) -> int:
        """Return the corrected stamp of the waiting image that is nearest to ``at_ns``. A
        corrected stamp is the stamp minus the offset.
        """
        corrected = [stamp - self.offset_ns for stamp in self.waiting]
        if len(corrected) == 1:
            return corrected[0]
        return min(corrected, key=lambda one: abs(one - at_ns))


class ImageSetSynchronizer(SimpleFilter):
    """Calls its callbacks with an ``ImageSet`` for each complete trigger cycle. Only one thread
    may use it.

    Attributes:
        slop_s: largest time between two images of a set, seconds.
        untriggered: why the cameras are not triggered together; None if they are triggered
            together, or if this is unknown.
        formed: number of sets so far.
        too_wide: number of sets so far that were dropped because they exceed ``slop_s``.
        is_learned: True if the offsets are exact: the median deviations of ``WINDOW`` images have
            corrected the offsets, and the last corrections were small.
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
            filters: one filter per camera, such as ``message_filters.Subscriber``.
            queue_size: largest number of images per camera that wait for their set.
            slop_s: largest time between two images of a set, seconds.
            use_untriggered: True if sets of the newest images are formed while the cameras are not
                triggered together.
            now: a clock that never jumps, seconds.
        """
        super().__init__()
        self.slop_s = slop_s
        self.untriggered: str | None = None
        self.cameras = [_Camera(index) for index, _ in enumerate(filters)]
        self._used = self.cameras
        self.formed = self.too_wide = self._period_ns = 0
        self._queue_size, self._use_untriggered, self._now = queue_size, use_untriggered, now
        self._timeout_s = self._jitter_ns = math.inf
        self._rates_differ, self._last_ns, self._received_at_check = 0, 0, -1
        self._search()
        self.input_connections = [
            one.registerCallback(self.add, camera) for camera, one in enumerate(filters)
        ]

    def reset(self) -> None:
        """Drop all waiting images and stamps; keep the offsets and states of the cameras."""
        self._last_ns, self._received_at_check = 0, -1
        for camera in self.cameras:
            camera.waiting.clear()
            camera.drop_stamps()

    @property
    def members(self) -> list[int]:
        """Indices of the cameras that are used."""
        return [camera.index for camera in self._used]

    @property
    def period_s(self) -> float:
        """Time between two trigger cycles, seconds; 0 while unknown."""
        return self._period_ns * 1e-9

    def add(self, message: Any, camera: int) -> None:
        """Add an image of the camera with the index ``camera``. If the image completes a set, the
        callbacks are called before this method returns.
        """
        one, stamp = self.cameras[camera], stamp_ns(message)
        # A message with the newest stamp is most likely a second copy of the newest message.
        if 0 < stamp != one.newest_ns and one.repeats(stamp, self._now()):
            self._drop_repeated(one)
        if stamp <= 0 or (
            one.newest_ns - LATE_NS <= stamp <= one.newest_ns and stamp in one.stamps
        ):
            one.ignore(stamp, self._now())
            return
        was_unsure = self._is_unsure()
        self._take(one, message, stamp)
        self._observe(one)
        if not self._has_offsets:
            self._find_offsets()
        elif was_unsure:
            self._match_waiting()
        elif one.state == 'used' and not self._is_unsure():
            self._match(one, stamp)
        if self.untriggered and self._use_untriggered:
            self._emit_newest(one)

    def check(self, silent: Iterable[int], timeout_s: float) -> None:
        """Exclude silent cameras and detect image rates that differ; call this a few times per
        second.

        Args:
            silent: indices of the cameras that have sent no image for too long.
            timeout_s: largest allowed difference between the arrival times of images of different
                cameras with the same stamp, seconds. This limit applies to the next images.
        """
        before, silent = self._used, set(silent)
        if len(silent) < len(self.cameras):
            for index in silent:
                self._enter(self.cameras[index], 'silent')
            if not self._used:
                self._search()
        self._timeout_s = timeout_s
        self._compare_rates()
        if self._used != before:
            self._match_waiting()
        received = sum(camera.received for camera in self.cameras)
        if received == self._received_at_check:
            self.flush()
        self._received_at_check = received

    def flush(self) -> None:
        """Form the sets whose images have all arrived, but which wait until further images confirm
        the offsets or the rate.
        """
        if not self._has_offsets:
            self._find_offsets(is_over=True)
        self._match_waiting(is_over=True)

    # Matching

    def _take(self, camera: _Camera, message: Any, stamp: int) -> None:
        if camera.state == 'silent':
            camera.restart()
            camera.waiting.clear()
            camera.may_need_new_offset = True
            self._enter(camera, 'returning')
        camera.take(stamp, self._now())
        camera.waiting[stamp], camera.newest = message, (stamp, message)
        if len(camera.waiting) > self._queue_size:
            del camera.waiting[next(iter(camera.waiting))]

    def _drop_repeated(self, camera: _Camera) -> None:
        """Drop the waiting images whose stamps will be repeated, because the clock of ``camera``
        went back.

        If the clocks of all cameras have gone back, other cameras may have sent images with the
        new stamps since the last image of ``camera``. These cameras keep their waiting images.
        """
        _, last_s, _ = camera.last[-1]
        same_ns = self._period_ns / 2 if self._has_offsets else 1e9 * self.slop_s
        newest = camera.newest_ns - camera.offset_ns + same_ns
        for one in self.cameras:
            if one is camera or one.repeated_s < last_s:
                for stamp in [at for at in one.waiting if at - one.offset_ns <= newest]:
                    del one.waiting[stamp]
        camera.repeated_s = self._now()

    def _is_unsure(self, is_over: bool = False) -> bool:
        """Return True if no sets may be formed, because the clock of a used camera may have
        jumped, or because its image rate may have risen. If no further images arrive
        (``is_over``), the second reason does not count.
        """
        return len(self._used) > 1 and any(
            one.may_have_jumped if is_over else one.is_unsure for one in self._used
        )

    def _measure_period(self) -> int:
        """Return the shortest period of which the periods of most cameras are multiples.

        If no period is measured at the moment, return the last period. Without a period, sets
        could mix images of different cycles.
        """
        periods = sorted([one.period_ns for one in self._used if one.period_ns])
        for period in periods:
            if 2 * sum([_is_multiple(one, period) for one in periods]) > len(periods):
                return period
        return periods[0] if periods else self._period_ns

    def _measure_jitter(self) -> None:
        """Update the median jitter of the used cameras. The value falls only slowly, because
        measurements from few stamps can be too small.
        """
        jitters = [camera.jitter_ns for camera in self._used]
        jitter = statistics.median_high(jitters) if jitters else math.inf
        if jitter < self._jitter_ns < math.inf:
            jitter = max(jitter, self._jitter_ns * (1 - 2 / WINDOW / len(jitters)))
        self._jitter_ns = jitter

    def _tolerance_ns(self, camera: _Camera) -> float:
        """Return how far the corrected stamp of a camera may be from the median of its set."""
        period = self._period_ns
        if not period:
            return 1e9 * self.slop_s
        jitter = max(self._jitter_ns, OWN_JITTER * camera.jitter_ns)
        if jitter == math.inf:
            return TIGHT * period
        is_pair = len(self._used) == 2
        widest = WIDEST_OF_TWO if is_pair else WIDEST
        return min(TIGHT * period + 2 * jitter, self._surely_own_ns(jitter), widest * period)

    @property
    def jitters(self) -> bool:
        """True if stamps jitter so much that most sets are lost."""
        return len(self._used) > 1 and MISALIGNED * self._period_ns < self._jitter_ns < math.inf

    def _surely_own_ns(self, jitter_ns: float) -> float:
        """Return the largest distance between a corrected stamp and the median of a set at which
        the image surely belongs to the cycle of this set, nanoseconds. If stamps jitter too much,
        return 0.
        """
        count = max(2, len(self._used))
        # The median jitters, too, but the median of many images jitters less. For two images, the
        # median is the middle between the images, so the distance of each image from the median is
        # half of the distance between the images.
        doubt_ns = OUTLIER * math.sqrt(1 + 2 / count) * jitter_ns
        return max(0.0, (self._period_ns - doubt_ns) / (2 if count == 2 else 1))

    def _match_waiting(self, is_over: bool = False) -> None:
        """Emit all sets whose images are all waiting, unless ``_is_unsure`` is true."""
        if self._has_offsets and self._used and not self._is_unsure(is_over):
            rarest = min(self._used, key=lambda camera: len(camera.waiting))
            for stamp in sorted(rarest.waiting):
                self._match(rarest, stamp)

    def _match(self, camera: _Camera, stamp: int) -> None:
        """Emit the set that contains this image, if the set is complete."""
        used = self._used
        if stamp not in camera.waiting or not all(one.waiting for one in used):
            return
        near = [one.nearest(stamp - camera.offset_ns) for one in used]
        # The stamp of this image may have a large error, so images are selected again by their
        # distance from the median.
        middle = statistics.median(near)
        corrected = [one.nearest(middle) for one in used]
        middle = statistics.median(corrected)
        if all(
            abs(time - middle) <= self._tolerance_ns(one)
            for time, one in zip(corrected, used, strict=True)
        ):
            self._emit([time + one.offset_ns for time, one in zip(corrected, used, strict=True)])

    def _emit(self, stamps: Sequence[int]) -> None:
        """Call the callbacks with the images of these stamps, unless the stamps differ too much or
        the images are not newer than the last set.
        """
        images = tuple([one.waiting[at] for one, at in zip(self._used, stamps, strict=True)])
        for camera, stamp in zip(self._used, stamps, strict=True):
            camera.waiting = {at: one for at, one in camera.waiting.items() if at > stamp}
        start = min(stamps)
        if max(stamps) - start >= self.slop_s * 1e9:
            self.too_wide += 1
        elif not self._last_ns - LATE_NS <= start <= self._last_ns:
            self._last_ns = start
            if self.untriggered is None:
                self._send(images, stamps)

    def _send(self, images: tuple, stamps: Sequence[int]) -> None:
        self.formed += 1
        stamps_ns = np.array(stamps, np.int64)
        self.signalMessage(ImageSet(tuple(self.members), images, stamps_ns, self._now()))

    def _emit_newest(self, camera: _Camera) -> None:
        """If ``camera`` has the lowest image rate of the used cameras, call the callbacks with the
        newest image of every used camera, provided that these images are at most one period of
        ``camera`` apart.
        """
        slowest = max(self._used, key=lambda one: one.period_ns, default=None)
        newest = [one.newest for one in self._used if one.newest]
        if camera is not slowest or len(newest) < len(self._used):
            return
        stamps = [stamp for stamp, _ in newest]
        if max(stamps) - min(stamps) <= camera.period_ns:
            self._send(tuple(image for _, image in newest), stamps)

    # Offsets

    def _search(self) -> None:
        """Drop the offsets, and use all cameras that send images."""
        self._has_offsets = len(self.cameras) == 1
        self._use_all()

    def _use_all(self) -> None:
        """Use all cameras that send images, and learn their offsets again."""
        self.is_learned = False
        for camera in self.cameras:
            camera.clear_deviations()
            if camera.state in ('misaligned', 'returning'):
                self._enter(camera, 'used')

    def _find_offsets(self, is_over: bool = False) -> None:
        """Find the offsets of the used cameras; exclude a minority that does not fit ``slop_s``.

        Args:
            is_over: True if no further images arrive. Then the offsets of a single set are
                accepted.
        """
        stamps = {one.index: one.stamps[-WINDOW:] for one in self._used}
        counts = [len(one) for one in stamps.values()]
        if not counts or min(counts) < (1 if is_over else 2):
            return
        if not is_over and (
            sum(counts) < FIRST_SEARCH or not self._surely_own_ns(self._jitter_ns)
        ):
            return
        offsets = find_offsets(stamps, self._period_ns, 1e9 * self.slop_s, is_over)
        if 2 * len(offsets) <= len(counts):
            return
        for camera in self._used:
            camera.set_offset(offsets.get(camera.index, 0))
            if camera.index not in offsets:
                self._enter(camera, 'misaligned')
        self._has_offsets = True
        self._match_waiting()

    def _learn(self) -> None:
        """If every used camera has ``WINDOW`` deviations, shift its offset by their median. The
        offsets are learned when the shifts are small; after that they are not shifted.
        """
        used = self._used
        if self.is_learned or min([len(one.deviations) for one in used], default=0) < WINDOW:
            return
        # A deviation is measured against the other cameras only. The factor ``share`` converts
        # this deviation to a deviation from all cameras.
        share = 1 - 1 / len(used)
        shifts = [share * statistics.median(one.deviations) for one in used]
        if max(map(abs, shifts)) < STEADY * self._period_ns:
            self.is_learned = self.untriggered is None
        for one, shift in zip(used, shifts, strict=True):
            one.set_offset(one.offset_ns + round(shift))

    def _end_drift(self) -> None:
        """If the clocks of most used cameras no longer drift, search the offsets again. Exclude
        the cameras whose clocks still drift.
        """
        moving = [one for one in self._used if not self._is_settled(one, WINDOW)]
        if 2 * len(moving) >= len(self._used):
            return
        self.untriggered, self._has_offsets = None, False
        for one in moving:
            # If the last ``RETURN`` images of a camera do not drift, its clock has just stopped
            # drifting, and the camera is not excluded.
            if not self._is_settled(one, RETURN):
                self._enter(one, 'misaligned')
                one.may_need_new_offset = True
        self._find_offsets()

    def _is_settled(self, camera: _Camera, count: int) -> bool:
        """Return True if the deviations of the last ``count`` images do not drift and the lateness
        of these images is usual.
        """
        limit = STEADY * count / WINDOW / 2
        is_unusual = camera.lateness_change(count, self.period_s)
        return not is_unusual and self._is_steady(camera, count, limit)

    def _is_steady(self, camera: _Camera, count: int, limit: float = STEADY) -> bool:
        """Return True if there are ``count`` deviations, and they changed by at most the share
        ``limit`` of the cycle, or by at most half of the jitter.
        """
        last = list(camera.deviations)[-count:]
        limit_ns = max(limit * self._period_ns, self._jitter_ns / 2)
        return len(last) == count and abs(drift(last)) <= limit_ns

    # States of cameras

    def _enter(self, camera: _Camera, state: str) -> None:
        camera.state, camera.state_since = state, camera.received
        camera.clear_deviations()
        camera.keep_lateness(JUMP_IMAGES)
        self._used = [one for one in self.cameras if one.state == 'used']

    def _observe(self, camera: _Camera) -> None:
        """Compare the camera with the other cameras after a new image. Exclude the camera or use
        it again if the conditions are true.
        """
        if camera.is_faster or camera.is_slower:
            self._react_to_rate()
        period = self._period_ns = self._measure_period()
        self._measure_jitter()
        if not self._has_offsets or not period or len(camera.last) < 2:
            return
        others = [one for one in self._used if one is not camera and one.last]
        if not others:
            return
        if self.untriggered == DRIFT and camera.received % max(1, round(SETTLE_NS / period)):
            return
        self._compare(camera, others, period)
        if camera.state != 'used':
            self._judge_unused(camera, period)
        elif self.untriggered != DRIFT:
            self._judge_used(camera, period)
        if self.untriggered == DRIFT:
            self._end_drift()
        else:
            self._learn()

    def _judge_used(self, camera: _Camera, period: int) -> None:
        has_jumped = camera.has_jumped(1e-9 * period) and self._is_alone(camera, period)
        if has_jumped or camera.arrives_far_off(self._timeout_s):
            self._exclude(camera, is_certain=has_jumped)
        elif self._is_misaligned(camera):
            self._exclude(camera)
        elif (
            camera.received % SHORT_WINDOW == 0
            and self.untriggered is None
            and abs(camera.median_deviation(ONE_SIDED)) < NEAR_ZERO * period
        ):
            camera.note_usual_lateness()

    def _is_misaligned(self, camera: _Camera) -> bool:
        period, jitters = self._period_ns, JITTERS if self.is_learned else JITTERS + 1
        limit = max(MISALIGNED * period, jitters * self._jitter_ns)
        is_far = camera.is_misaligned(ONE_SIDED, limit, period)
        tolerance = max(TIGHT * period, self._tolerance_ns(camera))
        return is_far or camera.is_misaligned(WINDOW, tolerance, period)

    def _is_alone(self, own: _Camera, period: int) -> bool:
        """Return False if at least half of the other cameras also jumped, or also have no image of
        the skipped cycle.
        """
        others = [one for one in self._used if one is not own]
        at_ns = own.skipped_ns - own.offset_ns
        alike = [
            bool(one.jump_sign)
            or (
                bool(own.skipped_ns)
                and all(abs(stamp - one.offset_ns - at_ns) > period / 2 for stamp in one.stamps)
            )
            for one in others
        ]
        return 2 * sum(alike) < max(1, len(alike))

    def _judge_unused(self, camera: _Camera, period: int) -> None:
        """Use the camera again if the conditions of return are true."""
        count = camera.received - camera.state_since
        if camera.state == 'returning' and count >= LONGEST_RETURN:
            camera.state = 'misaligned'
        if camera.arrives_far_off(self._timeout_s):
            camera.clear_deviations()
            return
        if count < RETURN or not self._is_steady(camera, RETURN):
            return
        deviation = camera.median_deviation(RETURN)
        is_near_zero = abs(deviation) <= NEAR_ZERO * period
        # A clock that is wrong by a whole cycle can also have a deviation near zero. Only the
        # lateness shows this error, and the measured change of the lateness may be too small,
        # because the lateness scatters. If the offset of the camera is surely still valid, half of
        # the usual limit is therefore enough to prevent its return.
        share = 1.0 if camera.may_need_new_offset else 0.5
        change = camera.lateness_change(RETURN, 1e-9 * period, share)
        if change > 0 and is_near_zero and count >= SETTLED and camera.may_need_new_offset:
            camera.forget_usual_lateness()
        elif change:
            return
        # The lateness is usual here. If it would surely show a clock error as large as the
        # deviation, the whole cycles in the deviation are not errors of the clock.
        if camera.may_need_new_offset or camera.lateness_shows(1e-9 * deviation, 1e-9 * period):
            deviation -= period * round(deviation / period)
        if camera.may_need_new_offset and abs(deviation) > self._tolerance_ns(camera) / 2:
            camera.offset_ns += round(deviation)
        elif abs(deviation) > NEAR_ZERO * period:
            return
        camera.may_need_new_offset = False
        self._enter(camera, 'used')

    def _react_to_rate(self) -> None:
        """Search the offsets again if the rate of most used cameras changed."""
        faster = sum(one.is_faster for one in self._used)
        slower = sum(one.is_slower for one in self._used)
        if 2 * max(faster, slower) > len(self._used):
            for one in self.cameras:
                one.keep_new_rate()
                one.waiting = {at: old for at, old in one.waiting.items() if at in one.stamps}
            self._search()

    def _compare(self, camera: _Camera, others: Sequence[_Camera], period: int) -> None:
        """Measure the deviation and the lateness of the camera's second-to-last image, from the
        nearest image of each other camera.

        The last image is not used, because the images of other cameras in the same cycle may not
        have arrived yet.
        """
        stamp, arrival_s, _ = camera.last[0]
        own = stamp - camera.offset_ns
        differences, lateness_s = [], []
        for one in others:
            at_ns = own + one.offset_ns
            nearest = min(reversed(one.last), key=lambda image: abs(image[0] - at_ns))
            other, other_s, is_usual = nearest
            differences.append(at_ns - other)
            if is_usual or self.untriggered == DRIFT:
                waited_s = (arrival_s - other_s) / max(SMALLEST_PACE, one.arrivals.pace)
                lateness_s.append(waited_s - 1e-9 * (stamp - other))
        camera.add_deviation(differences, period)
        if 3 * len(lateness_s) >= 2 * len(others):
            camera.add_lateness(statistics.median(lateness_s))

    def _exclude(self, suspect: _Camera, is_certain: bool = False) -> None:
        """Exclude a camera if the cameras that are not excluded remain the majority, or if the
        clock of the camera is surely wrong.

        Otherwise it is unknown which cameras are wrong. All cameras are then used, and their
        offsets are searched again when the deviations are steady.

        Args:
            suspect: the camera to exclude.
            is_certain: True if the clock of this camera is surely wrong.
        """
        active = [camera for camera in self.cameras if camera.state != 'silent']
        out = 1 + sum(camera.state == 'misaligned' for camera in active)
        if out == len(active) or (2 * out >= len(active) and not is_certain):
            # Stamps are compared with the old offsets until the stamps no longer drift.
            self.untriggered = DRIFT
            self._use_all()
            return
        self._enter(suspect, 'misaligned')
        # Offsets that were found while clocks drift may be wrong.
        suspect.may_need_new_offset |= self.untriggered is not None
        for camera in self._used:
            camera.clear_deviations()
        self._match_waiting()

    def _compare_rates(self) -> None:
        """Detect image rates that are not multiples of each other."""
        if min([len(one.stamps) for one in self._used], default=0) < WINDOW:
            return
        differ = not all(_is_multiple(one.period_ns, self._period_ns) for one in self._used)
        self._rates_differ = self._rates_differ + 1 if differ else 0
        if self._rates_differ >= CHECKS:
            self.untriggered = RATES_DIFFER
        elif self.untriggered == RATES_DIFFER:
            self.untriggered = None


def _is_multiple(period_ns: int, of_ns: int) -> bool:
    ratio = period_ns / of_ns
    return abs(ratio - round(ratio)) <= RATE_TOLERANCE * ratio
