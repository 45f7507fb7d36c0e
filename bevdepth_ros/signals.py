"""Handles SIGINT and SIGTERM. This module imports no slow module, so that a program can handle
signals before it imports slow modules.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TypeVar

Result = TypeVar('Result')
PR_SET_PDEATHSIG = 1
"""Operation of prctl(2) that selects the signal that this process receives when its parent
ends."""
NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Records SIGINT and SIGTERM.

    A signal handler that raises an exception can interrupt any code, including rclpy's C code,
    which then crashes. The handler therefore records the signal, and raises KeyboardInterrupt only
    inside ``with interruptible()``.

    Attributes:
        received: True after a signal.
        on_signal: called by the handler; must not raise an exception.
    """

    def __init__(self) -> None:
        self.received = False
        self.on_signal: Callable[[], None] | None = None
        self._may_raise = self._is_ignored = False

    def note(self) -> None:
        """Record signals from now on, so that they no longer end the process."""
        self._is_ignored = False
        for number in NUMBERS:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Ignore signals from now on, also inside ``with interruptible()``. Otherwise, a second
        signal would crash Python during the exit.
        """
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        self._is_ignored = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if self.on_signal is not None:
            self.on_signal()
        if self._may_raise:
            raise KeyboardInterrupt

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise KeyboardInterrupt if a signal arrives in the body or has arrived before the
        body.
        """
        before, self._may_raise = self._may_raise, True
        try:
            if self.received and not self._is_ignored:
                raise KeyboardInterrupt
            yield
        finally:
            self._may_raise = before


signals = Signals()
interruptible = signals.raising
"""Context in which SIGINT and SIGTERM raise KeyboardInterrupt. Use it for long waits and
computations, but not around calls into rclpy."""


def end_with_ros2_run() -> None:
    """If the parent process is ``ros2 run``, let the kernel send SIGTERM to this process when the
    parent ends. This is necessary because ``ros2 run`` ends on SIGTERM without passing the signal
    on. The function has an effect only on Linux.
    """
    parent = os.getppid()
    try:
        words = Path(f'/proc/{parent}/cmdline').read_bytes().split(b'\0')
    except OSError:  # not Linux, or the parent has ended
        return
    if (b'ros2', b'run') in pairwise(os.path.basename(word) for word in words):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Exit without a message if SIGINT or SIGTERM arrives in the body. After the body, record
    signals.

    ``end_with_ros2_run`` is called, too.

    The body must not hold resources that need to be released.
    """
    for number in NUMBERS:
        signal.signal(number, lambda *_: os._exit(0))
    end_with_ros2_run()
    yield
    signals.note()


def wait_for(work: Callable[[], Result]) -> Result:
    """Run ``work`` in a thread and return its result or raise its exception.

    SIGINT and SIGTERM raise KeyboardInterrupt immediately, also while ``work`` is in a C function
    that a signal cannot interrupt, such as the initialization of CUDA. The thread then continues
    in the background; the process is expected to exit soon.
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
