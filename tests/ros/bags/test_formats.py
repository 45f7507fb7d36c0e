"""Reads bags in all storage formats of rosbag2. Invalid messages are left out."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import apsw
import lz4.frame
import pytest
import yaml
import zstandard
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Writer

from bevdepth_ros.bags.compression import serialized_message, unpack_file, unpacked
from bevdepth_ros.bags.mcap_file import McapFile
from bevdepth_ros.bags.plain_yaml import load_plain_yaml
from bevdepth_ros.bags.reader import Bag
from tests.ros.bags.text_bags import (
    START_NS,
    STEP_NS,
    STORAGES,
    TEXT,
    message_types,
    qos,
    read,
    storage_file,
    texts,
    write_bag,
    write_split_bag,
)

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    'zstd': zstandard.ZstdCompressor().compress,
    'lz4': lz4.frame.compress,
}
CDR = b'\x00\x01\x00\x00a'


def compress_file(file: Path, packer: str) -> Path:
    """Replace a storage file by a compressed file, as the compression mode FILE of rosbag2
    does."""
    packed = file.with_name(f'{file.name}.{packer}')
    packed.write_bytes(PACKERS[packer](file.read_bytes()))
    file.unlink()
    return packed


def compress_messages(file: Path, packer: str) -> None:
    """Compress the messages of an SQLite file, as the compression mode MESSAGE of rosbag2 does."""
    database = apsw.Connection(str(file))
    rows = database.execute('SELECT id, data FROM messages').fetchall()
    for row, data in rows:
        database.execute('UPDATE messages SET data = ? WHERE id = ?', (PACKERS[packer](data), row))
    database.close()


def write_bag_with_packed_messages(path: Path, storage: str, count: int) -> Path:
    types = message_types()
    writer = Writer(path, version=8, storage_plugin=STORAGES[storage])
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        topic = writer.add_connection('/a', TEXT, typestore=types)
        for number in range(count):
            data = types.serialize_cdr(types.types[TEXT](data=f'/a {number}'), TEXT)
            writer.write(topic, START_NS + number * STEP_NS, data)
    return path


@pytest.mark.parametrize('packer', PACKERS)
@pytest.mark.parametrize('storage', STORAGES)
def test_compressed_files_are_read_with_or_without_metadata_and_after_renaming(
    tmp_path: Path, storage: str, packer: str
) -> None:
    files = write_split_bag(tmp_path / 'bag', storage)
    packed = [compress_file(file, packer) for file in files]
    metadata = tmp_path / 'bag' / 'metadata.yaml'
    content = yaml.safe_load(metadata.read_text())
    content['rosbag2_bagfile_information'] |= {
        'compression_mode': 'FILE',
        'compression_format': packer,
        'relative_file_paths': [file.name for file in packed],
    }
    metadata.write_text(yaml.safe_dump(content))
    assert read(tmp_path / 'bag') == (texts(0, 15), [])
    assert read(packed[1]) == (texts(5, 10), [])
    renamed = packed[2].rename(tmp_path / 'renamed')
    assert read(renamed) == (texts(10, 15), [])
    metadata.unlink()
    found, reports = read(tmp_path / 'bag')
    assert found == texts(0, 10)
    assert 'no valid metadata.yaml' in reports[0]


@pytest.mark.parametrize('storage', STORAGES)
def test_compressed_messages_are_read_with_or_without_metadata_and_after_renaming(
    tmp_path: Path, storage: str
) -> None:
    bag = write_bag_with_packed_messages(tmp_path / 'bag', storage, 5)
    assert read(bag) == (texts(0, 5), [])
    file = storage_file(bag)
    assert read(file) == (texts(0, 5), [])
    assert read(file.rename(tmp_path / 'renamed.bin')) == (texts(0, 5), [])


def test_messages_compressed_with_lz4_are_read(tmp_path: Path) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 5))
    compress_messages(file, 'lz4')
    assert read(file) == (texts(0, 5), [])


def test_files_are_read_in_order_of_time_and_not_in_order_of_their_names(tmp_path: Path) -> None:
    files = write_split_bag(tmp_path / 'bag', 'mcap')
    for file, name in zip(files, ('c.mcap', 'a.mcap', 'b.data'), strict=True):
        file.rename(tmp_path / 'bag' / name)
    found, _ = read((tmp_path / 'bag').rename(tmp_path / 'other'))
    assert found == texts(0, 15)


@pytest.mark.parametrize('storage', STORAGES)
def test_messages_of_files_with_overlapping_times_are_read_in_order_of_time(
    tmp_path: Path, storage: str
) -> None:
    """If a message arrives late, rosbag2 writes it to the next file (rosbag2 issue 857)."""
    files = write_split_bag(tmp_path / 'bag', storage)
    between = write_bag(tmp_path / 'between', {'/b': qos()}, 7, storage, first=3)
    storage_file(between).rename(files[0].with_name(f'late{files[0].suffix}'))
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    found, _ = read(tmp_path / 'bag')
    assert [text for text in found if text.startswith('/a')] == texts(0, 15)
    assert [text for text in found if text.startswith('/b')] == [f'/b {n}' for n in range(3, 10)]
    assert found.index('/b 3') < found.index('/a 4') < found.index('/b 5') < found.index('/a 6')


def test_messages_with_equal_times_are_read_in_the_order_of_their_files(tmp_path: Path) -> None:
    for name in 'ab':
        bag = write_bag(tmp_path / f'bag_{name}', {f'/{name}': qos()}, 2, 'mcap')
        (tmp_path / 'both').mkdir(exist_ok=True)
        storage_file(bag).rename(tmp_path / 'both' / f'{name}.mcap')
    assert read(tmp_path / 'both')[0] == ['/a 0', '/b 0', '/a 1', '/b 1']


def test_rows_in_a_write_ahead_log_are_read_and_no_file_changes(tmp_path: Path) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 20))
    writer = apsw.Connection(str(file))
    writer.execute('CREATE TABLE kept AS SELECT * FROM messages WHERE id > 5')
    writer.execute('DELETE FROM messages WHERE id > 5')
    writer.execute('PRAGMA journal_mode = WAL')
    writer.execute('INSERT INTO messages SELECT * FROM kept')
    (tmp_path / 'copy').mkdir()
    for part in (file, file.with_name(f'{file.name}-wal')):
        shutil.copy(part, tmp_path / 'copy')
    before = {path.name: path.read_bytes() for path in (tmp_path / 'copy').iterdir()}
    assert len(before) == 2
    assert read(tmp_path / 'copy' / file.name) == (texts(0, 20), [])
    assert {p.name: p.read_bytes() for p in (tmp_path / 'copy').iterdir()} == before
    writer.close()


@pytest.mark.parametrize('storage', STORAGES)
def test_several_bags_are_read_as_one_bag_in_order_of_time(tmp_path: Path, storage: str) -> None:
    bags = [
        write_bag(tmp_path / name, {f'/{name}': qos()}, 3, storage, first=first)
        for name, first in (('b', 2), ('a', 0))
    ]
    with Bag(bags, pytest.fail) as bag:
        stamps = [(name, (stamp - START_NS) // STEP_NS) for name, stamp, _ in bag.messages(
            bag.topics
        )]  # fmt: skip
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + 4 * STEP_NS)
    assert stamps == [('/a', 0), ('/a', 1), ('/b', 2), ('/a', 2), ('/b', 3), ('/b', 4)]


def test_a_message_without_a_cdr_header_or_without_content_is_invalid() -> None:
    assert serialized_message(CDR) == CDR
    assert serialized_message(b'\x00\x0b\x00\x00a') == b'\x00\x0b\x00\x00a'
    for data in (b'', CDR[:4], b'\x01' + CDR[1:], b'\x00\x0c\x00\x00a', b'{"json": 1}'):
        assert serialized_message(data) is None
    for pack in PACKERS.values():
        assert serialized_message(pack(CDR)) == CDR
        assert serialized_message(pack(b'no message')) is None
        assert serialized_message(pack(CDR * 100)[:-3]) is None


def test_messages_without_a_cdr_header_are_omitted_and_reported(tmp_path: Path) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 3))
    database = apsw.Connection(str(file))
    database.execute("UPDATE messages SET data = x'28b52ffd00' WHERE id = 2")
    database.close()
    found, reports = read(file)
    assert found == ['/a 0', '/a 2']
    assert len(reports) == 1
    assert f'{file}: 1 messages on /a are left out: they have no CDR header' in reports[0]


@pytest.mark.parametrize('compression', PACKERS)
def test_decompression_stops_at_the_size_limit(compression: str) -> None:
    packed = PACKERS[compression](bytes(1000))
    assert unpacked(packed, compression, 1001) == bytes(1000)
    with pytest.raises(ValueError, match='unpack to more than 999 bytes'):
        unpacked(packed, compression, 999)
    with pytest.raises(ValueError, match='damaged'):
        unpacked(b'no frame at all', compression)


def test_a_file_that_decompresses_beyond_the_limit_for_its_size_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('bevdepth_ros.bags.compression._FILE_ALLOWANCE', 5000)
    bomb, target = tmp_path / 'bomb', tmp_path / 'target'
    bomb.write_bytes(PACKERS['zstd'](bytes(1_000_000)))
    limit = 5000 + 100 * bomb.stat().st_size
    assert f'decompresses to more than {limit} bytes' in unpack_file(bomb, target, 'zstd')
    assert target.stat().st_size <= limit
    bomb.write_bytes(PACKERS['zstd'](bytes(4000)))
    assert unpack_file(bomb, target, 'zstd') is None
    assert target.read_bytes() == bytes(4000)
    bomb.write_bytes(bomb.read_bytes()[:-1])
    assert 'truncated' in unpack_file(bomb, target, 'zstd')


def mcap_record(kind: int, content: bytes) -> bytes:
    return struct.pack('<BQ', kind, len(content)) + content


def mcap_text(text: str) -> bytes:
    return struct.pack('<I', len(text)) + text.encode()


def test_an_mcap_file_without_chunks_and_summary_is_valid_and_read_in_order_of_time(
    tmp_path: Path,
) -> None:
    """rosbag2 with the storage preset ``fastwrite`` and other recorders write such files."""
    types = message_types()
    channel = mcap_text('/a') + mcap_text('cdr') + struct.pack('<I', 0)
    records = [
        mcap_record(1, mcap_text('ros2') + mcap_text('test')),
        mcap_record(3, struct.pack('<H', 1) + mcap_text(TEXT) + mcap_text('') + mcap_text('')),
        mcap_record(4, struct.pack('<HH', 7, 1) + channel),
    ]
    for number in (1, 0, 2):
        data = types.serialize_cdr(types.types[TEXT](data=f'/a {number}'), TEXT)
        stamp = START_NS + number * STEP_NS
        records.append(mcap_record(5, struct.pack('<HIQQ', 7, 0, stamp, stamp) + bytes(data)))
    magic, footer = b'\x89MCAP0\r\n', mcap_record(2, bytes(20))
    file = tmp_path / 'plain.mcap'
    file.write_bytes(magic + b''.join(records) + footer + magic)
    assert read(file) == (texts(0, 3), [])
    file.write_bytes(magic + b''.join(records) + mcap_record(5, b'cut')[:-1])
    found, reports = read(file)
    assert found == texts(0, 3)
    assert 'its end is missing or damaged' in reports[0]


def test_the_number_of_lost_messages_is_reported(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 20)
    database = apsw.Connection(str(storage_file(bag)))
    database.execute('DELETE FROM messages WHERE id > 5')
    database.close()
    found, reports = read(bag)
    assert found == texts(0, 5)
    assert reports == [
        f'{bag}: 15 messages on /a are lost: metadata.yaml counts them, but they cannot be read'
    ]
    with Bag(bag, [].append) as opened:
        assert opened.recorded_counts['/a'] == 20


def test_the_number_of_messages_in_a_damaged_chunk_is_reported(tmp_path: Path) -> None:
    file = storage_file(
        write_bag(tmp_path / 'b', {'/a': qos()}, 20, 'mcap', padding=300_000, compressed=True)
    )
    data = bytearray(file.read_bytes())
    place = data.index(b'zstd', len(data) // 4) + 20
    data[place : place + 9] = b'\xff' * 9
    file.write_bytes(data)
    found, reports = read(file)
    lost = 20 - len(found)
    assert 0 < lost < 7
    assert any(
        f'{lost} messages on /a are lost: the index of the file counts' in r for r in reports
    )
    assert len(found) == len(set(found))


def test_aliases_and_deep_nesting_in_yaml_are_rejected() -> None:
    assert load_plain_yaml('a: [1, {b: 2}]') == {'a': [1, {'b': 2}]}
    assert load_plain_yaml('[' * 20 + ']' * 20)
    for text in ('[' * 21 + ']' * 21, '[' * 1_000_000, '- ' * 1_000_000 + 'a'):
        with pytest.raises(ValueError, match='nested'):
            load_plain_yaml(text)
    with pytest.raises(ValueError, match='YAML alias'):
        load_plain_yaml('{a: &x [1], b: *x}')


def test_an_index_that_points_outside_the_chunks_is_reported(tmp_path: Path) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 5, 'mcap'))
    opened = McapFile(file)
    (chunk,) = opened._chunks
    data = file.read_bytes()
    wrong = data.replace(
        struct.pack('<QQQ', chunk.start_ns, chunk.end_ns, chunk.offset),
        struct.pack('<QQQ', chunk.start_ns, chunk.end_ns, 8),
    )
    assert wrong != data
    file.write_bytes(wrong)
    found, reports = read(file)
    assert found == []
    assert any('points to byte 8, where no chunk begins' in report for report in reports)
