"""The programs that a launch starts in addition to the detector.

The imports of these programs take seconds. Ctrl-C during the imports ends the process without a
traceback.
"""

from __future__ import annotations

from importlib import import_module

from bevdepth_ros.signals import exit_on_signal


def player() -> None:
    """Replay bags."""
    _run('bevdepth_ros.bags.player')


def recorder() -> None:
    """Record the outputs of the detector."""
    _run('bevdepth_ros.bags.recorder')


def visualizer() -> None:
    """Publish rendered images."""
    _run('bevdepth_ros.rendering.visualizer')


def viewer() -> None:
    """Serve the live view."""
    _run('bevdepth_ros.viewer.node')


def _run(module: str) -> None:
    with exit_on_signal():
        program = import_module(module)
    program.main()
