from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from std_srvs.srv import Trigger

from bevdepth_ros.bags.messages import compressed_image
from bevdepth_ros.bags.player import Player, served
from bevdepth_ros.bags.player_options import Options
from bevdepth_ros.bags.reader import Bag, BagError
from bevdepth_ros.bags.writer import BagWriter
from tests.ros.bags.text_bags import START_NS, STEP_NS, STORAGES, qos, write_bag
from tests.ros.graph import TIMEOUT_S, Graph, wait_until


def play(graph: Graph, path: Path, wait_s: float = 10.0, **options) -> Player:
    node = Node('player')
    with Bag(path, node.get_logger().error) as bag:
        player = Player(node, bag, Options(**options))
        player.wait_for_subscribers(wait_s)
        player.play(linger_s=0.2)
    node.destroy_node()
    return player


def expect(messages: list, texts: list[str]) -> None:
    wait_until(lambda: len(messages) >= len(texts), f'{len(texts)} messages')
    assert [message.data for message in messages] == texts


def run_player(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-m', 'bevdepth_ros.bags.player', *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures('graph')
def test_the_error_about_a_start_offset_beyond_the_end_contains_the_length_of_the_bag(
    tmp_path: Path,
):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()})
    process = run_player(bag, '--start-offset', 100)
    assert process.wait() == 1
    assert re.search(
        r'--start-offset 100 is beyond the end of the bag, which is [\d.]+ s long',
        process.stderr.read(),
    )


@pytest.mark.parametrize('storage', STORAGES)
def test_every_message_is_published_with_its_recorded_bytes(
    graph: Graph, tmp_path: Path, storage: str
):
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
    with Bag(bag, node.get_logger().error) as recording:
        player = Player(node, recording)
        offered = {}
        for topic in topics:
            wait_until(lambda topic=topic: graph.node.get_publishers_info_by_topic(topic), topic)
            profile = graph.node.get_publishers_info_by_topic(topic)[0].qos_profile
            offered[topic] = (
                profile.reliability == ReliabilityPolicy.RELIABLE,
                profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            )
        assert offered == {
            '/latched': (True, True),
            '/lossy': (False, False),
            '/plain': (True, False),
            '/unsaid': (True, False),
            '/tf_static': (True, True),
        }
        player.play()
        late = graph.collect(
            String, '/latched', QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )
        expect(late, ['/latched 0'])
    node.destroy_node()


def test_a_topic_whose_message_type_is_not_installed_is_skipped_with_a_warning(
    graph: Graph, tmp_path: Path, capfd: pytest.CaptureFixture
):
    bag = write_bag(tmp_path / 'bag', {'/strange': qos()}, 3, kind='nowhere_msgs/msg/Thing')
    play(graph, bag, wait_s=0.0)
    assert (
        '/strange is skipped: nowhere_msgs/msg/Thing cannot be published' in capfd.readouterr().err
    )


def test_the_clock_runs_from_the_start_to_the_end_of_the_bag_at_the_playback_rate(
    graph: Graph, tmp_path: Path
):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 30)
    clocks = graph.collect(Clock, '/clock', 1000)
    graph.collect(String, '/a')
    play(graph, bag, rate=4.0, clock=True)
    stamps = [clock.clock.sec * 10**9 + clock.clock.nanosec for clock in clocks]
    steps = {later - earlier for earlier, later in itertools.pairwise(stamps)}
    assert stamps[0] - START_NS < 29 * STEP_NS < stamps[-1] - START_NS
    assert min(steps) > 0
    assert all(abs(step - 40_000_000 * round(step / 40_000_000)) <= 1 for step in steps)


