"""How the processes of the visualizer and of the view in the browser begin and end."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from bevdepth_ros.process import ros_process, spin_until_signal


def run(make_node: Callable[[], Node], name: str) -> None:
    """Run a node until a signal and end the process; parameters that do not do end it with a sentence."""
    with ros_process():
        _run(make_node, name)
    gc.collect()  # with the last reference to the node, others see it leave at once
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a usual exit takes seconds on a busy machine, to unload what is loaded


def _run(make_node: Callable[[], Node], name: str) -> None:
    try:
        node = make_node()
    except (ValueError, OSError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        sys.exit(f'{name} does not start: {error}')
    try:
        spin_until_signal(node)
    finally:
        node.destroy_node()
