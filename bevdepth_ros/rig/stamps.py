"""Header stamps as integers."""

from __future__ import annotations

from typing import Any


def stamp_ns(message: Any) -> int:
    """Return the header stamp of ``message`` in nanoseconds."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
