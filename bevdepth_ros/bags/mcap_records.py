"""Reads the records of MCAP files, with a size limit. A record consists of kind, length and
content.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import SEEK_CUR, BytesIO
from typing import BinaryIO
from zlib import crc32

from bevdepth_ros.bags.compression import MAX_CONTENT_BYTES, unpacked

MAGIC = b'\x89MCAP0\r\n'
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, CHUNK_INDEX, STATISTICS = 2, 3, 4, 5, 6, 8, 11
RECORD_HEAD = struct.Struct('<BQ')
CHUNK_HEAD = struct.Struct('<QQQI')
"""Fields of a chunk: time of the first and last message in ns, decompressed size, checksum or
0."""


def records(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each record that precedes the first invalid record.

    The last chunk may be truncated. Records of more than ``MAX_CONTENT_BYTES`` are skipped,
    because no recorder writes such records.
    """
    while len(head := stream.read(RECORD_HEAD.size)) == RECORD_HEAD.size:
        kind, length = RECORD_HEAD.unpack(head)
        left = size - stream.tell()
        if kind == 0 or (length > left and kind != CHUNK):
            stream.seek(-RECORD_HEAD.size, SEEK_CUR)
            return
        if length > MAX_CONTENT_BYTES:
            stream.seek(min(length, left), SEEK_CUR)
        else:
            yield kind, stream.read(min(length, left))


def chunk_content(chunk: bytes, size: int, checksum: int) -> bytes:
    """Return the records in a chunk.

    Raises:
        ValueError: the records are damaged or too large, or their compression is unknown.
    """
    fields = BytesIO(chunk)
    fields.seek(CHUNK_HEAD.size)
    compression = read_text(fields)
    read_number(fields, 8)
    content = fields.read()
    if size > MAX_CONTENT_BYTES:
        raise ValueError(f'it contains {size} bytes, more than any recorder writes')
    if compression:
        content = unpacked(content, compression, size)
    if checksum and len(content) == size and crc32(content) != checksum:
        raise ValueError('its checksum is wrong')
    return content


def read_number(fields: BinaryIO, size: int) -> int:
    """Read a little-endian unsigned integer of ``size`` bytes."""
    return int.from_bytes(fields.read(size), 'little')


def read_text(fields: BinaryIO) -> str:
    """Read a text that is preceded by its length in bytes, an integer of 4 bytes."""
    return fields.read(read_number(fields, 4)).decode()


def offered_profiles(fields: BinaryIO) -> str:
    """Return the recorded quality of service as text, from the metadata of a channel. Return an
    empty text if the metadata contain no quality of service.
    """
    metadata = BytesIO(fields.read(read_number(fields, 4)))
    while key := read_text(metadata):
        value = read_text(metadata)
        if key == 'offered_qos_profiles':
            return value
    return ''
