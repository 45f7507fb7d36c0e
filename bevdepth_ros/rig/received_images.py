"""Creates image messages from the bytes of a raw subscription, without copying the image.

rclpy needs 0.1 ms to create the objects of a CompressedImage, and copies its data three times. The
layout is CDR (see ``detections.serialized``).
"""

from __future__ import annotations

import struct
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

LITTLE_ENDIAN = b'\x00\x01'
"""First bytes of little-endian CDR data; rclpy deserializes all other data."""
_STAMP = struct.Struct('<iI')
_LENGTH = struct.Struct('<I')
_SIZE = struct.Struct('<II')


class ReceivedCompressedImage(CompressedImage):
    """A CompressedImage whose data is a view of the received bytes."""

    header = format = data = None  # attributes instead of the properties of rclpy

    def __init__(self, reader: _Reader) -> None:
        self.header, self.format, self.data = reader.header(), reader.text(), reader.data()


class ReceivedImage(Image):
    """An Image whose data is a view of the received bytes."""

    header = height = width = encoding = is_bigendian = step = data = None

    def __init__(self, reader: _Reader) -> None:
        self.header = reader.header()
        self.height, self.width = reader.numbers(_SIZE)
        self.encoding, self.is_bigendian = reader.text(), reader.byte()
        [self.step] = reader.numbers(_LENGTH)
        self.data = reader.data()


_RECEIVED = {CompressedImage: ReceivedCompressedImage, Image: ReceivedImage}


def received_image(data: bytes, message_type: type) -> CompressedImage | Image:
    """Return the message of these bytes.

    Args:
        data: a serialized message.
        message_type: CompressedImage or Image.

    Raises:
        ValueError: the bytes end too early.
    """
    if data[:2] != LITTLE_ENDIAN:
        return deserialize_message(data, message_type)
    try:
        return _RECEIVED[message_type](_Reader(data))
    except struct.error as error:
        raise ValueError(f'the message ends too early: {error}') from error


class _Reader:
    """Reads CDR values one after the other."""

    def __init__(self, data: bytes) -> None:
        self._bytes = memoryview(data)[4:]  # alignment counts from the end of the header
        self._at = 0

    def header(self) -> Header:
        seconds, nanoseconds = self.numbers(_STAMP)
        return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=self.text())

    def numbers(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the next numbers, each of 4 bytes."""
        begin = self._at + -self._at % 4
        self._at = begin + layout.size
        return layout.unpack_from(self._bytes, begin)

    def byte(self) -> int:
        self._at += 1
        return self.data_at(self._at - 1, 1)[0]

    def text(self) -> str:
        """Return a string without the zero byte that ends it in CDR."""
        return bytes(self.data()).partition(b'\0')[0].decode(errors='replace')

    def data(self) -> memoryview:
        [length] = self.numbers(_LENGTH)
        begin = self._at
        self._at += length
        return self.data_at(begin, length)

    def data_at(self, begin: int, length: int) -> memoryview:
        data = self._bytes[begin : begin + length]
        if len(data) < length:
            raise ValueError(f'the message ends too early: {len(data)} of {length} bytes')
        return data
