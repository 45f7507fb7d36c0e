"""What the readers of bags share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rosbags.interfaces import Qos, QosDurability, QosReliability

Message = tuple[str, int, bytes]
"""Topic, stamp in nanoseconds, serialised message."""

HEAD_BYTES = 4
"""Of every serialised message. One that has nothing behind them crashes the ROS 2 library that
reads it, here or in another node."""


@dataclass(frozen=True)
class Topic:
    """A recorded topic.

    Attributes:
        name: as recorded.
        message_type: such as ``sensor_msgs/msg/Image``.
        profiles: quality of service of its publishers; empty where the bag does not say.
        encoding: of its messages; ``cdr`` is what ROS 2 speaks.
        count: of its messages.
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
        """Whether late subscribers get what was published before."""
        return self.name == '/tf_static' or any(
            qos.durability == QosDurability.TRANSIENT_LOCAL for qos in self.profiles
        )

    @property
    def depth(self) -> int:
        """Messages that its publishers kept, at most; 0 where the bag does not say."""
        return max((qos.depth for qos in self.profiles if isinstance(qos.depth, int)), default=0)

    @property
    def best_effort(self) -> bool:
        """Whether no publisher offered more than best effort."""
        return bool(self.profiles) and all(
            qos.reliability == QosReliability.BEST_EFFORT for qos in self.profiles
        )
