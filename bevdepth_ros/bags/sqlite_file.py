"""Reads SQLite storage files of rosbag2. Files may have a write-ahead log, and may be truncated or
damaged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

import apsw

from bevdepth_ros.bags.compression import MAX_CONTENT_BYTES
from bevdepth_ros.bags.topics import Message, Topic, quality_of_service

MAGIC = b'SQLite format 3\x00'
_WHOLE_PAGES = 'whole_pages'
_COLUMNS = {
    'topics': ('id', 'name', 'type', 'serialization_format'),
    'messages': ('id', 'topic_id', 'timestamp', 'data'),
}
_STEPS_PER_CALL = 1_000_000
_STEPS_ALLOWANCE, _STEPS_PER_BYTE = 50_000_000, 20
"""A query may take ``_STEPS_ALLOWANCE`` steps of SQLite's virtual machine plus
``_STEPS_PER_BYTE`` steps per byte of the file. Without a limit, a query could run forever if the
tree of pages is damaged or malicious."""

_Row = tuple[int, int, int, bytes]
"""Row number, topic number, log time in nanoseconds, serialized message."""


class _WholePages(apsw.VFS):
    """Reads databases without locks and ignores a truncated page at the end.

    SQLite would fill up a truncated page with zeros. The class is based on ``unix-none``, a file
    system of SQLite that never creates a file. A bag in a read-only folder can therefore be read
    together with its write-ahead log.
    """

    def __init__(self) -> None:
        super().__init__(_WHOLE_PAGES, 'unix-none')

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        is_database = flags[0] & apsw.SQLITE_OPEN_MAIN_DB
        return (_WholePagesFile if is_database else apsw.VFSFile)('unix-none', name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Delete nothing, because the write-ahead log belongs to the recorder."""


class _WholePagesFile(apsw.VFSFile):
    def xFileSize(self) -> int:  # noqa: N802, the name that SQLite gives it
        size = super().xFileSize()
        page_size = int.from_bytes(self.xRead(2, 16), 'big') if size >= 100 else 0
        page_size = 65536 if page_size == 1 else max(page_size, 512)
        return size - size % page_size


_VFS = _WholePages()
"""SQLite finds this file system by its name as long as this object exists."""