def test_latched_messages_from_before_the_played_part_of_a_bag_are_published_first(
    graph: Graph, tmp_path: Path
):
    bag = write_bag(
        tmp_path / 'bag',
        {'/a': qos(), '/tf_static': qos(durability=QosDurability.TRANSIENT_LOCAL)},
        8,
    )
    messages = graph.collect(String, '/a', 100)
    latched = graph.collect(String, '/tf_static', 100)
    play(graph, bag, start_s=0.06, duration_s=0.041)
    expect(messages, ['/a 3', '/a 4', '/a 5'])
    expect(latched, [f'/tf_static {number}' for number in range(6)])


def test_topics_can_be_selected_excluded_and_remapped(graph: Graph, tmp_path: Path):
    bag = write_bag(tmp_path / 'bag', {'/a': qos(), '/b': qos(), '/c': qos()}, 2)
    messages = {topic: graph.collect(String, topic, 100) for topic in ('/a', '/b', '/c', '/other')}
    play(graph, bag, topics=('/a', '/b', '/c'), exclude_topics=('/c',), remap={'/b': '/other'})
    expect(messages['/a'], ['/a 0', '/a 1'])
    expect(messages['/other'], ['/b 0', '/b 1'])
    play(graph, bag, topics=('/b',))
    expect(messages['/b'], ['/b 0', '/b 1'])
    assert len(messages['/a']) == 2
    assert messages['/c'] == []


@pytest.mark.parametrize('count', [11, 100])
def test_late_subscribers_receive_all_latched_messages(
    graph: Graph, tmp_path: Path, count: int
) -> None:
    latched = qos(durability=QosDurability.TRANSIENT_LOCAL)
    bag = write_bag(tmp_path / 'bag', {'/latched': latched}, count)
    node = Node('player')
    with Bag(bag, pytest.fail) as recording:
        Player(node, recording, Options(rate=50.0)).play()
        profile = QoSProfile(depth=count, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        late = graph.collect(String, '/latched', profile)
        expect(late, [f'/latched {number}' for number in range(count)])
    node.destroy_node()


def test_the_summary_counts_lost_messages(graph: Graph, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 5)
    metadata = bag / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('message_count: 5', 'message_count: 8'))
    player = play(graph, bag, wait_s=0.0)
    assert player.summary().startswith('played 5 messages of 8 (3 are lost), late by ')


def test_a_topic_that_is_not_in_the_bag_is_reported_by_name(graph: Graph, tmp_path: Path):
    bag = write_bag(tmp_path / 'bag', {'/a': qos(), '/b': qos()}, 1)
    for options in ({'topics': ('/x',)}, {'exclude_topics': ('/x',)}, {'remap': {'/x': '/y'}}):
        with pytest.raises(BagError, match='the bag has no topic /x; it has /a, /b'):
            play(graph, bag, **options)


def test_the_services_pause_step_and_resume_playback_and_the_clock_never_goes_back(
    graph: Graph, tmp_path: Path
):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 40)
    messages, clocks = graph.collect(String, '/a', 100), graph.collect(Clock, '/clock', 1000)
    node = Node('bag_player')
    clients = {
        name: graph.node.create_client(Trigger, f'/bag_player/{name}')
        for name in ('pause', 'resume', 'toggle_paused', 'play_next', 'step')
    }

    def call(name: str) -> str:
        assert clients[name].wait_for_service(60)
        future = clients[name].call_async(Trigger.Request())
        wait_until(future.done, name)
        assert future.result().success
        return future.result().message

    def stands_still() -> int:
        count = len(messages)
        time.sleep(0.1)
        assert len(messages) == count
        return count

    with Bag(bag, node.get_logger().error) as recording:
        player = Player(node, recording, Options(clock=True, paused=True, step_s=0.05))
        with served(node):
            player.wait_for_subscribers(10.0)
            thread = threading.Thread(target=player.play, args=(0.2,))
            thread.start()
            wait_until(lambda: len(clocks) > 10, 'the clock while paused')
            assert len({(clock.clock.sec, clock.clock.nanosec) for clock in clocks}) == 1
            assert stands_still() == 0
            assert call('play_next') == 'paused at 0.000 s'
            expect(messages, ['/a 0'])
            assert stands_still() == 1
            call('step')
            expect(messages, ['/a 0', '/a 1', '/a 2'])
            assert stands_still() == 3
            assert call('pause') == 'paused at 0.050 s'
            assert call('resume').startswith('playing at 0.05')
            wait_until(lambda: len(messages) > 6, 'messages after the pause')
            assert call('toggle_paused').startswith('paused at ')
            stands_still()
            assert call('toggle_paused').startswith('playing at ')
            thread.join()
    expect(messages, [f'/a {number}' for number in range(40)])
    stamps = [clock.clock.sec * 10**9 + clock.clock.nanosec for clock in clocks]
    assert stamps == sorted(stamps)
    node.destroy_node()


