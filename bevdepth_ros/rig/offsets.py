"""Finds the offset of each camera within the trigger cycle from the stamps of its images.

The terms of this module:

* Trigger cycle: one round in which every camera exposes once. The period is its length.
* Offset: time from the first exposure of the trigger cycle to the exposure of a camera.
* Set: one image of each camera, with less than ``slop_ns`` between its first and its last image.
  The images of a clear set are consecutive, and the pauses before and after the set are much
  longer than the times between its images.
* Phase of an image: stamp of the image minus the stamp of a reference camera in the same cycle.
  It is known only modulo the period, so phases are points on a circle. Lost images do not change
  the phases of other images. The phase of a camera is the median phase of its images.
* Gap: distance between the phases of two cameras that are neighbors on this circle. The largest
  gap lies between the last exposure of a cycle and the first exposure of the next cycle.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

GAP_FACTOR = 1.2
"""The largest gap must be larger than every other gap by this factor. Otherwise it is unknown
which gap lies between two cycles."""
GAP_MARGIN = 8.0
"""The largest gap minus any other gap must be at least GAP_MARGIN * d / sqrt(n), which is about
three standard deviations of the difference of two gaps.

n is the number of images of the camera with the fewest images. d is the median distance between
the phases of the images of a camera and the phase of this camera, for the camera with the largest
such distance."""
FEWEST_IMAGES = 10
"""With fewer images of a camera, d is not reliable. Offsets are then found only if the phases are
constant or no further images arrive, and LARGE_MARGIN replaces GAP_MARGIN."""
CONSTANT_PHASES = 1 / 20
"""Phases are constant if the phases of each camera vary by at most this share of the period."""
LARGE_MARGIN = 1 / 4
"""With fewer than FEWEST_IMAGES images of a camera, the largest gap minus any other gap must be at
least this share of the period, and at least as large as the variation of the phases."""
ENOUGH_IMAGES = 20
"""If GAP_MARGIN demands a larger difference of gaps than LARGE_MARGIN, offsets are found only with
at least this number of images of each camera."""
PAUSE_FACTOR = 2.0
"""The pauses before and after a clear set are longer than this multiple of every time between two
consecutive images of the set."""
SAME_OFFSET = 1 / 10
"""Clear sets are used only if the offsets of a camera in these sets differ by at most this share
of the shortest pause before or after a clear set."""


def find_offsets(
    stamps: Mapping[int, Sequence[int]], period_ns: int, slop_ns: float, is_over: bool = False
) -> dict[int, int]:
    """Return the offsets of the cameras that expose together, nanoseconds; empty if unknown.

    If there are clear sets, their stamps directly give the offsets. Clear sets are common if not
    every cycle is used. For example, nuScenes uses 12 of 20 cycles per second. A cycle is 50 ms
    long, and the cameras expose within 43 ms.

    If there are too few clear sets, or their offsets differ, the offsets are found from the
    phases. The camera whose phase follows the largest gap exposes first in each cycle.

    Args:
        stamps: at least one stamp of each camera, by index of the camera, nanoseconds.
        period_ns: period of the trigger, nanoseconds, or 0 if it is unknown. With a single image
            per camera, the period is not needed.
        slop_ns: largest time between two images of a set, nanoseconds.
        is_over: True if no further images arrive. Then a single clear set is enough, or fewer
            than ``FEWEST_IMAGES`` images per camera whose phases are not constant.
    """
    clear = _from_clear_sets(stamps, slop_ns, is_over)
    if clear:
        return clear
    reference = np.array(next(iter(stamps.values())))
    phases = {
        camera: _phases(np.array(own), reference, period_ns) for camera, own in stamps.items()
    }
    count = min(len(own) for own in stamps.values())
    scatter = max(float(np.median(np.abs(own - np.median(own)))) for own in phases.values())
    widest = max(float(np.ptp(own)) for own in phases.values())
    if widest > CONSTANT_PHASES * period_ns and count < FEWEST_IMAGES and not is_over:
        return {}
    middles = {camera: float(np.median(own)) for camera, own in phases.items()}
    margin = GAP_MARGIN * scatter / math.sqrt(count)
    if count < FEWEST_IMAGES:
        margin = max(LARGE_MARGIN * period_ns, widest)
    elif count < ENOUGH_IMAGES and margin > LARGE_MARGIN * period_ns:
        return {}
    return _together(_in_order(middles, period_ns, margin), slop_ns)


def _from_clear_sets(
    stamps: Mapping[int, Sequence[int]], slop_ns: float, is_over: bool
) -> dict[int, int]:
    """Return the median offsets of the clear sets. The result is empty if the offsets differ
    between clear sets (see ``SAME_OFFSET``), or if there are fewer than two clear sets. If no
    further images arrive (``is_over``), one clear set is enough.
    """
    images = sorted((stamp, camera) for camera, own in stamps.items() for stamp in own)
    # The pause before the first image and the pause after the last image are unknown. They count
    # as 0, but if no further images arrive, they count as longer than all other times.
    edge = images[-1][0] - images[0][0] + 1 if is_over else 0
    intervals = [edge, *(later - one for (one, _), (later, _) in itertools.pairwise(images)), edge]
    found, pauses = [], []
    for start in range(len(images) - len(stamps) + 1):
        end = start + len(stamps)
        own = {camera: stamp - images[start][0] for stamp, camera in images[start:end]}
        pause = min(intervals[start], intervals[end])
        longest = max(intervals[start + 1 : end], default=0)
        if (
            len(own) == len(stamps)
            and pause > PAUSE_FACTOR * longest
            and max(own.values()) < slop_ns
        ):
            found.append(own)
            pauses.append(pause)
    if len(found) < (1 if is_over else 2):
        return {}
    by_camera = {camera: [one[camera] for one in found] for camera in found[0]}
    if any(np.ptp(own) > SAME_OFFSET * min(pauses) for own in by_camera.values()):
        return {}
    offsets = {camera: round(float(np.median(own))) for camera, own in by_camera.items()}
    return dict(sorted(offsets.items(), key=lambda one: one[1]))


def _phases(own: np.ndarray, reference: np.ndarray, period_ns: int) -> np.ndarray:
    """Return the phases of the images of a camera, nanoseconds.

    Args:
        own: stamps of the camera, nanoseconds.
        reference: stamps of the reference camera, nanoseconds.
        period_ns: length of the trigger cycle, nanoseconds; 0 if unknown.
    """
    distances = own[:, None] - reference[None]
    nearest = distances[np.arange(len(own)), np.abs(distances).argmin(1)]
    if not period_ns:
        return nearest
    turn = 2 * np.pi / period_ns
    middle = np.angle(np.exp(1j * turn * nearest).mean()) / turn
    return nearest - period_ns * np.rint((nearest - middle) / period_ns)


def _in_order(middles: Mapping[int, float], period_ns: int, margin: float) -> dict[int, int]:
    """Return the offsets by camera, in ascending order. Return an empty dictionary if it is not
    clear which camera is the first of a cycle.

    Args:
        middles: phases of the cameras, nanoseconds.
        period_ns: length of the trigger cycle, nanoseconds; 0 if unknown.
        margin: smallest allowed difference between the largest gap and any other gap,
            nanoseconds.
    """
    if not period_ns:  # any period that makes the largest gap clear
        period_ns = 4 * round(np.ptp(list(middles.values()))) + 1
    circle = sorted((round(phase) % period_ns, camera) for camera, phase in middles.items())
    ends = [phase for phase, _ in circle[1:]] + [circle[0][0] + period_ns]
    gaps = [end - phase for end, (phase, _) in zip(ends, circle, strict=True)]
    last = int(np.argmax(gaps))
    second = max((gap for index, gap in enumerate(gaps) if index != last), default=0)
    if gaps[last] < GAP_FACTOR * second or gaps[last] < second + margin:
        return {}
    first = circle[(last + 1) % len(circle)][0]
    offsets = {camera: (phase - first) % period_ns for phase, camera in circle}
    return dict(sorted(offsets.items(), key=lambda one: one[1]))


def _together(offsets: dict[int, int], slop_ns: float) -> dict[int, int]:
    """Return the offsets of the largest group of cameras that expose within ``slop_ns``."""
    groups = [
        {camera: one for camera, one in offsets.items() if 0 <= one - first < slop_ns}
        for first in offsets.values()
    ]
    return max(groups, key=len, default={})
