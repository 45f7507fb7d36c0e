"""QoS of inputs and outputs. Parameters such as ``qos_overrides./topic.publisher.depth`` override
these QoS policies.
"""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind


def make_qos(
    depth: int, reliability: str, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
) -> QoSProfile:
    """Return a profile that keeps the last ``depth`` messages.

    Args:
        depth: number of messages.
        reliability: ``reliable`` or ``best_effort``.
        durability: volatile or transient local.
    """
    policy = (
        ReliabilityPolicy.RELIABLE if reliability == 'reliable' else ReliabilityPolicy.BEST_EFFORT
    )
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy, durability=durability
    )


def overrides(node: Node, topic: str, entity: str) -> QoSOverridingOptions | None:
    """Return options with the QoS policies that the user overrides for a topic, or None if the
    user overrides no policy of this topic.

    The options must not contain other policies, because rclpy would declare read-only parameters
    for them. If ``image_reliability`` or ``image_queue_size`` changed later, these parameters
    would still have the values of the first activation.

    Args:
        node: node with ``automatically_declare_parameters_from_overrides``.
        topic: absolute or relative name of the topic.
        entity: ``publisher`` or ``subscription``.
    """
    prefix = f'qos_overrides.{node.resolve_topic_name(topic)}.{entity}.'
    kinds = [kind for kind in QoSPolicyKind if node.has_parameter(prefix + kind.name.lower())]
    return QoSOverridingOptions(kinds) if kinds else None
