"""Reads the tf of a recording. Transforms are looked up with the same methods as live tf."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.serialization import deserialize_message
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer

from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.rig.tf_listener import transform_from_odometry
from bevdepth_ros.rig.transforms import Transforms


class RecordedTransforms(Transforms):
    """The transforms of a whole recording, from tf and, if it is used, odometry."""

    def __init__(self, duration_s: float) -> None:
        """Prepare for a recording of ``duration_s`` seconds."""
        self._buffer = Buffer(cache_time=Duration(seconds=duration_s + 1))
        self._early = OrderedDict()

    def add(self, message: TFMessage, static: bool) -> None:
        """Add a message of /tf or /tf_static."""
        for transform in message.transforms:
            if static:
                self._buffer.set_transform_static(transform, 'recording')
            else:
                self._buffer.set_transform(transform, 'recording')

    def add_odometry(self, message: Odometry) -> None:
        """Add the pose of an odometry message, which is then used like a transform on /tf."""
        self._buffer.set_transform(transform_from_odometry(message), 'recording')

    def close(self) -> None:
        """Do nothing, because there is no subscription that could end."""


def read_transforms(path: Path) -> RecordedTransforms:
    """Return the tf of a bag.

    Raises:
        BagError: the bag cannot be read.
    """
    with Bag(path, get_logger('bag').warning) as bag:
        transforms = RecordedTransforms((bag.end_ns - bag.start_ns) * 1e-9)
        for topic, _, data in bag.messages(('/tf', '/tf_static')):
            transforms.add(deserialize_message(data, TFMessage), static=topic == '/tf_static')
    return transforms
