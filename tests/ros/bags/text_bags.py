"""Writes bags of numbered texts with the library rosbags, and reads bags with ``Bag``."""

from __future__ import annotations

import itertools
from pathlib import Path

import yaml
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from bevdepth_ros.bags.reader import LATEST_NS, Bag

START_NS = 1_531_883_530_404_844_000
STEP_NS = 20_000_000
FOREVER = QosTime(9223372036, 854775807)
STORAGES = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}
TEXT = 'std_msgs/msg/String'


def message_types() -> Typestore:
    """Return the message types that the bags contain."""
    return get_typestore(Stores.ROS2_HUMBLE)


def read(path: Path, span: tuple[int, int] = (0, LATEST_NS)) -> tuple[list[str], list[str]]:
    """Return the texts of a bag without padding, and the reports of the reader. ``span`` limits
    the times of the messages."""
    reports: list[str] = []
    with Bag(path, reports.append) as bag:
        messages = list(bag.messages(bag.topics, *span))
    stamps = [stamp_ns for _, stamp_ns, _ in messages]
    assert stamps == sorted(stamps)
    types = message_types()
    return [types.deserialize_cdr(data, TEXT).data.rstrip() for _, _, data in messages], reports


def texts(first: int, stop: int) -> list[str]:
    """Return the texts of topic /a with the numbers ``first`` to ``stop - 1``."""
    return [f'/a {number}' for number in range(first, stop)]


def qos(reliability=QosReliability.RELIABLE, durability=QosDurability.VOLATILE) -> list[Qos]:
    return [
        Qos(
            QosHistory.KEEP_LAST,
            10,
            reliability,
            durability,
            FOREVER,
            FOREVER,
            QosLiveliness.AUTOMATIC,
            FOREVER,
            False,
        )
    ]


def write_bag(
    path: Path,
    topics: dict[str, list[Qos]],
    count: int = 10,
    storage: str = 'sqlite3',
    first: int = 0,
    kind: str = TEXT,
    padding: int = 0,
    encoding: str = 'cdr',
    compressed: bool = False,
) -> Path:
    """Write ``count`` texts per topic, 20 ms apart. A text consists of the name of the topic, the
    number of the message and ``padding`` spaces. The first message has the number ``first``.
    """
    typestore = get_typestore(Stores.ROS2_HUMBLE)
    if kind != TEXT:
        typestore.register(get_types_from_msg('string data', kind))
    writer = Writer(path, version=8, storage_plugin=STORAGES[storage])
    if compressed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        settings = {'typestore': typestore, 'serialization_format': encoding}
        connections = [
            writer.add_connection(topic, kind, offered_qos_profiles=profiles, **settings)
            for topic, profiles in topics.items()
        ]
        for number, connection in itertools.product(range(first, first + count), connections):
            text = f'{connection.topic} {number}' + ' ' * padding
            writer.write(
                connection,
                START_NS + number * STEP_NS,
                typestore.serialize_cdr(typestore.types[kind](data=text), kind),
            )
    return path


def storage_file(bag: Path) -> Path:
    """Return the only storage file of a bag."""
    (file,) = (path for path in bag.iterdir() if path.suffix != '.yaml')
    return file


def write_split_bag(path: Path, storage: str, parts: int = 3, count: int = 5) -> list[Path]:
    """Write a bag of topic /a in ``parts`` files with ``count`` texts each, as rosbag2 splits a
    bag. Return the files in order of time."""
    files = []
    for part in range(parts):
        written = write_bag(
            path if part == 0 else path.with_name(f'{path.name}_{part}'),
            {'/a': qos()},
            count,
            storage,
            first=part * count,
        )
        files.append(
            storage_file(written).rename(
                path / f'{path.name}_{part}{storage_file(written).suffix}'
            )
        )
    metadata = yaml.safe_load((path / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information['relative_file_paths'] = [file.name for file in files]
    information['duration']['nanoseconds'] = (parts * count - 1) * STEP_NS
    information['message_count'] = information['topics_with_message_count'][0]['message_count'] = (
        parts * count
    )
    (path / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    return files
