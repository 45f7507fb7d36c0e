"""Puts messages of a file in order of time, with a bounded amount of them in memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bevdepth_ros.bags.compression import LARGEST_CONTENT

_MOST_WAITING_BYTES = LARGEST_CONTENT
"""Messages that are kept in memory to put them in order of time."""


class StampedMessage(NamedTuple):
    """A message; the number keeps messages of the same time in the order of the file."""

    stamp_ns: int
    number: int
    channel: int
    data: bytes


class FilePart(NamedTuple):
    """Messages that follow each other in the file; no later part holds earlier messages."""

    start_ns: int
    messages: list[StampedMessage]


def in_order(parts: Iterable[FilePart]) -> Iterator[StampedMessage]:
    """Yield messages in order of time, keeping a bounded amount of them in memory."""
    waiting: list[StampedMessage] = []
    waiting_bytes = 0
    for part in parts:
        for message in part.messages:
            heapq.heappush(waiting, message)
            waiting_bytes += len(message.data)
        while waiting and (
            waiting[0].stamp_ns < part.start_ns or waiting_bytes > _MOST_WAITING_BYTES
        ):
            message = heapq.heappop(waiting)
            waiting_bytes -= len(message.data)
            yield message
    while waiting:
        yield heapq.heappop(waiting)
