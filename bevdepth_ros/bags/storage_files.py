"""Finds the storage files of a bag by name or content, and opens them. The content of a file
determines its format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import yaml

from bevdepth_ros.bags import mcap_records, sqlite_file
from bevdepth_ros.bags.compression import compression_of, unpack_file
from bevdepth_ros.bags.mcap_file import McapFile
from bevdepth_ros.bags.plain_yaml import load_plain_yaml
from bevdepth_ros.bags.sqlite_file import SqliteFile
from bevdepth_ros.bags.topics import Message, Topic

_SUFFIXES = re.compile(r'\.(mcap|db3)(\.zstd|\.zst|\.lz4)?$')
"""Endings of the names of storage files. A file with another name is read if it begins with the
signature of a storage file."""
_MAX_METADATA_BYTES = 4 << 20
_MAX_FILES = 10_000
_HEAD_BYTES = 16
_ROS_1 = b'#ROSBAG'


class StorageFile(Protocol):
    """The interface that ``McapFile`` and ``SqliteFile`` share; ``McapFile`` documents it."""

    path: Path
    topics: list[Topic]
    start_ns: int
    end_ns: int
    problem: str | None

    def messages(
        self, names: Collection[str], start_ns: int, stop_ns: int
    ) -> Iterator[Message]: ...

    def close(self) -> None: ...


_READERS: dict[bytes, Callable[[Path], StorageFile]] = {
    mcap_records.MAGIC: McapFile,
    sqlite_file.MAGIC: SqliteFile,
}


@dataclass(frozen=True)
class Metadata:
    """Content of the metadata.yaml of a bag.

    Attributes:
        counts: number of messages by topic.
        names: names of the storage files.
    """

    counts: Counter[str]
    names: tuple[str, ...]


def files_of(path: Path) -> list[Path]:
    """Return the storage files at ``path``, a folder or a single file.

    Raises:
        ValueError: there is no storage file, or ``path`` is neither a folder nor a regular file.
    """
    if not path.exists():
        raise ValueError('it does not exist')
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError('it is neither a folder nor a regular file')
    entries = [entry for _, entry in zip(range(_MAX_FILES), path.iterdir(), strict=False)]
    files = [entry for entry in entries if _is_storage(entry)]
    if not files:
        raise ValueError('the folder contains no .mcap or .db3 file')
    return sorted(files, key=_natural)


def open_file(path: Path, temporary: Path) -> StorageFile:
    """Open one storage file. A compressed file is unpacked into the folder ``temporary``.

    Raises:
        ValueError: the file is not a storage file.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise ValueError('it is not a regular file')
    head = _head(path)
    compression = compression_of(head)
    if compression is None:
        return _reader(head)(path)
    target = Path(mkdtemp(dir=temporary)) / 'unpacked'
    problem = unpack_file(path, target, compression)
    source = _reader(_head(target))(target)
    source.path, source.problem = path, problem or source.problem
    return source


def read_metadata(folder: Path) -> Metadata | None:
    """Return the content of metadata.yaml; None if the file is missing or invalid."""
    file = folder / 'metadata.yaml'
    try:
        if not file.is_file() or file.stat().st_size > _MAX_METADATA_BYTES:
            return None
        information = load_plain_yaml(file.read_bytes())['rosbag2_bagfile_information']
        counts = Counter[str]()
        for topic in information['topics_with_message_count']:
            counts[str(topic['topic_metadata']['name'])] += int(topic['message_count'])
        names = [Path(str(name)).name for name in information['relative_file_paths']]
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError):
        return None
    return Metadata(counts, tuple(names))


def _reader(head: bytes) -> Callable[[Path], StorageFile]:
    for magic, reader in _READERS.items():
        if head.startswith(magic):
            return reader
    if head.startswith(_ROS_1):
        raise ValueError(
            'it is a bag of ROS 1; convert it with `rosbags-convert --src FILE --dst FOLDER`'
        )
    if not head:
        raise ValueError('it is empty')
    raise ValueError('it is neither an MCAP file nor an SQLite file')


def _is_storage(path: Path) -> bool:
    if _SUFFIXES.search(path.name):
        return True
    if not path.is_file():
        return False
    head = _head(path)
    return any(head.startswith(magic) for magic in _READERS)


def _head(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b''


def _natural(path: Path) -> list[str | int]:
    """Return a key that sorts bag_2 before bag_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', path.name)]
