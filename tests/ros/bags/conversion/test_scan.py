"""Reads the headers of serialized messages."""

from __future__ import annotations

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from bevdepth_ros.bags.conversion.scan import read_header
from tests.ros.messages import stamped

DATA = serialize_message(stamped(Image(), 'front', 1_700_000_000_000_000_005))


def test_stamp_and_frame_are_read_from_the_header() -> None:
    assert read_header(DATA) == (1_700_000_000_000_000_005, 'front')


@pytest.mark.parametrize('length', [0, 1, 4, 15, 20])
def test_bytes_that_end_within_the_header_are_rejected(length: int) -> None:
    with pytest.raises(ValueError, match=r'has no header|header is damaged'):
        read_header(DATA[:length])
