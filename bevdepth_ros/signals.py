"""How SIGINT and SIGTERM reach a process of this package; imports nothing that takes time, so that
it can come first.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar('Result')
NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Remembers SIGINT and SIGTERM.

    An exception out of a signal handler can strike anywhere, also inside rclpy's C code, which
    does not survive it. So a signal is only noted, and raises KeyboardInterrupt nowhere but in the
    waits and computations marked ``interruptible``.
    """

    def __init__(self):
        self.came = False
        self._may_raise = False

    def note(self) -> None:
        """Note signals from now on."""
        for number in NUMBERS:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Ignore signals from now on, for a process that ends by itself: Python would die of a
        second one while it leaves.
        """
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame) -> None:
        self.came = True
        if self._may_raise:
            raise KeyboardInterrupt

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Let signals raise in the body."""
        before, self._may_raise = self._may_raise, True
        try:
            if self.came:
                raise KeyboardInterrupt
            yield
        finally:
            self._may_raise = before


signals = Signals()
interruptible = signals.raising
"""Context in which SIGINT and SIGTERM raise KeyboardInterrupt; for what may take long and is no
call into rclpy."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process without a word on SIGINT or SIGTERM in the body, which must hold nothing
    yet; later ones are noted.
    """
    for number in NUMBERS:
        signal.signal(number, lambda *_: os._exit(0))
    yield
    signals.note()


def wait_for(work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns or raises; SIGINT and SIGTERM raise KeyboardInterrupt
    meanwhile.

    Args:
        work: runs in a thread of its own, since a signal cannot interrupt a call into C, such as
            the start of CUDA. After an interrupt it is left behind, for a process that is about to
            end.
    """
    outcome: list = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name='loading', daemon=True)
    with interruptible():
        thread.start()
        thread.join()
    result, error = outcome.pop()
    if error is not None:
        raise error
    return result
