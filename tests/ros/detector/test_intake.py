"""CameraInfo messages are deserialized only when they change."""

from __future__ import annotations

import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from bevdepth_ros.detector.intake import InfoReader
from tests.ros.rig.image_messages import camera_info


def stamped(seconds: int, **fields) -> CameraInfo:
    message = camera_info(**fields)
    message.header.stamp, message.header.frame_id = Time(sec=seconds), 'left'
    return message


def test_a_message_in_which_only_the_stamp_differs_is_the_last_one():
    read = InfoReader()
    first = read(serialize_message(stamped(1)))
    assert first == deserialize_message(serialize_message(stamped(1)), CameraInfo)
    assert read(serialize_message(stamped(2))) is first


@pytest.mark.parametrize(
    'changed',
    [{'d': (0.1,) * 5}, {'size': (1600, 901)}, {'roi': RegionOfInterest(do_rectify=True)}],
)
def test_a_message_that_differs_is_deserialized(changed: dict):
    read = InfoReader()
    read(serialize_message(stamped(1)))
    assert read(serialize_message(stamped(2, **changed))) == stamped(2, **changed)
