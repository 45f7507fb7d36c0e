"""Finds the Python class for the name of a message type in a recording."""

from __future__ import annotations

import re

from ament_index_python.resources import has_resource
from rosidl_runtime_py.utilities import get_message

_NAME = re.compile(r'([a-z][a-z0-9_]*)/(?:msg/)?[A-Za-z][A-Za-z0-9]*')


def message_class(name: str) -> type:
    """Return the class of a message type such as ``sensor_msgs/msg/Image``.

    The name is checked before the import, because the name comes from a recording. A recording
    must only be able to import message packages.

    Raises:
        ValueError: ``name`` is not the name of a message type, or no installed ROS package
            contains this type.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(f'{name!r} is not the name of a message type')
    if not has_resource('rosidl_interfaces', match[1]):
        raise ValueError(f'the message package {match[1]} is not installed')
    try:
        return get_message(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(str(error)) from error
