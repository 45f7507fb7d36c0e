"""Replays rosbag2 recordings like ``ros2 bag play``, but needs no installed rosbag2.

    ros2 run bevdepth_ros player BAG [BAG ...] [--rate 1.0] [--loop] [--clock] [--topics ...]

The player publishes the recorded bytes of each message at its log time, with the recorded quality
of service. At the end of the bag, the player prints the number of messages and their delay, and
exits. Services control the player: pause, resume, toggle_paused, play_next and step.

    ros2 service call /bag_player/pause std_srvs/srv/Trigger
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import numpy as np
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from bevdepth_ros.bags.message_classes import message_class
from bevdepth_ros.bags.playback import Follower, Timeline
from bevdepth_ros.bags.player_options import CLOCK_TOPIC, Options, arguments, bags_of, options_of
from bevdepth_ros.bags.reader import Bag, BagError
from bevdepth_ros.bags.topics import Topic
from bevdepth_ros.process import end_process, ros_process, sleep_until, split_arguments

NODE_NAME = 'bag_player'
MAX_NAMED = 50
"""Largest number of topics that an error message lists."""
DEPTH = 10
"""Smallest history depth of a publisher."""
LATCHED_DEPTH = 100
"""Largest number of messages of a latched topic that late subscribers receive."""
MAX_TOPICS = 2000
"""Largest number of topics that are played. Each topic needs a publisher, which takes memory and
time. No robot records more topics."""
SETTLE_S = 0.5
"""The replay assumes that all subscribers are connected if no subscriber was added for this
time."""
IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
"""Messages of these types that have no stamp are published with their log time as stamp."""


class Player:
    """Publishes the messages of one or several bags."""

    def __init__(self, node: Node, bag: Bag, options: Options | None = None) -> None:
        """Create the services, and a publisher for every chosen topic.

        A topic that cannot be published is skipped with a warning, for example if its message type
        is not installed.

        Args:
            node: owner of publishers and services.
            bag: open bag.
            options: options of the replay; None means that all topics are played at the recorded
                speed.

        Raises:
            BagError: an option names a topic that the bag does not have, the bag has too many
                topics, or the bag ends before the start offset.
        """
        self._node, self._bag, self._options = node, bag, options or Options()
        if self._options.start_s > bag.duration_s:
            raise BagError(
                f'--start-offset {self._options.start_s:g} is beyond the end of the bag, which is '
                f'{bag.duration_s:.3g} s long: give a smaller number'
            )
        self._first_ns = bag.start_ns + round(self._options.start_s * 1e9)
        duration_s = self._options.duration_s
        self._stop_ns = (
            bag.end_ns + 1 if duration_s is None else self._first_ns + round(duration_s * 1e9)
        )
        self._publishers = {
            topic.name: publisher
            for topic in self._chosen()
            if (publisher := self._publisher(topic))
        }
        self._clock = node.create_publisher(Clock, CLOCK_TOPIC, 1) if self._options.clock else None
        self.timeline = Timeline(self._options.rate, self._first_ns, self._options.paused)
        self._follower = Follower(self.timeline, self._tick)
        self._late_s: deque[float] = deque(maxlen=100_000)
        self._count = 0
        self._unstamped: set[str] = set()
        self._create_services()

    def wait_for_subscribers(self, timeout_s: float) -> None:
        """Wait until subscribers are connected. If no subscriber is found within ``timeout_s``
        seconds, log a warning and return.
        """
        deadline = time.monotonic() + timeout_s
        count, settled_at = 0, time.monotonic()
        while time.monotonic() < (settled_at if count else deadline):
            sleep_until(time.monotonic() + 0.02)
            now_count = sum(
                publisher.get_subscription_count() for publisher in self._publishers.values()
            )
            if now_count > count:
                count, settled_at = now_count, time.monotonic() + SETTLE_S
        if not count:
            self._node.get_logger().warning(
                f'no node subscribed to a topic of the bag within {timeout_s:g} s; the replay '
                'starts without subscribers'
            )

    def play(self, linger_s: float = 0.0) -> None:
        """Publish the bag once.

        Args:
            linger_s: time to wait after the last message, so that this message is delivered,
                seconds.
        """
        self._count = 0
        self.timeline.begin(self._first_ns)
        self._follower.begin()
        self._publish_earlier_latched()
        for name, stamp_ns, data in self._bag.messages(
            self._publishers.keys(), self._first_ns, self._stop_ns
        ):
            due = self._follower.wait_for(stamp_ns)
            self._publish(name, stamp_ns, data)
            self._late_s.append(time.monotonic() - due)
            self._count += 1
        self._follower.wait(linger_s)

    def summary(self) -> str:
        """Return a sentence with the number of published messages and their delay."""
        if not self._late_s:
            return 'played no message'
        p50, p99 = np.percentile(self._late_s, (50, 99)) * 1e3
        return (
            f'played {self._count} messages{self._lost()}, late by {p50:.2f} ms (p50) and '
            f'{p99:.2f} ms (p99)'
        )

    def _lost(self) -> str:
        """Return a clause with the number of lost messages. The clause is empty if no message is
        lost, or if only a part of the bag was played.
        """
        options, topics = self._options, self._bag.recorded_counts
        expected = sum(topics.get(name, 0) for name in self._publishers)
        whole = options.start_s == 0 and options.duration_s is None
        missing = expected - self._count
        return f' of {expected} ({missing} are lost)' if whole and missing > 0 else ''

    def _publish_earlier_latched(self) -> None:
        """Publish the latched messages that were recorded before the start offset, because a
        subscriber of a latched topic also receives messages from before its subscription.
        """
        latched = [name for name in self._publishers if self._bag.topics[name].latched]
        for name, stamp_ns, data in self._bag.messages(
            latched, self._bag.start_ns, self._first_ns
        ):
            self._publish(name, stamp_ns, data)

    def _publish(self, name: str, stamp_ns: int, data: bytes) -> None:
        if self._bag.topics[name].message_type in IMAGE_TYPES and not _has_stamp(data):
            data = _with_stamp(data, stamp_ns)
            if name not in self._unstamped:
                self._unstamped.add(name)
                self._node.get_logger().info(
                    f'images on {name} have no time stamp: the time of their recording is used'
                )
        self._publishers[name].publish(data)

    def _tick(self, bag_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=Time(nanoseconds=bag_ns).to_msg()))

    def _chosen(self) -> list[Topic]:
        """Return the topics that the options choose."""
        options, topics = self._options, self._bag.topics
        for name in (*options.topics, *options.exclude_topics, *options.remap):
            if name not in topics:
                raise BagError(
                    f'the bag has no topic {name}; it has {", ".join(sorted(topics)[:MAX_NAMED])}'
                )
        chosen = [topic for name, topic in topics.items() if options.chooses(name)]
        if len(chosen) > MAX_TOPICS:
            raise BagError(
                f'{len(chosen)} topics are chosen, more than the {MAX_TOPICS} that can be played '
                'at the same time: choose fewer topics with --topics or --regex'
            )
        return chosen

    def _publisher(self, topic: Topic) -> Publisher | None:
        name = self._options.remap.get(topic.name, topic.name)
        try:
            if topic.encoding != 'cdr':
                raise ValueError(f'its encoding is {topic.encoding}')
            return self._node.create_publisher(
                message_class(topic.message_type), name, _qos(topic)
            )
        except ValueError as error:
            self._node.get_logger().warning(
                f'{topic.name} is skipped: {topic.message_type} cannot be published ({error})'
            )
            return None

    def _create_services(self) -> None:
        line = self.timeline
        commands: dict[str, Callable[[], None]] = {
            'pause': line.pause,
            'resume': line.resume,
            'toggle_paused': lambda: line.resume() if line.paused else line.pause(),
            'play_next': line.let_next,
            'step': lambda: line.step(self._options.step_s),
        }
        for name, command in commands.items():
            self._node.create_service(
                Trigger,
                f'~/{name}',
                lambda _, response, command=command: self._run_command(command, response),
            )

    def _run_command(
        self, command: Callable[[], None], response: Trigger.Response
    ) -> Trigger.Response:
        command()
        position_s = (self.timeline.at(time.monotonic()) - self._bag.start_ns) * 1e-9
        response.success = True
        response.message = (
            f'{"paused" if self.timeline.paused else "playing"} at {position_s:.3f} s'
        )
        return response


def _has_stamp(data: bytes) -> bool:
    """Return True if a serialized message that begins with a header has a time stamp."""
    return any(data[4:12])


def _with_stamp(data: bytes, stamp_ns: int) -> bytes:
    """Return a serialized message that begins with a header, with the stamp ``stamp_ns``."""
    order = '<' if data[1] & 1 else '>'
    return data[:4] + struct.pack(f'{order}iI', *divmod(stamp_ns, 1_000_000_000)) + data[12:]


def _qos(topic: Topic) -> QoSProfile:
    """Return the recorded reliability and durability of a topic, with a history depth of ``DEPTH``
    to ``LATCHED_DEPTH``. Without a recorded quality of service, the topic is reliable.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max(
            DEPTH, min(max(topic.depth, topic.count if topic.latched else 0), LATCHED_DEPTH)
        ),
        reliability=ReliabilityPolicy.BEST_EFFORT
        if topic.best_effort
        else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL
        if topic.latched
        else DurabilityPolicy.VOLATILE,
    )


@contextmanager
def served(node: Node) -> Iterator[None]:
    """Execute the services of ``node`` in a thread until the ``with`` block ends."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()


def main(argv: list[str] | None = None) -> None:
    """Play until the end of the bag or a signal; exit with a message if a bag cannot be read."""
    given = arguments(argv)
    with ros_process(split_arguments(argv or sys.argv)[1]):
        node = Node(NODE_NAME, start_parameter_services=False)
        try:
            with Bag(bags_of(given), node.get_logger().error) as bag:
                player = Player(node, bag, options_of(given))
                with served(node):
                    _play(player, given)
                node.get_logger().info(player.summary())
        except BagError as error:
            sys.exit(str(error))
        finally:
            node.destroy_node()
    end_process()


def _play(player: Player, given: argparse.Namespace) -> None:
    player.wait_for_subscribers(given.wait)
    again = True
    while again:
        sleep_until(time.monotonic() + given.delay)
        player.play(given.linger)
        again = given.loop


if __name__ == '__main__':
    main()
