"""Decompresses data up to an upper bound, because a small file can expand to a huge size.

rosbag2 compresses whole files (``bag_0.mcap.zstd``), single messages, or chunks of an MCAP file.
Each of these is a zstd or an LZ4 frame. The frame begins with a magic number, which shows the
compression, so the metadata of the bag are not needed. A serialized ROS message begins with a zero
byte and therefore cannot be mistaken for such a frame.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lz4.frame import LZ4FrameDecompressor

from bevdepth_ros.bags.topics import HEAD_BYTES

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor
else:
    from backports.zstd import ZstdDecompressor

MAX_CONTENT_BYTES = 1 << 28
"""Upper bound of an unpacked chunk or message, bytes. Recorders write chunks of about 1 MB."""
_FILE_ALLOWANCE, _FILE_RATIO = 1 << 30, 100
"""A file may decompress to at most ``_FILE_ALLOWANCE`` bytes plus ``_FILE_RATIO`` times its
compressed size."""
_READ_BYTES = 1 << 20
_LAST_CDR_ENCODING = 0x0B
"""Largest encoding identifier that a CDR header may contain (XCDR2 parameter lists); see OMG
DDS-XTypes, section 7.6.2."""


class _Decompressor(Protocol):
    """The interface that the decompressors of zstd and lz4 share."""

    eof: bool

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    'zstd': ZstdDecompressor,
    'lz4': LZ4FrameDecompressor,
}
_MAGICS = {b'\x28\xb5\x2f\xfd': 'zstd', b'\x04\x22\x4d\x18': 'lz4'}


def compression_of(head: bytes) -> str | None:
    """Return the compression of data that begin with ``head``: ``zstd``, ``lz4`` or None."""
    return _MAGICS.get(head[:4])


def unpacked(data: bytes, compression: str, limit: int = MAX_CONTENT_BYTES) -> bytes:
    """Return the content of one frame.

    Raises:
        ValueError: the frame is damaged, its compression is unknown, or its content exceeds
            ``limit`` bytes.
    """
    if compression not in _DECOMPRESSORS:
        raise ValueError(f'its compression {compression!r} is unknown')
    decompressor = _DECOMPRESSORS[compression]()
    try:
        content = decompressor.decompress(data, limit)
    except Exception as error:  # each library has its own exception types
        raise ValueError(f'its {compression} data are damaged: {error}') from error
    if not decompressor.eof:
        raise ValueError(
            f'its {compression} data are truncated or unpack to more than {limit} bytes'
        )
    return content


def serialized_message(data: bytes) -> bytes | None:
    """Return a recorded message in the form in which ROS 2 publishes it, without compression.

    Return None if the message is damaged, has no CDR header, or has no content after the header.
    """
    compression = compression_of(data)
    try:
        message = data if compression is None else unpacked(data, compression)
    except ValueError:
        return None
    if len(message) <= HEAD_BYTES or message[0] != 0 or message[1] > _LAST_CDR_ENCODING:
        return None
    return message


def unpack_file(path: Path, target: Path, compression: str) -> str | None:
    """Decompress a file. Return None if ``target`` contains the complete content; otherwise return
    the reason why the end of the content is missing.

    Raises:
        OSError: a file cannot be read or written.
    """
    limit = left = _FILE_ALLOWANCE + _FILE_RATIO * path.stat().st_size
    decompressor = _DECOMPRESSORS[compression]()
    with path.open('rb') as packed, target.open('wb') as content:
        while not decompressor.eof:
            data = packed.read(_READ_BYTES)
            if not data:
                return f'its {compression} data are truncated'
            try:
                part = decompressor.decompress(data, left + 1)
            except Exception as error:  # each library has its own exception types
                return f'its {compression} data are damaged: {error}'
            if len(part) > left:
                return f'it decompresses to more than {limit} bytes, the limit for its size'
            left -= len(part)
            content.write(part)
    return None
