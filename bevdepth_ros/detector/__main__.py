"""The program ``detector``: ``ros2 run bevdepth_ros detector``."""

from __future__ import annotations

from bevdepth_ros.signals import exit_on_signal


def main() -> None:
    """Run the node until it is interrupted; does not return."""
    with (
        exit_on_signal()
    ):  # importing torch takes seconds, in which an interrupt would print a traceback
        from bevdepth_ros.detector.node import run_detector
    run_detector()


if __name__ == '__main__':
    main()
