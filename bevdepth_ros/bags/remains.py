"""What is whole of a damaged storage file: records one after the other, up to or around the
damage.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote
from zlib import crc32

import apsw
from lz4.frame import LZ4FrameDecompressor
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos

from bevdepth_ros.bags.topics import Message, Topic

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC = b'\x89MCAP0\r\n'
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 3, 4, 5, 6
"""Kinds of records of the MCAP format, https://mcap.dev/spec."""
_WHOLE_PAGES = 'whole_pages'
_MESSAGE_HEAD = struct.Struct('<HIQQ')
_CHUNK_HEAD = struct.Struct('<QQQI')
_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    '': bytes,
    'zstd': lambda packed: zstd.ZstdDecompressor().decompress(packed, MAX_CHUNK_BYTES),
    'lz4': lambda packed: LZ4FrameDecompressor().decompress(packed, MAX_CHUNK_BYTES),
}
MAX_CHUNK_BYTES = 1 << 30
"""More of a compressed chunk is not unpacked: recorders make chunks of a few megabytes, only bombs
are larger."""


class McapRemains:
    """An MCAP file without regard to its index, which is at its end and the first to be lost.

    Attributes:
        path: of the file.
        topics: with the messages that are whole; whatever the encoding of its messages is.
        start_ns, end_ns: time of the first and of the last of them.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, Topic] = {}
        counts: dict[int, int] = {}
        stamps = []
        for channel, stamp_ns, _ in self._scan():
            counts[channel] = counts.get(channel, 0) + 1
            stamps.append(stamp_ns)
        self.topics = [self._channels[channel].counted(count) for channel, count in counts.items()]
        self.start_ns, self.end_ns = min(stamps, default=0), max(stamps, default=0)

    def close(self) -> None:
        """Nothing stays open."""

    def messages(self, names: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yield (topic, stamp in ns, bytes) from ``start_ns`` to before ``stop_ns``, in order of
        time within a chunk.
        """
        wanted = {
            channel: topic.name for channel, topic in self._channels.items() if topic.name in names
        }
        for channel, stamp_ns, data in self._scan():
            if channel in wanted and start_ns <= stamp_ns < stop_ns:
                yield wanted[channel], stamp_ns, data

    def _scan(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, stamp and bytes of each message that is whole."""
        size = self.path.stat().st_size
        with self.path.open('rb') as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise ValueError(f'{self.path} is no MCAP file')
            for kind, record in _records(stream, size):
                inner = _records(*_unpacked(record)) if kind == _CHUNK else [(kind, record)]
                found = [message for part in inner if (message := self._take(*part)) is not None]
                yield from sorted(found, key=lambda message: message[1])

    def _take(self, kind: int, record: bytes) -> tuple[int, int, bytes] | None:
        """Return a message; remember schemas and channels. A record that makes no sense is passed
        over.
        """
        if kind == _MESSAGE:
            if len(record) < _MESSAGE_HEAD.size:
                return None
            channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(record)
            return (
                (channel, stamp_ns, record[_MESSAGE_HEAD.size :])
                if channel in self._channels
                else None
            )
        with suppress(UnicodeDecodeError):
            self._remember(kind, BytesIO(record))
        return None

    def _remember(self, kind: int, fields: BinaryIO) -> None:
        if kind == _SCHEMA:
            schema = _number(fields, 2)
            self._schemas[schema] = _text(fields)
        elif kind == _CHANNEL:
            channel, schema = _number(fields, 2), _number(fields, 2)
            name, encoding = _text(fields), _text(fields)
            self._channels[channel] = Topic(
                name, self._schemas.get(schema, ''), _profiles(fields), encoding
            )


def _records(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each record; the last chunk may be cut off."""
    while len(head := stream.read(9)) == 9:
        kind, length = struct.unpack('<BQ', head)
        left = size - stream.tell()
        if length > left and kind != _CHUNK:
            return
        yield kind, stream.read(min(length, left))


def _unpacked(chunk: bytes) -> tuple[BinaryIO, int]:
    """Return the records of a chunk and their length; none when they are damaged."""
    fields = BytesIO(chunk)
    try:
        _, _, size, checksum = _CHUNK_HEAD.unpack(fields.read(_CHUNK_HEAD.size))
        unpack = _UNPACK[_text(fields)]
        _number(fields, 8)
        content = unpack(fields.read())
    except Exception:  # decompressors raise many types
        return BytesIO(), 0
    if checksum and len(content) == size and crc32(content) != checksum:
        return BytesIO(), 0
    return BytesIO(content), len(content)


def _number(fields: BinaryIO, size: int) -> int:
    return int.from_bytes(fields.read(size), 'little')


def _text(fields: BinaryIO) -> str:
    return fields.read(_number(fields, 4)).decode()


def _profiles(fields: BinaryIO) -> tuple[Qos, ...]:
    """Return the recorded quality of service from a channel's metadata."""
    metadata = BytesIO(fields.read(_number(fields, 4)))
    while key := _text(metadata):
        value = _text(metadata)
        if key == 'offered_qos_profiles':
            return _parsed(value)
    return ()


def _parsed(profiles: str) -> tuple[Qos, ...]:
    try:
        return tuple(parse_qos(profiles))
    except Exception:  # rosbags raises many types on foreign text
        return ()


class _WholePages(apsw.VFS):
    """Files without the page that was cut off at their end, which SQLite would fill up with
    zeros.
    """

    def __init__(self) -> None:
        super().__init__(_WHOLE_PAGES, '')

    def xOpen(self, name, flags):  # noqa: N802, the name that SQLite gives it
        return _WholePagesFile('', name, flags)


class _WholePagesFile(apsw.VFSFile):
    def xFileSize(self) -> int:  # noqa: N802
        size = super().xFileSize()
        page_size = int.from_bytes(self.xRead(2, 16), 'big') if size >= 100 else 0
        page_size = 65536 if page_size == 1 else max(page_size, 512)
        return size - size % page_size


_VFS = _WholePages()
"""SQLite knows it by name as long as it lives."""


class SqliteRemains:
    """A SQLite file up to its first broken page; attributes and errors as ``McapRemains`` has
    them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._database = self._opened()
            self._topics = dict(self._read_topics())
        except apsw.Error as error:
            raise ValueError(f'{path} holds no topics of a rosbag2: {error}') from error
        counts: dict[int, int] = {}
        stamps = []
        for number, stamp_ns, _ in self._rows('NULL'):
            counts[number] = counts.get(number, 0) + 1
            stamps.append(stamp_ns)
        self.topics = [
            topic.counted(counts[number])
            for number, topic in self._topics.items()
            if number in counts
        ]
        self.start_ns, self.end_ns = min(stamps, default=0), max(stamps, default=0)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def messages(self, names: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yield (topic, stamp in ns, bytes) from ``start_ns`` to before ``stop_ns``, in the order
        of writing.
        """
        for number, stamp_ns, data in self._rows('data'):
            if self._topics[number].name in names and start_ns <= stamp_ns < stop_ns:
                yield self._topics[number].name, stamp_ns, data

    def _opened(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        database = apsw.Connection(
            f'file:{quote(str(self.path))}?immutable=1', flags, _WHOLE_PAGES
        )
        database.execute(
            'PRAGMA writable_schema = ON'
        )  # otherwise a file that was cut off is not even opened
        return database

    def _read_topics(self) -> Iterator[tuple[int, Topic]]:
        columns = [row[1] for row in self._database.execute('PRAGMA table_info(topics)')]
        for values in self._database.execute('SELECT * FROM topics'):
            row = dict(zip(columns, values, strict=True))
            name, kind, encoding = (
                row.get(column) for column in ('name', 'type', 'serialization_format')
            )
            if isinstance(name, str) and isinstance(kind, str) and isinstance(encoding, str):
                yield (
                    row.get('id'),
                    Topic(name, kind, _parsed(row.get('offered_qos_profiles', '')), encoding),
                )

    def _rows(self, column: str) -> Iterator[tuple[int, int, bytes]]:
        try:
            for number, stamp_ns, data in self._database.execute(
                f'SELECT topic_id, timestamp, {column} FROM messages ORDER BY id'
            ):
                if number in self._topics and isinstance(stamp_ns, int):
                    yield number, stamp_ns, data
        except apsw.Error:
            return
