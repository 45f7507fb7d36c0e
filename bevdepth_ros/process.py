"""What every process of this package does first and last, and how a signal ends it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

SPIN_S = 0.2
"""Longest time after which a spinning process notices a signal."""


class _Signals:
    """Remembers SIGINT and SIGTERM.

    An exception out of a signal handler can strike anywhere, also inside rclpy's C code, which does not survive it. So a
    signal is only noted, and raises KeyboardInterrupt nowhere but in the waits and computations marked ``interruptible``.
    """

    def __init__(self):
        self.came = False
        self._may_raise = False

    def handle(self, number: int, frame) -> None:
        """Note a signal, and raise where that is allowed."""
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


_signals = _Signals()
interruptible = _signals.raising
"""Context in which SIGINT and SIGTERM raise KeyboardInterrupt; for what may take long and is no call into rclpy."""


@contextmanager
def ros_process() -> Iterator[None]:
    """Initialise rclpy and shut it down; SIGINT and SIGTERM end the body in order."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _signals.handle)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        rclpy.shutdown()


def spin_until_signal(node: Node) -> None:
    """Execute the callbacks of ``node`` until SIGINT or SIGTERM."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not _signals.came:
            executor.spin_once(timeout_sec=SPIN_S)
    finally:
        executor.shutdown()


def sleep_until(due: float) -> None:
    """Sleep until time.monotonic() is ``due``; SIGINT and SIGTERM raise KeyboardInterrupt."""
    with interruptible():
        time.sleep(max(0.0, due - time.monotonic()))
