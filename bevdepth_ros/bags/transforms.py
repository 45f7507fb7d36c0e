"""The tf of a recording, asked as the node asks the running one."""

from __future__ import annotations

from pathlib import Path

from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer

from bevdepth_ros.rig.tf_listener import transform_from_odometry
from bevdepth_ros.rig.transforms import Transforms


class RecordedTransforms(Transforms):
    """The tf of a whole recording."""

    def __init__(self, duration_s: float):
        """Prepare for a recording of this length, seconds."""
        self._buffer = Buffer(cache_time=Duration(seconds=duration_s + 1))

    def add(self, message: TFMessage, static: bool) -> None:
        """Take a message of /tf or /tf_static."""
        for transform in message.transforms:
            if static:
                self._buffer.set_transform_static(transform, 'recording')
            else:
                self._buffer.set_transform(transform, 'recording')

    def add_odometry(self, message: Odometry) -> None:
        """Take a pose that stands in for tf."""
        self._buffer.set_transform(transform_from_odometry(message), 'recording')

    def close(self) -> None:
        """Do nothing: there is no subscription."""


def read_transforms(bag: Path) -> RecordedTransforms:
    """Return the tf of a bag."""
    with Reader(bag) as reader:
        transforms = RecordedTransforms(reader.duration * 1e-9)
        connections = [
            connection
            for connection in reader.connections
            if connection.topic in ('/tf', '/tf_static')
        ]
        for connection, _, data in reader.messages(connections):
            transforms.add(
                deserialize_message(bytes(data), TFMessage),
                static=connection.topic == '/tf_static',
            )
    return transforms
