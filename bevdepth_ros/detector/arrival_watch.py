"""Notices a camera clock that moved by whole periods: its stamps fit other rotations as well as
its own, but its images come sooner.
"""

from __future__ import annotations

import statistics
from collections import deque

from bevdepth_ros.rig.synchronizer import ImageSet

REMEMBERED, LEARNED = 50, 10
"""Sets that the usual offset of a camera is the median of, and how many of them it takes."""
IN_A_ROW = 5
"""Sets in which a camera must be off, so that single images may be late."""
KEPT = 200
"""Images of a camera whose arrival is kept; more than wait for a set."""
FEWEST_CAMERAS = 3
"""With fewer, nobody can say which one moved."""


class ArrivalWatch:
    """Compares within each set how long after their stamps the images came; for one thread.

    What all cameras have in common, such as the speed of a replay or a busy machine, cancels out.
    """

    def __init__(self, camera_count: int, limit_s: float):
        """Begin with nothing learned.

        Args:
            camera_count: N.
            limit_s: a camera moved when its images come sooner or later than usual by more,
                seconds.
        """
        self._limit_s = limit_s
        self._arrived: list[dict[int, float]] = [{} for _ in range(camera_count)]
        self._offsets = [deque(maxlen=REMEMBERED) for _ in range(camera_count)]
        self._off = [0] * camera_count

    def arrived(self, camera: int, stamp_ns: int, now_s: float) -> None:
        """Note when an image came, by a clock that never jumps."""
        arrived = self._arrived[camera]
        arrived.pop(stamp_ns, None)  # of an earlier round of a bag, and in its old place
        arrived[stamp_ns] = now_s
        if len(arrived) > KEPT:
            del arrived[next(iter(arrived))]

    def moved_s(self, images: ImageSet) -> dict[int, float]:
        """Return by how much each camera's images come sooner after their stamps than before,
        beside the others, seconds.

        Args:
            images: a set; cameras that are not in it are learned anew.
        """
        stamps = dict(zip(images.cameras, images.stamps_ns.tolist(), strict=True))
        known = {
            camera: stamp for camera, stamp in stamps.items() if stamp in self._arrived[camera]
        }
        lags = {
            camera: self._arrived[camera][stamp] - stamp * 1e-9 for camera, stamp in known.items()
        }
        for camera, offsets in enumerate(self._offsets):
            if camera not in stamps:
                offsets.clear()
        if len(lags) < FEWEST_CAMERAS:
            return {}
        middle = statistics.median(lags.values())
        moved = {camera: self._moved(camera, middle - lag) for camera, lag in lags.items()}
        return {camera: seconds for camera, seconds in moved.items() if seconds}

    def _moved(self, camera: int, offset_s: float) -> float:
        """Return by how much the camera moved, 0 as long as it did not in enough sets."""
        offsets = self._offsets[camera]
        moved_s = offset_s - statistics.median(offsets) if len(offsets) >= LEARNED else 0.0
        if abs(moved_s) <= self._limit_s:
            offsets.append(offset_s)
            self._off[camera] = 0
            return 0.0
        self._off[camera] += 1
        return moved_s if self._off[camera] >= IN_A_ROW else 0.0
