"""Limits the rate of published results by their stamps."""

from __future__ import annotations

MAX_WAIT_PERIODS = 2
"""If a stamp is more than this many periods too early, time went back, as in a bag that starts
again."""


class RateLimit:
    """Selects results by their stamps, so that a slow replay publishes as many as a fast one."""

    def __init__(self) -> None:
        self._due_ns: int | None = None

    def allows(self, stamp_ns: int, max_rate_hz: float) -> bool:
        """Return whether to publish the result with this stamp, and count it if so.

        A late result does not delay the next ones, so the mean rate reaches the limit if enough
        results arrive.

        Args:
            stamp_ns: stamp of the result.
            max_rate_hz: 0 for no limit.
        """
        if not max_rate_hz:
            self._due_ns = None
            return True
        period_ns = round(1e9 / max_rate_hz)
        due_ns = stamp_ns if self._due_ns is None else self._due_ns
        if due_ns - stamp_ns > MAX_WAIT_PERIODS * period_ns:
            due_ns = stamp_ns
        if stamp_ns < due_ns:
            return False
        self._due_ns = max(due_ns, stamp_ns - period_ns) + period_ns
        return True
