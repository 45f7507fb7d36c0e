"""Reads rosbag2 recordings; all tools of this package use ``Bag``.

A bag may be a folder or a single file, MCAP or SQLite, compressed in any way, split, renamed,
without metadata.yaml, damaged, or still being written. ``Bag`` returns all messages that can be
read, and reports missing messages.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from bevdepth_ros.bags.compression import serialized_message
from bevdepth_ros.bags.storage_files import (
    Metadata,
    StorageFile,
    files_of,
    open_file,
    read_metadata,
)
from bevdepth_ros.bags.topics import Message, Topic

LATEST_NS = (1 << 63) - 1
"""A time after the log time of every message, in nanoseconds."""
_COMPANION = re.compile(r'/metadata\.yaml$|-wal$|-shm$')
_NAMED = 5
"""Largest number of topics or files that a report names."""


class BagError(Exception):
    """A bag cannot be read at all; the message gives the reason."""


class Bag:
    """Reads one recording, or several recordings as one. It is a context manager.

    Attributes:
        topics: topics by name, with the numbers of messages in the storage files.
        recorded_counts: number of messages of each topic according to the metadata of the bag or
            the index of its files. Some of these messages may be lost.
        start_ns, end_ns: log time of the first and of the last message.

    Args:
        paths: path of a bag, which is a folder or a single storage file; or a sequence of paths of
            several bags.
        report: called with a sentence about each problem, such as a damaged file or lost messages.

    Raises:
        BagError: one of the bags cannot be read at all.
    """

    def __init__(
        self, paths: str | Path | Sequence[str | Path], report: Callable[[str], None]
    ) -> None:
        self._report = report
        self._unpacked = TemporaryDirectory(prefix='bevdepth-bag-')
        self._bags: list[list[StorageFile]] = []
        self._reported: set[str] = set()
        self.recorded_counts = Counter[str]()
        try:
            for path in [paths] if isinstance(paths, (str, Path)) else _bags_among(paths):
                self._bags.append(self._open(Path(path)))
        except BaseException:
            self.close()
            raise
        sources = [source for bag in self._bags for source in bag]
        self.topics = _merged_topics(sources)
        for name, topic in self.topics.items():
            self.recorded_counts[name] = max(self.recorded_counts[name], topic.count)
        spans = [(source.start_ns, source.end_ns) for source in sources if _count(source)]
        self.start_ns = min((start for start, _ in spans), default=0)
        self.end_ns = max((end for _, end in spans), default=0)

    @property
    def duration_s(self) -> float:
        """Time from the first to the last message, seconds."""
        return (self.end_ns - self.start_ns) * 1e-9

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and remove decompressed copies."""
        for bag in self._bags:
            for source in bag:
                source.close()
        self._unpacked.cleanup()

    def messages(
        self, names: Collection[str], start_ns: int = 0, stop_ns: int = LATEST_NS
    ) -> Iterator[Message]:
        """Yield (topic, log time in ns, bytes) of the messages on the topics ``names`` whose log
        time is at least ``start_ns`` and less than ``stop_ns``, in order of log time.

        Each of these messages has a CDR header. Messages without a CDR header are left out and
        reported.
        """
        names = frozenset(names)
        streams = [self._bag_messages(bag, names, start_ns, stop_ns) for bag in self._bags]
        yield from heapq.merge(*streams, key=itemgetter(1))

    def _bag_messages(
        self, bag: list[StorageFile], names: Collection[str], start_ns: int, stop_ns: int
    ) -> Iterator[Message]:
        """Yield the messages of one bag in order of time, even if its files overlap in time.

        The reader begins to read a file only at the time of the first message in this file, so
        that few files are read at the same time.
        """
        later = deque(file for file in bag if file.end_ns >= start_ns and file.start_ns < stop_ns)
        # A heap of the files that are being read. Each entry contains the log time of the next
        # message, the number of the file, the next message, and the following messages.
        begun: list[tuple[int, int, Message, Iterator[Message]]] = []
        while later or begun:
            if later and (not begun or later[0].start_ns <= begun[0][0]):
                number = len(bag) - len(later)
                stream = self._file_messages(later.popleft(), names, start_ns, stop_ns)
            else:
                _, number, message, stream = heapq.heappop(begun)
                yield message
            if (following := next(stream, None)) is not None:
                heapq.heappush(begun, (following[1], number, following, stream))

    def _file_messages(
        self, source: StorageFile, names: Collection[str], start_ns: int, stop_ns: int
    ) -> Iterator[Message]:
        """Yield the valid messages of one file; report invalid and missing messages."""
        read, invalid = Counter[str](), Counter[str]()
        for name, stamp_ns, data in source.messages(names, start_ns, stop_ns):
            message = serialized_message(data)
            (invalid if message is None else read)[name] += 1
            if message is not None:
                yield name, stamp_ns, message
        whole = start_ns <= source.start_ns and source.end_ns < stop_ns
        expected = {t.name: t.count for t in source.topics if t.name in names and whole}
        self._report_read(source, expected, read, invalid)

    def _report_read(
        self,
        source: StorageFile,
        expected: dict[str, int],
        read: Counter[str],
        invalid: Counter[str],
    ) -> None:
        """Report the problems of a file after it was read. The three counters contain numbers of
        messages by topic: in the index of the file, valid messages, and invalid messages.
        """
        if invalid:
            self._report_once(
                f'{source.path}: {invalid.total()} messages on {_listed(invalid)} are left out: '
                'they have no CDR header or are damaged'
            )
        missing = Counter(expected)
        missing.subtract(read + invalid)
        self._report_missing(source.path, +missing, 'the index of the file counts them')
        self._report_problem(source)

    def _open(self, path: Path) -> list[StorageFile]:
        """Return the readable storage files of one bag in order of time."""
        try:
            files = files_of(path)
        except (ValueError, OSError) as error:
            raise BagError(f'the bag {path} cannot be read: {error}') from error
        metadata = read_metadata(path) if path.is_dir() else None
        if metadata is not None:
            files = self._named_files(files, metadata)
        sources: list[StorageFile] = []
        errors: dict[Path, Exception] = {}
        for file in files:
            try:
                sources.append(open_file(file, Path(self._unpacked.name)))
            except (ValueError, OSError) as error:
                errors[file] = error
        if not sources:
            reasons = [
                str(reason) if file == path else f'{file.name}: {reason}'
                for file, reason in itertools.islice(errors.items(), 3)
            ]
            raise BagError(f'the bag {path} cannot be read: {"; ".join(reasons)}')
        for file, reason in errors.items():
            self._report_once(f'{file} cannot be read: {reason}')
        _require_ros2(path, sources)
        for source in sources:
            self._report_problem(source)
        if path.is_dir():
            self._compare_with_metadata(path, metadata, sources)
        return sorted(sources, key=lambda source: source.start_ns)

    def _named_files(self, files: list[Path], metadata: Metadata) -> list[Path]:
        """Return the files that the metadata names. If one of these files is missing, return all
        files, because the files were probably renamed.

        Files that the metadata does not name can be copies, such as the files that rosbag2 unpacks
        beside compressed files. The messages of copies would be read twice.
        """
        named = [file for file in files if file.name in metadata.names]
        if len(named) < len(metadata.names):
            return files
        for file in sorted(set(files) - set(named)):
            self._report_once(
                f'{file} is left out, because metadata.yaml does not name this file; to read the '
                'file, give its path'
            )
        return named

    def _compare_with_metadata(
        self, path: Path, metadata: Metadata | None, sources: list[StorageFile]
    ) -> None:
        """Add the counts of the metadata to ``recorded_counts``, and report messages that the
        metadata counts but the storage files do not contain.
        """
        if metadata is None:
            self._report_once(
                f'{path} has no valid metadata.yaml: its storage files are read, but missing '
                'messages cannot be detected'
            )
            return
        self.recorded_counts += metadata.counts
        missing = Counter(metadata.counts)
        for source in sources:
            missing.subtract({topic.name: topic.count for topic in source.topics})
        absent = sorted(set(metadata.names) - {source.path.name for source in sources})
        files = f' and names the unreadable files {", ".join(absent[:_NAMED])}' if absent else ''
        self._report_missing(path, +missing, f'metadata.yaml counts them{files}')

    def _report_missing(self, path: Path, missing: Counter[str], counted_by: str) -> None:
        if missing:
            self._report_once(
                f'{path}: {missing.total()} messages on {_listed(missing)} are lost: '
                f'{counted_by}, but they cannot be read'
            )

    def _report_problem(self, source: StorageFile) -> None:
        if source.problem is not None:
            self._report_once(
                f'{source.path} is damaged or not complete: {source.problem}; '
                'the messages that can be read are used'
            )

    def _report_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._report(sentence)


