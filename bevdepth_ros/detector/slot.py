"""Passes the newest item from one thread to another. ``put`` does not wait; ``take`` waits for an
item.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from bevdepth_ros.signals import interruptible

Item = TypeVar('Item')
STOP_TIMEOUT_S = 6.0
"""Longest wait until the item in progress is processed, seconds. A full-size network takes several
seconds on two CPU cores."""


class LatestSlot(Generic[Item]):
    """Passes items from one thread to another. It stores only the newest item."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: Item | None = None
        self._closed = False

    def put(self, item: Item) -> bool:
        """Store ``item``; return True if it replaced an item that was not taken."""
        with self._condition:
            replaced = self._item is not None
            self._item = item
            self._condition.notify()
        return replaced

    def take(self) -> Item | None:
        """Wait for an item and return it; return None when the slot is closed and empty."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = self._item, None
            return item

    def close(self, discard: bool = False) -> None:
        """Close the slot. A stored item can still be taken, unless ``discard`` is True."""
        with self._condition:
            self._closed = True
            if discard:
                self._item = None
            self._condition.notify_all()


class SlotThread(Generic[Item]):
    """A thread that processes the items of its own ``LatestSlot``."""

    def __init__(self, name: str, work: Callable[[Iterator[Item]], None]) -> None:
        """Start the thread.

        Args:
            name: name of the thread.
            work: function that processes all items. It receives an iterator of the items, which
                ends when ``stop`` is called.
        """
        self._slot: LatestSlot[Item] = LatestSlot()
        self._thread = threading.Thread(
            target=work, args=(iter(self._slot.take, None),), name=name, daemon=True
        )
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Pass an item to the thread; return True if it replaced an item that was still waiting.

        ``time.sleep(0)`` releases the GIL, so the thread begins within 0.05 ms. Otherwise the
        thread would wait until the calling thread blocks or the switch interval of the interpreter
        ends, which took 0.25 ms.
        """
        replaced = self._slot.put(item)
        time.sleep(0)
        return replaced

    def stop(self, discard: bool, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the thread. A thread that does not end in time continues in the background.

        Args:
            discard: if True, the item that is still waiting is dropped.
            timeout_s: longest wait for the end of the thread, seconds; a signal ends the wait.
        """
        self._slot.close(discard)
        with interruptible():
            self._thread.join(timeout_s)

    def is_alive(self) -> bool:
        """Return True if the thread has not ended. After ``stop``, this means that the thread
        still processes an item.
        """
        return self._thread.is_alive()
