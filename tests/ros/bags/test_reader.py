"""Readable messages of valid and damaged recordings are read in order, and damage is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_ros.bags.reader import Bag, BagError
from tests.ros.bags.text_bags import (
    START_NS,
    STEP_NS,
    STORAGES,
    TEXT,
    qos,
    read,
    storage_file,
    texts,
    write_bag,
    write_split_bag,
)


def cut(file: Path, part: float) -> None:
    file.write_bytes(file.read_bytes()[: round(file.stat().st_size * part)])


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_in_several_files_is_read_as_one_bag(tmp_path: Path, storage: str) -> None:
    write_split_bag(tmp_path / 'bag', storage)
    assert read(tmp_path / 'bag') == (texts(0, 15), [])
    assert read(tmp_path / 'bag', (START_NS + 4 * STEP_NS, START_NS + 11 * STEP_NS)) == (
        texts(4, 11),
        [],
    )


@pytest.mark.parametrize('storage', STORAGES)
def test_the_reader_returns_time_span_and_topics_of_a_bag(tmp_path: Path, storage: str) -> None:
    write_bag(tmp_path / 'bag', {'/a': qos(), '/b': []}, 4, storage)
    with Bag(tmp_path / 'bag', pytest.fail) as bag:
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + 3 * STEP_NS)
        assert {
            topic.name: (topic.message_type, topic.count, len(topic.profiles))
            for topic in bag.topics.values()
        } == {
            '/a': (TEXT, 4, 1),
            '/b': (TEXT, 4, 0),
        }


@pytest.mark.parametrize('storage', STORAGES)
def test_the_messages_before_the_end_of_a_truncated_file_are_read(
    tmp_path: Path, storage: str
) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 2000, storage))
    cut(file, 0.5)
    found, reports = read(tmp_path / 'bag')
    assert found == texts(0, len(found))
    assert 700 < len(found) < 1400
    assert any(f'{file} is damaged' in report for report in reports)
    with Bag(file, reports.append) as bag:
        assert len(bag.topics['/a'].profiles) == 1
        assert bag.end_ns == START_NS + (len(found) - 1) * STEP_NS


@pytest.mark.parametrize('compressed', [False, True])
def test_only_the_messages_of_a_damaged_chunk_of_an_mcap_file_are_lost(
    tmp_path: Path, compressed: bool
) -> None:
    file = storage_file(
        write_bag(
            tmp_path / 'bag', {'/a': qos()}, 20, 'mcap', padding=300_000, compressed=compressed
        )
    )
    data = bytearray(file.read_bytes())
    place = data.index(b'zstd', len(data) // 4) + 20 if compressed else data.index(b'/a 9') - 39
    # Damage compressed records, or the kind and the length of an uncompressed record.
    data[place : place + 9] = b'\xff' * 9
    file.write_bytes(data)
    found, reports = read(tmp_path / 'bag')
    assert 14 <= len(found) < 20
    assert (found[0], found[-1]) == ('/a 0', '/a 19')
    assert any('is damaged' in report for report in reports)


@pytest.mark.parametrize('storage', STORAGES)
def test_if_one_of_several_files_is_damaged_only_messages_of_its_damaged_part_are_lost(
    tmp_path: Path, storage: str
) -> None:
    files = write_split_bag(tmp_path / 'bag', storage, count=500)
    cut(files[1], 0.6)
    found, reports = read(tmp_path / 'bag')
    lost = 1500 - len(found)
    assert 0 < lost < 500
    assert found == texts(0, 1000 - lost) + texts(1000, 1500)
    assert any(f'{files[1]} is damaged' in report for report in reports)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_without_metadata_or_without_one_of_its_files_is_read_in_order_of_time(
    tmp_path: Path, storage: str
) -> None:
    files = write_split_bag(tmp_path / 'bag', storage, parts=12, count=2)
    (tmp_path / 'bag' / 'metadata.yaml').rename(tmp_path / 'kept.yaml')
    found, reports = read(tmp_path / 'bag')
    assert found == texts(0, 24)
    assert len(reports) == 1
    assert 'metadata' in reports[0]
    (tmp_path / 'kept.yaml').rename(tmp_path / 'bag' / 'metadata.yaml')
    files[3].unlink()
    found, reports = read(tmp_path / 'bag')
    assert found == texts(0, 6) + texts(8, 24)
    assert files[3].name in reports[0]


def test_a_bag_with_protobuf_messages_is_rejected_with_the_remedy(tmp_path: Path) -> None:
    write_bag(tmp_path / 'bag', {'/a': qos()}, 2, 'mcap', encoding='protobuf')
    for path in (tmp_path / 'bag', storage_file(tmp_path / 'bag')):
        with pytest.raises(
            BagError,
            match=f'the bag {path} contains protobuf messages, but no .*with nuscenes_to_bag',
        ):
            Bag(path, [].append)


@pytest.mark.parametrize(
    'name', ['nowhere', 'foreign.mcap', 'foreign.db3', 'foreign.txt', 'empty']
)
def test_the_error_about_a_path_that_is_not_a_bag_contains_the_path(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / 'empty').mkdir()
    if name.startswith('foreign'):
        (tmp_path / name).write_bytes(b'no bag at all')
    with pytest.raises(BagError, match=f'^the bag {tmp_path / name} cannot be read: ') as caught:
        Bag(tmp_path / name, [].append)
    assert str(caught.value).count('cannot be read') == 1


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'#ROSBAG V2.0\n', 'it is a bag of ROS 1; convert it with `rosbags-convert'),
        (b'', 'empty'),
    ],
)
def test_a_bag_of_ros_1_and_an_empty_file_are_rejected_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / 'drive.bag').write_bytes(content)
    with pytest.raises(BagError, match=reason):
        Bag(tmp_path / 'drive.bag', [].append)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_behind_a_symbolic_link_is_read(tmp_path: Path, storage: str) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 4, storage))
    (tmp_path / 'folder').symlink_to(tmp_path / 'bag')
    (tmp_path / 'file').symlink_to(file)
    for path in (tmp_path / 'folder', tmp_path / 'file'):
        assert read(path) == (texts(0, 4), [])


@pytest.mark.parametrize('storage', STORAGES)
def test_a_file_that_the_metadata_does_not_name_is_left_out_and_reported(
    tmp_path: Path, storage: str
) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 4, storage))
    copy = file.with_name(f'copy{file.suffix}')
    copy.write_bytes(file.read_bytes())
    found, reports = read(tmp_path / 'bag')
    assert found == texts(0, 4)
    assert reports == [
        f'{copy} is left out, because metadata.yaml does not name this file; to read the file, '
        'give its path'
    ]
    assert read(copy) == (texts(0, 4), [])


def test_in_a_list_of_files_the_files_that_are_not_bags_are_left_out(tmp_path: Path) -> None:
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 4, 'sqlite3'))
    for end in ('-wal', '-shm'):
        file.with_name(file.name + end).touch()
    with Bag(sorted(file.parent.iterdir()), pytest.fail) as bag:
        assert bag.topics['/a'].count == 4
    with pytest.raises(BagError, match='neither an MCAP file nor an SQLite file'):
        Bag([file.parent / 'metadata.yaml'], pytest.fail)
