"""Prevents Ctrl-C from interrupting a launch while the launch handles an event."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from launch import LaunchContext


def leave_sigint_to_launch(context: LaunchContext) -> None:
    """Prevent SIGINT from raising KeyboardInterrupt while the launch of ``context`` runs.

    Launch reads signals from a file descriptor in its event loop and then shuts down. But Python
    also raises KeyboardInterrupt, at any place in the main thread. While launch starts a process
    or handles the shutdown, this exception skips the remaining statements. Then a process or the
    thread of launch's ROS node is not ended, and the launch runs forever. Shells and the command
    ``timeout`` often send SIGINT twice.

    After the launch, SIGINT has its previous effect. Python handles signals only in the main
    thread, so nothing is changed for a launch in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        if context.asyncio_loop is None and callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGINT, handle)