class SqliteFile:
    """One SQLite file, with the attributes and errors of ``McapFile``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._steps_left = self._max_steps = (
            _STEPS_ALLOWANCE + _STEPS_PER_BYTE * path.stat().st_size
        )
        try:
            self._database = _opened(path)
        except apsw.Error as error:
            raise ValueError(f'SQLite cannot open it: {error}') from error
        try:
            self._database.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_CONTENT_BYTES)
            self._database.set_progress_handler(self._exceeds_steps, _STEPS_PER_CALL)
            self._require_tables()
            self._topics = dict(self._read_topics())
            self._count_messages()
        except BaseException as error:
            self.close()
            if isinstance(error, apsw.Error):
                raise ValueError(f'it contains no readable list of topics: {error}') from error
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def messages(self, names: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yield (topic, log time in ns, bytes) of the messages on the topics ``names`` whose log
        time is at least ``start_ns`` and less than ``stop_ns``.

        Messages are in order of log time. If the file is damaged, the messages after the damage
        are in the order in which they were written.
        """
        wanted = {
            number: topic.name for number, topic in self._topics.items() if topic.name in names
        }
        newest_ns, newest_rows = start_ns, set[int]()
        for row, number, stamp_ns, data in self._rows_by_time(start_ns, stop_ns):
            if stamp_ns > newest_ns:
                newest_ns, newest_rows = stamp_ns, set()
            newest_rows.add(row)
            if number in wanted:
                yield wanted[number], stamp_ns, data
        if self.problem is None:
            return
        for row, number, stamp_ns, data in self._rows_as_written('data'):
            is_new = stamp_ns > newest_ns or (stamp_ns == newest_ns and row not in newest_rows)
            if is_new and stamp_ns < stop_ns and number in wanted:
                yield wanted[number], stamp_ns, data

    def _exceeds_steps(self) -> bool:
        self._steps_left -= _STEPS_PER_CALL
        return self._steps_left < 0

    def _execute(self, query: str, values: tuple[int | str, ...] = ()) -> apsw.Cursor:
        self._steps_left = self._max_steps
        return self._database.execute(query, values)

    def _require_tables(self) -> None:
        """Raise ValueError unless ``topics`` and ``messages`` are real tables with stored columns.
        A view or a computed column could have infinite content.
        """
        for table, columns in _COLUMNS.items():
            kinds = self._execute(
                'SELECT type, rootpage FROM sqlite_schema WHERE name = ?1', (table,)
            ).fetchall()
            if len(kinds) != 1 or kinds[0][0] != 'table' or not kinds[0][1]:
                raise ValueError(f'it has no table {table}: it is not a storage file of rosbag2')
            stored = {
                row[1] for row in self._execute(f'PRAGMA table_xinfo({table})') if not row[6]
            }
            if missing := set(columns) - stored:
                raise ValueError(f'its table {table} has no column {", ".join(sorted(missing))}')

    def _read_topics(self) -> Iterator[tuple[int, Topic]]:
        stored = [row[1] for row in self._execute('PRAGMA table_info(topics)')]
        columns = (*_COLUMNS['topics'], 'offered_qos_profiles')
        chosen = ', '.join(name if name in stored else "''" for name in columns)
        for number, name, kind, encoding, qos in self._execute(f'SELECT {chosen} FROM topics'):
            if all(isinstance(text, str) for text in (name, kind, encoding, qos)):
                yield number, Topic(name, kind, quality_of_service(qos), encoding)

    def _count_messages(self) -> None:
        counts = dict.fromkeys(self._topics, 0)
        first_ns, last_ns = 1 << 64, 0
        for _, number, stamp_ns, _ in self._rows_as_written('NULL'):
            counts[number] += 1
            first_ns, last_ns = min(first_ns, stamp_ns), max(last_ns, stamp_ns)
        self.topics = [topic.counted(counts[number]) for number, topic in self._topics.items()]
        self.start_ns, self.end_ns = (first_ns, last_ns) if any(counts.values()) else (0, 0)

    def _rows_by_time(self, start_ns: int, stop_ns: int) -> Iterator[_Row]:
        largest = (1 << 63) - 1
        yield from self._valid_rows(
            'SELECT id, topic_id, timestamp, data FROM messages '
            'WHERE timestamp >= ? AND timestamp < ? ORDER BY timestamp',
            (min(start_ns, largest), min(stop_ns, largest)),
        )

    def _rows_as_written(self, column: str) -> Iterator[_Row]:
        yield from self._valid_rows(
            f'SELECT id, topic_id, timestamp, {column} FROM messages ORDER BY id'
        )

    def _valid_rows(self, query: str, values: tuple[int | str, ...] = ()) -> Iterator[_Row]:
        """Yield rows up to the first damaged page; skip rows without a known topic or a valid
        time.
        """
        try:
            for row, number, stamp_ns, data in self._execute(query, values):
                if number in self._topics and isinstance(stamp_ns, int):
                    yield row, number, stamp_ns, data if isinstance(data, bytes) else b''
        except apsw.Error as error:
            self.problem = self.problem or f'SQLite: {error}'


def _opened(path: Path) -> apsw.Connection:
    """Open a file, together with its write-ahead log if there is one.

    Symbolic links in the path are resolved before SQLite opens the file. With the file system
    ``_VFS``, SQLite cannot open a path with a symbolic link, because apsw does not pass on the
    resolved path.
    """
    path = path.resolve()
    log = path.with_name(path.name + '-wal')
    mode = 'mode=ro' if log.is_file() and log.stat().st_size else 'immutable=1'
    database = apsw.Connection(
        f'file:{quote(str(path))}?{mode}',
        apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        _WHOLE_PAGES,
    )
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.execute('PRAGMA locking_mode = EXCLUSIVE')  # the log then needs no -shm file
    database.execute('PRAGMA writable_schema = ON')  # otherwise SQLite rejects truncated files
    return database
