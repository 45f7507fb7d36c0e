"""The program ``detector``: ``ros2 run bevdepth_ros detector``."""

from __future__ import annotations

from bevdepth_ros.signals import exit_on_signal


def main() -> None:
    """Run the node until it is interrupted. This function ends the process and does not return."""
    # Importing torch takes seconds. Without ``exit_on_signal``, an interrupt during the import
    # would print a traceback.
    with exit_on_signal():
        from bevdepth_ros.detector.node import run_detector
    run_detector()


if __name__ == '__main__':
    main()
