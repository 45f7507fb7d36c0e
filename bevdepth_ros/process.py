"""What every process of this package does first and last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from bevdepth_ros.signals import interruptible, signals

SPIN_S = 0.2
"""Longest time after which a spinning process notices a signal."""


@contextmanager
def ros_process() -> Iterator[None]:
    """Initialise rclpy and shut it down; SIGINT and SIGTERM end the body in order."""
    signals.note()
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
        while not signals.came:
            executor.spin_once(timeout_sec=SPIN_S)
    finally:
        executor.shutdown()


def sleep_until(due: float) -> None:
    """Sleep until time.monotonic() is ``due``; SIGINT and SIGTERM raise KeyboardInterrupt."""
    with interruptible():
        time.sleep(max(0.0, due - time.monotonic()))
