"""Replays a rosbag2 as ``ros2 bag play`` does, where rosbag2 is not installed.

    ros2 run bevdepth_ros player BAG [--rate 1.0] [--loop] [--clock]

Messages go out as the bytes they were recorded as, on time, with their stamps and the recorded quality of service. The
program ends at the end of the bag.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterable

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rclpy.utilities import remove_ros_args
from rosbags.interfaces import Connection, QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from rosidl_runtime_py.utilities import get_message

from bevdepth_ros.process import ros_process, sleep_until

CLOCK_HZ = 100
DEPTH = 10
"""Messages that a publisher keeps for slow subscribers, at least."""
LATCHED_DEPTH = 100
"""Most messages of a latched topic that late subscribers get."""
SETTLE_S = 0.5
"""Subscribers count as complete when none was added for this time."""


class Player:
    """Publishes the messages of one bag."""

    def __init__(self, node: Node, reader: Reader, rate: float = 1.0, clock: bool = False):
        """Create a publisher for every topic whose type this ROS knows; the others are logged and skipped.

        Args:
            node: owner of the publishers.
            reader: open bag.
            rate: speed relative to real time, greater than 0.
            clock: publish /clock.
        """
        self._node, self._reader, self._rate = node, reader, rate
        self._publishers = self._create_publishers(reader.connections)
        self._clock = node.create_publisher(Clock, '/clock', 1) if clock else None
        self._late_s: deque[float] = deque(maxlen=100_000)

    def wait_for_subscribers(self, timeout_s: float) -> None:
        """Wait until subscribers have gathered, at most ``timeout_s`` seconds for the first."""
        deadline = time.monotonic() + timeout_s
        count, settled_at = 0, time.monotonic()
        while time.monotonic() < (settled_at if count else deadline):
            sleep_until(time.monotonic() + 0.02)
            now_count = sum(publisher.get_subscription_count() for publisher in self._publishers.values())
            if now_count > count:
                count, settled_at = now_count, time.monotonic() + SETTLE_S
        if not count:
            self._node.get_logger().warning(f'nobody subscribed to a topic of the bag within {timeout_s} s')

    def play(self, start_s: float = 0.0, linger_s: float = 0.0) -> None:
        """Publish the bag once.

        Args:
            start_s: part of the bag to leave out at its beginning, seconds.
            linger_s: how long to go on after the last message, so that it is received, seconds.

        Raises:
            Exception: of many types, when the bag is broken; what came before has been published.
        """
        first_ns = self._reader.start_time + round(start_s * 1e9)
        self._begin(first_ns)
        connections = [connection for connection in self._reader.connections if connection.id in self._publishers]
        for connection, stamp_ns, data in self._reader.messages(connections, start=first_ns) if connections else ():
            due = self._started_at + (stamp_ns - first_ns) * 1e-9 / self._rate
            self._wait_until(due)
            self._publishers[connection.id].publish(bytes(data))
            self._late_s.append(time.monotonic() - due)
        self._wait_until(time.monotonic() + linger_s)

    def summary(self) -> str:
        """Return how many messages went out and how late, in words."""
        if not self._late_s:
            return 'played no message'
        p50, p99 = np.percentile(self._late_s, (50, 99)) * 1e3
        return f'played {len(self._late_s)} messages, late by {p50:.2f} ms (p50) and {p99:.2f} ms (p99)'

    def _begin(self, first_ns: int) -> None:
        self._started_at = self._next_tick_at = time.monotonic()
        self._first_ns = first_ns
        self._wait_until(self._started_at)

    def _wait_until(self, due: float) -> None:
        """Sleep, publishing /clock on the way."""
        while self._clock is not None and self._next_tick_at <= due:
            sleep_until(self._next_tick_at)
            now_ns = self._first_ns + round((self._next_tick_at - self._started_at) * self._rate * 1e9)
            self._clock.publish(Clock(clock=Time(nanoseconds=now_ns).to_msg()))
            self._next_tick_at += 1 / CLOCK_HZ
        sleep_until(due)

    def _create_publishers(self, connections: Iterable[Connection]) -> dict[int, Publisher]:
        publishers = {}
        for connection in connections:
            try:
                message_type = get_message(connection.msgtype)
                publishers[connection.id] = self._node.create_publisher(message_type, connection.topic, _qos(connection))
            except (ImportError, AttributeError, ValueError) as error:
                self._node.get_logger().warning(f'{connection.topic} is skipped: this ROS does not know {connection.msgtype} ({error})')
        return publishers


def _qos(connection: Connection) -> QoSProfile:
    """Return the quality of service that the topic was recorded with; ROS's usual one where the bag does not say."""
    offered = connection.ext.offered_qos_profiles
    latched = connection.topic == '/tf_static' or any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in offered)
    best_effort = bool(offered) and all(qos.reliability == QosReliability.BEST_EFFORT for qos in offered)
    recorded = max((qos.depth for qos in offered), default=0)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max(DEPTH, min(max(recorded, connection.msgcount if latched else 0), LATCHED_DEPTH)),
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser('player', description='Replay a rosbag2 (sqlite3 or mcap).')
    parser.add_argument('bag', help='folder of the bag, or a single .db3 or .mcap file')
    parser.add_argument('--rate', type=_positive, default=1.0, help='speed relative to real time (default 1.0)')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--clock', action='store_true', help=f'publish /clock at {CLOCK_HZ} Hz')
    parser.add_argument('--start', type=float, default=0.0, metavar='S', help='leave out the first S seconds')
    parser.add_argument('--wait', type=float, default=10.0, metavar='S', help='wait at most S seconds for a subscriber (default 10)')
    parser.add_argument('--linger', type=float, default=0.5, metavar='S', help='stay S seconds after the last message (default 0.5)')
    return parser.parse_args(remove_ros_args(argv or sys.argv)[1:])


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be greater than 0, got {text}')
    return value


def main(argv: list[str] | None = None) -> None:
    """Play until the end of the bag or an interrupt; a bag that cannot be read ends the process with a sentence."""
    options = _arguments(argv)
    with ros_process():
        node = Node('bag_player', start_parameter_services=False)
        try:
            with Reader(options.bag) as reader:
                player = Player(node, reader, options.rate, options.clock)
                player.wait_for_subscribers(options.wait)
                player.play(options.start, options.linger)
                while options.loop:
                    player.play(options.start, options.linger)
                node.get_logger().info(player.summary())
        except Exception as error:  # rosbags, sqlite3 and the decompressors raise many types on a broken bag
            sys.exit(f'the bag {options.bag} cannot be played to its end: {error}')
        finally:
            node.destroy_node()


if __name__ == '__main__':
    main()
