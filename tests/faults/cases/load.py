"""High load, parameter changes and lifecycle transitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage
from tf2_msgs.msg import TFMessage

from tests.faults.bench import Bench
from tests.faults.cases.case import ALL, NOTHING, Case
from tests.faults.cases.tf import made_up_frames
from tests.faults.injections import FRONT
from tests.faults.life import (
    flood,
    impossible_transitions,
    many_nodes,
    parameter_storm,
    pause_of_activity,
    rejected_parameters,
    stopped_process,
    stopped_subscriber,
    truncated_checkpoint,
)
from tests.ros.camera_stream import camera_info
from tests.ros.graph import wait_until
from tests.ros.messages import compressed, encoded, noise_image, stamped, transform


@contextmanager
def invalid_messages(bench: Bench) -> Iterator[None]:
    """Publish invalid bytes on topics that the node subscribes to. Every message has
    bytes after the CDR header, because a message of only this header crashes the middleware.
    """
    now_ns = bench.stream.now_ns()
    whole = {
        '/CAM_FRONT/image': (
            CompressedImage,
            stamped(compressed(encoded(noise_image(0))), FRONT, now_ns),
        ),
        '/CAM_FRONT/camera_info': (CameraInfo, stamped(camera_info(FRONT), FRONT, now_ns)),
        '/tf': (TFMessage, TFMessage(transforms=[transform('map', 'base_link', now_ns)])),
    }
    for topic, (kind, message) in whole.items():
        data = serialize_message(message)
        publisher = bench.graph.node.create_publisher(kind, topic, 10)
        for bad in (
            data[: len(data) // 2],
            data[:8] + b'\xff\xff\xff\x7f' + data[12:],
            b'\x00\x01' + 60 * b'\xff',
        ):
            for _ in range(10):
                publisher.publish(bad)
        wait_until(lambda publisher=publisher: publisher.wait_for_all_acked(), 'delivery')
        bench.graph.node.destroy_publisher(publisher)
    yield


CASES = (
    Case(
        '60 trigger cycles per second',
        flood,
        overlapping=True,
        tolerated='sync_slop_s .0.06 s. must be below the trigger cycle .0.017 s.',
    ),
    Case(
        'invalid bytes instead of messages',
        invalid_messages,
        tolerated='went back in time|could not be processed: ValueError',
    ),
    Case('a subscriber is stopped', stopped_subscriber),
    Case('20 nodes join and leave', many_nodes),
    Case('parameters change continuously', parameter_storm),
    Case('parameters that are rejected', rejected_parameters),
    Case(
        'thousands of invented frames in tf',
        made_up_frames,
        ALL,
        ('WARN', 'tf', 'tf frames is reached'),
    ),
    Case(
        'the weights file is replaced by a truncated file',
        truncated_checkpoint,
        NOTHING,
        ('ERROR', 'node', 'activate failed'),
    ),
    Case(
        'the process is stopped for 1.2 s, again and again',
        stopped_process,
        ALL,
        # The problem depends on what the node processes first when it continues: the timeout of
        # silent cameras, the timeout of a decoding, or the images that waited.
        ('ERROR', 'cameras', ''),
    ),
    Case('lifecycle transitions that the state does not allow', impossible_transitions),
    Case('the node is deactivated', pause_of_activity, NOTHING, None),
)
