"""Helpers for tests of the diagnostics of the node."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus

from bevdepth_ros.detector.diagnostics import Monitor


class Log:
    """A logger that stores its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def error(self, line: str) -> None:
        self.lines.append(('error', line))

    def warning(self, line: str) -> None:
        self.lines.append(('warning', line))

    def info(self, line: str) -> None:
        self.lines.append(('info', line))


def statuses(monitor: Monitor) -> dict[str, DiagnosticStatus]:
    """Return the statuses by name."""
    return {status.name: status for status in monitor.statuses('/node', 10**9)}


def values(monitor: Monitor, area: str) -> dict[str, str]:
    """Return the values of one area by key."""
    return {value.key: value.value for value in statuses(monitor)[f'/node: {area}'].values}
