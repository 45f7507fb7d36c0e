"""Publishes or receives raw images: python -m tests.ros.large_images publish|receive COUNT."""

from __future__ import annotations

import sys
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from bevdepth_ros.process import make_executor

TOPIC = '/large_images'
TIMEOUT_S = 60.0
PAUSE_S = 0.1


def publish(node: Node, count: int) -> None:
    """Wait for a subscriber, publish ``count`` images, and wait until the subscriber has ended."""
    publisher = node.create_publisher(Image, TOPIC, 10)
    image = Image(height=900, width=1600, encoding='bgr8', step=4800, data=bytes(4_320_000))
    data = bytes(serialize_message(image))
    while not publisher.get_subscription_count():
        time.sleep(PAUSE_S)
    for _ in range(count):
        publisher.publish(data)
        time.sleep(PAUSE_S)
    while publisher.get_subscription_count():
        time.sleep(PAUSE_S)


def receive(node: Node, count: int) -> int:
    """Subscribe with best-effort QoS and return the number of received images.

    The function returns after ``count`` images, or earlier at the timeout.
    """
    images: list[bytes] = []
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, TOPIC, images.append, qos, raw=True)
    executor = make_executor()
    executor.add_node(node)
    deadline = time.monotonic() + TIMEOUT_S
    while len(images) < count and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.2)
    return len(images)


def main() -> None:
    """Run the publisher or the subscriber."""
    end, count = sys.argv[1], int(sys.argv[2])
    rclpy.init()
    node = Node(f'{end}_large_images')
    if end == 'publish':
        publish(node, count)
    else:
        print(receive(node, count))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main()
