"""Keeps Ctrl-C from interrupting a launch in the middle of an event."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from launch import LaunchContext


def leave_sigint_to_launch(context: LaunchContext) -> None:
    """Make SIGINT raise no KeyboardInterrupt while the launch of ``context`` runs.

    Launch reads signals from a file descriptor in its event loop and then shuts down. But Python
    also raises KeyboardInterrupt at any place in the main thread. If that place is the start of a
    process or the handling of the shutdown, the rest of it is left out: the process is not ended,
    or the thread of the ROS node of launch is not, and the launch runs forever. A shell, and
    ``timeout``, often send SIGINT twice.

    After the launch, SIGINT has its previous effect. A launch in another thread than the main one
    receives no signals and needs nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        if context.asyncio_loop is None and callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGINT, handle)
