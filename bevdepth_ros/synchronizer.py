"""From single images to the newest complete set: message_filters' matching and a latest-only hand-over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from message_filters import ApproximateTimeSynchronizer, SimpleFilter

Item = TypeVar('Item')


@dataclass(frozen=True)
class ImageSet:
    """One image message per camera, taken within the slop.

    Attributes:
        messages: N sensor_msgs/CompressedImage or Image, in the order of the cameras.
        stamps_ns: (N,) int64, header stamps.
        received: time.monotonic() when the last of them was taken, seconds.
    """

    messages: tuple
    stamps_ns: np.ndarray
    received: float

    @property
    def spread_s(self) -> float:
        """Time between the first and the last image, seconds."""
        return float(self.stamps_ns.max() - self.stamps_ns.min()) * 1e-9


def stamp_ns(message) -> int:
    """Return the header stamp of ``message`` in nanoseconds."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class ImageSynchronizer:
    """Matches images by stamp; for one thread.

    message_filters calls back inside a lock that an exception would leave locked for good, and a stamp that goes backwards
    (a bag that loops, a clock that is set) would leave its queues full of images from the future: both are met here.
    """

    def __init__(
        self,
        camera_count: int,
        queue_size: int,
        slop_s: float,
        on_set: Callable[[ImageSet], None],
        on_error: Callable[[Exception], None],
        on_jump_back: Callable[[], None],
    ):
        """Prepare empty queues.

        Args:
            camera_count: N >= 1.
            queue_size: images per camera that wait for their set.
            slop_s: largest time between two images of a set, seconds.
            on_set: receives each complete set.
            on_error: receives what ``on_set`` raises.
            on_jump_back: called when a camera's stamps go backwards, after the queues were emptied.
        """
        self._camera_count, self._queue_size, self._slop_s = camera_count, queue_size, slop_s
        self._on_set, self._on_error, self._on_jump_back = on_set, on_error, on_jump_back
        self.reset()

    def reset(self) -> None:
        """Forget all waiting images."""
        self._inputs = [SimpleFilter() for _ in range(self._camera_count)]
        self._newest_ns = [0] * self._camera_count
        matcher = ApproximateTimeSynchronizer(self._inputs, self._queue_size, self._slop_s)
        matcher.registerCallback(self._complete)

    def add(self, camera: int, message) -> None:
        """Take an image of the camera with index ``camera``; may call back before it returns."""
        stamp = stamp_ns(message)
        if stamp < self._newest_ns[camera]:
            self.reset()
            self._on_jump_back()
        self._newest_ns[camera] = stamp
        self._inputs[camera].signalMessage(message)

    def _complete(self, *messages) -> None:
        try:
            stamps = np.array([stamp_ns(message) for message in messages], np.int64)
            self._on_set(ImageSet(messages, stamps, time.monotonic()))
        except Exception as error:  # an exception here would deadlock message_filters
            self._on_error(error)


class LatestSlot(Generic[Item]):
    """Hands items from one thread to another, keeping only the newest."""

    def __init__(self):
        self._condition = threading.Condition()
        self._item: Item | None = None
        self._closed = False

    def put(self, item: Item) -> bool:
        """Leave ``item``; return whether one that nobody had taken was replaced."""
        with self._condition:
            replaced = self._item is not None
            self._item = item
            self._condition.notify()
        return replaced

    def take(self) -> Item | None:
        """Wait for an item; None when the slot is closed and empty."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = self._item, None
            return item

    def close(self, discard: bool = False) -> None:
        """End the waiting; an item left in the slot can still be taken unless ``discard``."""
        with self._condition:
            self._closed = True
            if discard:
                self._item = None
            self._condition.notify_all()
