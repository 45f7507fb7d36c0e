"""CameraInfo messages are deserialized only when they change."""

from __future__ import annotations

import struct

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


def test_a_message_that_differs_only_in_its_stamp_is_not_deserialized_again():
    read, data = InfoReader(), serialize_message(stamped(1))
    first = read(data)
    assert first == deserialize_message(data, CameraInfo)
    # Padding bytes may have any value. The test therefore changes only the stamp in the data.
    assert read(data[:4] + struct.pack('<i', 2) + data[8:]) is first


def test_damaged_bytes_are_rejected():
    with pytest.raises(ValueError, match='the bytes of the message are not a CameraInfo'):
        InfoReader()(bytes([0, 1, 0, 0]) + 60 * b'\xff')


@pytest.mark.parametrize(
    'changed',
    [{'d': (0.1,) * 5}, {'size': (1600, 901)}, {'roi': RegionOfInterest(do_rectify=True)}],
)
def test_a_message_that_differs_in_a_field_other_than_its_stamp_is_deserialized(changed: dict):
    read = InfoReader()
    read(serialize_message(stamped(1)))
    assert read(serialize_message(stamped(2, **changed))) == stamped(2, **changed)
