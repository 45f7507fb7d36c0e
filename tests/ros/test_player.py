from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from bevdepth_ros.player import Player
from tests.ros.graph import Graph, wait_until

START_NS = 1_531_883_530_404_844_000
STEP_NS = 20_000_000
FOREVER = QosTime(9223372036, 854775807)
STORAGES = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}
TEXT = 'std_msgs/msg/String'


def qos(reliability=QosReliability.RELIABLE, durability=QosDurability.VOLATILE) -> list[Qos]:
    return [Qos(QosHistory.KEEP_LAST, 10, reliability, durability, FOREVER, FOREVER, QosLiveliness.AUTOMATIC, FOREVER, False)]


def write_bag(
    path: Path, topics: dict[str, list[Qos]], count: int = 10, storage: str = 'sqlite3', first: int = 0, kind: str = TEXT
) -> Path:
    """Write ``count`` texts a topic, 20 ms apart; the text is the message's number."""
    typestore = get_typestore(Stores.ROS2_HUMBLE)
    if kind != TEXT:
        typestore.register(get_types_from_msg('string data', kind))
    with Writer(path, version=8, storage_plugin=STORAGES[storage]) as writer:
        connections = [
            writer.add_connection(topic, kind, typestore=typestore, offered_qos_profiles=profiles) for topic, profiles in topics.items()
        ]
        for number, connection in itertools.product(range(first, first + count), connections):
            data = typestore.serialize_cdr(typestore.types[kind](data=f'{connection.topic} {number}'), kind)
            writer.write(connection, START_NS + number * STEP_NS, data)
    return path


def play(graph: Graph, path: Path, rate: float = 1.0, clock: bool = False, start_s: float = 0.0, wait_s: float = 10.0) -> Player:
    node = Node('player')
    with Reader(path) as reader:
        player = Player(node, reader, rate, clock)
        player.wait_for_subscribers(wait_s)
        player.play(start_s, linger_s=0.2)
    node.destroy_node()
    return player


def expect(messages: list, texts: list[str]) -> None:
    wait_until(lambda: len(messages) >= len(texts), f'{len(texts)} messages')
    assert [message.data for message in messages] == texts