def _bags_among(paths: Sequence[str | Path]) -> list[str | Path]:
    """Return ``paths`` without metadata.yaml, and without the -wal and -shm files of SQLite. If a
    user writes ``BAG/*``, the shell adds these files to the command line.
    """
    bags = [path for path in paths if not _COMPANION.search(str(path))]
    return bags or list(paths)


def _merged_topics(sources: list[StorageFile]) -> dict[str, Topic]:
    topics: dict[str, Topic] = {}
    for topic in (topic for source in sources for topic in source.topics):
        merged = topics.get(topic.name)
        topics[topic.name] = topic if merged is None else merged.counted(topic.count)
    return topics


def _count(source: StorageFile) -> int:
    return sum(topic.count for topic in source.topics)


def _listed(names: Collection[str]) -> str:
    first = sorted(names)[:_NAMED]
    more = len(names) - len(first)
    return ', '.join(first) + (f' and {more} more topics' if more else '')


def _require_ros2(path: Path, sources: list[StorageFile]) -> None:
    """Raise BagError if the bag has messages, but none of them is encoded in CDR, the encoding of
    ROS 2.
    """
    encodings = {topic.encoding for source in sources for topic in source.topics if topic.count}
    if encodings and 'cdr' not in encodings:
        raise BagError(
            f'the bag {path} contains {" and ".join(sorted(encodings))} messages, but no ROS 2 '
            'messages: if the bag was made from a dataset, convert the dataset with '
            'nuscenes_to_bag instead'
        )
