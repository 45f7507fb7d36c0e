"""Records the outputs of the detector as a rosbag2.

    ros2 launch bevdepth_ros detect.launch.py bag:=BAG checkpoint:=FILE record:=detections
    ros2 run bevdepth_ros render --bag BAG --detections detections --out drive.mp4

Images are not recorded, because the replayed bag contains them. To record the images of live
cameras, use `ros2 bag record` of a ROS installation.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.utilities import remove_ros_args

from bevdepth_ros.bags.message_classes import message_class
from bevdepth_ros.bags.writer import STORAGES, BagWriter
from bevdepth_ros.process import end_process, ros_process, spin_until_signal

RECORDED_TOPICS = {
    'objects': 'sensor_msgs/msg/PointCloud2',
    'latency': 'diagnostic_msgs/msg/DiagnosticArray',
    'label_info': 'vision_msgs/msg/LabelInfo',
    'tracks': 'vision_msgs/msg/Detection3DArray',
    'detections': 'vision_msgs/msg/Detection3DArray',
}
"""Topics of the detector, relative to the name of the detector, and their types. The recorder
subscribes to the detections last, because a launch starts its replay when the detector has
discovered this subscription. The detector has then usually discovered the other subscriptions,
too."""
LATCHED = 'label_info'
QUEUE_DEPTH = 100


class Recorder(Node):
    """Writes every message with the time of the node's clock; with ``use_sim_time``, this is
    the time of the replay.
    """

    def __init__(self, bag: BagWriter, detector: str):
        """Subscribe to the topics of the node named ``detector``, and to /diagnostics."""
        super().__init__('bevdepth_recorder')
        self._bag = bag
        self._early: list[tuple[str, str, bytes]] = []
        self._warned = False
        topics = {
            f'{detector}/{name}': message_type for name, message_type in RECORDED_TOPICS.items()
        }
        topics = {'/diagnostics': RECORDED_TOPICS['latency']} | topics
        for topic, message_type in topics.items():
            durability = (
                DurabilityPolicy.TRANSIENT_LOCAL
                if topic.endswith(LATCHED)
                else DurabilityPolicy.VOLATILE
            )
            quality = QoSProfile(depth=QUEUE_DEPTH, durability=durability)
            self.create_subscription(
                message_class(message_type),
                topic,
                partial(self._take, topic, message_type),
                quality,
                raw=True,
            )

    def _take(self, topic: str, message_type: str, data: bytes) -> None:
        """Write one message. Messages that arrive before the first /clock message get the time of
        that message.
        """
        self._early.append((topic, message_type, data))
        now_ns = self.get_clock().now().nanoseconds
        if now_ns:
            self._write_early(now_ns)

    def finish(self) -> None:
        """Write the messages that still wait for the first /clock, with the system time. There may
        be such messages, because a short replay can end before the first /clock arrives.
        """
        if self._early:
            self.get_logger().warning('no /clock was received; messages get the system time')
            self._write_early(time.time_ns())

    def _write_early(self, now_ns: int) -> None:
        for message in self._early:
            self._write(*message, now_ns)
        self._early.clear()

    def _write(self, topic: str, message_type: str, data: bytes, now_ns: int) -> None:
        try:
            self._bag.write_serialized(
                topic, message_type, now_ns, data, latched=topic.endswith(LATCHED)
            )
        except ValueError as error:
            if not self._warned:
                self.get_logger().warning(
                    f'time went back, as in a looped replay; only the first pass is recorded: '
                    f'{error}'
                )
            self._warned = True


def _give_up(error: Exception) -> None:
    """Stop recording, so that a partial recording is not mistaken for a complete one."""
    raise error


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'recorder',
        description='Record the outputs of the detector in a rosbag2 until a signal arrives.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='folder to which the bag is written',
    )
    parser.add_argument('--force', action='store_true', help='replace an existing bag')
    parser.add_argument(
        '--detector',
        default='/bevdepth_detector',
        help='the node whose outputs are recorded (default %(default)s)',
    )
    parser.add_argument(
        '--storage',
        choices=sorted(STORAGES),
        default='mcap',
        help='format of the bag (default %(default)s)',
    )
    return parser.parse_args(remove_ros_args(argv or sys.argv)[1:])


def main(argv: list[str] | None = None) -> None:
    """Record until a signal; exit with a message if the bag exists or cannot be written."""
    options = _options(argv)
    if options.out.exists() and not options.force:
        sys.exit(
            f'recorder: {options.out} exists: choose another folder, remove it, or replace it '
            'with --force'
        )
    with ros_process():
        try:
            with BagWriter(options.out, options.storage) as bag:
                node = Recorder(bag, options.detector)
                try:
                    spin_until_signal(node, on_error=_give_up)
                    node.finish()
                finally:
                    node.destroy_node()
        except (OSError, sqlite3.Error) as error:
            sys.exit(f'recorder: {options.out} was not written: {error}')
    end_process()


if __name__ == '__main__':
    main()
