"""Reads MCAP files (https://mcap.dev/spec), even if they are truncated or damaged.

The official readers and the library rosbags do not check the sizes that are stored in a file, and
they stop at the first damaged part. This reader reads a limited number of bytes at a time and
skips damaged chunks. A file has these parts:

    magic | chunk (records, often compressed) ... | summary (index of the chunks) | footer | magic

* If the summary is valid and contains an index of the chunks, the topics come from the summary.
  Only the chunks that overlap the requested time are read, in the order of their start times.
* If the summary contains topics and message counts but no index of the chunks, all chunks are read
  in the order of the file.
* If the summary is missing or damaged, because a recording is still being written or was
  interrupted, a first pass through the file finds the topics and counts the messages. A second
  pass reads the chunks in the order of the file.

In all cases, ``message_order.in_order`` sorts the messages of the chunks by log time.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from bevdepth_ros.bags.compression import MAX_CONTENT_BYTES
from bevdepth_ros.bags.mcap_records import (
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    CHUNK_INDEX,
    FOOTER,
    MAGIC,
    MESSAGE,
    RECORD_HEAD,
    SCHEMA,
    STATISTICS,
    chunk_content,
    offered_profiles,
    read_number,
    read_text,
    records,
)
from bevdepth_ros.bags.message_order import FilePart, StampedMessage, in_order
from bevdepth_ros.bags.topics import Message, Topic, quality_of_service

_FOOTER_CONTENT = struct.Struct('<QQI')
_MESSAGE_HEAD = struct.Struct('<HIQQ')
_STATISTICS_HEAD = struct.Struct('<QHIIIIQQI')
_CHANNEL_COUNT = struct.Struct('<HQ')
_TAIL_BYTES = RECORD_HEAD.size + _FOOTER_CONTENT.size + len(MAGIC)
_DISORDER_NS = 1_000_000_000
"""Messages may also be outside of chunks. Such a message is sorted correctly if the messages that
precede it in the file are older, or newer by at most this time."""
_UNPACKED_ALLOWANCE, _UNPACKED_RATIO = 1 << 32, 100
"""One pass through a file decompresses at most ``_UNPACKED_ALLOWANCE`` bytes plus
``_UNPACKED_RATIO`` times the size of the file."""


@dataclass(frozen=True)
class _ChunkIndex:
    start_ns: int
    end_ns: int
    offset: int


class McapFile:
    """One MCAP file.

    Attributes:
        path: path of the file.
        topics: all topics of the file, with any message encoding, and with the number of messages
            on each topic.
        start_ns, end_ns: earliest and latest log time of the messages; 0 if there are none.
        problem: the first reason found so far why a part of the file was not read, or None.

    Raises:
        ValueError: the file is not an MCAP file.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self.start_ns = self.end_ns = 0
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, Topic] = {}
        self._chunks: list[_ChunkIndex] = []
        self._number = itertools.count()
        self._size = path.stat().st_size
        self._stream = path.open('rb')
        try:
            if self._stream.read(len(MAGIC)) != MAGIC:
                raise ValueError('it does not begin with the signature of an MCAP file')
            counts = self._read_summary() or self._count_messages()
        except BaseException:
            self._stream.close()
            raise
        self.topics = [
            topic.counted(counts.get(channel, 0)) for channel, topic in self._channels.items()
        ]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def messages(self, names: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yield (topic, log time in ns, bytes) of the messages on the topics ``names`` whose log
        time is at least ``start_ns`` and less than ``stop_ns``, in order of log time.
        """
        wanted = {
            channel: topic.name for channel, topic in self._channels.items() if topic.name in names
        }
        parts = self._indexed_parts(start_ns, stop_ns) if self._chunks else self._parts()
        chosen = (
            FilePart(part.start_ns, [
                message
                for message in part.messages
                if message.channel in wanted and start_ns <= message.stamp_ns < stop_ns
            ])
            for part in parts
        )  # fmt: skip
        for stamp_ns, _, channel, data in in_order(chosen):
            yield wanted[channel], stamp_ns, data

    def _report(self, problem: str) -> None:
        self.problem = self.problem or problem

    def _read_summary(self) -> dict[int, int] | None:
        """Read the summary; return the number of messages by channel, or None if the summary is
        missing, damaged, or does not define every channel that it counts.
        """
        try:
            counts = self._summary_counts(self._summary())
        except (ValueError, struct.error) as error:
            self._report(f'its end is missing or damaged ({error})')
            counts = None
        if counts is None or not counts.keys() <= self._channels.keys():
            self._chunks.clear()
            return None
        return counts

    def _summary(self) -> BytesIO:
        """Return the bytes of the summary; no bytes if the file was written without a summary."""
        self._stream.seek(max(self._size - _TAIL_BYTES, 0))
        tail = self._stream.read(_TAIL_BYTES)
        kind, length = RECORD_HEAD.unpack_from(tail)
        if (kind, length) != (FOOTER, _FOOTER_CONTENT.size) or not tail.endswith(MAGIC):
            raise ValueError('it is truncated or still being written')
        start, _, _ = _FOOTER_CONTENT.unpack_from(tail, RECORD_HEAD.size)
        length = self._size - _TAIL_BYTES - start if start else 0
        if not 0 <= length <= MAX_CONTENT_BYTES:
            raise ValueError('the position of its index is invalid')
        self._stream.seek(start)
        return BytesIO(self._stream.read(length))

    def _summary_counts(self, summary: BytesIO) -> dict[int, int] | None:
        """Store the content of the summary; return the number of messages by channel, or None if
        the summary contains no statistics.

        A summary may contain statistics but no index of chunks: rosbag2 writes such files with its
        preset ``fastwrite``.
        """
        counts, chunk_count = None, 0
        for kind, record in records(summary, len(summary.getbuffer())):
            if kind == STATISTICS:
                statistics = _STATISTICS_HEAD.unpack_from(record)
                entries = record[_STATISTICS_HEAD.size :][: statistics[-1]]
                counts, chunk_count = dict(_CHANNEL_COUNT.iter_unpack(entries)), statistics[5]
                self.start_ns, self.end_ns = statistics[6:8] if statistics[0] else (0, 0)
            elif kind == CHUNK_INDEX:
                self._chunks.append(_ChunkIndex(*struct.unpack_from('<QQQ', record)))
            else:
                self._take_definition(kind, record)
        if self._chunks and len(self._chunks) != chunk_count:
            raise ValueError('its index is not complete')
        return counts

    def _count_messages(self) -> dict[int, int]:
        """Read the whole file; return the number of messages by channel."""
        counts: dict[int, int] = {}
        first_ns, last_ns = 1 << 64, 0
        for part in self._parts():
            for message in part.messages:
                counts[message.channel] = counts.get(message.channel, 0) + 1
                first_ns = min(first_ns, message.stamp_ns)
                last_ns = max(last_ns, message.stamp_ns)
        self.start_ns, self.end_ns = (first_ns, last_ns) if counts else (0, 0)
        return counts

    def _indexed_parts(self, start_ns: int, stop_ns: int) -> Iterator[FilePart]:
        budget = _Budget(self._size)
        for chunk in sorted(self._chunks, key=lambda chunk: chunk.start_ns):
            if chunk.end_ns < start_ns or chunk.start_ns >= stop_ns:
                continue
            self._stream.seek(chunk.offset)
            kind, record = next(records(self._stream, self._size), (0, b''))
            if kind == CHUNK:
                yield self._chunk_part(record, budget)._replace(start_ns=chunk.start_ns)
            else:
                self._report(f'its index points to byte {chunk.offset}, where no chunk begins')

    def _parts(self) -> Iterator[FilePart]:
        """Yield the parts of the whole file in the order of the file."""
        budget = _Budget(self._size)
        place = self._stream.seek(len(MAGIC))
        for kind, record in records(self._stream, self._size):
            place = self._stream.tell()  # other passes through this file move the stream
            if kind == FOOTER:
                return
            if kind == CHUNK:
                yield self._chunk_part(record, budget)
            elif (message := self._take(kind, record)) is not None:
                yield FilePart(message.stamp_ns - _DISORDER_NS, [message])
            self._stream.seek(place)
        self._report(f'it is truncated or damaged after byte {place}')

    def _chunk_part(self, chunk: bytes, budget: _Budget) -> FilePart:
        """Return the messages of a chunk. If one of its records is damaged, return the messages
        before that record. If the chunk cannot be decompressed, return no messages.
        """
        try:
            start_ns, _, size, checksum = CHUNK_HEAD.unpack_from(chunk)
            budget.take(min(size, MAX_CONTENT_BYTES))
            content = chunk_content(chunk, size, checksum)
        except (ValueError, struct.error) as error:
            self._report(f'a chunk is damaged ({error})')
            return FilePart(0, [])
        stream = BytesIO(content)
        found = [self._take(*record) for record in records(stream, len(content))]
        if stream.tell() < len(content):
            self._report(f'a chunk is damaged at byte {stream.tell()} of its records')
        return FilePart(start_ns, [message for message in found if message is not None])

    def _take(self, kind: int, record: bytes) -> StampedMessage | None:
        """Return the message in a record, or None if the record contains no valid message of a
        known channel. If the record contains a schema or a channel, store this definition.
        """
        if kind != MESSAGE:
            self._take_definition(kind, record)
            return None
        if len(record) < _MESSAGE_HEAD.size:
            return None
        channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(record)
        if channel not in self._channels:
            return None
        return StampedMessage(stamp_ns, next(self._number), channel, record[_MESSAGE_HEAD.size :])

    def _take_definition(self, kind: int, record: bytes) -> None:
        fields = BytesIO(record)
        with suppress(UnicodeDecodeError):
            if kind == SCHEMA:
                schema = read_number(fields, 2)
                self._schemas[schema] = read_text(fields)
            elif kind == CHANNEL:
                channel, schema = read_number(fields, 2), read_number(fields, 2)
                name, encoding = read_text(fields), read_text(fields)
                message_type = self._schemas.get(schema, '')
                topic = Topic(
                    name, message_type, quality_of_service(offered_profiles(fields)), encoding
                )
                self._channels.setdefault(channel, topic)


class _Budget:
    """Limits the number of bytes that one pass through a file decompresses."""

    def __init__(self, file_size: int) -> None:
        self._limit = self._left = _UNPACKED_ALLOWANCE + _UNPACKED_RATIO * file_size

    def take(self, size: int) -> None:
        """Count ``size`` more bytes.

        Raises:
            ValueError: the pass decompresses more bytes than the limit.
        """
        self._left -= size
        if self._left < 0:
            raise ValueError(
                f'the chunks of the file decompress to more than {self._limit} bytes, which is '
                'the limit for a file of this size'
            )
