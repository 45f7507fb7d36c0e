"""Runs a node with the executor of the detector program. Most other tests use an executor of
rclpy."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from bevdepth_ros.detector.intake import GuardedSubscriber
from bevdepth_ros.process import make_executor
from tests.ros.graph import Graph, wait_until


@pytest.fixture
def node(graph: Graph):
    node = Node('receiver')
    executor = make_executor()
    executor.add_node(node)
    running = SimpleNamespace(spins=True)

    def spin() -> None:
        while running.spins:
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    running.spins = False
    thread.join()
    executor.shutdown()
    node.destroy_node()


def test_the_executor_delivers_images_to_the_subscribers_of_the_node(
    graph: Graph, node: Node
) -> None:
    received: list[CompressedImage] = []
    errors: list[Exception] = []
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
    subscriber = GuardedSubscriber(errors.append, node, CompressedImage, '/image', qos_profile=qos)
    subscriber.registerCallback(received.append)
    publisher = graph.node.create_publisher(CompressedImage, '/image', qos)
    wait_until(publisher.get_subscription_count, 'the subscription')
    for number in range(3):
        publisher.publish(CompressedImage(format=str(number)))
    wait_until(lambda: len(received) == 3, 'the images')
    assert [message.format for message in received] == ['0', '1', '2']
    assert not errors


def test_errors_in_a_callback_and_the_first_image_without_an_error_are_reported(
    graph: Graph, node: Node
) -> None:
    errors: list[Exception | None] = []
    denominators, quotients = iter((0, 0, 1, 1)), list[float]()
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
    subscriber = GuardedSubscriber(errors.append, node, CompressedImage, '/image', qos_profile=qos)
    subscriber.registerCallback(lambda message: quotients.append(1 / next(denominators)))
    publisher = graph.node.create_publisher(CompressedImage, '/image', qos)
    wait_until(publisher.get_subscription_count, 'the subscription')
    for _ in range(4):
        publisher.publish(CompressedImage())
    wait_until(lambda: len(quotients) == 2, 'two images without an error')
    assert [type(error) for error in errors] == [ZeroDivisionError, ZeroDivisionError, type(None)]
