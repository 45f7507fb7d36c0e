"""Types for recorded topics and messages, shared by the readers of storage files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

from rosbags.interfaces import Qos, QosDurability, QosReliability
from rosbags.rosbag2.metadata import parse_qos

from bevdepth_ros.bags.plain_yaml import load_plain_yaml

Message = tuple[str, int, bytes]
"""Topic, log time in nanoseconds, serialized message."""

HEAD_BYTES = 4
"""Size of the CDR header. A message that ends after its header crashes the middleware of
subscribers."""


@dataclass(frozen=True)
class Topic:
    """A recorded topic.

    Attributes:
        name: recorded name of the topic.
        message_type: type of the messages, such as ``sensor_msgs/msg/Image``.
        profiles: quality of service of each publisher of the topic; empty if the bag contains no
            quality of service.
        encoding: encoding of the messages; ROS 2 uses ``cdr``.
        count: number of messages on the topic in the storage files.
    """

    name: str
    message_type: str
    profiles: tuple[Qos, ...] = ()
    encoding: str = 'cdr'
    count: int = 0

    def counted(self, count: int) -> Topic:
        """Return this topic with ``count`` more messages."""
        return dataclasses.replace(self, count=self.count + count)

    @property
    def latched(self) -> bool:
        """True if subscribers also receive messages that were published before the
        subscription.
        """
        return self.name == '/tf_static' or any(
            qos.durability == QosDurability.TRANSIENT_LOCAL for qos in self.profiles
        )

    @property
    def depth(self) -> int:
        """Largest history depth of the publishers; 0 if the bag does not contain a depth."""
        return max((qos.depth for qos in self.profiles if isinstance(qos.depth, int)), default=0)

    @property
    def best_effort(self) -> bool:
        """True if all publishers offered best effort."""
        return bool(self.profiles) and all(
            qos.reliability == QosReliability.BEST_EFFORT for qos in self.profiles
        )


@lru_cache(maxsize=256)
def quality_of_service(text: str) -> tuple[Qos, ...]:
    """Return the QoS profiles that a storage file contains as YAML; empty if the text is
    invalid.
    """
    try:
        return tuple(parse_qos(load_plain_yaml(text) or []))
    except Exception:  # invalid text causes exceptions of many types
        return ()
