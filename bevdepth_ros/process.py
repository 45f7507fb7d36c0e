"""What every process of this package does first and last."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import ExternalShutdownException


@contextmanager
def ros_process() -> Iterator[None]:
    """Initialise rclpy and shut it down; an interrupt (SIGINT or SIGTERM) ends the body at once and quietly.

    rclpy's own handlers end a wait for messages and then call Python's, so that both signals also end a long computation
    in the main thread, such as the loading of a model.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init()
    try:
        yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


def ignore_interrupts() -> None:
    """Let a process on its way out finish; a second interrupt would only leave a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
