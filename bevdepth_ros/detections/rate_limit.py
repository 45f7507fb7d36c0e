"""Limits the rate of published results by their stamps."""

from __future__ import annotations

MAX_WAIT_PERIODS = 2
"""If a stamp is more than this many periods before the next due time, ``RateLimit`` assumes that
time went back, for example because a replay started again."""


class RateLimit:
    """Selects the results to publish by their stamps, so that the number of published results does
    not depend on the speed of a replay.
    """

    def __init__(self) -> None:
        self._due_ns: int | None = None

    def allows(self, stamp_ns: int, max_rate_hz: float) -> bool:
        """Return True if the result with this stamp is to be published. In this case, also set the
        time at which the next result is due.

        A late result does not delay the following results. The mean rate therefore reaches the
        limit if enough results arrive.

        Args:
            stamp_ns: stamp of the result, nanoseconds.
            max_rate_hz: largest mean rate; 0 means no limit.
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
