"""Replacements for the message classes of Autoware, made from copies of their definitions.

The copies contain the fields, types and constants of ``autoware_perception_msgs`` 1.0. Fields
whose types come from other packages contain real messages of ROS. A wrong field name or type
raises an error, as with real messages. Elements of lists and ranges of numbers are not checked.
"""

from __future__ import annotations

import dataclasses
import importlib
from types import SimpleNamespace
from typing import Any, ClassVar

from rosbags.typesys import get_types_from_msg

PACKAGE = 'autoware_perception_msgs'
KINEMATICS = """
uint8 UNAVAILABLE=0
uint8 SIGN_UNKNOWN=1
uint8 AVAILABLE=2
geometry_msgs/PoseWithCovariance pose_with_covariance
geometry_msgs/TwistWithCovariance twist_with_covariance
uint8 orientation_availability
"""
OBJECT = 'float32 existence_probability\nObjectClassification[] classification\nShape shape\n'
DEFINITIONS = {
    'ObjectClassification': """
        uint8 UNKNOWN=0
        uint8 CAR=1
        uint8 TRUCK=2
        uint8 BUS=3
        uint8 TRAILER=4
        uint8 MOTORCYCLE=5
        uint8 BICYCLE=6
        uint8 PEDESTRIAN=7
        uint8 label
        float32 probability
    """,
    'Shape': """
        uint8 BOUNDING_BOX=0
        uint8 CYLINDER=1
        uint8 POLYGON=2
        uint8 type
        geometry_msgs/Polygon footprint
        geometry_msgs/Vector3 dimensions
    """,
    'DetectedObjectKinematics': KINEMATICS
    + 'bool has_position_covariance\nbool has_twist\nbool has_twist_covariance\n',
    'TrackedObjectKinematics': KINEMATICS
    + 'geometry_msgs/AccelWithCovariance acceleration_with_covariance\nbool is_stationary\n',
    'DetectedObject': OBJECT + 'DetectedObjectKinematics kinematics\n',
    'TrackedObject': OBJECT
    + 'TrackedObjectKinematics kinematics\nunique_identifier_msgs/UUID object_id\n',
    'DetectedObjects': 'std_msgs/Header header\nDetectedObject[] objects\n',
    'TrackedObjects': 'std_msgs/Header header\nTrackedObject[] objects\n',
}
PRIMITIVE_TYPES = {'uint8': int, 'float32': float, 'bool': bool}


class Message:
    """A message whose fields accept only values of their types; list elements are not checked."""

    TYPES: ClassVar[dict[str, type]] = {}

    def __setattr__(self, name: str, value: object) -> None:
        if type(value) is not self.TYPES[name]:
            raise TypeError(f'{name} must be {self.TYPES[name]}, got {value!r}')
        super().__setattr__(name, value)


def message_module() -> Any:
    """Return the classes as attributes of an object that replaces
    ``autoware_perception_msgs.msg``."""
    classes: dict[str, type] = {}
    for name, text in DEFINITIONS.items():
        lines = '\n'.join(line.strip() for line in text.splitlines())
        full = f'{PACKAGE}/msg/{name}'
        constants, fields = get_types_from_msg(lines, full)[full]
        types = {field: _type(definition, classes) for field, definition in fields}
        columns = [
            (field, kind, dataclasses.field(default_factory=kind)) for field, kind in types.items()
        ]
        values = {constant: value for constant, _, value in constants}
        classes[name] = dataclasses.make_dataclass(
            name, columns, bases=(Message,), namespace={**values, 'TYPES': types}, kw_only=True
        )
    return SimpleNamespace(**classes)


def _type(definition: tuple, classes: dict[str, type]) -> type:
    # rosbags gives (BASE, (type, length limit)), (NAME, type), or (SEQUENCE, (definition, limit)).
    kind, content = definition
    if kind.name == 'SEQUENCE':
        return list
    name = content if isinstance(content, str) else content[0]
    if name in PRIMITIVE_TYPES:
        return PRIMITIVE_TYPES[name]
    package, _, last = name.split('/')
    if package == PACKAGE:
        return classes[last]
    return getattr(importlib.import_module(f'{package}.msg'), last)
