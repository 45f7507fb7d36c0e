"""A hand-over from one thread to another that never grows and never waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from bevdepth_ros.signals import interruptible

Item = TypeVar('Item')


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


class SlotThread(Generic[Item]):
    """A thread that works off a slot."""

    def __init__(self, name: str, work: Callable[[Iterator[Item]], None]):
        """Start the thread.

        Args:
            name: of the thread.
            work: takes the items as they come; they end when the thread is stopped.
        """
        self._slot: LatestSlot[Item] = LatestSlot()
        self._thread = threading.Thread(
            target=work, args=(iter(self._slot.take, None),), name=name, daemon=True
        )
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Hand over an item; return whether it replaced one that still waited."""
        return self._slot.put(item)

    def stop(self, discard: bool, timeout_s: float | None = None) -> None:
        """End the thread.

        Args:
            discard: leave the item that still waits.
            timeout_s: longest wait for what is being worked on, seconds; None waits for its end or
                a signal.
        """
        self._slot.close(discard)
        if timeout_s is not None:
            self._thread.join(timeout_s)
            return
        with interruptible():
            self._thread.join()
