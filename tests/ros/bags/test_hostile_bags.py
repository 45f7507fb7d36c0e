"""Malicious bags, which are made to hang or crash the reader, are rejected or are read with
limited time and memory."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import apsw
import pytest
import zstandard

from bevdepth_ros.bags.mcap_records import records
from bevdepth_ros.bags.reader import Bag, BagError
from tests.ros.bags.text_bags import qos, read, storage_file, texts, write_bag

MAGIC = b'\x89MCAP0\r\n'
END = struct.pack('<BQ', 2, 20) + bytes(20) + MAGIC
ENDLESS = (
    'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, '
    "1 AS topic_id, i AS timestamp, x'0001000000' AS data FROM n"
)


def chunk(content: bytes, compression: str, size: int) -> bytes:
    name = compression.encode()
    body = struct.pack('<QQQI', 0, 1 << 62, size, 0) + struct.pack('<I', len(name)) + name
    body += struct.pack('<Q', len(content)) + content
    return struct.pack('<BQ', 6, len(body)) + body


@pytest.mark.parametrize('name', ['bag_0.mcap', 'bag_0.db3', 'bag_0.db3-wal', 'metadata.yaml'])
def test_named_pipes_in_the_folder_of_a_bag_are_not_opened(tmp_path: Path, name: str) -> None:
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 3)
    file = storage_file(bag).rename(bag / 'other.db3')
    fifo = bag / (f'{file.name}-wal' if name.endswith('wal') else name)
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    assert read(bag)[0] == texts(0, 3)


@pytest.mark.parametrize('make', [os.mkfifo, lambda path: path.symlink_to('/dev/zero')])
def test_a_bag_that_is_neither_folder_nor_regular_file_is_rejected(tmp_path: Path, make) -> None:
    path = tmp_path / 'bag.mcap'
    make(path)
    with pytest.raises(BagError, match='neither a folder nor a regular file'):
        Bag(path, pytest.fail)
    (tmp_path / 'folder').mkdir()
    path.rename(tmp_path / 'folder' / path.name)
    with pytest.raises(BagError, match='it is not a regular file'):
        Bag(tmp_path / 'folder', pytest.fail)


@pytest.mark.parametrize('table', ['messages', 'topics'])
def test_sql_views_in_place_of_tables_are_rejected(tmp_path: Path, table: str) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 3))
    database = apsw.Connection(str(file))
    database.execute(f'DROP TABLE {table}')
    database.execute(f'CREATE VIEW {table} AS {ENDLESS}')
    database.close()
    with pytest.raises(BagError, match=f'it has no table {table}'):
        Bag(file, pytest.fail)


def test_a_table_with_a_generated_column_is_rejected(tmp_path: Path) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 3))
    database = apsw.Connection(str(file))
    database.execute('ALTER TABLE messages RENAME TO old')
    database.execute(
        'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, '
        'data BLOB AS (zeroblob(1000000000)))'
    )
    database.execute('INSERT INTO messages(topic_id, timestamp) VALUES (1, 1)')
    database.close()
    with pytest.raises(BagError, match='its table messages has no column data'):
        Bag(file, pytest.fail)


def test_a_query_that_needs_more_steps_than_allowed_is_stopped_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 2000))
    monkeypatch.setattr('bevdepth_ros.bags.sqlite_file._STEPS_PER_CALL', 1000)
    monkeypatch.setattr('bevdepth_ros.bags.sqlite_file._STEPS_ALLOWANCE', 5000)
    monkeypatch.setattr('bevdepth_ros.bags.sqlite_file._STEPS_PER_BYTE', 0)
    found, reports = read(file)
    assert len(found) < 2000
    assert any('SQLite: ' in report for report in reports)


def test_a_chunk_of_a_terabyte_is_skipped_and_the_messages_after_it_are_read(
    tmp_path: Path,
) -> None:
    sound = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 5, 'mcap')).read_bytes()
    file = tmp_path / 'sparse.mcap'
    with file.open('wb') as stream:
        stream.write(MAGIC + struct.pack('<BQ', 6, 1 << 40))
        stream.seek(1 << 40, os.SEEK_CUR)
        stream.write(sound[len(MAGIC) : sound.index(b'rosbag2') - 13])
    found, reports = read(file)
    assert found == texts(0, 5)
    assert any('its end is missing or damaged' in report for report in reports)


def test_zeros_in_a_sparse_file_are_not_read_as_records(tmp_path: Path) -> None:
    file = tmp_path / 'zeros.mcap'
    with file.open('wb') as stream:
        stream.write(MAGIC)
        stream.truncate(1 << 40)
        stream.seek(0)
    with Bag(file, [].append) as bag:
        assert bag.topics == {}
    with file.open('rb') as stream:
        stream.seek(len(MAGIC))
        assert list(records(stream, 1 << 40)) == []
        assert stream.tell() == len(MAGIC)


@pytest.mark.parametrize('size', [1000, 1 << 40])
def test_decompression_of_a_chunk_bomb_stops_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr('bevdepth_ros.bags.mcap_records.MAX_CONTENT_BYTES', 1 << 20)
    packed = zstandard.ZstdCompressor().compress(bytes(5 << 20))
    file = tmp_path / 'bomb.mcap'
    file.write_bytes(MAGIC + chunk(packed, 'zstd', size) + END)
    reports: list[str] = []
    Bag(file, reports.append).close()
    assert 'unpack to more than' in reports[0] or 'more than any recorder writes' in reports[0]


def test_chunks_that_together_decompress_beyond_the_limit_for_the_file_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('bevdepth_ros.bags.mcap_file._UNPACKED_ALLOWANCE', 3_000_000)
    content = struct.pack('<BQ', 15, 999_991) + bytes(999_991)
    packed = zstandard.ZstdCompressor().compress(content)
    file = tmp_path / 'bombs.mcap'
    file.write_bytes(MAGIC + 20 * chunk(packed, 'zstd', 1_000_000) + END)
    reports: list[str] = []
    Bag(file, reports.append).close()
    limit = 3_000_000 + 100 * file.stat().st_size
    assert any(f'decompress to more than {limit} bytes' in report for report in reports)


def test_a_bag_with_30_000_topics_is_read(tmp_path: Path) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 3))
    database = apsw.Connection(str(file))
    database.execute(
        'WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) '
        "INSERT INTO topics SELECT i, '/t' || i, type, serialization_format, "
        'offered_qos_profiles, type_description_hash FROM topics, n WHERE id = 1'
    )
    database.close()
    with Bag(file, pytest.fail) as opened:
        assert len(opened.topics) == 30_000
        assert len(list(opened.messages(opened.topics))) == 3
