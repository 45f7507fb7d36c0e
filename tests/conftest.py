"""Signals and ROS domains of all tests."""

import signal

from bevdepth_ros.launching import isolate

# A background job of a script starts with SIGINT ignored. Programs that a test starts would
# inherit this, and the test could not interrupt them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Every pytest process, including each worker of xdist, has a ROS domain that no other process of
# this machine uses. The programs that its tests start use the same domain.
isolate()
