"""Declares parameters and runs the process of the visualizer and the viewer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from bevdepth_ros.process import end_process, ros_process, spin_until_signal, start_problem


def declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Declare a parameter that cannot change after the start of the node, and return its value.

    Args:
        node: node that the parameter belongs to.
        name: name of the parameter.
        default: default value, which also defines the type.
        description: text for users.
        low: smallest allowed value of a number; None if there are no limits.
        high: largest allowed value of a number.

    Raises:
        InvalidParameterTypeException: the type of the given value is not the type of the default.
        InvalidParameterValueException: the given value is out of range.
    """
    described = ParameterDescriptor(description=description, read_only=True)
    if low is not None and isinstance(default, int):
        described.integer_range.append(IntegerRange(from_value=low, to_value=high))
    elif low is not None:
        described.floating_point_range.append(FloatingPointRange(from_value=low, to_value=high))
    return node.declare_parameter(name, default, described).value


def run(make_node: Callable[[], Node], name: str) -> NoReturn:
    """Run a node until SIGINT or SIGTERM, then end the process. If a parameter is invalid, exit
    with a message.
    """
    with ros_process():
        _run(make_node, name)
    end_process()


def _run(make_node: Callable[[], Node], name: str) -> None:
    try:
        node = make_node()
    except (
        ValueError,
        OSError,
        InvalidParameterTypeException,
        InvalidParameterValueException,
    ) as error:
        sys.exit(f'{name} does not start: {start_problem(error)}')
    try:
        spin_until_signal(node)
    finally:
        node.destroy_node()
