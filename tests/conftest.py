"""Sets the handling of SIGINT and the ROS domain for all tests."""

import importlib.util
import signal

# A background job of a script starts with SIGINT ignored. Programs that a test starts would
# inherit this, and the test could not interrupt them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Every pytest process, including each worker of xdist, has a ROS domain that no other process of
# this machine uses. The programs that a test starts use the domain of its pytest process. Without
# ROS 2, only core and training can be tested, which need no domain.
if importlib.util.find_spec('rclpy'):
    from bevdepth_ros.launching import isolate

    isolate()
