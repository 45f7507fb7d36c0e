"""Sorts the messages of a file by time with limited memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bevdepth_ros.bags.compression import MAX_CONTENT_BYTES

_MAX_WAITING_BYTES = MAX_CONTENT_BYTES
"""If more bytes of messages wait for sorting, the earliest messages are released, even if a later
part contains an earlier message."""


class StampedMessage(NamedTuple):
    """A message of a file. Messages of the same time are sorted by ``number``, which rises in the
    order of the file.
    """

    stamp_ns: int
    number: int
    channel: int
    data: bytes


class FilePart(NamedTuple):
    """Consecutive messages of a file. These messages and the messages of later parts are not
    earlier than ``start_ns``.
    """

    start_ns: int
    messages: list[StampedMessage]


def in_order(parts: Iterable[FilePart]) -> Iterator[StampedMessage]:
    """Yield the messages of ``parts`` in order of time. The memory contains at most one part, and
    ``_MAX_WAITING_BYTES`` of messages that wait for sorting.
    """
    waiting: list[StampedMessage] = []
    waiting_bytes = 0
    for part in parts:
        for message in part.messages:
            heapq.heappush(waiting, message)
            waiting_bytes += len(message.data)
        while waiting and (
            waiting[0].stamp_ns < part.start_ns or waiting_bytes > _MAX_WAITING_BYTES
        ):
            message = heapq.heappop(waiting)
            waiting_bytes -= len(message.data)
            yield message
    while waiting:
        yield heapq.heappop(waiting)
