"""Detects lost image sets by comparing the number of image sets with the number of images.

The terms of this module:

* Trigger cycle and jitter: see ``camera_timing``.
* Possible image sets: number of images of the used camera that sent the most images. Without a
  loss, each image of this camera is in an image set.
* Lost image sets: possible image sets that were not formed.
* Too wide set: set that was dropped, because its first and its last image are more than the
  parameter ``sync_slop_s`` apart.
* Window: time in which image sets and images are counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

WINDOW_S = 5.0
"""Length of a window, seconds."""
FEWEST = 10
"""A window is evaluated only if a camera sent at least this number of images in it."""
HEALTHY = 0.8
"""A loss is reported if less than this share of the possible image sets was formed. A camera that
sent less than this share of the possible number of images is reported as the cause."""
JITTERY = 1 / 16
"""Jitter is reported as the cause of a loss only if it is larger than this share of the trigger
cycle."""


@dataclass(frozen=True)
class Loss:
    """Counts of a window in which image sets were lost.

    Attributes:
        sets: number of image sets that were formed.
        too_wide: number of too wide sets.
        images: number of received images by name of the used camera.
    """

    sets: int
    too_wide: int
    images: Mapping[str, int]

    def sentence(self, jitter_s: Mapping[str, float], period_s: float, slop_s: float) -> str:
        """Return a sentence with the loss, its most likely cause, and the remedy.

        Args:
            jitter_s: jitter of the stamps by camera, seconds.
            period_s: trigger cycle, seconds.
            slop_s: parameter ``sync_slop_s``, seconds.
        """
        possible = max(self.images.values())
        lost = f'{possible - self.sets} of {possible} image sets were lost in {WINDOW_S:.0f} s'
        rare = min(self.images, key=lambda name: self.images[name])
        jittery = max(jitter_s, key=lambda name: jitter_s[name])
        if self.images[rare] < HEALTHY * possible:
            return (
                f'{lost}: {rare} sent {self.images[rare]} images, other cameras up to {possible}; '
                f'check the driver of {rare} and the network'
            )
        if self.too_wide:
            return (
                f'{lost}: {self.too_wide} sets did not fit into sync_slop_s ({slop_s} s); raise '
                'sync_slop_s or correct the stamps'
            )
        if JITTERY * period_s < jitter_s[jittery] < float('inf'):
            return (
                f'{lost}: the stamps of {jittery} jitter by {jitter_s[jittery]:.3f} s; let the '
                'camera driver stamp images with the time of the trigger'
            )
        return (
            f'{lost}: images were lost or arrived too late; check the network, or raise '
            'sync_queue_size and image_queue_size'
        )


class SetLoss:
    """Evaluates the windows, which follow each other without a gap.

    If the used cameras change before the end of a window, a new window starts, because the counts
    are not comparable. If the trigger cycle changes, a new window also starts, because a set can
    be lost while the image rate changes. A window that started because the cycle changed is
    completed even if the cycle changes again. Otherwise, a cycle that changes all the time would
    hide a loss.
    """

    def __init__(self) -> None:
        self._began_at = 0.0
        self._start: tuple[dict[str, int], int, int] | None = None
        self._cycle_s = 0.0
        self._may_restart = True
        self._loss: Loss | None = None

    def check(
        self, received: Mapping[str, int], sets: int, too_wide: int, cycle_s: float
    ) -> Loss | None:
        """Update the window, and return the loss in the last complete window. Return None if the
        loss is below the limit, or if no window has been completed with the used cameras.

        Args:
            received: number of images so far, by name of the used camera.
            sets: number of image sets formed so far.
            too_wide: number of too wide sets so far.
            cycle_s: trigger cycle, seconds. The caller must remove small changes of the cycle.
        """
        now = time.monotonic()
        has_new_cycle, self._cycle_s = cycle_s != self._cycle_s, cycle_s
        if self._start is None or self._start[0].keys() != received.keys():
            self._start, self._began_at, self._loss = (dict(received), sets, too_wide), now, None
        elif has_new_cycle and self._may_restart:
            self._start, self._began_at = (dict(received), sets, too_wide), now
            self._may_restart = False
        elif now - self._began_at >= WINDOW_S:
            self._may_restart = True
            before, sets_before, wide_before = self._start
            images = {name: count - before[name] for name, count in received.items()}
            loss = Loss(sets - sets_before, too_wide - wide_before, images)
            possible = max(images.values(), default=0)
            is_lossy = possible >= FEWEST and loss.sets < HEALTHY * possible
            self._loss = loss if is_lossy else None
            self._start, self._began_at = (dict(received), sets, too_wide), now
        return self._loss
