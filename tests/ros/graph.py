"""Spins the nodes of a test in a thread, records messages, and waits for conditions with a
timeout.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy._rclpy_pybind11 import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

TIMEOUT_S = 240.0
"""Longest wait for an expected event, seconds. It is long, because the machine may be slow."""


class Graph:
    """Spins nodes in a thread."""

    def __init__(self):
        self.executor = SingleThreadedExecutor()
        self.node = self.add(Node('test'))
        self._ended = Future(executor=self.executor)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def add(self, node: Node) -> Node:
        """Add ``node`` to the executor."""
        self.executor.add_node(node)
        return node

    def stop(self) -> None:
        """Stop spinning. Call this method before you destroy nodes."""
        self._ended.set_result(None)
        self._thread.join()
        self.executor.shutdown()

    def close(self) -> None:
        self.stop()
        self.node.destroy_node()

    def collect(self, message_type, topic: str, qos=10) -> list:
        """Return a list to which each message of ``topic`` is appended."""
        messages: list = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def diagnostics(self) -> Diagnostics:
        """Return an object that records /diagnostics from now on."""
        return Diagnostics(self.collect(DiagnosticArray, '/diagnostics', 100))

    def _spin(self) -> None:
        """Spin until ``stop`` is called.

        If a test destroys an entity that the executor waits for, rclpy raises InvalidHandle. The
        loop then continues.
        """
        with suppress(ExternalShutdownException):
            while not self._ended.done():
                with suppress(InvalidHandle):
                    self.executor.spin_until_future_complete(self._ended)


class Diagnostics:
    """Reads the diagnostics of the detector by area."""

    def __init__(self, messages: list):
        self._messages = messages

    def status(self, area: str) -> DiagnosticStatus | None:
        """Return the newest status of ``area``, or None if there is no status yet."""
        statuses = [status for message in self._messages[-1:] for status in message.status]
        return next((status for status in statuses if status.name.endswith(f': {area}')), None)

    def values(self, area: str) -> dict[str, str]:
        """Return the newest values of ``area`` by key; empty if there is no status yet."""
        status = self.status(area)
        return {} if status is None else {value.key: value.value for value in status.values}

    def reports(self, area: str, words: str) -> bool:
        """Return True if the newest status of ``area`` is not OK and contains ``words``."""
        status = self.status(area)
        return (
            status is not None and status.level != DiagnosticStatus.OK and words in status.message
        )

    def was_reported(self, area: str, words: str) -> bool:
        """Return True if any status of ``area`` contained ``words``."""
        statuses = [status for message in list(self._messages) for status in message.status]
        return any(
            words in status.message for status in statuses if status.name.endswith(f': {area}')
        )

    def is_ok(self, area: str) -> bool:
        """Return True if the newest status of ``area`` is OK."""
        status = self.status(area)
        return status is not None and status.level == DiagnosticStatus.OK


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until ``condition`` is true. After the timeout, fail with ``what`` in the message."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f'timeout of {timeout_s:g} s while waiting for: {what}'
        time.sleep(0.02)
