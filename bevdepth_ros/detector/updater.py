"""Publishes /diagnostics with diagnostic_updater, or with ``MinimalUpdater`` if diagnostic_updater
is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

try:
    import diagnostic_updater
except ImportError:  # the pip-only Humble does not contain this package
    diagnostic_updater = None

PERIOD = 'diagnostic_updater.period'
Fill = Callable[[DiagnosticStatus], DiagnosticStatus]
"""Fills in level, message and values of a status and returns it."""


class MinimalUpdater:
    """Publishes the same messages as ``diagnostic_updater.Updater``, but only when
    ``force_update`` is called.
    """

    def __init__(self, node: Node) -> None:
        self._node, self.node_name, self._hardware_id = node, node.get_name(), ''
        self._tasks: list[tuple[str, Fill]] = []
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 1)

    def setHardwareID(self, hardware_id: str) -> None:  # noqa: N802 (name of diagnostic_updater)
        self._hardware_id = hardware_id

    def add(self, name: str, fill: Fill) -> None:
        self._tasks.append((name, fill))

    def force_update(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for name, fill in self._tasks:
            status = DiagnosticStatus(
                name=f'{self.node_name}: {name}', hardware_id=self._hardware_id
            )
            message.status.append(fill(status))
        self._publisher.publish(message)


def make_updater(node: Node) -> Any:
    """Return an updater of ``node`` that publishes only when ``force_update`` is called.

    The node calls ``force_update`` itself. The timer of the updater would stop with the simulated
    clock, and a changed problem would be published only after the period of this timer. Status
    names begin with the full name of the node, and the hardware id is this name without the first
    slash. diagnostic_aggregator can therefore distinguish several vehicles.
    """
    if diagnostic_updater is None:
        updater: Any = MinimalUpdater(node)
    else:
        if node.has_parameter(PERIOD):
            # The updater declares this parameter, and a second declaration would fail.
            node.undeclare_parameter(PERIOD)
        updater = diagnostic_updater.Updater(node)
        updater.timer.cancel()
    updater.node_name = node.get_fully_qualified_name()
    updater.setHardwareID(node.get_fully_qualified_name().lstrip('/'))
    return updater
