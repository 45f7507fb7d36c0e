"""Simulates a camera rig with a simulated clock. Every image message contains the number of its
trigger cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from message_filters import SimpleFilter
from rclpy.time import Time

from bevdepth_ros.rig.synchronizer import ImageSet, ImageSetSynchronizer

START_NS = 1_531_883_530_404_844_000
CHECK_S, TIMEOUT_S = 0.25, 1.0
KEPT = 5
"""Largest number of images per camera that wait for the executor; DDS drops older images."""


def image(stamp_ns: int, cycle: int = 0) -> SimpleNamespace:
    """Return an image message that contains its stamp and the number of its trigger cycle."""
    return SimpleNamespace(
        header=SimpleNamespace(stamp=Time(nanoseconds=stamp_ns).to_msg()), cycle=cycle
    )


@dataclass
class SimulatedRig:
    """Cameras with one trigger, and the image sets that a synchronizer forms from their images.

    Attributes:
        offsets_s: offset of each camera within the trigger cycle.
        period_s: period of the trigger.
        jitter_s: standard deviation of the random error of each stamp.
        loss: probability that an image is lost.
        arrival_s: largest random delay from the exposure of an image to its arrival.
        pace: time between arrivals divided by the time between stamps; 2 for a replay at half
            speed.
        stall_s: no image arrives in the first ``stall_s`` seconds of each second.
        service_s: time that the executor needs per image; the executor serves the cameras in turn.
        sets: image sets so far.
        times_s: simulated time at which each set was formed.
        possible: numbers of the trigger cycles so far in which no image was lost.
    """

    offsets_s: Sequence[float]
    period_s: float
    jitter_s: float = 0.0
    loss: float = 0.0
    arrival_s: float = 0.0
    slop_s: float = 0.06
    queue_size: int = 10
    seed: int = 0
    use_untriggered: bool = False
    pace: float = 1.0
    stall_s: float = 0.0
    service_s: float = 0.0
    sets: list[ImageSet] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    possible: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now_s, self.cycle, self.trigger_s = 100.0, 0, 0.0
        self._cycle_begins_s = self.now_s
        self.transport_s: dict[int, float] = {}
        self._random = np.random.default_rng(self.seed)
        self.inputs = [SimpleFilter() for _ in self.offsets_s]
        self.synchronizer = ImageSetSynchronizer(
            self.inputs, self.queue_size, self.slop_s, self.use_untriggered, lambda: self.now_s
        )
        self.synchronizer.registerCallback(self._take)
        self._arrived_s = [self.now_s] * len(self.inputs)
        self._served_s, self._idle_at_s = [0.0] * len(self.inputs), 0.0
        self._last_arrival_s = [0.0] * len(self.inputs)
        self._next_check_s = self.now_s + CHECK_S
        self._pending: list[tuple[float, int, SimpleNamespace]] = []

    def _take(self, images: ImageSet) -> None:
        self.sets.append(images)
        self.times_s.append(self.now_s)

    def run(
        self,
        seconds: float,
        shift_s: Callable[[int, float], float] = lambda camera, time_s: 0.0,
        missing: Sequence[int] = (),
    ) -> None:
        """Simulate trigger cycles.

        Args:
            seconds: duration of the simulation.
            shift_s: function of the index of a camera and the time in seconds since the beginning
                of this call; returns the error of the clock of this camera, seconds.
            missing: indices of the cameras that send nothing.
        """
        begin_s = self.trigger_s
        while self.trigger_s < begin_s + seconds:
            self._trigger(shift_s, missing, begin_s)
            self.trigger_s += self.period_s
            self._cycle_begins_s += self.pace * self.period_s
            self.cycle += 1
            self._deliver_until(self._cycle_begins_s)

    def _trigger(self, shift_s: Callable, missing: Sequence[int], begin_s: float) -> None:
        is_complete = True
        for camera, offset_s in enumerate(self.offsets_s):
            if camera in missing or self._random.random() < self.loss:
                is_complete &= camera in missing
                continue
            exposed_s = self.trigger_s + offset_s
            stamp_s = exposed_s + self._random.normal() * self.jitter_s
            stamp_s += shift_s(camera, exposed_s - begin_s)
            delay_s = self.arrival_s * self._random.random() + self.transport_s.get(camera, 0.0)
            arrives_s = self._cycle_begins_s + self.pace * offset_s + delay_s
            arrives_s += max(0.0, self.stall_s - arrives_s % 1.0)
            # DDS never reorders the messages of a topic.
            arrives_s = max(arrives_s, self._last_arrival_s[camera] + 1e-6)
            self._last_arrival_s[camera] = arrives_s
            message = image(START_NS + round(stamp_s * 1e9), self.cycle)
            self._pending.append((arrives_s, camera, message))
        if is_complete:
            self.possible.append(self.cycle)

    def _deliver_until(self, until_s: float) -> None:
        self._pending.sort(key=lambda one: one[:2])
        while self._pending:
            begins_s = max(self._idle_at_s, self._pending[0][0])
            if begins_s >= until_s:
                break
            camera, message = self._next_image(begins_s)
            self._idle_at_s = begins_s + self.service_s
            self._check_until(self._idle_at_s)
            self.now_s = self._served_s[camera] = self._arrived_s[camera] = self._idle_at_s
            self.inputs[camera].signalMessage(message)
        self._check_until(until_s)

    def _next_image(self, now_s: float) -> tuple[int, SimpleNamespace]:
        """Return the camera and the image that the executor processes next.

        This image, and the images that DDS has dropped, are removed from the pending images.
        """
        waiting = [one for one in self._pending if one[0] <= now_s]
        for camera in range(len(self.inputs)):
            for one in [one for one in waiting if one[1] == camera][:-KEPT]:
                waiting.remove(one)
                self._pending.remove(one)
                self.possible = [cycle for cycle in self.possible if cycle != one[2].cycle]
        taken = min(waiting, key=lambda one: (self._served_s[one[1]], one[0]))
        self._pending.remove(taken)
        return taken[1:]

    def _check_until(self, until_s: float) -> None:
        while self._next_check_s <= until_s:
            self.now_s = self._next_check_s
            timeout_s = max(TIMEOUT_S, 3 * self.pace * self.period_s)
            silent = [
                camera
                for camera, arrived_s in enumerate(self._arrived_s)
                if self.now_s - arrived_s > timeout_s
            ]
            self.synchronizer.check(silent, timeout_s)
            self._next_check_s += CHECK_S

    def cycles(self, images: ImageSet) -> set[int]:
        """Return the trigger cycles of the images of a set."""
        return {message.cycle for message in images.messages}

    def mixed(self) -> list[ImageSet]:
        """Return the sets that mix trigger cycles."""
        return [images for images in self.sets if len(self.cycles(images)) > 1]

    def complete(self, since: int = 0) -> float:
        """Return the share of the possible sets that were formed with all cameras. Only trigger
        cycles from ``since`` on count, without the last two cycles.
        """
        formed = {
            min(self.cycles(images))
            for images in self.sets
            if len(images.cameras) == len(self.offsets_s)
        }
        wanted = [cycle for cycle in self.possible if since <= cycle < self.cycle - 2]
        return len(formed & set(wanted)) / len(wanted) if wanted else 1.0
