"""The publisher and the subscriber of bench_node. Each of the two runs in a separate process, with
little work per message.

    python -m tests.benchmarks.node_traffic publish --rate 12 --seconds 60 --begin 0 --out FILE
    python -m tests.benchmarks.node_traffic receive --out FILE

``publish`` serializes the image of each camera once, and then changes only the stamp in the
serialized message. ``receive`` subscribes to serialized messages, records when they arrive, and
ends on SIGINT. Times are time.monotonic(), which is the same clock for all processes of a machine.
Each program writes a JSON file. The file of ``publish`` contains the publication time of the last
image of each set. The file of ``receive`` contains the arrival time of the detections of each set,
and the times of the stages of the node.
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection3DArray

from tests.benchmarks.bench_engine import SIZE, jpeg_files
from tests.ros.camera_rig import START_NS, Rig

NODE = '/bevdepth_detector'
CAMERAS = (
    'CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK',
    'CAM_BACK_RIGHT',
)  # fmt: skip
TOPIC = {'jpeg': '/{camera}/image_rect_compressed', 'raw': '/{camera}/image_raw'}
EXPOSURE_STEP_NS = 500_000
"""Time between the exposures of two consecutive cameras, nanoseconds. It is so short that image
sets do not overlap at high rates."""
CYCLE_PART = 0.5
"""Share of the period in which the images of a set are published, one after the other."""
STAMP = struct.Struct('<iI')
STAMP_AT = 4
"""Position of the stamp of the header in a serialized message, bytes. Before the stamp, there are
4 bytes of encapsulation."""
WARM_UP_S = 3.0
SETTLE_PERIODS = 5
"""Time to wait for the last detections, in periods of the images."""
SPIN_LEAD_S = 0.002
"""The publisher sleeps until a publication is due in this time, seconds. Then the publisher polls
the clock until the publication is due."""


class FastRig(Rig):
    """Publishes images of cameras that expose nearly at the same time."""

    def stamps_ns(self, time_s: float) -> list[int]:
        begin_ns = START_NS + round(time_s * 1e9)
        return [begin_ns + EXPOSURE_STEP_NS * index for index in range(len(self.cameras))]


def images(kind: str) -> list[bytearray]:
    """Return one serialized image per camera."""
    messages = []
    for camera, data in zip(CAMERAS, jpeg_files(), strict=True):
        if kind == 'jpeg':
            message: CompressedImage | Image = CompressedImage(format='jpeg', data=data)
        else:
            height, width = SIZE
            pixels = np.random.default_rng(0).integers(0, 256, height * width * 3, np.uint8)
            message = Image(
                height=height, width=width, encoding='bgr8', step=3 * width, data=pixels.tobytes()
            )
        message.header.frame_id = camera
        messages.append(bytearray(serialize_message(message)))
    return messages


def wait_until(moment: float) -> None:
    """Sleep until time.monotonic() reaches ``moment``, with an error of some microseconds."""
    time.sleep(max(0.0, moment - SPIN_LEAD_S - time.monotonic()))
    while time.monotonic() < moment:
        pass


def publish(node: Node, options: argparse.Namespace) -> dict[str, Any]:
    """Publish image sets; return the publication time of the last image of each set, the number
    of warm-up sets, the rate, and the bytes of a set.
    """
    kind = Image if options.kind == 'raw' else CompressedImage
    rig = FastRig(node, CAMERAS, kind, options.depth, TOPIC[options.kind])
    rig.wait_for_detector()
    rig.send_extrinsics()
    rig.send_infos(size=SIZE)
    messages, period = images(options.kind), 1 / options.rate
    publishers = [rig.images[camera] for camera in CAMERAS]
    published: dict[int, float] = {}
    time.sleep(0.5)
    start = time.monotonic()
    for index in range(round(options.rate * (WARM_UP_S + options.seconds))):
        time_s = options.begin + index * period
        wait_until(start + index * period)
        rig.send_poses(time_s)
        for place, (stamp_ns, message) in enumerate(
            zip(rig.stamps_ns(time_s), messages, strict=True)
        ):
            STAMP.pack_into(message, STAMP_AT, *divmod(stamp_ns, 10**9))
            wait_until(start + (index + CYCLE_PART * (place + 1) / len(CAMERAS)) * period)
            moment = time.monotonic()
            publishers[place].publish(bytes(message))
        published[rig.mean_stamp_ns(time_s)] = moment
    took = time.monotonic() - start
    time.sleep(SETTLE_PERIODS * period)
    return {
        'published': {str(stamp): moment for stamp, moment in published.items()},
        'warm_up_sets': round(WARM_UP_S * options.rate),
        'reached_rate': len(published) / took,
        'bytes_per_set': sum(map(len, messages)),
    }


def receive(node: Node) -> dict[str, Any]:
    """Collect detections and latency records until SIGINT."""
    arrived: dict[int, float] = {}
    records: list[bytes] = []

    def take(data: bytes) -> None:
        seconds, nanoseconds = STAMP.unpack_from(data, STAMP_AT)
        arrived[seconds * 10**9 + nanoseconds] = time.monotonic()

    qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
    node.create_subscription(Detection3DArray, f'{NODE}/detections', take, qos, raw=True)
    node.create_subscription(DiagnosticArray, f'{NODE}/latency', records.append, qos, raw=True)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    return {
        'arrived': {str(stamp): moment for stamp, moment in arrived.items()},
        'stages': dict(stages(data) for data in records),
    }


def stages(data: bytes) -> tuple[str, dict[str, float]]:
    """Return the stamp of a serialized latency record, and the time of each stage, ms."""
    message = deserialize_message(data, DiagnosticArray)
    stamp = message.header.stamp
    values = {
        pair.key.removesuffix('_ms'): float(pair.value)
        for pair in message.status[0].values
        if pair.key.endswith('_ms')
    }
    return str(stamp.sec * 10**9 + stamp.nanosec), values


def main() -> None:
    """Run the publisher or the subscriber."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('end', choices=('publish', 'receive'))
    parser.add_argument('--kind', choices=tuple(TOPIC), default='jpeg')
    parser.add_argument('--rate', type=float, default=12.0)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument(
        '--begin', type=float, default=0.0, help='offset of the first stamp, seconds'
    )
    parser.add_argument(
        '--depth', type=int, default=10, help='queue depth of the image publishers'
    )
    parser.add_argument('--out', type=Path, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rclpy.init()
    node = Node(f'bench_{options.end}')
    result = publish(node, options) if options.end == 'publish' else receive(node)
    options.out.write_text(json.dumps(result))
    sys.stdout.flush()


if __name__ == '__main__':
    main()
