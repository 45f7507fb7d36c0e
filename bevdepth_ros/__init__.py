"""BEVDepth as ROS 2 nodes and tools."""

import os
import sys
from importlib.util import find_spec

# OpenMP reads this variable when torch is imported. With PASSIVE, threads sleep while they wait
# for each other. By default, they wait in a busy loop, which slows all threads down if another
# process uses the CPU.
if 'torch' not in sys.modules:
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

for _name in ('rclpy', 'cv2', 'torch'):
    if find_spec(_name) is None:
        _message = (
            f"bevdepth_ros needs {_name}, which this shell does not provide: run '. ./env.sh' "
            "('source env.fish' in fish) in the folder of the project, after 'make setup' there; "
            'or activate the Python environment, and source the ROS 2 for which it was installed'
        )
        if sys.argv[:1] == ['-m']:  # `python -m` is importing the package of the program
            sys.exit(_message)
        raise ModuleNotFoundError(_message, name=_name)