def run_player(*arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, '-m', 'bevdepth_ros.player', *map(str, arguments)], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize('storage', STORAGES)
def test_every_message_goes_out_as_the_bytes_it_was_recorded_as(graph: Graph, tmp_path: Path, storage: str):
    bag = write_bag(tmp_path / 'bag', {'/a': qos(), '/b': qos()}, storage=storage)
    received: dict[str, list[bytes]] = {'/a': [], '/b': []}
    for topic, data in received.items():
        graph.node.create_subscription(String, topic, data.append, 100, raw=True)
    play(graph, bag)
    with Reader(bag) as reader:
        recorded: dict[str, list[bytes]] = {'/a': [], '/b': []}
        for connection, _, data in reader.messages():
            recorded[connection.topic].append(bytes(data))
    wait_until(lambda: sum(map(len, received.values())) >= 20, 'all messages')
    assert received == recorded


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_in_several_files_plays_as_one(graph: Graph, tmp_path: Path, storage: str):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 5, storage)
    more = write_bag(tmp_path / 'more', {'/a': qos()}, 5, storage, first=5)
    second = next(path for path in more.iterdir() if path.suffix != '.yaml')
    shutil.move(second, bag / second.name)
    metadata = yaml.safe_load((bag / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information['relative_file_paths'].append(second.name)
    information['duration']['nanoseconds'] = 9 * STEP_NS
    information['message_count'] = information['topics_with_message_count'][0]['message_count'] = 10
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    messages = graph.collect(String, '/a', 100)
    play(graph, bag)
    expect(messages, [f'/a {number}' for number in range(10)])


def test_a_single_storage_file_plays_without_its_folder(graph: Graph, tmp_path: Path):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 3, 'mcap')
    messages = graph.collect(String, '/a', 100)
    play(graph, next(bag.glob('*.mcap')))
    expect(messages, ['/a 0', '/a 1', '/a 2'])


def test_the_recorded_quality_of_service_is_offered(graph: Graph, tmp_path: Path):
    topics = {
        '/latched': qos(durability=QosDurability.TRANSIENT_LOCAL),
        '/lossy': qos(QosReliability.BEST_EFFORT),
        '/plain': qos(),
        '/unsaid': [],
        '/tf_static': [],
    }
    bag = write_bag(tmp_path / 'bag', topics, 1)
    node = Node('player')
    with Reader(bag) as reader:
        player = Player(node, reader)
        offered = {}
        for topic in topics:
            wait_until(lambda topic=topic: graph.node.get_publishers_info_by_topic(topic), topic)
            profile = graph.node.get_publishers_info_by_topic(topic)[0].qos_profile
            offered[topic] = (profile.reliability == ReliabilityPolicy.RELIABLE, profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)
        assert offered == {
            '/latched': (True, True),
            '/lossy': (False, False),
            '/plain': (True, False),
            '/unsaid': (True, False),
            '/tf_static': (True, True),
        }
        player.play()
        late = graph.collect(String, '/latched', QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        expect(late, ['/latched 0'])
    node.destroy_node()


def test_a_type_that_this_ros_does_not_know_is_skipped_with_a_warning(graph: Graph, tmp_path: Path, capfd: pytest.CaptureFixture):
    bag = write_bag(tmp_path / 'bag', {'/strange': qos()}, 3, kind='nowhere_msgs/msg/Thing')
    play(graph, bag, wait_s=0.0)
    assert '/strange is skipped: this ROS does not know nowhere_msgs/msg/Thing' in capfd.readouterr().err


def test_the_clock_runs_from_the_bags_beginning_to_its_end_at_the_rate(graph: Graph, tmp_path: Path):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 30)
    clocks = graph.collect(Clock, '/clock', 1000)
    graph.collect(String, '/a')
    play(graph, bag, rate=4.0, clock=True)
    stamps = [clock.clock.sec * 10**9 + clock.clock.nanosec for clock in clocks]
    steps = {later - earlier for earlier, later in itertools.pairwise(stamps)}
    assert stamps[0] - START_NS < 29 * STEP_NS < stamps[-1] - START_NS
    assert min(steps) > 0
    assert all(abs(step - 40_000_000 * round(step / 40_000_000)) <= 1 for step in steps)


def test_a_start_offset_leaves_out_the_beginning(graph: Graph, tmp_path: Path):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 5)
    messages = graph.collect(String, '/a', 100)
    play(graph, bag, start_s=0.06)
    expect(messages, ['/a 3', '/a 4'])


def test_the_summary_tells_how_many_went_out_and_how_late(graph: Graph, tmp_path: Path):
    player = play(graph, write_bag(tmp_path / 'bag', {'/a': qos()}, 5), wait_s=0.0)
    assert player.summary().startswith('played 5 messages, late by ')


def test_the_program_ends_by_itself_at_the_end_of_the_bag(graph: Graph, tmp_path: Path):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 3)
    messages = graph.collect(String, '/a', 100)
    process = run_player(bag, '--rate', '2', '--linger', '0.2')
    log = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert 'played 3 messages' in log
    expect(messages, ['/a 0', '/a 1', '/a 2'])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_loop_plays_on_until_it_is_interrupted(graph: Graph, tmp_path: Path, number: int):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 3)
    messages = graph.collect(String, '/a', 100)
    process = run_player(bag, '--loop', '--linger', '0')
    wait_until(lambda: len(messages) >= 7, 'a third round')
    process.send_signal(number)
    log = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert 'Traceback' not in log
    assert [message.data for message in messages[:7]] == [f'/a {step % 3}' for step in range(7)]


def test_a_missing_or_foreign_bag_is_refused_with_a_sentence(domain_id: int, tmp_path: Path):
    (tmp_path / 'foreign.mcap').write_bytes(b'no bag at all')
    (tmp_path / 'empty').mkdir()
    for name in ('nowhere', 'foreign.mcap', 'empty'):
        process = run_player(tmp_path / name)
        log = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert f'the bag {tmp_path / name} cannot be played to its end: ' in log
        assert 'Traceback' not in log


@pytest.mark.parametrize('storage', STORAGES)
def test_a_truncated_bag_is_named_in_a_sentence(domain_id: int, tmp_path: Path, storage: str):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 2000, storage)
    file = next(path for path in bag.iterdir() if path.suffix != '.yaml')
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    process = run_player(bag, '--wait', '0')
    log = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert f'the bag {bag} cannot be played to its end: ' in log
    assert 'Traceback' not in log
