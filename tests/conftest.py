"""Signals and ROS domains of all tests."""

import signal

from bevdepth_ros.launching import isolate

# A background job of a script starts with SIGINT ignored, and so would everything that a test
# starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Every pytest process, each of xdist's too, and what its tests start have a ROS domain of their
# own on this machine.
isolate()
