"""A hand-over from one thread to another that never grows and never waits."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

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