def test_images_that_were_recorded_without_a_stamp_are_published_with_their_log_time_as_stamp(
    graph: Graph, tmp_path: Path
):
    with BagWriter(tmp_path / 'bag') as writer:
        for number, stamp_ns in enumerate((0, START_NS - 5)):
            image = compressed_image(stamp_ns, 'camera', b'jpeg')
            writer.write(
                '/image', 'sensor_msgs/msg/CompressedImage', START_NS + number * STEP_NS, image
            )
    images = graph.collect(CompressedImage, '/image')
    play(graph, tmp_path / 'bag')
    wait_until(lambda: len(images) == 2, 'both images')
    assert [image.header.stamp.sec * 10**9 + image.header.stamp.nanosec for image in images] == [
        START_NS,
        START_NS - 5,
    ]
    assert [(image.header.frame_id, image.format, bytes(image.data)) for image in images] == [
        ('camera', 'jpeg', b'jpeg')
    ] * 2


def test_the_summary_reports_the_number_of_messages_and_their_delay(graph: Graph, tmp_path: Path):
    player = play(graph, write_bag(tmp_path / 'bag', {'/a': qos()}, 5), wait_s=0.0)
    assert player.summary().startswith('played 5 messages, late by ')


def test_the_program_plays_a_bag_with_renamed_topics_and_exits_at_the_end_of_the_bag(
    graph: Graph, tmp_path: Path
):
    bag = write_bag(tmp_path / 'bag', {'/a': qos(), '/b': qos()}, 3)
    messages = graph.collect(String, '/a', 100)
    renaming = ('--remap', '/a:=/b', '/b:=/a')
    process = run_player(bag, '--rate', '2', '--linger', '0.2', *renaming)
    log = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 0
    assert 'played 6 messages' in log
    assert 'deprecated' not in log
    expect(messages, ['/b 0', '/b 1', '/b 2'])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_looping_player_ends_without_an_error_when_it_is_interrupted_several_times(
    graph: Graph, tmp_path: Path, number: int
):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 3)
    messages = graph.collect(String, '/a', 100)
    process = run_player(bag, '--loop', '--linger', '0')
    wait_until(lambda: len(messages) >= 7, 'a third round')
    # Ctrl-C in a terminal sends one signal to the player, and ros2 launch sends a second signal.
    while process.poll() is None:
        process.send_signal(number)
        time.sleep(0.05)
    log = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 0
    assert 'Traceback' not in log
    assert [message.data for message in messages[:7]] == [f'/a {step % 3}' for step in range(7)]


def test_a_missing_bag_is_rejected_with_a_message(domain_id: int, tmp_path: Path):
    process = run_player(tmp_path / 'nowhere')
    log = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 1
    assert f'the bag {tmp_path / "nowhere"} cannot be read: ' in log
    assert 'Traceback' not in log


def test_readable_messages_of_a_truncated_bag_are_played_and_the_damage_is_reported(
    domain_id: int, tmp_path: Path
):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 20, 'mcap')
    file = next(bag.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:1000])
    process = run_player(bag, '--wait', '0', '--linger', '0')
    log = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 0
    assert f'{file} is damaged' in log
    assert 0 < int(re.search(r'played (\d+) messages', log)[1]) < 20
    assert 'Traceback' not in log
