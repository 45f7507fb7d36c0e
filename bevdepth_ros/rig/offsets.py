"""Finds the offset of each camera within the trigger cycle from the stamps of its images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

CLEAR = 1.2
"""The gap between two trigger cycles must exceed every gap within a cycle by this factor."""
SURE = 8.0
"""The gap between two trigger cycles minus any gap within a cycle must also exceed the limit
SURE * d / sqrt(n). The limit is about three standard deviations of the difference of two gaps.

n is the smallest number of images of a camera. d is the median absolute deviation of the phases of
a camera from their median; the camera with the largest value counts."""
CONSTANT = 1 / 20
"""If the phases of every camera vary by at most this share of the cycle, FEWEST does not apply."""
FEWEST, ENOUGH = 10, 20
"""Smallest numbers of images per camera. FEWEST applies if phases vary by more than CONSTANT, and
ENOUGH applies if the limit of SURE exceeds the share FEW_ERROR of the cycle."""
FEW_ERROR = 1 / 4
"""With fewer than FEWEST images, the gap must be larger than all other gaps by at least this share
of the cycle."""
CLEAR_SET = 2.0
"""The pauses before and after a clear set exceed every gap within the set by more than this
factor."""
AGREE = 1 / 10
"""Clear sets agree if their offsets differ by at most this share of the shortest pause before or
after a clear set."""


def find_offsets(
    stamps: Mapping[int, Sequence[int]], period_ns: int, slop_ns: float, is_over: bool = False
) -> dict[int, int]:
    """Return the offsets of the cameras that expose together, nanoseconds; empty if unknown.

    Some sets are separated from all other images by pauses. The stamps of these sets directly give
    the offsets. Such sets are common if cycles are left out. For example, nuScenes uses 12 of 20
    cycles per second. A cycle is 50 ms long, and the cameras expose within 43 ms.

    If there are no such sets, the offsets are found from phases. A phase is a stamp modulo the
    period. The cameras of one cycle follow each other on the circle of phases, and the largest gap
    on this circle lies between two cycles. Lost images do not change phases.

    Args:
        stamps: at least one stamp of each camera, by index of the camera, nanoseconds.
        period_ns: period of the trigger, nanoseconds, or 0 if it is unknown. With a single image
            per camera, the period is not needed.
        slop_ns: largest time between two images of a set, nanoseconds.
        is_over: True if no further images arrive. Then few images are enough if the gap between
            two cycles is clear.
    """
    clear = _from_clear_sets(stamps, slop_ns, is_over)
    if clear:
        return clear
    anchor = np.array(next(iter(stamps.values())))
    phases = {camera: _phases(np.array(own), anchor, period_ns) for camera, own in stamps.items()}
    count = min(len(own) for own in stamps.values())
    scatter = max(float(np.median(np.abs(own - np.median(own)))) for own in phases.values())
    widest = max(float(np.ptp(own)) for own in phases.values())
    if widest > CONSTANT * period_ns and count < FEWEST and not is_over:
        return {}
    middles = {camera: float(np.median(own)) for camera, own in phases.items()}
    error = SURE * scatter / math.sqrt(count)
    if count < FEWEST:
        error = max(FEW_ERROR * period_ns, widest)
    elif count < ENOUGH and error > FEW_ERROR * period_ns:
        return {}
    return _together(_in_order(middles, period_ns, error), slop_ns)


def _from_clear_sets(
    stamps: Mapping[int, Sequence[int]], slop_ns: float, is_over: bool
) -> dict[int, int]:
    """Return the median offsets of the clear sets.

    A clear set contains one image of each camera, and is apart from all other images. The result
    is empty if clear sets do not agree, or if there are fewer than two. If no further images
    arrive, one clear set is enough.
    """
    images = sorted((stamp, camera) for camera, own in stamps.items() for stamp in own)
    edge = images[-1][0] - images[0][0] + 1 if is_over else 0
    gaps = [edge, *(later - one for (one, _), (later, _) in itertools.pairwise(images)), edge]
    found, pauses = [], []
    for start in range(len(images) - len(stamps) + 1):
        end = start + len(stamps)
        own = {camera: stamp - images[start][0] for stamp, camera in images[start:end]}
        pause = min(gaps[start], gaps[end])
        within = max(gaps[start + 1 : end], default=0)
        if len(own) == len(stamps) and pause > CLEAR_SET * within and max(own.values()) < slop_ns:
            found.append(own)
            pauses.append(pause)
    if len(found) < (1 if is_over else 2):
        return {}
    by_camera = {camera: [one[camera] for one in found] for camera in found[0]}
    if any(np.ptp(own) > AGREE * min(pauses) for own in by_camera.values()):
        return {}
    offsets = {camera: round(float(np.median(own))) for camera, own in by_camera.items()}
    return dict(sorted(offsets.items(), key=lambda one: one[1]))


def _phases(own: np.ndarray, anchor: np.ndarray, period_ns: int) -> np.ndarray:
    """Return, for each stamp in ``own``, how much later it is than the stamp of the same cycle in
    ``anchor``.
    """
    distances = own[:, None] - anchor[None]
    nearest = distances[np.arange(len(own)), np.abs(distances).argmin(1)]
    if not period_ns:
        return nearest
    turn = 2 * np.pi / period_ns
    middle = np.angle(np.exp(1j * turn * nearest).mean()) / turn
    return nearest - period_ns * np.rint((nearest - middle) / period_ns)


def _in_order(middles: Mapping[int, float], period_ns: int, error: float) -> dict[int, int]:
    """Return the offsets by camera, in ascending order. Return an empty dictionary if it is not
    clear which camera is the first of a cycle. ``middles`` are the median phases.
    """
    if not period_ns:
        period_ns = 4 * round(np.ptp(list(middles.values()))) + 1
    circle = sorted((round(phase) % period_ns, camera) for camera, phase in middles.items())
    ends = [phase for phase, _ in circle[1:]] + [circle[0][0] + period_ns]
    gaps = [end - phase for end, (phase, _) in zip(ends, circle, strict=True)]
    last = int(np.argmax(gaps))
    second = max((gap for index, gap in enumerate(gaps) if index != last), default=0)
    if gaps[last] < CLEAR * second or gaps[last] < second + error:
        return {}
    first = circle[(last + 1) % len(circle)][0]
    offsets = {camera: (phase - first) % period_ns for phase, camera in circle}
    return dict(sorted(offsets.items(), key=lambda one: one[1]))


def _together(offsets: dict[int, int], slop_ns: float) -> dict[int, int]:
    """Return the largest group of cameras that expose within ``slop_ns``."""
    groups = [
        {camera: one for camera, one in offsets.items() if 0 <= one - first < slop_ns}
        for first in offsets.values()
    ]
    return max(groups, key=len, default={})
