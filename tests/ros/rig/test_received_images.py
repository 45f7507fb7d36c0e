"""Tests that images read from serialized messages equal the images that rclpy deserializes."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bevdepth_ros.rig.compressed_images import is_color_jpeg
from bevdepth_ros.rig.conversions import image_from_message
from bevdepth_ros.rig.raw_images import ENCODINGS
from bevdepth_ros.rig.received_images import received_image
from tests.ros.messages import compressed, encoded
from tests.ros.rig.image_messages import LIMIT, noise, raw, smooth

FRAMES = ('', 'a', 'cam', 'left', 'CAM_FRONT', 'kamera/öl')
STAMPS = (Time(), Time(sec=-1, nanosec=999_999_999), Time(sec=1_700_000_000, nanosec=5))


def require_equal(message: CompressedImage | Image) -> None:
    """Assert that ``received_image`` reads the same fields from ``message`` as rclpy."""
    data = serialize_message(message)
    found, expected = received_image(data, type(message)), deserialize_message(data, type(message))
    assert isinstance(found, type(message))
    for name in message.get_fields_and_field_types():
        if name != 'data':
            assert getattr(found, name) == getattr(expected, name)
    assert bytes(found.data) == bytes(expected.data)


@pytest.mark.parametrize('frame_id', FRAMES)
@pytest.mark.parametrize('stamp', STAMPS)
def test_a_compressed_image_has_the_fields_that_rclpy_deserializes(frame_id: str, stamp: Time):
    header = Header(stamp=stamp, frame_id=frame_id)
    for image_format in ('', 'png', 'jpeg', 'rgb8; jpeg compressed bgr8'):
        for size in range(6):
            message = compressed(bytes(range(size)), image_format)
            message.header = header
            require_equal(message)


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('frame_id', FRAMES)
def test_a_raw_image_has_the_fields_that_rclpy_deserializes(frame_id: str, encoding: str):
    header = Header(stamp=STAMPS[2], frame_id=frame_id)
    for bigendian in (False, True):
        fields = {'encoding': encoding, 'is_bigendian': bigendian, 'data': b'12345'}
        require_equal(Image(header=header, height=3, width=2**32 - 1, step=7, **fields))


def test_the_data_of_an_image_is_a_view_of_the_received_bytes():
    for message in (compressed(b'123'), raw('rgb8', noise(), 40)):
        data = serialize_message(message)
        assert received_image(data, type(message)).data.obj is data


def test_a_received_image_has_the_pixels_of_the_message_that_was_serialized():
    jpeg = encoded(smooth(), 'JPEG')
    messages = [compressed(jpeg), compressed(encoded(smooth(), 'PNG'), 'png')]
    messages += [raw(encoding, noise(), 40) for encoding in ('rgb8', 'bgr8')]
    for message in messages:
        received = received_image(serialize_message(message), type(message))
        expected = image_from_message(message, LIMIT)
        assert np.array_equal(image_from_message(received, LIMIT), expected)
    assert is_color_jpeg(received_image(serialize_message(messages[0]), CompressedImage), LIMIT)


@pytest.mark.parametrize('data', [b'', b'no JPEG', b'\xff\xd8'])
def test_is_color_jpeg_is_false_for_data_that_is_not_a_jpeg(data: bytes):
    received = received_image(serialize_message(compressed(data)), CompressedImage)
    assert not is_color_jpeg(received, LIMIT)


@pytest.mark.parametrize('message', [compressed(b'1234'), raw('rgb8', noise(), 40)])
def test_a_truncated_message_is_rejected(message: CompressedImage | Image):
    data = serialize_message(message)
    end = data.rindex(bytes(message.data)) + len(message.data)
    for length in (2, 3, 9, 13, 15, 20, 21, 25, 28, end - 1):
        with pytest.raises(ValueError, match='ends too early'):
            received_image(data[:length], type(message))


def test_big_endian_data_is_deserialized_by_rclpy():
    message = compressed(b'1234')
    data = serialize_message(message)
    swapped = bytearray(b'\x00\x00' + data[2:])
    for begin in range(4, 16, 4):  # seconds and nanoseconds of the stamp, length of frame_id
        swapped[begin : begin + 4] = swapped[begin : begin + 4][::-1]
    swapped[20:24], swapped[32:36] = swapped[23:19:-1], swapped[35:31:-1]
    assert received_image(bytes(swapped), CompressedImage) == message
