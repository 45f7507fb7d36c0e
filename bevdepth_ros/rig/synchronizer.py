"""From single images to the newest set of one rotation: matching by stamp, whatever cameras take
part.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bevdepth_ros.rig.stamps import stamp_ns

LATE_NS = 250_000_000
"""A single image that is older than its predecessor by at most this came out of order; more, or
two in a row, is a jump."""
MOST_PROBATION = 16
"""A camera that left takes part again once it fitted 2 rotations, then 4 the next time and so on,
at most this many."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one rotation.

    Attributes:
        cameras: index of each image's camera, ascending; cameras that do not take part are
            missing.
        messages: sensor_msgs/CompressedImage or Image of these cameras.
        stamps_ns: int64, their header stamps.
        received: time.monotonic() when the last of them was taken, seconds.
    """

    cameras: tuple[int, ...]
    messages: tuple
    stamps_ns: np.ndarray
    received: float

    @property
    def spread_s(self) -> float:
        """Time between the first and the last image, seconds."""
        return float(self.stamps_ns.max() - self.stamps_ns.min()) * 1e-9


class ImageSynchronizer:
    """Matches images of the cameras that take part; for one thread.

    The six cameras of a rotation expose one after the other, and with some of them missing the
    last image of one rotation can be nearer to the first of the next than to that of its own. So
    the offsets within a rotation are learned from complete sets (the rhythm), and images whose
    stamps less these offsets are further apart than half the slop never make a set.

    Attributes:
        members: indices of the cameras that take part; a set needs an image of each.
    """

    def __init__(
        self,
        camera_count: int,
        queue_size: int,
        slop_s: float,
        on_set: Callable[[ImageSet], None],
        may_return: Callable[[int], bool] = lambda camera: True,
    ):
        """Prepare empty queues, with all cameras taking part.

        Args:
            camera_count: N >= 1.
            queue_size: images per camera that wait for their set.
            slop_s: largest time between two images of a set, seconds.
            on_set: receives each set.
            may_return: asked whether a camera whose images fit again may take part again.
        """
        self._count, self._slop_ns, self._on_set = camera_count, round(slop_s * 1e9), on_set
        self._may_return = may_return
        self.members = set(range(camera_count))
        self._queues = [deque(maxlen=queue_size) for _ in range(camera_count)]
        self._hits, self._probation = [0] * camera_count, [1] * camera_count
        self._rhythm: np.ndarray | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all waiting images and their times; who takes part stays."""
        self._newest_ns = [0] * self._count
        self._late = [False] * self._count
        self._last_set: ImageSet | None = None
        for queue in self._queues:
            queue.clear()

    def add(self, camera: int, message) -> bool:
        """Take an image of the camera with index ``camera``; may call back before it returns.

        Returns:
            False when the image is a repetition or came out of order, and is left out.
        """
        stamp = stamp_ns(message)
        if not self._is_in_order(camera, stamp):
            return False
        self._queues[camera].append((stamp, message))
        if camera in self.members:
            self._match(camera)
        return True

    def keep(self, speaking: Iterable[int]) -> None:
        """Let cameras that are not in ``speaking`` take part no longer; when none is left, those
        in ``speaking`` do.
        """
        members = self.members & set(speaking) or set(speaking)
        if members and members != self.members:
            self._set_members(members)

    def leave_outsiders(self, suspects: set[int]) -> set[int]:
        """Let cameras take part no longer whose images fit no set that most of the others agree
        on, and return them.

        When there is no such majority, or everybody fits, only the rhythm is forgotten: a camera
        may have a new one.

        Args:
            suspects: cameras whose clock is known to be off: their images may fit by accident, but
                to another rotation.
        """
        self._rhythm = None
        group = self._largest_group(self.members - suspects)
        outsiders = self.members - group
        if not outsiders or 2 * len(group) <= len(self.members):
            return set()
        self._set_members(group)
        return outsiders

    def _set_members(self, members: set[int]) -> None:
        for camera in self.members - members:
            self._hits[camera], self._probation[camera] = (
                0,
                min(2 * self._probation[camera], MOST_PROBATION),
            )
        self.members = members
        any(self._match(camera) for camera in sorted(members))

    def _is_in_order(self, camera: int, stamp: int) -> bool:
        """Return whether the image is newer than the camera's last, or the first after a jump
        back.
        """
        back_ns = self._newest_ns[camera] - stamp
        if back_ns == 0 or (0 < back_ns <= LATE_NS and not self._late[camera]):
            self._late[camera] |= back_ns > 0
            return False
        if back_ns > 0:
            self._queues[camera].clear()
        self._late[camera] = False
        self._newest_ns[camera] = stamp
        return True

    def _match(self, camera: int) -> bool:
        """Hand on the tightest set that contains the newest image of ``camera``, if there is one,
        and forget what is older.
        """
        picked = self._tightest(camera)
        if picked is None:
            return False
        cameras = tuple(sorted(picked))
        found = ImageSet(
            cameras,
            tuple(picked[one][1] for one in cameras),
            self._stamps(picked),
            time.monotonic(),
        )
        for one in cameras:
            while self._queues[one] and self._queues[one][0][0] <= picked[one][0]:
                self._queues[one].popleft()
        if len(cameras) == self._count:
            self._rhythm = found.stamps_ns - found.stamps_ns[0]
        self._let_return()
        self._last_set = found
        self._on_set(found)
        return True

    @staticmethod
    def _stamps(picked: dict) -> np.ndarray:
        return np.array([picked[camera][0] for camera in sorted(picked)], np.int64)

    def _tightest(self, camera: int) -> dict | None:
        """Return {member: (stamp, message)} with the newest image of ``camera``, None when some
        member has no image near it.
        """
        if not self._queues[camera]:
            return None
        newest = self._queues[camera][-1]
        near = {one: self._near(one, camera, newest[0]) for one in self.members - {camera}}
        if not all(near.values()):
            return None
        near[camera] = [newest]
        starts = sorted(
            {self._time(one, stamp) for one, images in near.items() for stamp, _ in images}
        )
        sets = [
            self._first_after(near, start)
            for start in starts
            if start <= self._time(camera, newest[0])
        ]
        sets = [picked for picked in sets if picked and self._fits(picked)]
        return min(sets, key=self._spread_ns, default=None)

    def _near(self, one: int, camera: int, stamp: int) -> list:
        """Return the waiting images of ``one`` that may share a set with one of ``camera`` at
        ``stamp``.
        """
        time_ns, limit_ns = self._time(camera, stamp), self._limit_ns()
        return [
            image
            for image in self._queues[one]
            if abs(self._time(one, image[0]) - time_ns) < limit_ns
        ]

    def _first_after(self, near: dict[int, list], start: int) -> dict | None:
        """Return the first image of each camera at or after ``start``, None when one has none."""
        picked = {}
        for one, images in near.items():
            image = next((image for image in images if self._time(one, image[0]) >= start), None)
            if image is None:
                return None
            picked[one] = image
        return picked

    def _time(self, camera: int, stamp: int) -> int:
        """Return when the rotation of an image began, as far as its rhythm is known, otherwise its
        stamp.
        """
        return stamp if self._rhythm is None else stamp - int(self._rhythm[camera])

    def _limit_ns(self) -> int:
        """Return how far apart the images of a set may be, less their places in the rotation where
        these are known.
        """
        return self._slop_ns if self._rhythm is None else self._slop_ns // 2

    def _spread_ns(self, picked: dict) -> int:
        times = [self._time(camera, image[0]) for camera, image in picked.items()]
        return max(times) - min(times)

    def _fits(self, picked: dict) -> bool:
        return (
            self._is_close(image[0] for image in picked.values())
            and self._spread_ns(picked) < self._limit_ns()
        )

    def _is_close(self, stamps: Iterable[int]) -> bool:
        stamps = list(stamps)
        return max(stamps) - min(stamps) < self._slop_ns

    def _let_return(self) -> None:
        """Let cameras take part again whose images keep fitting the set before the present one, by
        now complete.

        The rhythm is left out: a camera that was started again may have a new place in it.
        """
        if self._last_set is None:
            return
        last = self._last_set.stamps_ns.tolist()
        for camera in set(range(self._count)) - self.members:
            fits = any(self._is_close((stamp, *last)) for stamp, _ in self._queues[camera])
            self._hits[camera] = self._hits[camera] + 1 if fits else max(0, self._hits[camera] - 1)
            if self._hits[camera] >= self._probation[camera] and self._may_return(camera):
                self.members.add(camera)

    def _largest_group(self, cameras: set[int]) -> set[int]:
        """Return those of ``cameras`` that have images within the slop of each other, as many as
        possible.
        """
        images = sorted((stamp, camera) for camera in cameras for stamp, _ in self._queues[camera])
        best: set[int] = set()
        for start, _ in images:
            group = {camera for stamp, camera in images if start <= stamp < start + self._slop_ns}
            best = max(best, group, key=len)
        return best
