"""Reads rosbag2 recordings, also damaged ones: what is whole is given, and the rest is told in a
sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import yaml
from rosbags.rosbag2 import Reader

from bevdepth_ros.bags.remains import McapRemains, SqliteRemains
from bevdepth_ros.bags.topics import HEAD_BYTES, Message, Topic

_REMAINS = {'.mcap': McapRemains, '.db3': SqliteRemains}


class BagError(Exception):
    """Nothing of a bag can be read; the message says why."""


class _Sound:
    """A folder or file that rosbags opens; attributes as ``McapRemains`` has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = Reader(path)
        self._reader.open()
        self.topics = [
            Topic(
                c.topic,
                c.msgtype,
                tuple(c.ext.offered_qos_profiles),
                c.ext.serialization_format,
                c.msgcount,
            )
            for c in self._reader.connections
        ]
        self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time - 1
        texts = [
            text
            for topic in self.topics
            for text in (topic.name, topic.message_type, topic.encoding)
        ]
        numbers = [self.start_ns, self.end_ns, *(topic.count for topic in self.topics)]
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(number, int) for number in numbers
        ):
            self.close()
            raise ValueError('its metadata has something else where names and counts belong')

    def close(self) -> None:
        with suppress(AttributeError):  # of metadata that has something else where a list belongs
            self._reader.close()

    def messages(self, names: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        connections = [
            connection for connection in self._reader.connections if connection.topic in names
        ]
        for connection, stamp_ns, data in (
            self._reader.messages(connections, start_ns, stop_ns) if connections else ()
        ):
            yield connection.topic, stamp_ns, bytes(data)


class Bag:
    """One recording; a context manager.

    Attributes:
        topics: by name.
        start_ns, end_ns: time of the first and of the last message.

    Args:
        path: a folder, or a single ``.mcap`` or ``.db3`` file.
        report: receives a sentence about each damage.

    Raises:
        BagError: nothing of it can be read.
    """

    def __init__(self, path: str | Path, report: Callable[[str], None]) -> None:
        self._path, self._report = Path(path), report
        self._sources = self._open()
        self.topics: dict[str, Topic] = {}
        for topic in (topic for source in self._sources for topic in source.topics):
            known = self.topics.get(topic.name)
            self.topics[topic.name] = known.counted(topic.count) if known else topic
        self.start_ns = min(source.start_ns for source in self._sources)
        self.end_ns = max(source.end_ns for source in self._sources)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_) -> None:
        for source in self._sources:
            source.close()

    def messages(self, names: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yield (topic, stamp in ns, bytes) of the topics ``names`` from ``start_ns`` to before
        ``stop_ns``, in order of time.

        Messages that are too short to be any are left out.
        """
        short = 0
        for message in self._all_messages(names, start_ns, stop_ns):
            if len(message[2]) > HEAD_BYTES:
                yield message
            else:
                short += 1
        if short:
            self._report(
                f'{self._path} holds {short} messages of at most {HEAD_BYTES} bytes, which are '
                'none: they are left out'
            )

    def _all_messages(
        self, names: Collection[str], start_ns: int, stop_ns: int
    ) -> Iterator[Message]:
        for source in self._sources:
            newest_ns = start_ns - 1
            try:
                for message in source.messages(names, start_ns, stop_ns):
                    newest_ns = max(newest_ns, message[1])
                    yield message
            except Exception as error:  # rosbags, SQLite and the decompressors raise many types
                self._report(
                    f'{source.path} is damaged ({error}): what is whole of the rest is read'
                )
                for remains in self._remains(_storage_files(source.path)):
                    yield from remains.messages(names, newest_ns + 1, stop_ns)
                    remains.close()

    def _open(self) -> list:
        """Return what can be read, in order of time: the whole, or each file, or what remains of
        it.
        """
        try:
            sources = [_Sound(self._path)]
        except Exception as error:
            files = _storage_files(self._path)
            if files and self._path.is_dir():
                self._report(f'{self._path} is damaged ({error}): its files are read one by one')
            sources = [
                source
                for file in files
                for source in self._open_file(file, alone=files == [self._path], cause=error)
            ]
            if not sources:
                raise BagError(f'the bag {self._path} cannot be read: {error}') from error
        self._require_messages(sources)
        return sources

    def _open_file(self, file: Path, alone: bool, cause: Exception) -> list:
        if not alone:
            try:
                return [_Sound(file)]
            except Exception as error:
                cause = error
        self._report(f'{file} is damaged ({cause}): what is whole of it is read')
        return self._remains([file])

    def _remains(self, files: Collection[Path]) -> list:
        sources = []
        for file in files:
            try:
                remains = _REMAINS[file.suffix](file)
                sources += [remains] if remains.topics else []
            except (OSError, ValueError) as error:
                self._report(f'{file} cannot be read: {error}')
        return sources

    def _require_messages(self, sources: list) -> None:
        encodings = {
            topic.encoding for source in sources for topic in source.topics if topic.count
        }
        if encodings and 'cdr' not in encodings:
            kinds = ' and '.join(sorted(encodings))
            remedy = 'nuscenes_to_bag makes a bag of the dataset that it came from'
            raise BagError(
                f'the bag {self._path} holds {kinds} messages, not those of ROS 2: {remedy}'
            )


def _storage_files(path: Path) -> list[Path]:
    """Return the storage files of a bag in order: as its metadata lists them, or by name and
    number.
    """
    if path.is_file():
        return [path] if path.suffix in _REMAINS else []
    found = sorted((file for file in path.glob('*') if file.suffix in _REMAINS), key=_natural)
    try:
        listed = yaml.safe_load((path / 'metadata.yaml').read_text())[
            'rosbag2_bagfile_information'
        ]['relative_file_paths']
        order = [Path(name).name for name in listed]
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError):
        order = []
    return sorted(
        found, key=lambda file: order.index(file.name) if file.name in order else len(order)
    )


def _natural(path: Path) -> list:
    """Return a key that sorts bag_2 before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name)]
